//! The locks of the process that this one replaces, or would replace: they are not in its way
//! (manual: files 1.2, reloading 5).

use std::fmt::Write;
use std::fs::File;
use std::io;
use std::path::Path;

use crate::sys::identity::{self, FileId};

/// The locks of an earlier process.
#[derive(Debug)]
pub enum EarlierLocks {
    /// They have been handed over.
    HandedOver(Vec<File>),
    /// The process goes on, and holds the locks of these files.
    Held(Vec<FileId>),
    /// The process goes on, and has not said which it holds, as earlier versions do not.
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
        if files.is_empty() { EarlierLocks::Unknown } else { EarlierLocks::Held(files) }
    }

    /// The locked file that is at the path, if it has been handed over.
    pub(super) fn take(&mut self, path: &Path) -> Option<File> {
        let EarlierLocks::HandedOver(files) = self else { return None };
        let (there, _) = identity::at_path(path).ok()?;
        let is_it = |file: &mut File| identity::of(file).is_ok_and(|(id, _)| id == there);
        files.extract_if(.., is_it).next()
    }

    /// Whether the process that goes on holds the lock of a file that is locked.
    pub(super) fn hold(&self, file: FileId) -> bool {
        match self {
            EarlierLocks::HandedOver(_) => false,
            EarlierLocks::Held(files) => files.contains(&file),
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
        assert!(locks.hold(id) && !locks.hold((id.0, id.1 + 1)), "{locks:?}");
        assert!(EarlierLocks::described("127.0.0.1:4000\n").hold(id), "an earlier version");
        assert!(!EarlierLocks::none().hold(id));
    }
}
