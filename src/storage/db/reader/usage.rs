//! Reads a usage database: exchanges that ended, and clients.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};

use super::{FileState, ReadOnly};
use crate::message::outcome::Outcome;
use crate::storage::db::Current;
use crate::storage::db::columns::{
    collect, count, flag, for_each, number, optional_number, optional_string, time,
};
use crate::storage::db::open_error::OpenError;
use crate::storage::db::schema::USAGE;
use crate::sys::clock::{Seconds, Timestamp};

/// The first version with the table of client versions.
const CLIENTS_VERSION: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageKind {
    Nameplate,
    Mailbox,
}

/// A nameplate or mailbox that ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EndingRow {
    pub kind: UsageKind,
    /// Whether it is a mailbox that a nameplate created.
    pub for_nameplate: bool,
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

#[derive(Debug)]
pub struct UsageReader(ReadOnly);

impl UsageReader {
    pub fn open(path: &Path) -> Result<UsageReader, OpenError> {
        ReadOnly::open(path, &USAGE).map(UsageReader)
    }

    pub fn state(&self) -> FileState {
        self.0.state
    }

    /// The row that a server rewrites at its start and at each expiry check.
    pub fn current(&self) -> Result<Option<Current>, OpenError> {
        self.0.read(|connection| {
            connection
                .query_row(
                    "SELECT rebooted, updated, blur_time, connections_websocket FROM current",
                    [],
                    |row| {
                        Ok(Current {
                            rebooted: time(row, 0)?,
                            updated: time(row, 1)?,
                            blur_time: optional_number(row, 2)?,
                            connections_websocket: number(row, 3)? as usize,
                        })
                    },
                )
                .optional()
        })
    }

    /// Passes on everything that began at `since` or later.
    pub fn endings(
        &self,
        since: Timestamp,
        mut each: impl FnMut(EndingRow),
    ) -> Result<(), OpenError> {
        let mailboxes = "SELECT started, waiting_time, total_time, result, for_nameplate \
                         FROM mailboxes WHERE started >= ?1";
        let nameplates = "SELECT started, waiting_time, total_time, result, 1 \
                          FROM nameplates WHERE started >= ?1";
        self.0.read(|connection| {
            each_ending(connection, UsageKind::Mailbox, mailboxes, since, &mut each)?;
            each_ending(connection, UsageKind::Nameplate, nameplates, since, &mut each)
        })
    }

    /// Client programs that bound at `since` or later, the most frequent first; none if the file
    /// has no such table.
    pub fn clients(&self, since: Timestamp) -> Result<Option<Vec<ClientCount>>, OpenError> {
        if self.0.state.version < CLIENTS_VERSION {
            return Ok(None);
        }
        let found = self.0.read(|connection| {
            collect(
                connection,
                "SELECT implementation, version, COUNT(*) FROM client_versions \
             WHERE connect_time >= ?1 GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2",
                [since],
                |row| {
                    Ok(ClientCount {
                        implementation: optional_string(row, 0)?,
                        version: optional_string(row, 1)?,
                        binds: count(row, 2)?,
                    })
                },
            )
        });
        found.map(Some)
    }
}

fn each_ending(
    connection: &Connection,
    kind: UsageKind,
    sql: &str,
    since: Timestamp,
    each: &mut impl FnMut(EndingRow),
) -> rusqlite::Result<()> {
    for_each(connection, sql, [since], |row| {
        let outcome = match row.get_ref(3)? {
            ValueRef::Text(name) => str::from_utf8(name).ok().and_then(Outcome::from_name),
            _ => None,
        };
        each(EndingRow {
            kind,
            for_nameplate: flag(row, 4)?,
            started: time(row, 0)?,
            waiting_time: optional_number(row, 1)?,
            total_time: optional_number(row, 2)?,
            outcome,
        });
        Ok(())
    })
}
