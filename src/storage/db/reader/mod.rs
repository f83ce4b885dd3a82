//! Reads the files of a server from outside, whether it runs or not.
//!
//! Must never create, change, upgrade or checkpoint a file, nor keep the server from writing: it
//! takes only a read mark in the index of the write-ahead log. All reads of a file see one
//! snapshot.

mod addrid;
mod channel;
mod usage;

pub use addrid::{AddressesById, addresses_by_id};
pub use channel::{ConnectionRow, StoredCounts, read_connections, stored_counts};
pub use usage::{ClientCount, EndingRow, UsageSince, read_current, read_usage};

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::channel::ChannelOptions;
use super::header::{self, HEADER_BYTES};
use super::names::{self, with_suffix};
use super::open_error::{OpenError, OpenErrorKind};
use super::opening::{self, MEMORY};
use super::schema::{ADDRID, CHANNEL, Kind, USAGE};
use super::set;
use crate::limits::{REPORT_BUSY, REPORT_RETRIES, REPORT_RETRY};

/// A file as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileState {
    pub version: usize,
    pub bytes: u64,
    /// The size of its write-ahead log; none if there is no log.
    pub log_bytes: Option<u64>,
    has_rollback_journal: bool,
}

impl FileState {
    /// Whether a process may have the file open. A server without shared memory has the rollback
    /// journal there once it has written.
    pub fn may_be_open(self) -> bool {
        self.log_bytes.is_some() || self.has_rollback_journal
    }
}

/// Parameters to read a file without a look at what lies beside it.
const IMMUTABLE: &str = "mode=ro&immutable=1";

/// How to open a file without changing anything, as parameters of SQLite's URI.
fn parameters(path: &Path, log_bytes: Option<u64>) -> Result<&'static str, OpenErrorKind> {
    let header = header::read(path)?;
    if header.len() < HEADER_BYTES {
        return Ok(IMMUTABLE); // no database: SQLite would delete a log beside it
    }
    let has_index = with_suffix(path, "-shm").try_exists()?;
    match log_bytes {
        // A server has it open, or was killed. The index of the log, shared with the server, is
        // read and never built: a reader without a server makes its own in memory.
        Some(_) if has_index => Ok("mode=ro&readonly_shm=1"),
        Some(1..) => Err(OpenErrorKind::NoIndex),
        // An empty log without index: a server just removed the log while a reader opened it.
        // In WAL mode, but no process has it open: opened in the ordinary way it would get a log.
        _ if header::is_in_wal_mode(&header) => Ok(IMMUTABLE),
        // With a rollback journal, as the Python server's: SQLite's shared lock suffices.
        _ => Ok("mode=ro"),
    }
}

/// Opens a file and reads it within one transaction.
fn read<T>(
    path: &Path,
    kind: &Kind,
    read: impl FnOnce(&Connection, FileState) -> rusqlite::Result<T>,
) -> Result<T, OpenError> {
    let opened = open_patiently(path, kind);
    let found = opened.and_then(|(connection, state)| Ok(read(&connection, state)?));
    found.map_err(|error| OpenError::new(path, kind, error))
}

fn open_patiently(path: &Path, kind: &Kind) -> Result<(Connection, FileState), OpenErrorKind> {
    for _ in 0..REPORT_RETRIES {
        match open(path, kind) {
            Err(error) if is_transient(&error) => thread::sleep(REPORT_RETRY),
            outcome => return outcome,
        }
    }
    open(path, kind)
}

