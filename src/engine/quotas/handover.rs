//! What is counted for addresses as records, and back (manual: reloading 5).

use std::time::Instant;

use super::Quotas;
use super::usage::{Action, Bucket, Holder, Rate, Table, Usage};
use crate::limits::ADDRESSES_MAX;
use crate::message::handover::{CountedAddress, JoinRecord, RatesRecord};
use crate::store::NameplateId;

impl Quotas {
    /// The rates of the addresses that have not all their tokens.
    pub fn export_rates(&mut self, now: Instant) -> Vec<RatesRecord> {
        let (limits, tables) = (&self.limits, &mut self.tables);
        let entries = tables.v4.0.iter_mut().chain(&mut tables.v6.0);
        let records = entries.filter_map(|(holder, usage)| {
            let mut is_full = true;
            let tokens = Action::ALL.map(|action| {
                let rate = Rate::of(action, limits, usage.factor);
                let bucket = &mut usage.buckets[action as usize];
                bucket.fill(rate, rate.burst, now);
                is_full &= bucket.tokens >= rate.burst;
                bucket.tokens
            });
            let Holder { address, prefix_bits } = *holder;
            (!is_full).then_some(RatesRecord { address, prefix_bits, tokens })
        });
        records.collect()
    }

    /// The creators of nameplates.
    pub fn export_creators(&self) -> Vec<(i64, CountedAddress)> {
        self.creators.iter().map(|(id, source)| (id.0, (*source).into())).collect()
    }

    pub fn export_joins(&mut self, now: Instant) -> Vec<JoinRecord> {
        self.charge_joins(now);
        self.joins.export(now)
    }

    /// Goes on with what another process has counted. The limits may have changed.
    pub fn restore_rates(&mut self, records: Vec<RatesRecord>, now: Instant) {
        for RatesRecord { address, prefix_bits, tokens } in records {
            let source = self.source_of(address);
            let mut holders = source.holders();
            let is_it = |(holder, _): &(Holder, usize)| holder.prefix_bits == prefix_bits;
            let Some((holder, factor)) = holders.find(is_it) else { continue };
            let Table(entries) = self.tables.of(source);
            if entries.len() < ADDRESSES_MAX {
                let new = || Usage::new(&self.limits, factor, now);
                let usage = entries.entry(holder).or_insert_with(new);
                usage.buckets = tokens.map(|tokens| Bucket { tokens, filled: now });
            }
        }
    }

    pub fn restore_creators(&mut self, records: Vec<(i64, CountedAddress)>, now: Instant) {
        for (id, address) in records {
            let source = self.source_of(address);
            self.add_entries(source, now);
            self.update(source, &|usage| usage.nameplates += 1);
            self.creators.insert(NameplateId(id), source);
        }
    }

    pub fn restore_joins(&mut self, records: Vec<JoinRecord>, now: Instant) {
        for record in records {
            let source = self.source_of(record.source);
            let beginner = record.beginner.map(|address| self.source_of(address));
            self.add_entries(source, now);
            self.joins.restore(record, source, beginner, now);
        }
        self.charge_joins(now);
    }
}
