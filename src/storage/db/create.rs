//! Makes files: new databases, backups, and scratch files that try a directory (manual: files 1.1).
//!
//! A name is taken only if nothing has it, symbolic links included, so nothing is followed or
//! overwritten. New files are for their owner alone, whatever the umask.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Seek};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};

use super::journal::{self, Journal};
use super::names::{self, SUFFIXES, directory, with_suffix};
use super::open_error::OpenErrorKind;
use super::schema::Kind;
use super::{run, set};
use crate::limits::DATABASE_RESERVE_BYTES;

/// Mode of new files: the Python server's are of this mode, too.
const PRIVATE: u32 = 0o600;

/// Bytes of a page in files that are made here. A message dirties a few pages, each of which
/// goes to the log in whole: SQLite's own 4096 more than doubles the bytes of an exchange, and
/// saves no time.
const PAGE_BYTES: i64 = 1024;

/// Bytes of a page in scratch databases: with the least that SQLite allows, the file and its log
/// fit into the space that was just tried.
const SCRATCH_PAGE_BYTES: i64 = 512;

/// Names that are tried for a new file. When all are taken, that is no accident.
const NAMES_MAX: usize = 1_000;

/// Makes new and removed names in the file's directory survive power loss, as far as that can be
/// asked for: a directory may not be readable, and some file systems sync none. SQLite does
/// without, too.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    match File::open(directory(path)).and_then(|directory| directory.sync_all()) {
        Err(error)
            if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidInput) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// Creates a file. Fails if something has that name.
fn create_new(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path)?;
    set_mode(&file, PRIVATE); // gives back bits that the umask has taken
    Ok(file)
}

/// If it fails, the file has fewer bits, or modes are not the file system's own (FAT, some network
/// file systems).
fn set_mode(file: &File, mode: u32) {
    _ = file.set_permissions(Permissions::from_mode(mode));
}

/// Tries names until one is free.
fn first_free<T>(
    names: &mut dyn Iterator<Item = PathBuf>,
    try_name: impl Fn(&Path) -> io::Result<T>,
) -> io::Result<(PathBuf, T)> {
    for path in names.take(NAMES_MAX) {
        match try_name(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            outcome => return outcome.map(|it| (path, it)),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// A file beside `path` under a name of its own, which goes when this is dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn create(path: &Path) -> io::Result<(Temporary, File)> {
        let process = std::process::id();
        let stem = names::shortened(path);
        let mut names = (0..).map(|n: usize| with_suffix(&stem, &format!(".new-{process}-{n}")));
        let (path, file) = first_free(&mut names, create_new)?;
        Ok((Temporary(path), file))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.0);
        for suffix in SUFFIXES {
            _ = fs::remove_file(with_suffix(&self.0, suffix));
        }
    }
}

/// A directory in which a file can be opened.
#[derive(Debug)]
pub(super) struct Trial {
    /// The journal that works there.
    pub journal: Journal,
    /// Takes the space that opening the file needs, so that others do not count on it as well. A
    /// file without a name, which goes when this process ends.
    space: File,
}

impl Trial {
    /// Takes more space.
    pub(super) fn take(&mut self, bytes: u64) -> io::Result<()> {
        fill(&mut self.space, bytes)
    }

    /// Frees the space.
    pub(super) fn end(self) -> Journal {
        self.journal
    }
}

/// Tries the directory of `path`: whether files can be made in it, whether the disk has room, and
/// which journal works there.
pub(super) fn try_directory(path: &Path) -> Result<Trial, OpenErrorKind> {
    let (scratch, mut space) = Temporary::create(path)
        .map_err(|error| OpenErrorKind::directory(directory(path), error))?;
    fill(&mut space, DATABASE_RESERVE_BYTES)?;
    space.set_len(0)?;
    space.rewind()?;
    let journal = match try_wal(&scratch.0) {
        Ok(()) => Journal::Wal,
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
            return Err(error.into());
        }
        Err(_) => Journal::Truncate,
    };
    fill(&mut space, DATABASE_RESERVE_BYTES)?;
    Ok(Trial { journal, space })
}

/// Whether the disk has room for another piece of the log's index. The index is mapped into
/// memory, where a page without a block on the disk ends the process (SIGBUS).
pub(super) fn has_reserve(path: &Path) -> io::Result<()> {
    let (_scratch, mut file) = Temporary::create(path)?;
    fill(&mut file, DATABASE_RESERVE_BYTES)
}

