//! A command's way: the checks before the store, the store, and what is counted after it.

use std::rc::Rc;

use super::Engine;
use crate::codec::json::{DecodeError, Request};
use crate::engine::limit_log::Limit;
use crate::message::{
    CHECK_APP, CloseReason, Command, ConnId, Field, Flag, Orig, Refusal, Response, Verdict,
};
use crate::storage::db::ConnectionChange;
use crate::store::Act;

/// The implementation in the `client_version` of Go's client.
const GO_CLIENT: &str = "go-william";

impl Engine {
    /// Carries out a message that was decoded as `request`; `text` is the message.
    pub(super) fn carry_out(
        &mut self,
        conn: ConnId,
        request: Result<Request<'_>, DecodeError>,
        text: &str,
    ) -> Verdict {
        self.effects.add_participant(conn);
        let mut request = match request {
            Ok(request) => request,
            Err(DecodeError { refusal, orig }) => {
                if !self.is_about_to_close(conn) {
                    self.reply_error(conn, refusal, orig);
                }
                return Verdict::Stay;
            }
        };
        self.permissions.normalise(&mut request.command);
        if !self.config.delete && matches!(request.command, Command::Delete { .. }) {
            request.command = Command::Unknown;
        }
        if self.is_about_to_close(conn) {
            self.answer_while_closing(conn, &request);
            return Verdict::Stay;
        }
        self.effects.outputs.reply(conn, Response::Ack { id: request.id.map(Box::from) });
        let command = &request.command;
        self.metrics.commands[command.index()] += 1;
        self.note_trouble(conn);
        let (name, at) = (command.name(), self.clock.wall);
        self.records.track(conn, || ConnectionChange::Command { name, at });
        match self.check(conn, command).and_then(|()| self.apply(conn, command)) {
            Ok(()) => {
                self.note_done(conn, command);
                Verdict::Stay
            }
            Err(refusal) => self.refuse(conn, command, refusal, text),
        }
    }

    /// Has the store carry out a command, and counts what has changed.
    fn apply(&mut self, conn: ConnId, command: &Command<'_>) -> Result<(), Refusal> {
        let changes_before = self.effects.changes.len();
        let (now, wall, may_begin) = (self.now(), self.clock.wall, self.may_begin(conn));
        let (entropy, effects) = (&mut *self.entropy, &mut self.effects);
        let mut act = Act { now, wall, entropy, effects, may_begin };
        let outcome = self.store.apply(conn, command, &mut act);
        let changes = &self.effects.changes[changes_before..];
        if changes.is_empty() {
            return outcome;
        }
        let claimed = match command {
            Command::Claim { nameplate: Field::Text(name), .. } => {
                self.store.app(conn).map(|app| (app, &**name))
            }
            _ => None,
        };
        self.quotas.note_changes(conn, claimed, changes, self.clock.instant);
        self.memberships.note_begun(conn, command, changes);
        outcome
    }

    fn reply_error(&mut self, conn: ConnId, refusal: Refusal, orig: Orig) {
        self.metrics.errors.add(refusal.label());
        self.effects.outputs.reply(conn, Response::Error { refusal: refusal.into(), orig });
    }

    /// The answer to a client that waits for it before it shows an error, though it has not bound:
    /// Python's after a `bind` with a field that 0.8.0 would take, to `release` and `close`; Go's,
    /// which does not bind if the welcome has an error, to `close`.
    fn farewell_before_bind(&self, conn: ConnId, command: &Command<'_>) -> Option<Response> {
        let is_awaited = self.store.session(conn).is_some_and(|it| it.has_tried_to_bind)
            || matches!(command, Command::Close { .. })
                && (self.settings.welcome.error.is_some() || self.is_degraded());
        answer_to_leaving(command).filter(|_| is_awaited && !self.store.is_bound(conn))
    }

    /// Replies to a message that was too long to be kept. The `ack` is for Go's client, which would
    /// wait for one.
    pub(super) fn refuse_too_long(&mut self, conn: ConnId, refusal: Refusal, beginning: &str) {
        self.effects.add_participant(conn);
        self.limit_log.hit(Limit::MessageBytes);
        if self.is_about_to_close(conn) {
            return;
        }
        self.effects.outputs.reply(conn, Response::Ack { id: None });
        self.reply_error(conn, refusal, Orig::Text(beginning.into()));
    }

    /// Replies to a command that was not carried out.
    fn refuse(
        &mut self,
        conn: ConnId,
        command: &Command<'_>,
        refusal: Refusal,
        text: &str,
    ) -> Verdict {
        if let Some(answer) = self.farewell_before_bind(conn, command) {
            self.effects.outputs.reply(conn, answer);
            return Verdict::Stay;
        }
        if let Some(limit) = Limit::of_refusal(&refusal) {
            self.limit_log.hit(limit);
        }
        let holder = self.quotas.holder_of(conn);
        self.permissions.note_refusal(command, &refusal, holder, self.clock.instant);
        if refusal == Refusal::StorageUnavailable && self.leaves_something(conn, command) {
            self.kept_from_leaving.insert(conn);
        }
        let verdict = verdict_on(command, &refusal);
        self.reply_error(conn, refusal, Orig::Command(text.into()));
        verdict
    }

