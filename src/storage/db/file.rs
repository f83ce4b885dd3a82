//! Opening a file: create it atomically, know it for what it is, upgrade it with a backup.
//!
//! A file that is refused is left as it was.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::schema::{Kind, Version};
use crate::limits::DATABASE_BUSY;

/// The path that means "keep nothing".
pub const MEMORY: &str = ":memory:";

/// Bytes of a page in files that are made here. A message dirties a few pages, each of which
/// goes to the log in whole: SQLite's own 4096 more than doubles the bytes of an exchange, and
/// saves no time.
const PAGE_BYTES: usize = 1024;

/// What SQLite may keep of a file of records, in KiB.
const RECORDS_CACHE_KIB: i64 = 64;

/// Why a file cannot be used. `Display` is one line for the operator.
#[derive(Debug)]
pub struct OpenError {
    path: PathBuf,
    kind: &'static str,
    problem: Problem,
}

/// What is wrong with a file.
#[derive(Debug)]
pub(super) enum Problem {
    Sqlite(rusqlite::Error),
    Io(io::Error),
    NotOurs(String),
    InUse,
    UnknownVersion {
        found: i64,
        newest: usize,
    },
    DanglingRows(String),
    /// A write-ahead log without its index, as it is left by copying some files of three.
    NoIndex,
}

impl OpenError {
    pub(super) fn new(path: &Path, kind: &Kind, problem: Problem) -> OpenError {
        OpenError { path: path.to_owned(), kind: kind.name, problem }
    }

    /// A channel database that was opened and then failed.
    pub fn channel(path: &Path, error: rusqlite::Error) -> OpenError {
        refuse(path, &super::schema::CHANNEL, error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.kind, self.path.display())?;
        match &self.problem {
            Problem::Sqlite(error) => write!(f, "{error}"),
            Problem::Io(error) => write!(f, "{error}"),
            Problem::NotOurs(what) => write!(f, "not a {}: {what}", self.kind),
            Problem::InUse => write!(f, "another server uses it"),
            Problem::UnknownVersion { found, newest } => {
                write!(f, "version {found} is unknown, this server reads 1 to {newest}")
            }
            Problem::DanglingRows(table) => {
                write!(
                    f,
                    "foreign key check failed: table '{table}' has rows that point to nothing"
                )
            }
            Problem::NoIndex => {
                write!(f, "its '-wal' file has no '-shm' file beside it; a server would make one")
            }
        }
    }
}

impl std::error::Error for OpenError {}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Problem {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => {
                Problem::NotOurs("not an SQLite file".to_owned())
            }
            _ => Problem::Sqlite(error),
        }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Problem {
        Problem::Io(error)
    }
}

/// An open file and what was done to it.
#[derive(Debug)]
pub struct Opened {
    pub connection: Connection,
    /// Keeps a second server off the file. Must be dropped after the connection: closing it would
    /// drop SQLite's own locks with it. Readers, and tools that write briefly, are not kept off.
    pub guard: Option<File>,
    /// Its version now.
    pub version: usize,
    /// Whether it was created just now.
    pub created: bool,
    /// Where the file was copied to before it was upgraded.
    pub backup: Option<PathBuf>,
}

impl Opened {
    /// What opening did to the file, in words.
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
    opened.map_err(|problem| OpenError::new(path, kind, problem))
}

fn open_memory(kind: &Kind, version: usize) -> Result<Opened, Problem> {
    let mut connection = Connection::open_in_memory()?;
    let transaction = connection.transaction()?;
    upgrade(&transaction, kind, 0, version)?;
    transaction.commit()?;
    Ok(Opened { connection, guard: None, version, created: true, backup: None })
}

