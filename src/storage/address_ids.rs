//! Ids that stand for peer addresses (`--addrid-db`; manual: files 4): counted from 1 within a
//! generation, and forgotten with it. Pure.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use crate::limits::ADDRESS_IDS_MAX;
use crate::message::handover::AddressIdsRecord;
use crate::sys::clock::{Clock, Seconds, Timestamp};

/// Stands for an address in logs and in the connection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressId {
    pub generation: u64,
    pub counter: u64,
}

impl fmt::Display for AddressId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "addr-{}-{}", self.generation, self.counter)
    }
}

/// The current generation.
#[derive(Debug)]
pub struct Addresses {
    generation: u64,
    started: Timestamp,
    ends: Instant,
    duration: Seconds,
    counters: HashMap<IpAddr, u64>,
}

impl Addresses {
    /// Begins the generation after `last`.
    pub fn new(last: Option<u64>, now: Clock, duration: Seconds) -> Addresses {
        Addresses {
            generation: last.unwrap_or(0) + 1,
            started: now.wall,
            ends: now.after(duration),
            duration,
            counters: HashMap::new(),
        }
    }

    /// Number and beginning of the current generation.
    pub fn generation(&self) -> (u64, Timestamp) {
        (self.generation, self.started)
    }

    pub fn ends(&self) -> Instant {
        self.ends
    }

    /// The generation, for another process to go on with.
    pub fn export(&self, now: Instant) -> AddressIdsRecord {
        AddressIdsRecord {
            generation: self.generation,
            started: self.started.0,
            left: self.ends.saturating_duration_since(now),
            counters: self.counters.iter().map(|(address, counter)| (*address, *counter)).collect(),
        }
    }

    /// Goes on with the generation of another process, if it is the one before this.
    pub fn restore(&mut self, record: AddressIdsRecord, now: Instant) -> bool {
        let is_last = record.generation.checked_add(1) == Some(self.generation);
        if is_last {
            (self.generation, self.started) = (record.generation, Timestamp(record.started));
            self.ends = self.ends.min(now.checked_add(record.left).unwrap_or(now));
            self.counters = record.counters.into_iter().collect();
        }
        is_last
    }

    /// Begins a new generation if the current one is over or full; returns whether it did.
    pub fn renew_if_due(&mut self, now: Clock) -> bool {
        if now.instant < self.ends && self.counters.len() < ADDRESS_IDS_MAX {
            return false;
        }
        *self = Addresses::new(Some(self.generation), now, self.duration);
        true
    }

    /// The id of an address, and whether it is new.
    pub fn id(&mut self, address: IpAddr) -> (AddressId, bool) {
        let next = self.counters.len() as u64 + 1;
        let counter = *self.counters.entry(address).or_insert(next);
        (AddressId { generation: self.generation, counter }, counter == next)
    }
}
