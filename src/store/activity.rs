//! Keeps, over the load after a failed commit, the times of last activity that are later than the
//! rows say: within a run nothing expires early.

use std::collections::HashMap;
use std::rc::Rc;

use super::mailbox::Mailbox;
use super::tables::Tables;
use crate::message::hash_of;
use crate::sys::clock::Timestamp;

/// Mailboxes that a tick ended, with their last activity before it: its failure brings them back.
#[derive(Debug, Default)]
pub(super) struct EndedInTick {
    /// The time of the last tick that ended any.
    tick: Timestamp,
    mailboxes: Vec<(Rc<str>, Timestamp)>,
}

impl EndedInTick {
    /// Adds a mailbox that the tick at `now` ends.
    pub fn add(&mut self, id: &Rc<str>, mailbox: &Mailbox, now: Timestamp) {
        if self.tick != now {
            *self = EndedInTick { tick: now, mailboxes: Vec::new() };
        }
        self.mailboxes.push((id.clone(), mailbox.updated_before(now)));
    }
}

/// Times of the last activity of mailboxes that are later than their rows say, from the tables
/// before a load. By the hash of the id, since memory must not hold all ids twice; two with the
/// same one live as long as the later.
#[derive(Debug, Default)]
pub(super) struct Activity(HashMap<u64, Timestamp>);

impl Activity {
    /// Keeps the times of tables in which the tick at `now` is to be undone.
    pub fn keep(&mut self, tables: &Tables, now: Timestamp) {
        // Of a mailbox that was `stored` now, the row is as before: the tick that wrote it failed.
        let is_later = |it: &Mailbox| it.updated_before(now) > it.stored || it.stored == now;
        let later = tables.mailboxes.iter().filter(|(_, mailbox)| is_later(mailbox));
        let later = later.map(|(id, mailbox)| (id, mailbox.updated_before(now)));
        let EndedInTick { tick, mailboxes } = &tables.ended;
        let ended = mailboxes.iter().filter(|_| *tick == now).map(|(id, updated)| (id, *updated));
        for (id, updated) in later.chain(ended) {
            let kept = self.0.entry(hash_of(&**id)).or_insert(updated);
            *kept = updated.max(*kept);
        }
    }

    /// The later of that time and the one that is kept.
    pub fn latest(&self, id: &str, updated: Timestamp) -> Timestamp {
        self.0.get(&hash_of(id)).map_or(updated, |kept| updated.max(*kept))
    }
}
