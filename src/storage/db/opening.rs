//! Opens a database file in two steps (manual: files 1): `examine` changes nothing, so that a start
//! looks at all files before it touches one; `Examined::open` creates or upgrades the file and sets
//! its journal.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Error, ErrorCode, OpenFlags};

use super::create::{self, Trial};
use super::file::DatabaseFile;
use super::header;
use super::journal::{self, Journal};
use super::lock::{self, EarlierLocks, Lock};
use super::names::{SUFFIXES, directory, with_suffix};
use super::open_error::{NO_DATABASE, OpenError, OpenErrorKind};
use super::place::{Place, PlacedFile};
use super::schema::{Kind, Model};
use super::set;
use crate::limits::{DATABASE_BUSY, DATABASE_OPEN_BUSY, LOG_BYTES_KEPT};
use crate::sys::logging::warn;

/// The path of a database in memory, which keeps nothing.
pub const MEMORY: &str = ":memory:";

/// A file that can be opened. Nothing has been changed yet.
#[derive(Debug)]
pub struct Examined {
    pub(super) target: Target,
    pub(super) found: Found,
}

/// Which file is wanted.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub path: PathBuf,
    pub kind: &'static Kind,
    pub model: Rc<Model>,
    /// A new file gets this version, an older one is upgraded to it.
    pub version: usize,
    /// How long a lock of another process is waited for.
    pub busy: Duration,
}

/// What is at the path. A file is locked.
#[derive(Debug)]
pub(super) enum Found {
    /// It is a database in memory.
    Memory,
    Nothing(Trial),
    File {
        trial: Trial,
        lock: Lock,
        /// Unknown where SQLite would have to change the file to read it, or would be in the way.
        version: Option<usize>,
    },
}

impl Examined {
    /// Examines a file, which will have at least that version.
    pub(super) fn new(
        path: &Path,
        kind: &'static Kind,
        version: usize,
        earlier: &mut EarlierLocks,
    ) -> Result<Examined, OpenError> {
        let model = kind.model().map_err(|error| OpenError::new(path, kind, error))?;
        let (path, model) = (path.to_owned(), Rc::new(model));
        let target = Target { path, kind, model, version, busy: DATABASE_OPEN_BUSY };
        let found = if target.path == Path::new(MEMORY) {
            Found::Memory
        } else {
            target.find(None, earlier).map_err(|error| target.error(error))?
        };
        Ok(Examined { target, found })
    }

    /// Creates the file or upgrades it if need be, and sets its journal.
    pub(super) fn open(self) -> Result<DatabaseFile, OpenError> {
        let Examined { target, found } = self;
        let opened = match found {
            Found::Memory => target.open_memory(),
            Found::Nothing(trial) => target.create(trial.end()),
            Found::File { trial, lock, version } => {
                target.open(trial.end(), lock, version, "opened")
            }
        };
        opened.map_err(|error| target.error(error))
    }
}

const CREATED: &str = "created";

impl Target {
    pub(super) fn error(&self, kind: impl Into<OpenErrorKind>) -> OpenError {
        OpenError::new(&self.path, self.kind, kind)
    }

