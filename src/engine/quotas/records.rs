//! How much of what one address causes the usage database records (manual: files 3.4).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use super::usage::{Action, Source};
use super::{Quotas, V4};
use crate::message::handover::CountedAddress;
use crate::message::ledger;
use crate::store::UsageRecord;

impl Quotas {
    /// Whether the usage database records a `bind` of an address, or the end of a nameplate or
    /// mailbox that it began: up to a bound an hour.
    pub fn may_record(
        &mut self,
        record: &UsageRecord,
        origin: Option<ledger::Holder>,
        now: Instant,
    ) -> bool {
        let action = match record {
            UsageRecord::ClientVersion { .. } => Action::RecordBind,
            UsageRecord::Ended { .. } => Action::RecordEnding,
        };
        let source = origin.map(|origin| self.source_of_holder(origin));
        source.is_none_or(|source| self.tables.take(source, action, now).is_ok())
    }

    /// The source of a holder of the store: that of its connections, but of an onion service's
    /// circuit one that stands for it.
    fn source_of_holder(&self, holder: ledger::Holder) -> Source {
        let ip = |high: u64, low: u64| {
            Ipv6Addr::from_bits(u128::from(high) << u64::BITS | u128::from(low))
        };
        let ledger::Holder { address, network } = holder;
        let is_v4 = address & !u64::from(u32::MAX) == V4;
        self.source_of(match self.onion_network(ip(network, 0)) {
            Some(_) => CountedAddress::Ip(ip(network, address).into()),
            None if address == u64::MAX => CountedAddress::Unreadable,
            None if is_v4 => CountedAddress::Ip(Ipv4Addr::from_bits(address as u32).into()),
            None => CountedAddress::Ip(ip(address, 0).into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{address, quotas};
    use super::*;
    use crate::limits::Limits;
    use crate::message::ConnId;
    use crate::message::outcome::Outcome;
    use crate::store::UsageKind;

    #[test]
    fn a_holder_of_the_store_is_the_source_that_it_was_made_of() {
        let mut quotas = quotas(Limits::default());
        let unreadable = Some(CountedAddress::Unreadable);
        let sources = [address("192.0.2.1"), address("2001:db8:1:2::3"), unreadable];
        for (conn, source) in (1..).map(ConnId).zip(sources) {
            assert_eq!(quotas.connect(conn, source, Instant::now()), Ok(()));
            let found = quotas.ledger_holder(conn).map(|holder| quotas.source_of_holder(holder));
            assert_eq!(found, quotas.connections.get(&conn).copied(), "{source:?}");
        }
    }

    #[test]
    fn usage_of_one_address_is_recorded_up_to_a_bound_an_hour() {
        let (mut quotas, start) = (quotas(Limits::default()), Instant::now());
        for (conn, address) in
            [(1, address("192.0.2.1")), (2, address("192.0.2.2")), (3, address("127.0.0.1"))]
        {
            assert_eq!(quotas.connect(ConnId(conn), address, start), Ok(()));
        }
        let holders = [1, 2, 3].map(|conn| quotas.ledger_holder(ConnId(conn)));
        let bind = UsageRecord::ClientVersion {
            app: "".into(),
            side: "".into(),
            connect_time: Default::default(),
            implementation: None,
            version: None,
        };
        let end = UsageRecord::Ended {
            app: "".into(),
            kind: UsageKind::Nameplate,
            started: Default::default(),
            waiting_time: None,
            total_time: 0.0,
            result: Outcome::Happy,
        };
        let mut recorded = |conn: usize, record, now| {
            let origin = holders[conn - 1];
            (0..2_500).filter(|_| quotas.may_record(record, origin, now)).count()
        };
        let all = [(1, &bind), (1, &bind), (1, &end), (2, &bind), (3, &bind)];
        let counts = all.map(|(conn, record)| recorded(conn, record, start));
        assert_eq!(counts, [1_000, 0, 2_000, 1_000, 2_500], "others, exempt ones");
        let later = start + Duration::from_secs(1_800);
        assert_eq!([recorded(1, &bind, later), recorded(1, &end, later)], [500, 1_000]);
    }
}
