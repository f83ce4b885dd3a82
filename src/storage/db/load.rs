//! Reads the channel database, all of it, at a start or after a failed commit.

use std::collections::HashSet;
use std::rc::Rc;

use rusqlite::{Connection, Row};

use super::columns::{flag, for_each, optional_text, text, time};
use crate::message::Message;
use crate::store::{self, NameplateId, SideId};

/// Reads one row of a table.
type Read = fn(&Row<'_>, &mut Names) -> rusqlite::Result<store::Row>;

/// What is read of each table, in the order in which [`store::Store::load`] wants the tables.
const TABLES: [(&str, Read); 5] = [
    ("SELECT app_id, id, updated, for_nameplate FROM mailboxes ORDER BY rowid", mailbox),
    (
        "SELECT rowid, mailbox_id, opened, side, added, mood FROM mailbox_sides ORDER BY rowid",
        mailbox_side,
    ),
    (
        "SELECT app_id, mailbox_id, side, phase, body, server_rx, msg_id FROM messages \
         ORDER BY rowid",
        message,
    ),
    ("SELECT id, app_id, name, mailbox_id FROM nameplates ORDER BY id", nameplate),
    (
        // The column has no type; null refers to nothing.
        "SELECT rowid, IFNULL(CAST(nameplates_id AS INTEGER), 0), claimed, side, added \
         FROM nameplate_sides ORDER BY rowid",
        nameplate_side,
    ),
];

/// Passes on every row; returns the highest nameplate id ever given out.
pub(super) fn load(
    connection: &Connection,
    each: &mut dyn FnMut(store::Row),
) -> rusqlite::Result<NameplateId> {
    let mut names = Names::default();
    for (sql, read) in TABLES {
        for_each(connection, sql, &[], &mut |row| {
            each(read(row, &mut names)?);
            Ok(())
        })?;
    }
    connection.query_row(
        "SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'nameplates'",
        [],
        |row| row.get(0).map(NameplateId),
    )
}

fn mailbox(row: &Row<'_>, names: &mut Names) -> rusqlite::Result<store::Row> {
    Ok(store::Row::Mailbox {
        app: names.get(row, 0)?,
        mailbox: names.get(row, 1)?,
        updated: time(row, 2)?,
        for_nameplate: flag(row, 3)?,
    })
}

fn mailbox_side(row: &Row<'_>, names: &mut Names) -> rusqlite::Result<store::Row> {
    Ok(store::Row::MailboxSide {
        id: SideId(row.get(0)?),
        mailbox: names.get(row, 1)?,
        opened: flag(row, 2)?,
        side: names.get(row, 3)?,
        added: time(row, 4)?,
        mood: optional_text(row, 5)?.map(|mood| names.shared(&mood)),
    })
}

fn message(row: &Row<'_>, names: &mut Names) -> rusqlite::Result<store::Row> {
    let (phase, body, id) = (text(row, 3)?, text(row, 4)?, optional_text(row, 6)?);
    let message = Message::new(names.get(row, 2)?, &phase, &body, time(row, 5)?, id.as_deref());
    Ok(store::Row::Message {
        app: names.get(row, 0)?,
        mailbox: names.get(row, 1)?,
        message: Rc::new(message),
    })
}

fn nameplate(row: &Row<'_>, names: &mut Names) -> rusqlite::Result<store::Row> {
    Ok(store::Row::Nameplate {
        id: NameplateId(row.get(0)?),
        app: names.get(row, 1)?,
        name: names.get(row, 2)?,
        mailbox: names.get(row, 3)?,
    })
}

fn nameplate_side(row: &Row<'_>, names: &mut Names) -> rusqlite::Result<store::Row> {
    Ok(store::Row::NameplateSide {
        id: SideId(row.get(0)?),
        nameplate: NameplateId(row.get(1)?),
        claimed: flag(row, 2)?,
        side: names.get(row, 3)?,
        added: time(row, 4)?,
    })
}

/// One shared string for each name that occurs in several rows.
#[derive(Default)]
struct Names {
    all: HashSet<Rc<str>>,
    /// The last of each column: the next row often has the same.
    last: [Rc<str>; 5],
}

impl Names {
    fn get(&mut self, row: &Row<'_>, column: usize) -> rusqlite::Result<Rc<str>> {
        // Compared as bytes, so that what is repeated need not be valid UTF-8 to be seen.
        if row.get_ref(column)?.as_bytes_or_null() != Ok(Some(self.last[column].as_bytes())) {
            self.last[column] = self.shared(&text(row, column)?);
        }
        Ok(self.last[column].clone())
    }

    fn shared(&mut self, name: &str) -> Rc<str> {
        if let Some(known) = self.all.get(name) {
            return known.clone();
        }
        let shared: Rc<str> = name.into();
        self.all.insert(shared.clone());
        shared
    }
}
