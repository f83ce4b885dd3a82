//! Reads a usage database: exchanges that ended, and clients.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{FileState, read};
use crate::message::{CHECK_APP, Outcome};
use crate::storage::db::Current;
use crate::storage::db::columns::{
    collect, count, flag, for_each, number, optional_number, optional_string, text, time,
};
use crate::storage::db::open_error::OpenError;
use crate::storage::db::schema::{CLIENTS_VERSION, USAGE};
use crate::store::UsageKind;
use crate::sys::clock::{Seconds, Timestamp};

/// A nameplate or mailbox that ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EndingRow {
    pub kind: UsageKind,
    pub started: Timestamp,
    /// Until the second side came, if one did.
    pub waiting_time: Option<Seconds>,
    pub total_time: Option<Seconds>,
    /// None if this server does not know its name.
    pub outcome: Option<Outcome>,
}

/// Binds of one client program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCount {
    pub implementation: Option<String>,
    pub version: Option<String>,
    pub binds: u64,
}

/// The `current` row; none before a server has written it.
pub fn read_current(path: &Path) -> Result<(FileState, Option<Current>), OpenError> {
    read(path, &USAGE, |connection, state| Ok((state, current(connection)?)))
}

/// What began at `since` or later, but for `check`.
#[derive(Debug)]
pub struct UsageSince {
    pub file: FileState,
    pub current: Option<Current>,
    /// Client programs, those with most binds first; none if the file has no such table.
    pub clients: Option<Vec<ClientCount>>,
}

/// Passes the nameplates and mailboxes on one by one, and returns the rest.
pub fn read_usage(
    path: &Path,
    since: Timestamp,
    mut each: impl FnMut(EndingRow),
) -> Result<UsageSince, OpenError> {
    let mailboxes = "SELECT started, waiting_time, total_time, result, for_nameplate \
                     FROM mailboxes WHERE started >= ?1 AND app_id != ?2";
    let nameplates = "SELECT started, waiting_time, total_time, result \
                      FROM nameplates WHERE started >= ?1 AND app_id != ?2";
    read(path, &USAGE, |connection, file| {
        let params = params![since, CHECK_APP];
        for_each(connection, mailboxes, params, &mut |row| {
            let kind = UsageKind::Mailbox { for_nameplate: flag(row, 4)? };
            ending(kind, row).map(&mut each)
        })?;
        for_each(connection, nameplates, params, &mut |row| {
            ending(UsageKind::Nameplate, row).map(&mut each)
        })?;
        let has_clients = file.version >= CLIENTS_VERSION;
        Ok(UsageSince {
            file,
            current: current(connection)?,
            clients: has_clients.then(|| clients(connection, since)).transpose()?,
        })
    })
}

fn current(connection: &Connection) -> rusqlite::Result<Option<Current>> {
    let sql = "SELECT rebooted, updated, blur_time, connections_websocket FROM current";
    let read = |row: &Row<'_>| {
        Ok(Current {
            rebooted: time(row, 0)?,
            updated: time(row, 1)?,
            blur_time: optional_number(row, 2)?,
            connections_websocket: number(row, 3)? as usize,
        })
    };
    connection.query_row(sql, [], read).optional()
}

fn clients(connection: &Connection, since: Timestamp) -> rusqlite::Result<Vec<ClientCount>> {
    let sql = "SELECT implementation, version, COUNT(*) FROM client_versions \
               WHERE connect_time >= ?1 AND app_id != ?2 GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2";
    collect(connection, sql, params![since, CHECK_APP], |row| {
        Ok(ClientCount {
            implementation: optional_string(row, 0)?,
            version: optional_string(row, 1)?,
            binds: count(row, 2)?,
        })
    })
}

fn ending(kind: UsageKind, row: &Row<'_>) -> rusqlite::Result<EndingRow> {
    Ok(EndingRow {
        kind,
        started: time(row, 0)?,
        waiting_time: optional_number(row, 1)?,
        total_time: optional_number(row, 2)?,
        outcome: Outcome::from_name(&text(row, 3)?),
    })
}
