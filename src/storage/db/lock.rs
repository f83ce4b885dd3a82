//! The lock that keeps a second server off a file (manual: files 1.2). Those of the process that
//! this one replaces, or would replace, are not in its way (manual: reloading 5).

use std::fmt::Write;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::open_error::OpenErrorKind;
use super::place::PlacedFile;
use crate::sys::identity::{self, FileId};

/// Attempts to lock a file that another process replaces again and again.
const ATTEMPTS: usize = 10;

/// Mode bits by which others than the owner can open a file, and then lock it.
const OTHERS: u32 = 0o066;

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
    for _ in 0..ATTEMPTS {
        let file = earlier.take(path).map_or_else(|| File::open(path), Ok)?;
        let placed = PlacedFile::at(path.to_owned(), file)?;
        let (mut is_left, mut failed) = (false, None);
        match placed.file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if earlier.includes(placed.id) => is_left = true,
            Err(TryLockError::WouldBlock) => return Err(OpenErrorKind::InUse),
            Err(TryLockError::Error(error)) => failed = Some(error),
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

/// The locks of an earlier process.
#[derive(Debug)]
pub enum EarlierLocks {
    /// They have been handed over.
    HandedOver(Vec<File>),
    /// The process goes on, and keeps those of these files.
    Kept(Vec<FileId>),
    /// The process goes on, and has not said which it keeps, as earlier versions do not.
    Unknown,
}

/// Begins a line that names a locked file, by its device and inode.
const LOCK: &str = "lock:";

/// Describes locks for a program that checks itself, a line each.
pub fn describe_locks<'a>(files: impl Iterator<Item = &'a File>) -> io::Result<String> {
    let mut lines = String::new();
    for file in files {
        let ((device, inode), _) = identity::of(file)?;
        _ = writeln!(lines, "{LOCK}{device}:{inode}");
    }
    Ok(lines)
}

impl EarlierLocks {
    pub fn none() -> EarlierLocks {
        EarlierLocks::HandedOver(Vec::new())
    }

    /// Those of the process that has made this list, among lines of other kinds.
    pub fn described(list: &str) -> EarlierLocks {
        let file = |line: &str| {
            let (device, inode) = line.strip_prefix(LOCK)?.split_once(':')?;
            Some((device.parse().ok()?, inode.parse().ok()?))
        };
        let files: Vec<_> = list.lines().filter_map(file).collect();
        if files.is_empty() { EarlierLocks::Unknown } else { EarlierLocks::Kept(files) }
    }

    /// The locked file that is at the path, if it has been handed over.
    pub(super) fn take(&mut self, path: &Path) -> Option<File> {
        let EarlierLocks::HandedOver(files) = self else { return None };
        let (there, _) = identity::at_path(path).ok()?;
        let is_it = |file: &mut File| identity::of(file).is_ok_and(|(id, _)| id == there);
        files.extract_if(.., is_it).next()
    }

    /// Whether a file that is locked is so by the process that goes on.
    fn includes(&self, file: FileId) -> bool {
        match self {
            EarlierLocks::HandedOver(_) => false,
            EarlierLocks::Kept(files) => files.contains(&file),
            EarlierLocks::Unknown => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_knows_the_locks_of_the_one_that_it_is_to_replace() {
        let path = std::env::current_exe().expect("a path");
        let file = File::open(&path).expect("a file");
        let (id, _) = identity::of(&file).expect("an id");
        let lines = describe_locks([&file].into_iter()).expect("a line");
        let locks = EarlierLocks::described(&format!("127.0.0.1:4000\n{lines}systemd:0:x\n"));
        assert!(locks.includes(id) && !locks.includes((id.0, id.1 + 1)), "{locks:?}");
        assert!(EarlierLocks::described("127.0.0.1:4000\n").includes(id), "an earlier version");
        assert!(!EarlierLocks::none().includes(id));
    }
}
