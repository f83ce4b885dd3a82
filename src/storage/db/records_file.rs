//! A file of records, and the records that wait to be written to it: alike for usage and address
//! ids. Its last second may be lost, so commits do not wait for the disk (manual: durability 4).
//!
//! If a write fails the records wait in a bounded backlog, beyond which the oldest are dropped. One
//! log line when it begins to fail, one when it works again.

use std::time::Duration;

use rusqlite::Connection;

use super::file::DatabaseFile;
use super::open_error::OpenError;
use super::opening::Examined;
use super::{Failure, set};
use crate::limits::{CHECKPOINT_PAGES, RECORD_PAGES, RECORDS_BACKLOG_MAX};
use crate::sys::logging::{error, info};

/// SQLite's page cache for a file of records, in KiB.
const RECORDS_CACHE_KIB: i64 = 64;

#[derive(Debug)]
pub(super) struct RecordsFile<T> {
    pub file: DatabaseFile,
    /// Records that are not in the file yet.
    pub waiting: Vec<T>,
    is_failing: bool,
}

impl<T> RecordsFile<T> {
    pub(super) fn open(examined: Examined) -> Result<RecordsFile<T>, OpenError> {
        let file = examined.open()?;
        if let Err(error) = configure(&file.connection) {
            let error = file.error(error);
            _ = file.close(); // in the journal mode that it had
            return Err(error);
        }
        Ok(RecordsFile { file, waiting: Vec::new(), is_failing: false })
    }

    /// Does `write`, which writes what waits, in one transaction.
    pub(super) fn write(
        &mut self,
        write: &mut dyn FnMut(&Connection, &[T]) -> rusqlite::Result<()>,
    ) -> Result<(), Failure> {
        self.follow()?;
        let RecordsFile { file, waiting, .. } = self;
        let pages = waiting.len().saturating_add(1).saturating_mul(RECORD_PAGES);
        file.reserve(pages)?;
        file.transaction(&mut |transaction| write(transaction, waiting))?;
        if file.wal_pages() >= CHECKPOINT_PAGES {
            // If it fails nothing is lost, and what is written must not be written again.
            _ = file.checkpoint();
        }
        // What went into a file that is not at the path any more is written again.
        Ok(file.check()?)
    }

    /// Opens the file that is at the path, if it is another one: each flush calls it, even with
    /// nothing to write, since another process must take nothing from the log of the earlier one.
    pub(super) fn follow(&mut self) -> Result<(), Failure> {
        if self.file.reopen_if_moved()? {
            configure(&self.file.connection)?;
        }
        Ok(())
    }

    /// Drops the records if they were written, else the oldest beyond the limit; returns whether
    /// they were.
    pub(super) fn settle(&mut self, written: Result<(), Failure>) -> bool {
        let was_failing = std::mem::replace(&mut self.is_failing, written.is_err());
        let name = self.file.target.kind.name;
        match written {
            Ok(()) => {
                self.waiting.clear();
                if was_failing {
                    info!("{name} works again");
                }
            }
            Err(error) => {
                let excess = self.waiting.len().saturating_sub(RECORDS_BACKLOG_MAX);
                self.waiting.drain(..excess);
                if !was_failing {
                    error!("{name} fails, rows beyond {RECORDS_BACKLOG_MAX} are dropped: {error}");
                }
            }
        }
        !self.is_failing
    }
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    // A lock of another process is not waited for: the records can wait, clients cannot.
    connection.busy_timeout(Duration::ZERO)?;
    // They are only appended to, so a page or two of each table suffice.
    set(connection, "cache_size", &-RECORDS_CACHE_KIB)?;
    // What is deleted, an address above all, must not survive in a free page.
    set(connection, "secure_delete", &true)?;
    set(connection, "synchronous", &"normal")
}
