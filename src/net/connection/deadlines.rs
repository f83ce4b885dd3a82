//! What a connection does in its own time: handshakes that take too long, pings, closes that nobody
//! answers.

use std::time::{Duration, Instant};

use super::{Connection, Handler, Phase};
use crate::codec::http::{self, Status};
use crate::codec::websocket;
use crate::limits::{Limits, Pings};
use crate::message::close::{CloseReason, Farewell};
use crate::storage::held::Output;

impl Connection {
    /// When [`Connection::handle_deadline`] wants to be called next.
    pub fn deadline(&self, limits: &Limits, pings: &Pings) -> Option<Instant> {
        match &self.phase {
            Phase::ProxyHeader(_) | Phase::Head(_) => {
                Some(after(self.since, limits.handshake_seconds))
            }
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
            Phase::ProxyHeader(_) | Phase::Head(_) => {
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
                    websocket::ping(&mut ping);
                    handler.hold(self.id, Output::Bytes(ping));
                }
                None
            }
            _ => Some(self.reason.unwrap_or(CloseReason::PeerClosed)),
        }
    }
}

fn after(since: Instant, seconds: f64) -> Instant {
    since + Duration::from_secs_f64(seconds)
}
