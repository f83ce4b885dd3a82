//! Histograms of durations and sizes, which only the admin listener shows.

use crate::limits::{BATCH_CHANGES_BOUNDS, DURATION_BOUNDS, HISTOGRAM_BUCKETS};

/// The number of values in each range, and the sum of all values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Histogram {
    /// Values up to each bound and above the one before; the last has no bound.
    counts: [u64; HISTOGRAM_BUCKETS + 1],
    pub sum: f64,
}

impl Histogram {
    /// Counts a value; `bounds` must be the same for all values of one histogram.
    pub fn observe(&mut self, value: f64, bounds: &Bounds) {
        let bucket = bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += 1;
        self.sum += value;
    }

    /// The number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// For each bound, the number of values that do not exceed it.
    pub fn cumulative(&self) -> impl Iterator<Item = u64> {
        self.counts[..HISTOGRAM_BUCKETS].iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        })
    }

    /// The value that this share of all values does not exceed, assuming that values are spread
    /// evenly within a bucket. None without values.
    pub fn quantile(&self, share: f64, bounds: &Bounds) -> Option<f64> {
        let rank = share * self.count() as f64;
        let mut below = 0.0;
        for (index, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = *count as f64;
            if below + count >= rank {
                let lower = if index == 0 { 0.0 } else { bounds[index - 1] };
                // Values above the last bound count as the bound.
                let upper = bounds.get(index).copied().unwrap_or(lower);
                return Some(lower + (upper - lower) * ((rank - below) / count).clamp(0.0, 1.0));
            }
            below += count;
        }
        None
    }

    /// The values added since `earlier`, a copy of the same histogram.
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        let mut difference = *self;
        for (count, earlier) in difference.counts.iter_mut().zip(earlier.counts) {
            *count -= earlier;
        }
        difference.sum -= earlier.sum;
        difference
    }

    /// Adds the values of another histogram of the same bounds.
    pub fn merge(&mut self, other: &Histogram) {
        for (count, other) in self.counts.iter_mut().zip(other.counts) {
            *count += other;
        }
        self.sum += other.sum;
    }
}

/// Upper ends of a histogram's ranges, ascending.
pub type Bounds = [f64; HISTOGRAM_BUCKETS];

/// Durations. Recorded only with `--admin`, since they cost clock reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Seconds from waking up to going back to sleep.
    pub tick: Histogram,
    /// Seconds of a commit.
    pub commit: Histogram,
    /// Changes in a commit.
    pub batch: Histogram,
}

impl Timings {
    pub fn note_tick(&mut self, seconds: f64) {
        self.tick.observe(seconds, &DURATION_BOUNDS);
    }

    pub fn note_commit(&mut self, seconds: f64, changes: usize) {
        self.commit.observe(seconds, &DURATION_BOUNDS);
        self.batch.observe(changes as f64, &BATCH_CHANGES_BOUNDS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_at_or_below_their_bound() {
        let mut histogram = Histogram::default();
        for value in [DURATION_BOUNDS[0], DURATION_BOUNDS[1] * 0.9, f64::MAX] {
            histogram.observe(value, &DURATION_BOUNDS);
        }
        let cumulative: Vec<u64> = histogram.cumulative().collect();
        assert_eq!(cumulative[..3], [1, 2, 2]);
        assert_eq!(cumulative.last(), Some(&2));
        assert_eq!(histogram.count(), 3);
    }

    #[test]
    fn quantiles_lie_in_the_bucket_that_holds_them() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5, &DURATION_BOUNDS), None);
        for _ in 0..99 {
            histogram.observe(0.0015, &DURATION_BOUNDS);
        }
        histogram.observe(0.4, &DURATION_BOUNDS);
        let quantile = |share| histogram.quantile(share, &DURATION_BOUNDS).expect("values");
        assert!((0.001..=0.002).contains(&quantile(0.5)), "{}", quantile(0.5));
        assert!((0.2..=0.5).contains(&quantile(1.0)), "{}", quantile(1.0));
        histogram.observe(1e9, &DURATION_BOUNDS);
        assert_eq!(histogram.quantile(1.0, &DURATION_BOUNDS), DURATION_BOUNDS.last().copied());
    }

    #[test]
    fn the_values_since_and_those_before_make_the_whole() {
        let (mut before, mut after) = (Histogram::default(), Histogram::default());
        before.observe(0.1, &DURATION_BOUNDS);
        after.merge(&before);
        after.observe(0.2, &DURATION_BOUNDS);
        let since = after.since(&before);
        assert_eq!((since.count(), before.count(), after.count()), (1, 1, 2));
        assert!((since.sum - 0.2).abs() < 1e-9);
    }
}
