//! Opens a file: creates it atomically, checks what it is, upgrades it with a backup (manual:
//! files 1). A refused file is left as it was.

use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::schema::{Kind, Version};
use crate::limits::DATABASE_BUSY;

/// The path of a database in memory, which keeps nothing.
pub const MEMORY: &str = ":memory:";

/// Bytes of a page in files that are made here. A message dirties a few pages, each of which
/// goes to the log in whole: SQLite's own 4096 more than doubles the bytes of an exchange, and
/// saves no time.
const PAGE_BYTES: usize = 1024;

/// SQLite's page cache for a file of records, in KiB.
const RECORDS_CACHE_KIB: i64 = 64;

/// Why a file cannot be used. `Display` is one line for the operator.
#[derive(Debug)]
pub struct OpenError {
    path: PathBuf,
    file: &'static str,
    kind: OpenErrorKind,
}

#[derive(Debug)]
pub(super) enum OpenErrorKind {
    Sqlite(rusqlite::Error),
    Io(io::Error),
    NotOurs(String),
    InUse,
    UnknownVersion {
        found: i64,
        newest: usize,
    },
    DanglingRows(String),
    /// A write-ahead log without its index: only some of the three files were copied.
    NoIndex,
}

impl OpenError {
    pub(super) fn new(path: &Path, file: &Kind, kind: impl Into<OpenErrorKind>) -> OpenError {
        OpenError { path: path.to_owned(), file: file.name, kind: kind.into() }
    }

