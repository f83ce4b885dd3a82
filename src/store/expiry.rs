//! The periodic expiry check. To find the mailboxes that it must look at takes up to 20 ms if there
//! are 70,000; what is done with them writes to the database, and is cut into slices so that no
//! tick is held up by their number.

use std::collections::BinaryHeap;
use std::rc::Rc;

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
