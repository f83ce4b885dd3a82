//! Released output of one connection that its socket has not taken yet.
//!
//! Responses are encoded here, when they are written to the socket, a portion at a time. Takes only
//! `Released` output; must never see the store.

use std::collections::VecDeque;
use std::io::{self, Write};

use crate::codec::json::{self, ServerTx};
use crate::codec::websocket;
use crate::limits::{SCRATCH_BYTES_KEPT, WRITE_BYTES_PER_PORTION, WRITE_PORTIONS_PER_TURN_MAX};
use crate::message::Response;
use crate::message::output::Output;
use crate::storage::held::Released;
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

/// Buffers for encoding, shared by all connections, and counters of what all of them have sent.
#[derive(Debug, Default)]
pub struct WriteBuffers {
    server_tx: ServerTx,
    json: Vec<u8>,
    frames: Vec<u8>,
    delivered: Delivered,
}

impl WriteBuffers {
    pub fn delivered(&self) -> Delivered {
        self.delivered
    }

    /// Frees buffers that a large message has made large.
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
    /// Drops what waits and all that will come: the peer reads no more.
    pub fn abandon(&mut self) {
        *self = Outbox { ended: true, ..Outbox::default() };
    }

    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty() && self.pending.is_empty()
    }

    /// Bytes that wait. A replay counts nothing: it is in the mailbox already.
    pub fn bytes(&self) -> usize {
        self.encoded.len() - self.sent + self.pending_bytes
    }

    /// Appends output, and writes as much as the socket takes. What can leave at once is encoded at
    /// once, and never queued.
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
            queues |= buffers.frames.len() >= WRITE_BYTES_PER_PORTION;
            let left = if queues { Some(output) } else { encode(output, buffers) };
            if let Some(output) = left {
                queues = true;
                self.ended = matches!(output, Output::End);
                self.pending_bytes += output.queued_bytes();
                self.pending.push_back(output);
            }
        }
        self.write_frames(socket, buffers)?;
        if self.is_empty() { Ok(Sent::All) } else { self.send_waiting(socket, buffers) }
    }

    /// Writes `buffers.frames`, and keeps what the socket does not take.
    fn write_frames(
        &mut self,
        socket: &mut impl Write,
        buffers: &mut WriteBuffers,
    ) -> io::Result<()> {
        if buffers.frames.is_empty() {
            return Ok(());
        }
        let written = write(socket, &buffers.frames)?.unwrap_or(0);
        buffers.delivered.bytes += written as u64;
        self.encoded.extend_from_slice(&buffers.frames[written..]);
        Ok(())
    }

    fn send_waiting(
        &mut self,
        socket: &mut impl Write,
        buffers: &mut WriteBuffers,
    ) -> io::Result<Sent> {
        for _ in 0..WRITE_PORTIONS_PER_TURN_MAX {
            while self.sent < self.encoded.len() {
                match write(socket, &self.encoded[self.sent..])? {
                    Some(written) => {
                        self.sent += written;
                        buffers.delivered.bytes += written as u64;
                    }
                    None => return Ok(Sent::Blocked),
                }
            }
            self.encoded = Vec::new();
            self.sent = 0;

            buffers.frames.clear();
            let ended = self.encode_portion(buffers);
            if buffers.frames.is_empty() {
                self.pending = VecDeque::new();
                return Ok(if ended { Sent::Ended } else { Sent::All });
            }
            self.write_frames(socket, buffers)?;
            if ended && self.encoded.is_empty() {
                return Ok(Sent::Ended);
            }
            if ended {
                self.pending.push_front(Output::End);
            }
        }
        Ok(Sent::More)
    }

    /// Encodes pending output into `buffers.frames`, up to a portion; returns whether it met the
    /// end.
    fn encode_portion(&mut self, buffers: &mut WriteBuffers) -> bool {
        while buffers.frames.len() < WRITE_BYTES_PER_PORTION {
            let Some(output) = self.pending.pop_front() else { return false };
            self.pending_bytes -= output.queued_bytes();
            match encode(output, buffers) {
                None => {}
                Some(Output::Response(Response::Replay(mut replay))) => {
                    if let Some(message) = replay.next() {
                        frame(&Response::Message(message), buffers);
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

/// Encodes what leaves in one piece; returns what does not: a replay, or the end.
fn encode(output: Output, buffers: &mut WriteBuffers) -> Option<Output> {
    match output {
        Output::Response(response) if !response.is_replay() => frame(&response, buffers),
        Output::Bytes(bytes) => buffers.frames.extend_from_slice(&bytes),
        output => return Some(output),
    }
    None
}

fn frame(response: &Response, buffers: &mut WriteBuffers) {
    buffers.json.clear();
    buffers.delivered.messages += u64::from(matches!(response, Response::Message { .. }));
    json::encode(response, &buffers.server_tx, &mut buffers.json);
    websocket::text(&buffers.json, &mut buffers.frames);
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
