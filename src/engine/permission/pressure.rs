//! Whether the server is under attack: hostile events raise a level that decays by half in a set
//! time. An attack begins at a level, and ends well below it, after it has lasted a while. A
//! function of what it is told and when.

use std::time::{Duration, Instant};

use super::Turn;
use crate::limits::{
    ATTACK_BITS_EXTRA_MAX, ATTACK_END_SHARE, ATTACK_HOLD_HALF_LIVES, OPTION_SECONDS_MIN,
};

/// The level, and what is made of it.
#[derive(Debug)]
pub struct Pressure {
    /// The level at which an attack begins.
    threshold: f64,
    /// Seconds in which the level halves.
    half_life: f64,
    /// The level as it was when measured.
    level: f64,
    measured: Instant,
    is_attack: bool,
    /// Before then no attack ends.
    held_until: Instant,
}

impl Pressure {
    pub fn new(threshold: f64, half_life: f64, now: Instant) -> Pressure {
        Pressure {
            threshold,
            half_life,
            level: 0.0,
            measured: now,
            is_attack: false,
            held_until: now,
        }
    }

    /// Whether there is an attack, as of the last turn.
    pub fn is_attack(&self) -> bool {
        self.is_attack
    }

    /// Counts events. The level stops where it has all its effect, so that the longest attack
    /// is over as soon after its end as any.
    pub fn add(&mut self, events: usize, now: Instant) {
        let level_max = self.threshold * f64::from(ATTACK_BITS_EXTRA_MAX).exp2();
        self.level = (self.level_at(now) + events as f64).min(level_max);
        self.measured = now;
        if self.level >= self.threshold {
            self.held_until = after(now, self.half_life * ATTACK_HOLD_HALF_LIVES);
        }
    }

    /// Bits to demand beyond the usual: one for each doubling of the level.
    pub fn extra_bits(&self, now: Instant) -> u32 {
        let doublings = (self.level_at(now) / self.threshold).log2().floor();
        doublings.clamp(0.0, f64::from(ATTACK_BITS_EXTRA_MAX)) as u32
    }

    /// Begins an attack or ends it, if that is due.
    pub fn turn(&mut self, now: Instant) -> Option<Turn> {
        let level = self.level_at(now);
        if !self.is_attack && level >= self.threshold {
            self.is_attack = true;
            return Some(Turn::Demanding);
        }
        if self.is_attack && level < self.threshold * ATTACK_END_SHARE && self.held_until <= now {
            self.is_attack = false;
            return Some(Turn::Calm);
        }
        None
    }

    /// When the attack ends, if nothing more happens.
    pub fn ends_at(&self) -> Option<Instant> {
        if !self.is_attack {
            return None;
        }
        let halvings = (self.level / (self.threshold * ATTACK_END_SHARE)).log2().max(0.0);
        // The least that the poll can tell apart, so that the level is below by then, not at it.
        let low_at = after(self.measured, halvings * self.half_life + OPTION_SECONDS_MIN);
        Some(self.held_until.max(low_at))
    }

    fn level_at(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.measured).as_secs_f64();
        self.level * (-elapsed / self.half_life).exp2()
    }
}

fn after(start: Instant, seconds: f64) -> Instant {
    start + Duration::from_secs_f64(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Begins at 16, ends below 4, halves in a minute, lasts five.
    fn pressure() -> (Pressure, Instant) {
        let start = Instant::now();
        (Pressure::new(16.0, 60.0, start), start)
    }

    #[test]
    fn events_that_come_slowly_are_no_attack() {
        let (mut pressure, start) = pressure();
        for second in 0..3_600 {
            if second % 6 == 0 {
                pressure.add(1, after(start, f64::from(second))); // the level nears 15
            }
            assert_eq!(pressure.turn(after(start, f64::from(second))), None);
        }
        assert_eq!(pressure.ends_at(), None);
    }

    #[test]
    fn an_attack_begins_at_the_threshold_and_lasts_its_while() {
        let (mut pressure, start) = pressure();
        pressure.add(15, start);
        assert_eq!(pressure.turn(start), None);
        pressure.add(1, start);
        assert_eq!(pressure.turn(start), Some(Turn::Demanding));
        assert_eq!(pressure.turn(start), None, "told once");
        // The level is below the end after two half-lives; the while is five.
        assert_eq!(pressure.turn(after(start, 299.9)), None);
        assert!(pressure.is_attack());
        assert_eq!(pressure.ends_at(), Some(after(start, 300.0)));
        assert_eq!(pressure.turn(after(start, 300.0)), Some(Turn::Calm));
        assert_eq!(pressure.turn(after(start, 300.0)), None, "told once");
    }

    #[test]
    fn an_attack_does_not_end_between_the_two_levels() {
        let (mut pressure, start) = pressure();
        pressure.add(16, start);
        assert_eq!(pressure.turn(start), Some(Turn::Demanding));
        // Every half-life half is gone and comes again: between 5 and 10, for an hour.
        for minute in 1..60 {
            let now = after(start, 60.0 * f64::from(minute));
            pressure.add(5, now);
            assert_eq!(pressure.turn(now), None, "{minute}");
        }
        let end = pressure.ends_at().expect("an end");
        assert_eq!(pressure.turn(end - Duration::from_millis(10)), None);
        assert_eq!(pressure.turn(end), Some(Turn::Calm));
    }

    #[test]
    fn an_attack_that_goes_on_is_held_anew() {
        let (mut pressure, start) = pressure();
        pressure.add(16, start);
        pressure.turn(start);
        let later = after(start, 200.0);
        pressure.add(16, later);
        assert_eq!(pressure.turn(later), None);
        assert_eq!(pressure.ends_at(), Some(after(later, 300.0)));
    }

    #[test]
    fn bits_rise_with_each_doubling_up_to_a_bound_and_fall_again() {
        let (mut pressure, start) = pressure();
        let mut bits = Vec::new();
        for events in [16, 15, 1, 32, 1_000_000_000] {
            pressure.add(events, start);
            bits.push(pressure.extra_bits(start));
        }
        assert_eq!(bits, [0, 0, 1, 2, 6]);
        assert_eq!(pressure.extra_bits(after(start, 60.1)), 4);
        assert_eq!(pressure.extra_bits(after(start, 86_400.0)), 0);
    }

    #[test]
    fn the_largest_attack_is_over_eight_half_lives_after_its_end() {
        let (mut pressure, start) = pressure();
        pressure.add(usize::MAX, start);
        assert_eq!(pressure.turn(start), Some(Turn::Demanding));
        let end = pressure.ends_at().expect("an end");
        assert!(end <= after(start, 8.0 * 60.0 + 1.0));
        assert_eq!(pressure.turn(end), Some(Turn::Calm));
    }
}
