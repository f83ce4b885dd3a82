//! The in-process state and the rules of the mailbox protocol.
//!
//! A function of its inputs: it does no I/O, reads no clock and draws no randomness. Commands,
//! time and entropy come in as arguments; replies, row changes and usage records go out in
//! `Effects`. It must never know JSON, SQL or sockets, and never log.
//!
//! `session` decides what a connection may do, `tables` does it; `sides` holds the crowding rule,
//! `nameplate` and `mailbox` the two kinds of things, `cooling` the numbers not to hand out yet,
//! `usage` the summaries, `load` the way back from the files, `expiry` the periodic check.

mod change;
mod cooling;
mod expiry;
mod load;
mod mailbox;
mod nameplate;
mod session;
mod sides;
mod tables;
mod usage;

pub use change::{
    Change, Effects, MailboxRow, MailboxSideRow, MessageRow, NameplateRow, NameplateSideRow, RowId,
    Snapshot, UsageRecord,
};

use crate::limits::{EXPIRE_AFTER_SECONDS, Limits};
use crate::message::{Command, ConnId, ConnMap, Refusal};
use crate::sys::clock::{Seconds, Timestamp};
use crate::sys::entropy::Entropy;
use expiry::Expiry;
use session::Session;
use tables::Tables;

/// When a command happens, and the randomness it may use.
pub struct Moment<'a> {
    /// Wall-clock time, one value for all of a tick.
    pub now: Timestamp,
    /// Source of mailbox ids and nameplate choices.
    pub entropy: &'a mut dyn Entropy,
}

/// What `list` answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listing {
    /// The nameplates there are.
    #[default]
    Real,
    /// Nothing.
    Empty,
    /// The same long list for everyone.
    Decoy,
}

impl Listing {
    pub const ALL: [Listing; 3] = [Listing::Real, Listing::Empty, Listing::Decoy];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Listing::Real => "real",
            Listing::Empty => "empty",
            Listing::Decoy => "decoy",
        }
    }
}

/// What an operator may set about the rules.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Seconds that a mailbox lives without subscriber or activity.
    pub expire_after: Seconds,
    /// Usage times are rounded down to a multiple of this many seconds.
    pub blur: Option<Seconds>,
    /// What `list` answers.
    pub list: Listing,
    /// Whether `claim` may say that it must not create its nameplate.
    pub claim_without_allocate: bool,
    /// Seconds that a nameplate is not allocated again after its end.
    pub nameplate_cooldown: Seconds,
    /// Bytes of messages in one mailbox.
    pub mailbox_bytes_max: usize,
    /// Messages in one mailbox.
    pub mailbox_messages_max: usize,
    /// Bytes of all mailboxes.
    pub stored_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let limits = Limits::default();
        Settings {
            expire_after: EXPIRE_AFTER_SECONDS,
            blur: None,
            list: Listing::Real,
            claim_without_allocate: false,
            nameplate_cooldown: 0.0,
            mailbox_bytes_max: limits.mailbox_bytes_max,
            mailbox_messages_max: limits.mailbox_messages_max,
            stored_bytes_max: limits.stored_bytes_max,
        }
    }
}

/// All sessions, nameplates and mailboxes.
#[derive(Debug)]
pub struct Store {
    tables: Tables,
    sessions: ConnMap<Box<Session>>,
    expiry: Option<Expiry>,
    /// Whether the tables are what the database holds, or nothing for want of it.
    is_loaded: bool,
}

impl Store {
    /// The state that a database holds, with no connection yet.
    pub fn new(snapshot: Snapshot, settings: Settings) -> Store {
        let mut tables = load::tables(snapshot);
        tables.settings = settings;
        Store { tables, sessions: ConnMap::default(), expiry: None, is_loaded: true }
    }

