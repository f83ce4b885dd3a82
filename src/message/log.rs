//! A mailbox's messages in order of arrival.
//!
//! Messages keep their places while a replay in progress shares the log: one that is deleted leaves
//! a gap. The log's memory leaves the ledger when it is dropped, with the mailbox and the last such
//! replay, or cleared.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::holder::Holder;
use super::ledger::Ledger;
use crate::limits::{CHARGE_BYTES, DELETE_SEARCHED_MAX, MESSAGE_BYTES, MESSAGE_OVERHEAD_BYTES};
use crate::sys::clock::Timestamp;
use crate::sys::mmap::MmapStr;

/// A message stored in a mailbox: shared by the mailbox, the outboxes of its subscribers and the
/// batch that goes to the database.
#[derive(Debug, PartialEq)]
pub struct Message {
    pub side: Rc<str>,
    pub server_rx: Timestamp,
    /// Phase, id and body in one allocation.
    text: MmapStr,
    phase_end: usize,
    /// None without an id.
    id_end: Option<usize>,
}

impl Message {
    /// `id` is that of the `add`: a string, or another JSON value as its text.
    pub fn new(
        side: Rc<str>,
        phase: &str,
        body: &str,
        server_rx: Timestamp,
        id: Option<&str>,
    ) -> Message {
        let text = MmapStr::concat([phase, id.unwrap_or_default(), body]);
        let phase_end = phase.len();
        Message { side, server_rx, text, phase_end, id_end: id.map(|id| phase_end + id.len()) }
    }

    pub fn phase(&self) -> Cow<'_, str> {
        self.text.slice(0..self.phase_end)
    }

    /// The id of the `add`, as [`Message::new`] got it.
    pub fn id(&self) -> Option<Cow<'_, str>> {
        self.id_end.map(|end| self.text.slice(self.phase_end..end))
    }

    /// Hex by convention, not checked.
    pub fn body(&self) -> Cow<'_, str> {
        self.text.slice(self.body_begin()..self.text.as_bytes().len())
    }

    /// The bytes of the body, which are valid UTF-8.
    pub fn body_bytes(&self) -> &[u8] {
        &self.text.as_bytes()[self.body_begin()..]
    }

    fn body_begin(&self) -> usize {
        self.id_end.unwrap_or(self.phase_end)
    }

    /// Bytes that count towards the limit of a mailbox.
    pub fn counted_bytes(&self) -> usize {
        self.text.as_bytes().len() + MESSAGE_OVERHEAD_BYTES
    }

    /// Memory in use. The side is the mailbox's.
    pub fn bytes(&self) -> usize {
        self.text.held_bytes() + MESSAGE_BYTES
    }
}

/// Stored messages to be sent to one connection: a range of the mailbox's log.
#[derive(Clone, Debug)]
pub struct Replay {
    pub log: Rc<MessageLog>,
    /// Of the next message to send.
    place: usize,
    /// The place after the last message to send.
    end: usize,
}

impl Replay {
    /// Whether all of it has been sent.
    pub fn is_over(&self) -> bool {
        self.place == self.end
    }
}

impl Iterator for Replay {
    type Item = Rc<Message>;

    fn next(&mut self) -> Option<Rc<Message>> {
        while !self.is_over() {
            self.place += 1;
            if let Some(message) = self.log.get(self.place - 1) {
                return Some(message);
            }
        }
        None
    }
}

/// The messages of one mailbox, and the memory that all of the mailbox takes.
#[derive(Debug)]
pub struct MessageLog {
    /// None in the gap of a message that was deleted.
    messages: RefCell<Vec<Option<Rc<Message>>>>,
    gaps: Cell<usize>,
    /// Sum of [`Message::counted_bytes`].
    counted_bytes: Cell<usize>,
    /// Bytes of the mailbox by the holder to which they are charged; those charged to none are the
    /// mailbox's own.
    charges: RefCell<Vec<(Option<Holder>, usize)>>,
    ledger: Ledger,
}

impl MessageLog {
    /// An empty log, charged with nothing yet.
    pub fn new(ledger: &Ledger) -> Rc<MessageLog> {
        Rc::new(MessageLog {
            messages: RefCell::default(),
            gaps: Cell::default(),
            counted_bytes: Cell::default(),
            charges: RefCell::default(),
            ledger: ledger.clone(),
        })
    }

    /// Appends a message, and charges its memory to `holder`.
    pub fn push(&self, message: Rc<Message>, holder: Option<Holder>) {
        self.counted_bytes.set(self.counted_bytes.get() + message.counted_bytes());
        self.charge(holder, message.bytes());
        self.ledger.count_messages(1);
        self.messages.borrow_mut().push(Some(message));
    }

