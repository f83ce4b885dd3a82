//! The usage database (manual: files 3): nameplates and mailboxes that ended, client versions, and
//! the `current` row. Writes do not wait for the disk.

use std::io;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::columns::{collect, count};
use super::file::{self, Examined};
use super::open_error::OpenError;
use super::records_file::{RecordsFile, Room};
use super::{Failure, run, schema};
use crate::limits::{
    USAGE_NAME_BYTES_MAX, USAGE_ROWS_DELETED_AT_ONCE, USAGE_ROWS_EXAMINED_AT_ONCE,
    USAGE_ROWS_READ_MAX,
};
use crate::message::CHECK_APP;
use crate::message::outcome::Outcome;
use crate::store::UsageRecord;
use crate::sys::clock::{Seconds, Timestamp};

/// The version that is written.
const VERSION: usize = 2;

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

/// Of each of these tables, the last rowid that the search for old rows has looked at.
type Searched = [i64; TIMED.len()];

/// Before a search.
const NOT_SEARCHED: Searched = [i64::MIN; TIMED.len()];

#[derive(Debug)]
pub struct UsageDb {
    file: RecordsFile,
    searched: Searched,
}

impl UsageDb {
    pub fn examine(path: &Path) -> Result<Examined, OpenError> {
        file::examine(path, &schema::USAGE, VERSION, VERSION)
    }

    pub fn open(examined: Examined) -> Result<UsageDb, OpenError> {
        let file = RecordsFile::open(examined, &schema::USAGE)?;
        Ok(UsageDb { file, searched: NOT_SEARCHED })
    }

    pub fn version(&self) -> usize {
        self.file.version()
    }

    pub fn history(&self) -> &str {
        self.file.history()
    }

    /// The bytes that are free on its file system, and all it has.
    pub fn room(&self) -> io::Result<Room> {
        self.file.room()
    }

    /// Appends records, replaces the `current` row if one is given, and goes on with the search for
    /// rows that began before `keep_since`, which it deletes. Returns whether the search has not
    /// ended.
    pub fn write(
        &mut self,
        records: &[UsageRecord],
        current: Option<Current>,
        keep_since: Option<Timestamp>,
    ) -> Result<bool, Failure> {
        let (mut searched, mut has_more) = (self.searched, false);
        self.file.write(records.len() + 1, &mut |transaction| {
            if let Some(since) = keep_since {
                has_more = delete_before(transaction, since, &mut searched)?;
            }
            for record in records {
                insert(transaction, record)?;
            }
            if let Some(current) = current {
                run(transaction, "DELETE FROM current", &[])?;
                run(
                    transaction,
                    "INSERT INTO current (rebooted, updated, blur_time, connections_websocket) \
                     VALUES (?1, ?2, ?3, ?4)",
                    params![
                        current.rebooted,
                        current.updated,
                        current.blur_time,
                        current.connections_websocket as i64
                    ],
                )?;
            }
            Ok(())
        })?;
        self.searched = if has_more { searched } else { NOT_SEARCHED };
        Ok(has_more)
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
        let connection = &self.file.connection;
        let bounds = params![since, step, USAGE_ROWS_READ_MAX, CHECK_APP];
        let at = |row: &Row<'_>| row.get(0).map(|number: i64| Timestamp(number as Seconds * step));
        let outcome = |row: &Row<'_>| row.get(1).map(|name: String| Outcome::from_name(&name));
        Ok(UsageHistory {
            mailboxes: collect(connection, mailboxes, bounds, |row| {
                Ok((at(row)?, outcome(row)?, count(row, 2)?))
            })?,
            clients: collect(connection, clients, bounds, |row| {
                Ok((at(row)?, row.get(1)?, row.get(2)?, count(row, 3)?))
            })?,
        })
    }

    /// Leaves the file clean, without a write-ahead log.
    pub fn close(self) -> Result<(), OpenError> {
        self.file.close()
    }
}

/// Looks at the next rows of each table and deletes those that began before a time; returns whether
/// there are more rows. All are looked at: a clock that was ahead has put later times before
/// earlier ones.
fn delete_before(
    connection: &Connection,
    since: Timestamp,
    searched: &mut Searched,
) -> rusqlite::Result<bool> {
    let mut has_more = false;
    for ((table, time), last) in TIMED.into_iter().zip(searched) {
        let portion =
            format!("SELECT rowid FROM {table} WHERE rowid > ?1 ORDER BY rowid LIMIT 1 OFFSET ?2");
        let end: Option<i64> = connection
            .prepare_cached(&portion)?
            .query_row((*last, USAGE_ROWS_EXAMINED_AT_ONCE as i64), |row| row.get(0))
            .optional()?;
        let old = format!(
            "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} \
             WHERE rowid > ?1 AND rowid <= ?2 AND {time} < ?3 LIMIT ?4)"
        );
        let (first, end, most) = (*last, end.unwrap_or(i64::MAX), USAGE_ROWS_DELETED_AT_ONCE);
        let deleted = run(connection, &old, params![first, end, since, most as i64])?;
        if deleted < USAGE_ROWS_DELETED_AT_ONCE {
            *last = end;
        }
        has_more |= *last != i64::MAX;
    }
    Ok(has_more)
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
        UsageRecord::Nameplate { app, started, waiting_time, total_time, result } => run(
            connection,
            "INSERT INTO nameplates (app_id, started, waiting_time, total_time, result) \
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![cut(app), started, waiting_time, total_time, result.name()],
        ),
        UsageRecord::Mailbox { app, for_nameplate, started, waiting_time, total_time, result } => {
            run(
                connection,
                "INSERT INTO mailboxes \
                 (app_id, for_nameplate, started, waiting_time, total_time, result) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![cut(app), for_nameplate, started, waiting_time, total_time, result.name()],
            )
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
