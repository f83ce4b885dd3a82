//! The nameplates and mailboxes of all apps, and the rules of contract section 3 that hold
//! whichever connection a side comes from.
//!
//! Mirrors the channel database's tables: every change made here is written down as a `Change`.
//! Knows nothing of sessions; of connections it only keeps who listens to which mailbox.

mod claims;

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::change::{Change, Effects, RowId};
use super::cooling::Cooling;
use super::mailbox::Mailbox;
use super::nameplate::{self, Nameplate, Nameplates};
use super::sides::Side;
use super::usage::{self, Ending};
use super::{Listing, NAMEPLATE_CLASSES, Settings};
use crate::message::log::{Ledger, Message};
use crate::message::{ConnId, Refusal};
use crate::sys::clock::Timestamp;

/// What is known under one app id.
#[derive(Debug, Default)]
struct App {
    nameplates: Nameplates,
    /// Sessions bound to it. An app is forgotten when it has neither these nor nameplates.
    sessions: usize,
}

/// The next unused row of each table.
#[derive(Debug, Default)]
pub(super) struct NextRows {
    pub mailbox: RowId,
    pub mailbox_side: RowId,
    pub nameplate: RowId,
    pub nameplate_side: RowId,
}

fn take_row(next: &mut RowId) -> RowId {
    *next += 1;
    *next
}

/// Mailboxes in the order of their last activity, as far as it is known there.
type ByActivity = BTreeSet<(Timestamp, Rc<str>)>;

/// Counts of what cannot be asked of a table at once.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    /// Sessions bound to any app.
    bound: usize,
    /// Subscriptions to any mailbox.
    subscriptions: usize,
    /// Nameplates of all apps, by the number of their digits.
    nameplates: [usize; NAMEPLATE_CLASSES],
}

/// All nameplates and mailboxes.
#[derive(Debug, Default)]
pub(super) struct Tables {
    apps: HashMap<Rc<str>, App>,
    mailboxes: HashMap<Rc<str>, Mailbox>,
    /// Every mailbox once, by a time that is not later than its `updated`. Activity does not move
    /// it; an expiry check that meets it too early puts it back where it belongs by then.
    by_activity: ByActivity,
    /// Mailboxes with subscribers, whom every expiry check touches; in an order of their own, for
    /// what comes out must not depend on a hasher's seed.
    subscribed: BTreeSet<Rc<str>>,
    pub next_rows: NextRows,
    /// Bytes and messages of all that is stored.
    pub ledger: Ledger,
    /// What the tables come to, kept up to date so that telling it costs no walk over them.
    totals: Totals,
    /// What an operator has set.
    pub settings: Settings,
    /// Nameplates that have just ended.
    cooling: Cooling,
    /// What every `list` gets instead of the truth, once one has been answered so.
    decoys: Option<Rc<[Rc<str>]>>,
}

impl Tables {
    /// The shared form of an app id, for a session that binds to it.
    pub fn enter_app(&mut self, app: &str) -> Rc<str> {
        let known = match self.apps.get_key_value(app) {
            Some((known, _)) => known.clone(),
            None => Rc::from(app),
        };
        self.apps.entry(known.clone()).or_default().sessions += 1;
        self.totals.bound += 1;
        known
    }

    /// Undoes [`Tables::enter_app`].
    pub fn leave_app(&mut self, app: &str) {
        if let Some(entry) = self.apps.get_mut(app) {
            entry.sessions = entry.sessions.saturating_sub(1);
            self.totals.bound = self.totals.bound.saturating_sub(1);
        }
        self.forget_app_if_unused(app);
    }

    /// The names of the app's nameplates, sorted as strings, or what stands for them.
    pub fn list(&mut self, app: &str) -> Rc<[Rc<str>]> {
        match self.settings.list {
            Listing::Real => self.apps.get_mut(app).map(|app| app.nameplates.list()),
            Listing::Empty => None,
            Listing::Decoy => Some(self.decoys.get_or_insert_with(nameplate::decoys).clone()),
        }
        .unwrap_or_default()
    }