    /// Deletes the messages of a side with that phase, as far as they are among the first
    /// [`DELETE_SEARCHED_MAX`], and gives back their memory, to `holder` first. Returns how many
    /// messages from the first on had to be searched to find the last of them; 0 if there is none.
    pub fn delete(self: &Rc<MessageLog>, side: &str, phase: &str, holder: Option<Holder>) -> usize {
        let mut messages = self.messages.borrow_mut();
        let (mut searched, mut deleted, mut bytes) = (0, 0, 0);
        let places = messages.iter_mut().filter(|place| place.is_some());
        for (before, place) in places.take(DELETE_SEARCHED_MAX).enumerate() {
            let is_it =
                |message: &mut Rc<Message>| *message.side == *side && message.phase() == phase;
            if let Some(message) = place.take_if(is_it) {
                (searched, deleted) = (before + 1, deleted + 1);
                // The rest goes with the gap.
                bytes += message.bytes() - MESSAGE_BYTES;
                self.counted_bytes.set(self.counted_bytes.get() - message.counted_bytes());
            }
        }
        drop(messages);
        self.ledger.count_messages(-(deleted as isize));
        self.gaps.set(self.gaps.get() + deleted);
        self.uncharge(holder, bytes);
        self.close_gaps(holder);
        searched
    }

    /// Gives back the places of deleted messages, unless a replay is in progress.
    pub fn close_gaps(self: &Rc<MessageLog>, holder: Option<Holder>) {
        if self.gaps.get() == 0 || Rc::strong_count(self) > 1 {
            return;
        }
        let mut messages = self.messages.borrow_mut();
        messages.retain(Option::is_some);
        if messages.len() < messages.capacity() / 2 {
            messages.shrink_to_fit();
        }
        self.uncharge(holder, self.gaps.take() * MESSAGE_BYTES);
    }

    /// Charges a holder for memory of the mailbox, until the log is dropped.
    pub fn charge(&self, holder: Option<Holder>, bytes: usize) {
        let mut charges = self.charges.borrow_mut();
        let known = charges.iter_mut().find(|(known, _)| *known == holder);
        let (before, after) = match known {
            Some((_, charged)) => {
                *charged += bytes;
                (*charged - bytes, *charged)
            }
            None => {
                charges.push((holder, bytes + CHARGE_BYTES));
                (0, bytes + CHARGE_BYTES)
            }
        };
        self.ledger.recharge(holder, before, after);
    }

    /// Charges a holder for what is the mailbox's own.
    pub fn charge_own_to(&self, holder: Holder) {
        let mut charges = self.charges.borrow_mut();
        let Some(own) = charges.iter().position(|(known, _)| known.is_none()) else { return };
        let (_, bytes) = charges.swap_remove(own);
        drop(charges);
        self.ledger.recharge(None, bytes, 0);
        self.charge(Some(holder), bytes - CHARGE_BYTES);
    }

    /// Gives back memory of messages: to a holder, and to those charged most what is more than its
    /// charge. Which holder each message was charged to is not kept.
    fn uncharge(&self, holder: Option<Holder>, mut bytes: usize) {
        let mut charges = self.charges.borrow_mut();
        while bytes > 0
            && let Some((known, charged)) = charges
                .iter_mut()
                .filter(|(_, charged)| *charged > CHARGE_BYTES)
                .max_by_key(|(known, charged)| (*known == holder, *charged))
        {
            let taken = bytes.min(*charged - CHARGE_BYTES);
            self.ledger.recharge(*known, *charged, *charged - taken);
            *charged -= taken;
            bytes -= taken;
        }
    }

    /// Bytes that are charged to that holder for this mailbox.
    pub fn charged(&self, holder: Option<Holder>) -> usize {
        let charges = self.charges.borrow();
        charges.iter().find(|(known, _)| *known == holder).map_or(0, |(_, bytes)| *bytes)
    }

    /// The holder to which most of the mailbox is charged, and how much that is.
    pub fn main_charge(&self) -> (Option<Holder>, usize) {
        let charges = self.charges.borrow();
        charges.iter().copied().max_by_key(|(_, bytes)| *bytes).unwrap_or_default()
    }

    /// The message at a place; none in a gap or after the end.
    pub fn get(&self, place: usize) -> Option<Rc<Message>> {
        self.messages.borrow().get(place).cloned().flatten()
    }

