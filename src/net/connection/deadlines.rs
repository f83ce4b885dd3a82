//! A connection's timeouts: handshake, bind, ping, close.

use std::time::{Duration, Instant};

use super::{Connection, Context, Open, Phase, Settings};
use crate::codec::http::{self, Status};
use crate::codec::websocket;
use crate::limits::{Pings, STANDSTILL};
use crate::message::close::CloseReason;

impl Connection {
    /// When [`Connection::handle_deadline`] must be called next.
    pub fn deadline(&self, settings: &Settings) -> Option<Instant> {
        let Settings { limits, pings, .. } = settings;
        match &self.phase {
            Phase::ProxyHeader(_) | Phase::Head(_) | Phase::Upgrading => {
                Some(after(self.since, limits.handshake_seconds))
            }
            Phase::Open(open) => {
                let bind = open.bind_deadline(self.since, limits.bind_seconds);
                let deadlines = [bind, open.ping_due(pings), open.pong_deadline(pings)];
                deadlines.into_iter().flatten().min()
            }
            Phase::Closing { .. } | Phase::Lingering { .. } => {
                Some(after(self.since, limits.close_seconds))
            }
        }
    }

    /// Does what is due; returns the reason if the connection is over. `is_bound`: the engine knows
    /// it as bound.
    pub fn handle_deadline(
        &mut self,
        is_bound: bool,
        context: &mut Context<'_>,
    ) -> Option<CloseReason> {
        let Settings { limits, pings, .. } = context.settings;
        let is_past =
            |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= context.now);
        if !is_past(self.deadline(context.settings)) {
            return None;
        }
        match &mut self.phase {
            Phase::ProxyHeader(_) | Phase::Head(_) | Phase::Upgrading => {
                let answer =
                    http::text_answer(Status::RequestTimeout, "request head took too long");
                self.answer(answer, CloseReason::HandshakeTimeout, context);
                None
            }
            Phase::Open(open) => {
                if let Some(lost) = open.pong_deadline(pings).filter(|lost| *lost <= context.now) {
                    if context.now - lost < STANDSTILL {
                        return Some(CloseReason::PingTimeout);
                    }
                    // The server stood still, and the answer may not have been read yet.
                    open.unanswered = Some(context.now);
                }
                if is_past(open.bind_deadline(self.since, limits.bind_seconds)) {
                    open.is_bound = is_bound;
                    if !is_bound {
                        self.close(CloseReason::NotBound, context);
                        return None;
                    }
                }
                if is_past(open.ping_due(pings)) {
                    open.pinged = context.now;
                    open.unanswered.get_or_insert(context.now);
                    let mut ping = Vec::new();
                    websocket::ping(&mut ping);
                    context.send(ping);
                }
                None
            }
            Phase::Closing { reason, .. } | Phase::Lingering { reason } => Some(*reason),
        }
    }
}

impl Open {
    fn bind_deadline(&self, opened: Instant, bind_seconds: f64) -> Option<Instant> {
        (!self.is_bound).then(|| after(opened, bind_seconds))
    }

    fn ping_due(&self, pings: &Pings) -> Option<Instant> {
        (pings.interval_seconds > 0.0).then(|| after(self.pinged, pings.interval_seconds))
    }

    /// When the peer counts as lost: the timeout runs from the first ping that it did not answer.
    fn pong_deadline(&self, pings: &Pings) -> Option<Instant> {
        let first = self.unanswered.filter(|_| pings.timeout_seconds > 0.0)?;
        Some(after(first, pings.timeout_seconds))
    }
}

fn after(since: Instant, seconds: f64) -> Instant {
    since + Duration::from_secs_f64(seconds)
}
