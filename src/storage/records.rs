//! Records that may lag by a second and must never hurt the service: usage, addresses, the
//! connection table (manual: durability 4). They gather in memory and are written together.

use std::time::Duration;

use crate::limits::USAGE_LAST_WRITE_BUSY;
use crate::message::ConnId;
use crate::storage::db::{AddridDb, ConnectionChange, ConnectionTable, Database, UsageDb};
use crate::sys::logging::warn;

/// The optional files, with what waits to be written to them.
#[derive(Debug, Default)]
pub struct Records {
    pub usage: Option<UsageDb>,
    pub addresses: Option<AddridDb>,
    pub connections: Option<ConnectionTable>,
    /// At which opening of the channel database it got what is written to it.
    pub openings: u64,
}

impl Records {
    /// Adds a change of the connection table, if connections are tracked.
    pub fn track(&mut self, conn: ConnId, change: impl FnOnce() -> ConnectionChange) {
        if let Some(connections) = &mut self.connections {
            connections.push(conn, change());
        }
    }

    /// Whether a flush would write nothing.
    pub fn is_written(&self) -> bool {
        self.usage.as_ref().is_none_or(UsageDb::is_written)
            && self.addresses.as_ref().is_none_or(AddridDb::is_written)
            && self.connections.as_ref().is_none_or(ConnectionTable::is_written)
    }

    /// Writes everything that waits, and opens files that were put in the place of those that are
    /// open: to be called at each expiry check, at least.
    pub fn flush(&mut self, channel: &mut dyn Database) {
        if let Some(usage) = &mut self.usage {
            usage.flush();
        }
        if std::mem::replace(&mut self.openings, channel.openings()) != self.openings {
            self.write_again();
        }
        if let Some(addresses) = &mut self.addresses {
            addresses.flush(channel);
        }
        // If it fails they wait; the storage logs its own failures.
        if let Some(connections) = &mut self.connections
            && !connections.is_written()
            && channel.write_connections(connections).is_ok()
        {
            connections.clear();
        }
    }

    /// Writes everything that waits, as this process may not be able to later.
    pub fn flush_patiently(&mut self, channel: &mut dyn Database) {
        self.set_patience(USAGE_LAST_WRITE_BUSY);
        self.flush(channel);
        self.set_patience(Duration::ZERO);
    }

    fn set_patience(&self, busy: Duration) {
        if let Some(usage) = &self.usage {
            usage.set_patience(busy);
        }
    }

    /// Logs how many records are lost if this process ends now.
    pub fn warn_of_losses(&self) {
        if let Some(count @ 1..) = self.usage.as_ref().map(UsageDb::waiting_count) {
            warn!("{count} rows of usage are lost: the usage database could not be written");
        }
    }

    /// Writes to a channel database that was opened again what the one before held.
    fn write_again(&mut self) {
        if let Some(addresses) = &mut self.addresses {
            addresses.announce_again();
        }
        if let Some(connections) = &mut self.connections {
            connections.write_again();
        }
    }

    /// Writes everything that waits, and closes the files.
    pub fn close(mut self, channel: &mut dyn Database) {
        if let Some(connections) = &mut self.connections {
            connections.remove_all();
        }
        self.flush_patiently(channel);
        self.warn_of_losses();
        let closed = [self.usage.map(UsageDb::close), self.addresses.map(AddridDb::close)];
        for error in closed.into_iter().flatten().filter_map(Result::err) {
            warn!("closing: {error}");
        }
    }
}
