//! The connection table of version 2 (`--track-connections`): who is connected now.
//!
//! Changes gather in memory for up to a second, so that what came and went in between is never
//! written, and leaving costs one pass over the table a second however many leave.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

use crate::limits::{RECORDS_BACKLOG_MAX, TRACKED_COMMANDS_MAX};
use crate::message::ConnId;
use crate::sys::clock::Timestamp;

/// Something that happened to a connection.
#[derive(Debug)]
pub enum ConnectionChange {
    Connected { address_id: Option<(u64, u64)>, at: Timestamp },
    Bound { side: Box<str>, implementation: Option<Box<str>>, version: Option<Box<str>> },
    Command { name: &'static str, at: Timestamp },
    Lost,
}

/// Changes that the file does not have yet.
#[derive(Debug, Default)]
pub struct ConnectionTable {
    pending: BTreeMap<ConnId, Vec<ConnectionChange>>,
    /// Connections that the file has and that are gone.
    lost: BTreeSet<ConnId>,
    /// Connections that are there, and how many commands have been noted for each.
    live: BTreeMap<ConnId, u32>,
    pending_count: usize,
}

impl ConnectionTable {
    /// Takes note of a change. Of commands only so many, for one connection and in all.
    pub fn push(&mut self, conn: ConnId, change: ConnectionChange) {
        match change {
            ConnectionChange::Connected { .. } => _ = self.live.insert(conn, 0),
            ConnectionChange::Lost => return self.remove(conn),
            ConnectionChange::Bound { .. } => {}
            ConnectionChange::Command { .. } => {
                let Some(noted) = self.live.get_mut(&conn) else { return };
                if *noted >= TRACKED_COMMANDS_MAX || self.pending_count >= RECORDS_BACKLOG_MAX {
                    return;
                }
                *noted += 1;
            }
        }
        self.pending_count += 1;
        self.pending.entry(conn).or_default().push(change);
    }

    fn remove(&mut self, conn: ConnId) {
        if self.live.remove(&conn).is_none() {
            return; // it never completed its handshake
        }
        let unwritten = self.pending.remove(&conn).unwrap_or_default();
        self.pending_count -= unwritten.len();
        if !matches!(unwritten.first(), Some(ConnectionChange::Connected { .. })) {
            self.lost.insert(conn);
        }
    }

    /// Whether the file has everything.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.lost.is_empty()
    }

    /// Forgets what has been written.
    pub fn clear(&mut self) {
        self.pending.clear();
        self.lost.clear();
        self.pending_count = 0;
    }

    /// Writes everything, within a transaction of the caller's.
    pub(super) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        if !self.lost.is_empty() {
            let ids = self.lost.iter().map(|conn| conn.0.to_string()).collect::<Vec<_>>().join(",");
            connection.execute_batch(&format!(
                "DELETE FROM connection_messages WHERE id IN ({ids}); DELETE FROM connections WHERE id IN ({ids})"
            ))?;
        }
        for (conn, change) in
            self.pending.iter().flat_map(|(conn, list)| list.iter().map(move |it| (conn, it)))
        {
            write(connection, conn.0 as i64, change)?;
        }
        Ok(())
    }
}

fn write(connection: &Connection, id: i64, change: &ConnectionChange) -> rusqlite::Result<()> {
    match change {
        ConnectionChange::Connected { address_id, at } => {
            let (generation, counter) = address_id.unzip();
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO connections (id, addrid_generation, addrid_counter, connected, active) \
                     VALUES (?1, ?2, ?3, ?4, ?4)",
                )?
                .execute((id, generation.map(|it| it as i64), counter.map(|it| it as i64), at))?;
        }
        ConnectionChange::Bound { side, implementation, version } => {
            connection
                .prepare_cached(
                    "UPDATE connections SET side = ?2, implementation = ?3, version = ?4 WHERE id = ?1",
                )?
                .execute((id, side, implementation, version))?;
        }
        ConnectionChange::Command { name, at } => {
            connection
                .prepare_cached("UPDATE connections SET active = ?2 WHERE id = ?1")?
                .execute((id, at))?;
            connection
                .prepare_cached(
                    "INSERT INTO connection_messages (id, \"when\", name) VALUES (?1, ?2, ?3)",
                )?
                .execute((id, at, name))?;
        }
        ConnectionChange::Lost => {}
    }
    Ok(())
}
