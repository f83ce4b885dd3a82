//! One connection's session: `bind`, and which commands what it has done so far still allows.

use std::rc::Rc;

use super::change::{Effects, UsageRecord};
use super::tables::Tables;
use super::usage::blurred;
use super::{Act, Answer};
use crate::message::{ClientVersion, ConnId, Field, Holder, MailboxState, Refusal, Session};

/// The app and side that a connection has bound to.
#[derive(Debug)]
pub(super) struct Identity {
    pub app: Rc<str>,
    pub side: Rc<str>,
    /// To which the connection's share of the store is charged, if its address has limits.
    pub holder: Option<Holder>,
}

impl Session {
    /// Binds the connection to an app and a side, once, and records its program.
    pub(super) fn bind(
        &mut self,
        tables: &mut Tables,
        appid: &Field<'_>,
        side: &Field<'_>,
        client_version: &ClientVersion,
        act: &mut Act<'_>,
    ) -> Answer {
        const COMMAND: &str = "bind";
        if self.identity.is_some() {
            return Err(Refusal::AlreadyBound);
        }
        all_present(&[("appid", appid), ("side", side)], |field| Refusal::Requires {
            command: COMMAND,
            field,
        })?;
        self.has_tried_to_bind = true;
        let app = required(COMMAND, "appid", appid)?;
        let side: Rc<str> = required(COMMAND, "side", side)?.into();
        let app = tables.enter_app(app);
        let record = UsageRecord::ClientVersion {
            app: app.clone(),
            side: side.clone(),
            connect_time: blurred(act.now, tables.rules.blur),
            implementation: client_version.implementation.clone(),
            version: client_version.version.clone(),
        };
        act.effects.usage.push((record, self.holder));
        self.identity = Some((app, side));
        Ok(None)
    }

    /// The app and side, without which nothing else is allowed.
    pub(super) fn identity(&self) -> Result<Identity, Refusal> {
        let (app, side) = self.identity.clone().ok_or(Refusal::MustBindFirst)?;
        Ok(Identity { app, side, holder: self.holder })
    }

    /// The nameplate that a `release` is about.
    pub(super) fn nameplate_to_release<'a>(
        &'a self,
        named: &'a Field<'_>,
    ) -> Result<&'a str, Refusal> {
        match (named, &self.claimed) {
            _ if self.released => Err(Refusal::OnlyOneRelease),
            (Field::Absent, None) => Err(Refusal::ReleaseWithoutClaim),
            (Field::Absent, Some(claimed)) => Ok(claimed),
            (Field::Text(name), Some(claimed)) if **name == **claimed => Ok(claimed),
            (_, Some(_)) => Err(Refusal::ReleaseOther),
            (_, None) => required("release", "nameplate", named),
        }
    }

    /// The mailbox that a `close` is about.
    pub(super) fn mailbox_to_close(&self, named: &Field<'_>) -> Result<Rc<str>, Refusal> {
        use MailboxState::{Deleted, Open, Refused, Unopened};
        match (named, &self.mailbox) {
            _ if self.closed => Err(Refusal::OnlyOneClose),
            (Field::Absent, Unopened) => Err(Refusal::CloseWithoutOpen),
            (Field::Absent, Refused(known) | Open(known) | Deleted(known)) => Ok(known.clone()),
            (Field::Text(name), Open(known) | Deleted(known)) if **name == **known => {
                Ok(known.clone())
            }
            (_, Open(_) | Deleted(_)) => Err(Refusal::CloseOther),
            (_, Unopened | Refused(_)) => Ok(required("close", "mailbox", named)?.into()),
        }
    }

    /// The app it has bound to.
    pub(super) fn app(&self) -> Option<&str> {
        self.identity.as_ref().map(|(app, _)| &**app)
    }

    pub(super) fn has_open_mailbox(&self) -> bool {
        matches!(self.mailbox, MailboxState::Open(_))
    }

    /// The open mailbox was deleted by another connection.
    pub(super) fn orphan(&mut self) {
        if let MailboxState::Open(mailbox) = &self.mailbox {
            self.mailbox = MailboxState::Deleted(mailbox.clone());
        }
    }

    /// Ties the session's app to new tables.
    pub(super) fn reenter(&mut self, tables: &mut Tables) {
        if let Some((app, _)) = &mut self.identity {
            *app = tables.enter_app(app);
        }
    }

    /// Subscribes again after tables were loaded anew.
    pub(super) fn resubscribe(&mut self, tables: &mut Tables, conn: ConnId) {
        // As many subscribe again as were subscribed before: none is replaced.
        let mut effects = Effects::default();
        if let MailboxState::Open(mailbox) = &self.mailbox
            && let Ok(me) = self.identity()
            && tables.subscribe(mailbox, &me, conn, &mut effects).is_none()
        {
            self.orphan();
        }
    }
}

/// Fails for the first field that is absent: that one is missing is said before anything about
/// the value of another.
pub(super) fn all_present(
    fields: &[(&'static str, &Field<'_>)],
    refusal: fn(&'static str) -> Refusal,
) -> Result<(), Refusal> {
    match fields.iter().find(|(_, value)| **value == Field::Absent) {
        Some(&(field, _)) => Err(refusal(field)),
        None => Ok(()),
    }
}

/// The text of a required field.
pub(super) fn required<'a>(
    command: &'static str,
    field: &'static str,
    value: &'a Field<'_>,
) -> Result<&'a str, Refusal> {
    match value {
        Field::Absent => Err(Refusal::Requires { command, field }),
        Field::Invalid(rule) => Err(Refusal::Invalid { command, field, rule: rule.clone() }),
        Field::Text(text) => Ok(text),
    }
}
