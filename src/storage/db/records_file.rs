//! A file of records: opened, written and closed alike for usage and address ids. Its last second
//! may be lost, so commits do not wait for the disk (manual: durability 4).

use std::time::Duration;

use rusqlite::{Connection, Transaction};

use super::Failure;
use super::file::{self, Examined, LogPages, Opened};
use super::open_error::OpenError;
use super::place::Place;
use super::schema::Kind;
use crate::limits::{CHECKPOINT_PAGES, RECORD_PAGES};

/// SQLite's page cache for a file of records, in KiB.
const RECORDS_CACHE_KIB: i64 = 64;

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
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
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
