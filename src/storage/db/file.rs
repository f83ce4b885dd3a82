//! Opens a database file in two steps (manual: files 1): `examine` changes nothing, so that a start
//! looks at all files before it touches one; `Examined::open` creates or upgrades the file and sets
//! its journal.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use log::warn;
use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, Error, ErrorCode, OpenFlags};

use super::create::{self, Journal, SUFFIXES, with_suffix};
use super::open_error::{OpenError, OpenErrorKind};
use super::place::{self, Lock, Place};
use super::schema::Kind;
use crate::limits::{DATABASE_BUSY, DATABASE_OPEN_BUSY, LOG_BYTES_KEPT};

/// The path of a database in memory, which keeps nothing.
pub const MEMORY: &str = ":memory:";

/// Frames of the write-ahead log whose index is one piece of shared memory, and by how many the
/// first piece has fewer, because of its header.
const INDEX_FRAMES: u32 = 4_096;
const INDEX_FRAMES_LESS: u32 = 34;

/// A file that can be opened. Nothing has been changed yet.
#[derive(Debug)]
pub struct Examined {
    target: Target,
    found: Found,
}

/// Which file is wanted.
#[derive(Debug)]
struct Target {
    path: PathBuf,
    kind: &'static Kind,
    /// The version of a new file.
    create: usize,
    /// An older file is upgraded to this version.
    at_least: usize,
    /// How long a lock of another process is waited for.
    busy: Duration,
}

/// What is at the path. A file is locked.
#[derive(Debug)]
enum Found {
    /// It is a database in memory.
    Memory,
    Nothing(Journal),
    /// A database of that version; unknown where SQLite would have to change the file to read it.
    File(Journal, Lock, Option<usize>),
}

/// An open file.
#[derive(Debug)]
pub(super) struct Opened {
    pub connection: Connection,
    pub place: Place,
    pub version: usize,
    /// What opening did to the file, for the log.
    pub history: String,
}

/// Examines a file. A new one will get version `create`, an existing one is brought to at least
/// `at_least`.
pub(super) fn examine(
    path: &Path,
    kind: &'static Kind,
    create: usize,
    at_least: usize,
) -> Result<Examined, OpenError> {
    let (path, create) = (path.to_owned(), create.max(at_least));
    let target = Target { path, kind, create, at_least, busy: DATABASE_OPEN_BUSY };
    let found =
        if target.path == Path::new(MEMORY) { Ok(Found::Memory) } else { target.find(None) };
    match found {
        Ok(found) => Ok(Examined { target, found }),
        Err(error) => Err(target.error(error)),
    }
}

impl Examined {
    /// Creates the file or upgrades it if need be, and sets its journal.
    pub(super) fn open(self) -> Result<Opened, OpenError> {
        let Examined { target, found } = self;
        let opened = match found {
            Found::Memory => target.open_memory(),
            Found::Nothing(journal) => target.create(journal),
            Found::File(journal, lock, version) => target.open(journal, lock, version, "opened"),
        };
        opened.map_err(|error| target.error(error))
    }
}

const CREATED: &str = "created";

impl Target {
    fn error(&self, kind: OpenErrorKind) -> OpenError {
        OpenError::new(&self.path, self.kind, kind)
    }