    /// Whether the app has a nameplate of that name.
    pub fn has_nameplate(&self, app: &str, name: &str) -> bool {
        self.apps.get(app).is_some_and(|app| app.nameplates.get(name).is_some())
    }

    /// Whether a mailbox is there, or may be created.
    pub fn check_room_for(&self, mailbox: &str) -> Result<(), Refusal> {
        if self.mailboxes.contains_key(mailbox) { Ok(()) } else { self.check_room() }
    }

    /// Opens a mailbox for a side, creating it if needed.
    pub fn open(
        &mut self,
        app: &Rc<str>,
        mailbox: &Rc<str>,
        side: &Rc<str>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        match self.mailboxes.get(mailbox) {
            Some(known) if known.app != *app => return Err(Refusal::MailboxNotAvailable),
            Some(known) if !known.sides.admits(side) => {
                self.record_stranger(mailbox, side, now, effects);
                return Err(Refusal::Crowded);
            }
            Some(_) => {}
            None => self.create_mailbox(app, mailbox, false, now, effects),
        }
        self.open_side(mailbox, side, now, effects);
        Ok(())
    }

    /// Whether the store may still grow.
    fn check_room(&self) -> Result<(), Refusal> {
        let is_full = self.ledger.bytes() >= self.settings.stored_bytes_max;
        if is_full { Err(Refusal::ServerFull) } else { Ok(()) }
    }

    fn create_mailbox(
        &mut self,
        app: &Rc<str>,
        mailbox: &Rc<str>,
        for_nameplate: bool,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let row = take_row(&mut self.next_rows.mailbox);
        self.insert_mailbox(
            mailbox.clone(),
            Mailbox::new(row, app.clone(), for_nameplate, now, &self.ledger),
        );
        effects.changes.push(Change::CreateMailbox {
            row,
            app: app.clone(),
            mailbox: mailbox.clone(),
            updated: now,
            for_nameplate,
        });
    }

    /// Adds a side that the mailbox admits, if it is new, and counts as activity.
    fn open_side(
        &mut self,
        mailbox: &Rc<str>,
        side: &Rc<str>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(known) = self.mailboxes.get_mut(mailbox) else { return };
        if known.sides.get(side).is_none() {
            let row = take_row(&mut self.next_rows.mailbox_side);
            known.sides.push(Side { row, side: side.clone(), added: now, holds: true, mood: None });
            effects.changes.push(Change::AddMailboxSide {
                row,
                mailbox: mailbox.clone(),
                opened: true,
                side: side.clone(),
                added: now,
            });
        }
        touch(known, mailbox, &mut self.by_activity, now, effects);
    }

    /// Records a third side's first attempt on a mailbox, as one that has already closed it.
    fn record_stranger(
        &mut self,
        mailbox: &Rc<str>,
        side: &Rc<str>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(known) = self.mailboxes.get_mut(mailbox) else { return };
        if !known.sides.wants_record_of(side) {
            return;
        }
        let row = take_row(&mut self.next_rows.mailbox_side);
        known.sides.push(Side { row, side: side.clone(), added: now, holds: false, mood: None });
        effects.changes.push(Change::AddMailboxSide {
            row,
            mailbox: mailbox.clone(),
            opened: false,
            side: side.clone(),
            added: now,
        });
    }

    /// Whether the side is on record with the app's mailbox as one of those served.
    pub fn serves(&self, app: &Rc<str>, mailbox: &str, side: &str) -> bool {
        self.mailboxes.get(mailbox).is_some_and(|known| {
            known.app == *app && known.sides.get(side).is_some() && known.sides.admits(side)
        })
    }

