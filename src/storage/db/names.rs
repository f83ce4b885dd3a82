//! The names of files: of what belongs to a database and is beside it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What SQLite may put beside a database.
pub(super) const SUFFIXES: [&str; 3] = ["-journal", "-wal", "-shm"];

/// Bytes of a database's name that scratch files beside it have in theirs: most file systems allow
/// 255, of which `.new-PID-N` and what SQLite appends take up to 30.
const SCRATCH_STEM_BYTES_MAX: usize = 200;

/// What follows a database's name in the names of copies of older versions.
const BACKUP: &str = "-backup-v";

/// The path with a suffix appended to its file name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The path with its file name cut, if that leaves no room for the suffixes of scratch files.
pub(super) fn shortened(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let mut end = name.len().min(SCRATCH_STEM_BYTES_MAX);
    // Some file systems want whole characters.
    while end > 0 && name.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
        end -= 1;
    }
    path.with_file_name(OsStr::from_bytes(&name[..end]))
}

/// The directory that a file is in.
pub(super) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether a path has, or may get, the name of what belongs to a database of that name: what SQLite
/// puts beside it, and a copy of an older version. The directory is not looked at.
pub fn is_named_after(path: &Path, database: &Path) -> bool {
    let names = (path.file_name(), database.file_name());
    let (Some(name), Some(database)) = names else { return false };
    let suffix = name.as_bytes().strip_prefix(database.as_bytes());
    let suffix = suffix.and_then(|suffix| str::from_utf8(suffix).ok());
    suffix.is_some_and(|suffix| SUFFIXES.contains(&suffix) || is_backup(suffix))
}

/// The names for a copy of a database of that version, in the order in which they are tried.
pub(super) fn backups(path: &Path, version: usize) -> impl Iterator<Item = PathBuf> {
    let first = with_suffix(path, &format!("{BACKUP}{version}"));
    let further = with_suffix(&first, ".");
    std::iter::once(first).chain((2..).map(move |n| with_suffix(&further, &n.to_string())))
}

/// Whether [`backups`] appends this to a name.
fn is_backup(suffix: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    suffix.strip_prefix(BACKUP).is_some_and(|numbers| match numbers.split_once('.') {
        Some((version, number)) => is_number(version) && is_number(number),
        None => is_number(numbers),
    })
}
