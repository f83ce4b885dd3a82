//! One client's connection: head, open, closing; its socket, its outbox, its deadlines.
//!
//! Yields events and takes verdicts; sends only what has been released. Must never know the engine,
//! and never free itself: the server reaps it.

mod deadlines;
mod handover;
mod opening;
mod reading;

pub use handover::Times;
pub use reading::{Input, Progress};

use std::time::Instant;

use crate::codec::http::{self, Rejection};
use crate::codec::origins::Origins;
use crate::codec::websocket::{self, WebSocket};
use crate::limits::{Limits, Pings};
use crate::message::{AddressHeader, CloseReason, ConnId, Output, Outputs, Peer, Verdict};
use crate::net::outbox::{Outbox, Sent, WriteBuffers};
use crate::net::socket::{Role, Socket};
use crate::storage::held::Released;
use crate::sys::clock::Clock;
use deadlines::Unfinished;

/// Settings of all connections.
#[derive(Debug)]
pub struct ConnectionSettings {
    pub limits: Limits,
    pub pings: Pings,
    /// The header in which trusted proxies name the client's address.
    pub address_header: AddressHeader,
    /// The pages in browsers that may connect.
    pub origins: Origins,
}

/// One connection's part in a tick.
#[derive(Debug)]
pub struct Context<'a> {
    pub conn: ConnId,
    pub now: Instant,
    pub settings: &'a ConnectionSettings,
    /// The tick's output, which waits for the commit.
    pub outputs: &'a mut Outputs,
}

impl Context<'_> {
    fn send(&mut self, bytes: Vec<u8>) {
        self.outputs.push(self.conn, Output::Bytes(bytes));
    }
}

#[derive(Debug)]
enum Phase {
    /// Collecting a PROXY header; the request head comes after it.
    ProxyHeader(Vec<u8>),
    /// Collecting the request head.
    Head(Vec<u8>),
    /// From a valid handshake on; the verdict on it may still turn the connection away.
    Open(Open),
    /// The close frame has been sent, the peer's is still to come.
    Closing { websocket: WebSocket, reason: CloseReason },
    /// All has been sent. What still comes in is thrown away until the peer closes too or its time
    /// is up, so that it gets the last bytes instead of a reset.
    Lingering { reason: CloseReason },
}

/// An open WebSocket.
#[derive(Debug)]
struct Open {
    websocket: WebSocket,
    /// When the last ping was sent, or the connection opened.
    pinged: Instant,
    /// When the first ping that is not answered was sent.
    unanswered_since: Option<Instant>,
    /// Boxed, because most messages come in one piece.
    unfinished: Option<Box<Unfinished>>,
    /// Whether it has bound, as of the bind deadline.
    is_bound: bool,
    /// Why it is closed [`FAREWELL`] from the beginning of its phase on, if it is.
    close_soon: Option<CloseReason>,
}

impl Open {
    fn new(now: Instant) -> Open {
        Open {
            websocket: WebSocket::default(),
            pinged: now,
            unanswered_since: None,
            unfinished: None,
            is_bound: false,
            close_soon: None,
        }
    }
}

/// One client's connection.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    peer: Peer,
    phase: Phase,
    /// None while nothing waits, which is nearly always.
    outbox: Option<Box<Outbox>>,
    /// Input that was read but not handled when a tick's share was used up.
    unread: Box<[u8]>,
    /// When the present phase began.
    since: Instant,
    /// Its deadline may be sooner than before.
    deadline_changed: bool,
    /// Since when waiting output has made no progress.
    blocked_since: Option<Instant>,
    /// The poll has reported that the peer closed or failed, so a short read is not the last.
    peer_closed: bool,
}

impl Connection {
    pub fn new(socket: Socket, peer: Peer, role: Role, now: Instant) -> Connection {
        let phase = match role {
            Role::ProxiedClient => Phase::ProxyHeader(Vec::new()),
            Role::Client | Role::Admin => Phase::Head(Vec::new()),
        };
        Connection {
            socket,
            peer,
            phase,
            outbox: None,
            unread: Box::default(),
            since: now,
            deadline_changed: true,
            blocked_since: None,
            peer_closed: false,
        }
    }

    /// The socket, to register, deregister and hand over.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Whether its deadline may be sooner than at the last call.
    pub fn take_deadline_change(&mut self) -> bool {
        std::mem::take(&mut self.deadline_changed)
    }

    /// Whether output waits for the socket.
    pub fn has_output(&self) -> bool {
        self.outbox.as_ref().is_some_and(|outbox| !outbox.is_empty())
    }

    /// Bytes kept of unfinished input and waiting output, without the large messages that wait for
    /// other connections as well.
    pub fn buffered_bytes(&self) -> usize {
        self.input_bytes() + self.outbox.as_ref().map_or(0, |outbox| outbox.own_bytes())
    }

    /// Bytes kept of unfinished input and waiting output.
    pub fn claimed_bytes(&self) -> usize {
        self.buffered_bytes() + self.outbox.as_ref().map_or(0, |outbox| outbox.large_bytes())
    }

