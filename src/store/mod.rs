//! The state in memory and the rules of the mailbox protocol.
//!
//! A function of its inputs: it does no I/O, reads no clock and draws no randomness. Commands,
//! time and entropy come in as arguments; replies, row changes and usage records go out in
//! [`Effects`]. It must never know JSON, SQL or sockets, and never log.
//!
//! A command's rules are in one place: `bind` in `session`, those about nameplates in
//! `nameplates`, those about mailboxes in `mailboxes`. Beneath them: `tables` holds what there is,
//! `app` the nameplates of one app id, `mailbox` one mailbox, `sides` the crowding rule, `room` the
//! shares of addresses, `remains` what is still to be deleted, `cooling` the numbers not to hand
//! out yet, `usage` the summaries, `change` what goes out, `load` the way back from the files,
//! `activity` the times that are later than these say, `expiry` the periodic check.

mod activity;
mod app;
mod change;
mod cooling;
mod expiry;
mod load;
mod mailbox;
mod mailboxes;
mod nameplates;
mod remains;
mod room;
mod session;
mod sides;
mod tables;
mod usage;

pub use change::{Change, Effects, NameplateId, Row, SideId, UsageKind, UsageRecord};

use crate::limits::{
    ACTIVITY_LAG_DIVISOR, ACTIVITY_LAG_SECONDS_MAX, DELETIONS_PER_TICK_MAX, EXPIRE_AFTER_SECONDS,
    Limits, SUBSCRIBERS_PER_SIDE_MAX,
};
use crate::message::{
    Command, ConnId, ConnMap, Field, Holder, MailboxState, Refusal, Response, Session,
};
use crate::sorted::sorted;
use crate::sys::clock::{Seconds, Timestamp};
use crate::sys::entropy::Entropy;
use activity::Activity;
use expiry::Expiry;
use load::Loader;
use tables::Tables;

/// The inputs of every command, and where its effects go.
pub struct Act<'a> {
    /// The time for the rules, one value for all of a tick.
    pub now: Timestamp,
    /// The time that the wall clock shows, which may have been set by some seconds meanwhile.
    pub wall: Timestamp,
    /// For mailbox ids and the choice of nameplates.
    pub entropy: &'a mut dyn Entropy,
    pub effects: &'a mut Effects,
    /// Whether the connection may begin something, instead of joining what exists.
    pub may_begin: bool,
}

impl Act<'_> {
    fn insert(&mut self, row: Row) {
        self.effects.changes.push(Change::Insert(row));
    }
}

/// The result of a command: its response, if it has one.
type Answer = Result<Option<Response>, Refusal>;

/// The answer to `list`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listing {
    /// The app's nameplates.
    #[default]
    Real,
    Empty,
    /// Every number from 1 to 999.
    Decoy,
}

impl Listing {
    /// Its names on the command line.
    pub const NAMES: [(&'static str, Listing); 3] =
        [("real", Listing::Real), ("empty", Listing::Empty), ("decoy", Listing::Decoy)];
}

/// The rules as far as they can be set.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How long a mailbox lives without subscriber or activity.
    pub expire_after: Seconds,
    /// Usage times are rounded down to a multiple of this. Zero only silences the log of
    /// connections, as upstream.
    pub blur: Option<Seconds>,
    /// Whether `claim` may say that it must not create its nameplate.
    pub claim_without_allocate: bool,
    /// Digits of an allocated nameplate at least, 1 to 6.
    pub nameplate_digits_min: u32,
    /// How long a nameplate is not allocated again after its end.
    pub nameplate_cooldown: Seconds,
    /// Rows of messages that one tick deletes; long ones count as several. No option sets it.
    pub deletions_per_tick_max: usize,
    /// Connections of one side that are subscribed to a mailbox. No option sets it.
    pub subscribers_per_side_max: usize,
    /// Each `claim` and `open` finds two other sides: trouble on order. No option sets it.
    pub is_crowded: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            expire_after: EXPIRE_AFTER_SECONDS,
            blur: None,
            claim_without_allocate: false,
            nameplate_digits_min: 1,
            nameplate_cooldown: 0.0,
            deletions_per_tick_max: DELETIONS_PER_TICK_MAX,
            subscribers_per_side_max: SUBSCRIBERS_PER_SIDE_MAX,
            is_crowded: false,
        }
    }
}