    /// `lock`: that of the file, if this process has it already. `earlier`: those of an earlier
    /// process.
    pub(super) fn find(
        &self,
        lock: Option<PlacedFile>,
        earlier: &mut EarlierLocks,
    ) -> Result<Found, OpenErrorKind> {
        let path = &*self.path;
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => self.find_file(lock, earlier),
            Ok(metadata) if metadata.is_dir() => {
                Err(io::Error::from(ErrorKind::IsADirectory).into())
            }
            Ok(_) => Err(OpenErrorKind::NotOurs("not a regular file".to_owned())),
            Err(error) if path.is_symlink() => match error.kind() {
                ErrorKind::NotFound => Err(OpenErrorKind::DanglingLink),
                _ => Err(error.into()),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Logs of an earlier file may be left.
                check_writable(path)?;
                create::try_directory(path).map(Found::Nothing)
            }
            Err(error) => Err(OpenErrorKind::directory(directory(path), error)),
        }
    }

    fn find_file(
        &self,
        lock: Option<PlacedFile>,
        earlier: &mut EarlierLocks,
    ) -> Result<Found, OpenErrorKind> {
        // SQLite puts what belongs to the file beside the file itself, not beside a link to it.
        let real = fs::canonicalize(&self.path)?;
        check_writable(&real)?;
        let lock = match lock {
            Some(file) => Lock { file, is_left: false, warning: None },
            None => lock::lock(&self.path, earlier)?,
        };
        let mut trial = create::try_directory(&real)?;
        if !header::is_sqlite(&real)? {
            // SQLite would delete a log or journal beside some of these before it said so.
            return Err(OpenErrorKind::NotOurs(NO_DATABASE.to_owned()));
        }
        let bytes = fs::metadata(&real)?.len();
        let has_rollback_journal =
            fs::metadata(with_suffix(&real, "-journal")).is_ok_and(|it| it.len() > 0);
        // Without a log, reading would keep a server that goes on from committing.
        let is_in_the_way = lock.is_left && trial.journal != Journal::Wal;
        let version = if bytes == 0 || has_rollback_journal || is_in_the_way {
            // Reading would roll the file back, or discard what is left of an earlier one.
            None
        } else {
            Some(self.look(&real, trial.journal)?)
        };
        if version.is_some_and(|version| version < self.version) {
            trial.take(bytes)?; // for the copy
        }
        Ok(Found::File { trial, lock, version })
    }

    /// Checks a file and returns its version, without changing anything.
    fn look(&self, path: &Path, journal: Journal) -> Result<usize, OpenErrorKind> {
        // Without shared memory at first, so that nothing is made beside the file. That is
        // impossible only while another process has it open, and all is there.
        match self.look_in_mode(path, journal, "exclusive", Duration::ZERO) {
            Err(OpenErrorKind::Sqlite(error))
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) =>
            {
                self.look_in_mode(path, journal, "normal", self.busy)
            }
            outcome => outcome,
        }
    }

    fn look_in_mode(
        &self,
        path: &Path,
        journal: Journal,
        locking: &str,
        busy: Duration,
    ) -> Result<usize, OpenErrorKind> {
        let connection = connect_to_look(path, locking, busy)?;
        let version = checked_version(&connection, self.kind, &self.model, self.version)?;
        if journal == Journal::Wal && journal::mode(&connection)? != journal.mode() {
            // To change the mode, it must be possible to have the file alone.
            connection.execute_batch("BEGIN EXCLUSIVE; ROLLBACK")?;
        }
        Ok(version)
    }

    fn open_memory(&self) -> Result<DatabaseFile, OpenErrorKind> {
        let mut connection = Connection::open_in_memory()?;
        create::initialise(&mut connection, self.kind, self.version)?;
        let (version, history) = (self.version, CREATED.to_owned());
        Ok(DatabaseFile::new(connection, None, self.clone(), version, history)?)
    }

    fn create(&self, journal: Journal) -> Result<DatabaseFile, OpenErrorKind> {
        create::create(&self.path, self.kind, self.version)?;
        // Another server may have been faster: nothing is known of the file.
        self.open(journal, lock::lock(&self.path, &mut EarlierLocks::none())?, None, CREATED)
    }

    /// Opens a file that is there; `version`: if it is known.
    fn open(
        &self,
        journal: Journal,
        lock: Lock,
        version: Option<usize>,
        history: &str,
    ) -> Result<DatabaseFile, OpenErrorKind> {
        if let Some(warning) = lock.warning {
            warn!("{warning}");
        }
        let Target { path, kind, model, version: wanted, busy } = self;
        let mut history = history.to_owned();
        let mut connection = connect(path, journal.locking(), *busy)?;
        let mut version = match version {
            Some(version) => version,
            None if pages(&connection)? == 0 => {
                create::initialise(&mut connection, kind, *wanted)?;
                history = CREATED.to_owned();
                *wanted
            }
            None => checked_version(&connection, kind, model, *wanted)?,
        };
        if version < *wanted {
            let backup;
            (connection, backup) = self.back_up(connection, journal, version)?;
            create::upgrade(&mut connection, kind, version, *wanted)?;
            version = *wanted;
            history = format!("upgraded, the old file is kept as {}", backup.display());
        }
        let mode = journal::mode(&connection)?;
        // A clone, because closing the file would drop SQLite's locks.
        match self.begin_journal(&connection, journal, lock.file.clone()) {
            Ok(place) => {
                Ok(DatabaseFile::new(connection, Some(place), self.clone(), version, history)?)
            }
            Err(error) => {
                _ = journal::set_mode(&connection, &mode);
                Err(error)
            }
        }
    }

    fn begin_journal(
        &self,
        connection: &Connection,
        journal: Journal,
        file: PlacedFile,
    ) -> Result<Place, OpenErrorKind> {
        set_journal(connection, journal, &self.path)?;
        // A rollback journal that comes back after a power loss would undo all that follows.
        create::sync_directory(&fs::canonicalize(&self.path)?)?;
        Ok(Place::new(file, journal)?)
    }

    /// Copies an open file; returns the connection to go on with, and where the copy is.
    fn back_up(
        &self,
        connection: Connection,
        journal: Journal,
        version: usize,
    ) -> Result<(Connection, PathBuf), OpenErrorKind> {
        if !journal::checkpoint(&connection)? {
            // A reader keeps some of it in the log.
            let backup = create::back_up(Some(&connection), &self.path, version)?;
            return Ok((connection, backup));
        }
        // Reading the file for the copy would drop the connection's locks.
        connection.close().map_err(|(_, error)| error)?;
        let backup = create::back_up(None, &self.path, version)?;
        Ok((connect(&self.path, journal.locking(), self.busy)?, backup))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name, self.path.display())
    }
}

