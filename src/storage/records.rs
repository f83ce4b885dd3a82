//! Records that may lag by a second and must never hurt the service: usage, addresses, the
//! connection table (contract section 5).
//!
//! They gather in memory and are written once a second. What cannot be written waits in a bounded
//! backlog; beyond it, it is dropped. One log line when that begins, one when it ends.

use std::net::IpAddr;

use log::{error, info, warn};

use crate::limits::RECORDS_BACKLOG_MAX;
use crate::message::ConnId;
use crate::storage::address_ids::{AddressId, Addresses};
use crate::storage::db::{AddridDb, ConnectionChange, ConnectionTable, Current, Database, UsageDb};
use crate::store::UsageRecord;
use crate::sys::clock::Timestamp;

/// All optional files and what waits for them.
#[derive(Debug)]
pub struct Records {
    usage: Option<Usage>,
    addresses: Option<AddressBook>,
    connections: Option<ConnectionTable>,
}

#[derive(Debug)]
struct Usage {
    db: UsageDb,
    pending: Vec<UsageRecord>,
    current: Option<Current>,
    failing: Failing,
}

#[derive(Debug)]
struct AddressBook {
    db: AddridDb,
    addresses: Addresses,
    /// Counter and address of each row to write.
    pending: Vec<(u64, IpAddr)>,
    /// The file still holds an earlier generation.
    erase: bool,
    failing: Failing,
}

impl Records {
    /// Without any file there is nothing to do.
    pub fn new(
        usage: Option<UsageDb>,
        addresses: Option<(AddridDb, Addresses)>,
        track_connections: bool,
    ) -> Records {
        Records {
            usage: usage.map(|db| Usage {
                db,
                pending: Vec::new(),
                current: None,
                failing: Failing::new("usage database"),
            }),
            addresses: addresses.map(|(db, addresses)| AddressBook {
                db,
                addresses,
                pending: Vec::new(),
                erase: true,
                failing: Failing::new("address-id database"),
            }),
            connections: track_connections.then(ConnectionTable::default),
        }
    }

    /// Takes usage records; without a usage database they end here.
    pub fn push_usage(&mut self, records: &mut Vec<UsageRecord>) {
        match &mut self.usage {
            Some(usage) => usage.pending.append(records),
            None => records.clear(),
        }
    }

    /// Replaces the `current` row with the next flush.
    pub fn set_current(&mut self, current: Current) {
        if let Some(usage) = &mut self.usage {
            usage.current = Some(current);
        }
    }

    /// When [`Records::renew_generation_if_due`] wants to be called, if addresses are numbered.
    pub fn generation_ends(&self) -> Option<Timestamp> {
        self.addresses.as_ref().map(|book| book.addresses.ends())
    }

    /// Forgets the numbered addresses when they have had their time, whether anyone comes or not.
    pub fn renew_generation_if_due(&mut self, now: Timestamp) {
        if let Some(book) = &mut self.addresses {
            book.renew_if_due(now);
        }
    }

    /// The id of a peer's address, if addresses are numbered.
    pub fn address_id(&mut self, address: Option<IpAddr>, now: Timestamp) -> Option<AddressId> {
        let book = self.addresses.as_mut()?;
        book.renew_if_due(now);
        let address = address?;
        let (id, is_new) = book.addresses.id(address);
        if is_new {
            book.pending.push((id.counter, address));
        }
        Some(id)
    }

    /// Takes note of what a connection does, if connections are tracked.
    pub fn track(&mut self, conn: ConnId, change: impl FnOnce() -> ConnectionChange) {
        if let Some(connections) = &mut self.connections {
            connections.push(conn, change());
        }
    }

    fn connections(&self) -> Option<&ConnectionTable> {
        self.connections.as_ref().filter(|connections| !connections.is_empty())
    }

    /// Whether a flush would write anything.
    pub fn is_empty(&self) -> bool {
        self.usage.as_ref().is_none_or(|usage| usage.pending.is_empty() && usage.current.is_none())
            && self.addresses.as_ref().is_none_or(|book| book.pending.is_empty() && !book.erase)
            && self.connections().is_none()
    }

    /// Writes what waits.
    pub fn flush(&mut self, channel: &mut dyn Database) {
        if let Some(usage) = &mut self.usage {
            usage.flush();
        }
        if let Some(book) = &mut self.addresses {
            book.flush(channel);
        }
        // If it fails they wait; that the storage fails is said elsewhere.
        if let Some(connections) = &mut self.connections
            && !connections.is_empty()
            && channel.write_connections(connections).is_ok()
        {
            connections.clear();
        }
    }

    /// Writes what waits and leaves the files clean.
    pub fn close(mut self, channel: &mut dyn Database) {
        self.flush(channel);
        let closed =
            [self.usage.map(|usage| usage.db.close()), self.addresses.map(|book| book.db.close())];
        for error in closed.into_iter().flatten().filter_map(Result::err) {
            warn!("closing a records database: {error}");
        }
    }
}

impl Usage {
    fn flush(&mut self) {
        if self.pending.is_empty() && self.current.is_none() {
            return;
        }
        match self.db.write(&self.pending, self.current) {
            Ok(()) => {
                self.failing.ended();
                self.pending.clear();
                self.current = None;
            }
            Err(error) => {
                self.failing.began(&error);
                let excess = self.pending.len().saturating_sub(RECORDS_BACKLOG_MAX);
                self.pending.drain(..excess);
            }
        }
    }
}

impl AddressBook {
    fn renew_if_due(&mut self, now: Timestamp) {
        if self.addresses.renew_if_due(now) {
            self.pending.clear();
            self.erase = true;
        }
    }

    fn flush(&mut self, channel: &mut dyn Database) {
        if self.pending.is_empty() && !self.erase {
            return;
        }
        let (generation, started) = self.addresses.generation();
        let noted = if self.erase { channel.set_generation(generation, started) } else { Ok(()) };
        let written =
            noted.and_then(|()| Ok(self.db.write(generation, self.erase, &self.pending)?));
        match written {
            Ok(()) => {
                self.failing.ended();
                self.pending.clear();
                self.erase = false;
            }
            Err(error) => {
                self.failing.began(&*error);
                let excess = self.pending.len().saturating_sub(RECORDS_BACKLOG_MAX);
                self.pending.drain(..excess);
            }
        }
    }
}

/// Says when a file begins to fail and when it stops, once each.
#[derive(Debug)]
struct Failing {
    name: &'static str,
    is_failing: bool,
}

impl Failing {
    fn new(name: &'static str) -> Failing {
        Failing { name, is_failing: false }
    }

    fn began(&mut self, error: &dyn std::fmt::Display) {
        if !self.is_failing {
            self.is_failing = true;
            error!("{} fails, rows beyond {RECORDS_BACKLOG_MAX} are dropped: {error}", self.name);
        }
    }

    fn ended(&mut self) {
        if self.is_failing {
            self.is_failing = false;
            info!("{} works again", self.name);
        }
    }
}
