//! Why a file cannot be used: one line for the operator that names the file or directory and the
//! reason.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rusqlite::{ErrorCode, ffi};

use super::schema::Kind;

/// What is said of a file that SQLite does not know.
pub(super) const NO_DATABASE: &str = "not an SQLite file";

/// What SQLite says of a table, index, view or trigger whose text it cannot read.
const BAD_SCHEMA: &str = "malformed database schema";

const UNSUPPORTED: &str = "the file uses a feature of SQLite that this program is built without";

/// A file that cannot be used, and why. `Display` is one line.
pub struct OpenError {
    path: PathBuf,
    file: &'static str,
    kind: OpenErrorKind,
}

pub(super) enum OpenErrorKind {
    Sqlite(rusqlite::Error),
    Io(io::Error),
    /// The directory that the file is in, or should be.
    Directory(PathBuf, io::Error),
    /// The file, or that with this suffix beside it, cannot be written.
    NotWritable(&'static str, io::Error),
    NotOurs(String),
    /// Another process holds the lock.
    InUse,
    /// There was a file, or must be one, and there is none.
    Missing,
    /// There is another file than the one that is open.
    Replaced,
    /// The write-ahead log is not the one that is open.
    LogLost,
    /// The write-ahead log has other contents than were written to it.
    LogOverwritten,
    /// The index of the log is too short.
    IndexCut,
    /// The path is a symbolic link to a file that does not exist.
    DanglingLink,
    /// The version as an SQL literal.
    UnknownVersion {
        found: String,
        newest: usize,
    },
    DanglingRows(String),
    Damaged(String),
    /// It has been made with an SQLite that has more than this one.
    Unsupported(rusqlite::Error),
    /// A rollback journal that must be played back first.
    Unfinished,
    /// A write-ahead log without its index: only some of the three files were copied.
    NoIndex,
}

impl OpenError {
    pub(super) fn new(path: &Path, file: &Kind, kind: impl Into<OpenErrorKind>) -> OpenError {
        OpenError { path: path.to_owned(), file: file.name, kind: kind.into() }
    }
}

impl OpenErrorKind {
    /// A directory in which no file can be made, or in which none can be looked for.
    pub(super) fn directory(path: &Path, error: io::Error) -> OpenErrorKind {
        match error.kind() {
            ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::FileTooLarge
            | ErrorKind::InvalidFilename => OpenErrorKind::Io(error),
            _ => OpenErrorKind::Directory(path.to_owned(), error),
        }
    }
}

impl fmt::Debug for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// With `#`, without the path.
impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if !f.alternate() {
            write!(f, " {}", self.path.display())?;
        }
        write!(f, ": ")?;
        match &self.kind {
            OpenErrorKind::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => write!(f, "the disk is full"),
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                    write!(f, "another program has it locked")
                }
                // SQLite says the same of what it does not know and of what is damaged.
                Some(ErrorCode::DatabaseCorrupt) if error.to_string().starts_with(BAD_SCHEMA) => {
                    write!(f, "{UNSUPPORTED}, or its schema is spoilt: {error}")
                }
                Some(ErrorCode::DatabaseCorrupt) => write!(f, "the file is damaged: {error}"),
                _ => write!(f, "{error}"),
            },
            OpenErrorKind::Io(error) => reason(f, error),
            OpenErrorKind::Directory(path, error) => {
                write!(f, "the directory '{}' ", path.display())?;
                match error.kind() {
                    // The kernel's own file systems answer so to whoever makes a file.
                    ErrorKind::NotFound if path.is_dir() => write!(f, "takes no new files"),
                    ErrorKind::NotFound => write!(f, "does not exist"),
                    ErrorKind::NotADirectory => write!(f, "is not a directory"),
                    _ => {
                        write!(f, "is not writable: ")?;
                        reason(f, error)
                    }
                }
            }
            OpenErrorKind::NotWritable(suffix, error) => {
                match *suffix {
                    "" => write!(f, "the file is not writable: ")?,
                    suffix => write!(f, "its '{suffix}' file is not writable: ")?,
                }
                reason(f, error)
            }
            OpenErrorKind::NotOurs(why) => {
                let kind = self.file.to_string();
                let article = if kind.starts_with('a') { "an" } else { "a" };
                write!(f, "not {article} {kind}: {why}")
            }
            OpenErrorKind::InUse => write!(f, "another server uses it"),
            OpenErrorKind::Missing => write!(f, "the file is missing"),
            OpenErrorKind::Replaced => write!(f, "the file was replaced by another"),
            OpenErrorKind::LogLost => write!(f, "its '-wal' file was removed or replaced"),
            OpenErrorKind::LogOverwritten => write!(f, "its '-wal' file was overwritten"),
            OpenErrorKind::IndexCut => write!(f, "its '-shm' file was overwritten"),
            OpenErrorKind::DanglingLink => {
                write!(f, "it is a symbolic link to a file that does not exist")
            }
            OpenErrorKind::UnknownVersion { found, newest } => {
                write!(f, "version {found} is unknown, this server reads 1 to {newest}")
            }
            OpenErrorKind::Damaged(found) => {
                write!(f, "the file is damaged: {}", found.lines().last().unwrap_or_default())
            }
            OpenErrorKind::Unsupported(error) => write!(f, "{UNSUPPORTED}: {error}"),
            OpenErrorKind::DanglingRows(table) => write!(
                f,
                "foreign key check failed: table '{table}' has rows that point to nothing"
            ),
            OpenErrorKind::Unfinished => {
                write!(f, "a killed program left a change unfinished; a server would undo it")
            }
            OpenErrorKind::NoIndex => {
                write!(f, "its '-wal' file has no '-shm' file beside it; a server would make one")
            }
        }
    }
}

/// The system's error, in the words that this program uses elsewhere for the common ones.
fn reason(f: &mut fmt::Formatter<'_>, error: &io::Error) -> fmt::Result {
    match error.kind() {
        ErrorKind::StorageFull => write!(f, "the disk is full"),
        ErrorKind::QuotaExceeded => write!(f, "the disk quota is used up"),
        ErrorKind::PermissionDenied => write!(f, "permission denied"),
        ErrorKind::ReadOnlyFilesystem => write!(f, "the file system is read-only"),
        ErrorKind::IsADirectory => write!(f, "it is a directory"),
        ErrorKind::FileTooLarge => write!(f, "the file size limit is reached"),
        _ => write!(f, "{error}"),
    }
}

impl Error for OpenError {}

impl From<rusqlite::Error> for OpenErrorKind {
    fn from(error: rusqlite::Error) -> OpenErrorKind {
        match error.sqlite_error() {
            Some(ffi::Error { code: ErrorCode::NotADatabase, .. }) => {
                OpenErrorKind::NotOurs(NO_DATABASE.to_owned())
            }
            Some(ffi::Error { extended_code: ffi::SQLITE_READONLY_ROLLBACK, .. }) => {
                OpenErrorKind::Unfinished
            }
            _ => OpenErrorKind::Sqlite(error),
        }
    }
}

impl From<io::Error> for OpenErrorKind {
    fn from(error: io::Error) -> OpenErrorKind {
        OpenErrorKind::Io(error)
    }
}
