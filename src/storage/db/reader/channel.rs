//! Reads a channel database: how much is stored, and the connection table.

use std::collections::VecDeque;
use std::path::Path;

use rusqlite::Connection;

use super::{FileState, read};
use crate::limits::REPORT_COMMANDS_MAX;
use crate::storage::db::AddressId;
use crate::storage::db::columns::{
    collect, count, for_each, number, optional_number, optional_string, text, time,
};
use crate::storage::db::open_error::OpenError;
use crate::storage::db::schema::{CHANNEL, CONNECTIONS_VERSION};
use crate::sys::clock::Timestamp;

/// How much is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoredCounts {
    pub nameplates: u64,
    pub mailboxes: u64,
    pub messages: u64,
    /// Oldest and newest last activity of a mailbox.
    pub activity: Option<(Timestamp, Timestamp)>,
}

/// A row of the connection table, with its commands.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionRow {
    pub id: i64,
    pub address_id: Option<AddressId>,
    pub connected: Timestamp,
    pub side: Option<String>,
    pub implementation: Option<String>,
    pub version: Option<String>,
    pub active: Timestamp,
    /// How many commands are recorded.
    pub commands: usize,
    /// The last few of them, oldest first.
    pub last_commands: VecDeque<String>,
}

pub fn stored_counts(path: &Path) -> Result<(FileState, StoredCounts), OpenError> {
    let sql = "SELECT (SELECT COUNT(*) FROM nameplates), (SELECT COUNT(*) FROM messages), \
               COUNT(*), MIN(updated), MAX(updated) FROM mailboxes";
    read(path, &CHANNEL, |connection, state| {
        connection.query_row(sql, [], |row| {
            let mailboxes = count(row, 2)?;
            let activity = (time(row, 3)?, time(row, 4)?);
            let counts = StoredCounts {
                nameplates: count(row, 0)?,
                messages: count(row, 1)?,
                mailboxes,
                activity: (mailboxes > 0).then_some(activity),
            };
            Ok((state, counts))
        })
    })
}

/// The connection table, oldest first; none if the file has no such table.
pub fn read_connections(path: &Path) -> Result<(FileState, Option<Vec<ConnectionRow>>), OpenError> {
    read(path, &CHANNEL, |connection, state| {
        let has_table = state.version >= CONNECTIONS_VERSION;
        Ok((state, has_table.then(|| connection_rows(connection)).transpose()?))
    })
}

fn connection_rows(connection: &Connection) -> rusqlite::Result<Vec<ConnectionRow>> {
    let mut found = collect(
        connection,
        "SELECT id, addrid_generation, addrid_counter, connected, side, implementation, \
             version, active FROM connections ORDER BY id",
        &[],
        |row| {
            let address_id = optional_number(row, 1)?.zip(optional_number(row, 2)?);
            Ok(ConnectionRow {
                id: row.get(0)?,
                address_id: address_id.map(|(generation, counter)| AddressId {
                    generation: generation as u64,
                    counter: counter as u64,
                }),
                connected: time(row, 3)?,
                side: optional_string(row, 4)?,
                implementation: optional_string(row, 5)?,
                version: optional_string(row, 6)?,
                active: time(row, 7)?,
                commands: 0,
                last_commands: VecDeque::new(),
            })
        },
    )?;
    let sql = "SELECT id, name FROM connection_messages ORDER BY rowid";
    for_each(connection, sql, &[], &mut |message| {
        let id = number(message, 0)? as i64;
        let Ok(place) = found.binary_search_by_key(&id, |row| row.id) else { return Ok(()) };
        let row = &mut found[place];
        row.commands += 1;
        row.last_commands.push_back(text(message, 1)?.into_owned());
        if row.last_commands.len() > REPORT_COMMANDS_MAX {
            row.last_commands.pop_front();
        }
        Ok(())
    })?;
    Ok(found)
}
