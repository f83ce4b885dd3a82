//! Fills empty tables with the rows of the channel database, at a start or after a failed commit.
//!
//! The Python server writes such files too, so nothing is assumed of them but their schema. Rows
//! that refer to a missing row are skipped.

use std::collections::HashMap;
use std::rc::Rc;

use super::activity::Activity;
use super::app::Nameplate;
use super::change::{NameplateId, Row};
use super::mailbox::Mailbox;
use super::room::{mailbox_bytes, nameplate_bytes};
use super::sides::{Side, Sides};
use super::tables::Tables;
use crate::sys::clock::Timestamp;

/// Takes the rows one by one: a table's rows before those that refer to it, each table in the
/// order of its ids.
pub(super) struct Loader<'a> {
    tables: &'a mut Tables,
    /// A later time comes from a clock that was ahead.
    now: Timestamp,
    /// App and name of each nameplate: its sides know only its id.
    nameplates: HashMap<NameplateId, (Rc<str>, Rc<str>)>,
    activity: &'a Activity,
}

impl Loader<'_> {
    pub fn new<'a>(tables: &'a mut Tables, now: Timestamp, activity: &'a Activity) -> Loader<'a> {
        Loader { tables, now, nameplates: HashMap::new(), activity }
    }

    /// Adds a row. Times later than now count as now.
    pub fn add(&mut self, row: Row) {
        let (tables, now) = (&mut *self.tables, self.now);
        match row {
            Row::Mailbox { app, mailbox, updated, for_nameplate } => {
                let bytes = mailbox_bytes(&tables.limits, &app, &mailbox);
                let mut loaded = Mailbox::new(app, for_nameplate, updated.min(now), &tables.ledger);
                loaded.updated = self.activity.latest(&mailbox, loaded.updated);
                loaded.stored = updated;
                loaded.is_unclaimed = true;
                loaded.log.charge(None, bytes);
                tables.mailboxes.insert(mailbox, Box::new(loaded));
            }
            Row::MailboxSide { id, mailbox, opened, side, added, mood } => {
                tables.last_side = tables.last_side.max(id);
                if let Some(known) = tables.mailboxes.get_mut(&mailbox) {
                    let side = Side { id, side, added: added.min(now), holds: opened, mood };
                    known.sides.add(side, None, &known.log);
                }
            }
            Row::Message { app, mailbox, message } => match tables.mailboxes.get(&mailbox) {
                Some(mailbox) => mailbox.log.push(message, None),
                None => tables.remains.add_row(app, mailbox, message.counted_bytes()),
            },
            Row::Nameplate { id, app, name, mailbox } => {
                tables.last_nameplate = id;
                if let Some(known) = tables.mailboxes.get(&mailbox) {
                    let bytes = nameplate_bytes(&tables.limits, &app, &name);
                    known.log.charge(None, bytes);
                    self.nameplates.insert(id, (app.clone(), name.clone()));
                    let nameplate = Nameplate { id, mailbox, sides: Sides::default() };
                    tables.insert_nameplate(app, name, nameplate);
                }
            }
            Row::NameplateSide { id, nameplate, claimed, side, added } => {
                tables.last_side = tables.last_side.max(id);
                if let Some((app, name)) = self.nameplates.get(&nameplate)
                    && let Some((known, log)) = tables.nameplate_and_log(app, name)
                    && known.id == nameplate
                {
                    let added = added.min(now);
                    let side = Side { id, side, added, holds: claimed, mood: None };
                    known.sides.add(side, None, log);
                }
            }
        }
    }
}