    /// `lock`: that of the file, if this process has it already.
    fn find(&self, lock: Option<Rc<File>>) -> Result<Found, OpenErrorKind> {
        let path = &*self.path;
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(io::Error::from(ErrorKind::IsADirectory).into());
            }
            Ok(metadata) if !metadata.is_file() => {
                return Err(OpenErrorKind::NotOurs("not a regular file".to_owned()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if path.is_symlink() {
                    return Err(OpenErrorKind::DanglingLink);
                }
                return create::try_directory(path).map(Found::Nothing);
            }
            Err(error) => return Err(OpenErrorKind::directory(create::directory(path), error)),
        }
        // SQLite puts what belongs to the file beside the file itself, not beside a link to it.
        let real = fs::canonicalize(path)?;
        for suffix in SUFFIXES.into_iter().chain([""]) {
            // These are closed before SQLite has locks on them, which closing them would drop.
            match OpenOptions::new().read(true).write(true).open(with_suffix(&real, suffix)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(OpenErrorKind::NotWritable(suffix, error));
                }
                _ => {}
            }
        }
        let lock = match lock {
            Some(lock) => (lock, None),
            None => place::lock(path)?,
        };
        let journal = create::try_directory(&real)?;
        let is_empty = fs::metadata(&real)?.len() == 0;
        let has_rollback_journal =
            fs::metadata(with_suffix(&real, "-journal")).is_ok_and(|it| it.len() > 0);
        let version = match is_empty || has_rollback_journal {
            // Reading would roll the file back, or discard what is left of an earlier one.
            true => None,
            false => Some(self.look(&real)?),
        };
        Ok(Found::File(journal, lock, version))
    }

    /// Checks a file and returns its version, without changing anything.
    fn look(&self, path: &Path) -> Result<usize, OpenErrorKind> {
        // Without shared memory at first, so that nothing is made beside the file. That is
        // impossible only while another process has it open, and all is there.
        match look_in_mode(path, self.kind, "exclusive", Duration::ZERO) {
            Err(OpenErrorKind::Sqlite(error))
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) =>
            {
                look_in_mode(path, self.kind, "normal", self.busy)
            }
            outcome => outcome,
        }
    }

    fn open_memory(&self) -> Result<Opened, OpenErrorKind> {
        let mut connection = Connection::open_in_memory()?;
        create::initialise(&mut connection, self.kind, self.create)?;
        let (version, history) = (self.create, CREATED.to_owned());
        Ok(Opened { connection, place: Place::in_memory(), version, history })
    }

    fn create(&self, journal: Journal) -> Result<Opened, OpenErrorKind> {
        create::create(&self.path, self.kind, self.create)?;
        // Another server may have been faster: nothing is known of the file.
        self.open(journal, place::lock(&self.path)?, None, CREATED)
    }

    /// Opens a file that is there; `version`: if it is known.
    fn open(
        &self,
        journal: Journal,
        (lock, warning): Lock,
        version: Option<usize>,
        history: &str,
    ) -> Result<Opened, OpenErrorKind> {
        if let Some(warning) = warning {
            warn!("{warning}");
        }
        let Target { path, kind, create, at_least, busy } = self;
        let mut history = history.to_owned();
        let mut connection = connect_for(path, journal, *busy)?;
        let mut version = match version {
            Some(version) => version,
            None if pages(&connection)? == 0 => {
                create::initialise(&mut connection, kind, *create)?;
                history = CREATED.to_owned();
                *create
            }
            None => check(&connection, kind)?,
        };
        if version < *at_least {
            // The copy needs what a crash left in the log. A no-op outside WAL mode.
            checkpoint(&connection, "TRUNCATE")?;
            // Reading the file for the copy would drop the connection's locks.
            connection.close().map_err(|(_, error)| error)?;
            let backup = create::back_up(path, version)?;
            connection = connect_for(path, journal, *busy)?;
            create::upgrade(&mut connection, kind, version, *at_least)?;
            version = *at_least;
            history = format!("upgraded, the old file is kept as {}", backup.display());
        }
        set_journal(&connection, journal, path)?;
        // A rollback journal that comes back after a power loss would undo all that follows.
        create::sync_directory(&fs::canonicalize(path)?)?;
        let place = Place::new(path, lock, journal == Journal::Wal)?;
        Ok(Opened { connection, place, version, history })
    }
}

fn look_in_mode(
    path: &Path,
    kind: &Kind,
    locking: &str,
    busy: Duration,
) -> Result<usize, OpenErrorKind> {
    let has_log = with_suffix(path, "-wal").try_exists()?;
    let connection = connect(path, busy)?;
    connection.pragma_update(None, "locking_mode", locking)?;
    // Closing it must not copy the log into the file.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_log)?;
    check(&connection, kind)
}

fn set_journal(connection: &Connection, journal: Journal, path: &Path) -> rusqlite::Result<()> {
    create::set_journal_mode(connection, journal.mode())?;
    if journal == Journal::Truncate {
        connection.pragma_update(None, "locking_mode", "normal")?;
        warn!(
            "{}: the file system has no shared memory, so changes go through a rollback journal, \
             which is slower",
            path.display()
        );
    }
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT as i64)?;
    // Opens the log, or gives up the exclusive lock.
    pages(connection)?;
    connection.busy_timeout(DATABASE_BUSY)
}

fn connect(path: &Path, busy: Duration) -> Result<Connection, OpenErrorKind> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(busy)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

fn connect_for(path: &Path, journal: Journal, busy: Duration) -> Result<Connection, OpenErrorKind> {
    let connection = connect(path, busy)?;
    if journal == Journal::Truncate {
        // A file in WAL mode can then be read without shared memory.
        connection.pragma_update(None, "locking_mode", "exclusive")?;
    }
    Ok(connection)
}

