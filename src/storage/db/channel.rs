//! The channel database: the store's state on disk.
//!
//! `load` reads all of it, once, at a start; `commit` writes a batch of changes in one
//! transaction. The tables of sides have no index, so their rows are found by rowid; each
//! statement names the row's key as well, and falls back to the key alone when a tool has
//! renumbered the rows (VACUUM does).

use std::fs::File;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, ToSql, params};

use super::columns::{collect, optional_number};
use super::connections::ConnectionTable;
use super::file::DatabaseFile;
use super::lock::EarlierLocks;
use super::open_error::OpenError;
use super::opening::Examined;
use super::schema::{CHANNEL, CONNECTIONS_VERSION};
use super::{Database, Failure, journal, load, run, set};
use crate::limits::{
    DATABASE_BUSY, DATABASE_SPARE_BYTES, STORAGE_PROBE_BYTES_MAX, STORAGE_PROBE_BYTES_MIN,
    STORAGE_PROBE_SHRINKS,
};
use crate::message::{ConnId, Message};
use crate::store::{Change, NameplateId, Row, SideId};
use crate::sys::clock::Timestamp;
use crate::sys::logging::{debug, info};

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

/// What a commit survives (`--synchronous`; manual: durability 2), the most first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
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
    /// Keeps the connection table.
    pub tracks_connections: bool,
    /// Keeps the current generation of address ids.
    pub numbers_addresses: bool,
}

impl ChannelOptions {
    /// The version that the file must have at least.
    pub(super) fn version(self) -> usize {
        if self.tracks_connections || self.numbers_addresses { CONNECTIONS_VERSION } else { 1 }
    }
}

#[derive(Debug)]
pub struct ChannelDb {
    file: DatabaseFile,
    options: ChannelOptions,
    /// Whether the file was prepared since it was opened, or opened again.
    is_prepared: bool,
    /// How often it was prepared.
    openings: u64,
    /// Page size of this file, which another server may have made.
    page_bytes: usize,
    has_large_cache: bool,
    /// Room that the last failed commit needed, roughly, less by a part with each attempt since.
    failed_bytes: usize,
}

impl ChannelDb {
    pub fn examine(
        path: &Path,
        options: ChannelOptions,
        earlier: &mut EarlierLocks,
    ) -> Result<Examined, OpenError> {
        Examined::new(path, &CHANNEL, options.version(), earlier)
    }

    /// Opens or creates the file, and cleans up what an earlier run left in it, apart from the table
    /// of connections if this process goes on with them.
    pub fn open(
        examined: Examined,
        options: ChannelOptions,
        takes_over: bool,
    ) -> Result<ChannelDb, OpenError> {
        let mut db = ChannelDb {
            file: examined.open()?,
            options,
            is_prepared: false,
            openings: 0,
            page_bytes: 0,
            has_large_cache: false,
            failed_bytes: 0,
        };
        if let Err(error) = db.prepare(takes_over) {
            let error = db.file.error(error);
            _ = db.file.close(); // in the journal mode that it had
            return Err(error);
        }
        Ok(db)
    }

    fn prepare(&mut self, takes_over: bool) -> rusqlite::Result<()> {
        let connection = &self.file.connection;
        let page_bytes: u32 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        self.page_bytes = page_bytes as usize;
        self.has_large_cache = false;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        set(connection, "synchronous", &self.options.synchronous.name())?;
        set(connection, "cache_size", &-PAGE_CACHE_KIB)?;
        // Checked when the file was opened, and kept by the store from then on. If they were on,
        // deleting a mailbox would search all sides and nameplates for references, because the
        // schema has no index for that.
        set(connection, "foreign_keys", &false)?;
        if !takes_over || !self.options.tracks_connections {
            self.delete_connections()?;
        }
        self.unify_keys()?;
        self.delete_unreachable()?;
        self.is_prepared = true;
        self.openings += 1;
        Ok(())
    }

    /// Deletes the connections of an earlier run, which may have tracked them if this one does not.
    fn delete_connections(&self) -> rusqlite::Result<()> {
        const ALL: &str =
            "FROM (SELECT id FROM connections UNION ALL SELECT id FROM connection_messages)";
        if self.file.version < CONNECTIONS_VERSION {
            return Ok(());
        }
        self.clean(ALL, "DELETE FROM connection_messages; DELETE FROM connections")
    }

