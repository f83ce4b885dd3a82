//! The last hour and the last day, in buckets of equal length and memory of a fixed size.
//!
//! Samples the counters of the engine: a bucket holds the difference between its begin and its end.
//! Pure: the time is an argument, and never goes back.

use std::collections::VecDeque;

use super::histogram::{Histogram, Timings};
use crate::engine::metrics::Metrics;
use crate::limits::{DAY_BUCKET_SECONDS, DAY_BUCKETS, HOUR_BUCKET_SECONDS, HOUR_BUCKETS};
use crate::message::{Outcome, OutcomeCounts};
use crate::sys::clock::{Seconds, Timestamp};

/// What the counters have gained in some time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Mailboxes that ended.
    pub outcomes: OutcomeCounts,
    /// Durations of ticks, in seconds.
    pub tick: Histogram,
    /// Durations of commits, in seconds.
    pub commit: Histogram,
}

impl Counts {
    /// What they have gained since the start.
    pub fn totals(metrics: &Metrics, timings: &Timings) -> Counts {
        let (tick, commit) = (timings.tick, timings.commit);
        Counts { outcomes: metrics.mailbox_outcomes, tick, commit }
    }

    /// What they have gained in all these buckets.
    pub fn sum(buckets: &[Bucket]) -> Counts {
        let mut sum = Counts::default();
        buckets.iter().for_each(|bucket| sum.merge(&bucket.counts));
        sum
    }

    fn since(&self, earlier: &Counts) -> Counts {
        Counts {
            outcomes: self.outcomes.since(&earlier.outcomes),
            tick: self.tick.since(&earlier.tick),
            commit: self.commit.since(&earlier.commit),
        }
    }

    fn merge(&mut self, other: &Counts) {
        self.outcomes.merge(&other.outcomes);
        self.tick.merge(&other.tick);
        self.commit.merge(&other.commit);
    }
}

/// What happened in one stretch of time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    pub counts: Counts,
    /// Most connections at once; none before the start.
    pub connections: Option<usize>,
}

/// Buckets of one length.
#[derive(Debug)]
pub struct Series {
    /// The length of a bucket.
    seconds: Seconds,
    /// The number of the running bucket, counted from the epoch.
    number: i64,
    /// The running bucket, without what the counters have gained since it began.
    running: Bucket,
    /// The totals when it began.
    began: Counts,
    /// Buckets that are over, oldest first; always the same number.
    over: VecDeque<Bucket>,
}

impl Series {
    /// The last hour.
    pub fn hour(now: Timestamp) -> Series {
        Series::new(HOUR_BUCKETS, HOUR_BUCKET_SECONDS, now)
    }

    /// The last day.
    pub fn day(now: Timestamp) -> Series {
        Series::new(DAY_BUCKETS, DAY_BUCKET_SECONDS, now)
    }

    fn new(buckets: usize, seconds: Seconds, now: Timestamp) -> Series {
        Series {
            seconds,
            number: (now.0 / seconds) as i64,
            running: Bucket::default(),
            began: Counts::default(),
            over: VecDeque::from(vec![Bucket::default(); buckets - 1]),
        }
    }

    /// When [`Series::advance`] has a bucket to end.
    pub fn next_bucket(&self) -> Timestamp {
        Timestamp((self.number + 1) as Seconds * self.seconds)
    }

    /// Adds mailboxes that ended before the start.
    pub fn restore(&mut self, at: Timestamp, outcome: Outcome, count: u64) {
        // A time that is still to come counts as now.
        let age = usize::try_from(self.number - (at.0 / self.seconds) as i64).unwrap_or(0);
        let bucket = match self.over.len().checked_sub(age) {
            _ if age == 0 => &mut self.running,
            Some(place) => &mut self.over[place],
            None => return, // too long ago
        };
        bucket.counts.outcomes.add(outcome, count);
    }

    /// Records that many connections, and ends the buckets that are over, at these totals: asked
    /// for only then, as this is called in each tick.
    pub fn advance(&mut self, now: Timestamp, totals: &dyn Fn() -> Counts, connections: usize) {
        self.running.connections = self.running.connections.max(Some(connections));
        let number = (now.0 / self.seconds) as i64;
        for _ in 0..(number - self.number).min(self.over.len() as i64 + 1) {
            let totals = totals();
            self.running.counts.merge(&totals.since(&self.began));
            self.began = totals;
            self.over.pop_front();
            self.over.push_back(self.running);
            self.running = Bucket { connections: Some(connections), ..Bucket::default() };
        }
        self.number = number;
    }

    /// All buckets, oldest first; the last one is running.
    pub fn buckets(&self, totals: &Counts) -> Vec<Bucket> {
        let mut running = self.running;
        running.counts.merge(&totals.since(&self.began));
        self.over.iter().copied().chain([running]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of a quarter of an hour.
    const NOON: Timestamp = Timestamp(20_000.5 * 86_400.0);

    fn totals(happy: u64) -> Counts {
        let mut totals = Counts::default();
        totals.outcomes.add(Outcome::Happy, happy);
        totals
    }

    fn happy(series: &Series, now: &Counts) -> Vec<u64> {
        series.buckets(now).iter().map(|it| it.counts.outcomes.get(Outcome::Happy)).collect()
    }

    #[test]
    fn each_bucket_holds_what_happened_in_it() {
        let (mut hour, mut day) = (Series::hour(NOON), Series::day(NOON));
        for (seconds, ended, connections) in
            [(0.0, 0, 5), (60.0, 3, 2), (60.0, 3, 1), (181.0, 7, 1)]
        {
            for series in [&mut hour, &mut day] {
                series.advance(NOON + seconds, &|| totals(ended), connections);
            }
        }
        let ended = happy(&hour, &totals(8));
        assert_eq!(ended.len(), HOUR_BUCKETS);
        assert_eq!(ended[HOUR_BUCKETS - 4..], [3, 4, 0, 1]);
        assert_eq!(happy(&day, &totals(8))[DAY_BUCKETS - 2..], [0, 8]);
        let buckets = hour.buckets(&totals(8));
        let connections: Vec<_> = buckets.iter().map(|bucket| bucket.connections).collect();
        assert_eq!(connections[HOUR_BUCKETS - 5..], [None, Some(5), Some(2), Some(1), Some(1)]);
    }

    #[test]
    fn what_ended_before_the_start_is_in_its_bucket() {
        let (mut hour, mut day) = (Series::hour(NOON), Series::day(NOON));
        for (ago, count) in [(0.0, 1), (30.0, 2), (3_000.0, 4), (80_000.0, 8), (90_000.0, 16)] {
            for series in [&mut hour, &mut day] {
                series.restore(NOON - ago, Outcome::Happy, count);
            }
        }
        let (hour, day) = (happy(&hour, &totals(0)), happy(&day, &totals(0)));
        assert_eq!(hour.iter().sum::<u64>(), 1 + 2 + 4);
        assert_eq!(hour[HOUR_BUCKETS - 2..], [2, 1]);
        assert_eq!(day.iter().sum::<u64>(), 1 + 2 + 4 + 8);
    }

    #[test]
    fn a_long_sleep_leaves_nothing_of_before() {
        for (mut series, gained) in [(Series::hour(NOON), 0), (Series::day(NOON), 1)] {
            series.advance(NOON + 60.0, &|| totals(3), 0);
            series.advance(NOON + 1e9, &|| totals(4), 0);
            let ended = happy(&series, &totals(4 + gained));
            assert_eq!(ended.iter().sum::<u64>(), gained);
            assert_eq!(ended.last(), Some(&gained));
        }
    }
}
