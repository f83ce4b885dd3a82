//! Released output of one connection that its socket has not taken yet.
//!
//! Answers are encoded here, at the moment they go to the socket, a portion at a time. Takes only
//! `Released` output; never sees the store.

use std::collections::VecDeque;
use std::io::{self, Write};

use crate::codec::json::{self, ServerTx};
use crate::codec::websocket;
use crate::limits::{SCRATCH_BYTES_KEPT, WRITE_BYTES_PER_PORTION, WRITE_PORTIONS_PER_TURN_MAX};
use crate::message::Response;
use crate::storage::held::{Output, Released};
use crate::sys::clock::Timestamp;

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

/// Buffers that sending needs for a moment; one set serves all connections, so it also counts
/// what all of them sent.
#[derive(Debug, Default)]
pub struct Scratch {
    server_tx: ServerTx,
    json: Vec<u8>,
    frames: Vec<u8>,
    delivered: Delivered,
}

impl Scratch {
    /// What has been sent since the start.
    pub fn delivered(&self) -> Delivered {
        self.delivered
    }

    /// Takes back what does not count.
    pub fn set_delivered(&mut self, delivered: Delivered) {
        self.delivered = delivered;
    }

    /// Gives back what a large message has made of it.
    pub fn trim(&mut self) {
        for buffer in [&mut self.json, &mut self.frames] {
            if buffer.capacity() > SCRATCH_BYTES_KEPT {
                *buffer = Vec::new();
            }
        }
    }
}

/// Output waiting for one connection's socket.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Encoded, not yet taken by the socket, from `sent` on.
    encoded: Vec<u8>,
    sent: usize,
    /// Not yet encoded.
    pending: VecDeque<Output>,
    /// Sum of `queued_bytes` of `pending`.
    pending_bytes: usize,
    /// The end has been pushed; nothing goes out after it.
    ended: bool,
}

impl Outbox {
    /// Drops what waits and all that will come: there is nobody to take it.
    pub fn abandon(&mut self) {
        *self = Outbox { ended: true, ..Outbox::default() };
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty() && self.pending.is_empty()
    }

    /// Bytes that wait, replays not counted.
    pub fn bytes(&self) -> usize {
        self.encoded.len() - self.sent + self.pending_bytes
    }

    /// Appends output, and gives the socket as much as it takes. What can leave at once is encoded
    /// at once, and never queued.
    pub fn release(
        &mut self,
        outputs: impl Iterator<Item = Released>,
        socket: &mut impl Write,
        server_tx: Timestamp,
        scratch: &mut Scratch,
    ) -> io::Result<Sent> {
        scratch.server_tx.set(server_tx);
        scratch.frames.clear();
        let mut queues = !self.is_empty();
        for output in outputs.map(Released::into_output) {
            if self.ended {
                continue;
            }
            queues |= scratch.frames.len() >= WRITE_BYTES_PER_PORTION;
            let left = if queues { Some(output) } else { encode(output, scratch) };
            if let Some(output) = left {
                queues = true;
                self.ended = matches!(output, Output::End);
                self.pending_bytes += output.queued_bytes();
                self.pending.push_back(output);
            }
        }
        self.write_frames(socket, scratch)?;
        if self.is_empty() { Ok(Sent::All) } else { self.send(socket, server_tx, scratch) }
    }

    /// Writes `scratch.frames`, and keeps what the socket does not take.
    fn write_frames(&mut self, socket: &mut impl Write, scratch: &mut Scratch) -> io::Result<()> {
        if scratch.frames.is_empty() {
            return Ok(());
        }
        let written = write(socket, &scratch.frames)?.unwrap_or(0);
        scratch.delivered.bytes += written as u64;
        self.encoded.extend_from_slice(&scratch.frames[written..]);
        Ok(())
    }

    /// Gives the socket as much as it takes.
    pub fn send(
        &mut self,
        socket: &mut impl Write,
        server_tx: Timestamp,
        scratch: &mut Scratch,
    ) -> io::Result<Sent> {
        scratch.server_tx.set(server_tx);
        for _ in 0..WRITE_PORTIONS_PER_TURN_MAX {
            while self.sent < self.encoded.len() {
                match write(socket, &self.encoded[self.sent..])? {
                    Some(written) => {
                        self.sent += written;
                        scratch.delivered.bytes += written as u64;
                    }
                    None => return Ok(Sent::Blocked),
                }
            }
            self.encoded = Vec::new();
            self.sent = 0;

            scratch.frames.clear();
            let ended = self.encode_portion(scratch);
            if scratch.frames.is_empty() {
                self.pending = VecDeque::new();
                return Ok(if ended { Sent::Ended } else { Sent::All });
            }
            self.write_frames(socket, scratch)?;
            if ended && self.encoded.is_empty() {
                return Ok(Sent::Ended);
            }
            if ended {
                self.pending.push_front(Output::End);
            }
        }
        Ok(Sent::More)
    }

    /// Encodes pending output into `scratch.frames` up to a portion; tells whether it met the end.
    fn encode_portion(&mut self, scratch: &mut Scratch) -> bool {
        while scratch.frames.len() < WRITE_BYTES_PER_PORTION {
            let Some(output) = self.pending.pop_front() else { return false };
            self.pending_bytes -= output.queued_bytes();
            match encode(output, scratch) {
                None => {}
                Some(Output::Response(Response::Replay(mut replay))) => {
                    if let Some(message) = replay.next() {
                        frame(&Response::Message { message, live_id: None }, scratch);
                        let rest = Output::Response(Response::Replay(replay));
                        self.pending_bytes += rest.queued_bytes();
                        self.pending.push_front(rest);
                    }
                }
                Some(_) => return true, // the end
            }
        }
        false
    }
}

/// Encodes what leaves in one piece; gives back what does not: a replay, or the end.
fn encode(output: Output, scratch: &mut Scratch) -> Option<Output> {
    match output {
        Output::Response(response) if !response.is_replay() => frame(&response, scratch),
        Output::Bytes(bytes) => scratch.frames.extend_from_slice(&bytes),
        output => return Some(output),
    }
    None
}

fn frame(response: &Response, scratch: &mut Scratch) {
    scratch.json.clear();
    scratch.delivered.messages += u64::from(matches!(response, Response::Message { .. }));
    json::encode(response, &scratch.server_tx, &mut scratch.json);
    websocket::text(&scratch.json, &mut scratch.frames);
}

/// Writes once; `None` when the socket is full.
fn write(socket: &mut impl Write, bytes: &[u8]) -> io::Result<Option<usize>> {
    loop {
        match socket.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => return Ok(Some(written)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
