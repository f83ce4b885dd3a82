//! Released output of one connection that its socket has not taken yet.
//!
//! Responses are encoded here, when they are written to the socket, a portion at a time. A large
//! message is encoded once for all connections that it waits for (`large`). Takes only `Released`
//! output; must never see the store.

mod large;
mod pending;

use std::io::{self, IoSlice, Write};
use std::rc::Rc;
use std::time::Instant;

use crate::codec::json::{self, ServerTx};
use crate::codec::websocket;
use crate::limits::{
    SCRATCH_BYTES_KEPT, TICK_SENDING, WRITE_BYTES_PER_PORTION, WRITE_PORTIONS_PER_TURN_MAX,
};
use crate::message::{Message, Output, Response};
use crate::storage::held::Released;
use crate::sys::clock::Timestamp;
use large::{Begun, LargeMessages, Queued};
use pending::Pending;

/// How far sending got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The socket took everything.
    All,
    /// The socket is full; more when it is writable.
    Blocked,
    /// The share of this turn is used up, and the socket may take more.
    More,
    /// Everything is out and nothing more will come.
    Ended,
}

/// Bytes and messages that sockets have taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delivered {
    pub bytes: u64,
    pub messages: u64,
}

/// Buffers for encoding, shared by all connections, and counters of what all of them have sent.
#[derive(Debug, Default)]
pub struct WriteBuffers {
    server_tx: ServerTx,
    json: Vec<u8>,
    /// The message of which `json` has the text: the subscribers of its mailbox come one after the
    /// other.
    encoded: Option<Rc<Message>>,
    frames: Vec<u8>,
    large: LargeMessages,
    delivered: Delivered,
    /// When it is enough of output that waits; none if there is no limit.
    enough_at: Option<Instant>,
    /// Whether the present connection has a turn in the next round, for which its output waits.
    has_turn_later: bool,
    /// Whether a connection sends one message of a replay at a time.
    pub replays_slowly: bool,
}

impl WriteBuffers {
    pub fn delivered(&self) -> Delivered {
        self.delivered
    }

    /// Begins a round over connections.
    pub fn begin_round(&mut self, now: Instant) {
        self.enough_at = Some(now + TICK_SENDING);
    }

    /// Begins with a connection. `has_turn_later`: it waits for its turn in the next round.
    pub fn begin_turn(&mut self, has_turn_later: bool) {
        self.has_turn_later = has_turn_later;
    }

    /// Whether what still waits is left for the next round.
    pub fn is_round_over(&self) -> bool {
        self.enough_at.is_some_and(|enough_at| Instant::now() >= enough_at)
    }

    /// Portions of waiting output that the present connection may send.
    fn portions_left(&self) -> usize {
        if self.has_turn_later || self.is_round_over() {
            0
        } else if self.replays_slowly {
            1
        } else {
            WRITE_PORTIONS_PER_TURN_MAX
        }
    }

    /// Memory of the large messages that wait for any connection.
    pub fn large_bytes(&self) -> usize {
        self.large.bytes()
    }

    /// Ends a round: frees buffers that a large message has made large.
    pub fn trim(&mut self) {
        self.encoded = None;
        for buffer in [&mut self.json, &mut self.frames] {
            if buffer.capacity() > SCRATCH_BYTES_KEPT {
                *buffer = Vec::new();
            }
        }
        self.large.trim();
    }
}

/// Output waiting for one connection's socket.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Encoded, not yet taken by the socket, from `sent` on.
    encoded: Vec<u8>,
    sent: usize,
    /// A large message that comes after it, and has begun to leave.
    begun: Option<Begun>,
    /// Not yet encoded.
    pending: Pending,
    /// The end has been pushed; nothing goes out after it.
    ended: bool,
    /// `encoded` was encoded for a hand-over, replays included: it counts for no limit.
    is_handed_over: bool,
}

impl Outbox {
    /// Drops what waits and all that will come: the peer reads no more.
    pub fn abandon(&mut self) {
        *self = Outbox { ended: true, ..Outbox::default() };
    }

    /// What another process has encoded, and whether the end comes after it.
    pub fn handed_over(encoded: Vec<u8>, ended: bool) -> Outbox {
        Outbox { encoded, ended, is_handed_over: true, ..Outbox::default() }
    }

    /// Bytes that [`Outbox::encode_all`] takes for what waits, about.
    pub fn waiting_bytes(&self) -> usize {
        self.bytes() + self.pending.replay_bytes()
    }

    /// Encodes all that waits; returns it, and whether the end comes after it.
    pub fn encode_all(&mut self, server_tx: Timestamp) -> (&[u8], bool) {
        if self.begun.is_some() || !self.pending.is_empty() {
            let (mut bytes, mut buffers) = (Vec::new(), WriteBuffers::default());
            // Memory takes everything, and writing to it does not fail.
            while let Ok(Sent::More) =
                self.send(std::iter::empty(), &mut bytes, server_tx, &mut buffers)
            {}
            *self = Outbox::handed_over(bytes, self.ended);
        }
        (&self.encoded[self.sent..], self.ended)
    }

