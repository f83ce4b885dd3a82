//! The periodic expiry check (contract section 3), cut into slices so that no tick is held up by
//! the number of mailboxes.

use std::rc::Rc;

use super::Store;
use super::change::Effects;
use crate::limits::PRUNES_PER_TICK_MAX;
use crate::sys::clock::Timestamp;

/// A check in progress.
#[derive(Debug)]
pub(super) struct Expiry {
    /// When it began; what had expired by then ends as of then.
    now: Timestamp,
    /// Mailboxes still to be looked at.
    worklist: Vec<Rc<str>>,
}

impl Store {
    /// Begins an expiry check as of `now`, in place of one still in progress.
    pub fn begin_expiry(&mut self, now: Timestamp) {
        let worklist = self.tables.expiry_worklist(now - self.tables.settings.expire_after);
        self.expiry = Some(Expiry { now, worklist });
    }

    /// Does the next slice of the check in progress; tells whether more is left. `now` is the time
    /// of this slice, which is what subscribers count as active at.
    pub fn continue_expiry(&mut self, now: Timestamp, effects: &mut Effects) -> bool {
        let Some(expiry) = &mut self.expiry else { return false };
        let began = expiry.now;
        for _ in 0..PRUNES_PER_TICK_MAX {
            match expiry.worklist.pop() {
                Some(mailbox) => self.tables.expire(&mailbox, now, began, effects),
                None => {
                    self.expiry = None;
                    return false;
                }
            }
        }
        true
    }
}