    /// Replaces all state by what the database holds, after a commit failed. Sessions stay, so
    /// the caller must first [`Store::disconnect`] those that took part in the failed batch.
    pub fn reload(&mut self, snapshot: Snapshot) {
        self.replace(load::tables(snapshot));
        self.is_loaded = true;
        for (conn, session) in &mut self.sessions {
            session.rejoin(&mut self.tables, *conn);
        }
    }

    /// As [`Store::reload`], when the database cannot even be read: there is no state until it
    /// can. Sessions keep what they had open, to rejoin it then; until then the caller must let
    /// no command pass that changes or tells of it.
    pub fn unload(&mut self) {
        self.replace(Tables::default());
        self.is_loaded = false;
        for session in self.sessions.values_mut() {
            session.reenter(&mut self.tables);
        }
    }

    fn replace(&mut self, tables: Tables) {
        let settings = self.tables.settings;
        self.tables = tables;
        self.tables.settings = settings;
        self.expiry = None;
    }

    /// What `list` answers from now on.
    pub fn set_list(&mut self, list: Listing) {
        self.tables.settings.list = list;
    }

    /// Whether there is anything to tell of.
    pub fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    /// A connection has completed its handshake.
    pub fn connect(&mut self, conn: ConnId) {
        self.sessions.insert(conn, Box::default());
    }

    /// A connection is gone. Its side's claims and open mailboxes stay as they are.
    pub fn disconnect(&mut self, conn: ConnId) {
        if let Some(session) = self.sessions.remove(&conn) {
            session.end(&mut self.tables, conn);
        }
    }

    /// Carries out one command. On a refusal nothing has changed but what section 2 says.
    pub fn apply(
        &mut self,
        conn: ConnId,
        command: &Command<'_>,
        moment: &mut Moment<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get_mut(&conn) else {
            return Err(Refusal::MustBindFirst);
        };
        for orphan in session.apply(&mut self.tables, conn, command, moment, effects)? {
            if let Some(session) = self.sessions.get_mut(&orphan) {
                session.orphan();
                effects.orphans.push(orphan);
            }
        }
        Ok(())
    }

    /// Whether the connection has bound.
    pub fn is_bound(&self, conn: ConnId) -> bool {
        self.sessions.get(&conn).is_some_and(|session| session.app().is_some())
    }

    /// Whether a nameplate of that name lives in the connection's app.
    pub fn has_nameplate(&self, conn: ConnId, name: &str) -> bool {
        let app = self.sessions.get(&conn).and_then(|session| session.app());
        app.is_some_and(|app| self.tables.has_nameplate(app, name))
    }

    /// How many connections are subscribed to a mailbox.
    pub fn subscriptions_count(&self) -> usize {
        self.tables.subscriptions_count()
    }

    /// Bytes stored in all mailboxes.
    pub fn stored_bytes(&self) -> usize {
        self.tables.ledger.bytes()
    }

    /// How many connections have bound.
    pub fn bound_count(&self) -> usize {
        self.tables.bound_count()
    }

    /// How many apps somebody is bound to or has a nameplate in.
    pub fn apps_count(&self) -> usize {
        self.tables.apps_count()
    }

    /// How many nameplates there are of one digit, two, three, and more.
    pub fn nameplates_by_digits(&self) -> [usize; NAMEPLATE_CLASSES] {
        self.tables.nameplates_by_digits()
    }

    /// How many nameplates and mailboxes there are. A message counts as long as memory holds it:
    /// while it is still being sent, its mailbox may have ended.
    pub fn counts(&self) -> Counts {
        Counts {
            nameplates: self.nameplates_by_digits().iter().sum(),
            mailboxes: self.tables.mailboxes_count(),
            messages: self.tables.ledger.messages(),
        }
    }
}

/// Classes of nameplates that are counted apart, by their digits: 1, 2, 3, and more.
pub const NAMEPLATE_CLASSES: usize = 4;

/// Numbers for the log, for those who watch, and for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub nameplates: usize,
    pub mailboxes: usize,
    pub messages: usize,
}