/// Checks what is there as a start does, that there is a directory for what is not, and what may
/// lie beside either.
pub fn check_files(
    channel: (&Path, ChannelOptions),
    usage: Option<&Path>,
    addrid: Option<&Path>,
) -> Result<(), OpenError> {
    let files = [
        (Some(channel.0), &CHANNEL, channel.1.version()),
        (usage, &USAGE, USAGE.newest()),
        (addrid, &ADDRID, ADDRID.newest()),
    ];
    for (path, kind, wanted) in files {
        let Some(path) = path.filter(|path| *path != Path::new(MEMORY)) else { continue };
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        opening::check_names_beside(&real).map_err(|error| OpenError::new(path, kind, error))?;
        let checked = match fs::metadata(path) {
            // Empty counts as new.
            Ok(metadata) if metadata.is_file() && metadata.len() == 0 => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => check_place(path),
            _ => check_file(path, kind, wanted),
        };
        checked.map_err(|error| OpenError::new(path, kind, error))?;
    }
    Ok(())
}

fn check_file(path: &Path, kind: &Kind, wanted: usize) -> Result<(), OpenErrorKind> {
    let connection = match open_patiently(path, kind) {
        Ok((connection, _)) => connection,
        // No server has the file open, and a start reads it so.
        Err(OpenErrorKind::NoIndex) => {
            opening::connect_to_look(&fs::canonicalize(path)?, "exclusive", REPORT_BUSY)?
        }
        // Only a start can undo that, and reads the file then.
        Err(OpenErrorKind::Unfinished) => return Ok(()),
        Err(error) => return Err(error),
    };
    opening::checked_version(&connection, kind, &kind.model()?, wanted)?;
    Ok(opening::look_into(&connection, kind, usize::MAX)?)
}

/// Whether a file can be made at a path at which there is none.
fn check_place(path: &Path) -> Result<(), OpenErrorKind> {
    if path.is_symlink() {
        return Err(OpenErrorKind::DanglingLink);
    }
    let directory = names::directory(path);
    let metadata = fs::metadata(directory).and_then(|metadata| {
        if metadata.is_dir() { Ok(()) } else { Err(ErrorKind::NotADirectory.into()) }
    });
    metadata.map_err(|error| OpenErrorKind::Directory(directory.to_owned(), error))
}

/// Whether it may come from a server that is starting or stopping: a log without its index yet, or
/// one that is gone before it is opened.
fn is_transient(error: &OpenErrorKind) -> bool {
    match error {
        OpenErrorKind::NoIndex => true,
        OpenErrorKind::Sqlite(error) => error.sqlite_error_code() == Some(ErrorCode::CannotOpen),
        _ => false,
    }
}

fn open(path: &Path, kind: &Kind) -> Result<(Connection, FileState), OpenErrorKind> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(OpenErrorKind::NotOurs("not a regular file".to_owned()));
    }
    // SQLite puts what belongs to the file beside the file itself, not beside a link to it.
    let path = &fs::canonicalize(path)?;
    let log_bytes = log_bytes(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let uri = uri(path, parameters(path, log_bytes)?);
    let model = kind.model()?;
    let connection = Connection::open_with_flags(uri, flags)?;
    connection.busy_timeout(REPORT_BUSY)?;
    // Closing must not copy the log of a killed server into the file.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    set(&connection, "temp_store", &"memory")?; // no temporary file for sorting
    connection.execute_batch("BEGIN")?;
    let version = opening::version(&connection, kind, &model)?;
    let has_rollback_journal = with_suffix(path, "-journal").try_exists()?;
    Ok((connection, FileState { version, bytes: metadata.len(), log_bytes, has_rollback_journal }))
}

/// The size of a database's write-ahead log; none if there is no log.
pub fn log_bytes(path: &Path) -> Option<u64> {
    let path = fs::canonicalize(path).ok()?;
    fs::metadata(with_suffix(&path, "-wal")).ok().map(|log| log.len())
}

/// The path as an SQLite URI with parameters.
fn uri(path: &Path, parameters: &str) -> String {
    let mut uri = "file:".to_owned();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' => uri.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            _ => uri += &format!("%{byte:02x}"),
        }
    }
    uri + "?" + parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_bring_parameters_of_its_own() {
        let uri = uri(Path::new("/a b/100%?mode=rwc#.sqlite"), "mode=ro");
        assert_eq!(uri, "file:/a%20b/100%25%3fmode%3drwc%23.sqlite?mode=ro");
    }
}