    /// Stores a message; gives the connections to deliver it to.
    pub fn add(
        &mut self,
        mailbox: &Rc<str>,
        message: &Rc<Message>,
        effects: &mut Effects,
    ) -> Result<&[ConnId], Refusal> {
        self.check_room()?;
        let Settings { mailbox_bytes_max, mailbox_messages_max, .. } = self.settings;
        let Some(known) = self.mailboxes.get_mut(mailbox) else {
            return Err(Refusal::MustOpenFirst);
        };
        if known.messages_count() >= mailbox_messages_max
            || known.messages_bytes() + message.bytes() > mailbox_bytes_max
        {
            return Err(Refusal::MailboxFull {
                bytes_max: mailbox_bytes_max,
                messages_max: mailbox_messages_max,
            });
        }
        known.push(message.clone());
        effects.changes.push(Change::AddMessage {
            app: known.app.clone(),
            mailbox: mailbox.clone(),
            message: message.clone(),
        });
        touch(known, mailbox, &mut self.by_activity, message.server_rx, effects);
        Ok(&known.subscribers)
    }

    /// Subscribes a connection to a mailbox that it opened.
    pub fn subscribe(&mut self, mailbox: &Rc<str>, conn: ConnId) -> Option<&Mailbox> {
        let known = self.mailboxes.get_mut(mailbox)?;
        known.subscribers.push(conn);
        self.subscribed.insert(mailbox.clone());
        self.totals.subscriptions += 1;
        Some(known)
    }

    /// Ends a subscription; that there was none is fine.
    pub fn unsubscribe(&mut self, mailbox: &str, conn: ConnId) {
        if let Some(known) = self.mailboxes.get_mut(mailbox) {
            self.totals.subscriptions -= known.unsubscribe(conn);
            if known.subscribers.is_empty() {
                self.subscribed.remove(mailbox);
            }
        }
    }

    /// How many subscriptions there are.
    pub fn subscriptions_count(&self) -> usize {
        self.totals.subscriptions
    }

    /// How many sessions have bound.
    pub fn bound_count(&self) -> usize {
        self.totals.bound
    }

    /// How many apps are known: those that somebody is bound to or has a nameplate in.
    pub fn apps_count(&self) -> usize {
        self.apps.len()
    }

    /// How many mailboxes there are.
    pub fn mailboxes_count(&self) -> usize {
        self.mailboxes.len()
    }

    /// How many nameplates there are, by the number of their digits.
    pub fn nameplates_by_digits(&self) -> [usize; NAMEPLATE_CLASSES] {
        self.totals.nameplates
    }