    /// Whether more waits than a peer may leave unread.
    pub fn is_over(&self, bytes_max: usize) -> bool {
        !self.is_handed_over && self.bytes() > bytes_max
    }

    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty() && self.begun.is_none() && self.pending.is_empty()
    }

    /// None if it is as a new one: nothing waits, and the end has not been pushed.
    pub fn boxed(self) -> Option<Box<Outbox>> {
        (!self.is_empty() || self.ended).then(|| Box::new(self))
    }

    /// Bytes that wait. A replay counts nothing: it is in the mailbox already.
    pub fn bytes(&self) -> usize {
        let begun = self.begun.as_ref().map_or(0, Begun::rest_bytes);
        self.encoded.len() - self.sent + begun + self.pending.bytes()
    }

    /// Memory of what waits for this connection alone, besides [`WriteBuffers::large_bytes`].
    pub fn own_bytes(&self) -> usize {
        self.encoded.capacity() + self.pending.own_bytes()
    }

    /// Memory of large messages that wait for this connection, and maybe for others.
    pub fn large_bytes(&self) -> usize {
        self.begun.as_ref().map_or(0, Begun::rest_bytes) + self.pending.shared_bytes()
    }

    /// Appends output, and writes as much as the socket takes; of what waits, as many portions as
    /// are left. What can leave at once is encoded at once, and never queued.
    pub fn send(
        &mut self,
        outputs: impl Iterator<Item = Released>,
        socket: &mut impl Write,
        server_tx: Timestamp,
        buffers: &mut WriteBuffers,
    ) -> io::Result<Sent> {
        buffers.server_tx.set(server_tx);
        buffers.frames.clear();
        let mut queues = !self.is_empty();
        for output in outputs.map(Released::into_output) {
            if self.ended {
                continue;
            }
            if let Output::End = output {
                self.ended = true;
                continue;
            }
            queues |= matches!(output, Output::Response(Response::Replay(_)))
                || self.begun.is_some()
                || buffers.frames.len() >= WRITE_BYTES_PER_PORTION;
            let queued = buffers.large.queued(output);
            if queues {
                self.pending.push_back(queued);
            } else {
                self.encode(queued, buffers);
            }
        }
        // The first of what waits behind them leaves with them.
        if !buffers.frames.is_empty() && !self.pending.is_empty() && buffers.portions_left() > 1 {
            self.encode_portion(buffers);
        }
        self.write_frames(socket, buffers)?;
        if self.is_empty() { Ok(self.all_sent()) } else { self.send_waiting(socket, buffers) }
    }

    fn all_sent(&self) -> Sent {
        if self.ended { Sent::Ended } else { Sent::All }
    }

    /// Writes `buffers.frames` and what is begun after them, and keeps what the socket does not
    /// take.
    fn write_frames(
        &mut self,
        socket: &mut impl Write,
        buffers: &mut WriteBuffers,
    ) -> io::Result<()> {
        if buffers.frames.is_empty() {
            return Ok(());
        }
        let written = self.write(&buffers.frames, socket)?.unwrap_or(0);
        buffers.delivered.bytes += written as u64;
        let of_frames = written.min(buffers.frames.len());
        self.encoded.extend_from_slice(&buffers.frames[of_frames..]);
        self.advance_begun(written - of_frames);
        Ok(())
    }

    /// Writes once: `head`, then what is begun. `None` when the socket is full.
    fn write(&self, head: &[u8], socket: &mut impl Write) -> io::Result<Option<usize>> {
        match &self.begun {
            None => taken(socket.write(head)),
            Some(begun) => {
                let [json, end] = begun.rest();
                let slices = [IoSlice::new(head), IoSlice::new(json), IoSlice::new(end)];
                taken(socket.write_vectored(&slices))
            }
        }
    }

    fn advance_begun(&mut self, bytes: usize) {
        self.begun = self.begun.take().and_then(|begun| begun.advance(bytes));
    }

    fn send_waiting(
        &mut self,
        socket: &mut impl Write,
        buffers: &mut WriteBuffers,
    ) -> io::Result<Sent> {
        for _ in 0..buffers.portions_left() {
            while self.sent < self.encoded.len() || self.begun.is_some() {
                let head = &self.encoded[self.sent..];
                let Some(written) = self.write(head, socket)? else {
                    self.free_sent();
                    return Ok(Sent::Blocked);
                };
                let of_head = written.min(head.len());
                self.sent += of_head;
                self.advance_begun(written - of_head);
                buffers.delivered.bytes += written as u64;
            }
            self.encoded = Vec::new();
            self.sent = 0;
            self.is_handed_over = false;

            buffers.frames.clear();
            self.encode_portion(buffers);
            self.write_frames(socket, buffers)?;
            if self.is_empty() {
                self.pending = Pending::default();
                return Ok(self.all_sent());
            }
        }
        Ok(Sent::More)
    }

    /// Frees what has been sent, once it is half: a reader that takes all but the last bytes of a
    /// long answer must not pin it.
    fn free_sent(&mut self) {
        if self.sent > self.encoded.len() / 2 {
            self.encoded.drain(..self.sent);
            self.encoded.shrink_to_fit();
            self.sent = 0;
        }
    }

    /// Encodes pending output into `buffers.frames`, up to a portion or a large message. A replay
    /// stays at the front until it is through.
    fn encode_portion(&mut self, buffers: &mut WriteBuffers) {
        while buffers.frames.len() < WRITE_BYTES_PER_PORTION && self.begun.is_none() {
            if let Some(Queued::Output(Output::Response(Response::Replay(replay)))) =
                self.pending.front_mut()
                && let Some(message) = replay.next()
            {
                let is_last = replay.is_over();
                let message = Output::Response(Response::Message(message));
                let message = buffers.large.queued(message);
                self.encode(message, buffers);
                if buffers.replays_slowly && !is_last {
                    return;
                }
            } else {
                let Some(queued) = self.pending.pop_front() else { return };
                self.encode(queued, buffers);
            }
        }
    }

    /// Encodes what leaves in one piece. After a large message, nothing may be encoded until it has
    /// left.
    fn encode(&mut self, queued: Queued, buffers: &mut WriteBuffers) {
        match queued {
            Queued::Large(message) => {
                buffers.delivered.messages += 1;
                buffers.encoded = None;
                let begun = Begun::new(message, &buffers.server_tx, &mut buffers.json);
                websocket::text_header(begun.rest_bytes(), &mut buffers.frames);
                self.begun = Some(begun);
            }
            // The messages of a replay have been encoded; the end never waits here.
            Queued::Output(Output::Response(Response::Replay(_)) | Output::End) => {}
            Queued::Output(Output::Response(response)) => frame(&response, buffers),
            Queued::Output(Output::Bytes(bytes)) => buffers.frames.extend_from_slice(&bytes),
        }
    }
}