/// Whether a database and what is beside it can be written.
fn check_writable(path: &Path) -> Result<(), OpenErrorKind> {
    check_names_beside(path)?;
    for suffix in SUFFIXES.into_iter().chain([""]) {
        // These are closed before SQLite has locks on them, which closing them would drop.
        let opened = OpenOptions::new().read(true).write(true).open(with_suffix(path, suffix));
        match opened.and_then(|file| file.metadata()) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => {
                let error = io::Error::other("it is not a regular file");
                return Err(OpenErrorKind::NotWritable(suffix, error));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(OpenErrorKind::NotWritable(suffix, error)),
        }
    }
    Ok(())
}

/// Fails if what is beside a database is a link, which SQLite does not open, or cannot be, since
/// its name would be too long. SQLite does not say why.
pub(super) fn check_names_beside(path: &Path) -> Result<(), OpenErrorKind> {
    for suffix in SUFFIXES {
        let error = match with_suffix(path, suffix).symlink_metadata() {
            Ok(metadata) if metadata.is_symlink() => {
                io::Error::other("it is a symbolic link, which SQLite does not follow")
            }
            Err(error) if error.kind() == ErrorKind::InvalidFilename => error,
            _ => continue,
        };
        return Err(OpenErrorKind::NotWritable(suffix, error));
    }
    Ok(())
}

fn set_journal(connection: &Connection, journal: Journal, path: &Path) -> rusqlite::Result<()> {
    journal::set_mode(connection, journal.mode())?;
    if journal == Journal::Truncate {
        set(connection, "locking_mode", &"normal")?;
        warn!(
            "{}: the file system has no shared memory, so changes go through a rollback journal, \
             which is slower",
            path.display()
        );
    }
    set(connection, "journal_size_limit", &LOG_BYTES_KEPT)?;
    // Opens the log, or gives up the exclusive lock.
    pages(connection)?;
    connection.busy_timeout(DATABASE_BUSY)
}

fn connect(path: &Path, locking: &str, busy: Duration) -> Result<Connection, OpenErrorKind> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(busy)?;
    set(&connection, "foreign_keys", &true)?;
    set(&connection, "locking_mode", &locking)?;
    Ok(connection)
}

