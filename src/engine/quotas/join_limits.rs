//! Charges an address for its joins of nameplates, and limits them (manual: limits 2).

use std::time::Instant;

use super::joins::Charge;
use super::tables::{Action, Count};
use super::{Quotas, whole_seconds};
use crate::limits::JOIN_PROBATION;
use crate::message::{ConnId, Outcome, Refusal, Wait};
use crate::store::{Change, Row};

impl Quotas {
    /// Checks the limits of joining a nameplate that another side began.
    pub fn check_join(&mut self, conn: ConnId, now: Instant) -> Result<(), Refusal> {
        self.charge_joins(now);
        let Some(&holder) = self.connections.get(&conn) else { return Ok(()) };
        let mut wait = self.tables.check(holder, Action::KeepOut, now).err();
        let unshown_max = self.limits.address_connections_max;
        if !self.tables.has_room(holder, Count::UnshownJoins, unshown_max, now) {
            wait = wait.max(Some(JOIN_PROBATION));
        }
        match wait {
            None => Ok(()),
            Some(wait) => Err(Refusal::TooManyClaims { retry_after: Wait(whole_seconds(wait)) }),
        }
    }

    /// Counts the joins in the changes of a command, and what becomes of earlier ones. `claimed`:
    /// app and name of the nameplate, if the command is a `claim`.
    pub(super) fn note_joins(
        &mut self,
        conn: ConnId,
        claimed: Option<(&str, &str)>,
        changes: &[Change],
        now: Instant,
    ) {
        let holder = self.connections.get(&conn).copied();
        // The nameplate that it claims, unless it has begun it.
        let mut joined = None;
        for change in changes {
            match change {
                Change::Insert(Row::NameplateSide { nameplate, claimed: true, .. }) => {
                    joined = claimed.zip(Some(*nameplate));
                }
                Change::Insert(Row::Nameplate { .. }) => {
                    if let Some(nameplate) = claimed {
                        self.joins.note_claimed_anew(nameplate);
                    }
                    break; // what follows is its own
                }
                Change::Insert(Row::MailboxSide { mailbox, opened: false, .. }) => {
                    self.joins.note_crowded(mailbox);
                }
                Change::Insert(Row::MailboxSide { mailbox, side, .. }) => {
                    if let (Some((nameplate, id)), Some(holder)) = (joined, holder) {
                        let beginner = self.creators.get(&id).copied();
                        self.joins.begin(mailbox, side, holder, beginner, nameplate);
                        self.batch.joined.push(mailbox.clone());
                    }
                }
                Change::Insert(Row::Message { mailbox, message, .. }) => {
                    let (side, phase) = (&message.side, message.phase());
                    self.joins.note_message(mailbox, side, &phase, holder, now);
                }
                Change::CloseMailboxSide { mailbox, mood, .. } => {
                    let mood = mood.as_deref().and_then(Outcome::of_mood);
                    self.joins.note_close(mailbox, mood);
                }
                _ => {}
            }
        }
    }

