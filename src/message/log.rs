//! A mailbox's messages in order of arrival, and the ledger that counts everything stored.
//!
//! The log only grows, so that a replay in progress can share it. It is dropped with the mailbox
//! and the last such replay, and only then leaves the ledger: the ledger counts what is in memory.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::limits::{MAILBOX_BYTES, MESSAGE_OVERHEAD_BYTES};
use crate::sys::clock::Timestamp;
use crate::sys::mmap::MmapStr;

/// A message stored in a mailbox: shared by the mailbox, the outboxes of its subscribers and the
/// batch that goes to the database.
#[derive(Debug, PartialEq)]
pub struct Message {
    pub side: Rc<str>,
    pub phase: Box<str>,
    /// Hex by convention, not checked.
    pub body: MmapStr,
    pub server_rx: Timestamp,
    /// The `id` of the `add`: a string, or another JSON value as its text.
    pub id: Option<Box<str>>,
}

impl Message {
    /// Bytes that count towards limits.
    pub fn bytes(&self) -> usize {
        let id_bytes = self.id.as_ref().map_or(0, |id| id.len());
        self.phase.len() + self.body.as_bytes().len() + id_bytes + MESSAGE_OVERHEAD_BYTES
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

/// Counts what all mailboxes store.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Rc<Entries>);

#[derive(Debug, Default)]
struct Entries {
    bytes: Cell<usize>,
    messages: Cell<usize>,
}

impl Ledger {
    pub fn bytes(&self) -> usize {
        self.0.bytes.get()
    }

    pub fn messages(&self) -> usize {
        self.0.messages.get()
    }

    fn add(&self, bytes: usize, messages: usize) {
        self.0.bytes.set(self.0.bytes.get() + bytes);
        self.0.messages.set(self.0.messages.get() + messages);
    }

    fn remove(&self, bytes: usize, messages: usize) {
        self.0.bytes.set(self.0.bytes.get() - bytes);
        self.0.messages.set(self.0.messages.get() - messages);
    }
}

/// The messages of one mailbox.
#[derive(Debug)]
pub struct MessageLog {
    messages: RefCell<Vec<Rc<Message>>>,
    bytes: Cell<usize>,
    ledger: Ledger,
}

impl MessageLog {
    /// An empty log. It counts in the ledger as a mailbox.
    pub fn new(ledger: &Ledger) -> Rc<MessageLog> {
        ledger.add(MAILBOX_BYTES, 0);
        Rc::new(MessageLog {
            messages: RefCell::default(),
            bytes: Cell::default(),
            ledger: ledger.clone(),
        })
    }

    pub fn push(&self, message: Rc<Message>) {
        self.bytes.set(self.bytes.get() + message.bytes());
        self.ledger.add(message.bytes(), 1);
        self.messages.borrow_mut().push(message);
    }

    pub fn get(&self, index: usize) -> Option<Rc<Message>> {
        self.messages.borrow().get(index).cloned()
    }

    pub fn count(&self) -> usize {
        self.messages.borrow().len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }
}

impl Drop for MessageLog {
    fn drop(&mut self) {
        self.ledger.remove(MAILBOX_BYTES + self.bytes.get(), self.count());
    }
}
