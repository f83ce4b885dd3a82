//! One connection's life: head, open, closing; its socket, its outbox, its deadlines.
//!
//! Reads what is there and hands it on as events; sends only what has been released. Must never
//! call the store or a database, and never free itself: the server reaps.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use crate::held::{Output, Released};
use crate::http::{self, Head, Status, Upgrade};
use crate::limits::{Limits, Pings, READ_BYTES_PER_TICK_MAX};
use crate::message::{ConnId, Seconds};
use crate::outbox::{Outbox, Scratch, Sent};
use crate::peer::Peer;
use crate::socket::Socket;
use crate::wire::{self, Farewell, Inbound, Violation, Wire};

/// Why a connection ended, for the log and for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed, one way or another.
    PeerClosed,
    /// The peer's socket failed.
    PeerReset,
    /// The request was answered by plain HTTP.
    HttpAnswered,
    /// Its address has used up its share, or the server is full.
    Refused,
    /// It did not bind in time.
    NotBound,
    /// All connections together hold too much, and it held most.
    Shed,
    /// No complete request head in time.
    HandshakeTimeout,
    /// The peer broke the WebSocket protocol or sent too much.
    Violation(Violation),
    /// More output waited than the limit allows.
    SlowReader,
    /// No answer to pings.
    PingTimeout,
    /// The server stops.
    GoingAway,
    /// It took part in a tick whose commit failed.
    StorageFailed,
}

/// What the connection asks of the rest of the server.
pub trait Handler {
    /// A handshake is complete: holds the response and the `welcome`, or tells why not.
    fn open(
        &mut self,
        conn: ConnId,
        peer: Peer,
        upgrade: &Upgrade,
    ) -> Result<(), (Status, &'static str)>;
    /// Whether the connection has bound.
    fn is_bound(&self, conn: ConnId) -> bool;
    /// A text message came.
    fn text(&mut self, conn: ConnId, text: &str);
    /// A binary message came.
    fn binary(&mut self, conn: ConnId, payload: &[u8]);
    /// Output that must wait for the commit.
    fn hold(&mut self, conn: ConnId, output: Output);
    /// Whether the peer's `Origin` may connect.
    fn origin_allowed(&self, origin: &str) -> bool;
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
    /// Collecting the request head.
    Head(Vec<u8>),
    /// Talking. After either side's close, until both have closed.
    Open(Wire),
    /// Everything said; what still comes in is thrown away, until the peer closes too or its time
    /// is up, so that it gets our last words instead of a reset.
    Lingering,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    id: ConnId,
    socket: Socket,
    peer: Peer,
    phase: Phase,
    outbox: Outbox,
    /// Input read but not handled, when a tick's share was used up; from `handled` on.
    unread: Vec<u8>,
    handled: usize,
    /// When the present phase began, or closing did.
    since: Instant,
    /// When the last ping went out.
    pinged: Instant,
    /// When the last pong came in, or the connection opened.
    ponged: Instant,
    /// It has bound; found out when it should have.
    bound: bool,
    /// Why it is being closed, once it is.
    reason: Option<CloseReason>,
    /// The poll has told that the peer has closed or failed, so a short read is not the last.
    peer_closed: bool,
}

impl Connection {
    pub fn new(id: ConnId, socket: Socket, peer: Peer, now: Instant) -> Connection {
        Connection {
            id,
            socket,
            peer,
            phase: Phase::Head(Vec::new()),
            outbox: Outbox::default(),
            unread: Vec::new(),
            handled: 0,
            since: now,
            pinged: now,
            ponged: now,
            bound: false,
            reason: None,
            peer_closed: false,
        }
    }

