//! Ids that stand for peer addresses (`--addrid-db`; manual: files 4): counted from 1 within a
//! generation, and forgotten with it. The only file with peer addresses.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use rusqlite::params;

use super::lock::EarlierLocks;
use super::open_error::OpenError;
use super::opening::Examined;
use super::records_file::RecordsFile;
use super::schema::ADDRID;
use super::{Database, journal, run};
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

/// The current generation, and its file.
#[derive(Debug)]
pub struct AddridDb {
    /// Of each new id the counter and the address.
    records: RecordsFile<(u64, IpAddr)>,
    generation: u64,
    started: Timestamp,
    ends: Instant,
    duration: Seconds,
    counters: HashMap<IpAddr, u64>,
    /// Whether the file still holds an earlier generation.
    holds_earlier: bool,
    /// Whether the channel database has the generation.
    is_announced: bool,
}

impl AddridDb {
    pub fn examine(path: &Path, earlier: &mut EarlierLocks) -> Result<Examined, OpenError> {
        Examined::new(path, &ADDRID, ADDRID.newest(), earlier)
    }

    /// Opens the file and begins the generation after `last`.
    pub fn open(
        examined: Examined,
        last: Option<u64>,
        duration: Seconds,
        now: Clock,
    ) -> Result<AddridDb, OpenError> {
        let mut db = AddridDb {
            records: RecordsFile::open(examined)?,
            generation: last.unwrap_or(0),
            started: now.wall,
            ends: now.instant,
            duration,
            counters: HashMap::new(),
            holds_earlier: true,
            is_announced: false,
        };
        db.begin_generation(now);
        Ok(db)
    }

    fn begin_generation(&mut self, now: Clock) {
        self.generation += 1;
        (self.started, self.ends) = (now.wall, now.after(self.duration));
        self.counters = HashMap::new();
        self.records.waiting.clear();
        (self.holds_earlier, self.is_announced) = (true, false);
    }

    /// To be called when the channel database may not have the generation any more.
    pub(crate) fn announce_again(&mut self) {
        self.is_announced = false;
    }

    /// What it is and which generation it begins with.
    pub fn summary(&self) -> String {
        format!("{}: generation {}", self.records.file.target, self.generation)
    }

    /// When [`AddridDb::renew_if_due`] must be called.
    pub fn ends(&self) -> Instant {
        self.ends
    }

    /// Begins a new generation, and forgets the old, if that is over or full.
    pub fn renew_if_due(&mut self, now: Clock) {
        if now.instant >= self.ends || self.counters.len() >= ADDRESS_IDS_MAX {
            self.begin_generation(now);
        }
    }

    /// The id of a peer's address.
    pub fn id(&mut self, address: IpAddr, now: Clock) -> AddressId {
        self.renew_if_due(now);
        let next = self.counters.len() as u64 + 1;
        let counter = *self.counters.entry(address).or_insert(next);
        if counter == next {
            self.records.waiting.push((counter, address));
        }
        AddressId { generation: self.generation, counter }
    }

    /// The generation, for another process to go on with; none if some ids are not in the file.
    pub fn export(&self, now: Instant) -> Option<AddressIdsRecord> {
        self.is_written().then(|| AddressIdsRecord {
            generation: self.generation,
            started: self.started.0,
            left: self.ends.saturating_duration_since(now),
            counters: self.counters.iter().map(|(address, counter)| (*address, *counter)).collect(),
        })
    }

    /// Goes on with the generation of another process, if it is the one before this.
    pub fn restore(&mut self, record: AddressIdsRecord, now: Instant) {
        if record.generation.checked_add(1) == Some(self.generation) {
            (self.generation, self.started) = (record.generation, Timestamp(record.started));
            self.ends = self.ends.min(now.checked_add(record.left).unwrap_or(now));
            self.counters = record.counters.into_iter().collect();
            (self.holds_earlier, self.is_announced) = (false, true);
        }
    }

    /// Whether the file is up to date.
    pub(crate) fn is_written(&self) -> bool {
        self.records.waiting.is_empty() && !self.holds_earlier && self.is_announced
    }

    /// Appends the ids that wait, after erasing all others if the generation has just begun.
    pub(crate) fn flush(&mut self, channel: &mut dyn Database) {
        if self.is_written() {
            _ = self.records.follow();
            return;
        }
        let (generation, holds_earlier) = (self.generation, self.holds_earlier);
        let announced = if self.is_announced {
            Ok(())
        } else {
            channel.set_generation(generation, self.started)
        };
        self.is_announced = announced.is_ok();
        let written = announced.and_then(|()| {
            self.records.write(&mut |transaction, rows| {
                if holds_earlier {
                    run(transaction, "DELETE FROM address_ids", &[])?;
                }
                for (counter, address) in rows {
                    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
                    run(
                        transaction,
                        "INSERT INTO address_ids (generation, counter, type, address) \
                         VALUES (?1, ?2, ?3, ?4)",
                        params![generation as i64, *counter as i64, family, address.to_string()],
                    )?;
                }
                Ok(())
            })
        });
        if self.records.settle(written) && std::mem::take(&mut self.holds_earlier) {
            // Neither log nor file has then what was erased, unless another program reads it now.
            _ = journal::empty_log(&self.records.file.connection);
        }
    }

    /// The file whose lock keeps a second server off; none in memory.
    pub(crate) fn lock(&self) -> Option<&File> {
        self.records.file.lock()
    }

    /// Leaves the file clean, without a write-ahead log.
    pub(crate) fn close(self) -> Result<(), OpenError> {
        self.records.file.close()
    }
}
