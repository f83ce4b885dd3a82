//! One connection's life: head, open, closing; its socket, its outbox, its deadlines.
//!
//! Reads what is there and hands it on as events; sends only what has been released. Must never
//! call the store or a database, and never free itself: the server reaps.

mod deadlines;
mod opening;

use std::io::{self, Read};
use std::time::Instant;

use crate::codec::http::{self, Question, Rejection, Status, Upgrade};
use crate::codec::websocket::{Inbound, SharedContext, WebSocket};
use crate::limits::{Limits, READ_BYTES_PER_TICK_MAX};
use crate::message::ConnId;
use crate::message::close::{CloseReason, Farewell, Verdict};
use crate::message::peer::Peer;
use crate::net::outbox::{Delivered, Outbox, Scratch, Sent};
use crate::net::socket::{Role, Socket};
use crate::storage::held::{Output, Released};
use crate::sys::clock::Timestamp;

/// What the connection asks of the rest of the server.
pub trait Handler {
    /// A trusted proxy has told whom it speaks for: tells why that one cannot stay, if so.
    fn behind_proxy(&mut self, conn: ConnId, peer: Peer) -> Result<(), Rejection>;
    /// A handshake is complete: holds the response and the `welcome`, or tells why not.
    fn open(&mut self, conn: ConnId, peer: Peer, upgrade: &Upgrade) -> Result<Verdict, Rejection>;
    /// Whether the connection has bound.
    fn is_bound(&self, conn: ConnId) -> bool;
    /// A text message came.
    fn text(&mut self, conn: ConnId, text: &str) -> Verdict;
    /// A binary message came.
    fn binary(&mut self, conn: ConnId, payload: &[u8]) -> Verdict;
    /// Output that must wait for the commit.
    fn hold(&mut self, conn: ConnId, output: Output);
    /// Whether the peer's `Origin` may connect.
    fn origin_allowed(&self, origin: &str) -> bool;
    /// So many bytes have come.
    fn count_received(&mut self, bytes: usize);
}

/// How far reading got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All that was there has been read; the kernel will tell of more.
    Drained,
    /// The share of this tick is used up; go on in the next, unasked.
    More,
    /// The connection is over.
    Gone(CloseReason),
}

#[derive(Debug)]
enum Phase {
    /// Collecting a PROXY header; the request head comes after it.
    ProxyHeader(Vec<u8>),
    /// Collecting the request head.
    Head(Vec<u8>),
    /// An operator has asked something, and the server has not answered yet.
    Asked(Question),
    /// Talking. After either side's close, until both have closed.
    Open(WebSocket),
    /// Everything said; what still comes in is thrown away, until the peer closes too or its time
    /// is up, so that it gets our last words instead of a reset.
    Lingering,
}

/// What reading needs for a moment; one serves all connections.
#[derive(Debug)]
pub struct Intake {
    buffer: Box<[u8]>,
    spare: SharedContext,
}

impl Default for Intake {
    fn default() -> Self {
        Intake { buffer: vec![0; READ_BYTES_PER_TICK_MAX].into(), spare: SharedContext::default() }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    id: ConnId,
    socket: Socket,
    peer: Peer,
    role: Role,
    phase: Phase,
    outbox: Outbox,
    /// Input read but not handled, when a tick's share was used up; from `handled` on.
    unread: Vec<u8>,
    handled: usize,
    /// When the present phase began, or closing did.
    since: Instant,
    /// It has just begun.
    phase_changed: bool,
    /// When the last ping went out.
    pinged: Instant,
    /// When the last pong came in, or the connection opened.
    ponged: Instant,
    /// It has bound; found out when it should have.
    bound: bool,
    /// How it is to be closed at the end of this reading.
    leaving: Option<(Farewell, CloseReason)>,
    /// Why it is being closed, once it is.
    reason: Option<CloseReason>,
    /// The poll has told that the peer has closed or failed, so a short read is not the last.
    peer_closed: bool,
}

impl Connection {
    pub fn new(id: ConnId, socket: Socket, peer: Peer, role: Role, now: Instant) -> Connection {
        let phase = match role {
            Role::ProxiedClient => Phase::ProxyHeader(Vec::new()),
            Role::Client | Role::Admin => Phase::Head(Vec::new()),
        };
        Connection {
            id,
            socket,
            peer,
            role,
            phase,
            outbox: Outbox::default(),
            unread: Vec::new(),
            handled: 0,
            since: now,
            phase_changed: true,
            pinged: now,
            ponged: now,
            bound: false,
            leaving: None,
            reason: None,
            peer_closed: false,
        }
    }

