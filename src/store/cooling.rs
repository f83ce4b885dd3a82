//! Nameplates that ended recently, which `allocate` does not hand out yet (`claim` may name them).
//!
//! Not in the database, so a restart and a failed commit forget them. Bounded, however many
//! nameplates end, under however many app ids.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use super::app::numeric_name;
use crate::limits::COOLING_MAX;
use crate::sys::clock::{Seconds, Timestamp};

#[derive(Debug, Default)]
pub(super) struct Cooling {
    /// Numbers by app, each with when it began to cool.
    since: HashMap<Rc<str>, HashMap<u64, Timestamp>>,
    /// The same in the order of beginning. A number that began anew is in it twice.
    order: VecDeque<(Rc<str>, u64, Timestamp)>,
}

impl Cooling {
    /// Begins to cool a nameplate that ended; not at all if `cooldown` is zero.
    pub fn begin(&mut self, app: &Rc<str>, name: &str, now: Timestamp, cooldown: Seconds) {
        let Some(number) = numeric_name(name).filter(|_| cooldown > 0.0) else { return };
        while let Some((_, _, since)) = self.order.front()
            && (self.order.len() >= COOLING_MAX || !is_cooling(*since, now, cooldown))
        {
            self.forget_oldest();
        }
        self.since.entry(app.clone()).or_default().insert(number, now);
        self.order.push_back((app.clone(), number, now));
    }

    /// The clock was set.
    pub fn shift_times(&mut self, seconds: Seconds) {
        let by_app = self.since.values_mut().flat_map(HashMap::values_mut);
        let in_order = self.order.iter_mut().map(|(_, _, since)| since);
        by_app.chain(in_order).for_each(|since| *since = *since + seconds);
    }

    fn forget_oldest(&mut self) {
        let Some((app, number, since)) = self.order.pop_front() else { return };
        let Some(numbers) = self.since.get_mut(&app) else { return };
        if numbers.get(&number) == Some(&since) {
            numbers.remove(&number);
        }
        if numbers.is_empty() {
            self.since.remove(&app);
        }
    }

    /// Returns a test for whether a number of the app is cooling.
    pub fn of<'a>(
        &'a self,
        app: &str,
        now: Timestamp,
        cooldown: Seconds,
    ) -> impl Fn(u64) -> bool + use<'a> {
        let numbers = self.since.get(app);
        move |number| {
            let since = numbers.and_then(|numbers| numbers.get(&number));
            since.is_some_and(|since| is_cooling(*since, now, cooldown))
        }
    }
}

/// False after the clock was set back: nothing must cool for longer than it should.
fn is_cooling(since: Timestamp, now: Timestamp, cooldown: Seconds) -> bool {
    (0.0..cooldown).contains(&(now - since))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLDOWN: Seconds = 60.0;

    #[test]
    fn a_number_cools_in_its_app_for_its_time_and_from_its_last_end() {
        let (mut cooling, app) = (Cooling::default(), Rc::from("app"));
        cooling.begin(&app, "4", Timestamp(1_000.0), COOLDOWN);
        assert!(cooling.of("app", Timestamp(1_000.0), COOLDOWN)(4));
        assert!(!cooling.of("app", Timestamp(1_000.0), COOLDOWN)(5));
        assert!(!cooling.of("other", Timestamp(1_000.0), COOLDOWN)(4));
        cooling.begin(&app, "4", Timestamp(1_050.0), COOLDOWN);
        assert!(cooling.of("app", Timestamp(1_109.0), COOLDOWN)(4));
        assert!(!cooling.of("app", Timestamp(1_110.0), COOLDOWN)(4));
    }

    #[test]
    fn what_is_never_handed_out_does_not_cool() {
        let (mut cooling, app) = (Cooling::default(), Rc::from("app"));
        for name in ["007", "0", "1000000", "99999999999999999999999999"] {
            cooling.begin(&app, name, Timestamp(1_000.0), COOLDOWN);
        }
        cooling.begin(&app, "7", Timestamp(1_000.0), 0.0);
        assert!(cooling.order.is_empty());
    }

    #[test]
    fn a_clock_set_back_ends_it() {
        let (mut cooling, app) = (Cooling::default(), Rc::from("app"));
        cooling.begin(&app, "4", Timestamp(1_000.0), COOLDOWN);
        assert!(!cooling.of("app", Timestamp(900.0), COOLDOWN)(4));
    }

    #[test]
    fn it_is_bounded_and_empties_itself() {
        let mut cooling = Cooling::default();
        for number in 0..=COOLING_MAX {
            let app: Rc<str> = format!("app {number}").into();
            cooling.begin(&app, "4", Timestamp(1_000.0), COOLDOWN);
        }
        assert_eq!((cooling.order.len(), cooling.since.len()), (COOLING_MAX, COOLING_MAX));
        assert!(!cooling.of("app 0", Timestamp(1_000.0), COOLDOWN)(4), "the oldest went");
        cooling.begin(&Rc::from("app"), "4", Timestamp(2_000.0), COOLDOWN);
        assert_eq!((cooling.order.len(), cooling.since.len()), (1, 1));
    }
}
