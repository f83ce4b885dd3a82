//! Bounds the rows that one address causes in the usage database (manual: files 3.4).

use std::time::Instant;

use super::Quotas;
use super::tables::Action;
use crate::message::Holder;
use crate::store::UsageRecord;

impl Quotas {
    /// Whether the usage database records a `bind` of an address, or the end of a nameplate or
    /// mailbox that it began: up to a bound an hour.
    pub fn may_record(
        &mut self,
        record: &UsageRecord,
        origin: Option<Holder>,
        now: Instant,
    ) -> bool {
        let action = match record {
            UsageRecord::ClientVersion { .. } => Action::RecordBind,
            UsageRecord::Ended { .. } => Action::RecordEnding,
        };
        origin.is_none_or(|holder| self.tables.take(holder, action, now).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{address, quotas};
    use super::*;
    use crate::limits::Limits;
    use crate::message::{ConnId, Outcome};
    use crate::store::UsageKind;

    #[test]
    fn usage_of_one_address_is_recorded_up_to_a_bound_an_hour() {
        let (mut quotas, start) = (quotas(Limits::default()), Instant::now());
        for (conn, address) in
            [(1, address("192.0.2.1")), (2, address("192.0.2.2")), (3, address("127.0.0.1"))]
        {
            assert_eq!(quotas.connect(ConnId(conn), address, start), Ok(()));
        }
        let holders = [1, 2, 3].map(|conn| quotas.holder_of(ConnId(conn)));
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
