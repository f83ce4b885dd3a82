//! Whether an open database is still the one at its path, with its log beside it (manual:
//! durability 3).

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::journal::Journal;
use super::open_error::OpenErrorKind;
use super::wal_file::WalFile;
use crate::sys::identity::{self, FileId};

/// An open file, and the path where it was.
#[derive(Clone, Debug)]
pub(super) struct PlacedFile {
    pub path: PathBuf,
    pub file: Rc<File>,
    pub id: FileId,
}

impl PlacedFile {
    pub(super) fn open(path: PathBuf) -> io::Result<PlacedFile> {
        let file = File::open(&path)?;
        PlacedFile::at(path, file)
    }

    pub(super) fn at(path: PathBuf, file: File) -> io::Result<PlacedFile> {
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
    pub(super) fn len_at_path(&self) -> Result<u64, OpenErrorKind> {
        match identity::at_path(&self.path) {
            Ok((there, len)) if self.is(there) => Ok(len),
            Ok(_) => Err(OpenErrorKind::Replaced),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(OpenErrorKind::Missing),
            Err(error) => Err(error.into()),
        }
    }
}

/// What becomes of the log that was open, if it is still at its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OldLog {
    Keep,
    /// It must not be played into another file.
    Remove,
}

/// Where an open database is.
#[derive(Debug)]
pub(super) struct Place {
    /// The locked file. Must be dropped after the connection: closing it drops SQLite's locks with
    /// it.
    guard: PlacedFile,
    journalling: Journalling,
}

/// How changes get into the file.
#[derive(Debug)]
enum Journalling {
    WriteAhead(Box<WalFile>),
    /// By a rollback journal, which comes and goes.
    Rollback,
    /// Not at all: SQLite has closed the file.
    Closed,
}

impl Place {
    /// The place of a file that SQLite has just opened.
    pub(super) fn new(guard: PlacedFile, journal: Journal) -> io::Result<Place> {
        let journalling = match journal {
            Journal::Wal => Journalling::WriteAhead(Box::new(WalFile::of(&guard)?)),
            Journal::Truncate => Journalling::Rollback,
        };
        Ok(Place { guard, journalling })
    }

    /// The path of the write-ahead log, where there is one.
    pub(super) fn log_path(&self) -> Option<&Path> {
        self.wal().map(|wal| &*wal.log.path)
    }

    fn wal(&self) -> Option<&WalFile> {
        if let Journalling::WriteAhead(wal) = &self.journalling { Some(wal) } else { None }
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
        let wal = match &self.journalling {
            Journalling::WriteAhead(wal) => wal,
            Journalling::Rollback => return Ok(()),
            Journalling::Closed => return Err(OpenErrorKind::LogLost),
        };
        match wal.log.len_at_path() {
            // The database may have got another name, and a link leads to it.
            Ok(_) if by_name.is_some() || self.guard.len_by_name(&wal.beside).is_some() => Ok(()),
            Ok(_) | Err(OpenErrorKind::Missing | OpenErrorKind::Replaced) => {
                Err(OpenErrorKind::LogLost)
            }
            Err(error) => Err(error),
        }
    }

    /// Fails if the log is not what was written to it: what is added to it would be lost.
    pub(super) fn check_log(&self) -> Result<(), OpenErrorKind> {
        match self.wal().map_or(Ok(false), WalFile::is_log_overwritten) {
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
        match self.wal() {
            Some(wal) => wal.is_database_overwritten(&self.guard.file, bytes),
            // An open database has pages: an empty file was emptied by another program.
            None => Ok(bytes == 0),
        }
    }

    /// To be called when SQLite has closed the file, which must then be opened again.
    pub(super) fn set_closed(&mut self, old_log: OldLog) -> io::Result<()> {
        // The index is closed before SQLite has locks on it again.
        match std::mem::replace(&mut self.journalling, Journalling::Closed) {
            Journalling::WriteAhead(wal)
                if old_log == OldLog::Remove && wal.log.len_at_path().is_ok() =>
            {
                fs::remove_file(&wal.log.path)
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
