//! What is counted for addresses as records, and back (manual: reloading 5).

use std::time::Instant;

use super::Quotas;
use crate::message::handover::AddressesRecord;
use crate::store::NameplateId;

impl Quotas {
    /// What is counted for addresses. The rest of the record is not known here.
    pub fn export(&mut self, now: Instant) -> AddressesRecord {
        self.charge_joins(now);
        let creators = self.creators.iter().map(|(id, source)| (id.0, source.address));
        AddressesRecord {
            rates: self.tables.export(now),
            creators: creators.collect(),
            joins: self.joins.export(now),
            ..AddressesRecord::default()
        }
    }

    /// Goes on with what another process has counted. The limits may have changed.
    pub fn restore(&mut self, record: AddressesRecord, now: Instant) {
        for rates in &record.rates {
            let source = self.source_of(rates.address);
            self.tables.restore(rates, source, now);
        }
        for (id, address) in record.creators {
            self.add_nameplate(NameplateId(id), self.source_of(address), now);
        }
        for join in record.joins {
            let source = self.source_of(join.source);
            let beginner = join.beginner.map(|address| self.source_of(address));
            self.joins.restore(join, source, beginner, now);
        }
        self.charge_joins(now);
    }
}