    /// Closes a mailbox for a side. When no side has it open any more it is deleted; the
    /// connections that were still subscribed come back.
    pub fn close(
        &mut self,
        mailbox: &Rc<str>,
        side: &Rc<str>,
        mood: Option<Rc<str>>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Vec<ConnId> {
        let Some(known) = self.mailboxes.get_mut(mailbox) else { return Vec::new() };
        let Some(closing) = known.sides.get_mut(side) else { return Vec::new() };
        closing.holds = false;
        closing.mood.clone_from(&mood);
        effects.changes.push(Change::CloseMailboxSide {
            row: closing.row,
            mailbox: mailbox.clone(),
            side: side.clone(),
            mood,
        });
        if known.sides.held() {
            return Vec::new();
        }
        for name in known.nameplates.clone() {
            let app = self.mailboxes[mailbox].app.clone();
            self.delete_nameplate(&app, &name, now, None, effects);
        }
        self.delete_mailbox(mailbox, now, Ending::Left, effects)
    }

    /// Deletes a mailbox that has no nameplate any more; its subscribers come back.
    fn delete_mailbox(
        &mut self,
        mailbox: &Rc<str>,
        now: Timestamp,
        ending: Ending,
        effects: &mut Effects,
    ) -> Vec<ConnId> {
        let Some(gone) = self.mailboxes.remove(mailbox) else { return Vec::new() };
        self.by_activity.remove(&(gone.indexed, mailbox.clone()));
        self.subscribed.remove(mailbox);
        self.totals.subscriptions -= gone.subscribers.len();
        effects.usage.extend(usage::mailbox(
            &gone.app,
            gone.for_nameplate,
            &gone.sides,
            now,
            ending,
            self.settings.blur,
        ));
        effects.changes.push(Change::DeleteMailbox {
            row: gone.row,
            app: gone.app.clone(),
            mailbox: mailbox.clone(),
            sides: gone.sides.rows(),
            messages: gone.messages_count() > 0,
        });
        gone.subscribers
    }

    /// The mailboxes that an expiry check must look at, each once: those with subscribers, and
    /// those that may have been idle since `old`.
    pub fn expiry_worklist(&self, old: Timestamp) -> Vec<Rc<str>> {
        let early = self.by_activity.iter().take_while(|(due, _)| *due <= old).map(|(_, id)| id);
        let idle = early.filter(|id| !self.subscribed.contains(*id));
        idle.chain(&self.subscribed).cloned().collect()
    }

    /// One step, at `now`, of an expiry check as of when it `began`: a mailbox with subscribers is
    /// touched, one idle for too long is deleted.
    pub fn expire(
        &mut self,
        mailbox: &Rc<str>,
        now: Timestamp,
        began: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(known) = self.mailboxes.get_mut(mailbox) else { return };
        let is_subscribed = !known.subscribers.is_empty();
        if is_subscribed {
            touch(known, mailbox, &mut self.by_activity, now, effects);
        }
        if is_subscribed || known.updated > began - self.settings.expire_after {
            move_to(known, mailbox, &mut self.by_activity);
            return;
        }
        let (app, nameplates) = (known.app.clone(), known.nameplates.clone());
        for name in nameplates {
            self.delete_nameplate(&app, &name, began, Some(Ending::Pruned), effects);
        }
        self.delete_mailbox(mailbox, began, Ending::Pruned, effects);
    }

    /// Puts a mailbox in its place; for creation and loading.
    pub fn insert_mailbox(&mut self, id: Rc<str>, mailbox: Mailbox) {
        self.by_activity.insert((mailbox.indexed, id.clone()));
        self.mailboxes.insert(id, mailbox);
    }

    /// Puts a nameplate in its place; for creation and loading. Its mailbox must be there.
    pub fn insert_nameplate(&mut self, app: Rc<str>, name: Rc<str>, nameplate: Nameplate) {
        if let Some(mailbox) = self.mailboxes.get_mut(&nameplate.mailbox) {
            mailbox.nameplates.push(name.clone());
        }
        let class = digits_class(&name);
        let replaced = self.apps.entry(app).or_default().nameplates.insert(name, nameplate);
        self.totals.nameplates[class] += usize::from(replaced.is_none());
    }

    /// The mailbox of that id, in whichever app.
    pub fn mailbox_mut(&mut self, id: &str) -> Option<&mut Mailbox> {
        self.mailboxes.get_mut(id)
    }

    fn forget_app_if_unused(&mut self, app: &str) {
        if self.apps.get(app).is_some_and(|app| app.sessions == 0 && app.nameplates.is_empty()) {
            self.apps.remove(app);
        }
    }
}

/// Which of the counts by digits a nameplate belongs to.
fn digits_class(name: &str) -> usize {
    name.len().clamp(1, NAMEPLATE_CLASSES) - 1
}

/// Counts as activity. All of one tick happens at one time, so this writes once per tick.
fn touch(
    mailbox: &mut Mailbox,
    id: &Rc<str>,
    by_activity: &mut ByActivity,
    now: Timestamp,
    effects: &mut Effects,
) {
    if mailbox.updated != now {
        mailbox.updated = now;
        if now < mailbox.indexed {
            move_to(mailbox, id, by_activity); // the clock has been set back
        }
        effects.changes.push(Change::TouchMailbox {
            row: mailbox.row,
            mailbox: id.clone(),
            updated: now,
        });
    }
}

/// Puts a mailbox where its last activity belongs.
fn move_to(mailbox: &mut Mailbox, id: &Rc<str>, by_activity: &mut ByActivity) {
    let place = (mailbox.indexed, id.clone());
    by_activity.remove(&place);
    mailbox.indexed = mailbox.updated;
    by_activity.insert((mailbox.indexed, place.1));
}