    /// The socket, to register and deregister it.
    pub fn socket_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// What it is, by the listener that it came from.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether it has come into another phase since the last call, so that its deadline may be
    /// sooner than before.
    pub fn take_phase_change(&mut self) -> bool {
        std::mem::take(&mut self.phase_changed)
    }

    /// Whether output waits for the socket.
    pub fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Bytes kept of unfinished input and waiting output.
    pub fn buffered_bytes(&self) -> usize {
        let input = match &self.phase {
            Phase::ProxyHeader(head) | Phase::Head(head) => head.capacity(),
            Phase::Open(wire) => wire.buffered_bytes(),
            Phase::Asked(_) | Phase::Lingering => 0,
        };
        input + self.unread.capacity() + self.outbox.bytes()
    }

    /// The poll has told of something to read, or of the end.
    pub fn note_readable(&mut self, peer_closed: bool) {
        self.peer_closed |= peer_closed;
    }

    /// Reads and handles what is there, up to this tick's share.
    pub fn read(
        &mut self,
        intake: &mut Intake,
        now: Instant,
        limits: &Limits,
        handler: &mut impl Handler,
    ) -> Progress {
        let progress = self.read_share(intake, now, limits, handler);
        if let Some((farewell, reason)) = self.leaving.take() {
            self.close(farewell, reason, now, limits, handler);
        }
        progress
    }

