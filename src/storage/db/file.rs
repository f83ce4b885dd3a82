//! An open database file: what all three have in common while they are written.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode};

use super::lock::EarlierLocks;
use super::open_error::{OpenError, OpenErrorKind};
use super::opening::{Examined, Found, Target};
use super::place::{OldLog, Place};
use super::{create, journal, room, run};
use crate::limits::{
    DATABASE_BUSY, DATABASE_RESERVE_BYTES, DATABASE_SPARE_BYTES, ROOM_CHECK_PAGES,
};
use crate::sys::logging::warn;

/// Frames of the write-ahead log whose index is one piece of shared memory, and by how many the
/// first piece has fewer, because of its header.
const INDEX_FRAMES: u32 = 4_096;
const INDEX_FRAMES_LESS: u32 = 34;

#[derive(Debug)]
pub(super) struct DatabaseFile {
    pub connection: Connection,
    /// Where it is; none in memory. Must be dropped after the connection.
    place: Option<Place>,
    pub target: Target,
    pub version: usize,
    /// What opening did to the file, for the log.
    history: String,
    log: Arc<LogPages>,
    /// Pages that the log may have before the disk's room is looked at again.
    room_pages: u32,
}

/// How long the write-ahead log is, in pages (frames).
#[derive(Debug, Default)]
struct LogPages {
    /// As SQLite reports it after each commit.
    count: AtomicU32,
    /// How many of them the last checkpoint has copied into the file, or would have if no reader
    /// had kept it from that.
    checkpointed: AtomicU32,
    /// Whether that was all of it, so that the next commit begins the log anew: unless a reader is
    /// at its end, with which a checkpoint comes too early.
    is_copied: AtomicBool,
}

impl LogPages {
    fn note_commit(&self, count: u32) {
        if self.is_copied.swap(false, Ordering::Relaxed) {
            self.checkpointed.store(0, Ordering::Relaxed);
        }
        self.count.store(count, Ordering::Relaxed);
    }

    fn note_checkpoint(&self, is_whole: bool) {
        self.checkpointed.store(self.count.load(Ordering::Relaxed), Ordering::Relaxed);
        self.is_copied.store(is_whole, Ordering::Relaxed);
    }

    /// Those that have come since the last checkpoint.
    fn uncopied(&self) -> u32 {
        let count = self.count.load(Ordering::Relaxed);
        // Fewer than before: the log was begun anew.
        count.checked_sub(self.checkpointed.load(Ordering::Relaxed)).unwrap_or(count)
    }

    /// Those after which the next commit writes its own.
    fn kept(&self) -> u32 {
        if self.is_copied.load(Ordering::Relaxed) { 0 } else { self.count.load(Ordering::Relaxed) }
    }
}

impl DatabaseFile {
    /// Begins to count the pages of the log, which replaces SQLite's own checkpoints.
    pub(super) fn new(
        mut connection: Connection,
        place: Option<Place>,
        target: Target,
        version: usize,
        history: String,
    ) -> rusqlite::Result<DatabaseFile> {
        let log = Arc::new(LogPages::default());
        let counter = Arc::clone(&log);
        connection.wal_hook(Some(move |_: &mut Wal, pages| {
            counter.note_commit(u32::try_from(pages).unwrap_or(0));
            Ok(())
        }))?;
        Ok(DatabaseFile { connection, place, target, version, history, log, room_pages: 0 })
    }

    pub(super) fn error(&self, kind: impl Into<OpenErrorKind>) -> OpenError {
        self.target.error(kind)
    }

    /// What it is and what opening did to it.
    pub(super) fn history(&self) -> String {
        format!("{}: {}", self.target, self.history)
    }

    /// The same with its version.
    pub(super) fn summary(&self) -> String {
        format!("{}, version {}", self.history(), self.version)
    }

    /// Pages that have come into the log since the last checkpoint.
    pub(super) fn wal_pages(&self) -> u32 {
        self.log.uncopied()
    }

    /// Copies the log into the file, as far as readers allow; returns whether that was all of it.
    pub(super) fn checkpoint(&mut self) -> rusqlite::Result<bool> {
        self.room_pages = 0;
        let outcome = journal::checkpoint(&self.connection);
        self.log.note_checkpoint(*outcome.as_ref().unwrap_or(&false));
        outcome
    }

    /// The file whose lock keeps a second server off; none in memory.
    pub(super) fn lock(&self) -> Option<&File> {
        self.place.as_ref().map(Place::lock)
    }

    /// Fails if the file is not at its path any more, or was written over: what was committed then
    /// is lost.
    pub(super) fn check(&self) -> Result<(), OpenError> {
        self.place.as_ref().map_or(Ok(()), Place::check).map_err(|kind| self.error(kind))
    }

    /// The same, and fails if the log is not what was written to it.
    pub(super) fn check_all(&self) -> Result<(), OpenError> {
        self.place.as_ref().map_or(Ok(()), Place::check_all).map_err(|kind| self.error(kind))
    }

    /// Makes sure that the log is whole, and that the disk has room for its index if `more` pages
    /// make it grow by a piece. SQLite maps it into memory, where a missing block ends the process.
    pub(super) fn reserve(&self, more: usize) -> Result<(), OpenError> {
        let Some(place) = &self.place else { return Ok(()) };
        let (now, then) = self.log_growth(more);
        let piece = |pages: u32| pages.saturating_add(INDEX_FRAMES_LESS) / INDEX_FRAMES;
        if let Some(log) = place.log_path()
            && piece(now) != piece(then)
        {
            create::has_reserve(log).map_err(|error| self.error(error))?;
        }
        place.check_log().map_err(|kind| self.error(kind))
    }

