//! The SQLite files (manual: files 1): opening, upgrading, loading, writing.
//!
//! | file | duty |
//! |---|---|
//! | `opening` | examines a file, then opens it |
//! | `create` | makes files: new ones, copies, trials |
//! | `room` | whether the disk has room for a batch |
//! | `file` | an open one: transactions, reopening, closing |
//! | `place`, `wal_file` | whether it is still there, and still what was written |
//! | `lock` | the lock that keeps a second server off |
//! | `open_error` | what is wrong with a file |
//! | `schema`, `header`, `names`, `journal` | what is in a file, how it begins, what lies beside it |
//! | `channel`, `load`, `connections` | the channel database |
//! | `usage`, `addrid`, `records_file` | the usage and the address-id database |
//! | `columns` | reads what other servers have stored |
//! | `reader` | reads files from outside |
//!
//! Knows the store's changes and records; must never know sockets or JSON.

mod addrid;
mod channel;
mod columns;
mod connections;
mod create;
mod file;
mod header;
mod journal;
mod load;
mod lock;
mod names;
mod open_error;
mod opening;
mod place;
mod reader;
mod records_file;
mod room;
mod schema;
mod usage;
mod wal_file;

pub use addrid::{AddressId, AddridDb};
pub use channel::{ChannelDb, ChannelOptions, Synchronous};
pub use connections::{ConnectionChange, ConnectionTable};
pub use lock::{EarlierLocks, describe_locks};
pub use names::is_named_after;
pub use open_error::OpenError;
pub use opening::{Examined, MEMORY};
pub use reader::{
    AddressesById, ClientCount, ConnectionRow, EndingRow, FileState, StoredCounts, UsageSince,
    addresses_by_id, check_files, log_bytes, read_connections, read_current, read_usage,
    stored_counts,
};
pub use usage::{Current, UsageDb, UsageHistory};

use std::error::Error;
use std::fmt::Display;
use std::fs::File;

use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, ToSql};

use crate::store::{Change, NameplateId, Row, SideId};
use crate::sys::clock::Timestamp;

/// Why something could not be read or written.
pub type Failure = Box<dyn Error>;

macro_rules! to_sql {
    ($($type:ty)*) => {$(
        impl ToSql for $type {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.0.into())
            }
        }
    )*};
}

to_sql! { Timestamp NameplateId SideId }

/// Runs a statement, which stays prepared; returns how many rows it has changed.
fn run(connection: &Connection, sql: &str, params: &[&dyn ToSql]) -> rusqlite::Result<usize> {
    connection.prepare_cached(sql)?.execute(params)
}

/// Sets a pragma of this connection. rusqlite's function for it is several KiB.
fn set(connection: &Connection, pragma: &str, value: &dyn Display) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("PRAGMA {pragma} = {value}"))
}

/// The channel database as the rest of the server needs it. The simulation has an implementation
/// of its own, with faults.
pub trait Database {
    /// Writes all changes in one transaction.
    fn commit(&mut self, changes: &[Change]) -> Result<(), Failure>;

    /// Writes rows of the connection table, which need not be durable.
    fn write_connections(&mut self, connections: &ConnectionTable) -> Result<(), Failure>;

    /// Tests whether the file can be written, by a commit that writes more than the last one that
    /// failed and leaves no row.
    fn try_write(&mut self) -> Result<(), Failure>;

    /// Reads everything and passes on each row: a table's rows before those that refer to it,
    /// each table in the order of its ids. Returns the highest nameplate id ever given out.
    fn load(&self, each: &mut dyn FnMut(Row)) -> Result<NameplateId, Failure>;

    /// Fails if another process would not find in the file what is committed: it is not at its path
    /// any more, or was written over.
    fn check(&self) -> Result<(), Failure>;

    /// The file whose lock keeps a second server off; none in memory.
    fn lock(&self) -> Option<&File> {
        None
    }

    /// How often the file was opened, or opened again. Each time its table of connections is
    /// emptied, and it may be another file.
    fn openings(&self) -> u64 {
        0
    }

    /// Stores the current generation of address ids.
    fn set_generation(&mut self, generation: u64, started: Timestamp) -> Result<(), Failure>;

    /// Pages added to the write-ahead log since the last checkpoint.
    fn wal_pages(&self) -> u32;

    /// Copies the write-ahead log into the file, as far as readers allow; returns whether that was
    /// all of it.
    fn checkpoint(&mut self) -> Result<bool, Failure>;

    /// Shortens the file of the write-ahead log, if nothing in it is needed.
    fn shrink_log(&mut self);

    /// Frees memory that is kept to make the next commit faster.
    fn release_memory(&mut self);

    /// Leaves the file as the Python server would, without a write-ahead log.
    fn close(self: Box<Self>) -> Result<(), Failure>;
}
