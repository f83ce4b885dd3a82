//! The counts of addresses as records, and back (manual: reloading 5).

use std::time::Instant;

use super::Quotas;
use crate::message::handover::AddressesRecord;
use crate::store::NameplateId;

impl Quotas {
    /// The counts of addresses; the rest of the record is filled in by the engine.
    pub fn export(&mut self, now: Instant) -> AddressesRecord {
        let creators = self.creators.iter().map(|(id, holder)| (id.0, holder.address));
        AddressesRecord {
            rates: self.tables.export(now),
            creators: creators.collect(),
            joins: self.joins.export(now),
            ..AddressesRecord::default()
        }
    }

    /// Goes on with what another process has counted. The limits may have changed.
    pub fn restore(&mut self, record: AddressesRecord, now: Instant) {
        for (prefix, tokens) in record.rates {
            self.tables.restore(prefix, tokens, self.holder_at(prefix.address), now);
        }
        for (id, address) in record.creators {
            self.add_nameplate(NameplateId(id), self.holder_at(address), now);
        }
        for join in record.joins {
            let holder = self.holder_at(join.holder);
            let beginner = join.beginner.map(|address| self.holder_at(address));
            self.joins.restore(join, holder, beginner, now);
        }
    }
}
