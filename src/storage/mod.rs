//! The channel database as the loop sees it: commit, or fail and recover.
//!
//! After a failed commit it is degraded: nothing is written until a try succeeds. Each change
//! between healthy and degraded is logged once, and so is each other reason why it stays degraded.
//! So is a reader that keeps the write-ahead log from being copied into the file.

pub mod db;
pub mod held;
pub mod records;

use std::fs::File;
use std::time::Instant;

use crate::limits::{
    CHECKPOINT_IDLE_PAGES, CHECKPOINT_PAGES, LOG_BLOCKED_RETRY, LOG_BLOCKED_TOLERATED,
};
use crate::message::ConnId;
use crate::storage::db::{Database, Failure};
use crate::store::{Effects, Store};
use crate::sys::clock::Timestamp;
use crate::sys::logging::{debug, error, info, warn};

/// The database, and whether it works.
pub struct Storage {
    db: Box<dyn Database>,
    /// Why nothing can be written, since the last write failed and none has succeeded.
    failure: Option<Failure>,
    blocked_log: Option<BlockedLog>,
}

/// A reader keeps the write-ahead log from being copied into the file, so the log grows.
#[derive(Debug)]
struct BlockedLog {
    since: Instant,
    retry_at: Instant,
    is_logged: bool,
}

/// Proof that nothing uncommitted is left of a tick. Only [`Storage::commit`] makes one, and one
/// release uses it up.
#[must_use]
#[derive(Debug)]
pub struct Committed(());

/// A tick whose commit has failed.
#[derive(Debug)]
pub struct Undone {
    /// The connections that took part in it.
    pub participants: Vec<ConnId>,
}

impl Storage {
    pub fn new(db: Box<dyn Database>) -> Storage {
        Storage { db, failure: None, blocked_log: None }
    }

    /// Whether the last write failed and none has succeeded since.
    pub fn is_degraded(&self) -> bool {
        self.failure.is_some()
    }

    /// Why the storage is degraded, if it is. Without the path: not only the operator may see it.
    pub fn failure(&self) -> Option<String> {
        self.failure.as_ref().map(|error| format!("{error:#}"))
    }

    /// Commits a tick's changes; no changes, no transaction. If that fails, the tick is undone.
    /// Either way nothing uncommitted is left.
    pub fn commit(&mut self, effects: &mut Effects) -> (Committed, Option<Undone>) {
        let changes = &effects.changes;
        let written = if changes.is_empty() { Ok(()) } else { self.db.commit(changes) };
        effects.changes.clear();
        let undone = written.err().map(|error| {
            self.set_failed(error);
            Undone { participants: effects.discard() }
        });
        (Committed(()), undone)
    }

    fn set_failed(&mut self, error: Failure) {
        match &self.failure {
            None => {
                error!("storage failed, serving in degraded mode until it works again: {error}");
            }
            Some(last) if last.to_string() != error.to_string() => {
                warn!("storage is still unavailable, now for another reason: {error}");
            }
            Some(_) => {}
        }
        self.failure = Some(error);
    }

    /// Tries whether the database can be written again; if so, loads the store from it.
    pub fn recover(&mut self, store: &mut Store, now: Timestamp) {
        match self.db.try_write().and_then(|()| self.load(store, now)) {
            Ok(()) => {
                self.failure = None;
                info!("storage works again");
            }
            Err(error) => self.set_failed(error),
        }
    }

    /// Loads the store from the database. If that cannot be read, the store holds nothing.
    pub fn load(&self, store: &mut Store, now: Timestamp) -> Result<(), Failure> {
        store.load(now, |each| self.db.load(each))
    }

    /// Pages that have come into the write-ahead log since the last checkpoint.
    pub fn wal_pages(&self) -> u32 {
        self.db.wal_pages()
    }

    /// Whether the write-ahead log is worth a checkpoint as soon as there is nothing else to do.
    pub fn wants_checkpoint(&self) -> bool {
        !self.is_degraded() && self.db.wal_pages() >= CHECKPOINT_IDLE_PAGES
    }

    /// Copies the write-ahead log into the file if it is long enough: when the loop is idle,
    /// [`CHECKPOINT_IDLE_PAGES`], else [`CHECKPOINT_PAGES`]. Also if it is time to try again what a
    /// reader has prevented.
    pub fn checkpoint_if_due(&mut self, now: Instant, is_idle: bool) {
        let enough = if is_idle { CHECKPOINT_IDLE_PAGES } else { CHECKPOINT_PAGES };
        let is_due = self.checkpoint_retry_at().is_some_and(|retry_at| retry_at <= now);
        if (is_due || self.db.wal_pages() >= enough) && !self.is_degraded() {
            let whole = self.db.checkpoint();
            if let Some(blocked) = &mut self.blocked_log {
                blocked.retry_at = now + LOG_BLOCKED_RETRY;
            }
            match whole {
                Ok(is_whole) => self.note_checkpoint(is_whole, now),
                // Nothing is lost: the log stays, and the next commit shows whether more is wrong.
                Err(error) => debug!("checkpoint: {error}"),
            }
        }
    }

    fn note_checkpoint(&mut self, is_whole: bool, now: Instant) {
        if is_whole {
            if let Some(blocked) = self.blocked_log.take() {
                self.db.shrink_log();
                if blocked.is_logged {
                    info!("the write-ahead log of the channel database is free again");
                }
            }
            return;
        }
        let new = BlockedLog { since: now, retry_at: now + LOG_BLOCKED_RETRY, is_logged: false };
        let blocked = self.blocked_log.get_or_insert(new);
        if !blocked.is_logged && now >= blocked.since + LOG_BLOCKED_TOLERATED {
            blocked.is_logged = true;
            warn!(
                "a program has been reading the channel database for {} s without a pause; its \
                 write-ahead log grows until that ends",
                (now - blocked.since).as_secs()
            );
        }
    }

    /// When [`Storage::checkpoint_if_due`] must be called, if a reader has prevented a checkpoint.
    pub fn checkpoint_retry_at(&self) -> Option<Instant> {
        let blocked = self.blocked_log.as_ref().filter(|_| !self.is_degraded());
        blocked.map(|blocked| blocked.retry_at)
    }

    /// Seconds for which a reader has kept the write-ahead log from being copied into the file.
    pub fn log_blocked_seconds(&self, now: Instant) -> u64 {
        let blocked = self.blocked_log.as_ref();
        blocked.map_or(0, |blocked| now.saturating_duration_since(blocked.since).as_secs())
    }

    /// The file whose lock keeps a second server off; none in memory.
    pub fn lock(&self) -> Option<&File> {
        self.db.lock()
    }

    /// The database, for what is not part of a batch.
    pub fn db_mut(&mut self) -> &mut dyn Database {
        &mut *self.db
    }

    /// Leaves the file clean.
    pub fn close(self) {
        if let Err(error) = self.db.close() {
            error!("closing the channel database: {error}");
        }
    }
}
