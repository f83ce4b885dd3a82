//! Tables from the rows of the channel database, at a start or after a failed commit.
//!
//! Files come from the Python server too, so nothing is assumed of them but what the schema and
//! its foreign keys promise. Rows that point to nothing are passed over.

use std::collections::HashMap;
use std::rc::Rc;

use super::change::{RowId, Snapshot};
use super::mailbox::Mailbox;
use super::nameplate::Nameplate;
use super::sides::{Side, Sides};
use super::tables::{NextRows, Tables};
use crate::message::log::Message;

/// Builds the tables.
pub(super) fn tables(snapshot: Snapshot) -> Tables {
    let mut names = Names::default();
    let mut tables = Tables::default();
    tables.next_rows = next_rows(&snapshot);
    for row in snapshot.mailboxes {
        let mailbox = Mailbox::new(
            row.row,
            names.shared(&row.app),
            row.for_nameplate,
            row.updated,
            &tables.ledger,
        );
        tables.insert_mailbox(names.shared(&row.mailbox), mailbox);
    }
    for row in snapshot.mailbox_sides {
        if let Some(mailbox) = tables.mailbox_mut(&row.mailbox) {
            mailbox.sides.push(Side {
                row: row.row,
                side: names.shared(&row.side),
                added: row.added,
                holds: row.opened,
                mood: row.mood.map(|mood| names.shared(&mood)),
            });
        }
    }
    for row in snapshot.messages {
        if let Some(mailbox) = tables.mailbox_mut(&row.mailbox) {
            mailbox.push(Rc::new(Message {
                side: names.shared(&row.side),
                phase: row.phase.into(),
                body: row.body.as_str().into(),
                server_rx: row.server_rx,
                id: row.id.map(Box::from),
            }));
        }
    }
    let mut sides: HashMap<RowId, Sides> = HashMap::new();
    for row in snapshot.nameplate_sides {
        sides.entry(row.nameplate).or_default().push(Side {
            row: row.row,
            side: names.shared(&row.side),
            added: row.added,
            holds: row.claimed,
            mood: None,
        });
    }
    for row in snapshot.nameplates {
        if tables.mailbox_mut(&row.mailbox).is_none() {
            continue;
        }
        let nameplate = Nameplate {
            row: row.row,
            mailbox: names.shared(&row.mailbox),
            sides: sides.remove(&row.row).unwrap_or_default(),
        };
        tables.insert_nameplate(names.shared(&row.app), names.shared(&row.name), nameplate);
    }
    tables
}

fn next_rows(snapshot: &Snapshot) -> NextRows {
    let last = |rows: Option<RowId>| rows.unwrap_or(0);
    NextRows {
        mailbox: last(snapshot.mailboxes.last().map(|row| row.row)),
        mailbox_side: last(snapshot.mailbox_sides.last().map(|row| row.row)),
        nameplate: last(snapshot.nameplates.last().map(|row| row.row))
            .max(snapshot.nameplate_row_max),
        nameplate_side: last(snapshot.nameplate_sides.last().map(|row| row.row)),
    }
}

/// One shared string for each name that occurs in several rows.
#[derive(Default)]
struct Names(HashMap<Box<str>, Rc<str>>);

impl Names {
    fn shared(&mut self, name: &str) -> Rc<str> {
        self.0.entry(name.into()).or_insert_with(|| name.into()).clone()
    }
}
