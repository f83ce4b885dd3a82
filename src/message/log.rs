//! A mailbox's messages in order of arrival, and the ledger of all that is stored.
//!
//! The log only grows, so that a replay in progress can share it; it is dropped as a whole, with
//! the mailbox and the last such replay, and only then leaves the ledger. So the ledger is what
//! memory really holds.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::limits::{MAILBOX_BYTES, MESSAGE_OVERHEAD_BYTES};
use crate::sys::clock::Timestamp;
use crate::sys::mmap::Text;

/// A message stored in a mailbox: shared by the mailbox, the listeners' outboxes and the batch on
/// its way to the database.
#[derive(Debug, PartialEq)]
pub struct Message {
    /// The side that added it.
    pub side: Rc<str>,
    /// As the client sent it.
    pub phase: Box<str>,
    /// As the client sent it; hex by convention, not checked.
    pub body: Text,
    /// When it was received.
    pub server_rx: Timestamp,
    /// The add's `id` as the database keeps it.
    pub id: Option<Box<str>>,
}

impl Message {
    /// Bytes that count towards limits.
    pub fn bytes(&self) -> usize {
        let text = self.phase.len() + self.body.len() + self.id.as_ref().map_or(0, |id| id.len());
        text + MESSAGE_OVERHEAD_BYTES
    }
}

/// Stored messages still to be sent to one connection: a window on the mailbox's log.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The mailbox's messages.
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

/// What is stored in all mailboxes.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Rc<Entries>);

#[derive(Debug, Default)]
struct Entries {
    bytes: Cell<usize>,
    messages: Cell<usize>,
}

impl Ledger {
    /// Bytes stored now.
    pub fn bytes(&self) -> usize {
        self.0.bytes.get()
    }

    /// Messages stored now.
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
    /// Bytes of the messages.
    bytes: Cell<usize>,
    ledger: Ledger,
}

impl MessageLog {
    /// An empty log, which counts as a mailbox in the ledger.
    pub fn new(ledger: &Ledger) -> Rc<MessageLog> {
        ledger.add(MAILBOX_BYTES, 0);
        Rc::new(MessageLog {
            messages: RefCell::default(),
            bytes: Cell::default(),
            ledger: ledger.clone(),
        })
    }

    /// Appends a message.
    pub fn push(&self, message: Rc<Message>) {
        self.bytes.set(self.bytes.get() + message.bytes());
        self.ledger.add(message.bytes(), 1);
        self.messages.borrow_mut().push(message);
    }

    /// The message at an index.
    pub fn get(&self, index: usize) -> Option<Rc<Message>> {
        self.messages.borrow().get(index).cloned()
    }

    /// How many messages there are.
    pub fn count(&self) -> usize {
        self.messages.borrow().len()
    }

    /// Bytes of the messages.
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }
}

impl Drop for MessageLog {
    fn drop(&mut self) {
        self.ledger.remove(MAILBOX_BYTES + self.bytes.get(), self.count());
    }
}
