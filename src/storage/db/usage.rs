//! The usage database (manual: files 3): nameplates and mailboxes that ended, client versions, and
//! the `current` row.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::columns::{collect, count, optional_string, optional_text};
use super::lock::EarlierLocks;
use super::open_error::OpenError;
use super::opening::Examined;
use super::records_file::RecordsFile;
use super::run;
use super::schema::USAGE;
use crate::limits::{
    USAGE_NAME_BYTES_MAX, USAGE_ROOM_BYTES, USAGE_ROOM_SHARE, USAGE_ROWS_DELETED_AT_ONCE,
    USAGE_ROWS_EXAMINED_AT_ONCE, USAGE_ROWS_READ_MAX,
};
use crate::message::{CHECK_APP, Outcome};
use crate::store::{UsageKind, UsageRecord};
use crate::sys::clock::{Seconds, Timestamp};
use crate::sys::logging::{info, warn};

/// The row of `current`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Current {
    pub rebooted: Timestamp,
    pub updated: Timestamp,
    pub blur_time: Option<Seconds>,
    /// Connections subscribed to a mailbox, as upstream counts them.
    pub connections_websocket: usize,
}

/// Mailboxes that ended and clients that bound before a start, in steps of time.
#[derive(Debug, Default)]
pub struct UsageHistory {
    /// Mailboxes that ended: when, with which known outcome, how many.
    pub mailboxes: Vec<(Timestamp, Option<Outcome>, u64)>,
    /// Clients that bound: when, implementation, version, how many.
    pub clients: Vec<(Timestamp, Option<String>, Option<String>, u64)>,
}

/// Tables whose rows have a time, and its column.
const TIMED: [(&str, &str); 3] =
    [("nameplates", "started"), ("mailboxes", "started"), ("client_versions", "connect_time")];

/// A search for rows that are too old, which are deleted. It goes on over several writes.
#[derive(Clone, Copy, Debug)]
struct Search {
    /// Rows that began before are too old.
    since: Timestamp,
    /// Of each of [`TIMED`], the last rowid that was looked at.
    searched: [i64; TIMED.len()],
}

impl Search {
    /// Deletes what is too old of the next rows of each table; returns whether there are more. All
    /// are looked at: a clock that was ahead has put later times before earlier ones.
    fn delete_next(&mut self, connection: &Connection) -> rusqlite::Result<bool> {
        let mut has_more = false;
        for ((table, time), last) in TIMED.into_iter().zip(&mut self.searched) {
            let portion = format!(
                "SELECT rowid FROM {table} WHERE rowid > ?1 ORDER BY rowid LIMIT 1 OFFSET ?2"
            );
            let end: Option<i64> = connection
                .prepare_cached(&portion)?
                .query_row((*last, USAGE_ROWS_EXAMINED_AT_ONCE as i64), |row| row.get(0))
                .optional()?;
            let old = format!(
                "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} \
                 WHERE rowid > ?1 AND rowid <= ?2 AND {time} < ?3 LIMIT ?4)"
            );
            let (first, end, most) = (*last, end.unwrap_or(i64::MAX), USAGE_ROWS_DELETED_AT_ONCE);
            let deleted = run(connection, &old, params![first, end, self.since, most as i64])?;
            if deleted < USAGE_ROWS_DELETED_AT_ONCE {
                *last = end;
            }
            has_more |= *last != i64::MAX;
        }
        Ok(has_more)
    }
}

#[derive(Debug)]
pub struct UsageDb {
    records: RecordsFile<UsageRecord>,
    /// The next row of `current`.
    current: Option<Current>,
    /// Age at which a record is deleted.
    keep: Option<Seconds>,
    search: Option<Search>,
    /// Whether the file system had room at the last write.
    has_room: bool,
}

impl UsageDb {
    pub fn examine(path: &Path, earlier: &mut EarlierLocks) -> Result<Examined, OpenError> {
        Examined::new(path, &USAGE, USAGE.newest(), earlier)
    }

    /// `keep`: records of that age are deleted.
    pub fn open(examined: Examined, keep: Option<Seconds>) -> Result<UsageDb, OpenError> {
        Ok(UsageDb {
            records: RecordsFile::open(examined)?,
            current: None,
            keep,
            search: None,
            has_room: true,
        })
    }

    /// What it is and how it was opened.
    pub fn summary(&self) -> String {
        self.records.file.summary()
    }

    pub fn push(&mut self, record: UsageRecord) {
        self.records.waiting.push(record);
    }

    /// Replaces the `current` row with the next flush, and deletes records that are too old with it
    /// and those after it.
    pub fn set_current(&mut self, current: Current) {
        self.current = Some(current);
        let searched = self.search.map_or([i64::MIN; TIMED.len()], |search| search.searched);
        self.search = self.keep.map(|keep| Search { since: current.updated - keep, searched });
    }

    /// Whether the file is up to date.
    pub(crate) fn is_written(&self) -> bool {
        self.records.waiting.is_empty() && self.current.is_none() && self.search.is_none()
    }

    /// Appends the records that wait, replaces the `current` row, and goes on with the search for
    /// records that are too old, which it deletes.
    pub(crate) fn flush(&mut self) {
        if self.is_written() {
            _ = self.records.follow();
            return;
        }
        if !self.look_for_room() {
            self.records.waiting.clear();
            (self.current, self.search) = (None, None);
            return;
        }
        let (mut search, mut has_more) = (self.search, false);
        let written = self.records.write(&mut |transaction, records| {
            if let Some(search) = &mut search {
                has_more = search.delete_next(transaction)?;
            }
            for record in records {
                insert(transaction, record)?;
            }
            self.current.map_or(Ok(()), |current| replace_current(transaction, current))
        });
        if self.records.settle(written) {
            self.current = None;
            self.search = search.filter(|_| has_more);
        }
    }