fn open_path(path: &Path, kind: &Kind, create: usize, at_least: usize) -> Result<Opened, Problem> {
    let created = !path.try_exists()?;
    if created {
        create_atomically(path, kind, create)?;
    }
    let guard = File::open(path)?;
    guard.try_lock().map_err(|_| Problem::InUse)?;
    let had_log = beside(path, "-wal").try_exists()?;
    let mut connection = connect(path, OpenFlags::empty())?;
    // Until the file is accepted, closing it must not copy the log into it.
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

fn connect(path: &Path, extra: OpenFlags) -> Result<Connection, Problem> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | extra;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(DATABASE_BUSY)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

/// Makes the file under a temporary name, so that at `path` it is there in whole or not at all.
fn create_atomically(path: &Path, kind: &Kind, version: usize) -> Result<(), Problem> {
    let temporary = beside(path, &format!(".new-{}", std::process::id()));
    let made = || -> Result<(), Problem> {
        // Of an earlier process with the same id, as in a container, that was killed just here.
        remove(&temporary, &["", "-journal"])?;
        let mut connection = connect(&temporary, OpenFlags::SQLITE_OPEN_CREATE)?;
        connection.pragma_update(None, "page_size", PAGE_BYTES as i64)?;
        let transaction = connection.transaction()?;
        upgrade(&transaction, kind, 0, version)?;
        transaction.commit()?;
        drop(connection);
        // SQLite would play logs of a file that was here before into the new one.
        remove(path, &["-journal", "-wal", "-shm"])?;
        fs::rename(&temporary, path)?;
        sync_directory(path)
    }();
    if made.is_err() {
        _ = remove(&temporary, &["", "-journal"]);
    }
    made
}

/// Removes files of these suffixes, as far as they are there.
fn remove(path: &Path, suffixes: &[&str]) -> io::Result<()> {
    for suffix in suffixes {
        match fs::remove_file(beside(path, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Finds the file's version, and that all in it is as that version wants it.
fn check(connection: &Connection, kind: &Kind) -> Result<usize, Problem> {
    let version = version(connection, kind)?;
    let mut dangling = connection.prepare("PRAGMA foreign_key_check")?;
    if let Some(row) = dangling.query([])?.next()? {
        return Err(Problem::DanglingRows(row.get(0)?));
    }
    Ok(version)
}

/// Finds the file's version, and that it really is of that kind.
pub(super) fn version(connection: &Connection, kind: &Kind) -> Result<usize, Problem> {
    let found: i64 = match connection.query_row("SELECT version FROM version", [], |row| row.get(0))
    {
        Ok(version) => version,
        Err(rusqlite::Error::SqliteFailure(error, _))
            if error.code == rusqlite::ErrorCode::Unknown =>
        {
            return Err(Problem::NotOurs("it has no 'version' table".to_owned()));
        }
        Err(rusqlite::Error::SqlInputError { .. }) => {
            return Err(Problem::NotOurs("it has no 'version' table".to_owned()));
        }
        Err(rusqlite::Error::QueryReturnedNoRows) => {
            return Err(Problem::NotOurs("its 'version' table is empty".to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    let newest = kind.versions.len();
    let version = usize::try_from(found)
        .ok()
        .filter(|version| (1..=newest).contains(version))
        .ok_or(Problem::UnknownVersion { found, newest })?;
    for probe in kind.versions[..version].iter().flat_map(|version| version.probes) {
        if let Err(error) = connection.prepare(probe) {
            return Err(Problem::NotOurs(error.to_string()));
        }
    }
    Ok(version)
}

/// Copies the file as it is now. Takes the connection, because opening and closing the file beside
/// it would drop the connection's locks.
fn back_up(connection: Connection, path: &Path, version: usize) -> Result<PathBuf, Problem> {
    // What a crash left in the log belongs into the copy. A no-op outside WAL mode.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)?;
    let backup = beside(path, &format!("-backup-v{version}"));
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
) -> Result<(), Problem> {
    for Version { upgrade, .. } in &kind.versions[from..to] {
        transaction.execute_batch(upgrade)?;
    }
    transaction.execute("DELETE FROM version", [])?;
    transaction.execute("INSERT INTO version (version) VALUES (?1)", [to as i64])?;
    Ok(())
}

/// The path with something appended to its file name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes a new name in the file's directory survive power loss.
fn sync_directory(path: &Path) -> Result<(), Problem> {
    let directory =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(File::open(directory)?.sync_all()?)
}

/// For files whose last second may be lost: commits do not wait for the disk.
pub(super) fn write_without_waiting(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    // Whoever has it locked is not waited for either: the records can wait, clients cannot.
    connection.busy_timeout(Duration::ZERO)?;
    // They are only appended to: a page or two of each table is all there is to keep.
    connection.pragma_update(None, "cache_size", -RECORDS_CACHE_KIB)?;
    connection.pragma_update(None, "synchronous", "normal")
}

/// An open file that cannot be set up for writing.
pub(super) fn refuse(path: &Path, kind: &Kind, error: rusqlite::Error) -> OpenError {
    OpenError::new(path, kind, error.into())
}
