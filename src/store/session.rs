//! What one connection may do, and has done: the rules of contract section 2 that look at the
//! connection (bound or not, "only one … per connection").
//!
//! Decides whether a command is allowed and on what; the doing is `tables`' part.

use std::rc::Rc;

use super::Moment;
use super::change::{Effects, UsageRecord};
use super::tables::Tables;
use super::usage::blurred;
use crate::message::log::Message;
use crate::message::{
    ClientVersion, Command, ConnId, Field, Flag, MessageId, Refusal, Response, Rule,
};
use crate::sys::clock::Timestamp;

/// Whether the connection has a mailbox open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Opened {
    /// None opened, or closed again.
    #[default]
    No,
    /// Open and subscribed.
    Yes,
    /// It was open when its last side closed it elsewhere.
    Deleted,
}

/// Whom the connection speaks for.
#[derive(Clone, Debug)]
struct Identity {
    app: Rc<str>,
    side: Rc<str>,
}

/// One connection's session.
#[derive(Debug, Default)]
pub(super) struct Session {
    identity: Option<Identity>,
    allocated: bool,
    /// The nameplate of its one claim, refused as crowded or reclaimed or not.
    claimed: Option<Rc<str>>,
    released: bool,
    /// The mailbox it opened last.
    mailbox: Option<Rc<str>>,
    /// The mailbox it was refused last, as crowded: what a `close` without a name is about, so
    /// that a confused client can leave.
    refused: Option<Rc<str>>,
    opened: Opened,
    closed: bool,
}

/// Orphans: connections whose mailbox was deleted by a command of another.
pub(super) type Orphans = Vec<ConnId>;

impl Session {
    /// Carries out one command; the connections whose mailbox it deleted come back.
    pub fn apply(
        &mut self,
        tables: &mut Tables,
        conn: ConnId,
        command: &Command<'_>,
        moment: &mut Moment<'_>,
        effects: &mut Effects,
    ) -> Result<Orphans, Refusal> {
        match command {
            Command::Ping { value } => {
                let value = value.ok_or(Refusal::PingRequiresPing)?;
                effects.replies.push((conn, Response::Pong(value.into())));
                return Ok(Orphans::new());
            }
            // What there is to say for or against it has been said by then.
            Command::SubmitPermissions { .. } => return Ok(Orphans::new()),
            Command::Bind { appid, side, client_version } => {
                self.bind(tables, appid, side, client_version, moment.now, effects)?;
                return Ok(Orphans::new());
            }
            _ => {}
        }
        let me = self.identity.clone().ok_or(Refusal::MustBindFirst)?;
        let mut orphans = Orphans::new();
        let response = match command {
            Command::List => Some(Response::Nameplates(tables.list(&me.app))),
            Command::Allocate => Some(self.allocate(tables, &me, moment, effects)?),
            Command::Claim { nameplate, allocate } => {
                Some(self.claim(tables, &me, nameplate, *allocate, moment, effects)?)
            }
            Command::Release { nameplate } => {
                Some(self.release(tables, &me, nameplate, moment.now, effects)?)
            }
            Command::Open { mailbox } => {
                self.open(tables, &me, conn, mailbox, moment.now, effects)?
            }
            Command::Add { phase, body, id } => {
                self.add(tables, &me, phase, body, id, moment.now, effects)?;
                None
            }
            Command::Close { mailbox, mood } => {
                orphans = self.close(tables, &me, conn, mailbox, mood, moment.now, effects)?;
                Some(Response::Closed)
            }
            _ => return Err(Refusal::UnknownType),
        };
        effects.replies.extend(response.map(|response| (conn, response)));
        Ok(orphans)
    }

    /// The app it has bound to.
    pub fn app(&self) -> Option<&str> {
        self.identity.as_ref().map(|me| &*me.app)
    }

    /// The connection is gone. What its side claimed and opened stays.
    pub fn end(&self, tables: &mut Tables, conn: ConnId) {
        if let Some(mailbox) = &self.mailbox {
            tables.unsubscribe(mailbox, conn);
        }
        if let Some(me) = &self.identity {
            tables.leave_app(&me.app);
        }
    }

    /// Takes note that the open mailbox was deleted by another connection.
    pub fn orphan(&mut self) {
        self.opened = Opened::Deleted;
    }

    /// Ties the session's app to new tables.
    pub fn reenter(&mut self, tables: &mut Tables) {
        if let Some(me) = &mut self.identity {
            me.app = tables.enter_app(&me.app);
        }
    }

