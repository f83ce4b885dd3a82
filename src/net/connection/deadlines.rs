//! A connection's timeouts: handshake, bind, ping, unfinished messages, waiting output, close.

use std::time::{Duration, Instant};

use super::{Connection, Context, Open, Phase, Settings};
use crate::codec::http::{self, Status};
use crate::codec::websocket;
use crate::limits::{Pings, SLOW_SENDER_BYTES_PER_SECOND, STALLED};
use crate::message::close::CloseReason;

/// A message that has begun to come in.
#[derive(Clone, Copy, Debug)]
pub struct Unfinished {
    since: Instant,
    /// Bytes that have come, and when the last of them did.
    bytes: u64,
    progressed: Instant,
}

impl Unfinished {
    fn new(bytes: u64, now: Instant) -> Unfinished {
        Unfinished { since: now, bytes, progressed: now }
    }

    fn note(&mut self, bytes: u64, now: Instant) {
        if bytes > self.bytes {
            (self.bytes, self.progressed) = (bytes, now);
        }
    }

    /// When it must be complete, or have come further.
    fn deadline(&self) -> Instant {
        let allowed = STALLED + Duration::from_secs(self.bytes / SLOW_SENDER_BYTES_PER_SECOND);
        (self.progressed + STALLED).min(self.since + allowed)
    }
}

impl Connection {
    /// When [`Connection::handle_deadline`] must be called next.
    pub fn deadline(&self, settings: &Settings) -> Option<Instant> {
        let stalled = self.stalled_deadline();
        let ping_due = match &self.phase {
            Phase::Open(open) => open.ping_due(&settings.pings),
            _ => None,
        };
        let deadlines = [self.silence_deadline(settings), ping_due, stalled];
        deadlines.into_iter().flatten().min()
    }

    /// When the connection ends, or is closed, unless something comes from the peer.
    fn silence_deadline(&self, settings: &Settings) -> Option<Instant> {
        let Settings { limits, pings, .. } = settings;
        match &self.phase {
            Phase::ProxyHeader(_) | Phase::Head(_) | Phase::Upgrading => {
                Some(after(self.since, limits.handshake_seconds))
            }
            Phase::Open(open) => {
                let bind = open.bind_deadline(self.since, limits.bind_seconds);
                let unfinished = open.unfinished.as_ref().map(Unfinished::deadline);
                [bind, open.pong_deadline(pings), unfinished].into_iter().flatten().min()
            }
            Phase::Closing { .. } | Phase::Lingering { .. } => {
                Some(after(self.since, limits.close_seconds))
            }
        }
    }

    /// Whether the peer has been silent for too long, as far as its input has been read.
    pub fn is_silent_too_long(&self, settings: &Settings, now: Instant) -> bool {
        self.silence_deadline(settings).is_some_and(|deadline| deadline <= now)
    }

    /// When waiting output must have made progress.
    fn stalled_deadline(&self) -> Option<Instant> {
        self.blocked_since.map(|since| since + STALLED)
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
        if is_past(self.stalled_deadline()) {
            return Some(CloseReason::StalledReader);
        }
        match &mut self.phase {
            Phase::ProxyHeader(_) | Phase::Head(_) | Phase::Upgrading => {
                let answer =
                    http::text_answer(Status::RequestTimeout, "request head took too long");
                self.answer(answer, CloseReason::HandshakeTimeout, context);
                None
            }
            Phase::Open(open) => {
                if is_past(open.pong_deadline(pings)) {
                    return Some(CloseReason::PingTimeout);
                }
                if is_past(open.bind_deadline(self.since, limits.bind_seconds)) {
                    open.is_bound = is_bound;
                    if !is_bound {
                        self.close(CloseReason::NotBound, context);
                        return None;
                    }
                }
                if is_past(open.unfinished.as_ref().map(Unfinished::deadline)) {
                    self.close(CloseReason::SlowSender, context);
                    return None;
                }
                if is_past(open.ping_due(pings)) {
                    open.pinged = context.now;
                    open.unanswered_since.get_or_insert(context.now);
                    let mut ping = Vec::new();
                    websocket::ping(&mut ping);
                    context.send(ping);
                }
                None
            }
            Phase::Closing { reason, .. } | Phase::Lingering { reason } => Some(*reason),
        }
    }

