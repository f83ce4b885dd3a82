//! Reading: what the socket has, up to one tick's share, as events.

use std::io;
use std::ops::ControlFlow::{self, Break, Continue};
use std::ops::Range;

use super::{Connection, Context, Open, Phase};
use crate::codec::websocket::Inbound;
use crate::limits::{Limits, READ_BYTES_PER_TICK_MAX};
use crate::message::{CloseReason, Event};

/// How far reading got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All that was there has been read; the poll reports it when there is more.
    Drained,
    /// The share of this tick is used up; there may be more, of which the poll reports nothing.
    More,
    /// The connection is over.
    Gone(CloseReason),
}

/// The read buffer shared by all connections, and how far the reading of the present one has got.
#[derive(Debug)]
pub struct Input {
    /// What has been read since this reading began. Never filled with zeros, so that it takes no
    /// more memory than the longest input needs.
    buffer: Vec<u8>,
    /// Input of an earlier tick that its connection has kept; handled first.
    kept: Box<[u8]>,
    /// What has not been handled: of `kept`, or of `buffer` if that is empty.
    rest: Range<usize>,
    /// The last read has emptied the socket.
    is_short: bool,
    /// Frames handled since this reading began.
    frames: usize,
    /// The share of the tick.
    frames_max: usize,
}

impl Default for Input {
    fn default() -> Self {
        Input {
            buffer: Vec::with_capacity(READ_BYTES_PER_TICK_MAX),
            kept: Box::default(),
            rest: 0..0,
            is_short: false,
            frames: 0,
            frames_max: 0,
        }
    }
}

impl Input {
    /// Bytes received since this reading began.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Frames handled since this reading began.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Ends this tick's reading after the present event.
    pub fn use_up_share(&mut self) {
        self.frames_max = self.frames;
    }

    fn is_share_used(&self) -> bool {
        self.frames >= self.frames_max
    }

    pub(super) fn rest(&self) -> &[u8] {
        let bytes = if self.kept.is_empty() { &*self.buffer } else { &*self.kept };
        &bytes[self.rest.clone()]
    }

    pub(super) fn skip(&mut self, bytes: usize) {
        self.rest.start += bytes;
    }
}

impl Connection {
    /// To be called when the poll has reported that there is something to read, or the end.
    pub fn note_readable(&mut self, peer_closed: bool) {
        self.peer_closed |= peer_closed;
    }

    /// Begins this tick's reading.
    pub fn begin_read(&mut self, input: &mut Input, limits: &Limits) {
        input.kept = std::mem::take(&mut self.unread);
        input.rest = 0..input.kept.len();
        input.is_short = false;
        input.buffer.clear();
        input.frames = 0;
        input.frames_max = limits.messages_per_tick_max;
    }

    /// Reads up to the next event of this tick, whose verdict must be applied before the next call;
    /// breaks off if there is none.
    pub fn next_event(
        &mut self,
        input: &mut Input,
        context: &mut Context<'_>,
    ) -> ControlFlow<Progress, Event> {
        loop {
            if input.rest.is_empty() {
                self.fill(input)?;
            }
            let event = match &mut self.phase {
                Phase::ProxyHeader(_) => {
                    self.read_proxy_header(input, context).map(Event::ProxiedPeer)
                }
                Phase::Head(_) => self.read_head(input, context),
                Phase::Open(_) | Phase::Closing { .. } if input.is_share_used() => {
                    return Break(Progress::More);
                }
                Phase::Open(_) | Phase::Closing { .. } => self.read_frame(input, context),
                Phase::Lingering { .. } => {
                    input.rest.start = input.rest.end;
                    None
                }
            };
            if let Some(event) = event {
                return Continue(event);
            }
        }
    }

    /// Ends this tick's reading: keeps what has not been handled.
    pub fn end_read(&mut self, input: &mut Input, context: &mut Context<'_>) {
        self.unread = input.rest().into();
        input.kept = Box::default();
        self.note_unfinished(context.now);
    }

    /// Reads the next portion into the buffer; breaks off if there is none.
    fn fill(&mut self, input: &mut Input) -> ControlFlow<Progress> {
        if input.is_short && !self.peer_closed {
            return Break(Progress::Drained);
        }
        let begin = input.buffer.len();
        let left = input.buffer.capacity() - begin;
        if input.is_share_used() || left == 0 {
            return Break(Progress::More);
        }
        (input.kept, input.rest) = (Box::default(), 0..0);
        match self.socket.receive(&mut input.buffer) {
            Ok(0) => Break(self.gone(CloseReason::PeerClosed)),
            Ok(count) => {
                input.rest = begin..begin + count;
                input.is_short = count < left;
                Continue(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Break(Progress::Drained),
            Err(_) => Break(self.gone(CloseReason::PeerReset)),
        }
    }

    fn gone(&self, reason: CloseReason) -> Progress {
        Progress::Gone(self.reason().unwrap_or(reason))
    }

    /// Takes the next frame out of the input; what is not the engine's is handled here.
    fn read_frame(&mut self, input: &mut Input, context: &mut Context<'_>) -> Option<Event> {
        let (Phase::Open(Open { websocket, .. }) | Phase::Closing { websocket, .. }) =
            &mut self.phase
        else {
            return None;
        };
        let mut rest = input.rest();
        let inbound = websocket.next(&mut rest, &context.settings.limits);
        input.rest.start = input.rest.end - rest.len();
        let inbound = match inbound {
            Ok(inbound) => inbound?,
            Err(violation) => {
                self.close(CloseReason::Violation(violation), context);
                self.end(CloseReason::Violation(violation), context);
                return None;
            }
        };
        input.frames += 1;
        match (inbound, &mut self.phase) {
            (Inbound::Message(event), Phase::Open(open)) => {
                open.unfinished = None; // what is incomplete after this is another message
                return Some(event);
            }
            (Inbound::Ping(pong), Phase::Open(_)) => context.send(pong),
            (Inbound::Pong, Phase::Open(open)) => open.unanswered_since = None,
            (Inbound::Close(answer), phase) => {
                if let Phase::Open(_) = phase {
                    context.send(answer);
                }
                self.end(CloseReason::PeerClosed, context);
            }
            // After our close frame nothing is answered or carried out any more.
            _ => {}
        }
        None
    }
}
