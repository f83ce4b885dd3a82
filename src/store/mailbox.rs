//! One mailbox: its sides, its messages, and the connections that listen to it.

use std::rc::Rc;

use super::change::RowId;
use super::sides::Sides;
use crate::message::ConnId;
use crate::message::log::{Ledger, Message, MessageLog, Replay};
use crate::sys::clock::Timestamp;

/// A mailbox (contract section 3).
#[derive(Debug)]
pub struct Mailbox {
    /// Its rowid in the database.
    pub row: RowId,
    /// The app it belongs to; ids are unique over all apps.
    pub app: Rc<str>,
    /// Whether a nameplate's first claim created it.
    pub for_nameplate: bool,
    /// Last activity, as in the database.
    pub updated: Timestamp,
    /// Its place in the expiry index, which may be older than `updated`.
    pub indexed: Timestamp,
    /// Who opened it.
    pub sides: Sides,
    /// Connections subscribed to it.
    pub subscribers: Vec<ConnId>,
    /// Names of the nameplates that point to it; one at most, unless a file says otherwise.
    pub nameplates: Vec<Rc<str>>,
    /// Messages in order of arrival.
    log: Rc<MessageLog>,
}

impl Mailbox {
    pub fn new(
        row: RowId,
        app: Rc<str>,
        for_nameplate: bool,
        updated: Timestamp,
        ledger: &Ledger,
    ) -> Mailbox {
        Mailbox {
            row,
            app,
            for_nameplate,
            updated,
            indexed: updated,
            sides: Sides::default(),
            subscribers: Vec::new(),
            nameplates: Vec::new(),
            log: MessageLog::new(ledger),
        }
    }

    /// Appends a message.
    pub fn push(&self, message: Rc<Message>) {
        self.log.push(message);
    }

    /// Everything stored so far, to be sent to a new subscriber.
    pub fn replay(&self) -> Replay {
        Replay { log: self.log.clone(), next: 0, end: self.messages_count() }
    }

    /// How many messages are stored.
    pub fn messages_count(&self) -> usize {
        self.log.count()
    }

    /// Bytes of the messages stored.
    pub fn messages_bytes(&self) -> usize {
        self.log.bytes()
    }

    /// Ends a connection's subscription, if it has one; gives how many ended.
    pub fn unsubscribe(&mut self, conn: ConnId) -> usize {
        let before = self.subscribers.len();
        self.subscribers.retain(|subscriber| *subscriber != conn);
        before - self.subscribers.len()
    }
}
