//! One connection's life: head, open, closing; its socket, its outbox, its deadlines.
//!
//! Reads what is there and hands it on as events; sends only what has been released. Must never
//! call the store or a database, and never free itself: the server reaps.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use crate::held::{Output, Released};
use crate::http::{self, Head, Status, Upgrade};
use crate::limits::{
    HEAD_BYTES_MAX, LINGER_BYTES_MAX, Limits, MESSAGES_PER_TICK_MAX, READ_BYTES_PER_TICK_MAX,
};
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
    /// The handshake is complete: the first thing to send is the `welcome`.
    fn opened(&mut self, conn: ConnId, peer: Peer, upgrade: &Upgrade);
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
    /// Everything said; what still comes in is thrown away, so that the peer gets our last words
    /// instead of a reset.
    Lingering { discarded: usize },
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    id: ConnId,
    socket: Socket,
    peer: Peer,
    phase: Phase,
    outbox: Outbox,
    /// Input read but not handled, when a tick's share was used up.
    unread: Vec<u8>,
    /// When the present phase began, or closing did.
    since: Instant,
    /// When the last ping went out.
    pinged: Instant,
    /// When the last pong came in, or the connection opened.
    ponged: Instant,
    /// Why it is being closed, once it is.
    reason: Option<CloseReason>,
    /// The poll has told that the peer has closed or failed, so a short read is not the last.
    peer_closed: bool,
    /// Marked for reaping.
    pub doomed: bool,
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
            since: now,
            pinged: now,
            ponged: now,
            reason: None,
            peer_closed: false,
            doomed: false,
        }
    }

    /// The socket, to register and deregister it.
    pub fn socket_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// The socket's remote address.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Whether it is past its handshake and not closing.
    pub fn is_open(&self) -> bool {
        matches!(&self.phase, Phase::Open(wire) if !wire.is_closing())
    }

    /// Bytes that wait for the socket.
    pub fn outbox_bytes(&self) -> usize {
        self.outbox.bytes()
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
        let mut messages_left = MESSAGES_PER_TICK_MAX;
        let leftover = std::mem::take(&mut self.unread);
        if !leftover.is_empty() && self.handle(&leftover, &mut messages_left, now, limits, handler)
        {
            return Progress::More;
        }
        let mut bytes_left = READ_BYTES_PER_TICK_MAX.saturating_sub(leftover.len());
        while bytes_left > 0 {
            let share = bytes_left.min(buffer.len());
            match self.socket.read(&mut buffer[..share]) {
                Ok(0) => return Progress::Gone(self.reason.unwrap_or(CloseReason::PeerClosed)),
                Ok(count) => {
                    bytes_left -= count;
                    if self.handle(&buffer[..count], &mut messages_left, now, limits, handler) {
                        return Progress::More;
                    }
                    if let Some(reason) = self.is_over() {
                        return Progress::Gone(reason);
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

    /// Whether nothing can come of this connection any more.
    fn is_over(&self) -> Option<CloseReason> {
        match self.phase {
            Phase::Lingering { discarded } if discarded > LINGER_BYTES_MAX => {
                Some(self.reason.unwrap_or(CloseReason::PeerClosed))
            }
            _ => None,
        }
    }

    /// Handles input; tells whether some is left for the next tick.
    fn handle(
        &mut self,
        mut input: &[u8],
        messages_left: &mut usize,
        now: Instant,
        limits: &Limits,
        handler: &mut impl Handler,
    ) -> bool {
        while !input.is_empty() {
            match &mut self.phase {
                Phase::Head(head) => {
                    // One byte more than allowed is enough to see that it is too much.
                    let wanted = (HEAD_BYTES_MAX + 1).saturating_sub(head.len()).min(input.len());
                    let known = head.len();
                    head.extend_from_slice(&input[..wanted]);
                    let parsed = http::parse(head, |origin| handler.origin_allowed(origin));
                    match parsed {
                        Head::Incomplete => input = &input[wanted..],
                        Head::Answer(answer) => {
                            input = &[];
                            handler.hold(self.id, Output::Bytes(answer));
                            self.end(CloseReason::HttpAnswered, now, handler);
                        }
                        Head::Upgrade(upgrade) => {
                            input = &input[upgrade.head_bytes - known..];
                            self.phase = Phase::Open(Wire::default());
                            (self.since, self.pinged, self.ponged) = (now, now, now);
                            handler.opened(self.id, self.peer, &upgrade);
                        }
                    }
                }
                Phase::Open(wire) => {
                    if *messages_left == 0 {
                        self.unread = input.to_vec();
                        return true;
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
                Phase::Lingering { discarded } => {
                    *discarded += input.len();
                    input = &[];
                }
            }
        }
        false
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
        self.phase = Phase::Lingering { discarded: 0 };
        self.since = now;
        handler.hold(self.id, Output::End);
    }

    /// When [`Connection::handle_deadline`] wants to be called next.
    pub fn deadline(&self, limits: &Limits) -> Option<Instant> {
        let after = |since: Instant, seconds: f64| since + Duration::from_secs_f64(seconds);
        match &self.phase {
            Phase::Head(_) => Some(after(self.since, limits.handshake_seconds)),
            Phase::Open(wire) if !wire.is_closing() => {
                if limits.ping_interval_seconds == 0.0 {
                    return None;
                }
                let ping = after(self.pinged, limits.ping_interval_seconds);
                Some(match self.pong_deadline(limits) {
                    Some(pong) => ping.min(pong),
                    None => ping,
                })
            }
            _ => Some(after(self.since, limits.close_seconds)),
        }
    }

    /// When the peer counts as lost: the timeout runs from the first ping it did not answer.
    fn pong_deadline(&self, limits: &Limits) -> Option<Instant> {
        if limits.ping_timeout_seconds == 0.0 {
            return None;
        }
        let allowed = limits.ping_interval_seconds + limits.ping_timeout_seconds;
        (self.pinged > self.ponged).then(|| self.ponged + Duration::from_secs_f64(allowed))
    }

    /// Does what is due at `now`; the reason comes back if the connection is over.
    pub fn handle_deadline(
        &mut self,
        now: Instant,
        limits: &Limits,
        handler: &mut impl Handler,
    ) -> Option<CloseReason> {
        if self.deadline(limits).is_none_or(|deadline| deadline > now) {
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
                if self.pong_deadline(limits).is_some_and(|deadline| deadline <= now) {
                    return Some(CloseReason::PingTimeout);
                }
                self.pinged = now;
                let mut ping = Vec::new();
                wire::ping(&mut ping);
                handler.hold(self.id, Output::Bytes(ping));
                None
            }
            _ => Some(self.reason.unwrap_or(CloseReason::PeerClosed)),
        }
    }

    /// Queues output.
    pub fn push(&mut self, released: Released) {
        self.outbox.push(released);
    }

    /// Gives the socket what it takes of the released output; the reason comes back if the peer
    /// is gone, or has let too much pile up.
    pub fn send(
        &mut self,
        server_tx: Seconds,
        scratch: &mut Scratch,
        limits: &Limits,
    ) -> Option<CloseReason> {
        match self.outbox.send(&mut self.socket, server_tx, scratch) {
            Ok(Sent::All) => None,
            Ok(Sent::Blocked) => {
                (self.outbox.bytes() > limits.outbox_bytes_max).then_some(CloseReason::SlowReader)
            }
            Ok(Sent::Ended) => {
                // Fails only if the peer is gone, which reading will tell.
                _ = self.socket.shutdown_write();
                None
            }
            Err(_) => Some(self.reason.unwrap_or(CloseReason::PeerReset)),
        }
    }
}
