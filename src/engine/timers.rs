//! The engine's own deadlines in one table. Those that follow from the state of a part are asked of
//! it.

use std::time::Instant;

/// The engine's timers, in the order in which they are handled when several are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// The storage failed, and is tried again.
    StorageRetry,
    /// No commit for a while: the database's memory is freed.
    StorageQuiet,
    /// Addresses that have used nothing lately are forgotten.
    AddressSweep,
    /// An expiry check begins.
    ExpiryCheck,
    /// Records that wait are written.
    Flush,
}

impl Timer {
    const ALL: [Timer; 5] = [
        Timer::StorageRetry,
        Timer::StorageQuiet,
        Timer::AddressSweep,
        Timer::ExpiryCheck,
        Timer::Flush,
    ];
}

/// When each timer is due, if it is set.
#[derive(Debug, Default)]
pub struct TimerTable([Option<Instant>; Timer::ALL.len()]);

impl TimerTable {
    /// Sets a timer anew.
    pub fn set(&mut self, timer: Timer, due: Instant) {
        self.0[timer as usize] = Some(due);
    }

    pub fn is_set(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// Stops and returns the first timer that is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let is_due = |due: &mut Instant| *due <= now;
        Timer::ALL.into_iter().find(|timer| self.0[*timer as usize].take_if(is_due).is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timers_that_are_due_come_in_their_order_and_once() {
        let (mut timers, now) = (TimerTable::default(), Instant::now());
        let later = now + Duration::from_secs(1);
        timers.set(Timer::Flush, now);
        timers.set(Timer::ExpiryCheck, now);
        timers.set(Timer::StorageRetry, later);
        assert_eq!(timers.next(), Some(now));
        assert_eq!(timers.pop_due(now), Some(Timer::ExpiryCheck));
        assert_eq!(timers.pop_due(now), Some(Timer::Flush));
        assert_eq!(timers.pop_due(now), None);
        assert_eq!(timers.next(), Some(later));
        assert_eq!(timers.pop_due(later), Some(Timer::StorageRetry));
        assert_eq!(timers.next(), None);
    }
}