impl Rules {
    /// By how much the time of a mailbox's last activity in the file may lag (manual: rules 5).
    fn activity_lag(&self) -> Seconds {
        ACTIVITY_LAG_SECONDS_MAX.min(self.expire_after / ACTIVITY_LAG_DIVISOR)
    }
}

/// All sessions, nameplates and mailboxes.
#[derive(Debug)]
pub struct Store {
    tables: Tables,
    sessions: ConnMap<Box<Session>>,
    expiry: Option<Expiry>,
    /// Times that a load keeps of the tables before, until one succeeds.
    activity: Activity,
    /// Whether the tables match the database: false after a failed load.
    is_loaded: bool,
}

impl Store {
    /// The state of an empty database, with no connection.
    pub fn new(rules: Rules, limits: Limits) -> Store {
        let (tables, sessions) = (Tables::new(rules, limits), ConnMap::default());
        let activity = Activity::default();
        Store { tables, sessions, expiry: None, activity, is_loaded: true }
    }

    /// Replaces nameplates and mailboxes by the rows that `load` passes on: a table's rows before
    /// those that refer to it, each table in the order of its ids. `load` returns the highest
    /// nameplate id ever given out. The old state is dropped before the first row comes, so that
    /// memory holds one of them only.
    ///
    /// The times of mailboxes' last activities stay, as far as the file has older ones.
    ///
    /// Sessions stay, so after a failed commit the caller must first [`Store::disconnect`] those
    /// that took part in it. Times later than `now` count as `now`. After a failed load there is no
    /// state: until a later load succeeds, the caller must let no command pass that reads or
    /// changes it.
    pub fn load<E>(
        &mut self,
        now: Timestamp,
        load: impl FnOnce(&mut dyn FnMut(Row)) -> Result<NameplateId, E>,
    ) -> Result<(), E> {
        self.activity.keep(&self.tables, now);
        self.clear();
        let mut loader = Loader::new(&mut self.tables, now, &self.activity);
        let loaded = load(&mut |row| loader.add(row));
        self.end_load(loaded.as_ref().ok().copied());
        loaded.map(drop)
    }

    /// Ties the sessions to the new tables, or to none. `last_nameplate`: if the load succeeded.
    fn end_load(&mut self, last_nameplate: Option<NameplateId>) {
        self.is_loaded = last_nameplate.is_some();
        match last_nameplate {
            Some(last) => {
                self.tables.last_nameplate = self.tables.last_nameplate.max(last);
                self.activity = Activity::default();
            }
            None => self.clear(),
        }
        // The oldest first: what is loaded is charged to the first.
        for conn in sorted(self.sessions.keys().copied()) {
            let Some(session) = self.sessions.get_mut(&conn) else { continue };
            session.reenter(&mut self.tables);
            if self.is_loaded {
                session.resubscribe(&mut self.tables, conn);
            }
        }
    }

    /// The wall clock was set: all that is stored gets new times, so that its age stays.
    pub fn shift_times(&mut self, seconds: Seconds) {
        self.tables.shift_times(seconds);
        if let Some(expiry) = &mut self.expiry {
            expiry.began = expiry.began + seconds;
        }
    }

    fn clear(&mut self) {
        let Tables { rules, limits, listing, .. } = std::mem::take(&mut self.tables);
        self.tables = Tables { listing, ..Tables::new(rules, limits) };
        self.expiry = None;
    }

    /// Must be called once a tick, after its commands: deletes the next slice of the messages of
    /// mailboxes that have ended, and renews the budgets for the next tick. Returns whether more is
    /// left to delete.
    pub fn end_tick(&mut self, effects: &mut Effects) -> bool {
        self.tables.remains.delete_slice(effects);
        self.tables.renew_budgets();
        !self.tables.remains.is_empty()
    }

    /// Sets what `list` answers from now on.
    pub fn set_listing(&mut self, listing: Listing) {
        self.tables.listing = listing;
    }

    /// Whether the tables match the database: false after a failed load.
    pub fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    /// A connection has completed its handshake. What it stores is charged to `holder`; without
    /// one, to each mailbox itself.
    pub fn connect(&mut self, conn: ConnId, holder: Option<Holder>) {
        self.sessions.insert(conn, Box::new(Session { holder, ..Session::default() }));
    }

    /// The session of a connection, if its handshake is complete.
    pub fn session(&self, conn: ConnId) -> Option<&Session> {
        self.sessions.get(&conn).map(|session| &**session)
    }