    /// Makes sure that the disk has room for `more` pages in the log, and for copying the log into
    /// the file, with some to spare.
    pub(super) fn reserve_room(&mut self, more: usize) -> Result<(), OpenError> {
        let (now, then) = self.log_growth(more);
        if then > self.room_pages {
            let ahead = then.saturating_add(ROOM_CHECK_PAGES);
            self.room_pages = match self.check_room(now, ahead, DATABASE_SPARE_BYTES) {
                Ok(()) => ahead,
                Err(_) => self.check_room(now, then, DATABASE_SPARE_BYTES).map(|()| then)?,
            };
        }
        Ok(())
    }

    /// The same for an attempt to leave degraded mode, which may use what other commits spare.
    pub(super) fn reserve_probe(&self, more: usize) -> Result<(), OpenError> {
        let (now, then) = self.log_growth(more);
        self.check_room(now, then, DATABASE_RESERVE_BYTES)
    }

    /// Pages in the log before and after a commit of `more`.
    fn log_growth(&self, more: usize) -> (u32, u32) {
        let now = self.log.kept();
        (now, now.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)))
    }

    fn check_room(&self, now: u32, then: u32, spare: u64) -> Result<(), OpenError> {
        let Some(log) = self.place.as_ref().and_then(Place::log_path) else { return Ok(()) };
        let files = (&*self.target.path, log);
        room::check(&self.connection, files, (now, then), spare).map_err(|kind| self.error(kind))
    }

    /// Does `work` as one transaction.
    pub(super) fn transaction(
        &self,
        work: &mut dyn FnMut(&Connection) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let connection = &self.connection;
        run(connection, "BEGIN IMMEDIATE", &[])?;
        let done = work(connection).and_then(|()| run(connection, "COMMIT", &[]).map(drop));
        if done.is_err() {
            // Fails if the failure has rolled back already, which is fine.
            _ = connection.execute_batch("ROLLBACK");
        }
        done
    }

    /// Opens the file at the path again if it is another than the one that is open, or has another
    /// log; returns whether it did. A file that is missing is not created.
    pub(super) fn reopen_if_moved(&mut self) -> Result<bool, OpenError> {
        let Some(place) = &mut self.place else { return Ok(false) };
        let Err(moved) = place.check_all() else { return Ok(false) };
        // The loop stands still meanwhile.
        let target = Target { busy: DATABASE_BUSY, ..self.target.clone() };
        let found = match leave(&mut self.connection, place, &moved) {
            Ok(Left::Closed) => target.find(place.lock_to_keep(), &mut EarlierLocks::none()),
            Ok(Left::AsItWas) => Err(moved),
            Err(kind) => Err(kind),
        };
        match found {
            Ok(Found::Nothing(_)) => return Err(target.error(OpenErrorKind::Missing)),
            Ok(found) => *self = Examined { target, found }.open()?,
            Err(kind) => return Err(target.error(kind)),
        }
        Ok(true)
    }

    /// Closes the file, in the journal mode that the Python server uses.
    pub(super) fn close(mut self) -> Result<(), OpenError> {
        if let Some(Err(OpenErrorKind::LogLost)) = self.place.as_ref().map(Place::check_all) {
            self.reopen_if_moved()?; // which copies the log into the file
        }
        let DatabaseFile { mut connection, mut place, target, .. } = self;
        let left = match &mut place {
            None => Ok(()),
            Some(place) => match place.check_all() {
                Ok(()) => leave_wal_mode(&connection, &target).map_err(OpenErrorKind::from),
                Err(moved) => leave(&mut connection, place, &moved).and(Err(moved)),
            },
        };
        let closed = left.and_then(|()| Ok(connection.close().map_err(|(_, error)| error)?));
        closed.map_err(|kind| target.error(kind))
    }
}

fn leave_wal_mode(connection: &Connection, target: &Target) -> rusqlite::Result<()> {
    connection.busy_timeout(DATABASE_BUSY)?;
    match journal::set_mode(connection, "delete") {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
            journal::empty_log(connection)?;
            warn!(
                "{}: another process has the file open, so it stays in WAL mode",
                target.path.display()
            );
            Ok(())
        }
        outcome => outcome,
    }
}

/// How a file was left that is not at its path any more.
enum Left {
    Closed,
    /// Open, because there is no other.
    AsItWas,
}

/// Closes a file that is not at its path any more, so that nothing of it gets into another.
fn leave(
    connection: &mut Connection,
    place: &mut Place,
    moved: &OpenErrorKind,
) -> Result<Left, OpenErrorKind> {
    // Closing must remove no log that belongs to the other file.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let old_log = match moved {
        // What was committed to the log goes into the file, wherever that is now.
        OpenErrorKind::LogLost => {
            journal::copy_log(connection)?;
            OldLog::Keep
        }
        OpenErrorKind::Replaced => {
            if !place.is_overwritten()? {
                _ = journal::copy_log(connection);
            }
            OldLog::Remove
        }
        OpenErrorKind::LogOverwritten => OldLog::Remove,
        OpenErrorKind::IndexCut => OldLog::Keep,
        OpenErrorKind::Missing => {
            _ = journal::copy_log(connection); // it may be taken elsewhere
            return Ok(Left::AsItWas);
        }
        _ => return Ok(Left::AsItWas),
    };
    // A connection to nothing, on which all fails until the file is opened.
    drop(std::mem::replace(connection, Connection::open_in_memory()?));
    place.set_closed(old_log)?;
    Ok(Left::Closed)
}
