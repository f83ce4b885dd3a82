//! A histogram of durations with logarithmic buckets: constant size, constant relative error.
//!
//! Each power of two of nanoseconds is cut into equal buckets, so a recorded value is known to
//! about 1.6 %, whether it is a microsecond or a minute. Recording is a few instructions.

use std::time::{Duration, Instant};

/// Buckets per power of two, as a power of two itself.
const SUB_BITS: u32 = 6;
const SUB_COUNT: u64 = 1 << SUB_BITS;

/// Values from 2^40 ns (18 minutes) on share the last bucket.
const VALUE_BITS_MAX: u32 = 40;
const BUCKETS: usize = ((VALUE_BITS_MAX - SUB_BITS + 1) as usize) << SUB_BITS;

/// Durations, counted by size.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: Duration,
    sum: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; BUCKETS], total: 0, max: Duration::ZERO, sum: Duration::ZERO }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, value: Duration) {
        let nanos = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.counts[index(nanos)] += 1;
        self.total += 1;
        self.sum += value;
        self.max = self.max.max(value);
    }

    /// Counts the time from then to now.
    pub fn record_since(&mut self, begun: Instant) {
        self.record(begun.elapsed());
    }

    /// Adds all of another's.
    pub fn add(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.total
    }

    pub fn max(&self) -> Duration {
        self.max
    }

    pub fn mean(&self) -> Duration {
        u32::try_from(self.total)
            .ok()
            .and_then(|total| self.sum.checked_div(total))
            .unwrap_or_default()
    }

    /// The duration that this share of the values does not exceed, from 0 to 1.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = ((share * self.total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper_bound(index)).min(self.max);
            }
        }
        self.max
    }
}

fn index(nanos: u64) -> usize {
    if nanos < SUB_COUNT {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - SUB_BITS;
    let index = (u64::from(shift) << SUB_BITS) + (nanos >> shift);
    (index as usize).min(BUCKETS - 1)
}

/// The largest value that falls into a bucket.
fn upper_bound(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * SUB_COUNT {
        return index;
    }
    let shift = (index >> SUB_BITS) - 1;
    let sub = index - (shift << SUB_BITS);
    ((sub + 1) << shift) - 1
}