fn frame(response: &Response, buffers: &mut WriteBuffers) {
    let WriteBuffers { json, encoded, frames, delivered, .. } = buffers;
    let message = if let Response::Message(message) = response { Some(message) } else { None };
    delivered.messages += u64::from(message.is_some());
    let is_encoded = match (message, &*encoded) {
        (Some(message), Some(encoded)) => Rc::ptr_eq(message, encoded),
        _ => false,
    };
    if !is_encoded {
        json.clear();
        json::encode(response, json);
        *encoded = message.cloned();
    }
    websocket::text(&[json, buffers.server_tx.as_bytes()], frames);
}

/// Bytes that a socket has taken; `None` when it is full.
fn taken(written: io::Result<usize>) -> io::Result<Option<usize>> {
    match written {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        written => written.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes that many bytes more.
    struct Reader(usize);

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.0);
            self.0 -= count;
            if count > 0 { Ok(count) } else { Err(io::ErrorKind::WouldBlock.into()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn send(outbox: &mut Outbox, output: Option<Output>, reader_takes: usize) -> Sent {
        let (mut buffers, mut reader) = (WriteBuffers::default(), Reader(reader_takes));
        let outputs = output.map(Released::in_test).into_iter();
        outbox.send(outputs, &mut reader, Timestamp(1.0), &mut buffers).expect("it blocks")
    }

    #[test]
    fn a_reader_that_takes_all_but_the_last_bytes_pins_no_more_than_twice_what_waits() {
        let mut outbox = Outbox::default();
        let answer = Output::Bytes(vec![b'x'; 4_000_000]);
        assert_eq!(send(&mut outbox, Some(answer), 100_000), Sent::Blocked);
        for _ in 0..43 {
            assert_eq!(send(&mut outbox, None, 90_000), Sent::Blocked);
            assert!(outbox.encoded.capacity() <= outbox.own_bytes());
            assert!(outbox.own_bytes() <= 2 * outbox.bytes() + 1_000, "{}", outbox.own_bytes());
        }
        assert_eq!(outbox.bytes(), 30_000);
        assert_eq!(send(&mut outbox, None, 30_000), Sent::All);
        assert_eq!(outbox.own_bytes(), 0);
    }

    #[test]
    fn small_answers_count_as_what_they_take() {
        let mut outbox = Outbox::default();
        send(&mut outbox, Some(Output::Bytes(vec![0; 10])), 0);
        for _ in 0..1_000 {
            send(&mut outbox, Some(Output::Response(Response::Pong("1".into()))), 0);
        }
        let (entry, text) = (size_of::<Queued>(), 32);
        assert!(outbox.own_bytes() >= 1_000 * (entry + text), "{}", outbox.own_bytes());
    }
}
