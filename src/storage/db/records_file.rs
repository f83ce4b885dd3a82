//! A file of records: opened, written and closed alike for usage and address ids. Its last second
//! may be lost, so commits do not wait for the disk (manual: durability 4).

use std::io;
use std::time::Duration;

use rusqlite::Connection;

use super::Failure;
use super::file::{self, Examined, LogPages, Opened};
use super::open_error::OpenError;
use super::place::Place;
use super::schema::Kind;
use crate::limits::{CHECKPOINT_PAGES, RECORD_PAGES, USAGE_ROOM_BYTES, USAGE_ROOM_SHARE};

/// SQLite's page cache for a file of records, in KiB.
const RECORDS_CACHE_KIB: i64 = 64;

/// Bytes on a file system.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Free for this process.
    pub free: u64,
    pub all: u64,
}

impl Room {
    /// Whether there is enough to record usage; `was_enough`: at the last look.
    pub fn is_enough(self, was_enough: bool) -> bool {
        let needed = USAGE_ROOM_BYTES.min(self.all / USAGE_ROOM_SHARE);
        self.free >= if was_enough { needed } else { needed + needed / 4 }
    }
}

#[derive(Debug)]
pub(super) struct RecordsFile {
    pub(super) connection: Connection,
    place: Place,
    pages: LogPages,
    kind: &'static Kind,
    version: usize,
    history: String,
}

impl RecordsFile {
    pub(super) fn open(examined: Examined, kind: &'static Kind) -> Result<RecordsFile, OpenError> {
        let Opened { connection, place, version, history } = examined.open()?;
        let pages = LogPages::default();
        let mut file = RecordsFile { connection, place, pages, kind, version, history };
        file.configure().map_err(|error| OpenError::new(file.place.path(), kind, error))?;
        Ok(file)
    }

    fn configure(&mut self) -> rusqlite::Result<()> {
        self.pages = LogPages::count(&mut self.connection)?;
        let connection = &self.connection;
        // A lock of another process is not waited for: the records can wait, clients cannot.
        connection.busy_timeout(Duration::ZERO)?;
        // They are only appended to, so a page or two of each table suffice.
        connection.pragma_update(None, "cache_size", -RECORDS_CACHE_KIB)?;
        // What is deleted, an address above all, must not survive in a free page.
        connection.pragma_update(None, "secure_delete", true)?;
        connection.pragma_update(None, "synchronous", "normal")
    }

    pub(super) fn room(&self) -> io::Result<Room> {
        let status = rustix::fs::statvfs(self.place.path())?;
        let bytes = |blocks: u64| blocks.saturating_mul(status.f_frsize);
        Ok(Room { free: bytes(status.f_bavail), all: bytes(status.f_blocks) })
    }

    pub(super) fn version(&self) -> usize {
        self.version
    }

    pub(super) fn history(&self) -> &str {
        &self.history
    }

    /// Writes `rows` rows, or none, in one transaction.
    pub(super) fn write(
        &mut self,
        rows: usize,
        write: &mut dyn FnMut(&Connection) -> rusqlite::Result<()>,
    ) -> Result<(), Failure> {
        let (connection, place) = (&mut self.connection, &mut self.place);
        if let Some(opened) = file::reopen_if_moved(connection, place, self.kind, self.version)? {
            (self.connection, self.place) = (opened.connection, opened.place);
            self.configure()?;
        }
        let error = |error| OpenError::new(self.place.path(), self.kind, error);
        self.pages.reserve(rows.saturating_mul(RECORD_PAGES), &self.place).map_err(error)?;
        let transaction = self.connection.transaction()?;
        write(&transaction)?;
        transaction.commit()?;
        if self.pages.get() >= CHECKPOINT_PAGES {
            file::checkpoint(&self.connection, "PASSIVE")?;
        }
        // What went into a file that is not at the path any more is written again.
        Ok(self.place.check().map_err(error)?)
    }

    /// Leaves the file clean, without a write-ahead log.
    pub(super) fn close(self) -> Result<(), OpenError> {
        file::close(self.connection, self.place, self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn recording_stops_below_the_bound_and_goes_on_well_above_it() {
        for (all, needed) in
            [(1024 * MIB * MIB, 64 * MIB), (512 * MIB, 64 * MIB), (16 * MIB, 2 * MIB)]
        {
            let is_enough = |free, was_enough| Room { free, all }.is_enough(was_enough);
            assert!(is_enough(needed, true) && !is_enough(needed - 1, true), "{all}");
            let again = needed / 4 * 5;
            assert!(is_enough(again, false) && !is_enough(again - 1, false), "{all}");
        }
    }
}