/// Opens a file that is not to be changed: closing it does not copy the log into it. With the
/// locking mode `exclusive`, nothing is made beside it.
pub(super) fn connect_to_look(
    path: &Path,
    locking: &str,
    busy: Duration,
) -> Result<Connection, OpenErrorKind> {
    let has_log = with_suffix(path, "-wal").try_exists()?;
    let connection = connect(path, locking, busy)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_log)?;
    Ok(connection)
}

/// Pages in the file, after what a crash left unfinished is rolled back.
fn pages(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA page_count", [], |row| row.get(0))
}

/// Returns the file's version, once its kind and its foreign keys are checked.
/// `wanted`: the version to which it may be upgraded.
pub(super) fn checked_version(
    connection: &Connection,
    kind: &Kind,
    model: &Model,
    wanted: usize,
) -> Result<usize, OpenErrorKind> {
    let version = version(connection, kind, model)?;
    for later in version + 1..=wanted {
        // An upgrade would fail at them, at each start after one more copy.
        if model.probes(later).any(|probe| connection.prepare(&probe).is_ok()) {
            let why =
                format!("it has tables of a later version than {version}, which it says it is");
            return Err(OpenErrorKind::NotOurs(why));
        }
    }
    for each in 1..=version {
        for change in model.changes(each) {
            match connection.prepare(&change) {
                Err(error) if is_unknown_name(&error) => {
                    return Err(OpenErrorKind::Unsupported(error));
                }
                prepared => drop(prepared?),
            }
        }
    }
    let mut dangling = connection.prepare("PRAGMA foreign_key_check")?;
    if let Some(row) = dangling.query([])?.next()? {
        return Err(OpenErrorKind::DanglingRows(row.get(0)?));
    }
    for table in kind.examined {
        // Without `main` it opens a database for temporary tables, and each commit begins in that,
        // too.
        let sql = format!("PRAGMA main.quick_check({table})");
        let found: String = connection.query_row(&sql, [], |row| row.get(0))?;
        if found != "ok" {
            return Err(OpenErrorKind::Damaged(found));
        }
    }
    // The load would find what is wrong further back only after the upgrade.
    let rows = if version < wanted { usize::MAX } else { 1 };
    look_into(connection, kind, rows)?;
    Ok(version)
}

/// Reads that number of rows, at most, of each table that is not examined.
pub(super) fn look_into(connection: &Connection, kind: &Kind, rows: usize) -> rusqlite::Result<()> {
    for table in kind.looked_into {
        let mut select = connection.prepare(&format!("SELECT * FROM {table} NOT INDEXED"))?;
        let (mut found, mut left) = (select.query([])?, rows);
        while left > 0 && found.next()?.is_some() {
            left -= 1;
        }
    }
    Ok(())
}

/// Whether a statement names what this file or this SQLite does not have.
fn is_unknown_name(error: &Error) -> bool {
    match error {
        Error::SqliteFailure(error, _) | Error::SqlInputError { error, .. } => {
            error.code == ErrorCode::Unknown
        }
        _ => false,
    }
}

/// Returns the file's version, once it is clear that the file is of that kind.
pub(super) fn version(
    connection: &Connection,
    kind: &Kind,
    model: &Model,
) -> Result<usize, OpenErrorKind> {
    let found = connection.query_row("SELECT quote(version) FROM version", [], |row| row.get(0));
    let found: String = match found {
        Ok(version) => version,
        Err(Error::QueryReturnedNoRows) => {
            return Err(OpenErrorKind::NotOurs("its 'version' table is empty".to_owned()));
        }
        Err(error) if is_unknown_name(&error) => {
            return Err(OpenErrorKind::NotOurs("it has no 'version' table".to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    let newest = kind.newest();
    let version = found.parse().ok().filter(|version| (1..=newest).contains(version));
    let version = version.ok_or(OpenErrorKind::UnknownVersion { found, newest })?;
    for each in 1..=version {
        for probe in model.probes(each) {
            if let Err(error) = connection.prepare(&probe) {
                return Err(OpenErrorKind::NotOurs(error.to_string()));
            }
        }
    }
    Ok(version)
}
