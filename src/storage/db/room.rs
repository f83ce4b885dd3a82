//! Room on the disk. What a batch adds to the write-ahead log must fit into the file afterwards:
//! otherwise the log would take the file's room, could neither be copied nor begun anew, and the
//! storage would fail until other files are deleted, although the server's own take the space.

use std::fs;
use std::io::{Error, ErrorKind};
use std::path::Path;

use rusqlite::Connection;
use rustix::process::Resource;

use super::open_error::OpenErrorKind;
use super::wal_file;

/// Sizes of a file and of its log, in pages.
struct Needs {
    page_bytes: u64,
    file_pages: u64,
    log_pages: u32,
}

impl Needs {
    /// What there will be once `more` pages, which may all be new ones of the file, have brought
    /// the log to `log_pages`, and these are in the file.
    fn read(connection: &Connection, log_pages: u32, more: u32) -> rusqlite::Result<Needs> {
        let read = |name: &str| {
            connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0))
        };
        let number = |name: &str| read(name).map(i64::cast_unsigned);
        let new_pages = u64::from(more).saturating_sub(number("freelist_count")?);
        Ok(Needs {
            page_bytes: number("page_size")?,
            file_pages: number("page_count")?.saturating_add(new_pages),
            log_pages,
        })
    }

    fn file_bytes(&self) -> u64 {
        self.file_pages.saturating_mul(self.page_bytes)
    }

    fn log_bytes(&self) -> u64 {
        wal_file::bytes(self.log_pages, self.page_bytes)
    }
}

/// Fails if the disk has no room for the growth of a log from `now` pages to `then` and for all of
/// it in the file, or less than `spare` bytes would be left.
pub(super) fn check(
    connection: &Connection,
    (file, log): (&Path, &Path),
    (now, then): (u32, u32),
    spare: u64,
) -> Result<(), OpenErrorKind> {
    let needs = Needs::read(connection, then, then - now)?;
    let growth = |path: &Path, bytes: u64| {
        bytes.saturating_sub(fs::metadata(path).map_or(0, |metadata| metadata.len()))
    };
    let file_growth = growth(file, needs.file_bytes());
    let both_grow = file_growth + growth(log, needs.log_bytes());
    if both_grow == 0 {
        return Ok(());
    }
    let size = needs.file_bytes().saturating_add(spare).max(needs.log_bytes());
    let size_max = rustix::process::getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX);
    if file_growth > 0 && size > size_max {
        return Err(Error::from(ErrorKind::FileTooLarge).into());
    }
    // Where it cannot be known the write shows it.
    let Ok(status) = rustix::fs::statvfs(file) else { return Ok(()) };
    let free = status.f_bavail.saturating_mul(status.f_frsize);
    if both_grow.saturating_add(spare) > free {
        return Err(Error::from(ErrorKind::StorageFull).into());
    }
    Ok(())
}
