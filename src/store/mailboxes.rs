//! Mailboxes, in which two sides exchange messages: `open`, `add`, `delete` and `close`.

use std::rc::Rc;

use super::change::{Change, Effects, Row, SideId, UsageKind};
use super::mailbox::Mailbox;
use super::room::{Growth, mailbox_bytes, side_bytes};
use super::session::{Identity, all_present, required};
use super::tables::Tables;
use super::usage::{self, Ending};
use super::{Act, Answer};
use crate::limits::{SHORT_MESSAGE_BYTES, SIDES_MAX};
use crate::message::MailboxState::{Deleted, Open, Refused, Unopened};
use crate::message::{CloseReason, ConnId, Field, Message, Refusal, Response, Session};

impl Tables {
    /// Returns the stored messages, if there are any.
    pub fn open(
        &mut self,
        session: &mut Session,
        conn: ConnId,
        mailbox: &Field<'_>,
        act: &mut Act<'_>,
    ) -> Answer {
        let me = session.identity()?;
        if session.has_open_mailbox() {
            return Err(Refusal::OnlyOneOpen);
        }
        let id: Rc<str> = required("open", "mailbox", mailbox)?.into();
        self.make_room_to_open(&me, &id, act)?;
        match self.open_for(&me, &id, act) {
            Ok(()) => session.mailbox = Open(id.clone()),
            Err(refusal) => {
                // A mailbox that was open before stays the connection's.
                if refusal == Refusal::Crowded && !matches!(session.mailbox, Deleted(_)) {
                    session.mailbox = Refused(id);
                }
                return Err(refusal);
            }
        }
        let log = self.subscribe(&id, &me, conn, act.effects).map(|mailbox| &mailbox.log);
        let stored = log.filter(|log| log.count() > 0);
        Ok(stored.map(|log| Response::Replay(log.replay())))
    }

    /// Makes room for a mailbox that does not exist, or for a side that it does not know.
    fn make_room_to_open(
        &mut self,
        me: &Identity,
        mailbox: &Rc<str>,
        act: &mut Act<'_>,
    ) -> Result<(), Refusal> {
        let bytes = match self.mailboxes.get(mailbox) {
            Some(known) if known.app != me.app || !known.sides.is_new(&me.side) => return Ok(()),
            Some(_) => side_bytes(&me.side),
            None if !act.may_begin => return Err(Refusal::MembersOnly),
            None if !self.remains.finish(mailbox, act.effects) => {
                return Err(Refusal::MailboxNotAvailable);
            }
            None => mailbox_bytes(&self.limits, &me.app, mailbox) + side_bytes(&me.side),
        };
        let (holder, mailbox) = (me.holder, Some(&**mailbox));
        self.make_room(Growth { holder, mailbox, bytes, is_ordinary: true }, act)
    }

    /// Opens a mailbox for a side, creating it if needed.
    fn open_for(
        &mut self,
        me: &Identity,
        mailbox: &Rc<str>,
        act: &mut Act<'_>,
    ) -> Result<(), Refusal> {
        match self.mailboxes.get(mailbox) {
            _ if self.rules.is_crowded => return Err(Refusal::Crowded),
            Some(known) if known.app != me.app => return Err(Refusal::MailboxNotAvailable),
            Some(known) if !known.sides.admits(&me.side) => {
                self.record_mailbox_side(mailbox, me, act);
                return Err(Refusal::Crowded);
            }
            Some(_) => {}
            None => self.create_mailbox(me, mailbox, false, act),
        }
        self.open_side(mailbox, me, act);
        Ok(())
    }

    /// Creates a mailbox without sides, for which there must be room.
    pub fn create_mailbox(
        &mut self,
        me: &Identity,
        mailbox: &Rc<str>,
        for_nameplate: bool,
        act: &mut Act<'_>,
    ) {
        let (app, updated) = (me.app.clone(), act.now);
        let created = Mailbox::new(app.clone(), for_nameplate, updated, &self.ledger);
        created.log.charge(me.holder, mailbox_bytes(&self.limits, &app, mailbox));
        self.mailboxes.insert(mailbox.clone(), Box::new(created));
        act.insert(Row::Mailbox { app, mailbox: mailbox.clone(), updated, for_nameplate });
    }

    /// Adds a side that the mailbox admits, if it is new, and counts as activity.
    pub fn open_side(&mut self, mailbox: &Rc<str>, me: &Identity, act: &mut Act<'_>) {
        self.record_mailbox_side(mailbox, me, act);
        if let Some(known) = self.mailboxes.get_mut(mailbox) {
            known.touch(mailbox, &self.rules, act);
        }
    }

    /// Puts a side on record with a mailbox, one that has it open or a refused one.
    pub fn record_mailbox_side(&mut self, mailbox: &Rc<str>, me: &Identity, act: &mut Act<'_>) {
        let id = SideId(self.last_side.0 + 1);
        let Some(known) = self.mailboxes.get_mut(mailbox) else { return };
        let Some(added) = known.sides.record(id, me, act.now, &known.log) else { return };
        known.origins.push(me.holder);
        let (mailbox, opened, side) = (mailbox.clone(), added.holds, added.side.clone());
        act.insert(Row::MailboxSide { id, mailbox, opened, side, added: act.now, mood: None });
        self.last_side = id;
    }

