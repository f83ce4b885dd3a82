//! Reads the channel database, all of it, at a start or after a failed commit.

use std::collections::HashSet;
use std::rc::Rc;

use rusqlite::{Connection, Row};

use super::columns::{flag, for_each, optional_text, text, time};
use crate::message::log::Message;
use crate::store::{self, MailboxSideId, NameplateId, NameplateSideId};

/// Passes on every row, as [`store::Store::load`] wants them; returns the highest nameplate id
/// ever given out.
pub(super) fn load(
    connection: &Connection,
    each: &mut dyn FnMut(store::Row),
) -> rusqlite::Result<NameplateId> {
    let mut names = Names::default();
    for_each(
        connection,
        "SELECT app_id, id, updated, for_nameplate FROM mailboxes ORDER BY rowid",
        [],
        |row| {
            each(store::Row::Mailbox {
                app: names.get(row, 0)?,
                mailbox: names.get(row, 1)?,
                updated: time(row, 2)?,
                for_nameplate: flag(row, 3)?,
            });
            Ok(())
        },
    )?;
    for_each(
        connection,
        "SELECT rowid, mailbox_id, opened, side, added, mood FROM mailbox_sides ORDER BY rowid",
        [],
        |row| {
            each(store::Row::MailboxSide {
                id: MailboxSideId(row.get(0)?),
                mailbox: names.get(row, 1)?,
                opened: flag(row, 2)?,
                side: names.get(row, 3)?,
                added: time(row, 4)?,
                mood: optional_text(row, 5)?.map(|mood| names.shared(&mood)),
            });
            Ok(())
        },
    )?;
    for_each(
        connection,
        "SELECT app_id, mailbox_id, side, phase, body, server_rx, msg_id FROM messages \
         ORDER BY rowid",
        [],
        |row| {
            let message = Message::new(
                names.get(row, 2)?,
                &text(row, 3)?,
                &text(row, 4)?,
                time(row, 5)?,
                optional_text(row, 6)?.as_deref(),
            );
            each(store::Row::Message {
                app: names.get(row, 0)?,
                mailbox: names.get(row, 1)?,
                message: Rc::new(message),
            });
            Ok(())
        },
    )?;
    for_each(
        connection,
        "SELECT id, app_id, name, mailbox_id FROM nameplates ORDER BY id",
        [],
        |row| {
            each(store::Row::Nameplate {
                id: NameplateId(row.get(0)?),
                app: names.get(row, 1)?,
                name: names.get(row, 2)?,
                mailbox: names.get(row, 3)?,
            });
            Ok(())
        },
    )?;
    for_each(
        connection,
        "SELECT rowid, nameplates_id, claimed, side, added FROM nameplate_sides ORDER BY rowid",
        [],
        |row| {
            each(store::Row::NameplateSide {
                id: NameplateSideId(row.get(0)?),
                nameplate: NameplateId(row.get(1)?),
                claimed: flag(row, 2)?,
                side: names.get(row, 3)?,
                added: time(row, 4)?,
            });
            Ok(())
        },
    )?;
    connection.query_row(
        "SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'nameplates'",
        [],
        |row| row.get(0).map(NameplateId),
    )
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
        let name = text(row, column)?;
        if *self.last[column] != *name {
            self.last[column] = self.shared(&name);
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