    fn input_bytes(&self) -> usize {
        let input = match &self.phase {
            Phase::ProxyHeader(head) | Phase::Head(head) => head.capacity(),
            Phase::Open(Open { websocket, .. }) | Phase::Closing { websocket, .. } => {
                websocket.buffered_bytes()
            }
            Phase::Lingering { .. } => 0,
        };
        input + self.unread.len()
    }

    /// Carries out the engine's decision on the last event.
    pub fn apply(&mut self, decision: Result<Verdict, Rejection>, context: &mut Context<'_>) {
        match (decision, &mut self.phase) {
            (Err(rejection), _) => self.reject(rejection, context),
            (Ok(Verdict::Close(reason)), _) => self.close(reason, context),
            (Ok(Verdict::CloseSoon(reason)), Phase::Open(open)) => {
                open.close_soon = Some(reason);
                (self.since, self.deadline_changed) = (context.now, true);
            }
            _ => {}
        }
    }

    /// Sends the reason's close frame; before the handshake is complete, an HTTP answer.
    pub fn close(&mut self, reason: CloseReason, context: &mut Context<'_>) {
        match &mut self.phase {
            Phase::Open(open) => {
                let websocket = std::mem::take(&mut open.websocket);
                context.send(websocket::close(reason));
                self.enter(Phase::Closing { websocket, reason }, context.now);
            }
            Phase::ProxyHeader(_) | Phase::Head(_) => {
                // Only a stopping server closes a connection before its handshake.
                self.answer(http::STOPPING.answer(), reason, context);
            }
            Phase::Closing { .. } | Phase::Lingering { .. } => {}
        }
    }

    /// Answers the request that is still to come with the reason why the connection may not stay.
    pub fn reject(&mut self, rejection: Rejection, context: &mut Context<'_>) {
        self.answer(rejection.answer(), CloseReason::Refused, context);
    }

    /// Sends an HTTP answer, after which nothing comes.
    fn answer(&mut self, mut answer: Vec<u8>, reason: CloseReason, context: &mut Context<'_>) {
        if let Phase::Head(head) = &self.phase
            && http::is_head_request(head)
        {
            http::remove_body(&mut answer);
        }
        context.send(answer);
        self.end(reason, context);
    }

    /// Shuts the writing side down once what is held has left. The first reason counts.
    fn end(&mut self, reason: CloseReason, context: &mut Context<'_>) {
        let reason = self.reason().unwrap_or(reason);
        self.enter(Phase::Lingering { reason }, context.now);
        context.outputs.push(context.conn, Output::End);
    }

    /// Whether it has not been through its handshake.
    pub fn is_opening(&self) -> bool {
        matches!(self.phase, Phase::ProxyHeader(_) | Phase::Head(_))
    }

    /// Whether its close frame or last answer is on its way, after which nothing may follow.
    pub fn is_ending(&self) -> bool {
        self.reason().is_some()
    }

    /// Whether what still comes in is thrown away.
    pub fn is_lingering(&self) -> bool {
        matches!(self.phase, Phase::Lingering { .. })
    }

    /// Drops all that it buffers, and what will come: it is about to be dropped itself.
    pub fn discard_buffers(&mut self, reason: CloseReason) {
        self.abandon_output();
        self.unread = Box::default();
        self.phase = Phase::Lingering { reason };
    }

    fn abandon_output(&mut self) {
        self.outbox.get_or_insert_default().abandon();
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        (self.since, self.deadline_changed) = (now, true);
    }

    /// Why it is being closed, once it is.
    fn reason(&self) -> Option<CloseReason> {
        match self.phase {
            Phase::Closing { reason, .. } | Phase::Lingering { reason } => Some(reason),
            _ => None,
        }
    }

    /// Writes as much as the socket takes: of what waits its share, then of `outputs`, the rest of
    /// which waits. The error is the reason why the connection is over: the peer reads too slowly.
    pub fn send(
        &mut self,
        outputs: impl Iterator<Item = Released>,
        clock: Clock,
        buffers: &mut WriteBuffers,
        limits: &Limits,
    ) -> Result<Sent, CloseReason> {
        let delivered_before = buffers.delivered().bytes;
        let mut outbox = self.outbox.take().map_or_else(Outbox::default, |waiting| *waiting);
        let sent = outbox.send(outputs, &mut self.socket, clock.wall, buffers);
        let is_over = outbox.is_over(limits.outbox_bytes_max);
        self.outbox = outbox.boxed();
        let has_progressed = buffers.delivered().bytes > delivered_before;
        self.note_output(has_progressed, clock.instant);
        match sent {
            Ok(Sent::Blocked) if is_over => return Err(CloseReason::SlowReader),
            // Fails only if the peer is gone, which reading will show.
            Ok(Sent::Ended) => _ = self.socket.shutdown_write(),
            Ok(_) => {}
            // The peer reads no more, but commands that came before are still to be carried out.
            // Reading will come to the end by itself.
            Err(_) => self.abandon_output(),
        }
        Ok(sent.unwrap_or(Sent::All))
    }
}