    /// A channel database that was opened and then failed.
    pub fn channel(path: &Path, error: rusqlite::Error) -> OpenError {
        OpenError::new(path, &super::schema::CHANNEL, error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.file, self.path.display())?;
        match &self.kind {
            OpenErrorKind::Sqlite(error) => write!(f, "{error}"),
            OpenErrorKind::Io(error) => write!(f, "{error}"),
            OpenErrorKind::NotOurs(what) => write!(f, "not a {}: {what}", self.file),
            OpenErrorKind::InUse => write!(f, "another server uses it"),
            OpenErrorKind::UnknownVersion { found, newest } => {
                write!(f, "version {found} is unknown, this server reads 1 to {newest}")
            }
            OpenErrorKind::DanglingRows(table) => {
                write!(
                    f,
                    "foreign key check failed: table '{table}' has rows that point to nothing"
                )
            }
            OpenErrorKind::NoIndex => {
                write!(f, "its '-wal' file has no '-shm' file beside it; a server would make one")
            }
        }
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.kind {
            OpenErrorKind::Sqlite(error) => Some(error),
            OpenErrorKind::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<rusqlite::Error> for OpenErrorKind {
    fn from(error: rusqlite::Error) -> OpenErrorKind {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => {
                OpenErrorKind::NotOurs("not an SQLite file".to_owned())
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

/// An open file and what was done to it.
#[derive(Debug)]
pub struct Opened {
    pub connection: Connection,
    /// A lock that keeps a second server off the file, but no readers and no tools that write
    /// briefly. Must be dropped after the connection: closing it drops SQLite's locks with it.
    pub guard: Option<File>,
    pub version: usize,
    pub created: bool,
    /// Where the file was copied to before it was upgraded.
    pub backup: Option<PathBuf>,
}

impl Opened {
    /// What opening did to the file, for the log.
    pub fn history(&self) -> String {
        match (self.created, &self.backup) {
            (true, _) => "created".to_owned(),
            (false, Some(backup)) => {
                format!("upgraded, the old file is kept as {}", backup.display())
            }
            (false, None) => "opened".to_owned(),
        }
    }
}

/// Opens or creates a file. A new one gets version `create`; an existing one is brought to at
/// least `at_least`.
pub fn open(path: &Path, kind: &Kind, create: usize, at_least: usize) -> Result<Opened, OpenError> {
    let opened = if path == Path::new(MEMORY) {
        open_memory(kind, create.max(at_least))
    } else {
        open_path(path, kind, create.max(at_least), at_least)
    };
    opened.map_err(|error| OpenError::new(path, kind, error))
}

fn open_memory(kind: &Kind, version: usize) -> Result<Opened, OpenErrorKind> {
    let mut connection = Connection::open_in_memory()?;
    let transaction = connection.transaction()?;
    upgrade(&transaction, kind, 0, version)?;
    transaction.commit()?;
    Ok(Opened { connection, guard: None, version, created: true, backup: None })
}

fn open_path(
    path: &Path,
    kind: &Kind,
    create: usize,
    at_least: usize,
) -> Result<Opened, OpenErrorKind> {
    let created = !path.try_exists()?;
    if created {
        create_atomically(path, kind, create)?;
    }
    let guard = File::open(path)?;
    guard.try_lock().map_err(|_| OpenErrorKind::InUse)?;
    let had_log = with_suffix(path, "-wal").try_exists()?;
    let mut connection = connect(path, OpenFlags::empty())?;
    // Closing a refused file must not copy the log into it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, had_log)?;
    let found = check(&connection, kind)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    let mut backup = None;
    if found < at_least {
        backup = Some(back_up(connection, path, found)?);
        connection = connect(path, OpenFlags::empty())?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        upgrade(&transaction, kind, found, at_least)?;
        transaction.commit()?;
    }
    Ok(Opened { connection, guard: Some(guard), version: found.max(at_least), created, backup })
}

fn connect(path: &Path, extra: OpenFlags) -> Result<Connection, OpenErrorKind> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | extra;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(DATABASE_BUSY)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

/// Makes the file under a temporary name, so that at `path` it is there in whole or not at all.
fn create_atomically(path: &Path, kind: &Kind, version: usize) -> Result<(), OpenErrorKind> {
    let temporary = with_suffix(path, &format!(".new-{}", std::process::id()));
    let made = || -> Result<(), OpenErrorKind> {
        // Left by an earlier process with the same id, as in a container, that was killed here.
        remove(&temporary, &["", "-journal"])?;
        let mut connection = connect(&temporary, OpenFlags::SQLITE_OPEN_CREATE)?;
        connection.pragma_update(None, "page_size", PAGE_BYTES as i64)?;
        let transaction = connection.transaction()?;
        upgrade(&transaction, kind, 0, version)?;
        transaction.commit()?;
        drop(connection);
        // SQLite would apply logs of an earlier file to the new one.
        remove(path, &["-journal", "-wal", "-shm"])?;
        fs::rename(&temporary, path)?;
        sync_directory(path)
    }();
    if made.is_err() {
        _ = remove(&temporary, &["", "-journal"]);
    }
    made
}

/// Removes the files with these suffixes that exist.
fn remove(path: &Path, suffixes: &[&str]) -> io::Result<()> {
    for suffix in suffixes {
        match fs::remove_file(with_suffix(path, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Returns the file's version, once its kind and its foreign keys are checked.
fn check(connection: &Connection, kind: &Kind) -> Result<usize, OpenErrorKind> {
    let version = version(connection, kind)?;
    let mut dangling = connection.prepare("PRAGMA foreign_key_check")?;
    if let Some(row) = dangling.query([])?.next()? {
        return Err(OpenErrorKind::DanglingRows(row.get(0)?));
    }
    Ok(version)
}

/// Returns the file's version, once it is clear that the file is of that kind.
pub(super) fn version(connection: &Connection, kind: &Kind) -> Result<usize, OpenErrorKind> {
    let found: i64 = match connection.query_row("SELECT version FROM version", [], |row| row.get(0))
    {
        Ok(version) => version,
        Err(rusqlite::Error::SqliteFailure(error, _))
            if error.code == rusqlite::ErrorCode::Unknown =>
        {
            return Err(OpenErrorKind::NotOurs("it has no 'version' table".to_owned()));
        }
        Err(rusqlite::Error::SqlInputError { .. }) => {
            return Err(OpenErrorKind::NotOurs("it has no 'version' table".to_owned()));
        }
        Err(rusqlite::Error::QueryReturnedNoRows) => {
            return Err(OpenErrorKind::NotOurs("its 'version' table is empty".to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    let newest = kind.versions.len();
    let version = usize::try_from(found)
        .ok()
        .filter(|version| (1..=newest).contains(version))
        .ok_or(OpenErrorKind::UnknownVersion { found, newest })?;
    for probe in kind.versions[..version].iter().flat_map(|version| version.probes) {
        if let Err(error) = connection.prepare(probe) {
            return Err(OpenErrorKind::NotOurs(error.to_string()));
        }
    }
    Ok(version)
}

/// Copies the file. Takes the connection, because closing another descriptor of the file would
/// drop the connection's locks.
fn back_up(connection: Connection, path: &Path, version: usize) -> Result<PathBuf, OpenErrorKind> {
    // The copy needs what a crash left in the log. A no-op outside WAL mode.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)?;
    let backup = with_suffix(path, &format!("-backup-v{version}"));
    fs::copy(path, &backup)?;
    File::open(&backup)?.sync_all()?;
    sync_directory(&backup)?;
    Ok(backup)
}

fn upgrade(
    transaction: &Transaction<'_>,
    kind: &Kind,
    from: usize,
    to: usize,
) -> Result<(), OpenErrorKind> {
    for Version { upgrade, .. } in &kind.versions[from..to] {
        transaction.execute_batch(upgrade)?;
    }
    transaction.execute("DELETE FROM version", [])?;
    transaction.execute("INSERT INTO version (version) VALUES (?1)", [to as i64])?;
    Ok(())
}

/// The path with a suffix appended to its file name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes a new name in the file's directory survive power loss.
fn sync_directory(path: &Path) -> Result<(), OpenErrorKind> {
    let directory =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(File::open(directory)?.sync_all()?)
}

/// For files whose last second may be lost: commits do not wait for the disk.
pub(super) fn write_without_waiting(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    // Nor do they wait for another process's lock: the records can wait, clients cannot.
    connection.busy_timeout(Duration::ZERO)?;
    // They are only appended to, so a page or two of each table suffice.
    connection.pragma_update(None, "cache_size", -RECORDS_CACHE_KIB)?;
    connection.pragma_update(None, "synchronous", "normal")
}
