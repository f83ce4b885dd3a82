//! The periodic expiry check (contract section 3), cut into slices so that no tick is held up by
//! the number of mailboxes.

use std::rc::Rc;

use super::Store;
use super::change::Effects;
use crate::limits::PRUNES_PER_TICK_MAX;
use crate::message::Seconds;

/// A check in progress.
#[derive(Debug)]
pub(super) struct Expiry {
    /// When it began; all of it happens as of then.
    now: Seconds,
    /// Mailboxes still to be looked at.
    worklist: Vec<Rc<str>>,
}

impl Store {
    /// Begins an expiry check as of `now`, in place of one still in progress.
    pub fn begin_expiry(&mut self, now: Seconds) {
        let worklist = self.tables.expiry_worklist(now - self.tables.settings.expire_after);
        self.expiry = Some(Expiry { now, worklist });
    }

    /// Does the next slice of the check in progress; tells whether more is left.
    pub fn continue_expiry(&mut self, effects: &mut Effects) -> bool {
        let Some(expiry) = &mut self.expiry else { return false };
        let old = expiry.now - self.tables.settings.expire_after;
        for _ in 0..PRUNES_PER_TICK_MAX {
            match expiry.worklist.pop() {
                Some(mailbox) => self.tables.expire(&mailbox, expiry.now, old, effects),
                None => {
                    self.expiry = None;
                    return false;
                }
            }
        }
        true
    }
}