    /// Ties the session to tables that were loaded anew from the database.
    pub fn rejoin(&mut self, tables: &mut Tables, conn: ConnId) {
        self.reenter(tables);
        if let (Some(mailbox), Opened::Yes) = (&self.mailbox, self.opened)
            && tables.subscribe(mailbox, conn).is_none()
        {
            self.opened = Opened::Deleted;
        }
    }

    fn bind(
        &mut self,
        tables: &mut Tables,
        appid: &Field<'_>,
        side: &Field<'_>,
        client_version: &ClientVersion,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        if self.identity.is_some() {
            return Err(Refusal::AlreadyBound);
        }
        present("bind", "appid", appid)?;
        present("bind", "side", side)?;
        let app = tables.enter_app(required("bind", "appid", appid)?);
        let side: Rc<str> = match required("bind", "side", side) {
            Ok(side) => side.into(),
            Err(refusal) => {
                tables.leave_app(&app);
                return Err(refusal);
            }
        };
        effects.usage.push(UsageRecord::ClientVersion {
            app: app.clone(),
            side: side.clone(),
            connect_time: blurred(now, tables.settings.blur),
            implementation: client_version.implementation.clone(),
            version: client_version.version.clone(),
        });
        self.identity = Some(Identity { app, side });
        Ok(())
    }

    fn allocate(
        &mut self,
        tables: &mut Tables,
        me: &Identity,
        moment: &mut Moment<'_>,
        effects: &mut Effects,
    ) -> Result<Response, Refusal> {
        if self.allocated {
            return Err(Refusal::AlreadyAllocated);
        }
        let random = moment.entropy.next_u64();
        let name = tables.pick_free(&me.app, random, moment.now).ok_or(Refusal::NoFreeNameplate)?;
        tables.claim(&me.app, &name, &me.side, moment.now, moment.entropy, effects)?;
        self.allocated = true;
        Ok(Response::Allocated(name))
    }

    fn claim(
        &mut self,
        tables: &mut Tables,
        me: &Identity,
        nameplate: &Field<'_>,
        allocate: Flag,
        moment: &mut Moment<'_>,
        effects: &mut Effects,
    ) -> Result<Response, Refusal> {
        present("claim", "nameplate", nameplate)?;
        if self.claimed.is_some() {
            return Err(Refusal::OnlyOneClaim);
        }
        let name: Rc<str> = required("claim", "nameplate", nameplate)?.into();
        if tables.settings.claim_without_allocate {
            check_allocate(tables, me, &name, allocate)?;
        }
        let outcome = tables.claim(&me.app, &name, &me.side, moment.now, moment.entropy, effects);
        if matches!(outcome, Ok(_) | Err(Refusal::Crowded | Refusal::Reclaimed)) {
            // A crowded or reclaimed attempt uses up the one claim, and can be released.
            self.claimed = Some(name);
        }
        outcome.map(Response::Claimed)
    }

    fn release(
        &mut self,
        tables: &mut Tables,
        me: &Identity,
        nameplate: &Field<'_>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<Response, Refusal> {
        if self.released {
            return Err(Refusal::OnlyOneRelease);
        }
        let name = match (nameplate, &self.claimed) {
            (Field::Absent, None) => return Err(Refusal::ReleaseWithoutClaim),
            (Field::Absent, Some(claimed)) => claimed,
            (Field::Text(name), Some(claimed)) if **name == **claimed => claimed,
            (_, Some(_)) => return Err(Refusal::ReleaseOther),
            (_, None) => required("release", "nameplate", nameplate)?,
        };
        tables.release(&me.app, name, &me.side, now, effects);
        self.released = true;
        Ok(Response::Released)
    }

    fn open(
        &mut self,
        tables: &mut Tables,
        me: &Identity,
        conn: ConnId,
        mailbox: &Field<'_>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<Option<Response>, Refusal> {
        if self.opened == Opened::Yes {
            return Err(Refusal::OnlyOneOpen);
        }
        let mailbox: Rc<str> = required("open", "mailbox", mailbox)?.into();
        tables.check_room_for(&mailbox)?;
        let outcome = tables.open(&me.app, &mailbox, &me.side, now, effects);
        if outcome == Err(Refusal::Crowded) {
            self.refused = Some(mailbox.clone());
        }
        outcome?;
        self.mailbox = Some(mailbox.clone());
        self.opened = Opened::Yes;
        let replay = tables.subscribe(&mailbox, conn).map(|mailbox| mailbox.replay());
        Ok(replay.filter(|replay| replay.next < replay.end).map(Response::Replay))
    }

