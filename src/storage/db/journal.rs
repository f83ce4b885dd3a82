//! Journals, by which changes get into a file, and checkpoints (manual: files 1.3).

use rusqlite::Connection;

/// How changes get into a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Journal {
    /// By a write-ahead log, which needs shared memory.
    Wal,
    /// By a rollback journal, where a file system has no shared memory (9p, virtiofs, SMB, some
    /// FUSE).
    Truncate,
}

impl Journal {
    /// SQLite's name of the journal mode.
    pub(super) fn mode(self) -> &'static str {
        match self {
            Journal::Wal => "wal",
            Journal::Truncate => "truncate",
        }
    }

    /// SQLite's name of the locking mode in which a file is opened.
    pub(super) fn locking(self) -> &'static str {
        match self {
            Journal::Wal => "normal",
            // A file in WAL mode can then be read without shared memory.
            Journal::Truncate => "exclusive",
        }
    }
}

/// The journal mode in force.
pub(super) fn mode(connection: &Connection) -> rusqlite::Result<String> {
    connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))
}

/// Sets a journal mode. SQLite answers with the mode in force, which may be another.
pub(super) fn set_mode(connection: &Connection, wanted: &str) -> rusqlite::Result<()> {
    let sql = format!("PRAGMA journal_mode = {wanted}");
    let mode: String = connection.query_row(&sql, [], |row| row.get(0))?;
    if mode == wanted {
        return Ok(());
    }
    Err(busy(Some(format!("the journal mode stays '{mode}'"))))
}

/// SQLite's answer when another process is in the way, for where SQLite itself does not fail.
fn busy(message: Option<String>) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
    rusqlite::Error::SqliteFailure(code, message)
}

/// Copies the write-ahead log into the file, as far as readers allow; returns whether all of it is
/// there now.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<bool> {
    run_checkpoint(connection, "PASSIVE")
}

/// The same, and empties the log then. Waits for readers as long as for a lock.
pub(super) fn empty_log(connection: &Connection) -> rusqlite::Result<bool> {
    run_checkpoint(connection, "TRUNCATE")
}

fn run_checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<bool> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        let (busy, logged, copied): (bool, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(!busy && logged == copied)
    })
}

/// Copies the write-ahead log into the file; fails if a reader keeps a part of it from that.
pub(super) fn copy_log(connection: &Connection) -> rusqlite::Result<()> {
    if checkpoint(connection)? { Ok(()) } else { Err(busy(None)) }
}
