//! The engine's state of connections and addresses as records, and back (manual: reloading 5).

use std::fs::File;
use std::iter;

use super::Engine;
use crate::message::ConnId;
use crate::message::handover::{AddressesRecord, StateRecord};
use crate::storage::db::{AddridDb, ConnectionChange, Failure, MEMORY, UsageDb};
use crate::storage::records::Records;

impl Engine {
    /// Whether another process finds the state in the file.
    pub fn has_state_on_disk(&self) -> bool {
        self.config.channel_db.as_os_str() != MEMORY && !self.storage.is_degraded()
    }

    /// Writes what the file lags behind with, so that the next process finds it. Fails if it would
    /// not find the state.
    pub fn prepare_handover(&mut self) -> Result<(), Failure> {
        self.limit_log.report_rest(self.clock.instant);
        self.store.write_activity(&mut self.effects);
        self.commit_alone();
        if self.is_degraded() {
            return Err("the storage has failed".into());
        }
        let db = self.storage.db_mut();
        self.records.flush_patiently(db);
        db.check()
    }

    /// Logs what the next process will not find, although it was to be written.
    pub fn warn_of_losses(&self) {
        self.records.warn_of_losses();
    }

    /// The files whose locks keep a second server off.
    pub fn locks(&self) -> impl Iterator<Item = &File> {
        let Records { usage, addresses, .. } = &self.records;
        let of_records =
            [usage.as_ref().and_then(UsageDb::lock), addresses.as_ref().and_then(AddridDb::lock)];
        iter::once(self.storage.lock()).chain(of_records).flatten()
    }

    /// Leaves the rows of the connections where they are, for the next process.
    pub fn leave_connections(&mut self) {
        self.records.connections = None;
    }

    /// The engine's part of a connection's record.
    pub fn export(&self, conn: ConnId) -> StateRecord {
        StateRecord {
            counted: self.quotas.holder_of(conn).map(|holder| holder.address),
            session: self.store.session(conn).cloned(),
            demand: self.permissions.demands.get(&conn).copied(),
            is_outsider: self.outsiders.contains(&conn),
            member: self.memberships.connections.get(&conn).cloned(),
        }
    }

    /// The state of addresses, for another process to go on with.
    pub fn export_addresses(&mut self) -> AddressesRecord {
        let now = self.clock.instant;
        AddressesRecord {
            attack: self.permissions.attack.export(now),
            ids: self.records.addresses.as_ref().and_then(|ids| ids.export(now)),
            ..self.quotas.export(now)
        }
    }

    /// Restores what an earlier process knew of addresses, but for their ids, and of connections.
    pub fn restore(
        &mut self,
        addresses: AddressesRecord,
        connections: impl Iterator<Item = (ConnId, StateRecord)>,
    ) {
        let now = self.clock.instant;
        self.permissions.restore_attack(&addresses.attack, now);
        self.quotas.restore(addresses, now);
        for (conn, record) in connections {
            self.restore_one(conn, record);
        }
    }

    fn restore_one(&mut self, conn: ConnId, record: StateRecord) {
        if let Some(address) = record.counted {
            self.quotas.restore_connection(conn, address, self.clock.instant);
        }
        if let Some(demand) = record.demand {
            self.permissions.demands.insert(conn, demand);
        }
        if record.is_outsider {
            self.outsiders.insert(conn);
        }
        if let (Some(member), Some(members)) = (record.member, &self.settings.members)
            && members.contains(&member)
        {
            self.memberships.connect(conn, member);
        }
        if let Some(session) = record.session {
            let (at, identity) = (self.clock.wall, session.identity.as_ref());
            let side = identity.map(|(_, side)| (&**side).into());
            self.records.track(conn, || ConnectionChange::TakenOver { side, at });
            self.store.restore_session(conn, self.quotas.holder_of(conn), session);
        }
    }
}