    /// The connections in the table.
    pub fn connections(&self) -> Result<Vec<ConnId>, OpenError> {
        let sql = "SELECT id FROM connections";
        let read = |row: &rusqlite::Row<'_>| row.get(0).map(|id: i64| ConnId(id.cast_unsigned()));
        let found = collect(&self.file.connection, sql, &[], read);
        found.map_err(|error| self.file.error(error))
    }

    /// Gives the keys of sides the type of what they refer to: these columns have none, and a
    /// statement would not find the row.
    fn unify_keys(&self) -> rusqlite::Result<()> {
        for (table, key, wanted, others) in [
            ("mailbox_sides", "mailbox_id", "TEXT", "'integer', 'real'"),
            ("nameplate_sides", "nameplates_id", "INTEGER", "'text'"),
        ] {
            let odd = format!("WHERE typeof({key}) IN ({others})");
            let unify = format!("UPDATE {table} SET {key} = CAST({key} AS {wanted}) {odd}");
            self.clean(&format!("FROM {table} {odd}"), &unify)?;
        }
        Ok(())
    }

    /// Deletes nameplates that lead to no mailbox of their app, or have the name of an earlier one:
    /// upstream uses the first.
    fn delete_unreachable(&self) -> rusqlite::Result<()> {
        const UNREACHABLE: &str = "FROM nameplates \
             WHERE id NOT IN (SELECT MIN(id) FROM nameplates GROUP BY app_id, name) \
             OR NOT EXISTS (SELECT 1 FROM mailboxes \
             WHERE mailboxes.id = nameplates.mailbox_id AND mailboxes.app_id IS nameplates.app_id)";
        let statements = format!(
            "DELETE FROM nameplate_sides WHERE nameplates_id IN (SELECT id {UNREACHABLE}); \
             DELETE {UNREACHABLE}"
        );
        self.clean(UNREACHABLE, &statements)
    }

    /// Deletes the messages of mailboxes that do not exist. At a start the load finds them.
    fn delete_orphans(&self) -> rusqlite::Result<()> {
        const ORPHANS: &str = "FROM messages WHERE mailbox_id NOT IN (SELECT id FROM mailboxes)";
        self.clean(ORPHANS, &format!("DELETE {ORPHANS}"))
    }

    /// Runs statements that delete or change rows; without such rows, nothing is written.
    fn clean(&self, rows: &str, statements: &str) -> rusqlite::Result<()> {
        let connection = &self.file.connection;
        let sql = format!("SELECT EXISTS (SELECT 1 {rows})");
        if !connection.query_row(&sql, [], |row| row.get(0))? {
            return Ok(());
        }
        self.file.transaction(&mut |transaction| transaction.execute_batch(statements))
    }

    /// What it is and how it was opened.
    pub fn summary(&self) -> String {
        self.file.summary()
    }

    /// What SQLite says, with the name of the file.
    fn failure(&self, error: rusqlite::Error) -> Failure {
        self.file.error(error).into()
    }

    /// Makes sure that the write-ahead log and the page cache can take a batch.
    fn reserve(&mut self, changes: &[Change]) -> Result<(), OpenError> {
        let bytes = written_bytes(changes, self.page_bytes);
        if !self.has_large_cache && self.touches_many_mailboxes(changes) {
            let connection = &self.file.connection;
            let resized = set(connection, "cache_size", &-LARGE_PAGE_CACHE_KIB);
            self.has_large_cache = resized.is_ok(); // a failure only makes it slower
        }
        let pages = bytes / self.page_bytes;
        self.file.reserve_room(pages)?;
        self.file.reserve(pages)
    }

