//! Reading: what the socket has, up to one tick's share, as events.

use std::io::{self, Read};
use std::ops::Range;

use super::{Connection, Context, Open, Phase};
use crate::codec::websocket::{Inbound, SharedContext};
use crate::limits::{Limits, READ_BYTES_PER_TICK_MAX};
use crate::message::close::CloseReason;
use crate::message::event::Event;

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

/// Read buffers shared by all connections, and how far the reading of the present one has got.
#[derive(Debug)]
pub struct Input {
    buffer: Box<[u8]>,
    /// Input of an earlier tick that its connection has kept; handled first.
    kept: Vec<u8>,
    /// What has not been handled: of `kept`, or of `buffer` if that is empty.
    rest: Range<usize>,
    /// The tick's share that is left.
    bytes_left: usize,
    messages_left: usize,
    is_used_up: bool,
    /// The last read has emptied the socket.
    is_short: bool,
    progress: Progress,
    spare: SharedContext,
    /// The message of the last event.
    message: Option<Inbound>,
    received_bytes: u64,
}

impl Default for Input {
    fn default() -> Self {
        Input {
            buffer: vec![0; READ_BYTES_PER_TICK_MAX].into(),
            kept: Vec::new(),
            rest: 0..0,
            bytes_left: 0,
            messages_left: 0,
            is_used_up: false,
            is_short: false,
            progress: Progress::Drained,
            spare: SharedContext::default(),
            message: None,
            received_bytes: 0,
        }
    }
}

impl Input {
    /// Bytes received since the last call.
    pub fn take_received_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.received_bytes)
    }

    /// Frames handled since this reading began.
    pub fn frames_count(&self, limits: &Limits) -> usize {
        limits.messages_per_tick_max - self.messages_left
    }

    /// Ends this tick's reading after the present event.
    pub fn use_up_share(&mut self) {
        self.is_used_up = true;
    }

    pub(super) fn rest(&self) -> &[u8] {
        let bytes = if self.kept.is_empty() { &*self.buffer } else { &*self.kept };
        &bytes[self.rest.clone()]
    }

    pub(super) fn skip(&mut self, bytes: usize) {
        self.rest.start += bytes;
    }

    pub(super) fn skip_all(&mut self) {
        self.rest.start = self.rest.end;
    }

    /// The message as an event.
    fn event(&self) -> Option<Event<'_>> {
        match &self.message {
            Some(Inbound::Text(text)) => Some(Event::Text(text)),
            Some(Inbound::Binary(payload)) => Some(Event::Binary(payload)),
            Some(Inbound::TooLong { refusal, beginning }) => {
                Some(Event::TooLong { refusal, beginning })
            }
            Some(Inbound::Pong | Inbound::Frame | Inbound::Closed) | None => None,
        }
    }

    fn is_share_used(&self) -> bool {
        self.messages_left == 0 || self.is_used_up
    }

    /// Notes why reading ends here.
    fn stop(&mut self, progress: Progress) -> bool {
        self.progress = progress;
        false
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
        input.rest = self.handled..input.kept.len();
        self.handled = 0;
        input.bytes_left = READ_BYTES_PER_TICK_MAX;
        input.messages_left = limits.messages_per_tick_max;
        input.is_used_up = false;
        input.is_short = false;
    }

    /// Reads up to the next event of this tick. Its verdict must be applied before the next call.
    pub fn next_event<'i>(
        &mut self,
        input: &'i mut Input,
        context: &mut Context<'_>,
    ) -> Option<Event<'i>> {
        loop {
            if input.rest.is_empty() && !self.fill(input) {
                return None;
            }
            match &mut self.phase {
                Phase::ProxyHeader(_) => {
                    if let Some(peer) = self.read_proxy_header(input, context) {
                        return Some(Event::ProxiedPeer(peer));
                    }
                }
                Phase::Head(_) => {
                    if let Some(event) = self.read_head(input, context) {
                        return Some(event);
                    }
                }
                Phase::Open(_) | Phase::Closing { .. } if input.is_share_used() => {
                    input.stop(Progress::More);
                    return None;
                }
                Phase::Open(_) | Phase::Closing { .. } => {
                    input.message = self.read_message(input, context);
                    if input.message.is_some() {
                        return input.event();
                    }
                }
                Phase::Upgrading | Phase::Lingering { .. } => input.skip_all(),
            }
        }
    }

    /// Ends this tick's reading: keeps what has not been handled.
    pub fn end_read(&mut self, input: &mut Input, context: &mut Context<'_>) -> Progress {
        if input.rest.is_empty() {
            input.kept = Vec::new();
        } else if input.kept.is_empty() {
            self.unread = input.rest().to_vec();
        } else {
            self.handled = input.rest.start;
            self.unread = std::mem::take(&mut input.kept);
        }
        input.message = None;
        self.note_unfinished(context.now);
        if let Phase::Open(Open { close_after_read: Some(reason), .. }) = self.phase {
            self.close(reason, context);
        }
        input.progress
    }

    /// Reads the next portion into the buffer. If there is none, returns false and notes why.
    fn fill(&mut self, input: &mut Input) -> bool {
        if input.is_short && !self.peer_closed {
            return input.stop(Progress::Drained);
        }
        if input.is_share_used() {
            return input.stop(Progress::More);
        }
        input.kept = Vec::new();
        let share = input.bytes_left.min(input.buffer.len());
        if share == 0 {
            return input.stop(Progress::More);
        }
        loop {
            match self.socket.read(&mut input.buffer[..share]) {
                Ok(0) => return input.stop(self.gone(CloseReason::PeerClosed)),
                Ok(count) => {
                    input.rest = 0..count;
                    input.bytes_left -= count;
                    input.received_bytes += count as u64;
                    input.is_short = count < share;
                    return true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return input.stop(Progress::Drained);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return input.stop(self.gone(CloseReason::PeerReset)),
            }
        }
    }

    fn gone(&self, reason: CloseReason) -> Progress {
        Progress::Gone(self.reason().unwrap_or(reason))
    }

    /// Takes the next message out of the input; what is not the engine's is handled here.
    fn read_message(&mut self, input: &mut Input, context: &mut Context<'_>) -> Option<Inbound> {
        let (Phase::Open(Open { websocket, .. }) | Phase::Closing { websocket, .. }) =
            &mut self.phase
        else {
            return None;
        };
        let bytes = if input.kept.is_empty() { &*input.buffer } else { &*input.kept };
        let mut rest = &bytes[input.rest.clone()];
        let mut control = Vec::new();
        let limits = &context.settings.limits;
        let inbound = websocket.next(&mut rest, &mut control, limits, &mut input.spare);
        input.rest.start = input.rest.end - rest.len();
        if !control.is_empty() {
            context.send(control);
        }
        let inbound = match inbound {
            Ok(inbound) => inbound?,
            Err(violation) => {
                self.close(CloseReason::Violation(violation), context);
                self.end(CloseReason::Violation(violation), context);
                return None;
            }
        };
        input.messages_left = input.messages_left.saturating_sub(1);
        if !matches!(inbound, Inbound::Pong | Inbound::Frame)
            && let Phase::Open(open) = &mut self.phase
        {
            open.unfinished = None; // what is incomplete after this is another message
        }
        match (inbound, &mut self.phase) {
            (Inbound::Closed, _) => self.end(CloseReason::PeerClosed, context),
            (Inbound::Pong, Phase::Open(open)) => open.unanswered_since = None,
            (Inbound::Pong | Inbound::Frame, _) => {}
            (message, Phase::Open(_)) => return Some(message),
            // After the close frame nothing is carried out any more.
            _ => {}
        }
        None
    }
}
