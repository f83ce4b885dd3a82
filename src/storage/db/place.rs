//! Whether an open file is still the one at its path, and the lock that keeps a second server off
//! it (manual: files 1.2).

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::earlier_locks::EarlierLocks;
use super::journal::Journal;
use super::names::with_suffix;
use super::open_error::OpenErrorKind;
use super::overwriting::Watch;
use crate::sys::identity::{self, FileId};

/// Attempts to lock a file that another process replaces again and again.
const LOCK_ATTEMPTS: usize = 10;

/// Mode bits by which others than the owner can open a file, and then lock it.
const OTHERS: u32 = 0o066;

/// An open file, and the path where it was.
#[derive(Clone, Debug)]
pub(super) struct PlacedFile {
    path: PathBuf,
    file: Rc<File>,
    id: FileId,
}

impl PlacedFile {
    fn open(path: PathBuf) -> io::Result<PlacedFile> {
        let file = File::open(&path)?;
        PlacedFile::at(path, file)
    }

    fn at(path: PathBuf, file: File) -> io::Result<PlacedFile> {
        let (id, _) = identity::of(&file)?;
        Ok(PlacedFile { path, file: Rc::new(file), id })
    }

    fn is(&self, there: FileId) -> bool {
        // Some file systems change the number of an inode while it is open.
        there == self.id || identity::of(&self.file).is_ok_and(|(now, _)| there == now)
    }

    /// The length in bytes, if the name is the file's, and not that of a link to it.
    fn len_by_name(&self, name: &Path) -> Option<u64> {
        identity::of_name(name).ok().filter(|(there, _)| self.is(*there)).map(|(_, bytes)| bytes)
    }

    /// The length in bytes of what is at the path, if it is this file.
    fn len_at_path(&self) -> Result<u64, OpenErrorKind> {
        match identity::at_path(&self.path) {
            Ok((there, len)) if self.is(there) => Ok(len),
            Ok(_) => Err(OpenErrorKind::Replaced),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(OpenErrorKind::Missing),
            Err(error) => Err(error.into()),
        }
    }
}

/// Where an open database is.
#[derive(Debug)]
pub(super) struct Place {
    /// The locked file. Must be dropped after the connection: closing it drops SQLite's locks with
    /// it.
    guard: PlacedFile,
    changes: Changes,
}

/// Where SQLite puts changes.
#[derive(Debug)]
enum Changes {
    Log(Box<Log>),
    /// Into the file, by a rollback journal that comes and goes.
    File,
    /// Nowhere: it has closed the file.
    Closed,
}

/// A write-ahead log, and what it shows of what others do.
#[derive(Debug)]
struct Log {
    file: PlacedFile,
    /// The name of the database that it is beside. Where a link leads to a database, SQLite looks
    /// for the log beside that, not beside the link.
    beside: PathBuf,
    watch: Watch,
}

impl Log {
    fn of(database: &PlacedFile) -> io::Result<Log> {
        // SQLite puts what belongs to a file beside the file itself, not beside a link to it.
        let beside = fs::canonicalize(&database.path)?;
        let watch = Watch::new(&database.file, &with_suffix(&beside, "-shm"))?;
        let file = PlacedFile::open(with_suffix(&beside, "-wal"))?;
        Ok(Log { file, beside, watch })
    }
}

impl Place {
    /// The place of a file that SQLite has just opened.
    pub(super) fn new(guard: PlacedFile, journal: Journal) -> io::Result<Place> {
        let changes = match journal {
            Journal::Wal => Changes::Log(Box::new(Log::of(&guard)?)),
            Journal::Truncate => Changes::File,
        };
        Ok(Place { guard, changes })
    }

    /// The path of the write-ahead log, where there is one.
    pub(super) fn log_path(&self) -> Option<&Path> {
        self.log().map(|log| &*log.file.path)
    }

    fn log(&self) -> Option<&Log> {
        if let Changes::Log(log) = &self.changes { Some(log) } else { None }
    }

    /// As [`Place::check`], and fails if the log is not what was written to it.
    pub(super) fn check_all(&self) -> Result<(), OpenErrorKind> {
        self.check_log()?;
        self.check()
    }