    /// The socket, to register and deregister it.
    pub fn socket_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Whether output waits for the socket.
    pub fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Bytes kept of unfinished input and waiting output.
    pub fn buffered_bytes(&self) -> usize {
        let input = match &self.phase {
            Phase::Head(head) => head.capacity(),
            Phase::Open(wire) => wire.buffered_bytes(),
            Phase::Lingering => 0,
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
        buffer: &mut [u8],
        now: Instant,
        limits: &Limits,
        handler: &mut impl Handler,
    ) -> Progress {
        let mut messages_left = limits.messages_per_tick_max;
        if !self.unread.is_empty() {
            let unread = std::mem::take(&mut self.unread);
            let left =
                self.handle(&unread[self.handled..], &mut messages_left, now, limits, handler);
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
                    let left =
                        self.handle(&buffer[..count], &mut messages_left, now, limits, handler);
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
        messages_left: &mut usize,
        now: Instant,
        limits: &Limits,
        handler: &mut impl Handler,
    ) -> usize {
        while !input.is_empty() {
            match &mut self.phase {
                Phase::Head(head) => {
                    // One byte more than allowed is enough to see that it is too much.
                    let wanted =
                        (limits.head_bytes_max + 1).saturating_sub(head.len()).min(input.len());
                    let known = head.len();
                    head.extend_from_slice(&input[..wanted]);
                    let parsed = http::parse(head, limits.head_bytes_max, |origin| {
                        handler.origin_allowed(origin)
                    });
                    match parsed {
                        Head::Incomplete => input = &input[wanted..],
                        Head::Answer(answer) => {
                            input = &[];
                            handler.hold(self.id, Output::Bytes(answer));
                            self.end(CloseReason::HttpAnswered, now, handler);
                        }
                        Head::Upgrade(upgrade) => {
                            input = &input[upgrade.head_bytes - known..];
                            self.handle_upgrade(&upgrade, now, handler);
                        }
                    }
                }
                Phase::Open(wire) => {
                    if *messages_left == 0 {
                        return input.len();
                    }
                    let mut control = Vec::new();
                    let inbound = wire.next(&mut input, &mut control, limits);
                    let muted = wire.is_closing();
                    if !control.is_empty() {
                        handler.hold(self.id, Output::Bytes(control));
                    }
                    match inbound {
                        Ok(Some(inbound)) => {
                            *messages_left -= 1;
                            self.handle_inbound(inbound, muted, now, handler);
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
                Phase::Lingering => input = &[],
            }
        }
        0
    }

    fn handle_upgrade(&mut self, upgrade: &Upgrade, now: Instant, handler: &mut impl Handler) {
        match handler.open(self.id, self.peer, upgrade) {
            Ok(()) => {
                self.phase = Phase::Open(Wire::default());
                (self.since, self.pinged, self.ponged) = (now, now, now);
            }
            Err((status, why)) => {
                self.refuse(status, why, now, handler);
            }
        }
    }

    fn handle_inbound(
        &mut self,
        inbound: Inbound,
        muted: bool,
        now: Instant,
        handler: &mut impl Handler,
    ) {
        match inbound {
            Inbound::Closed => self.end(CloseReason::PeerClosed, now, handler),
            Inbound::Pong => self.ponged = now,
            // After our close nothing is carried out any more.
            _ if muted => {}
            Inbound::Text(text) => handler.text(self.id, &text),
            Inbound::Binary(payload) => handler.binary(self.id, &payload),
        }
    }

    /// Answers whatever the peer is about to ask with why it cannot stay.
    pub fn refuse(&mut self, status: Status, why: &str, now: Instant, handler: &mut impl Handler) {
        handler.hold(self.id, Output::Bytes(http::text_answer(status, why)));
        self.end(CloseReason::Refused, now, handler);
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
                self.since = now;
                self.reason.get_or_insert(reason);
            }
            Phase::Head(_) => {
                // Only a stopping server closes a connection before its handshake.
                let answer = http::text_answer(Status::Unavailable, "server is stopping");
                handler.hold(self.id, Output::Bytes(answer));
                self.end(reason, now, handler);
            }
            _ => {}
        }
    }

    /// Nothing more will be said: what is held goes out, then the writing side is shut down.
    fn end(&mut self, reason: CloseReason, now: Instant, handler: &mut impl Handler) {
        self.reason.get_or_insert(reason);
        self.phase = Phase::Lingering;
        self.since = now;
        handler.hold(self.id, Output::End);
    }

    /// When [`Connection::handle_deadline`] wants to be called next.
    pub fn deadline(&self, limits: &Limits, pings: &Pings) -> Option<Instant> {
        match &self.phase {
            Phase::Head(_) => Some(after(self.since, limits.handshake_seconds)),
            Phase::Open(wire) if !wire.is_closing() => {
                let bind = self.bind_deadline(limits);
                let deadlines = [bind, self.ping_due(pings), self.pong_deadline(pings)];
                deadlines.into_iter().flatten().min()
            }
            _ => Some(after(self.since, limits.close_seconds)),
        }
    }

    fn bind_deadline(&self, limits: &Limits) -> Option<Instant> {
        (!self.bound).then(|| after(self.since, limits.bind_seconds))
    }

    fn ping_due(&self, pings: &Pings) -> Option<Instant> {
        (pings.interval_seconds > 0.0).then(|| after(self.pinged, pings.interval_seconds))
    }

    /// When the peer counts as lost: the timeout runs from the first ping it did not answer.
    fn pong_deadline(&self, pings: &Pings) -> Option<Instant> {
        let allowed = pings.interval_seconds + pings.timeout_seconds;
        (pings.timeout_seconds > 0.0 && self.pinged > self.ponged)
            .then(|| after(self.ponged, allowed))
    }

    /// Does what is due at `now`; the reason comes back if the connection is over.
    pub fn handle_deadline(
        &mut self,
        now: Instant,
        limits: &Limits,
        pings: &Pings,
        handler: &mut impl Handler,
    ) -> Option<CloseReason> {
        let is_past = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if !is_past(self.deadline(limits, pings)) {
            return None;
        }
        match &self.phase {
            Phase::Head(_) => {
                let answer =
                    http::text_answer(Status::RequestTimeout, "request head took too long");
                handler.hold(self.id, Output::Bytes(answer));
                self.end(CloseReason::HandshakeTimeout, now, handler);
                None
            }
            Phase::Open(wire) if !wire.is_closing() => {
                if is_past(self.pong_deadline(pings)) {
                    return Some(CloseReason::PingTimeout);
                }
                if is_past(self.bind_deadline(limits)) {
                    self.bound = handler.is_bound(self.id);
                    if !self.bound {
                        self.close(Farewell::NotBound, CloseReason::NotBound, now, limits, handler);
                        return None;
                    }
                }
                if is_past(self.ping_due(pings)) {
                    self.pinged = now;
                    let mut ping = Vec::new();
                    wire::ping(&mut ping);
                    handler.hold(self.id, Output::Bytes(ping));
                }
                None
            }
            _ => Some(self.reason.unwrap_or(CloseReason::PeerClosed)),
        }
    }

    /// Queues output.
    pub fn push(&mut self, released: Released) {
        self.outbox.push(released);
    }

    /// Gives the socket what it takes of the released output; an error is the reason for which
    /// the connection is over: the peer has let too much pile up.
    pub fn send(
        &mut self,
        server_tx: Seconds,
        scratch: &mut Scratch,
        limits: &Limits,
    ) -> Result<Sent, CloseReason> {
        match self.outbox.send(&mut self.socket, server_tx, scratch) {
            Ok(Sent::Blocked) if self.outbox.bytes() > limits.outbox_bytes_max => {
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

fn after(since: Instant, seconds: f64) -> Instant {
    since + Duration::from_secs_f64(seconds)
}