/// Writes zeros. Not as one slice: they would be part of the program.
fn fill(file: &mut File, bytes: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(bytes), file).map(drop)
}

/// Only an attempt shows whether there is shared memory.
fn try_wal(scratch: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open_with_flags(scratch, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    set(&connection, "synchronous", &"off")?;
    set(&connection, "page_size", &SCRATCH_PAGE_BYTES)?;
    journal::set_mode(&connection, Journal::Wal.mode())?;
    connection.execute_batch("CREATE TABLE scratch (n)")
}

/// Makes a database at `path`, whole or, where that is impossible, empty. If another process is
/// first, its file is left.
pub(super) fn create(path: &Path, kind: &Kind, version: usize) -> Result<(), OpenErrorKind> {
    // SQLite would play the journals of an earlier file into a new one, but discards them beside
    // one that is empty.
    let has_leftovers =
        SUFFIXES.iter().any(|suffix| with_suffix(path, suffix).symlink_metadata().is_ok());
    if has_leftovers || !create_whole(path, kind, version)? {
        match create_new(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {} // filled in place, by the server that gets the lock
        }
    }
    Ok(sync_directory(path)?)
}

/// Makes the database under a temporary name and moves it into place. Returns whether the file
/// system can do so without replacing what may be there.
fn create_whole(path: &Path, kind: &Kind, version: usize) -> Result<bool, OpenErrorKind> {
    let (temporary, _) = Temporary::create(path)
        .map_err(|error| OpenErrorKind::directory(directory(path), error))?;
    let mut connection =
        Connection::open_with_flags(&temporary.0, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // No other process knows the file: it needs no journal, whose name could be predicted.
    journal::set_mode(&connection, "memory")?;
    initialise(&mut connection, kind, version)?;
    connection.close().map_err(|(_, error)| error)?;
    match place(&temporary.0, path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Ok(false),
        _ => Ok(true),
    }
}

/// Names a file `path`. Fails if something has that name, or the file system cannot tell.
fn place(temporary: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(temporary, path) {
        // FAT, for one, has no hard links.
        Err(error) if error.kind() != ErrorKind::AlreadyExists => rename_new(temporary, path),
        outcome => outcome,
    }
}

/// The same where the file system cannot tell, too: an empty file takes the name first.
fn place_anywhere(temporary: &Path, path: &Path) -> io::Result<()> {
    match place(temporary, path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            create_new(path)?;
            fs::rename(temporary, path)
        }
        outcome => outcome,
    }
}

/// Renames a file if nothing has the new name.
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn rename_new(_from: &Path, _to: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Makes the tables in an empty database.
pub(super) fn initialise(
    connection: &mut Connection,
    kind: &Kind,
    version: usize,
) -> rusqlite::Result<()> {
    set(connection, "page_size", &PAGE_BYTES)?;
    upgrade(connection, kind, 0, version)
}

/// Brings a database to a later version, in one transaction.
pub(super) fn upgrade(
    connection: &mut Connection,
    kind: &Kind,
    from: usize,
    to: usize,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for statements in &kind.versions[from..to] {
        transaction.execute_batch(statements)?;
    }
    run(&transaction, "DELETE FROM version", &[])?;
    run(&transaction, "INSERT INTO version (version) VALUES (?1)", params![to as i64])?;
    transaction.commit()
}

/// Copies a database to `<name>-backup-v<version>`, with `.2`, `.3` and so on appended if that
/// exists. The copy has the file's mode. `connection`: if some of it is only in the log; otherwise
/// SQLite must not have the file open.
pub(super) fn back_up(
    connection: Option<&Connection>,
    path: &Path,
    version: usize,
) -> Result<PathBuf, OpenErrorKind> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    // Under its name it is whole, whenever this process is killed.
    let (temporary, mut file) = Temporary::create(path)
        .map_err(|error| OpenErrorKind::directory(directory(path), error))?;
    match connection {
        None => io::copy(&mut File::open(path)?, &mut file).map(drop)?,
        Some(it) => it.execute("VACUUM INTO ?1", [temporary.0.to_string_lossy()]).map(drop)?,
    }
    set_mode(&file, mode);
    file.sync_all()?;
    let mut names = names::backups(path, version);
    let (backup, ()) = first_free(&mut names, |name| place_anywhere(&temporary.0, name))?;
    sync_directory(&backup)?;
    Ok(backup)
}