/// Pages in the file, after what a crash left unfinished is rolled back.
fn pages(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA page_count", [], |row| row.get(0))
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
        Err(Error::QueryReturnedNoRows) => {
            return Err(OpenErrorKind::NotOurs("its 'version' table is empty".to_owned()));
        }
        Err(Error::SqliteFailure(error, _) | Error::SqlInputError { error, .. })
            if error.code == ErrorCode::Unknown =>
        {
            return Err(OpenErrorKind::NotOurs("it has no 'version' table".to_owned()));
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

/// Opens the file at the path again if it is another than the one that is open, or has another
/// log. Returns none if all is in place. A file that is missing is not created.
pub(super) fn reopen_if_moved(
    connection: &mut Connection,
    place: &mut Place,
    kind: &'static Kind,
    at_least: usize,
) -> Result<Option<Opened>, OpenError> {
    let path = place.path().to_owned();
    // The loop stands still meanwhile.
    let target = Target { path, kind, create: at_least, at_least, busy: DATABASE_BUSY };
    let moved = match place.check_all() {
        Ok(()) => return Ok(None),
        Err(moved) => moved,
    };
    match leave(connection, place, moved).and_then(|()| target.find(place.lock_to_keep())) {
        Ok(Found::Nothing(_)) => Err(target.error(OpenErrorKind::Missing)),
        Ok(found) => Examined { target, found }.open().map(Some),
        Err(error) => Err(target.error(error)),
    }
}

/// Closes a file that is not at its path any more, so that nothing of it gets into another.
fn leave(
    connection: &mut Connection,
    place: &mut Place,
    moved: OpenErrorKind,
) -> Result<(), OpenErrorKind> {
    match moved {
        // What was committed to the log goes into the file, wherever that is now.
        OpenErrorKind::LogLost => copy_log(connection)?,
        OpenErrorKind::Replaced if place.is_overwritten()? => {}
        OpenErrorKind::Replaced => _ = copy_log(connection),
        OpenErrorKind::LogOverwritten | OpenErrorKind::IndexCut => {}
        moved => return Err(moved),
    }
    let is_log_spoiled = matches!(moved, OpenErrorKind::Replaced | OpenErrorKind::LogOverwritten);
    // Closing must remove no log that belongs to the other file.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // A connection to nothing, on which all fails until the file is opened.
    drop(std::mem::replace(connection, Connection::open_in_memory()?));
    place.set_closed();
    if is_log_spoiled {
        place.remove_log()?;
    }
    Ok(())
}

/// Copies the write-ahead log into the file; fails if a reader keeps a part of it from that.
fn copy_log(connection: &Connection) -> rusqlite::Result<()> {
    match checkpoint(connection, "PASSIVE")? {
        true => Ok(()),
        false => {
            Err(Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None))
        }
    }
}

/// Runs a checkpoint; returns whether all of the log is in the file now.
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<bool> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        let (busy, logged, copied): (bool, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(!busy && logged == copied)
    })
}

/// Closes a file, in the journal mode that the Python server uses.
pub(super) fn close(connection: Connection, place: Place, kind: &Kind) -> Result<(), OpenError> {
    let path = place.path().to_owned();
    let close = || {
        if place.is_on_disk() {
            if let Err(moved) = place.check_all() {
                // The log at the path belongs to another file.
                connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
                return Err(moved);
            }
            connection.busy_timeout(DATABASE_BUSY)?;
            match create::set_journal_mode(&connection, "delete") {
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                    checkpoint(&connection, "TRUNCATE")?;
                    warn!(
                        "{}: another process has the file open, so it stays in WAL mode",
                        path.display()
                    );
                }
                outcome => outcome?,
            }
        }
        Ok(connection.close().map_err(|(_, error)| error)?)
    };
    close().map_err(|error| OpenError::new(&path, kind, error))
}

/// The number of pages (frames) in a write-ahead log, as SQLite reports it after each commit.
#[derive(Debug, Default)]
pub(super) struct LogPages(Arc<AtomicU32>);

impl LogPages {
    /// Begins to count, and replaces SQLite's own checkpoints.
    pub(super) fn count(connection: &mut Connection) -> rusqlite::Result<LogPages> {
        let pages = LogPages::default();
        let counter = Arc::clone(&pages.0);
        connection.wal_hook(Some(move |_: &mut Wal, pages| {
            counter.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(pages)
    }

    pub(super) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Makes sure that the log is whole, and that the disk has room for its index if `more` pages
    /// make it grow by a piece. SQLite maps it into memory, where a missing block ends the process.
    pub(super) fn reserve(&self, more: usize, place: &Place) -> Result<(), OpenErrorKind> {
        let piece = |pages: u32| pages.saturating_add(INDEX_FRAMES_LESS) / INDEX_FRAMES;
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        if let Some(log) = place.log()
            && piece(self.get()) != piece(self.get().saturating_add(more))
        {
            create::has_reserve(log)?;
        }
        place.check_log()
    }
}
