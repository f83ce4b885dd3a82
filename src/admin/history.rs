//! The last hour and the last day in steps, in memory of a fixed size.
//!
//! Only takes samples of counters that others keep: what a step holds is the difference between
//! its two ends. Pure: the time comes in, and never goes back.

use std::collections::VecDeque;

use crate::engine::metrics::{Histogram, Metrics, Timings};
use crate::limits::{DAY_STEP_SECONDS, DAY_STEPS, HOUR_STEP_SECONDS, HOUR_STEPS};
use crate::message::outcome::{Outcome, OutcomeCounts};
use crate::sys::clock::Seconds;

/// What happened in one step; or, as totals, since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Step {
    /// Mailboxes that ended.
    pub outcomes: OutcomeCounts,
    /// Seconds that ticks took.
    pub tick: Histogram,
    /// Seconds that commits took.
    pub commit: Histogram,
    /// Most connections at once; none before the start.
    pub connections: Option<usize>,
}

impl Step {
    /// The counters as they are now.
    pub fn totals(metrics: &Metrics, timings: &Timings) -> Step {
        Step {
            outcomes: metrics.mailbox_outcomes,
            tick: timings.tick,
            commit: timings.commit,
            connections: None,
        }
    }

    /// Adds what happened between two totals.
    fn add(&mut self, now: &Step, before: &Step) {
        self.outcomes.merge(&now.outcomes.since(&before.outcomes));
        self.tick.merge(&now.tick.since(&before.tick));
        self.commit.merge(&now.commit.since(&before.commit));
    }
}

/// The last hour and the last day.
#[derive(Debug)]
pub struct History {
    pub hour: Track,
    pub day: Track,
}

impl History {
    /// Begins at `now`, with nothing before.
    pub fn new(now: Seconds) -> History {
        History {
            hour: Track::new(HOUR_STEPS, HOUR_STEP_SECONDS, now),
            day: Track::new(DAY_STEPS, DAY_STEP_SECONDS, now),
        }
    }

    /// Puts in mailboxes that ended before the start.
    pub fn remember(&mut self, at: Seconds, outcome: Outcome, count: u64) {
        self.hour.remember(at, outcome, count);
        self.day.remember(at, outcome, count);
    }

    /// There are so many connections.
    pub fn note_connections(&mut self, connections: usize) {
        for track in [&mut self.hour, &mut self.day] {
            track.running.connections = track.running.connections.max(Some(connections));
        }
    }

    /// When [`History::advance`] has something to do.
    pub fn next_step(&self) -> Seconds {
        self.hour.next_step().min(self.day.next_step())
    }

    /// Ends the steps that are over. What they hold is what `totals` has more than when they began.
    pub fn advance(&mut self, now: Seconds, totals: impl Fn() -> Step, connections: usize) {
        for track in [&mut self.hour, &mut self.day] {
            if now >= track.next_step() {
                track.advance(now, &totals(), connections);
            }
        }
    }
}

/// Steps of one length, as many as fit.
#[derive(Debug)]
pub struct Track {
    seconds: Seconds,
    /// The number of the running step, from the epoch.
    number: i64,
    /// What the running step holds besides what the counters tell.
    running: Step,
    /// The counters when it began.
    began: Step,
    /// Those that are over, oldest first; always the same number.
    over: VecDeque<Step>,
}

impl Track {
    fn new(steps: usize, seconds: Seconds, now: Seconds) -> Track {
        Track {
            seconds,
            number: (now / seconds) as i64,
            running: Step::default(),
            began: Step::default(),
            over: VecDeque::from(vec![Step::default(); steps - 1]),
        }
    }

    fn next_step(&self) -> Seconds {
        (self.number + 1) as Seconds * self.seconds
    }

    fn remember(&mut self, at: Seconds, outcome: Outcome, count: u64) {
        let age = self.number - (at / self.seconds) as i64;
        let place =
            (self.over.len() as i64).checked_sub(age).and_then(|it| usize::try_from(it).ok());
        match place {
            _ if age <= 0 => self.running.outcomes.add(outcome, count),
            Some(place) => self.over[place].outcomes.add(outcome, count),
            None => {} // too long ago
        }
    }

    fn advance(&mut self, now: Seconds, totals: &Step, connections: usize) {
        let number = (now / self.seconds) as i64;
        let passed = (number - self.number).min(self.over.len() as i64 + 1);
        for _ in 0..passed {
            self.running.add(totals, &self.began);
            self.began = *totals;
            self.over.pop_front();
            self.over.push_back(self.running);
            self.running = Step { connections: Some(connections), ..Step::default() };
        }
        self.number = number;
    }

    /// All steps, oldest first; the last one is running.
    pub fn steps(&self, totals: &Step) -> Vec<Step> {
        let mut running = self.running;
        running.add(totals, &self.began);
        self.over.iter().copied().chain([running]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of a quarter of an hour.
    const NOON: Seconds = 20_000.5 * 86_400.0;

    fn totals(happy: u64) -> Step {
        let mut totals = Step::default();
        totals.outcomes.add(Outcome::Happy, happy);
        totals
    }

    fn happy(track: &Track, now: &Step) -> Vec<u64> {
        track.steps(now).iter().map(|step| step.outcomes.get(Outcome::Happy)).collect()
    }

    #[test]
    fn each_step_holds_what_happened_in_it() {
        let mut history = History::new(NOON);
        history.note_connections(5);
        history.advance(NOON + 60.0, || totals(3), 2);
        history.note_connections(1);
        history.advance(NOON + 181.0, || totals(7), 1);
        let hour = happy(&history.hour, &totals(8));
        assert_eq!(hour.len(), HOUR_STEPS);
        assert_eq!(hour[HOUR_STEPS - 4..], [3, 4, 0, 1]);
        assert_eq!(happy(&history.day, &totals(8))[DAY_STEPS - 2..], [0, 8]);
        let steps = history.hour.steps(&totals(8));
        let connections: Vec<_> = steps.iter().map(|step| step.connections).collect();
        assert_eq!(connections[HOUR_STEPS - 5..], [None, Some(5), Some(2), Some(1), Some(1)]);
    }

    #[test]
    fn what_was_before_the_start_is_put_where_it_belongs() {
        let mut history = History::new(NOON);
        for (ago, count) in [(0.0, 1), (30.0, 2), (3_000.0, 4), (80_000.0, 8), (90_000.0, 16)] {
            history.remember(NOON - ago, Outcome::Happy, count);
        }
        let (hour, day) = (happy(&history.hour, &totals(0)), happy(&history.day, &totals(0)));
        assert_eq!(hour.iter().sum::<u64>(), 1 + 2 + 4);
        assert_eq!(hour[HOUR_STEPS - 2..], [2, 1]);
        assert_eq!(day.iter().sum::<u64>(), 1 + 2 + 4 + 8);
    }

    #[test]
    fn a_long_sleep_leaves_nothing_of_before() {
        let mut history = History::new(NOON);
        history.advance(NOON + 60.0, || totals(3), 0);
        history.advance(NOON + 1e9, || totals(4), 0);
        assert_eq!(happy(&history.hour, &totals(4)).iter().sum::<u64>(), 0);
        assert_eq!(happy(&history.day, &totals(5))[DAY_STEPS - 1], 1);
    }
}
