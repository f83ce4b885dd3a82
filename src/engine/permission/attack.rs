//! Detects attacks: hostile events raise a level that halves in a set time. An attack begins at a
//! threshold and ends well below it, after a minimum duration. Pure; the time is an argument.

use std::time::Instant;

use crate::limits::{
    ATTACK_BITS_EXTRA_MAX, ATTACK_END_SHARE, ATTACK_HOLD_HALF_LIVES, OPTION_SECONDS_MIN,
};
use crate::message::handover::AttackRecord;
use crate::sys::clock::after;

/// The level of hostile events, and whether it is an attack.
#[derive(Debug)]
pub struct AttackDetector {
    /// The level at which an attack begins.
    threshold: f64,
    /// Seconds.
    half_life: f64,
    /// The level at the time `measured`.
    level: f64,
    measured: Instant,
    /// As of the last update.
    pub is_attack: bool,
    /// No attack ends before this time.
    held_until: Instant,
}

/// What an update finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttackChange {
    Began,
    Ended,
}

impl AttackDetector {
    /// No events yet. `half_life`: in seconds.
    pub fn new(threshold: f64, half_life: f64, now: Instant) -> AttackDetector {
        AttackDetector {
            threshold,
            half_life,
            level: 0.0,
            measured: now,
            is_attack: false,
            held_until: now,
        }
    }

    /// The state, for another process to go on with.
    pub fn export(&self, now: Instant) -> AttackRecord {
        AttackRecord {
            level: self.level_at(now),
            is_attack: self.is_attack,
            held: self.held_until.saturating_duration_since(now),
        }
    }

    /// Goes on with the state of another process.
    pub fn restore(&mut self, record: &AttackRecord, now: Instant) {
        (self.level, self.measured, self.is_attack) = (record.level, now, record.is_attack);
        self.held_until = now.checked_add(record.held).unwrap_or(now);
    }

    /// Counts events. The level is capped where it has its full effect, so that a long attack ends
    /// as soon after its last event as a short one.
    pub fn add(&mut self, events: usize, now: Instant) {
        let level_max = self.threshold * f64::from(ATTACK_BITS_EXTRA_MAX).exp2();
        self.level = (self.level_at(now) + events as f64).min(level_max);
        self.measured = now;
        if self.level >= self.threshold {
            self.held_until = after(now, self.half_life * ATTACK_HOLD_HALF_LIVES);
        }
    }

    /// Bits to demand in addition: one for each doubling of the level beyond the threshold.
    pub fn extra_bits(&self, now: Instant) -> u32 {
        let doublings = (self.level_at(now) / self.threshold).log2().floor();
        doublings.clamp(0.0, f64::from(ATTACK_BITS_EXTRA_MAX)) as u32
    }

    /// Returns what has changed since the last call.
    pub fn update(&mut self, now: Instant) -> Option<AttackChange> {
        let level = self.level_at(now);
        let is_attack = if self.is_attack {
            level >= self.threshold * ATTACK_END_SHARE || self.held_until > now
        } else {
            level >= self.threshold
        };
        match (std::mem::replace(&mut self.is_attack, is_attack), is_attack) {
            (false, true) => Some(AttackChange::Began),
            (true, false) => Some(AttackChange::Ended),
            _ => None,
        }
    }

    /// When the attack ends if no further event is counted.
    pub fn ends_at(&self) -> Option<Instant> {
        if !self.is_attack {
            return None;
        }
        let halvings = (self.level / (self.threshold * ATTACK_END_SHARE)).log2().max(0.0);
        // The resolution of the poll is added, so that the level is below the bound by then.
        let low_at = after(self.measured, halvings * self.half_life + OPTION_SECONDS_MIN);
        Some(self.held_until.max(low_at))
    }

    fn level_at(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.measured).as_secs_f64();
        self.level * (-elapsed / self.half_life).exp2()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Begins at 16, ends below 4, halves in a minute, lasts five.
    fn detector() -> (AttackDetector, Instant) {
        let start = Instant::now();
        (AttackDetector::new(16.0, 60.0, start), start)
    }

    #[test]
    fn events_that_come_slowly_are_no_attack() {
        let (mut detector, start) = detector();
        for second in 0..3_600 {
            if second % 6 == 0 {
                detector.add(1, after(start, f64::from(second))); // the level nears 15
            }
            assert_eq!(detector.update(after(start, f64::from(second))), None);
        }
        assert_eq!(detector.ends_at(), None);
    }

    #[test]
    fn an_attack_begins_at_the_threshold_and_has_a_minimum_duration() {
        let (mut detector, start) = detector();
        detector.add(15, start);
        assert_eq!(detector.update(start), None);
        detector.add(1, start);
        assert_eq!(detector.update(start), Some(AttackChange::Began));
        assert_eq!(detector.update(start), None, "reported once");
        // The level is below the bound after two half-lives; the minimum is five.
        assert_eq!(detector.update(after(start, 299.9)), None);
        assert!(detector.is_attack);
        assert_eq!(detector.ends_at(), Some(after(start, 300.0)));
        assert_eq!(detector.update(after(start, 300.0)), Some(AttackChange::Ended));
        assert_eq!(detector.update(after(start, 300.0)), None, "reported once");
    }

    #[test]
    fn an_attack_does_not_end_between_the_two_levels() {
        let (mut detector, start) = detector();
        detector.add(16, start);
        assert_eq!(detector.update(start), Some(AttackChange::Began));
        // Every half-life half is gone and comes again: between 5 and 10, for an hour.
        for minute in 1..60 {
            let now = after(start, 60.0 * f64::from(minute));
            detector.add(5, now);
            assert_eq!(detector.update(now), None, "{minute}");
        }
        let end = detector.ends_at().expect("an end");
        assert_eq!(detector.update(end - Duration::from_millis(10)), None);
        assert_eq!(detector.update(end), Some(AttackChange::Ended));
    }

    #[test]
    fn an_attack_that_goes_on_is_held_anew() {
        let (mut detector, start) = detector();
        detector.add(16, start);
        detector.update(start);
        let later = after(start, 200.0);
        detector.add(16, later);
        assert_eq!(detector.update(later), None);
        assert_eq!(detector.ends_at(), Some(after(later, 300.0)));
    }

    #[test]
    fn bits_rise_with_each_doubling_up_to_a_bound_and_fall_again() {
        let (mut detector, start) = detector();
        let mut bits = Vec::new();
        for events in [16, 15, 1, 32, 1_000_000_000] {
            detector.add(events, start);
            bits.push(detector.extra_bits(start));
        }
        assert_eq!(bits, [0, 0, 1, 2, 6]);
        assert_eq!(detector.extra_bits(after(start, 60.1)), 4);
        assert_eq!(detector.extra_bits(after(start, 86_400.0)), 0);
    }

    #[test]
    fn the_largest_attack_is_over_eight_half_lives_after_its_end() {
        let (mut detector, start) = detector();
        detector.add(usize::MAX, start);
        assert_eq!(detector.update(start), Some(AttackChange::Began));
        let end = detector.ends_at().expect("an end");
        assert!(end <= after(start, 8.0 * 60.0 + 1.0));
        assert_eq!(detector.update(end), Some(AttackChange::Ended));
    }
}
