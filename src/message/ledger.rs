//! Counts the memory of all mailboxes, and to which peer address it is charged.
//!
//! The largest holders are known by class only: a class has all sizes with the same number of
//! binary digits. So the count costs nothing to keep up to date, however many holders there are.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use crate::limits::LEDGER_NETWORK_DIVISOR;
use crate::message::{Holder, hash_of};

/// The class of a size: the number of its binary digits.
pub fn class(bytes: usize) -> usize {
    (usize::BITS - bytes.leading_zeros()) as usize
}

/// A handle to the counts; all clones share them.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Rc<Entries>);

#[derive(Debug, Default)]
struct Entries {
    bytes: Cell<usize>,
    messages: Cell<usize>,
    /// By hashes of the holders.
    addresses: RefCell<HashMap<u64, usize>>,
    /// By hashes of their networks.
    networks: RefCell<HashMap<u64, usize>>,
    /// Holders in each class: addresses, networks, and mailboxes that are charged to no address.
    classes: RefCell<HashMap<u64, usize>>,
}

impl Ledger {
    /// Memory of all mailboxes, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.bytes.get()
    }

    /// Messages in memory, those of ended mailboxes included.
    pub fn messages(&self) -> usize {
        self.0.messages.get()
    }

    /// Bytes that an address is charged for.
    pub fn bytes_of(&self, holder: Holder) -> usize {
        self.0.addresses.borrow().get(&hash_of(holder)).copied().unwrap_or(0)
    }

    /// The class of a holder: of an address or, if that is larger, of its network; without an
    /// address, of a mailbox that is charged with `own` bytes itself.
    pub fn class_of(&self, holder: Option<Holder>, own: usize) -> usize {
        let Some(holder) = holder else { return class(own) };
        let networks = self.0.networks.borrow();
        let network = networks.get(&hash_of(holder.network())).copied().unwrap_or(0);
        class(self.bytes_of(holder).max(network / LEDGER_NETWORK_DIVISOR))
    }

    /// The class of the largest holder.
    pub fn top_class(&self) -> usize {
        self.0.classes.borrow().keys().max().map_or(0, |class| *class as usize)
    }

    /// Counts messages that were added or, if negative, dropped.
    pub(super) fn count_messages(&self, change: isize) {
        self.0.messages.set(self.0.messages.get().wrapping_add_signed(change));
    }

    /// Charges an address, or a mailbox itself, with `after` bytes instead of `before`.
    pub(super) fn recharge(&self, holder: Option<Holder>, before: usize, after: usize) {
        self.0.bytes.set(self.0.bytes.get() - before + after);
        let Some(holder) = holder else { return self.move_class(before, after) };
        let address = hash_of(holder);
        let (total_before, total_after) = change_total(&self.0.addresses, address, before, after);
        self.move_class(total_before, total_after);
        let network = hash_of(holder.network());
        let (total_before, total_after) = change_total(&self.0.networks, network, before, after);
        let divisor = LEDGER_NETWORK_DIVISOR;
        self.move_class(total_before / divisor, total_after / divisor);
    }

    fn move_class(&self, before: usize, after: usize) {
        let (from, to) = (class(before), class(after));
        if from != to {
            change_total(&self.0.classes, from as u64, usize::from(before > 0), 0);
            change_total(&self.0.classes, to as u64, 0, usize::from(after > 0));
        }
    }
}

/// Changes a total by as much as its part; returns the total before and after.
fn change_total(
    totals: &RefCell<HashMap<u64, usize>>,
    key: u64,
    before: usize,
    after: usize,
) -> (usize, usize) {
    const KEPT_SHARE: usize = 4;
    let mut totals = totals.borrow_mut();
    let total = totals.entry(key).or_default();
    let total_before = *total;
    *total = total_before - before + after;
    let total_after = *total;
    if total_after == 0 {
        totals.remove(&key);
        if totals.len() < totals.capacity() / KEPT_SHARE {
            totals.shrink_to_fit();
        }
    }
    (total_before, total_after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{CountedAddress, MessageLog};

    fn holder(ip: &str) -> Holder {
        Holder::new(CountedAddress::Ip(ip.parse().expect("an address")), None)
    }

    #[test]
    fn what_is_charged_is_given_back_with_the_log() {
        let ledger = Ledger::default();
        let (one, other) = (MessageLog::new(&ledger), MessageLog::new(&ledger));
        let (a, b) = (holder("192.0.2.1"), holder("192.0.2.2"));
        one.charge(Some(a), 1_000);
        one.charge(None, 50_000);
        other.charge(Some(a), 1_000);
        other.charge(Some(b), 10);
        assert!(ledger.bytes_of(a) >= 2_000 && ledger.bytes() >= 52_010);
        assert_eq!(ledger.top_class(), class(50_000));
        let all = ledger.bytes();
        one.charge_own_to(b);
        assert_eq!((ledger.bytes(), one.charged(None)), (all, 0));
        assert!(ledger.bytes_of(b) >= 50_010);
        drop(one);
        assert_eq!(ledger.bytes_of(a), other.charged(Some(a)));
        drop(other);
        assert_eq!((ledger.bytes(), ledger.top_class()), (0, 0));
        assert!(ledger.0.addresses.borrow().is_empty() && ledger.0.networks.borrow().is_empty());
    }

    #[test]
    fn a_network_of_many_small_addresses_is_large() {
        let ledger = Ledger::default();
        let log = MessageLog::new(&ledger);
        let of = |number: u32| holder(&format!("2001:db8:7:{number}::"));
        (0..100).for_each(|address| log.charge(Some(of(address)), 10_000));
        let alone = holder("192.0.2.1");
        log.charge(Some(alone), 20_000);
        assert!(ledger.class_of(Some(of(1)), 0) > ledger.class_of(Some(alone), 0));
        assert_eq!(ledger.top_class(), ledger.class_of(Some(of(1)), 0));
    }
}
