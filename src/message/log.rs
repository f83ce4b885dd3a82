//! A mailbox's messages in order of arrival.
//!
//! The log only grows, so that a replay in progress can share it. Its memory leaves the ledger when
//! it is dropped, with the mailbox and the last such replay, or cleared.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::ledger::{Holder, Ledger};
use crate::limits::{CHARGE_BYTES, MESSAGE_BYTES, MESSAGE_OVERHEAD_BYTES};
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
    /// Index of the next message to send.
    pub next: usize,
    /// Index after the last message to send.
    pub end: usize,
}

impl Iterator for Replay {
    type Item = Rc<Message>;

    fn next(&mut self) -> Option<Rc<Message>> {
        if self.next == self.end {
            return None;
        }
        let message = self.log.get(self.next);
        self.next += 1;
        message
    }
}

/// The messages of one mailbox, and the memory that all of the mailbox takes.
#[derive(Debug)]
pub struct MessageLog {
    messages: RefCell<Vec<Rc<Message>>>,
    /// Of the messages, as they count towards the mailbox's limit.
    counted_bytes: Cell<usize>,
    /// Bytes of the mailbox by the holder they are charged to. Those of none are the mailbox's own.
    charges: RefCell<Vec<(Option<Holder>, usize)>>,
    ledger: Ledger,
}

impl MessageLog {
    pub fn new(ledger: &Ledger) -> Rc<MessageLog> {
        Rc::new(MessageLog {
            messages: RefCell::default(),
            counted_bytes: Cell::default(),
            charges: RefCell::default(),
            ledger: ledger.clone(),
        })
    }

    pub fn push(&self, message: Rc<Message>, holder: Option<Holder>) {
        self.counted_bytes.set(self.counted_bytes.get() + message.counted_bytes());
        self.charge(holder, message.bytes());
        self.ledger.count_messages(1);
        self.messages.borrow_mut().push(message);
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
        self.ledger.change(holder, before, after);
    }

    /// Charges a holder for what is the mailbox's own.
    pub fn charge_own_to(&self, holder: Holder) {
        if let Some(bytes) = self.take_charge(None) {
            self.charge(Some(holder), bytes - CHARGE_BYTES);
        }
    }

    fn take_charge(&self, holder: Option<Holder>) -> Option<usize> {
        let mut charges = self.charges.borrow_mut();
        let place = charges.iter().position(|(known, _)| *known == holder)?;
        let (_, bytes) = charges.swap_remove(place);
        self.ledger.change(holder, bytes, 0);
        Some(bytes)
    }

    /// What is charged to that holder for this mailbox.
    pub fn charged(&self, holder: Option<Holder>) -> usize {
        let charges = self.charges.borrow();
        charges.iter().find(|(known, _)| *known == holder).map_or(0, |(_, bytes)| *bytes)
    }

    /// The holder to which most of the mailbox is charged, and how much that is.
    pub fn main_charge(&self) -> (Option<Holder>, usize) {
        let charges = self.charges.borrow();
        charges.iter().copied().max_by_key(|(_, bytes)| *bytes).unwrap_or_default()
    }

    pub fn get(&self, index: usize) -> Option<Rc<Message>> {
        self.messages.borrow().get(index).cloned()
    }

    pub fn count(&self) -> usize {
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
        self.ledger.uncount_messages(messages.len() - kept);
        messages.truncate(kept);
    }

    /// Drops all messages at once and gives back what they were charged. A replay in progress ends.
    pub fn clear(&self) {
        self.shorten(usize::MAX);
        *self.messages.borrow_mut() = Vec::new();
        for (holder, bytes) in std::mem::take(&mut *self.charges.borrow_mut()) {
            self.ledger.change(holder, bytes, 0);
        }
        self.counted_bytes.set(0);
    }
}

impl Drop for MessageLog {
    fn drop(&mut self) {
        self.clear();
    }
}