    /// Notes how far an unfinished message has come.
    pub(super) fn note_unfinished(&mut self, now: Instant) {
        let Phase::Open(open) = &mut self.phase else { return };
        match (open.websocket.unfinished_bytes(), &mut open.unfinished) {
            (None, unfinished) => *unfinished = None,
            (Some(bytes), Some(unfinished)) => unfinished.note(bytes, now),
            (Some(bytes), unfinished) => {
                *unfinished = Some(Unfinished::new(bytes, now));
                self.deadline_changed = true;
            }
        }
    }

    /// Notes whether the socket has taken any of the output.
    pub(super) fn note_output(&mut self, has_progressed: bool, now: Instant) {
        if self.outbox.is_empty() {
            self.blocked_since = None;
        } else if has_progressed || self.blocked_since.is_none() {
            self.deadline_changed |= self.blocked_since.is_none();
            self.blocked_since = Some(now);
        }
    }

    /// Moves all deadlines: the server stood still for that time, and the peer is not to blame.
    pub fn postpone_deadlines(&mut self, standstill: Duration) {
        self.since += standstill;
        if let Some(since) = &mut self.blocked_since {
            *since += standstill;
        }
        if let Phase::Open(open) = &mut self.phase {
            open.pinged += standstill;
            if let Some(since) = &mut open.unanswered_since {
                *since += standstill;
            }
            if let Some(unfinished) = &mut open.unfinished {
                unfinished.since += standstill;
                unfinished.progressed += standstill;
            }
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
        let since = self.unanswered_since.filter(|_| pings.timeout_seconds > 0.0)?;
        Some(after(since, pings.timeout_seconds))
    }
}

fn after(since: Instant, seconds: f64) -> Instant {
    since + Duration::from_secs_f64(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes arrive at that rate, once a second; returns the seconds until the message is dropped,
    /// if it is before all of it has come.
    fn dropped_after(message_bytes: u64, bytes_per_second: u64) -> Option<u64> {
        let begun = Instant::now();
        let mut unfinished = Unfinished::new(1, begun);
        for second in 1.. {
            let now = begun + Duration::from_secs(second);
            if unfinished.deadline() <= now {
                return Some(second);
            }
            let bytes = 1 + second * bytes_per_second;
            if bytes >= message_bytes {
                return None;
            }
            unfinished.note(bytes, now);
        }
        None
    }

    #[test]
    fn a_slow_line_gets_its_message_through_and_a_trickle_does_not() {
        const MIB: u64 = 1024 * 1024;
        assert_eq!(dropped_after(4 * MIB, 10_000), None);
        assert_eq!(dropped_after(64 * MIB, SLOW_SENDER_BYTES_PER_SECOND), None);
        assert_eq!(dropped_after(400_000, 8_000), None);
        assert_eq!(dropped_after(MIB, 1), Some(60));
        // At half the rate, half of the bytes must come in the first minute.
        assert_eq!(dropped_after(MIB, 4_096), Some(118));
    }

    #[test]
    fn a_message_of_which_nothing_comes_for_a_minute_is_dropped() {
        let begun = Instant::now();
        let mut unfinished = Unfinished::new(1_000_000, begun);
        assert_eq!(unfinished.deadline(), begun + STALLED);
        let later = begun + Duration::from_secs(59);
        unfinished.note(1_000_000, later);
        assert_eq!(unfinished.deadline(), begun + STALLED);
        unfinished.note(1_000_001, later);
        assert_eq!(unfinished.deadline(), later + STALLED);
    }
}
