//! A connection to the admin listener: one HTTP request, one answer, the end.
//!
//! It is answered after the tick's commit, so nothing has to be held: it writes to its socket
//! itself. It counts in no limit and no metric of clients.

use std::io::{self, Write};
use std::time::Instant;

use crate::codec::http::{self, Parsed, Question};
use crate::limits::{ADMIN_HEAD_SECONDS, ADMIN_READ_BYTES, Limits, READ_BYTES_PER_TICK_MAX};
use crate::message::ConnId;
use crate::net::socket::Socket;
use crate::sys::clock::after;

#[derive(Debug)]
enum Phase {
    /// Collecting the request head.
    Head(Vec<u8>),
    /// The request is complete, and the server has not answered it yet.
    Asked(Question),
    /// The answer is being sent, from `sent` on.
    Answering { answer: Vec<u8>, sent: usize },
    /// The answer has been sent. What still comes in is thrown away until the peer closes too or
    /// its time is up, so that it gets the answer instead of a reset.
    Lingering,
}

/// One connection to the admin listener.
#[derive(Debug)]
pub struct AdminConnection {
    pub conn: ConnId,
    socket: Socket,
    phase: Phase,
    /// When the head began, or the answer.
    since: Instant,
    /// There may be more to read, of which the poll reports nothing.
    is_readable: bool,
    /// The peer has closed or failed, or its time is up.
    is_over: bool,
}

impl AdminConnection {
    pub fn new(conn: ConnId, socket: Socket, now: Instant) -> AdminConnection {
        AdminConnection {
            conn,
            socket,
            phase: Phase::Head(Vec::new()),
            since: now,
            // Most requests come with the connection.
            is_readable: true,
            is_over: false,
        }
    }

    /// The socket, to deregister it.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Whether it is to be dropped at the end of the tick.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether its request is not complete, or its answer has been sent.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Head(_) | Phase::Lingering)
    }

    /// Whether [`AdminConnection::read`] is to be called without an event.
    pub fn is_readable(&self) -> bool {
        self.is_readable
    }

    /// The request that waits for an answer.
    pub fn question(&self) -> Option<&Question> {
        match &self.phase {
            Phase::Asked(question) => Some(question),
            _ => None,
        }
    }

    /// To be called when the poll has reported that there is something to read, or the end.
    pub fn note_readable(&mut self) {
        self.is_readable = true;
    }

    /// Reads what is there, up to one tick's share.
    pub fn read(&mut self, now: Instant, limits: &Limits) {
        let mut buffer = Vec::with_capacity(ADMIN_READ_BYTES);
        let mut bytes_read = 0;
        while bytes_read < READ_BYTES_PER_TICK_MAX && !self.is_over {
            buffer.clear();
            match self.socket.receive(&mut buffer) {
                Ok(count @ 1..) => {
                    bytes_read += count;
                    self.handle(&buffer, now, limits.head_bytes_max);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_readable = false;
                    return;
                }
                Ok(_) | Err(_) => self.is_over = true,
            }
        }
    }

    fn handle(&mut self, input: &[u8], now: Instant, head_bytes_max: usize) {
        let Phase::Head(head) = &mut self.phase else { return };
        // One byte more than allowed is enough to see that it is too much.
        let wanted = (head_bytes_max + 1).saturating_sub(head.len()).min(input.len());
        head.extend_from_slice(&input[..wanted]);
        match http::parse_question(head, head_bytes_max) {
            Parsed::Incomplete => {}
            Parsed::Answer(answer) => self.answer(answer, now),
            Parsed::Request(mut question) => {
                if self.socket.is_unix() {
                    question.host = None; // no browser can be led there
                }
                (self.phase, self.since) = (Phase::Asked(question), now);
            }
        }
    }

    /// Sends an answer, after which nothing comes.
    pub fn answer(&mut self, mut answer: Vec<u8>, now: Instant) {
        let is_head = match &self.phase {
            Phase::Head(head) => http::is_head_request(head),
            Phase::Asked(question) => question.is_head,
            Phase::Answering { .. } | Phase::Lingering => false,
        };
        if is_head {
            http::remove_body(&mut answer);
        }
        (self.phase, self.since) = (Phase::Answering { answer, sent: 0 }, now);
        self.write();
    }

    /// Writes as much of the answer as the socket takes. To be called when it is writable.
    pub fn write(&mut self) {
        let Phase::Answering { answer, sent } = &mut self.phase else { return };
        while *sent < answer.len() {
            match self.socket.write(&answer[*sent..]) {
                Ok(written) if written > 0 => *sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                _ => {
                    self.is_over = true;
                    return;
                }
            }
        }
        self.phase = Phase::Lingering;
        // Fails only if the peer is gone, which reading will show.
        _ = self.socket.shutdown_write();
    }

    /// When [`AdminConnection::handle_deadline`] must be called next.
    pub fn deadline(&self, limits: &Limits) -> Instant {
        let seconds = match self.phase {
            Phase::Head(_) => limits.handshake_seconds.min(ADMIN_HEAD_SECONDS),
            Phase::Asked(_) | Phase::Answering { .. } | Phase::Lingering => limits.close_seconds,
        };
        after(self.since, seconds)
    }

    /// Does what is due.
    pub fn handle_deadline(&mut self, now: Instant, limits: &Limits) {
        if self.deadline(limits) > now {
            return;
        }
        match self.phase {
            Phase::Head(_) => self.answer(http::HEAD_TOO_SLOW.answer(), now),
            Phase::Asked(_) | Phase::Answering { .. } | Phase::Lingering => self.is_over = true,
        }
    }

    /// Cuts short a request that is still in its head: the server stops.
    pub fn stop(&mut self, now: Instant) {
        if let Phase::Head(_) = self.phase {
            self.answer(http::STOPPING.answer(), now);
        }
    }
}
