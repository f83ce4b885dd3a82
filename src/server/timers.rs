//! Deadlines of connections, in order.
//!
//! A deadline that moves later is left where it is: when it is due, its connection sets the next.
//! So activity costs nothing here.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::message::ConnId;

/// All deadlines; at most one a connection.
#[derive(Debug, Default)]
pub struct Timers(BTreeSet<(Instant, ConnId)>);

impl Timers {
    /// Sets a connection's deadline, unless it has an earlier one; `armed` is the one it has.
    pub fn arm(&mut self, conn: ConnId, armed: &mut Option<Instant>, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        if armed.is_none_or(|standing| standing > deadline) {
            self.disarm(conn, armed);
            self.0.insert((deadline, conn));
            *armed = Some(deadline);
        }
    }

    /// Removes a connection's deadline.
    pub fn disarm(&mut self, conn: ConnId, armed: &mut Option<Instant>) {
        if let Some(standing) = armed.take() {
            self.0.remove(&(standing, conn));
        }
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.0.first().map(|(deadline, _)| *deadline)
    }

    /// Removes and returns a connection whose deadline is due; it must be armed again.
    pub fn pop_due(&mut self, now: Instant) -> Option<ConnId> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, conn)| conn)
    }
}
