//! The nameplates and mailboxes of all apps, and their counts. The rules are in
//! `nameplates` and `mailboxes`.
//!
//! Mirrors the channel database's tables. Of connections it knows only which are subscribed to
//! which mailbox.

use std::collections::HashMap;
use std::rc::Rc;

use super::activity::EndedInTick;
use super::app::{App, Nameplate};
use super::change::{NameplateId, SideId};
use super::cooling::Cooling;
use super::mailbox::Mailbox;
use super::remains::Remains;
use super::{Listing, NAMEPLATE_CLASSES, Rules};
use crate::limits::Limits;
use crate::message::{Ledger, MessageLog};
use crate::sys::clock::Seconds;

/// All nameplates and mailboxes, in memory as in the file.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub rules: Rules,
    /// Those of mailboxes and of the whole store apply here.
    pub limits: Limits,
    /// What `list` answers.
    pub listing: Listing,
    pub apps: HashMap<Rc<str>, Box<App>>,
    pub mailboxes: HashMap<Rc<str>, Box<Mailbox>>,
    /// Nameplates that ended recently.
    pub cooling: Cooling,
    /// The reply to `list` in decoy mode, once it was needed.
    pub decoys: Option<Rc<[Rc<str>]>>,
    /// Ids given out last.
    pub last_nameplate: NameplateId,
    pub last_side: SideId,
    /// Bytes and messages of everything stored.
    pub ledger: Ledger,
    /// Messages of mailboxes that have ended.
    pub remains: Remains,
    pub ended: EndedInTick,
    /// How often this tick may still delete mailboxes to make room.
    pub evictions_left: usize,
    /// Sessions bound to any app.
    pub bound_count: usize,
    /// Subscriptions to any mailbox.
    pub subscriptions_count: usize,
    /// Nameplates of all apps, by the number of their digits.
    pub nameplates_by_digits: [usize; NAMEPLATE_CLASSES],
}

impl Tables {
    pub fn new(rules: Rules, limits: Limits) -> Tables {
        let mut tables = Tables { rules, limits, ..Tables::default() };
        tables.renew_budgets();
        tables
    }

    /// Counts a session that binds to an app; returns the shared form of its id.
    pub fn enter_app(&mut self, app: &str) -> Rc<str> {
        let known = match self.apps.get_key_value(app) {
            Some((known, _)) => known.clone(),
            None => Rc::from(app),
        };
        self.apps.entry(known.clone()).or_default().sessions += 1;
        self.bound_count += 1;
        known
    }

    /// Undoes [`Tables::enter_app`].
    pub fn leave_app(&mut self, app: &str) {
        if let Some(entry) = self.apps.get_mut(app) {
            entry.sessions = entry.sessions.saturating_sub(1);
            self.bound_count = self.bound_count.saturating_sub(1);
        }
        self.forget_app_if_unused(app);
    }

    /// Frees the room of what has ended in tables that are mostly empty.
    pub fn give_back_memory(&mut self) {
        self.mailboxes.shrink_to(2 * self.mailboxes.len());
        self.apps.shrink_to(2 * self.apps.len());
    }

    pub fn nameplate(&self, app: &str, name: &str) -> Option<&Nameplate> {
        self.apps.get(app)?.by_name.get(name).map(|nameplate| &**nameplate)
    }

    /// A nameplate, and the log of its mailbox.
    pub fn nameplate_and_log(
        &mut self,
        app: &str,
        name: &str,
    ) -> Option<(&mut Nameplate, &MessageLog)> {
        let nameplate = &mut **self.apps.get_mut(app)?.by_name.get_mut(name)?;
        let mailbox = self.mailboxes.get(&nameplate.mailbox)?;
        Some((nameplate, &mailbox.log))
    }

    /// Inserts a nameplate, whose mailbox must exist.
    pub fn insert_nameplate(&mut self, app: Rc<str>, name: Rc<str>, nameplate: Nameplate) {
        if let Some(mailbox) = self.mailboxes.get_mut(&nameplate.mailbox) {
            mailbox.nameplates.push(name.clone());
        }
        let class = digits_class(&name);
        let replaced = self.apps.entry(app).or_default().insert(name, nameplate);
        self.nameplates_by_digits[class] += usize::from(replaced.is_none());
    }

    /// Removes a nameplate, from its app and its mailbox.
    pub fn remove_nameplate(&mut self, app: &str, name: &str) -> Option<Box<Nameplate>> {
        let removed = self.apps.get_mut(app)?.remove(name)?;
        self.nameplates_by_digits[digits_class(name)] -= 1;
        if let Some(mailbox) = self.mailboxes.get_mut(&removed.mailbox) {
            mailbox.nameplates.retain(|known| **known != *name);
        }
        self.forget_app_if_unused(app);
        Some(removed)
    }

    /// Moves the times of all that is stored; those of messages are history.
    pub fn shift_times(&mut self, seconds: Seconds) {
        for mailbox in self.mailboxes.values_mut() {
            mailbox.updated = mailbox.updated + seconds;
            mailbox.previous = mailbox.previous + seconds;
            mailbox.stored = mailbox.stored + seconds;
            mailbox.sides.shift_times(seconds);
        }
        let nameplates = self.apps.values_mut().flat_map(|app| app.by_name.values_mut());
        nameplates.for_each(|nameplate| nameplate.sides.shift_times(seconds));
        self.cooling.shift_times(seconds);
    }

    fn forget_app_if_unused(&mut self, app: &str) {
        if self.apps.get(app).is_some_and(|it| it.sessions == 0 && it.by_name.is_empty()) {
            self.apps.remove(app);
        }
    }
}

fn digits_class(name: &str) -> usize {
    name.len().clamp(1, NAMEPLATE_CLASSES) - 1
}
