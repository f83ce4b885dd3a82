//! The channel database: the store's state on disk.
//!
//! `load` reads all of it, once, at a start; `commit` writes a batch of changes in one
//! transaction. The tables of sides have no index, so their rows are found by rowid; each
//! statement names the row's key as well, and falls back to the key alone when a tool has
//! renumbered the rows (VACUUM does).

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use log::{debug, info};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params};

use super::connections::ConnectionTable;
use super::file::{self, Examined, LogPages, Opened};
use super::open_error::{OpenError, OpenErrorKind};
use super::place::Place;
use super::schema::CHANNEL;
use super::{Database, Failure, load, run};
use crate::limits::{DATABASE_BUSY, STORAGE_PROBE_BYTES_MAX, STORAGE_PROBE_BYTES_MIN};
use crate::message::log::Message;
use crate::store::{Change, NameplateId, Row};
use crate::sys::clock::Timestamp;

/// Pages that one change dirties, roughly: its row, and its place in up to two indexes.
const PAGES_PER_CHANGE: usize = 3;

/// Statements kept prepared: all that are used, which are about 25.
const STATEMENTS_MAX: usize = 64;

/// SQLite's page cache in KiB. The store has all rows in memory; this is for the pages that
/// batches change again and again.
const PAGE_CACHE_KIB: i64 = 256;

/// The same from a batch for that many mailboxes on, until there has been no commit for a while:
/// each mailbox in use has a page of an index, and what does not stay in the cache is read and
/// written several times a batch.
const LARGE_PAGE_CACHE_KIB: i64 = 2_048;
const LARGE_PAGE_CACHE_MAILBOXES: usize = 64;

/// What a commit survives (`--synchronous`; manual: durability 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// Every commit is on the disk before its replies leave.
    #[default]
    Full,
    /// Power loss may lose the last commits, but the file stays sound.
    Normal,
    /// The operating system decides when to write; power loss may corrupt the file.
    Off,
}

