//! The channel database as the loop sees it: commit, or fail and recover.
//!
//! After a failed commit it is degraded: nothing is written until a try succeeds. Each change
//! between healthy and degraded is logged once.

pub mod address_ids;
pub mod db;
pub mod held;
pub mod records;

use log::{debug, error, info};

use crate::limits::{CHECKPOINT_IDLE_PAGES, CHECKPOINT_PAGES};
use crate::message::ConnId;
use crate::storage::db::Database;
use crate::store::{Effects, Store};
use crate::sys::clock::Timestamp;

/// The database, and whether it works.
#[derive(Debug)]
pub struct Storage {
    db: Box<dyn Database>,
    is_degraded: bool,
}

/// Proof that nothing uncommitted is left of a tick. Only [`Storage::commit`] makes one, and one
/// release uses it up.
#[must_use]
#[derive(Debug)]
pub struct Committed(());

/// The tick was rolled back: none of its changes is in the file.
#[derive(Debug)]
pub struct CommitFailed {
    /// The tick's participants.
    pub participants: Vec<ConnId>,
}

impl Storage {
    pub fn new(db: Box<dyn Database>) -> Storage {
        Storage { db, is_degraded: false }
    }

    /// Whether the last write failed and none has succeeded since.
    pub fn is_degraded(&self) -> bool {
        self.is_degraded
    }

    /// Commits a tick's changes, or discards the tick; no changes, no transaction. Either way
    /// nothing uncommitted is left.
    pub fn commit(&mut self, effects: &mut Effects) -> (Committed, Result<(), CommitFailed>) {
        let outcome = match effects.changes.is_empty() {
            true => Ok(()),
            false => self.db.commit(&effects.changes),
        };
        effects.changes.clear();
        let outcome = outcome.map_err(|error| {
            if !self.is_degraded {
                error!("storage failed, serving in degraded mode until it works again: {error}");
            }
            self.is_degraded = true;
            CommitFailed { participants: effects.discard() }
        });
        (Committed(()), outcome)
    }

    /// Tries whether the database can be written again; if so, loads the store from it.
    pub fn recover(&mut self, store: &mut Store, now: Timestamp) {
        if self.db.try_write().is_ok() && self.load(store, now) {
            self.is_degraded = false;
            info!("storage works again");
        }
    }

    /// Loads the store from the database; returns whether it can be read. If not, the store holds
    /// nothing.
    pub fn load(&self, store: &mut Store, now: Timestamp) -> bool {
        store.load(now, |each| self.db.load(each)).is_ok()
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
    /// [`CHECKPOINT_IDLE_PAGES`], else [`CHECKPOINT_PAGES`].
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

    /// Frees the memory that the database keeps for the next commit.
    pub fn release_memory(&mut self) {
        self.db.release_memory();
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
