//! Nameplates that ended recently, which `allocate` does not hand out yet (`claim` may name them).
//!
//! Not in the database, so a restart and a failed commit forget them. Bounded, however many
//! nameplates end, under however many app ids.

use std::collections::{HashMap, VecDeque};

use super::app::numeric_name;
use crate::limits::COOLING_MAX;
use crate::message::hash_of;
use crate::sys::clock::{Seconds, Timestamp};

/// The nameplates of all apps that cool, at most [`COOLING_MAX`].
#[derive(Debug, Default)]
pub(super) struct Cooling {
    /// When each began to cool.
    since: HashMap<Key, Timestamp>,
    /// The same in the order of beginning. A number that began anew is in it twice.
    order: VecDeque<(Key, Timestamp)>,
}

/// The hash of an app id, and a number in it.
type Key = (u64, u64);

impl Cooling {
    /// Begins to cool a nameplate that ended; not at all if `cooldown` is zero.
    pub fn begin(&mut self, app: &str, name: &str, now: Timestamp, cooldown: Seconds) {
        let Some(number) = numeric_name(name).filter(|_| cooldown > 0.0) else { return };
        while let Some((_, since)) = self.order.front()
            && (self.order.len() >= COOLING_MAX || now - *since >= cooldown)
        {
            if let Some((key, since)) = self.order.pop_front()
                && self.since.get(&key) == Some(&since)
            {
                self.since.remove(&key);
            }
        }
        let key = (hash_of(app), number);
        self.since.insert(key, now);
        self.order.push_back((key, now));
    }

    /// The clock was set.
    pub fn shift_times(&mut self, seconds: Seconds) {
        let in_order = self.order.iter_mut().map(|(_, since)| since);
        let all = self.since.values_mut().chain(in_order);
        all.for_each(|since| *since = *since + seconds);
    }

    /// Returns a test for whether a number of the app is cooling.
    pub fn of<'a>(
        &'a self,
        app: &str,
        now: Timestamp,
        cooldown: Seconds,
    ) -> impl Fn(u64) -> bool + use<'a> {
        let app = hash_of(app);
        // Not after the clock was set back: nothing must cool for longer than it should.
        let is_cooling = move |since: &Timestamp| (0.0..cooldown).contains(&(now - *since));
        move |number| self.since.get(&(app, number)).is_some_and(is_cooling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLDOWN: Seconds = 60.0;

    #[test]
    fn a_number_cools_in_its_app_for_its_time_and_from_its_last_end() {
        let mut cooling = Cooling::default();
        cooling.begin("app", "4", Timestamp(1_000.0), COOLDOWN);
        assert!(cooling.of("app", Timestamp(1_000.0), COOLDOWN)(4));
        assert!(!cooling.of("app", Timestamp(1_000.0), COOLDOWN)(5));
        assert!(!cooling.of("other", Timestamp(1_000.0), COOLDOWN)(4));
        cooling.begin("app", "4", Timestamp(1_050.0), COOLDOWN);
        assert!(cooling.of("app", Timestamp(1_109.0), COOLDOWN)(4));
        assert!(!cooling.of("app", Timestamp(1_110.0), COOLDOWN)(4));
    }

    #[test]
    fn an_end_as_of_the_beginning_of_an_expiry_check_lets_later_ones_cool_on() {
        let mut cooling = Cooling::default();
        cooling.begin("app", "4", Timestamp(1_000.0), COOLDOWN);
        cooling.begin("app", "5", Timestamp(999.0), COOLDOWN);
        assert!(cooling.of("app", Timestamp(1_001.0), COOLDOWN)(4));
    }

    #[test]
    fn what_is_never_handed_out_does_not_cool() {
        let mut cooling = Cooling::default();
        for name in ["007", "0", "1000000", "99999999999999999999999999"] {
            cooling.begin("app", name, Timestamp(1_000.0), COOLDOWN);
        }
        cooling.begin("app", "7", Timestamp(1_000.0), 0.0);
        assert!(cooling.order.is_empty());
    }

    #[test]
    fn a_clock_set_back_ends_it() {
        let mut cooling = Cooling::default();
        cooling.begin("app", "4", Timestamp(1_000.0), COOLDOWN);
        assert!(!cooling.of("app", Timestamp(900.0), COOLDOWN)(4));
    }

    #[test]
    fn it_is_bounded_and_empties_itself() {
        let mut cooling = Cooling::default();
        for number in 0..=COOLING_MAX {
            cooling.begin(&format!("app {number}"), "4", Timestamp(1_000.0), COOLDOWN);
        }
        assert_eq!((cooling.order.len(), cooling.since.len()), (COOLING_MAX, COOLING_MAX));
        assert!(!cooling.of("app 0", Timestamp(1_000.0), COOLDOWN)(4), "the oldest went");
        cooling.begin("app", "4", Timestamp(2_000.0), COOLDOWN);
        assert_eq!((cooling.order.len(), cooling.since.len()), (1, 1));
    }
}
