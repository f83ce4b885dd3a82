//! The room in the store: the share of one address, the reserve for ordinary exchanges, and the
//! largest holders, which lose their mailboxes when the store is full all the same.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter;
use std::rc::Rc;

use super::Act;
use super::tables::Tables;
use crate::limits::{
    EVICTED_AT_ONCE_MAX, EVICTIONS_PER_TICK_MAX, Limits, MAILBOX_BYTES, NAMEPLATE_BYTES,
    ROOM_DIVISOR, SPARE_NAMES,
};
use crate::message::{Holder, Refusal};
use crate::sys::heap::shared_text_bytes;

/// Something that is to be stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth<'a> {
    /// To which address it is charged; none if the mailbox is a holder of its own.
    pub holder: Option<Holder>,
    /// The mailbox that grows, if it exists.
    pub mailbox: Option<&'a str>,
    pub bytes: usize,
    /// Whether an ordinary exchange needs it: it may use the reserve.
    pub is_ordinary: bool,
}

/// Memory of a mailbox without sides and messages.
pub(super) fn mailbox_bytes(limits: &Limits, app: &str, mailbox: &str) -> usize {
    let names = shared_text_bytes(app.len()) + shared_text_bytes(mailbox.len());
    MAILBOX_BYTES + SPARE_NAMES * shared_text_bytes(limits.name_bytes_max) + names
}

/// Memory of a nameplate without sides.
pub(super) fn nameplate_bytes(limits: &Limits, app: &str, name: &str) -> usize {
    let names = shared_text_bytes(app.len()) + shared_text_bytes(name.len());
    NAMEPLATE_BYTES + SPARE_NAMES * shared_text_bytes(limits.name_bytes_max) + names
}

/// Memory of a side that is served; that of a crowded one is a spare name.
pub(super) fn side_bytes(side: &str) -> usize {
    shared_text_bytes(side.len())
}

impl Tables {
    /// Makes sure that there is room for `growth`; deletes mailboxes of the largest holders if
    /// there is none, but only of such as are larger than the one that grows.
    pub fn make_room(&mut self, growth: Growth<'_>, act: &mut Act<'_>) -> Result<(), Refusal> {
        let limits = &self.limits;
        let held = match growth.holder {
            Some(holder) => self.ledger.bytes_of(holder),
            None => growth
                .mailbox
                .and_then(|id| self.mailboxes.get(id))
                .map_or(0, |known| known.log.charged(None)),
        };
        if growth.holder.is_some() && held + growth.bytes > limits.address_share_bytes() {
            return Err(Refusal::AddressFull);
        }
        let reserve = if growth.is_ordinary { 0 } else { limits.reserve_bytes() };
        let most = limits.stored_bytes_max.saturating_sub(reserve).saturating_sub(growth.bytes);
        if self.ledger.bytes() <= most {
            return Ok(());
        }
        let ledger = self.ledger.clone();
        self.remains.free_memory(|| ledger.bytes() <= most);
        let own_class = ledger.class_of(growth.holder, held);
        if ledger.bytes() > most && ledger.top_class() > own_class && self.evictions_left > 0 {
            self.evictions_left -= 1;
            let enough = most.saturating_sub(self.limits.stored_bytes_max / ROOM_DIVISOR);
            self.evict(own_class, growth.mailbox, enough, act);
        }
        if ledger.bytes() <= most { Ok(()) } else { Err(Refusal::ServerFull) }
    }

    /// Deletes mailboxes of holders above a class, largest class first and in each those without
    /// activity for longest, until the ledger counts no more than `enough`.
    fn evict(&mut self, above: usize, spared: Option<&str>, enough: usize, act: &mut Act<'_>) {
        let mut larger = BinaryHeap::new();
        for (id, known) in self.mailboxes.iter().filter(|(id, _)| Some(&***id) != spared) {
            let (holder, bytes) = known.log.main_charge();
            let class = self.ledger.class_of(holder, bytes);
            if class > above {
                larger.push((class, Reverse((known.updated, id))));
            }
        }
        let larger = iter::from_fn(|| larger.pop()).take(EVICTED_AT_ONCE_MAX);
        let larger: Vec<Rc<str>> = larger.map(|(_, Reverse((_, id)))| id.clone()).collect();
        for id in larger {
            if self.ledger.bytes() <= enough {
                return;
            }
            self.evict_mailbox(&id, act);
        }
    }

    /// For the next tick.
    pub fn renew_budgets(&mut self) {
        self.remains.budget = self.rules.deletions_per_tick_max;
        self.evictions_left = EVICTIONS_PER_TICK_MAX;
    }
}
