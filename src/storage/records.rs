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
use crate::message::handover::AddressIdsRecord;
use crate::storage::address_ids::{AddressId, Addresses};
use crate::storage::db::{
    AddridDb, ConnectionChange, ConnectionTable, Current, Database, Failure, UsageDb,
};
use crate::store::UsageRecord;
use crate::sys::clock::{Clock, Seconds, Timestamp};

/// The optional files and what waits to be written to them.
#[derive(Debug)]
pub struct Records {
    usage: Option<UsageBook>,
    addresses: Option<AddressBook>,
    connections: Option<ConnectionTable>,
}

#[derive(Debug)]
struct UsageBook {
    db: UsageDb,
    backlog: Backlog<UsageRecord>,
    current: Option<Current>,
    /// Age at which a record is deleted.
    keep: Option<Seconds>,
    /// Records that began before are to be deleted.
    keep_since: Option<Timestamp>,
    /// Whether the file system had room at the last write.
    has_room: bool,
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
        usage_keep: Option<Seconds>,
        addresses: Option<(AddridDb, Addresses)>,
        track_connections: bool,
    ) -> Records {
        Records {
            usage: usage.map(|db| UsageBook {
                db,
                backlog: Backlog::new("usage database"),
                current: None,
                keep: usage_keep,
                keep_since: None,
                has_room: true,
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

    /// Takes a usage record; drops it without a usage database.
    pub fn push_usage(&mut self, record: UsageRecord) {
        if let Some(usage) = &mut self.usage {
            usage.backlog.rows.push(record);
        }
    }

    /// Whether usage is recorded, or would be if there were room.
    pub fn has_usage(&self) -> bool {
        self.usage.is_some()
    }

    /// Replaces the `current` row with the next flush, and deletes records that are too old with it
    /// and those after it.
    pub fn set_current(&mut self, current: Current) {
        if let Some(usage) = &mut self.usage {
            usage.current = Some(current);
            usage.keep_since = usage.keep.map(|keep| Timestamp(current.updated.0 - keep));
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

    /// The ids of addresses, for another process to go on with; none if some are not in the file.
    pub fn export_ids(&self, now: Instant) -> Option<AddressIdsRecord> {
        let book = self.addresses.as_ref().filter(|book| book.is_empty())?;
        Some(book.addresses.export(now))
    }

    /// Goes on with the ids of another process.
    pub fn restore_ids(&mut self, record: AddressIdsRecord, now: Instant) {
        if let Some(book) = &mut self.addresses {
            book.erase &= !book.addresses.restore(record, now);
        }
    }

    /// Adds a change of the connection table, if connections are tracked.
    pub fn track(&mut self, conn: ConnId, change: impl FnOnce() -> ConnectionChange) {
        if let Some(connections) = &mut self.connections {
            connections.push(conn, change());
        }
    }

    /// Whether a flush would write anything.
    pub fn is_empty(&self) -> bool {
        self.usage.as_ref().is_none_or(UsageBook::is_empty)
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
        if let Some(connections) = &mut self.connections {
            connections.remove_all();
        }
        self.flush(channel);
        let closed =
            [self.usage.map(|usage| usage.db.close()), self.addresses.map(|book| book.db.close())];
        for error in closed.into_iter().flatten().filter_map(Result::err) {
            warn!("closing: {error}");
        }
    }
}

impl UsageBook {
    fn is_empty(&self) -> bool {
        self.backlog.rows.is_empty() && self.current.is_none() && self.keep_since.is_none()
    }

    fn flush(&mut self) {
        if self.is_empty() {
            return;
        }
        if !self.look_for_room() {
            self.backlog.rows.clear();
            (self.current, self.keep_since) = (None, None);
            return;
        }
        let written = self.db.write(&self.backlog.rows, self.current, self.keep_since);
        let has_more_to_delete = matches!(written, Ok(true));
        if self.backlog.settle(written.map(|_| ())) {
            self.current = None;
            self.keep_since = self.keep_since.filter(|_| has_more_to_delete);
        }
    }

    /// Whether the file system has room for records. Without, they are dropped: the channel
    /// database must not be without room for their sake.
    fn look_for_room(&mut self) -> bool {
        // Where it cannot be known the write shows it.
        let has_room = self.db.room().map_or(true, |room| room.is_enough(self.has_room));
        match (self.has_room, has_room) {
            (true, false) => warn!(
                "the file system of the usage database has little room left: usage is not recorded \
                 until it has more"
            ),
            (false, true) => info!("the file system has room again: usage is recorded"),
            _ => {}
        }
        self.has_room = has_room;
        has_room
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