    /// All messages that there are now, to be sent.
    pub fn replay(self: &Rc<MessageLog>) -> Replay {
        Replay { log: self.clone(), place: 0, end: self.places() }
    }

    /// Messages, without gaps.
    pub fn count(&self) -> usize {
        self.places() - self.gaps.get()
    }

    /// Messages and gaps.
    pub fn places(&self) -> usize {
        self.messages.borrow().len()
    }

    /// Sum of [`Message::counted_bytes`].
    pub fn counted_bytes(&self) -> usize {
        self.counted_bytes.get()
    }

    /// Drops the last messages of a mailbox that has ended. What they were charged is given back
    /// with the rest.
    pub fn shorten(&self, count: usize) {
        let mut messages = self.messages.borrow_mut();
        let kept = messages.len().saturating_sub(count);
        let gaps = messages[kept..].iter().filter(|place| place.is_none()).count();
        self.ledger.count_messages(-((messages.len() - kept - gaps) as isize));
        self.gaps.set(self.gaps.get() - gaps);
        messages.truncate(kept);
    }

    /// Drops all messages at once and gives back what they were charged. A replay in progress ends.
    pub fn clear(&self) {
        self.shorten(usize::MAX);
        *self.messages.borrow_mut() = Vec::new();
        for (holder, bytes) in std::mem::take(&mut *self.charges.borrow_mut()) {
            self.ledger.recharge(holder, bytes, 0);
        }
        self.counted_bytes.set(0);
    }
}

impl Drop for MessageLog {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::CountedAddress;

    fn holder(address: u8) -> Option<Holder> {
        Some(Holder::new(CountedAddress::Ip([192, 0, 2, address].into()), None))
    }

    fn push(log: &MessageLog, side: &str, phase: &str, holder: Option<Holder>) {
        let message = Message::new(side.into(), phase, "body", Timestamp(0.0), None);
        log.push(Rc::new(message), holder);
    }

    fn phases(replay: Replay) -> Vec<String> {
        replay.map(|message| message.phase().into_owned()).collect()
    }

    #[test]
    fn what_is_deleted_is_given_back_to_whom_it_was_charged() {
        let ledger = Ledger::default();
        let log = MessageLog::new(&ledger);
        let charged = || [1, 2].map(|address| log.charged(holder(address)));
        push(&log, "a", "1", holder(1));
        push(&log, "b", "1", holder(2));
        let (before, bytes, counted) = (charged(), ledger.bytes(), log.counted_bytes());
        push(&log, "a", "2", holder(1));
        push(&log, "b", "2", holder(2));
        assert_eq!([log.delete("a", "3", holder(1)), log.delete("c", "1", None)], [0, 0]);
        assert_eq!(log.delete("b", "2", holder(2)), 4);
        assert_eq!(log.delete("a", "2", holder(1)), 3);
        assert_eq!((charged(), ledger.bytes(), log.counted_bytes()), (before, bytes, counted));
        assert_eq!((log.count(), log.places(), ledger.messages()), (2, 2, 2));
        // Without the right holder the largest gives back.
        push(&log, "a", "a long phase", holder(1));
        assert_eq!(log.delete("a", "a long phase", holder(3)), 3);
        assert_eq!((charged(), ledger.bytes()), (before, bytes));
    }

    #[test]
    fn a_deletion_looks_at_the_first_messages_only() {
        let log = MessageLog::new(&Ledger::default());
        (1..=300).for_each(|phase| push(&log, "a", &phase.to_string(), None));
        for (phase, searched) in [(257, 0), (256, 256), (1, 1), (257, 255), (300, 0)] {
            assert_eq!(log.delete("a", &phase.to_string(), None), searched, "{phase}");
        }
    }

    #[test]
    fn a_replay_in_progress_goes_on_after_a_deletion() {
        let ledger = Ledger::default();
        let log = MessageLog::new(&ledger);
        (1..=4).for_each(|phase| push(&log, "a", &phase.to_string(), holder(1)));
        let mut replay = log.replay();
        assert!(replay.next().is_some_and(|message| message.phase() == "1"));
        for phase in ["1", "3"] {
            assert!(log.delete("a", phase, holder(1)) > 0);
        }
        assert_eq!((log.count(), log.places(), ledger.messages()), (2, 4, 2));
        assert_eq!(phases(replay), ["2", "4"]);
        assert_eq!(log.delete("a", "4", holder(1)), 2);
        assert_eq!((log.count(), log.places()), (1, 1));
        log.clear();
        assert_eq!((ledger.bytes(), ledger.messages(), log.count()), (0, 0, 0));
    }
}