    /// Stores a message and sends it to all subscribers, its sender too (manual: protocol 2.3).
    pub fn add(
        &mut self,
        session: &Session,
        phase: &Field<'_>,
        body: &Field<'_>,
        id: Option<&str>,
        act: &mut Act<'_>,
    ) -> Answer {
        let me = session.identity()?;
        let Open(mailbox) = &session.mailbox else {
            return Err(Refusal::MustOpenFirst);
        };
        all_present(&[("phase", phase), ("body", body)], |field| Refusal::Missing { field })?;
        let (bytes_max, messages_max) =
            (self.limits.mailbox_bytes_max, self.limits.mailbox_messages_max);
        let known = self.mailboxes.get(mailbox).ok_or(Refusal::MustOpenFirst)?;
        let (phase, body) = (required("add", "phase", phase)?, required("add", "body", body)?);
        known.log.close_gaps(me.holder);
        // The mailbox's own: that of a session would live as long as the message, uncounted.
        let side = known.sides.get(&me.side).map_or(me.side, |known| known.side.clone());
        let message = Rc::new(Message::new(side, phase, body, act.wall, id));
        let bytes_after = known.log.counted_bytes() + message.counted_bytes();
        if known.log.count() >= messages_max || bytes_after > bytes_max {
            return Err(Refusal::MailboxFull { bytes_max, messages_max });
        }
        let (holder, bytes) = (me.holder, message.bytes());
        let is_ordinary = bytes <= SHORT_MESSAGE_BYTES;
        self.make_room(Growth { holder, mailbox: Some(mailbox), bytes, is_ordinary }, act)?;
        let known = self.mailboxes.get_mut(mailbox).ok_or(Refusal::MustOpenFirst)?;
        known.log.push(message.clone(), me.holder);
        for (subscriber, _) in &known.subscribers {
            act.effects.outputs.reply(*subscriber, Response::Message(message.clone()));
        }
        act.insert(Row::Message { app: me.app, mailbox: mailbox.clone(), message });
        known.touch(mailbox, &self.rules, act);
        Ok(None)
    }

    /// Deletes what the other side has sent (manual: extensions 4).
    pub fn delete(
        &mut self,
        session: &Session,
        their_phase: &Field<'_>,
        their_side: &Field<'_>,
        act: &mut Act<'_>,
    ) -> Answer {
        let me = session.identity()?;
        let Open(mailbox) = &session.mailbox else {
            return Err(Refusal::MustOpenToDelete);
        };
        let fields = [("their-phase", their_phase), ("their-side", their_side)];
        all_present(&fields, |field| Refusal::DeleteMissing { field })?;
        let phase = required("delete", "their-phase", their_phase)?;
        let side = required("delete", "their-side", their_side)?;
        let Some(known) = self.mailboxes.get(mailbox).filter(|_| *side != *me.side) else {
            return Ok(None);
        };
        let searched = known.log.delete(side, phase, known.origin(side));
        if searched > 0 {
            let (app, mailbox) = (me.app, mailbox.clone());
            let (side, phase) = (side.into(), phase.into());
            let change = Change::DeletePhase { app, mailbox, side, phase, searched };
            act.effects.changes.push(change);
        }
        Ok(None)
    }

    /// Closes the mailbox for the side, one that the session has not opened, too.
    pub fn close(
        &mut self,
        session: &mut Session,
        conn: ConnId,
        mailbox: &Field<'_>,
        mood: &Field<'_>,
        act: &mut Act<'_>,
    ) -> Answer {
        let me = session.identity()?;
        let id = session.mailbox_to_close(mailbox)?;
        let mood = match mood {
            Field::Absent => None,
            mood => Some(required("close", "mood", mood)?.into()),
        };
        match &session.mailbox {
            Open(_) => {
                self.unsubscribe(&id, conn);
                self.close_for(&me, &id, mood, act);
            }
            // Deleted, but a new one of that id that the side has opened since is closed, as
            // upstream does: a client that got `closed` will not come back to close it.
            Deleted(_) => {
                if self.serves(&me, &id) {
                    self.close_for(&me, &id, mood, act);
                }
            }
            // It would be created only to be deleted again.
            Unopened | Refused(_) if !act.may_begin && !self.mailboxes.contains_key(&id) => {}
            // Even when the server is full: a mailbox that this creates, it deletes again.
            Unopened | Refused(_) => match self.open_for(&me, &id, act) {
                Ok(()) => self.close_for(&me, &id, mood, act),
                Err(Refusal::Crowded) => {} // a third side may leave too
                Err(refusal) => return Err(refusal),
            },
        }
        session.mailbox = Unopened;
        session.closed = true;
        Ok(Some(Response::Closed))
    }

