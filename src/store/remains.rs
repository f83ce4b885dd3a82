//! Messages of mailboxes that have ended: their rows and their memory go in slices, a part with
//! each tick, so that no tick is held up by their number.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use super::change::{Change, Effects};
use crate::limits::DATABASE_PAGE_BYTES;
use crate::message::MessageLog;

/// The messages left of all mailboxes that have ended.
#[derive(Debug, Default)]
pub(super) struct Remains {
    by_mailbox: HashMap<Rc<str>, Remnant>,
    /// In the order in which the mailboxes ended; those that are finished stay in it until it is
    /// their turn.
    order: VecDeque<Rc<str>>,
    /// How many of them, from the first on, [`Remains::free_memory`] has looked at.
    freed: usize,
    /// Rows and pages that this tick may still delete.
    pub budget: usize,
}

/// The messages left of one mailbox.
#[derive(Debug, Default)]
struct Remnant {
    app: Rc<str>,
    /// Messages in the database, never none.
    rows: usize,
    /// What they take in the database, about. They count as spread evenly over the rows.
    bytes: usize,
    /// None once its memory is free.
    log: Option<Rc<MessageLog>>,
}

impl Remnant {
    /// What deleting all of it costs.
    fn cost(&self) -> usize {
        cost(self.rows, self.bytes)
    }
}

/// Pages that cost as much as a row, about: they are only put on the list of free ones.
const PAGES_PER_ROW: usize = 4;

/// Rows, and what the pages of messages of this size in bytes cost.
fn cost(rows: usize, bytes: usize) -> usize {
    rows + bytes / (PAGES_PER_ROW * DATABASE_PAGE_BYTES)
}

impl Remains {
    pub fn is_empty(&self) -> bool {
        self.by_mailbox.is_empty()
    }

    /// Messages in the database that are still to be deleted.
    pub fn rows(&self) -> usize {
        self.by_mailbox.values().map(|remnant| remnant.rows).sum()
    }

    pub fn contains(&self, mailbox: &str) -> bool {
        self.by_mailbox.contains_key(mailbox)
    }

    /// Takes in the messages of a mailbox that has just ended, unless this tick's budget allows to
    /// delete all of its rows at once. Returns whether it does.
    pub fn add(&mut self, app: &Rc<str>, mailbox: &Rc<str>, log: Rc<MessageLog>) -> bool {
        let (rows, bytes) = (log.count(), log.counted_bytes());
        if let Some(rest) = self.budget.checked_sub(cost(rows, bytes))
            && !self.contains(mailbox)
        {
            self.budget = rest;
            return true;
        }
        self.order.push_back(mailbox.clone());
        let remnant = Remnant { app: app.clone(), rows, bytes, log: Some(log) };
        self.by_mailbox.insert(mailbox.clone(), remnant);
        false
    }

    /// Takes note of a row of a mailbox that does not exist, found by a load.
    pub fn add_row(&mut self, app: Rc<str>, mailbox: Rc<str>, bytes: usize) {
        let order = &mut self.order;
        let remnant = self.by_mailbox.entry(mailbox).or_insert_with_key(|mailbox| {
            order.push_back(mailbox.clone());
            Remnant { app, ..Remnant::default() }
        });
        remnant.rows += 1;
        remnant.bytes = remnant.bytes.saturating_add(bytes);
    }

    /// Deletes what this tick's budget allows.
    pub fn delete_slice(&mut self, effects: &mut Effects) {
        while let Some(mailbox) = self.order.front()
            && self.budget > 0
        {
            let Some(remnant) = self.by_mailbox.get_mut(mailbox) else {
                self.forget_first();
                continue;
            };
            // At least one row, whatever it costs.
            let share = remnant.rows * self.budget / remnant.cost();
            let count = share.clamp(1, remnant.rows);
            let bytes = remnant.bytes / remnant.rows * count;
            self.budget = self.budget.saturating_sub(cost(count, bytes));
            let (app, mailbox) = (remnant.app.clone(), mailbox.clone());
            effects.changes.push(Change::DeleteMessages { app, mailbox, count });
            remnant.rows -= count;
            remnant.bytes -= bytes;
            // A replay in progress still needs them; then they go with it.
            if let Some(log) = remnant.log.as_ref().filter(|log| Rc::strong_count(log) == 1) {
                log.shorten(count);
            }
            if remnant.rows == 0 {
                self.forget_first();
            }
        }
    }

    fn forget_first(&mut self) {
        if let Some(gone) = self.order.pop_front() {
            self.by_mailbox.remove(&gone);
            self.freed = self.freed.saturating_sub(1);
        }
    }

    /// Deletes what is left of one mailbox, so that one of its name can begin. Returns false if
    /// this tick has not the budget for it.
    pub fn finish(&mut self, mailbox: &str, effects: &mut Effects) -> bool {
        let Some(remnant) = self.by_mailbox.get(mailbox) else { return true };
        let Some(rest) = self.budget.checked_sub(remnant.cost()) else { return false };
        self.budget = rest;
        let (app, count) = (remnant.app.clone(), remnant.rows);
        effects.changes.push(Change::DeleteMessages { app, mailbox: mailbox.into(), count });
        self.by_mailbox.remove(mailbox);
        true
    }

    /// Frees the memory of the mailboxes that ended first, until `is_enough`.
    pub fn free_memory(&mut self, is_enough: impl Fn() -> bool) {
        // Each is looked at once: a store that stays full asks for every message.
        while let Some(mailbox) = self.order.get(self.freed)
            && !is_enough()
        {
            self.freed += 1;
            let Some(remnant) = self.by_mailbox.get_mut(mailbox) else { continue };
            if remnant.log.as_ref().is_some_and(|log| Rc::strong_count(log) == 1) {
                remnant.log = None;
            }
        }
    }
}
