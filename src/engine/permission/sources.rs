//! Which hostile events count: at most [`ATTACK_EVENTS_PER_ADDRESS`] of one address in a
//! half-life. Pure; the time is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::limits::{ADDRESSES_MAX, ATTACK_EVENTS_PER_ADDRESS};
use crate::sorted::sorted;

/// The addresses of which events counted in the last half-life.
#[derive(Debug)]
pub struct Sources {
    half_life: Duration,
    /// When the last events of each address counted, the oldest first.
    counted: HashMap<u64, [Option<Instant>; ATTACK_EVENTS_PER_ADDRESS]>,
}

impl Sources {
    /// `half_life`: in seconds.
    pub fn new(half_life: f64) -> Sources {
        let half_life = Duration::from_secs_f64(half_life);
        Sources { half_life, counted: HashMap::new() }
    }

    /// Whether an event of these addresses counts: if one of them has had its share, it does not.
    /// Then it counts for each.
    pub fn admit(&mut self, addresses: Vec<u64>, now: Instant) -> bool {
        let mut addresses = sorted(addresses);
        addresses.dedup();
        let is_recent = |at: &Option<Instant>| at.is_some_and(|at| at + self.half_life > now);
        let is_used_up =
            |address: &u64| self.counted.get(address).is_some_and(|times| is_recent(&times[0]));
        if addresses.iter().any(is_used_up) {
            return false;
        }
        for address in addresses {
            // A full table is an attack, whatever counts besides.
            if self.counted.len() < ADDRESSES_MAX || self.counted.contains_key(&address) {
                let times = self.counted.entry(address).or_default();
                times.rotate_left(1);
                times[ATTACK_EVENTS_PER_ADDRESS - 1] = Some(now);
            }
        }
        true
    }

    /// Removes addresses of which no event counts any more.
    pub fn sweep(&mut self, now: Instant) {
        let half_life = self.half_life;
        self.counted.retain(|_, times| times.iter().flatten().any(|at| *at + half_life > now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_events_of_an_address_count_in_a_half_life_and_old_entries_are_forgotten() {
        let (mut sources, start) = (Sources::new(60.0), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(sources.admit(vec![1, 1, 2], at(0)));
        assert!(sources.admit(vec![1, 3], at(30)));
        assert!(!sources.admit(vec![1, 4], at(59)));
        assert!(sources.admit(vec![2, 4], at(59)), "those counted once");
        assert!(sources.admit(vec![1], at(60)), "the first is old");
        assert!(!sources.admit(vec![1], at(61)));
        assert!(sources.admit(vec![], at(61)), "unknown addresses");
        for address in 0..2 * ADDRESSES_MAX as u64 {
            assert!(sources.admit(vec![100 + address], at(200)));
            assert!(sources.counted.len() <= ADDRESSES_MAX);
        }
        sources.sweep(at(259));
        assert_eq!(sources.counted.len(), ADDRESSES_MAX - 4, "those of before are old");
        sources.sweep(at(260));
        assert!(sources.counted.is_empty());
    }
}