    /// Whether the side is on record with the app's mailbox as one of those served.
    pub fn serves(&self, me: &Identity, mailbox: &str) -> bool {
        self.mailboxes.get(mailbox).is_some_and(|known| {
            let sides = &known.sides;
            known.app == me.app && sides.get(&me.side).is_some() && sides.admits(&me.side)
        })
    }

    /// Closes a mailbox for a side. It ends when no side has it open any more.
    fn close_for(
        &mut self,
        me: &Identity,
        mailbox: &Rc<str>,
        mood: Option<Rc<str>>,
        act: &mut Act<'_>,
    ) {
        let Some(known) = self.mailboxes.get_mut(mailbox) else { return };
        let Some(closing) = known.sides.get_mut(&me.side) else { return };
        closing.holds = false;
        closing.mood.clone_from(&mood);
        let id = closing.id;
        if known.sides.held() {
            let (mailbox, side) = (mailbox.clone(), me.side.clone());
            act.effects.changes.push(Change::CloseMailboxSide { id, mailbox, side, mood });
        } else {
            // A row that goes with its mailbox need not be changed first.
            self.ended.add(mailbox, known, act.now);
            self.delete_mailbox(mailbox, Ending::Left, act);
        }
    }

    /// Deletes a mailbox with its nameplates; its subscribers become orphans.
    pub fn delete_mailbox(&mut self, mailbox: &Rc<str>, ending: Ending, act: &mut Act<'_>) {
        let Some(known) = self.mailboxes.get(mailbox) else { return };
        let (app, nameplates) = (known.app.clone(), known.nameplates.clone());
        // As upstream: a nameplate gets no usage record if its mailbox's sides have all left.
        let nameplate_ending = (ending == Ending::Pruned).then_some(ending);
        for name in nameplates {
            self.delete_nameplate(&app, &name, nameplate_ending, act);
        }
        let Some(ended) = self.mailboxes.remove(mailbox) else { return };
        self.subscriptions_count -= ended.subscribers.len();
        let mood = ended.gravest_mood();
        let result = usage::outcome(&ended.sides, ending, mood);
        if result.is_hostile() && ended.sides.iter().len() >= SIDES_MAX {
            act.effects.hostile_endings.push(ended.origins.clone());
        }
        let kind = UsageKind::Mailbox { for_nameplate: ended.for_nameplate };
        self.record_end(&app, kind, &ended.sides, result, ended.beginner(), act);
        let (has_messages, sides) = (ended.log.count() > 0, ended.sides.ids());
        act.effects.participants.extend(ended.subscribers.iter().map(|(conn, _)| *conn));
        let with_messages = has_messages && self.remains.add(&app, mailbox, ended.log);
        let mailbox = mailbox.clone();
        let change = Change::DeleteMailbox { app, mailbox, sides, with_messages, mood };
        act.effects.changes.push(change);
    }

    /// Deletes a mailbox because the store is full, and frees its memory at once. Its subscribers
    /// are closed.
    pub fn evict_mailbox(&mut self, mailbox: &Rc<str>, act: &mut Act<'_>) {
        let Some(known) = self.mailboxes.get(mailbox) else { return };
        let log = known.log.clone();
        let closed = known.subscribers.iter().map(|(conn, _)| (*conn, CloseReason::Evicted));
        act.effects.closings.extend(closed);
        act.effects.evicted_count += 1;
        self.ended.add(mailbox, known, act.now);
        self.delete_mailbox(mailbox, Ending::Pruned, act);
        log.clear();
    }

    /// Subscribes a connection to a mailbox that its side has open. If the side has too many
    /// connections there, the oldest is closed, which is most likely dead.
    pub fn subscribe(
        &mut self,
        mailbox: &Rc<str>,
        me: &Identity,
        conn: ConnId,
        effects: &mut Effects,
    ) -> Option<&Mailbox> {
        let most = self.rules.subscribers_per_side_max;
        let known = self.mailboxes.get_mut(mailbox)?;
        let side = known.sides.position(&me.side)?;
        let of_side = || known.subscribers.iter().filter(|(_, of)| *of == side);
        if of_side().count() >= most
            && let Some(oldest) = of_side().map(|(conn, _)| *conn).min()
        {
            known.subscribers.retain(|(conn, _)| *conn != oldest);
            self.subscriptions_count -= 1;
            effects.participants.push(oldest);
            effects.closings.push((oldest, CloseReason::Replaced));
        }
        known.subscribers.push((conn, side));
        self.subscriptions_count += 1;
        if std::mem::take(&mut known.is_unclaimed)
            && let Some(holder) = me.holder
        {
            known.log.charge_own_to(holder);
        }
        Some(known)
    }

    /// Ends a connection's subscription, if it has one.
    pub fn unsubscribe(&mut self, mailbox: &str, conn: ConnId) {
        let Some(known) = self.mailboxes.get_mut(mailbox) else { return };
        let before = known.subscribers.len();
        known.subscribers.retain(|(subscriber, _)| *subscriber != conn);
        self.subscriptions_count -= before - known.subscribers.len();
    }
}
