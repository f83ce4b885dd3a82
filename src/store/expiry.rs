//! The periodic expiry check. To find the mailboxes that it must look at takes up to 20 ms if there
//! are 70,000; what is done with them writes to the database, and is cut into slices so that no
//! tick is held up by their number.

use std::collections::BinaryHeap;
use std::rc::Rc;

use super::mailbox::Mailbox;
use super::tables::Tables;
use super::usage::Ending;
use super::{Act, Store};
use crate::limits::PRUNES_PER_TICK_MAX;
use crate::sys::clock::Timestamp;

/// A check in progress.
#[derive(Debug)]
pub(super) struct Expiry {
    /// Mailboxes that had expired by then end as of then.
    pub began: Timestamp,
    /// Mailboxes still to be looked at, in the order of their last activity.
    worklist: BinaryHeap<(Timestamp, Rc<str>)>,
}

impl Store {
    /// Begins an expiry check as of `now`, in place of one still in progress.
    pub fn begin_expiry(&mut self, now: Timestamp) {
        let worklist = self.tables.expiry_worklist(now - self.tables.rules.expire_after);
        self.expiry = Some(Expiry { began: now, worklist });
    }

    /// Counts subscribers as activity, in memory only: while nothing can be written there is no
    /// check.
    pub fn note_subscribers(&mut self, now: Timestamp) {
        for mailbox in self.tables.mailboxes.values_mut() {
            if !mailbox.subscribers.is_empty() {
                (mailbox.previous, mailbox.updated) = (now, now);
            }
        }
    }

    /// Does the next slice of the check in progress; returns whether more is left. Subscribers
    /// count as activity at the time of the slice.
    pub fn continue_expiry(&mut self, act: &mut Act<'_>) -> bool {
        let Some(expiry) = &mut self.expiry else { return false };
        for _ in 0..PRUNES_PER_TICK_MAX {
            match expiry.worklist.pop() {
                Some((_, mailbox)) => self.tables.expire(&mailbox, expiry.began, act),
                None => {
                    self.expiry = None;
                    self.tables.give_back_memory();
                    return false;
                }
            }
        }
        true
    }
}

impl Tables {
    /// The mailboxes that an expiry check must look at: those with subscribers, and those that have
    /// been idle since `old`. Sorted, because the order of changes must not depend on a hasher's
    /// seed.
    fn expiry_worklist(&self, old: Timestamp) -> BinaryHeap<(Timestamp, Rc<str>)> {
        let due = |known: &Mailbox| !known.subscribers.is_empty() || known.updated <= old;
        let worklist = self.mailboxes.iter().filter(|(_, known)| due(known));
        worklist.map(|(id, known)| (known.updated, id.clone())).collect()
    }

    /// Looks at one mailbox in an expiry check that began at `began`: with subscribers it is
    /// touched, idle for too long it is deleted as of `began`.
    fn expire(&mut self, mailbox: &Rc<str>, began: Timestamp, act: &mut Act<'_>) {
        let Some(known) = self.mailboxes.get_mut(mailbox) else { return };
        if !known.subscribers.is_empty() {
            known.touch(mailbox, &self.rules, act);
        } else if known.updated <= began - self.rules.expire_after {
            let (entropy, effects) = (&mut *act.entropy, &mut *act.effects);
            let mut act = Act { now: began, entropy, effects, ..*act };
            self.delete_mailbox(mailbox, Ending::Pruned, &mut act);
        }
    }
}
