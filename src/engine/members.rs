//! Members and guests: which connections may begin something, and what each member has begun
//! (manual: members 2 and 3).

use std::collections::HashMap;
use std::rc::Rc;

use super::Engine;
use crate::codec::http::Rejection;
use crate::config::members::Members;
use crate::engine::limit_log::Limit;
use crate::message::{Command, ConnId, ConnMap, Member, Secret};
use crate::sorted::sorted;
use crate::store::{Change, Row};

/// The connections of members, and what is counted for each name.
#[derive(Debug, Default)]
pub struct Memberships {
    pub connections: ConnMap<Member>,
    /// By name.
    counts: HashMap<Rc<str>, MemberCounts>,
    /// Names of those that have begun an exchange in this tick, which is not committed yet.
    begun: Vec<Rc<str>>,
}

/// Counts of one member since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberCounts {
    /// Connections at present; counted when it is asked for.
    pub connected: u64,
    pub connections: u64,
    /// Exchanges that it began.
    pub exchanges: u64,
}

impl Memberships {
    /// Follows a new file. Connections whose line is gone become guests.
    pub fn set(&mut self, members: Option<&Members>) {
        self.connections.retain(|_, member| members.is_some_and(|all| all.contains(member)));
        let before = std::mem::take(&mut self.counts);
        for name in members.into_iter().flat_map(Members::names) {
            let counts = before.get(name).copied().unwrap_or_default();
            self.counts.insert(name.clone(), counts);
        }
    }

    /// Counts a connection as a member's.
    pub fn connect(&mut self, conn: ConnId, member: Member) {
        if let Some(counts) = self.counts.get_mut(&member.name) {
            counts.connections += 1;
        }
        self.connections.insert(conn, member);
    }

    /// Takes note of the mailbox that a command has begun.
    pub fn note_begun(&mut self, conn: ConnId, command: &Command<'_>, changes: &[Change]) {
        let Some(member) = self.connections.get(&conn) else { return };
        let is_begun = |change: &Change| matches!(change, Change::Insert(Row::Mailbox { .. }));
        // A late `close` creates the mailbox that it deletes.
        if !matches!(command, Command::Close { .. }) && changes.iter().any(is_begun) {
            self.begun.push(member.name.clone());
        }
    }

    /// Counts what the tick has begun, if it is committed.
    pub fn update_counts(&mut self, is_committed: bool) {
        for name in self.begun.drain(..).filter(|_| is_committed) {
            if let Some(counts) = self.counts.get_mut(&name) {
                counts.exchanges += 1;
            }
        }
    }
}

impl Engine {
    /// Makes the connection a member's if it knows a secret. An address that has presented many
    /// unknown ones is refused for a while, whatever it presents: else it would learn as fast as
    /// before which are right.
    pub(super) fn recognise(
        &mut self,
        conn: ConnId,
        secret: Option<&Secret>,
    ) -> Result<(), Rejection> {
        let (Some(members), Some(secret)) = (&self.settings.members, secret) else { return Ok(()) };
        let checked = self.quotas.check_secret(conn, self.clock.instant);
        checked.inspect_err(|_| self.limit_log.hit(Limit::AddressGuesses))?;
        match members.find(secret) {
            Some(member) => self.memberships.connect(conn, member.clone()),
            None => {
                self.quotas.note_unknown_secret(conn);
                self.limit_log.hit(Limit::UnknownMember);
            }
        }
        Ok(())
    }

    /// Whether a connection may begin something: all may if there is no file of members.
    pub(super) fn may_begin(&self, conn: ConnId) -> bool {
        self.settings.members.is_none() || self.memberships.connections.contains_key(&conn)
    }

    /// The members in the order of their names, if there is a file of them.
    pub fn members(&self) -> Option<Vec<(Rc<str>, MemberCounts)>> {
        self.settings.members.as_ref()?;
        let mut counts = self.memberships.counts.clone();
        for member in self.memberships.connections.values() {
            if let Some(counts) = counts.get_mut(&member.name) {
                counts.connected += 1;
            }
        }
        Some(sorted(counts))
    }
}
