//! Reads the files of a server from outside, whether it runs or not.
//!
//! Must never create, change, upgrade or checkpoint a file, nor keep the server from writing: a
//! look costs the server nothing but a read mark in the index of its log. What is read of one file
//! is one moment of it.

mod addrid;
mod channel;
mod usage;

pub use addrid::AddridReader;
pub use channel::{ChannelReader, ConnectionRow, StoredCounts};
pub use usage::{ClientCount, EndingRow, UsageReader, What};

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::file::{self, OpenError, Problem};
use super::schema::Kind;
use crate::limits::{REPORT_BUSY, REPORT_RETRIES, REPORT_RETRY};

/// A file as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileState {
    /// Its version.
    pub version: usize,
    /// Its size.
    pub bytes: u64,
    /// The size of the write-ahead log beside it; none if there is no log, and so nobody has the
    /// file open.
    pub log_bytes: Option<u64>,
}

/// How to open a file so that nothing happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// It has a log: somebody has it open, or was killed. The index of the log, shared with the
    /// server, is read and never built: a reader without a server makes its own in memory.
    BesideLog,
    /// It would have a log if anyone had it open. Read as it is, because opening it in the
    /// ordinary way would create a log.
    AtRest,
    /// It has no log of this kind (the Python server's has not): SQLite's shared lock is all.
    Plain,
}

impl Manner {
    fn of(path: &Path, log_bytes: Option<u64>) -> Result<Manner, Problem> {
        let has_index = file::beside(path, "-shm").try_exists()?;
        match log_bytes {
            Some(_) if has_index => return Ok(Manner::BesideLog),
            // An empty log without index is nobody's, and says nothing. It is left when a reader
            // comes in the very instant in which a server takes its log away.
            None | Some(0) => {}
            Some(_) => return Err(Problem::NoIndex),
        }
        let mut head = Vec::new();
        File::open(path)?.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        let is_logged = head.get(READ_VERSION_AT) == Some(&READ_VERSION_OF_WAL);
        Ok(if is_logged { Manner::AtRest } else { Manner::Plain })
    }

    fn parameters(self) -> &'static str {
        match self {
            Manner::BesideLog => "mode=ro&readonly_shm=1",
            Manner::AtRest => "mode=ro&immutable=1",
            Manner::Plain => "mode=ro",
        }
    }
}

/// Where an SQLite file says which version of the format a reader must know, and what says that
/// it is one with a write-ahead log.
const READ_VERSION_AT: usize = 19;
const READ_VERSION_OF_WAL: u8 = 2;
const HEAD_BYTES: usize = READ_VERSION_AT + 1;

/// A file, open to read one moment of it.
#[derive(Debug)]
struct ReadOnly {
    connection: Connection,
    path: PathBuf,
    kind: &'static Kind,
    state: FileState,
}

impl ReadOnly {
    fn open(path: &Path, kind: &'static Kind) -> Result<ReadOnly, OpenError> {
        let mut opened = open(path, kind);
        for _ in 0..REPORT_RETRIES {
            if !opened.as_ref().is_err_and(may_pass) {
                break;
            }
            thread::sleep(REPORT_RETRY);
            opened = open(path, kind);
        }
        let (connection, state) = opened.map_err(|error| OpenError::new(path, kind, error))?;
        Ok(ReadOnly { connection, path: path.to_owned(), kind, state })
    }

    /// Reads something; a failure names the file.
    fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, OpenError> {
        read(&self.connection).map_err(|error| file::refuse(&self.path, self.kind, error))
    }
}

/// Whether this is what one finds for a moment while a server starts or stops: a log that has no
/// index yet, or one that is gone before it is opened.
fn may_pass(problem: &Problem) -> bool {
    match problem {
        Problem::NoIndex => true,
        Problem::Sqlite(error) => error.sqlite_error_code() == Some(ErrorCode::CannotOpen),
        _ => false,
    }
}

fn open(path: &Path, kind: &Kind) -> Result<(Connection, FileState), Problem> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(Problem::NotOurs("not a regular file".to_owned()));
    }
    let log_bytes = fs::metadata(file::beside(path, "-wal")).ok().map(|log| log.len());
    let manner = Manner::of(path, log_bytes)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let connection =
        Connection::open_with_flags(uri(&fs::canonicalize(path)?, manner.parameters()), flags)?;
    connection.busy_timeout(REPORT_BUSY)?;
    // The last one to close a file must not tidy up after a server that was killed.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "temp_store", "memory")?; // no file for sorting either
    connection.execute_batch("BEGIN")?;
    let version = file::version(&connection, kind)?;
    Ok((connection, FileState { version, bytes: metadata.len(), log_bytes }))
}

/// The path as SQLite takes it together with parameters.
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
