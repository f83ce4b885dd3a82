//! The connection table of version 2 (`--track-connections`): a row for each live connection.
//!
//! Changes gather in memory for up to a second, so that a connection that came and went in between
//! is never written, and deleting costs one pass over the table however many connections left.

use rusqlite::{Connection, params};

use super::{AddressId, run};
use crate::limits::{RECORDS_BACKLOG_MAX, TRACKED_COMMANDS_MAX};
use crate::message::{ConnId, ConnMap};
use crate::sorted::sorted;
use crate::sys::clock::Timestamp;

#[derive(Debug)]
pub enum ConnectionChange {
    Connected {
        address_id: Option<AddressId>,
        at: Timestamp,
    },
    /// Taken over from an earlier process, which has left a row if it kept the table.
    TakenOver {
        side: Option<Box<str>>,
        at: Timestamp,
    },
    Bound {
        side: Box<str>,
        implementation: Option<Box<str>>,
        version: Option<Box<str>>,
    },
    Command {
        name: &'static str,
        at: Timestamp,
    },
}

/// The live connections, and what of them is not in the file yet.
#[derive(Debug, Default)]
pub struct ConnectionTable {
    live: ConnMap<Tracked>,
    /// Connections that are in the file and are gone.
    lost: Vec<ConnId>,
    pending_count: usize,
}

#[derive(Debug, Default)]
struct Tracked {
    /// What makes its row, in order, with its last command.
    written: Vec<ConnectionChange>,
    pending: Vec<ConnectionChange>,
    /// How many of its commands were recorded.
    recorded: u32,
}

impl Tracked {
    fn settle(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            if is_command(&change) {
                self.written.retain(|earlier| !is_command(earlier));
            }
            self.written.push(change);
        }
    }
}

fn is_command(change: &ConnectionChange) -> bool {
    matches!(change, ConnectionChange::Command { .. })
}

impl ConnectionTable {
    /// The table of a file with the rows of an earlier process, of whose connections these go on.
    pub fn taken_over(mut rows: Vec<ConnId>, connections: &[ConnId]) -> ConnectionTable {
        let known = sorted(connections.iter().copied());
        rows.retain(|conn| known.binary_search(conn).is_err());
        ConnectionTable { lost: rows, ..ConnectionTable::default() }
    }

    /// Adds a change. Commands are recorded up to a limit for each connection and for all.
    pub fn push(&mut self, conn: ConnId, change: ConnectionChange) {
        use ConnectionChange::{Connected, TakenOver};
        if matches!(change, Connected { .. } | TakenOver { .. }) {
            self.live.insert(conn, Tracked::default());
        }
        let Some(tracked) = self.live.get_mut(&conn) else { return };
        if is_command(&change) {
            if tracked.recorded >= TRACKED_COMMANDS_MAX || self.pending_count >= RECORDS_BACKLOG_MAX
            {
                return;
            }
            tracked.recorded += 1;
        }
        self.pending_count += 1;
        tracked.pending.push(change);
    }

    /// Removes a connection that is gone.
    pub fn remove(&mut self, conn: ConnId) {
        let Some(Tracked { pending, .. }) = self.live.remove(&conn) else {
            return; // it never completed its handshake
        };
        self.pending_count -= pending.len();
        if !matches!(pending.first(), Some(ConnectionChange::Connected { .. })) {
            self.lost.push(conn);
        }
    }

    /// Removes the connections that are live when the server ends.
    pub fn remove_all(&mut self) {
        for conn in self.live.keys().copied().collect::<Vec<_>>() {
            self.remove(conn);
        }
    }

    /// Whether the file is up to date.
    pub fn is_written(&self) -> bool {
        self.pending_count == 0 && self.lost.is_empty()
    }

    /// Removes everything, after it was written.
    pub fn clear(&mut self) {
        self.live.values_mut().for_each(Tracked::settle);
        self.lost.clear();
        self.pending_count = 0;
    }

    /// Adds everything again, for a file that has nothing of it. Of earlier commands, only the last
    /// of each connection.
    pub fn write_again(&mut self) {
        for tracked in self.live.values_mut() {
            let mut all = std::mem::take(&mut tracked.written);
            self.pending_count += all.len();
            all.append(&mut tracked.pending);
            tracked.pending = all;
            tracked.recorded = tracked.pending.iter().filter(|it| is_command(it)).count() as u32;
        }
    }

    /// Writes everything, within the caller's transaction.
    pub(super) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        if !self.lost.is_empty() {
            let ids = self.lost.iter().map(|conn| conn.0.to_string()).collect::<Vec<_>>().join(",");
            connection.execute_batch(&format!(
                "DELETE FROM connection_messages WHERE id IN ({ids}); \
                 DELETE FROM connections WHERE id IN ({ids})"
            ))?;
        }
        let changed = self.live.iter().filter(|(_, tracked)| !tracked.pending.is_empty());
        for conn in sorted(changed.map(|(conn, _)| *conn)) {
            for change in &self.live[&conn].pending {
                write(connection, conn.0 as i64, change)?;
            }
        }
        Ok(())
    }
}

fn write(connection: &Connection, id: i64, change: &ConnectionChange) -> rusqlite::Result<()> {
    match change {
        ConnectionChange::Connected { address_id, at } => run(
            connection,
            "INSERT OR REPLACE INTO connections \
             (id, addrid_generation, addrid_counter, connected, active) VALUES (?1, ?2, ?3, ?4, ?4)",
            params![
                id,
                address_id.map(|id| id.generation as i64),
                address_id.map(|id| id.counter as i64),
                at
            ],
        ),
        ConnectionChange::TakenOver { side, at } => run(
            connection,
            "INSERT OR IGNORE INTO connections (id, side, connected, active) VALUES (?1, ?2, ?3, ?3)",
            params![id, side, at],
        ),
        ConnectionChange::Bound { side, implementation, version } => run(
            connection,
            "UPDATE connections SET side = ?2, implementation = ?3, version = ?4 WHERE id = ?1",
            params![id, side, implementation, version],
        ),
        ConnectionChange::Command { name, at } => {
            let active = "UPDATE connections SET active = ?2 WHERE id = ?1";
            match run(connection, active, params![id, at])? {
                0 => Ok(0), // its row went with a file that was replaced
                _ => run(
                    connection,
                    "INSERT INTO connection_messages (id, \"when\", name) VALUES (?1, ?2, ?3)",
                    params![id, at, name],
                ),
            }
        }
    }
    .map(drop)
}