    /// Fails unless the path still leads to the file and the log that are open, and no other
    /// program has written over the file. What is written to others is lost.
    pub(super) fn check(&self) -> Result<(), OpenErrorKind> {
        // Without a link at the path, that is the file's name, and one look is enough.
        let by_name = self.guard.len_by_name(&self.guard.path);
        let bytes = by_name.map_or_else(|| self.guard.len_at_path(), Ok)?;
        if self.is_overwritten_with(bytes)? {
            return Err(OpenErrorKind::Replaced);
        }
        let log = match &self.changes {
            Changes::Log(log) => log,
            Changes::File => return Ok(()),
            Changes::Closed => return Err(OpenErrorKind::LogLost),
        };
        match log.file.len_at_path() {
            // The database may have got another name, and a link leads to it.
            Ok(_) if by_name.is_some() || self.guard.len_by_name(&log.beside).is_some() => Ok(()),
            Ok(_) | Err(OpenErrorKind::Missing | OpenErrorKind::Replaced) => {
                Err(OpenErrorKind::LogLost)
            }
            Err(error) => Err(error),
        }
    }

    /// Fails if the log is not what was written to it: what is added to it would be lost.
    pub(super) fn check_log(&self) -> Result<(), OpenErrorKind> {
        let Some(log) = self.log() else { return Ok(()) };
        match log.watch.is_log_overwritten(&log.file.file) {
            Ok(true) => Err(OpenErrorKind::LogOverwritten),
            Ok(false) => Ok(()),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(OpenErrorKind::IndexCut),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the file that is open has other contents than were written to it.
    pub(super) fn is_overwritten(&self) -> io::Result<bool> {
        self.is_overwritten_with(identity::of(&self.guard.file)?.1)
    }

    /// The same, if its length is known.
    fn is_overwritten_with(&self, bytes: u64) -> io::Result<bool> {
        match self.log() {
            Some(log) => log.watch.is_overwritten(&self.guard.file, bytes),
            // An open database has pages: an empty file was emptied by another program.
            None => Ok(bytes == 0),
        }
    }

    /// To be called when SQLite has closed the file, which must then be opened again.
    /// `removes_log`: the log at the path, if it is the one that was open, must not be played into
    /// another file.
    pub(super) fn set_closed(&mut self, removes_log: bool) -> io::Result<()> {
        // The index is closed before SQLite has locks on it again.
        match std::mem::replace(&mut self.changes, Changes::Closed) {
            Changes::Log(log) if removes_log && log.file.len_at_path().is_ok() => {
                fs::remove_file(&log.file.path)
            }
            _ => Ok(()),
        }
    }

    /// The locked file.
    pub(super) fn lock(&self) -> &File {
        &self.guard.file
    }

    /// The lock, if the file at the path is the one that it is on.
    pub(super) fn lock_to_keep(&self) -> Option<PlacedFile> {
        Some(&self.guard).filter(|guard| guard.len_at_path().is_ok()).cloned()
    }
}

/// A locked file.
#[derive(Debug)]
pub(super) struct Lock {
    pub file: PlacedFile,
    /// An earlier process has the lock, and goes on.
    pub is_left: bool,
    /// What is wrong with the lock: for the log, when all files are known to be in order.
    pub warning: Option<String>,
}

/// Locks the file that is at `path` now. A lock that has been handed over is kept; one of a process
/// that goes on is left to it.
pub(super) fn lock(path: &Path, earlier: &mut EarlierLocks) -> Result<Lock, OpenErrorKind> {
    for _ in 0..LOCK_ATTEMPTS {
        let file = earlier.take(path).map_or_else(|| File::open(path), Ok)?;
        let placed = PlacedFile::at(path.to_owned(), file)?;
        let (mut is_left, mut failed) = (false, None);
        match placed.file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) if earlier.hold(placed.id) => is_left = true,
            Err(fs::TryLockError::WouldBlock) => return Err(OpenErrorKind::InUse),
            Err(fs::TryLockError::Error(error)) => failed = Some(error),
        }
        match placed.len_at_path() {
            Err(OpenErrorKind::Replaced | OpenErrorKind::Missing) => continue,
            outcome => outcome?,
        };
        let mode = placed.file.metadata()?.permissions().mode() & 0o777;
        let name = path.display();
        let warning = match failed {
            Some(error) => Some(format!(
                "{name}: the file system has no locks ({error}), nothing keeps a second server \
                 off the file"
            )),
            None if mode & OTHERS != 0 => Some(format!(
                "{name}: with mode {mode:o} other users can lock the file and hold this server \
                 up; chmod 600 prevents it"
            )),
            None => None,
        };
        return Ok(Lock { file: placed, is_left, warning });
    }
    Err(OpenErrorKind::InUse)
}