    /// Restores a session of another process: counts it in its app, and subscribes it to its
    /// mailbox. Nothing is replayed, and it does not count as activity.
    pub fn restore_session(&mut self, conn: ConnId, holder: Option<Holder>, session: Session) {
        let mut session = Box::new(Session { holder, ..session });
        session.reenter(&mut self.tables);
        session.resubscribe(&mut self.tables, conn);
        self.sessions.insert(conn, session);
    }

    /// A connection is gone. Its side's claims and open mailboxes stay as they are.
    pub fn disconnect(&mut self, conn: ConnId) {
        let Some(session) = self.sessions.remove(&conn) else { return };
        if let MailboxState::Open(mailbox) = &session.mailbox {
            self.tables.unsubscribe(mailbox, conn);
        }
        if let Some(app) = session.app() {
            self.tables.leave_app(app);
        }
    }

    /// Carries out one command. A refused command changes nothing, except that a refused side may
    /// be recorded.
    pub fn apply(
        &mut self,
        conn: ConnId,
        command: &Command<'_>,
        act: &mut Act<'_>,
    ) -> Result<(), Refusal> {
        let outcome = self.carry_out(conn, command, act);
        // Also when it was refused: others may have lost their mailbox to make room for it.
        while let Some(orphan) = act.effects.orphans.pop() {
            if let Some(session) = self.sessions.get_mut(&orphan) {
                session.orphan();
            }
            act.effects.participants.push(orphan);
        }
        if let Some(response) = outcome? {
            act.effects.outputs.reply(conn, response);
        }
        Ok(())
    }

    fn carry_out(&mut self, conn: ConnId, command: &Command<'_>, act: &mut Act<'_>) -> Answer {
        let session = self.sessions.get_mut(&conn).ok_or(Refusal::MustBindFirst)?;
        let tables = &mut self.tables;
        match command {
            Command::Ping { value: None } => Err(Refusal::PingRequiresPing),
            Command::Ping { value: Some(value) } => Ok(Some(Response::Pong((*value).into()))),
            // Already checked by the engine; nothing to do here.
            Command::SubmitPermissions { .. } => Ok(None),
            Command::Bind { appid, side, client_version } => {
                session.bind(tables, appid, side, client_version, act)
            }
            Command::List => tables.list(session, act.may_begin),
            Command::Allocate => tables.allocate(session, act),
            Command::Claim { nameplate, allocate } => {
                tables.claim(session, nameplate, *allocate, act)
            }
            Command::Release { nameplate } => tables.release(session, nameplate, act),
            Command::Open { mailbox } => tables.open(session, conn, mailbox, act),
            Command::Add { phase, body, id } => {
                tables.add(session, phase, body, id.as_deref(), act)
            }
            Command::Delete { their_phase, their_side } => {
                tables.delete(session, their_phase, their_side, act)
            }
            Command::Close { mailbox, mood } => tables.close(session, conn, mailbox, mood, act),
            Command::Unknown => session.identity().and(Err(Refusal::UnknownType)),
        }
    }

    /// Whether the connection has bound.
    pub fn is_bound(&self, conn: ConnId) -> bool {
        self.app(conn).is_some()
    }

    /// The app that the connection is bound to.
    pub fn app(&self, conn: ConnId) -> Option<&str> {
        self.session(conn)?.app()
    }

    /// Whether a nameplate of that name exists in the connection's app.
    pub fn has_nameplate(&self, conn: ConnId, name: &str) -> bool {
        self.app(conn).is_some_and(|app| self.tables.nameplate(app, name).is_some())
    }

    /// The ids of all nameplates.
    pub fn nameplate_ids(&self) -> impl Iterator<Item = NameplateId> {
        let nameplates = self.tables.apps.values().flat_map(|app| app.by_name.values());
        nameplates.map(|nameplate| nameplate.id)
    }

    /// Whether a mailbox of that id exists, in whatever app.
    pub fn has_mailbox(&self, id: &str) -> bool {
        self.tables.mailboxes.contains_key(id)
    }

    /// Writes the times of the last activity that their rows are behind with.
    pub fn write_activity(&mut self, effects: &mut Effects) {
        for (id, mailbox) in &mut self.tables.mailboxes {
            if mailbox.stored < mailbox.updated {
                mailbox.write_updated(id, effects);
            }
        }
    }