    #[allow(clippy::too_many_arguments)] // the command's three fields, and the four every command gets
    fn add(
        &mut self,
        tables: &mut Tables,
        me: &Identity,
        phase: &Field<'_>,
        body: &Field<'_>,
        id: &MessageId<'_>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let (Opened::Yes, Some(mailbox)) = (self.opened, &self.mailbox) else {
            return Err(Refusal::MustOpenFirst);
        };
        for (name, field) in [("phase", phase), ("body", body)] {
            if *field == Field::Absent {
                return Err(Refusal::Missing { field: name });
            }
        }
        let (id, live_id) = match id {
            MessageId::Null => (None, None),
            MessageId::Text(text) => (Some(Box::from(&**text)), None),
            MessageId::Json(json) => (Some(Box::from(*json)), Some(Rc::from(*json))),
        };
        let message = Rc::new(Message {
            side: me.side.clone(),
            phase: required("add", "phase", phase)?.into(),
            body: required("add", "body", body)?.into(),
            server_rx: now,
            id,
        });
        for subscriber in tables.add(mailbox, &message, effects)?.to_vec() {
            let (message, live_id) = (message.clone(), live_id.clone());
            effects.replies.push((subscriber, Response::Message { message, live_id }));
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // as `add`
    fn close(
        &mut self,
        tables: &mut Tables,
        me: &Identity,
        conn: ConnId,
        mailbox: &Field<'_>,
        mood: &Field<'_>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<Orphans, Refusal> {
        if self.closed {
            return Err(Refusal::OnlyOneClose);
        }
        let mailbox: Rc<str> = match (mailbox, &self.mailbox) {
            (Field::Absent, None) => self.refused.clone().ok_or(Refusal::CloseWithoutOpen)?,
            (Field::Absent, Some(opened)) => opened.clone(),
            (Field::Text(name), Some(opened)) if **name == **opened => opened.clone(),
            (_, Some(_)) => return Err(Refusal::CloseOther),
            (_, None) => required("close", "mailbox", mailbox)?.into(),
        };
        let mood = match mood {
            Field::Absent => None,
            mood => Some(required("close", "mood", mood)?.into()),
        };
        let orphans = match self.opened {
            Opened::Yes => {
                tables.unsubscribe(&mailbox, conn);
                tables.close(&mailbox, &me.side, mood, now, effects)
            }
            // Deleted; but a new one of that id that the side has opened since is closed, as
            // upstream does: who is told `closed` does not come back to do it.
            Opened::Deleted if tables.serves(&me.app, &mailbox, &me.side) => {
                tables.close(&mailbox, &me.side, mood, now, effects)
            }
            Opened::Deleted => Orphans::new(),
            // Even when the server is full: what it creates, it deletes again.
            Opened::No => match tables.open(&me.app, &mailbox, &me.side, now, effects) {
                Ok(()) => tables.close(&mailbox, &me.side, mood, now, effects),
                Err(Refusal::Crowded) => Orphans::new(), // a third side may leave too
                Err(refusal) => return Err(refusal),
            },
        };
        // Nothing asks for the names any more, and an idle connection should hold nothing.
        (self.mailbox, self.refused) = (None, None);
        self.opened = Opened::No;
        self.closed = true;
        Ok(orphans)
    }
}

/// Whether a claim may go on that says what shall become of a nameplate that is not there.
fn check_allocate(
    tables: &Tables,
    me: &Identity,
    name: &str,
    allocate: Flag,
) -> Result<(), Refusal> {
    match allocate {
        Flag::Invalid => {
            Err(Refusal::Invalid { command: "claim", field: "allocate", rule: Rule::Boolean })
        }
        Flag::Set(false) if !tables.has_nameplate(&me.app, name) => Err(Refusal::Unallocated),
        _ => Ok(()),
    }
}

fn present(command: &'static str, field: &'static str, value: &Field<'_>) -> Result<(), Refusal> {
    match value {
        Field::Absent => Err(Refusal::Requires { command, field }),
        _ => Ok(()),
    }
}

fn required<'a>(
    command: &'static str,
    field: &'static str,
    value: &'a Field<'_>,
) -> Result<&'a str, Refusal> {
    match value {
        Field::Absent => Err(Refusal::Requires { command, field }),
        Field::Invalid(rule) => Err(Refusal::Invalid { command, field, rule: *rule }),
        Field::Text(text) => Ok(text),
    }
}