    fn read_share(
        &mut self,
        intake: &mut Intake,
        now: Instant,
        limits: &Limits,
        handler: &mut impl Handler,
    ) -> Progress {
        let Intake { buffer, spare } = intake;
        let mut messages_left = limits.messages_per_tick_max;
        if !self.unread.is_empty() {
            let unread = std::mem::take(&mut self.unread);
            let input = &unread[self.handled..];
            let left = self.handle(input, spare, &mut messages_left, now, limits, handler);
            if left > 0 {
                self.handled = unread.len() - left;
                self.unread = unread;
                return Progress::More;
            }
        }
        let mut bytes_left = READ_BYTES_PER_TICK_MAX;
        while bytes_left > 0 {
            let share = bytes_left.min(buffer.len());
            match self.socket.read(&mut buffer[..share]) {
                Ok(0) => return Progress::Gone(self.reason.unwrap_or(CloseReason::PeerClosed)),
                Ok(count) => {
                    bytes_left -= count;
                    if self.role != Role::Admin {
                        handler.count_received(count);
                    }
                    let input = &buffer[..count];
                    let left = self.handle(input, spare, &mut messages_left, now, limits, handler);
                    if left > 0 {
                        self.unread = buffer[count - left..count].to_vec();
                        self.handled = 0;
                        return Progress::More;
                    }
                    if count < share && !self.peer_closed {
                        return Progress::Drained; // a short read has emptied the socket
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Progress::Drained;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Progress::Gone(self.reason.unwrap_or(CloseReason::PeerReset)),
            }
        }
        Progress::More
    }

    /// Handles input; gives the number of bytes left for the next tick.
    fn handle(
        &mut self,
        mut input: &[u8],
        spare: &mut SharedContext,
        messages_left: &mut usize,
        now: Instant,
        limits: &Limits,
        handler: &mut impl Handler,
    ) -> usize {
        while !input.is_empty() {
            match &mut self.phase {
                Phase::ProxyHeader(_) => input = self.handle_proxy_header(input, now, handler),
                Phase::Head(_) => input = self.handle_head(input, now, limits, handler),
                Phase::Open(wire) => {
                    if *messages_left == 0 {
                        return input.len();
                    }
                    let mut control = Vec::new();
                    let inbound = wire.next(&mut input, &mut control, limits, spare);
                    let muted = wire.is_closing();
                    if !control.is_empty() {
                        handler.hold(self.id, Output::Bytes(control));
                    }
                    match inbound {
                        Ok(Some(inbound)) => {
                            *messages_left -= 1;
                            let verdict = self.handle_inbound(inbound, muted, now, handler);
                            self.obey(verdict, now, limits, handler);
                        }
                        Ok(None) => {}
                        Err(violation) => {
                            self.close(
                                Farewell::Violation(violation),
                                CloseReason::Violation(violation),
                                now,
                                limits,
                                handler,
                            );
                            self.end(CloseReason::Violation(violation), now, handler);
                        }
                    }
                }
                Phase::Asked(_) | Phase::Lingering => input = &[],
            }
        }
        0
    }

    fn handle_inbound(
        &mut self,
        inbound: Inbound,
        muted: bool,
        now: Instant,
        handler: &mut impl Handler,
    ) -> Verdict {
        match inbound {
            Inbound::Closed => self.end(CloseReason::PeerClosed, now, handler),
            Inbound::Pong => self.ponged = now,
            // After our close nothing is carried out any more.
            _ if muted => {}
            Inbound::Text(text) => return handler.text(self.id, &text),
            Inbound::Binary(payload) => return handler.binary(self.id, &payload),
        }
        Verdict::Stay
    }

    fn obey(
        &mut self,
        verdict: Verdict,
        now: Instant,
        limits: &Limits,
        handler: &mut impl Handler,
    ) {
        match verdict {
            Verdict::Stay => {}
            Verdict::Close(farewell, reason) => self.close(farewell, reason, now, limits, handler),
            Verdict::CloseSoon(farewell, reason) => self.leaving = Some((farewell, reason)),
        }
    }

    /// Begins the closing handshake, or cuts short a request that is still in its head.
    pub fn close(
        &mut self,
        farewell: Farewell,
        reason: CloseReason,
        now: Instant,
        limits: &Limits,
        handler: &mut impl Handler,
    ) {
        match &mut self.phase {
            Phase::Open(wire) if !wire.is_closing() => {
                let mut control = Vec::new();
                wire.close(farewell, &mut control, limits);
                handler.hold(self.id, Output::Bytes(control));
                self.begin_phase(now);
                self.reason.get_or_insert(reason);
            }
            Phase::ProxyHeader(_) | Phase::Head(_) => {
                // Only a stopping server closes a connection before its handshake.
                let answer = http::text_answer(Status::Unavailable, "server is stopping");
                handler.hold(self.id, Output::Bytes(answer));
                self.end(reason, now, handler);
            }
            _ => {}
        }
    }

    fn begin_phase(&mut self, now: Instant) {
        (self.since, self.phase_changed) = (now, true);
    }

    /// Nothing more will be said: what is held goes out, then the writing side is shut down.
    fn end(&mut self, reason: CloseReason, now: Instant, handler: &mut impl Handler) {
        self.reason.get_or_insert(reason);
        self.phase = Phase::Lingering;
        self.begin_phase(now);
        handler.hold(self.id, Output::End);
    }

    /// Takes released output, and gives the socket what it takes of it; as [`Connection::send`].
    pub fn release(
        &mut self,
        outputs: impl Iterator<Item = Released>,
        server_tx: Timestamp,
        scratch: &mut Scratch,
        limits: &Limits,
    ) -> Result<Sent, CloseReason> {
        let delivered = scratch.delivered();
        let outcome = self.outbox.release(outputs, &mut self.socket, server_tx, scratch);
        self.note_sending(outcome, delivered, scratch, limits)
    }

    /// Gives the socket what it takes of the output that waits; an error is the reason for which
    /// the connection is over: the peer has let too much pile up.
    pub fn send(
        &mut self,
        server_tx: Timestamp,
        scratch: &mut Scratch,
        limits: &Limits,
    ) -> Result<Sent, CloseReason> {
        let delivered = scratch.delivered();
        let outcome = self.outbox.send(&mut self.socket, server_tx, scratch);
        self.note_sending(outcome, delivered, scratch, limits)
    }

    fn note_sending(
        &mut self,
        outcome: io::Result<Sent>,
        delivered: Delivered,
        scratch: &mut Scratch,
        limits: &Limits,
    ) -> Result<Sent, CloseReason> {
        let is_client = self.role != Role::Admin;
        if !is_client {
            scratch.set_delivered(delivered); // what operators read is not what clients got
        }
        match outcome {
            // What operators ask for has a size of its own, whatever clients may have.
            Ok(Sent::Blocked) if is_client && self.outbox.bytes() > limits.outbox_bytes_max => {
                Err(CloseReason::SlowReader)
            }
            Ok(Sent::Ended) => {
                // Fails only if the peer is gone, which reading will tell.
                _ = self.socket.shutdown_write();
                Ok(Sent::Ended)
            }
            Ok(sent) => Ok(sent),
            Err(_) => {
                // Nobody listens any more, but commands that came before shall still be carried
                // out. Reading will come to the end by itself.
                self.outbox.abandon();
                Ok(Sent::All)
            }
        }
    }
}
