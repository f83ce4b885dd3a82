//! What the store hands out for the files: row changes for the channel database and records for
//! the usage database. Plain data.
//!
//! The ids of side rows are SQLite rowids: the tables of sides have no index, so the store hands
//! out their rowids itself and an update needs no search.

use std::rc::Rc;

use crate::limits::BATCH_ENTRIES_KEPT;
use crate::message::{CloseReason, ConnId, Holder, Message, Outcome, Outputs};
use crate::sys::clock::{Seconds, Timestamp};

/// Primary key of `nameplates`, never given out twice (AUTOINCREMENT).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameplateId(pub i64);

/// Rowid in `nameplate_sides` or `mailbox_sides`, counted over both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SideId(pub i64);

/// A row of the channel database, as a change inserts it and as a load returns it.
#[derive(Clone, Debug)]
pub enum Row {
    Mailbox {
        app: Rc<str>,
        mailbox: Rc<str>,
        updated: Timestamp,
        for_nameplate: bool,
    },
    MailboxSide {
        id: SideId,
        mailbox: Rc<str>,
        opened: bool,
        side: Rc<str>,
        added: Timestamp,
        /// None in a new row.
        mood: Option<Rc<str>>,
    },
    Message {
        app: Rc<str>,
        mailbox: Rc<str>,
        message: Rc<Message>,
    },
    Nameplate {
        id: NameplateId,
        app: Rc<str>,
        name: Rc<str>,
        mailbox: Rc<str>,
    },
    NameplateSide {
        id: SideId,
        nameplate: NameplateId,
        claimed: bool,
        side: Rc<str>,
        added: Timestamp,
    },
}

/// One change of the channel database.
#[derive(Clone, Debug)]
pub enum Change {
    Insert(Row),
    /// Moves the times of all mailboxes and sides: the wall clock was set.
    ShiftTimes {
        seconds: Seconds,
    },
    TouchMailbox {
        mailbox: Rc<str>,
        updated: Timestamp,
    },
    /// Deletes the mailbox with its sides; each of its nameplates has a change of its own.
    DeleteMailbox {
        app: Rc<str>,
        mailbox: Rc<str>,
        sides: Vec<SideId>,
        /// Whether its messages go with it; many of them follow in changes of their own.
        with_messages: bool,
        /// The gravest with which a side closed it.
        mood: Option<Outcome>,
    },
    /// Deletes that many messages of a mailbox that has been deleted, the last first.
    DeleteMessages {
        app: Rc<str>,
        mailbox: Rc<str>,
        count: usize,
    },
    /// Deletes the messages of a side with a phase from the first `searched` of a mailbox.
    DeletePhase {
        app: Rc<str>,
        mailbox: Rc<str>,
        side: Box<str>,
        phase: Box<str>,
        searched: usize,
    },
    CloseMailboxSide {
        id: SideId,
        mailbox: Rc<str>,
        side: Rc<str>,
        mood: Option<Rc<str>>,
    },
    /// Deletes the nameplate with its sides.
    DeleteNameplate {
        id: NameplateId,
        sides: Vec<SideId>,
    },
    ReleaseNameplateSide {
        id: SideId,
        nameplate: NameplateId,
        side: Rc<str>,
    },
}

/// A table of the usage database for what has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageKind {
    Nameplate,
    Mailbox {
        /// Whether a nameplate created it.
        for_nameplate: bool,
    },
}

/// One row of the usage database.
#[derive(Clone, Debug, PartialEq)]
pub enum UsageRecord {
    Ended {
        app: Rc<str>,
        kind: UsageKind,
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

impl UsageRecord {
    /// The app that it is about.
    pub fn app(&self) -> &str {
        match self {
            UsageRecord::Ended { app, .. } | UsageRecord::ClientVersion { app, .. } => app,
        }
    }
}

/// All that a tick has caused. The engine owns it, and releases `outputs` only after `changes` are
/// committed.
#[derive(Debug, Default)]
pub struct Effects {
    /// For the channel database, in order.
    pub changes: Vec<Change>,
    /// For clients, in order.
    pub outputs: Outputs,
    /// For the usage database, each with the address that caused it; none if exempt or unknown.
    pub usage: Vec<(UsageRecord, Option<Holder>)>,
    /// Mailboxes of two or more sides that ended as an attacked exchange does: the addresses of
    /// the sides.
    pub hostile_endings: Vec<Vec<Option<Holder>>>,
    /// Connections whose sessions may have changed with the tick, and which are closed if it fails:
    /// those that sent something, and those whose open mailbox was deleted by another connection.
    pub participants: Vec<ConnId>,
    /// Connections whose mailbox the command in hand has deleted, or that another has replaced
    /// there; its end makes them participants.
    pub(super) orphans: Vec<ConnId>,
    /// Connections to be closed once the tick is committed, and why.
    pub closings: Vec<(ConnId, CloseReason)>,
    /// Mailboxes deleted because the store was full.
    pub evicted_count: usize,
}

impl Effects {
    /// Notes that the tick depends on what this connection has sent.
    pub fn add_participant(&mut self, conn: ConnId) {
        if self.participants.last() != Some(&conn) {
            self.participants.push(conn);
        }
    }

    /// Drops what a failed tick has caused, except output that carries no state, such as pongs.
    /// Returns the participants.
    pub fn discard(&mut self) -> Vec<ConnId> {
        self.outputs.discard_responses();
        let outputs = std::mem::take(&mut self.outputs);
        let undone = std::mem::replace(self, Effects { outputs, ..Effects::default() });
        undone.participants
    }

    /// Must be called when all has been committed and released. Gives back the memory of a large
    /// tick.
    pub fn end_tick(&mut self) {
        assert!(self.changes.is_empty(), "changes outlived their tick");
        assert!(self.outputs.is_empty(), "output outlived its tick");
        self.participants.clear();
        self.changes.shrink_to(BATCH_ENTRIES_KEPT);
    }
}