    /// Whether it may not bind, and is closed for it once it has had the time to leave.
    fn is_about_to_close(&self, conn: ConnId) -> bool {
        self.permissions.is_refused(conn) || self.sent_away.contains(&conn)
    }

    /// Answers a connection that is about to be closed. Python's client shows the error only after
    /// a `released` to its `release` and a `closed` to its `close`, for which it would reconnect
    /// again and again; Go's after a `closed`. Other commands are ignored, as after any close.
    fn answer_while_closing(&mut self, conn: ConnId, request: &Request<'_>) {
        let Some(answer) = answer_to_leaving(&request.command) else { return };
        self.effects.outputs.reply(conn, Response::Ack { id: request.id.map(Box::from) });
        self.effects.outputs.reply(conn, answer);
    }

    /// Checks a command against everything but the protocol's own rules, which are the store's.
    fn check(&mut self, conn: ConnId, command: &Command<'_>) -> Result<(), Refusal> {
        self.refuse_for_trouble(command)?;
        if self.store.is_out_of_order(conn, command) {
            return Ok(()); // the store says why
        }
        let shows_state = matches!(command, Command::List);
        if self.storage.is_degraded() {
            let is_loaded = self.store.is_loaded();
            let is_idle = matches!(command, Command::Release { .. })
                && self.store.is_bound(conn)
                && !self.leaves_something(conn, command);
            if command.changes_state() && !is_idle || shows_state && !is_loaded {
                return Err(Refusal::StorageUnavailable);
            }
        }
        self.check_quotas(conn, command)?;
        // After the quotas, which bound the guessing of nameplates.
        let is_outsider = self.outsiders.contains(&conn);
        if (is_outsider || self.draining) && self.store.would_begin(conn, command) {
            return Err(if is_outsider {
                Refusal::Outsider
            } else {
                Refusal::Draining { message: Rc::clone(&self.settings.drain.message) }
            });
        }
        Ok(())
    }

    fn check_quotas(&mut self, conn: ConnId, command: &Command<'_>) -> Result<(), Refusal> {
        let now = self.clock.instant;
        match command {
            Command::SubmitPermissions { method, stamp, .. } => {
                let outcome = self.permissions.submit(conn, method, stamp);
                outcome.map_err(|problem| Refusal::PermissionDenied { problem })
            }
            Command::Bind { .. } => self.permissions.check_bind(conn),
            Command::Allocate => self.quotas.allocate(conn, now),
            Command::Claim { nameplate: Field::Text(name), allocate } => {
                let never_creates =
                    self.config.rules.claim_without_allocate && *allocate == Flag::Set(false);
                let creates = !never_creates && !self.store.has_nameplate(conn, name);
                self.quotas.claim(conn, creates, now)?;
                if self.store.would_join(conn, name) {
                    self.quotas.check_join(conn, now)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether a `release` or `close` is about what the side holds, as far as that is known.
    fn leaves_something(&self, conn: ConnId, command: &Command<'_>) -> bool {
        answer_to_leaving(command).is_some()
            && (!self.store.is_loaded() || self.store.would_leave(conn, command))
    }

    /// Counts and records a command that was carried out.
    fn note_done(&mut self, conn: ConnId, command: &Command<'_>) {
        match command {
            Command::Close { .. } if self.store.app(conn) == Some(CHECK_APP) => {}
            Command::Close { mood: Field::Text(mood), .. } => self.metrics.count_mood(Some(mood)),
            Command::Close { .. } => self.metrics.count_mood(None),
            Command::Bind { side: Field::Text(side), client_version, .. } => {
                self.permissions.demands.remove(&conn);
                self.records.track(conn, || ConnectionChange::Bound {
                    side: (&**side).into(),
                    implementation: client_version.implementation.clone(),
                    version: client_version.version.clone(),
                });
            }
            _ => {}
        }
    }
}

fn answer_to_leaving(command: &Command<'_>) -> Option<Response> {
    match command {
        Command::Release { .. } => Some(Response::Released),
        Command::Close { .. } => Some(Response::Closed),
        _ => None,
    }
}

/// Whether a refusal also closes the connection: yes for a missing or bad proof of work, as those
/// clients would retry forever.
fn verdict_on(command: &Command<'_>, refusal: &Refusal) -> Verdict {
    match (refusal, command) {
        (Refusal::PermissionDenied { .. }, _) => Verdict::Close(CloseReason::NotPermitted),
        // Go's client shows the reason of a close only if that comes before its next command.
        (Refusal::PermissionRequired, Command::Bind { client_version, .. })
            if client_version.implementation.as_deref() == Some(GO_CLIENT) =>
        {
            Verdict::Close(CloseReason::NotPermitted)
        }
        (Refusal::PermissionRequired, _) => Verdict::CloseSoon(CloseReason::NotPermitted),
        _ => Verdict::Stay,
    }
}
