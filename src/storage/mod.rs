//! The channel database as the loop sees it: commit, or fail and recover (contract section 4).
//!
//! Healthy, every batch is committed before its proof is given. After a failure it is degraded:
//! nothing is written until a try succeeds. Says so in the log once at each change of state.
//! Knows nothing of connections.

pub mod address_ids;
pub mod db;
pub mod held;
pub mod records;

use std::time::Instant;

use log::{debug, error, info};

use crate::limits::{CHECKPOINT_IDLE_PAGES, CHECKPOINT_PAGES, STORAGE_QUIET, STORAGE_RETRY};
use crate::storage::db::Database;
use crate::store::{Change, Store};

/// The database, and whether it works.
#[derive(Debug)]
pub struct Storage {
    db: Box<dyn Database>,
    /// When to try again, while degraded.
    retry_at: Option<Instant>,
    /// When to give memory back, unless there is another commit before.
    release_at: Option<Instant>,
}

/// Proof that nothing uncommitted is left. Only a commit makes one, and one release uses it up.
#[must_use]
#[derive(Debug)]
pub struct Committed(());

/// A commit failed; nothing of its batch is in the file, and nothing of its tick may leave.
#[derive(Debug)]
pub struct CommitFailed;

impl Storage {
    pub fn new(db: Box<dyn Database>) -> Storage {
        Storage { db, retry_at: None, release_at: None }
    }

    /// Whether the last write failed and none has succeeded since.
    pub fn is_degraded(&self) -> bool {
        self.retry_at.is_some()
    }

    /// When [`Storage::recover_if_due`] wants to be called, while degraded.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Commits the batch and empties it. No changes, no transaction.
    pub fn commit(
        &mut self,
        changes: &mut Vec<Change>,
        now: Instant,
    ) -> Result<Committed, CommitFailed> {
        if changes.is_empty() {
            return Ok(Committed(()));
        }
        let outcome = self.db.commit(changes);
        self.release_at = Some(now + STORAGE_QUIET);
        changes.clear();
        match outcome {
            Ok(()) => Ok(Committed(())),
            Err(error) => {
                if !self.is_degraded() {
                    error!(
                        "storage failed, serving in degraded mode until it works again: {error}"
                    );
                }
                self.retry_at = Some(now + STORAGE_RETRY);
                Err(CommitFailed)
            }
        }
    }

    /// While degraded and when due, tries whether the database can be written again; if so, loads
    /// the store anew.
    pub fn recover_if_due(&mut self, now: Instant, store: &mut Store) {
        if self.retry_at.is_none_or(|retry_at| retry_at > now) {
            return;
        }
        self.retry_at = Some(now + STORAGE_RETRY);
        if self.db.try_write().is_ok() && self.load(store) {
            self.retry_at = None;
            info!("storage works again");
        }
    }

    /// Loads the store from the database; returns whether it can be read. If not, the store holds
    /// nothing.
    pub fn load(&self, store: &mut Store) -> bool {
        store.load(|each| self.db.load(each)).is_ok()
    }

    /// Pages that have come into the write-ahead log since the last checkpoint.
    pub fn wal_pages(&self) -> u32 {
        self.db.wal_pages()
    }

    /// Whether the write-ahead log is worth a checkpoint as soon as there is nothing else to do.
    pub fn wants_checkpoint(&self) -> bool {
        !self.is_degraded() && self.db.wal_pages() >= CHECKPOINT_IDLE_PAGES
    }

    /// Copies the write-ahead log into the file if it is worth it; when the loop is busy, only
    /// if it must be.
    pub fn checkpoint_if_due(&mut self, idle: bool) {
        let enough = if idle { CHECKPOINT_IDLE_PAGES } else { CHECKPOINT_PAGES };
        if self.db.wal_pages() >= enough
            && !self.is_degraded()
            && let Err(error) = self.db.checkpoint()
        {
            // Nothing is lost: the log stays, and the next commit shows whether more is wrong.
            debug!("checkpoint: {error}");
        }
    }

    /// When [`Storage::release_memory_if_due`] wants to be called.
    pub fn release_at(&self) -> Option<Instant> {
        self.release_at
    }

    /// Gives back what the database keeps for the next commit, if there was none for a while.
    pub fn release_memory_if_due(&mut self, now: Instant) {
        if self.release_at.is_some_and(|due| due <= now) {
            self.release_at = None;
            self.db.release_memory();
        }
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