    fn write(&mut self, changes: &[Change]) -> Result<(), Failure> {
        self.reserve(changes)?;
        let written = self.file.transaction(&mut |connection| {
            let mut batch = Batch { connection, last: None };
            changes.iter().try_for_each(|change| batch.write(change))
        });
        // Where the file has gone explains an error better than the error does.
        self.file.check()?;
        written.map_err(|error| self.failure(error))
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

    /// The last generation of address ids, if any is stored.
    pub fn generation(&self) -> Result<Option<u64>, OpenError> {
        let sql = "SELECT MAX(generation) FROM addrid_generation";
        let connection = &self.file.connection;
        let found = connection.query_row(sql, [], |row| optional_number(row, 0));
        let found = found.map_err(|error| self.file.error(error))?;
        Ok(found.and_then(|generation| u64::try_from(generation as i64).ok()))
    }
}

/// The statements of one batch.
struct Batch<'c> {
    connection: &'c Connection,
    /// The last one: of a large batch most are the same, and are looked up once.
    last: Option<(&'static str, CachedStatement<'c>)>,
}

impl Batch<'_> {
    fn write(&mut self, change: &Change) -> rusqlite::Result<()> {
        match change {
            Change::Insert(row) => self.insert(row),
            Change::ShiftTimes { seconds } => [
                "UPDATE mailboxes SET updated = updated + ?1",
                "UPDATE mailbox_sides SET added = added + ?1",
                "UPDATE nameplate_sides SET added = added + ?1",
            ]
            .into_iter()
            .try_fold(0, |_, sql| self.run(sql, params![seconds])),
            Change::TouchMailbox { mailbox, updated } => self
                .run("UPDATE mailboxes SET updated = ?2 WHERE id = ?1", params![mailbox, updated]),
            Change::DeleteMailbox { app, mailbox, sides, with_messages, .. } => {
                if *with_messages {
                    let sql = "DELETE FROM messages WHERE app_id = ?1 AND mailbox_id = ?2";
                    self.run(sql, params![app, mailbox])?;
                }
                let sql = "DELETE FROM mailbox_sides WHERE mailbox_id = ?1";
                self.change_sides(sides, sql, params![mailbox])?;
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
            Change::CloseMailboxSide { id, mailbox, side, mood } => {
                let sql = "UPDATE mailbox_sides SET opened = 0, mood = ?3 \
                           WHERE mailbox_id = ?1 AND side = ?2";
                self.change_sides(&[*id], sql, params![mailbox, side, mood])
            }
            Change::DeleteNameplate { id, sides } => {
                let sql = "DELETE FROM nameplate_sides WHERE nameplates_id = ?1";
                self.change_sides(sides, sql, params![id])?;
                self.run("DELETE FROM nameplates WHERE id = ?1", params![id])
            }
            Change::ReleaseNameplateSide { id, nameplate, side } => {
                let sql =
                    "UPDATE nameplate_sides SET claimed = 0 WHERE nameplates_id = ?1 AND side = ?2";
                self.change_sides(&[*id], sql, params![nameplate, side])
            }
        }
        .map(drop)
    }

    fn insert(&mut self, row: &Row) -> rusqlite::Result<usize> {
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

    /// Runs a statement, which finds sides by their key, for the rows of these ids only; for all
    /// rows of the key if one is not where it was put.
    fn change_sides(
        &mut self,
        ids: &[SideId],
        sql: &'static str,
        params: &[&dyn ToSql],
    ) -> rusqlite::Result<usize> {
        let by_id = format!("{sql} AND rowid = ?{}", params.len() + 1);
        let mut changed = 0;
        for id in ids {
            changed += run(self.connection, &by_id, &[params, &[id]].concat())?;
        }
        if changed < ids.len() { self.run(sql, params) } else { Ok(changed) }
    }

    fn run(&mut self, sql: &'static str, params: &[&dyn ToSql]) -> rusqlite::Result<usize> {
        let statement = match &mut self.last {
            Some((last, statement)) if std::ptr::eq(*last, sql) => statement,
            last => &mut last.insert((sql, self.connection.prepare_cached(sql)?)).1,
        };
        statement.execute(params)
    }
}

impl Database for ChannelDb {
    fn commit(&mut self, changes: &[Change]) -> Result<(), Failure> {
        let written = self.write(changes);
        if written.is_err() {
            let spare = DATABASE_SPARE_BYTES as usize; // which it had to leave
            self.failed_bytes = written_bytes(changes, self.page_bytes).saturating_add(spare);
        }
        written
    }

    fn write_connections(&mut self, connections: &ConnectionTable) -> Result<(), Failure> {
        let connection = &self.file.connection;
        let safe = self.options.synchronous;
        // Not less: this may begin the log anew, whose header must reach the disk before the rest.
        let fast = safe.max(Synchronous::Normal);
        set(connection, "synchronous", &fast.name())?;
        let written = self.file.transaction(&mut |transaction| connections.write(transaction));
        set(connection, "synchronous", &safe.name())?;
        written.map_err(|error| self.failure(error))
    }

    fn try_write(&mut self) -> Result<(), Failure> {
        self.is_prepared &= !self.file.reopen_if_moved()?;
        if !self.is_prepared {
            self.prepare(false).map_err(|error| self.failure(error))?;
            info!("{} again", self.file.history());
        }
        // Frees the log's space, in case that is what is missing. It may fail, too.
        _ = self.checkpoint();
        // More than what failed: on a full disk a single page may still fit. But less with each
        // attempt: what failed may have been larger than the disk can ever take.
        let probe_bytes = self.failed_bytes.saturating_add(STORAGE_PROBE_BYTES_MIN);
        let probe_bytes = probe_bytes.min(STORAGE_PROBE_BYTES_MAX);
        self.failed_bytes -= self.failed_bytes / STORAGE_PROBE_SHRINKS;
        self.file.reserve_probe(probe_bytes / self.page_bytes)?;
        // The row is deleted in the same transaction, but its pages are written.
        let probe = format!(
            "INSERT INTO messages (body) VALUES (zeroblob({probe_bytes})); \
             DELETE FROM messages WHERE rowid = last_insert_rowid()"
        );
        let tried = self.file.transaction(&mut |transaction| transaction.execute_batch(&probe));
        tried.map_err(|error| self.failure(error))?;
        // The room that it took is the file's now, which the next commit finds free there.
        _ = self.checkpoint();
        Ok(())
    }

    fn load(&self, each: &mut dyn FnMut(Row)) -> Result<NameplateId, Failure> {
        self.file.check_all()?;
        load::load(&self.file.connection, each).map_err(|error| self.failure(error))
    }

    fn check(&self) -> Result<(), Failure> {
        Ok(self.file.check_all()?)
    }

    fn lock(&self) -> Option<&File> {
        self.file.lock()
    }

    fn openings(&self) -> u64 {
        self.openings
    }

    fn set_generation(&mut self, generation: u64, started: Timestamp) -> Result<(), Failure> {
        let written = self.file.transaction(&mut |transaction| {
            run(transaction, "DELETE FROM addrid_generation", &[])?;
            run(
                transaction,
                "INSERT INTO addrid_generation (generation, started) VALUES (?1, ?2)",
                params![generation as i64, started],
            )
            .map(drop)
        });
        // Logged as what fails the address ids, which are in another file.
        written.map_err(|error| self.failure(error))
    }

    fn wal_pages(&self) -> u32 {
        self.file.wal_pages()
    }

    fn checkpoint(&mut self) -> Result<bool, Failure> {
        self.file.check_all()?; // a log that is not whole would spoil the file
        Ok(self.file.checkpoint()?)
    }

    fn shrink_log(&mut self) {
        // If a reader is still at the end of the log, a later commit does it.
        let connection = &self.file.connection;
        _ = connection.busy_timeout(Duration::ZERO);
        _ = journal::empty_log(connection);
        _ = connection.busy_timeout(DATABASE_BUSY);
    }

    fn release_memory(&mut self) {
        // A failure does not matter: memory that is not freed is used again.
        let connection = &self.file.connection;
        if std::mem::take(&mut self.has_large_cache) {
            _ = set(connection, "cache_size", &-PAGE_CACHE_KIB);
        }
        _ = connection.execute_batch("PRAGMA shrink_memory");
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        // Those that ticks had not deleted yet: upstream would replay them in a new mailbox of that
        // id.
        let deleted = self.file.check_all().map(|()| self.delete_orphans());
        if let Ok(Err(error)) = deleted {
            debug!("messages of mailboxes that have ended are left: {error}");
        }
        Ok(self.file.close()?)
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