    /// Whether a command is refused whatever is stored: for what the connection has done so far, or
    /// for a name that it lacks or that cannot be one.
    pub fn is_out_of_order(&self, conn: ConnId, command: &Command<'_>) -> bool {
        let session = self.session(conn).filter(|it| it.app().is_some());
        match (command, session) {
            (Command::Ping { .. } | Command::SubmitPermissions { .. }, _) => false,
            (Command::Bind { .. }, bound) => bound.is_some(),
            (_, None) => true,
            (Command::Allocate, Some(session)) => session.allocated,
            (Command::Claim { nameplate, .. }, Some(session)) => {
                session.claimed.is_some() || !nameplate.is_text()
            }
            (Command::Release { nameplate }, Some(session)) => {
                session.nameplate_to_release(nameplate).is_err()
            }
            (Command::Open { mailbox }, Some(session)) => {
                session.has_open_mailbox() || !mailbox.is_text()
            }
            (Command::Add { .. } | Command::Delete { .. }, Some(session)) => {
                !session.has_open_mailbox()
            }
            (Command::Close { mailbox, mood }, Some(session)) => {
                session.mailbox_to_close(mailbox).is_err() || matches!(mood, Field::Invalid(_))
            }
            _ => false,
        }
    }

    /// Whether a command that is in order would begin something, instead of joining what exists.
    pub fn would_begin(&self, conn: ConnId, command: &Command<'_>) -> bool {
        match command {
            Command::Allocate => true,
            Command::Claim { nameplate: Field::Text(name), .. } => !self.has_nameplate(conn, name),
            Command::Open { mailbox: Field::Text(id) } => !self.has_mailbox(id),
            _ => false,
        }
    }

    /// Whether a claim would add the connection's side to a nameplate that another side began.
    pub fn would_join(&self, conn: ConnId, name: &str) -> bool {
        let me = self.session(conn).and_then(|session| session.identity().ok());
        me.is_some_and(|me| {
            let nameplate = self.tables.nameplate(&me.app, name);
            nameplate.is_some_and(|it| it.sides.is_new(&me.side))
        })
    }

    /// Whether a `release` or `close` would end a claim or an open mailbox of the connection's
    /// side.
    pub fn would_leave(&self, conn: ConnId, command: &Command<'_>) -> bool {
        let Some(session) = self.session(conn) else { return false };
        let Ok(me) = session.identity() else { return false };
        match command {
            Command::Release { nameplate } => session
                .nameplate_to_release(nameplate)
                .ok()
                .and_then(|name| self.tables.nameplate(&me.app, name))
                .and_then(|known| known.sides.get(&me.side))
                .is_some_and(|side| side.holds),
            Command::Close { mailbox, .. } => {
                session.mailbox_to_close(mailbox).is_ok_and(|id| self.tables.serves(&me, &id))
            }
            _ => false,
        }
    }

    /// Stored messages whose mailbox does not exist, or not any more.
    pub fn remains_count(&self) -> usize {
        self.tables.remains.rows()
    }

    /// How much is stored. Takes the same time however much it is.
    pub fn counts(&self) -> Counts {
        let Tables { apps, mailboxes, ledger, nameplates_by_digits, .. } = &self.tables;
        Counts {
            nameplates: nameplates_by_digits.iter().sum(),
            nameplates_by_digits: *nameplates_by_digits,
            mailboxes: mailboxes.len(),
            messages: ledger.messages(),
            bytes: ledger.bytes(),
            apps: apps.len(),
            bound: self.tables.bound_count,
            subscriptions: self.tables.subscriptions_count,
        }
    }
}

/// Classes of nameplates that are counted apart, by their digits: 1, 2, 3, and more.
pub const NAMEPLATE_CLASSES: usize = 4;

/// How much is stored, and how many connections use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub nameplates: usize,
    pub nameplates_by_digits: [usize; NAMEPLATE_CLASSES],
    pub mailboxes: usize,
    /// As long as memory holds them: they may still be on their way after their mailbox has ended.
    pub messages: usize,
    /// In all mailboxes, as the limits count them.
    pub bytes: usize,
    /// With a bound connection or a nameplate.
    pub apps: usize,
    /// Connections that have bound.
    pub bound: usize,
    /// Subscriptions of connections to mailboxes.
    pub subscriptions: usize,
}
