//! Records that may lag by a second and must never hurt the service: usage, addresses, the
//! connection table (manual: durability 4).
//!
//! They gather in memory and are written once a second. If that fails they wait in a bounded
//! backlog, beyond which the oldest are dropped. One log line when it begins to fail, one when it
//! works again.

use std::net::IpAddr;
use std::time::Instant;

use log::{error, info, warn};

use crate::limits::RECORDS_BACKLOG_MAX;
use crate::message::ConnId;
use crate::storage::address_ids::{AddressId, Addresses};
use crate::storage::db::{
    AddridDb, ConnectionChange, ConnectionTable, Current, Database, Failure, UsageDb,
};
use crate::store::UsageRecord;
use crate::sys::clock::Clock;

/// The optional files and what waits to be written to them.
#[derive(Debug)]
pub struct Records {
    usage: Option<Usage>,
    addresses: Option<AddressBook>,
    connections: Option<ConnectionTable>,
}

#[derive(Debug)]
struct Usage {
    db: UsageDb,
    backlog: Backlog<UsageRecord>,
    current: Option<Current>,
}

#[derive(Debug)]
struct AddressBook {
    db: AddridDb,
    addresses: Addresses,
    /// Counter and address of each new id.
    backlog: Backlog<(u64, IpAddr)>,
    /// Whether the file still holds an earlier generation.
    erase: bool,
}

impl Records {
    pub fn new(
        usage: Option<UsageDb>,
        addresses: Option<(AddridDb, Addresses)>,
        track_connections: bool,
    ) -> Records {
        Records {
            usage: usage.map(|db| Usage {
                db,
                backlog: Backlog::new("usage database"),
                current: None,
            }),
            addresses: addresses.map(|(db, addresses)| AddressBook {
                db,
                addresses,
                backlog: Backlog::new("address-id database"),
                erase: true,
            }),
            connections: track_connections.then(ConnectionTable::default),
        }
    }

    /// Takes usage records; drops them without a usage database.
    pub fn push_usage(&mut self, records: &mut Vec<UsageRecord>) {
        match &mut self.usage {
            Some(usage) => usage.backlog.rows.append(records),
            None => records.clear(),
        }
    }

    /// Replaces the `current` row with the next flush.
    pub fn set_current(&mut self, current: Current) {
        if let Some(usage) = &mut self.usage {
            usage.current = Some(current);
        }
    }

    /// When [`Records::renew_generation_if_due`] must be called, if addresses get ids.
    pub fn generation_ends(&self) -> Option<Instant> {
        self.addresses.as_ref().map(|book| book.addresses.ends())
    }

    /// Begins a new generation of ids, and forgets the old, when it is time.
    pub fn renew_generation_if_due(&mut self, now: Clock) {
        if let Some(book) = &mut self.addresses {
            book.renew_if_due(now);
        }
    }

    /// The id of a peer's address, if addresses get ids.
    pub fn address_id(&mut self, address: Option<IpAddr>, now: Clock) -> Option<AddressId> {
        let book = self.addresses.as_mut()?;
        book.renew_if_due(now);
        let address = address?;
        let (id, is_new) = book.addresses.id(address);
        if is_new {
            book.backlog.rows.push((id.counter, address));
        }
        Some(id)
    }

    /// Adds a change of the connection table, if connections are tracked.
    pub fn track(&mut self, conn: ConnId, change: impl FnOnce() -> ConnectionChange) {
        if let Some(connections) = &mut self.connections {
            connections.push(conn, change());
        }
    }

    /// Whether a flush would write anything.
    pub fn is_empty(&self) -> bool {
        self.usage.as_ref().is_none_or(Usage::is_empty)
            && self.addresses.as_ref().is_none_or(AddressBook::is_empty)
            && self.connections.as_ref().is_none_or(ConnectionTable::is_empty)
    }

    /// Writes everything that waits.
    pub fn flush(&mut self, channel: &mut dyn Database) {
        if let Some(usage) = &mut self.usage {
            usage.flush();
        }
        if let Some(book) = &mut self.addresses {
            book.flush(channel);
        }
        // If it fails they wait; the storage logs its own failures.
        if let Some(connections) = &mut self.connections
            && !connections.is_empty()
            && channel.write_connections(connections).is_ok()
        {
            connections.clear();
        }
    }

    /// Writes everything that waits, and closes the files.
    pub fn close(mut self, channel: &mut dyn Database) {
        self.flush(channel);
        let closed =
            [self.usage.map(|usage| usage.db.close()), self.addresses.map(|book| book.db.close())];
        for error in closed.into_iter().flatten().filter_map(Result::err) {
            warn!("closing: {error}");
        }
    }
}

impl Usage {
    fn is_empty(&self) -> bool {
        self.backlog.rows.is_empty() && self.current.is_none()
    }

    fn flush(&mut self) {
        if !self.is_empty() {
            let written = self.db.write(&self.backlog.rows, self.current);
            if self.backlog.settle(written) {
                self.current = None;
            }
        }
    }
}

impl AddressBook {
    fn is_empty(&self) -> bool {
        self.backlog.rows.is_empty() && !self.erase
    }

    fn renew_if_due(&mut self, now: Clock) {
        if self.addresses.renew_if_due(now) {
            self.backlog.rows.clear();
            self.erase = true;
        }
    }

    fn flush(&mut self, channel: &mut dyn Database) {
        if !self.is_empty() {
            let written = self.write(channel);
            if self.backlog.settle(written) {
                self.erase = false;
            }
        }
    }

    fn write(&mut self, channel: &mut dyn Database) -> Result<(), Failure> {
        let (generation, started) = self.addresses.generation();
        if self.erase {
            channel.set_generation(generation, started)?;
        }
        self.db.write(generation, self.erase, &self.backlog.rows)
    }
}

/// Rows that wait to be written to a file.
#[derive(Debug)]
struct Backlog<T> {
    file: &'static str,
    rows: Vec<T>,
    is_failing: bool,
}

impl<T> Backlog<T> {
    fn new(file: &'static str) -> Backlog<T> {
        Backlog { file, rows: Vec::new(), is_failing: false }
    }

    /// Drops the rows if they were written, else the oldest beyond the limit; returns whether they
    /// were. Logs when the file begins to fail and when it works again, once each.
    fn settle(&mut self, written: Result<(), Failure>) -> bool {
        let was_failing = std::mem::replace(&mut self.is_failing, written.is_err());
        match written {
            Ok(()) => {
                self.rows.clear();
                if was_failing {
                    info!("{} works again", self.file);
                }
            }
            Err(error) => {
                let excess = self.rows.len().saturating_sub(RECORDS_BACKLOG_MAX);
                self.rows.drain(..excess);
                if !was_failing {
                    let file = self.file;
                    error!("{file} fails, rows beyond {RECORDS_BACKLOG_MAX} are dropped: {error}");
                }
            }
        }
        !self.is_failing
    }
}
