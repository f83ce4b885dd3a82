//! How files of SQLite begin (sqlite.org/fileformat.html, 1.3), for what must be known before
//! SQLite sees them, or without it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::names::with_suffix;

/// Bytes of a database's header.
pub(super) const HEADER_BYTES: usize = 100;

/// How a database begins, and a rollback journal that is to be played back (section 3).
const DATABASE: &[u8] = b"SQLite format 3\0";
const JOURNAL: &[u8] = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7";

/// Where the header has the size of a page, and the version that a reader must know, which is that
/// of the WAL mode.
const PAGE_BYTES_AT: usize = 16;
const READ_VERSION_AT: usize = 19;
const READ_VERSION_OF_WAL: u8 = 2;

/// The first bytes of a file, [`HEADER_BYTES`] if it has as many.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(HEADER_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether a file is empty or begins as SQLite's do. A blank beginning is what SQLite had not
/// written yet at a crash, if there is a journal to undo that.
pub(super) fn is_sqlite(path: &Path) -> io::Result<bool> {
    let header = read(path)?;
    Ok(match header.len() {
        0 => true,
        HEADER_BYTES if header.starts_with(DATABASE) => true,
        HEADER_BYTES if header.iter().all(|byte| *byte == 0) => {
            read(&with_suffix(path, "-journal")).is_ok_and(|journal| journal.starts_with(JOURNAL))
        }
        _ => false,
    })
}

/// Whether the database is in WAL mode.
pub(super) fn is_in_wal_mode(header: &[u8]) -> bool {
    header.get(READ_VERSION_AT) == Some(&READ_VERSION_OF_WAL)
}

/// Bytes of a page.
pub(super) fn page_bytes(header: &[u8; HEADER_BYTES]) -> u64 {
    match u16::from_be_bytes([header[PAGE_BYTES_AT], header[PAGE_BYTES_AT + 1]]) {
        1 => 65_536, // which two bytes cannot hold
        bytes => bytes.into(),
    }
}