    /// Charges the holders for what has become of their joins by `now`: before a join is checked,
    /// after a commit, and at the beginning of a tick, before anything else happens to a join.
    pub fn charge_joins(&mut self, now: Instant) {
        self.joins.end_probations(now);
        for charge in self.joins.take_charges() {
            match charge {
                Charge::Unshown(holder) => self.tables.raise(holder, Count::UnshownJoins, now),
                Charge::Settled(holder) => self.tables.lower(holder, Count::UnshownJoins),
                Charge::KeptOut(holder) => {
                    // Adds the tokens until now.
                    _ = self.tables.check(holder, Action::KeepOut, now);
                    self.tables.spend(holder, Action::KeepOut);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use super::super::tests::{address, quotas};
    use super::*;
    use crate::limits::Limits;
    use crate::message::Message;

    const NAMEPLATE: (&str, &str) = ("app", "4");

    fn mailbox_side(mailbox: &Rc<str>, side: &str, opened: bool) -> Change {
        Change::Insert(Row::MailboxSide {
            id: Default::default(),
            mailbox: mailbox.clone(),
            opened,
            side: side.into(),
            added: Default::default(),
            mood: None,
        })
    }

    fn joined(mailbox: &Rc<str>) -> [Change; 2] {
        let claim = Row::NameplateSide {
            id: Default::default(),
            nameplate: Default::default(),
            claimed: true,
            side: "joiner".into(),
            added: Default::default(),
        };
        [Change::Insert(claim), mailbox_side(mailbox, "joiner", true)]
    }

    fn message(mailbox: &Rc<str>, side: &str, phase: &str) -> Change {
        let message = Message::new(side.into(), phase, "", Default::default(), None);
        let (app, mailbox) = ("app".into(), mailbox.clone());
        Change::Insert(Row::Message { app, mailbox, message: message.into() })
    }

    fn deleted(mailbox: &Rc<str>) -> Change {
        let (app, mailbox, sides) = ("app".into(), mailbox.clone(), Vec::new());
        Change::DeleteMailbox { app, mailbox, sides, with_messages: false, mood: None }
    }

    #[test]
    fn joins_that_keep_sides_out_have_a_burst_and_then_a_rate() {
        let (mut quotas, start) = (quotas(Limits::default()), Instant::now());
        for (conn, ip) in [(1, "192.0.2.1"), (2, "192.0.2.2")] {
            assert_eq!(quotas.connect(ConnId(conn), address(ip), start), Ok(()));
        }
        let mut count = 0;
        let mut join = |quotas: &mut Quotas, now, keeps_out| {
            quotas.check_join(ConnId(1), now)?;
            count += 1;
            let mailbox: Rc<str> = format!("mailbox {count}").into();
            quotas.note_changes(ConnId(1), Some(NAMEPLATE), &joined(&mailbox), now);
            if keeps_out {
                quotas.note_changes(
                    ConnId(2),
                    None,
                    &[mailbox_side(&mailbox, "third", false)],
                    now,
                );
            }
            quotas.note_endings(&[deleted(&mailbox)]);
            quotas.update_accounting(true, now);
            Ok(())
        };
        for _ in 0..1_000 {
            assert_eq!(join(&mut quotas, start, false), Ok(()));
        }
        for _ in 0..10 {
            assert_eq!(join(&mut quotas, start, true), Ok(()));
        }
        let refused = Err(Refusal::TooManyClaims { retry_after: Wait(30) });
        assert_eq!(join(&mut quotas, start, false), refused);
        let later = start + Duration::from_secs(30);
        assert_eq!(join(&mut quotas, later, true), Ok(()));
        assert_eq!(join(&mut quotas, later, true), refused);
        assert_eq!(quotas.check_join(ConnId(2), start), Ok(()), "another address");
    }

    #[test]
    fn joins_that_are_not_shown_are_as_many_as_connections_and_come_back() {
        let limits = Limits { address_connections_max: 3, ..Limits::default() };
        let (mut quotas, mut now) = (quotas(limits), Instant::now());
        for (conn, ip) in [(1, "192.0.2.1"), (2, "192.0.2.2")] {
            assert_eq!(quotas.connect(ConnId(conn), address(ip), now), Ok(()));
        }
        let mailboxes: [Rc<str>; 3] = ["1".into(), "2".into(), "3".into()];
        for _ in 0..2 {
            for mailbox in &mailboxes {
                assert_eq!(quotas.check_join(ConnId(1), now), Ok(()));
                quotas.note_changes(ConnId(1), Some(NAMEPLATE), &joined(mailbox), now);
                quotas.update_accounting(true, now);
            }
            let refused = Err(Refusal::TooManyClaims { retry_after: Wait(10) });
            assert_eq!(quotas.check_join(ConnId(1), now), refused);
            // One is shown, the others end.
            for phase in ["pake", "version"] {
                for (conn, side) in [(2, "sender"), (1, "joiner")] {
                    let added = message(&mailboxes[0], side, phase);
                    quotas.note_changes(ConnId(conn), None, &[added], now);
                }
            }
            assert_eq!(quotas.check_join(ConnId(1), now), refused);
            now += Duration::from_secs(10);
            assert_eq!(quotas.check_join(ConnId(1), now), Ok(()));
            quotas.note_endings(&mailboxes.each_ref().map(deleted));
            // A join whose commit fails counts no more.
            quotas.note_changes(ConnId(1), Some(NAMEPLATE), &joined(&mailboxes[0]), now);
            quotas.update_accounting(false, now);
        }
        quotas.check_join(ConnId(1), now).expect("all are back");
        (1..=2).for_each(|conn| quotas.disconnect(ConnId(conn)));
        quotas.sweep(now + Duration::from_secs(600));
        assert!(quotas.tables.v4.is_empty());
    }
}