    /// Sets how long a write waits for a lock of another process: at first not at all.
    pub(crate) fn set_patience(&self, busy: Duration) {
        // It fails for no connection that is open.
        _ = self.records.file.connection.busy_timeout(busy);
    }

    /// Records that are not in the file.
    pub(crate) fn waiting_count(&self) -> usize {
        self.records.waiting.len()
    }

    /// Whether the file system has room for records. Without, they are dropped: the channel
    /// database must not be without room for their sake.
    fn look_for_room(&mut self) -> bool {
        // Where it cannot be known the write shows it.
        let has_room = match rustix::fs::statvfs(&self.records.file.target.path) {
            Ok(status) => {
                let bytes = |blocks: u64| blocks.saturating_mul(status.f_frsize);
                is_enough(bytes(status.f_bavail), bytes(status.f_blocks), self.has_room)
            }
            Err(_) => true,
        };
        match (self.has_room, has_room) {
            (true, false) => warn!(
                "the file system of the usage database has little room left: usage is not recorded \
                 until it has more"
            ),
            (false, true) => info!("the file system has room again: usage is recorded"),
            _ => {}
        }
        self.has_room = has_room;
        has_room
    }

    /// Reads what happened since a time, summed up by steps of `step` seconds. Only the newest
    /// rows, if there are very many.
    pub fn past(&self, since: Timestamp, step: Seconds) -> rusqlite::Result<UsageHistory> {
        let mailboxes = "SELECT CAST((started + total_time) / ?2 AS INTEGER) AS step, result, \
             COUNT(*) FROM mailboxes WHERE started + total_time >= ?1 AND app_id != ?4 \
             AND rowid > (SELECT MAX(rowid) FROM mailboxes) - ?3 GROUP BY step, result";
        let clients = "SELECT CAST(connect_time / ?2 AS INTEGER) AS step, implementation, \
             version, COUNT(*) FROM client_versions WHERE connect_time >= ?1 AND app_id != ?4 \
             AND rowid > (SELECT MAX(rowid) FROM client_versions) - ?3 \
             GROUP BY step, implementation, version";
        let connection = &self.records.file.connection;
        let bounds = params![since, step, USAGE_ROWS_READ_MAX, CHECK_APP];
        let at = |row: &Row<'_>| row.get(0).map(|number: i64| Timestamp(number as Seconds * step));
        Ok(UsageHistory {
            mailboxes: collect(connection, mailboxes, bounds, |row| {
                let outcome = optional_text(row, 1)?.and_then(|name| Outcome::from_name(&name));
                Ok((at(row)?, outcome, count(row, 2)?))
            })?,
            clients: collect(connection, clients, bounds, |row| {
                Ok((at(row)?, optional_string(row, 1)?, optional_string(row, 2)?, count(row, 3)?))
            })?,
        })
    }

    /// The file whose lock keeps a second server off; none in memory.
    pub(crate) fn lock(&self) -> Option<&File> {
        self.records.file.lock()
    }

    /// Leaves the file clean, without a write-ahead log.
    pub(crate) fn close(self) -> Result<(), OpenError> {
        self.records.file.close()
    }
}

/// Whether `free` bytes on a file system that has `all` are enough to record usage; `was_enough`: at
/// the last look.
fn is_enough(free: u64, all: u64, was_enough: bool) -> bool {
    let needed = USAGE_ROOM_BYTES.min(all / USAGE_ROOM_SHARE);
    free >= if was_enough { needed } else { needed + needed / 4 }
}

fn replace_current(connection: &Connection, current: Current) -> rusqlite::Result<()> {
    let Current { rebooted, updated, blur_time, connections_websocket } = current;
    run(connection, "DELETE FROM current", &[])?;
    run(
        connection,
        "INSERT INTO current (rebooted, updated, blur_time, connections_websocket) \
         VALUES (?1, ?2, ?3, ?4)",
        params![rebooted, updated, blur_time, connections_websocket as i64],
    )
    .map(drop)
}

/// A name as far as it is recorded: a peer chooses it, and the file keeps it.
fn cut(name: &str) -> &str {
    let mut end = name.len().min(USAGE_NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

fn insert(connection: &Connection, record: &UsageRecord) -> rusqlite::Result<usize> {
    match record {
        UsageRecord::Ended { app, kind, started, waiting_time, total_time, result } => {
            let (app, result) = (cut(app), result.name());
            match kind {
                UsageKind::Nameplate => run(
                    connection,
                    "INSERT INTO nameplates (app_id, started, waiting_time, total_time, result) \
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![app, started, waiting_time, total_time, result],
                ),
                UsageKind::Mailbox { for_nameplate } => run(
                    connection,
                    "INSERT INTO mailboxes \
                     (app_id, for_nameplate, started, waiting_time, total_time, result) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![app, for_nameplate, started, waiting_time, total_time, result],
                ),
            }
        }
        UsageRecord::ClientVersion { app, side, connect_time, implementation, version } => run(
            connection,
            "INSERT INTO client_versions (app_id, side, connect_time, implementation, version) \
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                cut(app),
                cut(side),
                connect_time,
                implementation.as_deref().map(cut),
                version.as_deref().map(cut)
            ],
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn recording_stops_below_the_bound_and_goes_on_well_above_it() {
        for (all, needed) in
            [(1024 * MIB * MIB, 64 * MIB), (512 * MIB, 64 * MIB), (16 * MIB, 2 * MIB)]
        {
            assert!(is_enough(needed, all, true) && !is_enough(needed - 1, all, true), "{all}");
            let again = needed / 4 * 5;
            assert!(is_enough(again, all, false) && !is_enough(again - 1, all, false), "{all}");
        }
    }
}
