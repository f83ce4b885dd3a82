//! Whether another program has written over a database in WAL mode, or its log, where they are:
//! `cp` onto an open file leaves its name and its inode as they were.
//!
//! SQLite writes to the database only by a checkpoint, which it notes beforehand in the shared
//! index of the log (<https://sqlite.org/walformat.html>, 2.1). So a database whose length or
//! header has changed without a checkpoint was written by another program. So was a log that is
//! shorter than the index says, or was begun with other numbers.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::sys::identity;

/// Bytes of a database's header, which has its page size, its length and the number of its schema.
const HEADER_BYTES: usize = 100;

/// Bytes of a log's header, and of that of each page in it.
const LOG_HEADER_BYTES: u64 = 32;
const FRAME_HEADER_BYTES: u64 = 24;

/// Offsets in the index of a log: the number of its pages (`mxFrame`), its salts (`aSalt`), and,
/// 64 and 96 bytes after these, how far checkpoints have come (`nBackfill`, `nBackfillAttempted`).
const PAGES_AT: u64 = 16;
const SALTS_AT: u64 = 32;

/// What a database shows of its contents.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Contents {
    bytes: u64,
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

/// What the index says of the log.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Log {
    pages: u32,
    /// Numbers in the log's header, which change when it is begun anew.
    salts: [u32; 2],
}

/// How far checkpoints have come, by the index.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Checkpoints {
    /// The log that they copy.
    salts: [u32; 2],
    /// Pages of the log that are in the database, and that will be when the checkpoint in progress
    /// ends.
    done: u32,
    attempted: u32,
}

/// The shared index of a log. Its file must be closed only when SQLite has closed it: closing it
/// drops SQLite's locks with it.
#[derive(Debug)]
struct Index(File);

impl Index {
    fn log(&self) -> io::Result<Log> {
        let [pages, _, _, _, a, b] = words(&self.0, PAGES_AT)?; // `aSalt` is 16 bytes further
        Ok(Log { pages, salts: [a, b] })
    }

    fn checkpoints(&self) -> io::Result<Checkpoints> {
        let numbers: [u32; 25] = words(&self.0, SALTS_AT)?;
        let (salts, done, attempted) = ([numbers[0], numbers[1]], numbers[16], numbers[24]);
        Ok(Checkpoints { salts, done, attempted })
    }
}

/// Reads numbers in the byte order of this machine.
fn words<const COUNT: usize>(file: &File, offset: u64) -> io::Result<[u32; COUNT]> {
    let mut bytes = [[0; 4]; COUNT];
    file.read_exact_at(bytes.as_flattened_mut(), offset)?;
    Ok(bytes.map(u32::from_ne_bytes))
}

/// The files of a database in WAL mode, as they were last seen.
#[derive(Debug)]
pub(super) struct Watch {
    index: Index,
    page_bytes: u64,
    seen: Cell<(Checkpoints, Contents)>,
}

impl Watch {
    /// `database`: it must have been read by SQLite.
    pub(super) fn new(database: &File, index: &Path) -> io::Result<Watch> {
        let index = Index(File::open(index)?);
        let (_, bytes) = identity::of(database)?;
        let seen = (index.checkpoints()?, Contents::of(database, bytes)?);
        let page_bytes = match u16::from_be_bytes([seen.1.header[16], seen.1.header[17]]) {
            1 => 65_536, // which two bytes cannot hold
            bytes => u64::from(bytes),
        };
        Ok(Watch { index, page_bytes, seen: Cell::new(seen) })
    }

    /// Whether the database has other contents than SQLite has given it. `bytes`: its length.
    pub(super) fn is_overwritten(&self, database: &File, bytes: u64) -> io::Result<bool> {
        let (before, known) = self.seen.get();
        // In this order: the contents are then not older than what is said of checkpoints.
        let checkpoints = self.index.checkpoints()?;
        let contents = Contents::of(database, bytes)?;
        if contents != known {
            let after = self.index.checkpoints()?;
            let in_progress = before.done < before.attempted || after.done < after.attempted;
            if after == before && !in_progress {
                return Ok(true);
            }
        }
        self.seen.set((checkpoints, contents));
        Ok(false)
    }

    /// Whether the log is shorter than its index says, or another.
    pub(super) fn is_log_overwritten(&self, log: &File) -> io::Result<bool> {
        // In this order: pages are written before the index, and a log that is begun anew or
        // emptied by its rules is so after the index.
        let known = self.index.log()?;
        if known.pages == 0 {
            return Ok(false);
        }
        let frame_bytes = FRAME_HEADER_BYTES + self.page_bytes;
        let needed = LOG_HEADER_BYTES + u64::from(known.pages) * frame_bytes;
        let is_whole = identity::of(log)?.1 >= needed && words(log, 16)? == known.salts;
        Ok(!is_whole && self.index.log()? == known)
    }
}
