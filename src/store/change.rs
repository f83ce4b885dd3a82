//! What leaves the store towards the files: row changes for the channel database, records for the
//! usage database, and the whole as a `Snapshot` when it comes back at a start.
//!
//! Plain data. Row numbers are the database's rowids: the store hands them out itself, so that an
//! update finds its row without an index the schema does not have.

use std::rc::Rc;

use crate::message::log::Message;
use crate::message::outcome::Outcome;
use crate::message::{ConnId, Response};
use crate::sys::clock::{Seconds, Timestamp};

/// Rowid of a table in the channel database.
pub type RowId = i64;

/// One row change of the channel database (contract section 5), in the order it happened.
#[derive(Clone, Debug)]
pub enum Change {
    CreateMailbox {
        row: RowId,
        app: Rc<str>,
        mailbox: Rc<str>,
        updated: Timestamp,
        for_nameplate: bool,
    },
    TouchMailbox {
        row: RowId,
        mailbox: Rc<str>,
        updated: Timestamp,
    },
    /// The mailbox with its messages and sides; its nameplates go by changes of their own.
    DeleteMailbox {
        row: RowId,
        app: Rc<str>,
        mailbox: Rc<str>,
        sides: Vec<RowId>,
        messages: bool,
    },
    AddMailboxSide {
        row: RowId,
        mailbox: Rc<str>,
        opened: bool,
        side: Rc<str>,
        added: Timestamp,
    },
    CloseMailboxSide {
        row: RowId,
        mailbox: Rc<str>,
        side: Rc<str>,
        mood: Option<Rc<str>>,
    },
    AddMessage {
        app: Rc<str>,
        mailbox: Rc<str>,
        message: Rc<Message>,
    },
    CreateNameplate {
        row: RowId,
        app: Rc<str>,
        name: Rc<str>,
        mailbox: Rc<str>,
    },
    /// The nameplate with its sides.
    DeleteNameplate {
        row: RowId,
        sides: Vec<RowId>,
    },
    AddNameplateSide {
        row: RowId,
        nameplate: RowId,
        claimed: bool,
        side: Rc<str>,
        added: Timestamp,
    },
    ReleaseNameplateSide {
        row: RowId,
        nameplate: RowId,
        side: Rc<str>,
    },
}

/// One row of the usage database (contract section 5).
#[derive(Clone, Debug, PartialEq)]
pub enum UsageRecord {
    Nameplate {
        app: Rc<str>,
        started: Timestamp,
        waiting_time: Option<Seconds>,
        total_time: Seconds,
        result: Outcome,
    },
    Mailbox {
        app: Rc<str>,
        for_nameplate: bool,
        started: Timestamp,
        waiting_time: Option<Seconds>,
        total_time: Seconds,
        result: Outcome,
    },
    ClientVersion {
        app: Rc<str>,
        side: Rc<str>,
        connect_time: Timestamp,
        implementation: Option<Box<str>>,
        version: Option<Box<str>>,
    },
}

/// All that a tick's commands caused. The caller owns it, commits `changes`, and only then sends
/// `replies`.
#[derive(Debug, Default)]
pub struct Effects {
    /// For the channel database, in order.
    pub changes: Vec<Change>,
    /// For clients, in order.
    pub replies: Vec<(ConnId, Response)>,
    /// For the usage database.
    pub usage: Vec<UsageRecord>,
    /// Connections whose open mailbox was deleted by another's command.
    pub orphans: Vec<ConnId>,
}

/// The channel database's rows as they were read at a start, each table in rowid order.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub mailboxes: Vec<MailboxRow>,
    pub mailbox_sides: Vec<MailboxSideRow>,
    pub messages: Vec<MessageRow>,
    pub nameplates: Vec<NameplateRow>,
    pub nameplate_sides: Vec<NameplateSideRow>,
    /// The highest nameplate id ever given out; AUTOINCREMENT promises not to repeat one.
    pub nameplate_row_max: RowId,
}

/// A row of `mailboxes`.
#[derive(Debug)]
pub struct MailboxRow {
    pub row: RowId,
    pub app: String,
    pub mailbox: String,
    pub updated: Timestamp,
    pub for_nameplate: bool,
}

/// A row of `mailbox_sides`.
#[derive(Debug)]
pub struct MailboxSideRow {
    pub row: RowId,
    pub mailbox: String,
    pub opened: bool,
    pub side: String,
    pub added: Timestamp,
    pub mood: Option<String>,
}

/// A row of `messages`.
#[derive(Debug)]
pub struct MessageRow {
    pub mailbox: String,
    pub side: String,
    pub phase: String,
    pub body: String,
    pub server_rx: Timestamp,
    pub id: Option<String>,
}

/// A row of `nameplates`.
#[derive(Debug)]
pub struct NameplateRow {
    pub row: RowId,
    pub app: String,
    pub name: String,
    pub mailbox: String,
}

/// A row of `nameplate_sides`.
#[derive(Debug)]
pub struct NameplateSideRow {
    pub row: RowId,
    pub nameplate: RowId,
    pub claimed: bool,
    pub side: String,
    pub added: Timestamp,
}
