//! One mailbox: its sides, messages and subscribers, and its last activity.

use std::rc::Rc;

use super::change::{Change, Effects};
use super::sides::Sides;
use super::{Act, Rules};
use crate::message::{ConnId, Holder, Ledger, MessageLog, Outcome};
use crate::sys::clock::Timestamp;

/// One mailbox in memory.
#[derive(Debug)]
pub(super) struct Mailbox {
    /// Ids are unique over all apps.
    pub app: Rc<str>,
    /// Whether a nameplate's first claim created it.
    pub for_nameplate: bool,
    /// Last activity.
    pub updated: Timestamp,
    /// The last activity before the tick of `updated`.
    pub previous: Timestamp,
    /// The column `updated` of its row, which may be older by [`Rules::activity_lag`].
    pub stored: Timestamp,
    pub sides: Sides,
    /// The addresses of the sides added since the start; none if exempt or unknown.
    pub origins: Vec<Option<Holder>>,
    /// Each with the place of its side in `sides`, in the order of their subscriptions.
    pub subscribers: Vec<(ConnId, usize)>,
    /// It was loaded, and no connection has subscribed to it since.
    pub is_unclaimed: bool,
    /// Names of the nameplates that point to it; one at most, unless a file says otherwise.
    pub nameplates: Vec<Rc<str>>,
    pub log: Rc<MessageLog>,
}

impl Mailbox {
    /// An empty mailbox, whose row has the time `updated`.
    pub fn new(app: Rc<str>, for_nameplate: bool, updated: Timestamp, ledger: &Ledger) -> Mailbox {
        Mailbox {
            is_unclaimed: false,
            app,
            for_nameplate,
            updated,
            previous: updated,
            stored: updated,
            sides: Sides::default(),
            origins: Vec::new(),
            subscribers: Vec::new(),
            nameplates: Vec::new(),
            log: MessageLog::new(ledger),
        }
    }

    /// The address of a side, if it was added since the start and is not exempt or unknown.
    pub fn origin(&self, side: &str) -> Option<Holder> {
        let loaded = self.sides.iter().len().checked_sub(self.origins.len())?;
        let place = self.sides.position(side)?.checked_sub(loaded)?;
        self.origins.get(place).copied().flatten()
    }

    /// The address of the first side that was added since the start.
    pub fn beginner(&self) -> Option<Holder> {
        self.origins.first().copied().flatten()
    }

    /// The gravest outcome that a side reported when it closed.
    pub fn gravest_mood(&self) -> Option<Outcome> {
        self.sides.iter().filter_map(|side| Outcome::of_mood(side.mood.as_deref()?)).max()
    }

    /// Counts as activity. Its row is written only when it is too old, or later than now: if it
    /// were with each message, a message would cost two writes.
    pub fn touch(&mut self, id: &Rc<str>, rules: &Rules, act: &mut Act<'_>) {
        if self.updated != act.now {
            self.previous = std::mem::replace(&mut self.updated, act.now);
        }
        let age = self.updated - self.stored;
        if (0.0..=rules.activity_lag()).contains(&age) {
            return;
        }
        self.write_updated(id, act.effects);
    }

    /// Writes the last activity to its row.
    pub fn write_updated(&mut self, id: &Rc<str>, effects: &mut Effects) {
        self.stored = self.updated;
        let (mailbox, updated) = (id.clone(), self.updated);
        effects.changes.push(Change::TouchMailbox { mailbox, updated });
    }

    /// The last activity before a tick at `now` that has failed.
    pub fn updated_before(&self, now: Timestamp) -> Timestamp {
        if self.updated == now { self.previous } else { self.updated }
    }
}
