//! Counts the memory of all mailboxes, and to which peer address it is charged.
//!
//! Who has the most is known by class only: a class has all sizes with the same number of binary
//! digits. So the count costs nothing to keep up to date, however many holders there are.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// A peer address to which memory is charged, as the engine numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder(pub u64);

/// Number of classes: one for each number of binary digits of a size.
const CLASSES: usize = usize::BITS as usize + 1;

/// The class of a size: the number of its binary digits.
pub fn class(bytes: usize) -> usize {
    (usize::BITS - bytes.leading_zeros()) as usize
}

#[derive(Clone, Debug, Default)]
pub struct Ledger(Rc<Entries>);

#[derive(Debug)]
struct Entries {
    bytes: Cell<usize>,
    messages: Cell<usize>,
    holders: RefCell<HashMap<Holder, usize>>,
    /// Holders in each class; a mailbox that is charged to no address is one of its own.
    classes: RefCell<[usize; CLASSES]>,
}

impl Default for Entries {
    fn default() -> Self {
        Entries {
            bytes: Cell::default(),
            messages: Cell::default(),
            holders: RefCell::default(),
            classes: RefCell::new([0; CLASSES]),
        }
    }
}

impl Ledger {
    pub fn bytes(&self) -> usize {
        self.0.bytes.get()
    }

    pub fn messages(&self) -> usize {
        self.0.messages.get()
    }

    /// What an address is charged for.
    pub fn bytes_of(&self, holder: Holder) -> usize {
        self.0.holders.borrow().get(&holder).copied().unwrap_or(0)
    }

    /// Holders that are charged for something: addresses, and mailboxes of their own.
    pub fn holders_count(&self) -> usize {
        self.0.classes.borrow().iter().sum()
    }

    /// The class of the largest holder.
    pub fn top_class(&self) -> usize {
        self.0.classes.borrow().iter().rposition(|count| *count > 0).unwrap_or(0)
    }

    pub(super) fn count_messages(&self, count: usize) {
        self.0.messages.set(self.0.messages.get() + count);
    }

    pub(super) fn uncount_messages(&self, count: usize) {
        self.0.messages.set(self.0.messages.get() - count);
    }

    /// A mailbox is charged to an address, or to itself, with `after` bytes instead of `before`.
    pub(super) fn change(&self, holder: Option<Holder>, before: usize, after: usize) {
        self.0.bytes.set(self.0.bytes.get() - before + after);
        let (total_before, total_after) = match holder {
            None => (before, after),
            Some(holder) => {
                let mut holders = self.0.holders.borrow_mut();
                let total = holders.entry(holder).or_default();
                let total_before = *total;
                *total = total_before - before + after;
                let total_after = *total;
                if total_after == 0 {
                    holders.remove(&holder);
                    if holders.len() * 4 < holders.capacity() {
                        holders.shrink_to_fit();
                    }
                }
                (total_before, total_after)
            }
        };
        self.move_class(total_before, total_after);
    }

    fn move_class(&self, before: usize, after: usize) {
        let (from, to) = (class(before), class(after));
        if from == to {
            return;
        }
        let mut classes = self.0.classes.borrow_mut();
        if before > 0 {
            classes[from] -= 1;
        }
        if after > 0 {
            classes[to] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::log::MessageLog;

    #[test]
    fn what_is_charged_is_given_back_with_the_log() {
        let ledger = Ledger::default();
        let (one, other) = (MessageLog::new(&ledger), MessageLog::new(&ledger));
        let (a, b) = (Holder(1), Holder(2));
        one.charge(Some(a), 1_000);
        one.charge(None, 50_000);
        other.charge(Some(a), 1_000);
        other.charge(Some(b), 10);
        assert!(ledger.bytes_of(a) >= 2_000 && ledger.bytes() >= 52_010);
        assert_eq!(ledger.holders_count(), 3);
        assert_eq!(ledger.top_class(), class(50_000));
        let all = ledger.bytes();
        one.charge_own_to(b);
        assert_eq!((ledger.bytes(), one.charged(None)), (all, 0));
        assert!(ledger.bytes_of(b) >= 50_010);
        drop(one);
        assert_eq!(ledger.bytes_of(a), other.charged(Some(a)));
        drop(other);
        assert_eq!((ledger.bytes(), ledger.holders_count(), ledger.top_class()), (0, 0, 0));
    }
}
