//! Whether an open file is still the one at its path, and the lock that keeps a second server off
//! it (manual: files 1.2).

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::create::with_suffix;
use super::open_error::OpenErrorKind;
use super::overwriting::Watch;
use crate::sys::identity::{self, FileId};

/// Attempts to lock a file that another process replaces again and again.
const LOCK_ATTEMPTS: usize = 10;

/// Mode bits by which others than the owner can open a file, and then lock it.
const OTHERS: u32 = 0o066;

/// An open file and the path where it was.
#[derive(Debug)]
struct Held {
    path: PathBuf,
    file: Rc<File>,
    id: FileId,
}

impl Held {
    fn new(path: PathBuf, file: Rc<File>) -> io::Result<Held> {
        let (id, _) = identity::of(&file)?;
        Ok(Held { path, file, id })
    }

    /// The length in bytes of what is at the path, if it is this file.
    fn len_at_path(&self) -> Result<u64, OpenErrorKind> {
        match identity::at_path(&self.path) {
            // Some file systems change the number of an inode while it is open.
            Ok((there, len)) if there == self.id || there == identity::of(&self.file)?.0 => Ok(len),
            Ok(_) => Err(OpenErrorKind::Replaced),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(OpenErrorKind::Missing),
            Err(error) => Err(error.into()),
        }
    }
}

/// Where an open database is.
#[derive(Debug)]
pub(super) struct Place {
    /// As the operator has given it.
    path: PathBuf,
    /// The locked file; none for a database in memory. Must be dropped after the connection:
    /// closing it drops SQLite's locks with it.
    guard: Option<Held>,
    /// The write-ahead log, where there is one.
    log: Option<Held>,
    /// What a write-ahead log shows of what others do; none once SQLite has closed the file.
    watch: Option<Watch>,
    /// Whether SQLite has closed the file.
    is_closed: bool,
}

impl Place {
    pub(super) fn in_memory() -> Place {
        Place { path: PathBuf::new(), guard: None, log: None, watch: None, is_closed: false }
    }

    /// The place of a file that SQLite has just opened.
    pub(super) fn new(path: &Path, guard: Rc<File>, has_log: bool) -> io::Result<Place> {
        let (path, mut place) = (path.to_owned(), Place::in_memory());
        if has_log {
            let (log, index) = (beside(&path, "-wal")?, beside(&path, "-shm")?);
            place.watch = Some(Watch::new(&guard, &index)?);
            let file = Rc::new(File::open(&log)?);
            place.log = Some(Held::new(log, file)?);
        }
        place.guard = Some(Held::new(path.clone(), guard)?);
        Ok(Place { path, ..place })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_on_disk(&self) -> bool {
        self.guard.is_some()
    }

    /// The path of the write-ahead log, where there is one.
    pub(super) fn log(&self) -> Option<&Path> {
        self.log.as_ref().map(|log| &*log.path)
    }

    /// As [`Place::check`], and fails if the log is not what was written to it.
    pub(super) fn check_all(&self) -> Result<(), OpenErrorKind> {
        self.check_log()?;
        self.check()
    }

    /// Whether the path still leads to the file and the log that are open, and no other program has
    /// written over the file. What is written to others is lost.
    pub(super) fn check(&self) -> Result<(), OpenErrorKind> {
        let Some(guard) = &self.guard else { return Ok(()) };
        let bytes = guard.len_at_path()?;
        if self.is_overwritten_with(bytes)? {
            return Err(OpenErrorKind::Replaced);
        }
        let has_lost_log = match self.log.as_ref().map(Held::len_at_path) {
            None | Some(Ok(_)) => false,
            Some(Err(OpenErrorKind::Missing | OpenErrorKind::Replaced)) => true,
            Some(Err(error)) => return Err(error),
        };
        if has_lost_log || self.is_closed { Err(OpenErrorKind::LogLost) } else { Ok(()) }
    }

    /// Fails if the log is not what was written to it: what is added to it would be lost.
    pub(super) fn check_log(&self) -> Result<(), OpenErrorKind> {
        match (&self.watch, &self.log) {
            (Some(watch), Some(log)) => match watch.is_log_overwritten(&log.file) {
                Ok(true) => Err(OpenErrorKind::LogOverwritten),
                Ok(false) => Ok(()),
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    Err(OpenErrorKind::IndexCut)
                }
                Err(error) => Err(error.into()),
            },
            _ => Ok(()),
        }
    }

    /// Whether the file that is open has other contents than were written to it.
    pub(super) fn is_overwritten(&self) -> io::Result<bool> {
        match &self.guard {
            Some(guard) => self.is_overwritten_with(identity::of(&guard.file)?.1),
            None => Ok(false),
        }
    }

    /// The same, if its length is known.
    fn is_overwritten_with(&self, bytes: u64) -> io::Result<bool> {
        match (&self.guard, &self.watch) {
            (Some(guard), Some(watch)) => watch.is_overwritten(&guard.file, bytes),
            // An open database has pages: an empty file was emptied by another program.
            _ => Ok(bytes == 0),
        }
    }

    /// Removes the log if it is the one that was open: it must not be played into another file.
    pub(super) fn remove_log(&self) -> io::Result<()> {
        match &self.log {
            Some(log) if log.len_at_path().is_ok() => fs::remove_file(&log.path),
            _ => Ok(()),
        }
    }

    /// To be called when SQLite has closed the file, which must then be opened again.
    pub(super) fn set_closed(&mut self) {
        self.watch = None; // before SQLite has locks on it again
        self.is_closed = true;
    }

    /// The lock, if the file at the path is the one that it is on.
    pub(super) fn lock_to_keep(&self) -> Option<Rc<File>> {
        let guard = self.guard.as_ref().filter(|guard| guard.len_at_path().is_ok())?;
        Some(Rc::clone(&guard.file))
    }
}

/// SQLite puts what belongs to a file beside the file itself, not beside a link to it.
fn beside(path: &Path, suffix: &str) -> io::Result<PathBuf> {
    Ok(with_suffix(&fs::canonicalize(path)?, suffix))
}

/// A lock, and what is wrong with it: a warning for when all files are known to be in order.
pub(super) type Lock = (Rc<File>, Option<String>);

/// Locks the file that is at `path` now.
pub(super) fn lock(path: &Path) -> Result<Lock, OpenErrorKind> {
    for _ in 0..LOCK_ATTEMPTS {
        let file = File::open(path)?;
        let failed = match file.try_lock() {
            Ok(()) => None,
            Err(fs::TryLockError::WouldBlock) => return Err(OpenErrorKind::InUse),
            Err(fs::TryLockError::Error(error)) => Some(error),
        };
        if !is_at(path, &file)? {
            continue;
        }
        let mode = file.metadata()?.permissions().mode() & 0o777;
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
        return Ok((Rc::new(file), warning));
    }
    Err(OpenErrorKind::InUse)
}

/// Whether an open file is the one at `path`.
fn is_at(path: &Path, file: &File) -> io::Result<bool> {
    match identity::at_path(path) {
        Ok((there, _)) => Ok(there == identity::of(file)?.0),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
