//! The write-ahead log of an open database, and what it shows of other programs: whether one has
//! written over the database or the log where they are. `cp` onto an open file leaves its name and
//! its inode as they were.
//!
//! SQLite writes to the database only by a checkpoint, which it notes beforehand in the shared
//! index of the log (<https://sqlite.org/walformat.html>, 2.1). So a database whose length or
//! header has changed without a checkpoint was written by another program. So was a log that is
//! shorter than the index says, or was begun with other numbers.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::header::{self, HEADER_BYTES};
use super::names::with_suffix;
use super::place::PlacedFile;
use crate::sys::identity;

/// Bytes of a log's header, and of that of each page in it.
const LOG_HEADER_BYTES: u64 = 32;
const FRAME_HEADER_BYTES: u64 = 24;

/// Bytes of a log with that many pages of that size.
pub(super) fn bytes(pages: u32, page_bytes: u64) -> u64 {
    let frame_bytes = FRAME_HEADER_BYTES.saturating_add(page_bytes);
    u64::from(pages).saturating_mul(frame_bytes).saturating_add(LOG_HEADER_BYTES)
}

/// Where the header of a log has its salts, in bytes.
const LOG_SALTS_AT: u64 = 16;

/// Where the index of a log has the number of its pages (`mxFrame`), its salts (`aSalt`), and how
/// far checkpoints have come (`nBackfill`, `nBackfillAttempted`), counted in numbers of 4 bytes.
const PAGES_AT: usize = 4;
const SALTS_AT: usize = 8;
const COPIED_AT: usize = 24;
const ATTEMPTED_AT: usize = 32;

/// What a database shows of its contents.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Contents {
    bytes: u64,
    /// Has the size of its pages, their number and that of its schema.
    header: [u8; HEADER_BYTES],
}

impl Contents {
    fn of(database: &File, bytes: u64) -> io::Result<Contents> {
        let mut header = [0; HEADER_BYTES];
        if bytes >= HEADER_BYTES as u64 {
            database.read_exact_at(&mut header, 0)?;
        }
        Ok(Contents { bytes, header })
    }
}

/// What the index of a log says.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Index {
    /// Pages in the log.
    pages: u32,
    checkpoints: Checkpoints,
}

/// How far checkpoints have come.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Checkpoints {
    /// Numbers in the header of the log that they copy, which change when it is begun anew.
    salts: [u32; 2],
    /// Pages of the log that are in the database, and that will be when the checkpoint in progress
    /// ends.
    copied: u32,
    attempted: u32,
}

impl Index {
    fn read(file: &File) -> io::Result<Index> {
        let numbers: [u32; ATTEMPTED_AT + 1] = numbers(file, 0)?;
        let salts = [numbers[SALTS_AT], numbers[SALTS_AT + 1]];
        let (copied, attempted) = (numbers[COPIED_AT], numbers[ATTEMPTED_AT]);
        let checkpoints = Checkpoints { salts, copied, attempted };
        Ok(Index { pages: numbers[PAGES_AT], checkpoints })
    }
}

/// Reads numbers in the byte order of this machine.
fn numbers<const COUNT: usize>(file: &File, offset: u64) -> io::Result<[u32; COUNT]> {
    let mut bytes = [[0; 4]; COUNT];
    file.read_exact_at(bytes.as_flattened_mut(), offset)?;
    Ok(bytes.map(u32::from_ne_bytes))
}

/// A write-ahead log that SQLite has open.
#[derive(Debug)]
pub(super) struct WalFile {
    pub log: PlacedFile,
    /// The name of the database that it is beside. Where a link leads to a database, SQLite looks
    /// for the log beside that, not beside the link.
    pub beside: PathBuf,
    /// The shared index of the log. Must be closed only when SQLite has closed it: closing it drops
    /// SQLite's locks with it.
    index: File,
    page_bytes: u64,
    /// The database, as it was last seen.
    seen: Cell<(Checkpoints, Contents)>,
}

impl WalFile {
    /// The log of a database that SQLite has read.
    pub(super) fn of(database: &PlacedFile) -> io::Result<WalFile> {
        let beside = fs::canonicalize(&database.path)?;
        let index = File::open(with_suffix(&beside, "-shm"))?;
        let log = PlacedFile::open(with_suffix(&beside, "-wal"))?;
        let (_, bytes) = identity::of(&database.file)?;
        let checkpoints = Index::read(&index)?.checkpoints;
        let contents = Contents::of(&database.file, bytes)?;
        let page_bytes = header::page_bytes(&contents.header);
        Ok(WalFile { log, beside, index, page_bytes, seen: Cell::new((checkpoints, contents)) })
    }

    /// Whether the database has other contents than SQLite has given it. `bytes`: its length.
    pub(super) fn is_database_overwritten(&self, database: &File, bytes: u64) -> io::Result<bool> {
        let (before, known) = self.seen.get();
        // In this order: the contents are then not older than what is said of checkpoints.
        let checkpoints = Index::read(&self.index)?.checkpoints;
        let contents = Contents::of(database, bytes)?;
        if contents != known {
            let after = Index::read(&self.index)?.checkpoints;
            let in_progress = before.copied < before.attempted || after.copied < after.attempted;
            if after == before && !in_progress {
                return Ok(true);
            }
        }
        self.seen.set((checkpoints, contents));
        Ok(false)
    }

    /// Whether the log is shorter than its index says, or another.
    pub(super) fn is_log_overwritten(&self) -> io::Result<bool> {
        // In this order: pages are written before the index, and a log that is begun anew or
        // emptied by its rules is so after the index.
        let known = Index::read(&self.index)?;
        if known.pages == 0 {
            return Ok(false);
        }
        let needed = bytes(known.pages, self.page_bytes);
        let log = &self.log.file;
        let is_whole = identity::of(log)?.1 >= needed
            && numbers(log, LOG_SALTS_AT)? == known.checkpoints.salts;
        Ok(!is_whole && Index::read(&self.index)? == known)
    }
}
