//! Reads the channel database, all of it, at a start or after a failed commit.
//!
//! Lenient about types: SQLite keeps what it is given, and other servers have written here too.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Params, Row};

use crate::store::{
    MailboxRow, MailboxSideRow, MessageRow, NameplateRow, NameplateSideRow, Snapshot,
};
use crate::sys::clock::Timestamp;

/// Reads every table in rowid order.
pub(super) fn snapshot(connection: &Connection) -> rusqlite::Result<Snapshot> {
    Ok(Snapshot {
        mailboxes: rows(
            connection,
            "SELECT rowid, app_id, id, updated, for_nameplate FROM mailboxes ORDER BY rowid",
            [],
            |row| {
                Ok(MailboxRow {
                    row: row.get(0)?,
                    app: text(row, 1)?,
                    mailbox: text(row, 2)?,
                    updated: time(row, 3)?,
                    for_nameplate: number(row, 4)? != 0.0,
                })
            },
        )?,
        mailbox_sides: rows(
            connection,
            "SELECT rowid, mailbox_id, opened, side, added, mood FROM mailbox_sides ORDER BY rowid",
            [],
            |row| {
                Ok(MailboxSideRow {
                    row: row.get(0)?,
                    mailbox: text(row, 1)?,
                    opened: number(row, 2)? != 0.0,
                    side: text(row, 3)?,
                    added: time(row, 4)?,
                    mood: optional_text(row, 5)?,
                })
            },
        )?,
        messages: rows(
            connection,
            "SELECT mailbox_id, side, phase, body, server_rx, msg_id FROM messages ORDER BY rowid",
            [],
            |row| {
                Ok(MessageRow {
                    mailbox: text(row, 0)?,
                    side: text(row, 1)?,
                    phase: text(row, 2)?,
                    body: text(row, 3)?,
                    server_rx: time(row, 4)?,
                    id: optional_text(row, 5)?,
                })
            },
        )?,
        nameplates: rows(
            connection,
            "SELECT id, app_id, name, mailbox_id FROM nameplates ORDER BY id",
            [],
            |row| {
                Ok(NameplateRow {
                    row: row.get(0)?,
                    app: text(row, 1)?,
                    name: text(row, 2)?,
                    mailbox: text(row, 3)?,
                })
            },
        )?,
        nameplate_sides: rows(
            connection,
            "SELECT rowid, nameplates_id, claimed, side, added FROM nameplate_sides ORDER BY rowid",
            [],
            |row| {
                Ok(NameplateSideRow {
                    row: row.get(0)?,
                    nameplate: row.get(1)?,
                    claimed: number(row, 2)? != 0.0,
                    side: text(row, 3)?,
                    added: time(row, 4)?,
                })
            },
        )?,
        nameplate_row_max: connection.query_row(
            "SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'nameplates'",
            [],
            |row| row.get(0),
        )?,
    })
}

pub(super) fn rows<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare(sql)?.query_map(params, |row| read(row))?.collect()
}

/// A text, whatever type a file has it in.
pub(super) fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(optional_text(row, column)?.unwrap_or_default())
}

pub(super) fn optional_text(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => None,
        ValueRef::Integer(value) => Some(value.to_string()),
        ValueRef::Real(value) => Some(value.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
    })
}

/// A point in time, whatever type a file has it in.
pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    number(row, column).map(Timestamp)
}

/// A number or a flag, whatever type a file has it in; null is zero.
pub(super) fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<f64> {
    Ok(match row.get_ref(column)? {
        ValueRef::Integer(value) => value as f64,
        ValueRef::Real(value) => value,
        _ => 0.0,
    })
}