impl Synchronous {
    /// Its names on the command line and in SQLite, in the order of the enum.
    pub const NAMES: [(&'static str, Synchronous); 3] =
        [("full", Synchronous::Full), ("normal", Synchronous::Normal), ("off", Synchronous::Off)];

    pub fn name(self) -> &'static str {
        Synchronous::NAMES[self as usize].0
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct ChannelOptions {
    pub synchronous: Synchronous,
    /// For a feature that needs the tables of version 2.
    pub needs_version_2: bool,
}

impl ChannelOptions {
    /// The version that a file must have.
    fn at_least(self) -> usize {
        if self.needs_version_2 { 2 } else { 1 }
    }
}

#[derive(Debug)]
pub struct ChannelDb {
    connection: Connection,
    place: Place,
    version: usize,
    options: ChannelOptions,
    /// Whether the tables of connections are this server's.
    tracks_connections: bool,
    /// Pages in the write-ahead log.
    logged_pages: LogPages,
    /// How many of them the last checkpoint has copied into the file, or would have if no reader
    /// had kept it from that.
    checkpointed_pages: u32,
    /// Page size of this file, which another server may have made.
    page_bytes: usize,
    has_large_cache: bool,
    /// Bytes that the last failed commit would have written, roughly.
    failed_bytes: usize,
    /// What opening did to the file, for the log.
    history: String,
}

impl ChannelDb {
    pub fn examine(path: &Path, options: ChannelOptions) -> Result<Examined, OpenError> {
        file::examine(path, &CHANNEL, 1, options.at_least())
    }

    /// Opens or creates the file.
    pub fn open(examined: Examined, options: ChannelOptions) -> Result<ChannelDb, OpenError> {
        let Opened { connection, place, version, history } = examined.open()?;
        let mut db = ChannelDb {
            connection,
            place,
            version,
            options,
            tracks_connections: false,
            logged_pages: LogPages::default(),
            checkpointed_pages: 0,
            page_bytes: 0,
            has_large_cache: false,
            failed_bytes: 0,
            history,
        };
        db.configure().map_err(|error| db.error(error))?;
        Ok(db)
    }

    fn configure(&mut self) -> rusqlite::Result<()> {
        // Our own checkpoints run when the loop is idle, not inside a commit that a client waits
        // for.
        self.logged_pages = LogPages::count(&mut self.connection)?;
        self.checkpointed_pages = 0;
        let page_bytes: u32 =
            self.connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        self.page_bytes = page_bytes as usize;
        let connection = &self.connection;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        connection.pragma_update(None, "synchronous", self.options.synchronous.name())?;
        connection.pragma_update(None, "cache_size", -PAGE_CACHE_KIB)?;
        self.has_large_cache = false;
        // Checked when the file was opened, and kept by the store from then on. If they were on,
        // deleting a mailbox would search all sides and nameplates for references, because the
        // schema has no index for that.
        connection.pragma_update(None, "foreign_keys", false)
    }

    fn error(&self, kind: impl Into<OpenErrorKind>) -> OpenError {
        OpenError::new(self.place.path(), &CHANNEL, kind)
    }

    /// Fails if the file is not at its path any more, or was written over: what is committed then
    /// will be lost.
    fn check_place(&self) -> Result<(), OpenError> {
        self.place.check_all().map_err(|kind| self.error(kind))
    }

    /// Makes sure that the write-ahead log and the page cache can take a batch.
    fn reserve(&mut self, changes: &[Change]) -> Result<(), OpenError> {
        let pages = written_bytes(changes, self.page_bytes) / self.page_bytes;
        if !self.has_large_cache && self.touches_many_mailboxes(changes) {
            let resized = self.connection.pragma_update(None, "cache_size", -LARGE_PAGE_CACHE_KIB);
            self.has_large_cache = resized.is_ok(); // a failure only makes it slower
        }
        self.logged_pages.reserve(pages, &self.place).map_err(|kind| self.error(kind))
    }

    /// Whether many mailboxes have got a message. Long ones do not count: their pages are written
    /// once, and keeping them would only fragment the heap.
    fn touches_many_mailboxes(&self, changes: &[Change]) -> bool {
        let mailboxes = changes.iter().filter_map(|change| match change {
            Change::Insert(Row::Message { mailbox, message, .. }) => {
                (message.bytes() <= self.page_bytes).then_some(Rc::as_ptr(mailbox))
            }
            _ => None,
        });
        let mut last = None;
        mailboxes.filter(|mailbox| last.replace(*mailbox) != Some(*mailbox)).count()
            >= LARGE_PAGE_CACHE_MAILBOXES
    }

    /// Opens what is at the path, as a start does, if that is not what is open.
    fn reopen_if_moved(&mut self) -> Result<(), Failure> {
        let (connection, place) = (&mut self.connection, &mut self.place);
        if let Some(opened) =
            file::reopen_if_moved(connection, place, &CHANNEL, self.options.at_least())?
        {
            let Opened { connection, place, version, history } = opened;
            (self.connection, self.place, self.version) = (connection, place, version);
            self.configure()?;
            self.prepare_for_service(self.tracks_connections)?;
            info!("channel database {}: {history} again", self.place.path().display());
        }
        Ok(())
    }

    pub fn version(&self) -> usize {
        self.version
    }

    pub fn history(&self) -> &str {
        &self.history
    }

    /// Cleans up what an earlier run left. Of several nameplates of one name upstream uses the
    /// first.
    pub fn prepare_for_service(&mut self, track_connections: bool) -> rusqlite::Result<()> {
        self.tracks_connections = track_connections;
        if track_connections {
            let all = "DELETE FROM connection_messages; DELETE FROM connections";
            self.transaction(&|| self.connection.execute_batch(all))?;
        }
        const SHADOWED: &str = "FROM nameplates WHERE id NOT IN (SELECT MIN(id) FROM nameplates GROUP BY app_id, name)";
        if self.has_rows(SHADOWED)? {
            self.transaction(&|| {
                self.connection.execute_batch(&format!(
                    "DELETE FROM nameplate_sides WHERE nameplates_id IN (SELECT id {SHADOWED}); \
                     DELETE {SHADOWED}"
                ))
            })?;
        }
        Ok(())
    }

    /// Deletes the messages of mailboxes that do not exist. At a start the load finds them.
    fn delete_orphans(&self) -> rusqlite::Result<()> {
        const ORPHANS: &str = "FROM messages WHERE mailbox_id NOT IN (SELECT id FROM mailboxes)";
        match self.has_rows(ORPHANS)? {
            true => self.run(&format!("DELETE {ORPHANS}"), &[]).map(drop),
            false => Ok(()), // without writing anything
        }
    }

    fn has_rows(&self, from: &str) -> rusqlite::Result<bool> {
        self.connection.query_row(&format!("SELECT EXISTS (SELECT 1 {from})"), [], |row| row.get(0))
    }

    /// Reads everything; see [`Database::load`].
    pub fn load(&self, each: &mut dyn FnMut(Row)) -> rusqlite::Result<NameplateId> {
        load::load(&self.connection, each)
    }

    /// The last generation of address ids, if any is stored.
    pub fn generation(&self) -> rusqlite::Result<Option<u64>> {
        self.connection.query_row("SELECT MAX(generation) FROM addrid_generation", [], |row| {
            Ok(row.get::<_, Option<i64>>(0)?.and_then(|generation| u64::try_from(generation).ok()))
        })
    }

    fn transaction(&self, work: &dyn Fn() -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        self.run("BEGIN IMMEDIATE", &[])?;
        let done = work().and_then(|()| self.run("COMMIT", &[]).map(drop));
        if done.is_err() {
            // Fails if the failure has rolled back already, which is fine.
            _ = self.connection.execute_batch("ROLLBACK");
        }
        done
    }

    fn write(&self, change: &Change) -> rusqlite::Result<()> {
        match change {
            Change::Insert(row) => self.insert(row),
            Change::ShiftTimes { seconds } => [
                "UPDATE mailboxes SET updated = updated + ?1",
                "UPDATE mailbox_sides SET added = added + ?1",
                "UPDATE nameplate_sides SET added = added + ?1",
            ]
            .into_iter()
            .try_fold(0, |_, sql| self.run(sql, params![seconds])),
            Change::TouchMailbox { mailbox, updated } => {
                self.run("UPDATE mailboxes SET updated = ?2 WHERE id = ?1", params![mailbox, updated])
            }
            Change::DeleteMailbox { app, mailbox, sides, with_messages, .. } => {
                if *with_messages {
                    let sql = "DELETE FROM messages WHERE app_id = ?1 AND mailbox_id = ?2";
                    self.run(sql, params![app, mailbox])?;
                }
                self.delete_sides(
                    sides,
                    "DELETE FROM mailbox_sides WHERE rowid = ?1 AND mailbox_id = ?2",
                    "DELETE FROM mailbox_sides WHERE mailbox_id = ?1",
                    mailbox,
                )?;
                self.run("DELETE FROM mailboxes WHERE id = ?1", params![mailbox])
            }
            Change::DeleteMessages { app, mailbox, count } => self.run(
                "DELETE FROM messages WHERE rowid IN (SELECT rowid FROM messages \
                 WHERE app_id = ?1 AND mailbox_id = ?2 ORDER BY rowid DESC LIMIT ?3)",
                params![app, mailbox, *count as i64],
            ),
            Change::DeletePhase { app, mailbox, side, phase, searched } => self.run(
                "DELETE FROM messages WHERE side = ?4 AND phase = ?5 AND rowid IN (SELECT rowid \
                 FROM messages WHERE app_id = ?1 AND mailbox_id = ?2 ORDER BY rowid LIMIT ?3)",
                params![app, mailbox, *searched as i64, side, phase],
            ),
            Change::CloseMailboxSide { id, mailbox, side, mood } => self.update_side(
                "UPDATE mailbox_sides SET opened = 0, mood = ?1 \
                 WHERE rowid = ?2 AND mailbox_id = ?3 AND side = ?4",
                params![mood, id, mailbox, side],
                "UPDATE mailbox_sides SET opened = 0, mood = ?1 WHERE mailbox_id = ?2 AND side = ?3",
                params![mood, mailbox, side],
            ),
            Change::DeleteNameplate { id, sides } => {
                self.delete_sides(
                    sides,
                    "DELETE FROM nameplate_sides WHERE rowid = ?1 AND nameplates_id = ?2",
                    "DELETE FROM nameplate_sides WHERE nameplates_id = ?1",
                    id,
                )?;
                self.run("DELETE FROM nameplates WHERE id = ?1", params![id])
            }
            Change::ReleaseNameplateSide { id, nameplate, side } => self.update_side(
                "UPDATE nameplate_sides SET claimed = 0 \
                 WHERE rowid = ?1 AND nameplates_id = ?2 AND side = ?3",
                params![id, nameplate, side],
                "UPDATE nameplate_sides SET claimed = 0 WHERE nameplates_id = ?1 AND side = ?2",
                params![nameplate, side],
            ),
        }
        .map(drop)
    }

    fn insert(&self, row: &Row) -> rusqlite::Result<usize> {
        match row {
            Row::Mailbox { app, mailbox, updated, for_nameplate } => self.run(
                "INSERT INTO mailboxes (app_id, id, updated, for_nameplate) \
                 VALUES (?1, ?2, ?3, ?4)",
                params![app, mailbox, updated, for_nameplate],
            ),
            Row::MailboxSide { id, mailbox, opened, side, added, mood } => self.run(
                "INSERT INTO mailbox_sides (rowid, mailbox_id, opened, side, added, mood) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![id, mailbox, opened, side, added, mood],
            ),
            Row::Message { app, mailbox, message } => {
                let body = ToSqlOutput::Borrowed(ValueRef::Text(message.body_bytes()));
                let Message { side, server_rx, .. } = &**message;
                self.run(
                    "INSERT INTO messages (app_id, mailbox_id, side, phase, body, server_rx, msg_id) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    params![app, mailbox, side, message.phase(), body, server_rx, message.id()],
                )
            }
            Row::Nameplate { id, app, name, mailbox } => self.run(
                "INSERT INTO nameplates (id, app_id, name, mailbox_id) VALUES (?1, ?2, ?3, ?4)",
                params![id, app, name, mailbox],
            ),
            Row::NameplateSide { id, nameplate, claimed, side, added } => self.run(
                "INSERT INTO nameplate_sides (rowid, nameplates_id, claimed, side, added) \
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![id, nameplate, claimed, side, added],
            ),
        }
    }

    /// Deletes sides by their rowids, or all by their key if a row is not where it was put.
    fn delete_sides(
        &self,
        ids: &[impl ToSql],
        by_id: &str,
        by_key: &str,
        key: &dyn ToSql,
    ) -> rusqlite::Result<()> {
        let mut deleted = 0;
        for id in ids {
            deleted += self.run(by_id, &[id, key])?;
        }
        if deleted < ids.len() {
            self.run(by_key, &[key])?;
        }
        Ok(())
    }

    /// Changes a side by its rowid and key, or by its key alone if it is not where it was put.
    fn update_side(
        &self,
        by_id: &str,
        id_params: &[&dyn ToSql],
        by_key: &str,
        key_params: &[&dyn ToSql],
    ) -> rusqlite::Result<usize> {
        match self.run(by_id, id_params)? {
            0 => self.run(by_key, key_params),
            changed => Ok(changed),
        }
    }

    fn run(&self, sql: &str, params: &[&dyn ToSql]) -> rusqlite::Result<usize> {
        run(&self.connection, sql, params)
    }
}

impl Database for ChannelDb {
    fn commit(&mut self, changes: &[Change]) -> Result<(), Failure> {
        self.reserve(changes)?;
        let written =
            self.transaction(&|| changes.iter().try_for_each(|change| self.write(change)));
        if written.is_err() {
            self.failed_bytes = written_bytes(changes, self.page_bytes);
        }
        // Where the file has gone explains an error better than the error does.
        self.place.check().map_err(|kind| self.error(kind))?;
        Ok(written?)
    }

    fn write_connections(&mut self, connections: &ConnectionTable) -> Result<(), Failure> {
        self.connection.pragma_update(None, "synchronous", Synchronous::Off.name())?;
        let written = self.transaction(&|| connections.write(&self.connection));
        self.connection.pragma_update(None, "synchronous", self.options.synchronous.name())?;
        Ok(written?)
    }

    fn try_write(&mut self) -> Result<(), Failure> {
        self.reopen_if_moved()?;
        // Frees the log's space, in case that is what is missing. It may fail, too.
        _ = self.checkpoint();
        // More than what failed: on a full disk a single page may still fit. The row is deleted in
        // the same transaction, but its pages are written.
        let probe_bytes = self.failed_bytes.saturating_mul(2);
        let probe_bytes = probe_bytes.clamp(STORAGE_PROBE_BYTES_MIN, STORAGE_PROBE_BYTES_MAX);
        let written = self.connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; INSERT INTO messages (body) VALUES (zeroblob({probe_bytes})); \
             DELETE FROM messages WHERE rowid = last_insert_rowid(); COMMIT"
        ));
        if written.is_err() {
            _ = self.connection.execute_batch("ROLLBACK"); // as in `commit`
        }
        Ok(written?)
    }

    fn load(&self, each: &mut dyn FnMut(Row)) -> Result<NameplateId, Failure> {
        self.check_place()?;
        Ok(load::load(&self.connection, each)?)
    }

    fn set_generation(&mut self, generation: u64, started: Timestamp) -> Result<(), Failure> {
        let transaction = self.connection.transaction()?;
        run(&transaction, "DELETE FROM addrid_generation", &[])?;
        run(
            &transaction,
            "INSERT INTO addrid_generation (generation, started) VALUES (?1, ?2)",
            params![generation as i64, started],
        )?;
        Ok(transaction.commit()?)
    }

    fn wal_pages(&self) -> u32 {
        let logged = self.logged_pages.get();
        // Fewer than before: the log was restarted.
        logged.checked_sub(self.checkpointed_pages).unwrap_or(logged)
    }

    fn checkpoint(&mut self) -> Result<bool, Failure> {
        self.check_place()?; // a log that is not whole would spoil the file
        self.checkpointed_pages = self.logged_pages.get();
        Ok(file::checkpoint(&self.connection, "PASSIVE")?)
    }

    fn shrink_log(&mut self) {
        // If a reader is still at the end of the log, a later commit does it.
        _ = self.connection.busy_timeout(Duration::ZERO);
        _ = file::checkpoint(&self.connection, "TRUNCATE");
        _ = self.connection.busy_timeout(DATABASE_BUSY);
    }

    fn release_memory(&mut self) {
        // A failure does not matter: memory that is not freed is used again.
        if std::mem::take(&mut self.has_large_cache) {
            _ = self.connection.pragma_update(None, "cache_size", -PAGE_CACHE_KIB);
        }
        _ = self.connection.execute_batch("PRAGMA shrink_memory");
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        // Those that ticks had not deleted yet: upstream would replay them in a new mailbox of that
        // id.
        let deleted = self.check_place().map(|()| self.delete_orphans());
        if let Ok(Err(error)) = deleted {
            debug!("messages of mailboxes that have ended are left: {error}");
        }
        let ChannelDb { connection, place, .. } = *self;
        Ok(file::close(connection, place, &CHANNEL)?)
    }
}

/// Bytes that a batch writes in a file with pages of that size, roughly.
fn written_bytes(changes: &[Change], page_bytes: usize) -> usize {
    let message_bytes = changes.iter().map(|change| match change {
        Change::Insert(Row::Message { message, .. }) => message.bytes(),
        _ => 0,
    });
    let row_bytes = changes.len().saturating_mul(PAGES_PER_CHANGE * page_bytes);
    message_bytes.fold(row_bytes, usize::saturating_add)
}
