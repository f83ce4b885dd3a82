//! Records of a takeover ⇄ bytes. The two processes may be of different versions of the program:
//! the format has a version of its own, and a process refuses all but its own.
//!
//! A number has eight bytes, lowest first; a text or list its length before it; an option or a
//! choice a byte before it. `coded` lists the fields of each record in their order. Change
//! [`VERSION`] with every change of the format.

mod coded;

use crate::message::handover::Head;
use coded::Coded;

/// Begins the head in every version, and what follows it is the version.
const MAGIC: &[u8] = b"wormhole-mailbox handover";

/// The version of the format.
pub const VERSION: u64 = 5;

const MALFORMED: &str = "their records are malformed";

/// Encodes the first of all records.
pub fn encode_head(head: &Head) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    VERSION.write(&mut out);
    head.write(&mut out);
    out
}

/// Decodes the first record. The error says that it is of another version, or malformed.
pub fn decode_head(bytes: &[u8]) -> Result<Head, String> {
    let mut rest = bytes.strip_prefix(MAGIC).ok_or(MALFORMED)?;
    match u64::read(&mut rest).ok_or(MALFORMED)? {
        VERSION => decode(rest),
        other => Err(format!("their format is version {other}, this program reads {VERSION}")),
    }
}

/// Encodes any other record.
pub fn encode(record: &impl Coded) -> Vec<u8> {
    let mut out = Vec::new();
    record.write(&mut out);
    out
}

/// Decodes any other record. Fails if it is malformed, or bytes are left over.
pub fn decode<T: Coded>(mut bytes: &[u8]) -> Result<T, String> {
    T::read(&mut bytes).filter(|_| bytes.is_empty()).ok_or_else(|| MALFORMED.to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::*;
    use crate::message::handover::{
        AddressIdsRecord, AddressesRecord, AttackRecord, ConnectionRecord, JoinProgress,
        JoinRecord, JoinState, ListenerRecord, PhaseRecord, StateRecord,
    };
    use crate::message::{
        ConnId, CountedAddress, Demand, MailboxState, Member, Peer, Prefix, ProofState, Secret,
        Session,
    };

    fn head() -> Head {
        let bound =
            |endpoint: &str, file| ListenerRecord::Bound { endpoint: endpoint.into(), file };
        Head {
            next_conn: u64::MAX,
            listeners: vec![
                bound("[::]:4000", None),
                bound("unix:/run/ü.sock", Some((1, 2))),
                ListenerRecord::Passed { index: 1, name: "public".into() },
            ],
            connections: 7,
        }
    }

    fn records() -> Vec<ConnectionRecord> {
        let session = |mailbox| Session {
            identity: Some(("app".into(), "süde".into())),
            has_tried_to_bind: true,
            allocated: true,
            claimed: Some("4".into()),
            released: true,
            mailbox,
            closed: true,
            holder: None,
        };
        let demand =
            Demand { bits: 20, resource: 1, is_required: true, proof: ProofState::Refused };
        let state = |session: Option<Session>, counted, demand| {
            let is_outsider = session.is_some();
            let secret = Secret::new("0123456789abcdef");
            let member = is_outsider.then(|| Member { name: "alice".into(), secret });
            StateRecord { counted, session, demand, is_outsider, member }
        };
        let v4: IpAddr = "192.0.2.1".parse().expect("an address");
        let v6: IpAddr = "2001:db8::1".parse().expect("an address");
        let record = |conn, ip, phase, state| ConnectionRecord {
            conn: ConnId(conn),
            is_unix: conn % 2 == 0,
            is_rejected: conn % 3 == 0,
            peer: Peer { ip, port: ip.map(|_| 65_535) },
            phase,
            since: -5,
            unread: vec![0; conn as usize],
            unsent: b"waiting".to_vec(),
            is_ended: conn % 2 == 1,
            state,
        };
        vec![
            record(1, Some(v4), PhaseRecord::ProxyHeader(b"PROXY".to_vec()), <_>::default()),
            record(2, None, PhaseRecord::Head(Vec::new()), <_>::default()),
            record(
                3,
                Some(v6),
                PhaseRecord::Open { pinged: i64::MIN, unanswered: Some(i64::MAX) },
                state(
                    Some(session(MailboxState::Open("m".into()))),
                    Some(CountedAddress::Ip(v6)),
                    Some(demand),
                ),
            ),
            record(
                4,
                Some(v4),
                PhaseRecord::Open { pinged: 0, unanswered: None },
                state(
                    Some(session(MailboxState::Refused("m".into()))),
                    Some(CountedAddress::Unreadable),
                    None,
                ),
            ),
            record(
                5,
                None,
                PhaseRecord::Closing,
                state(Some(session(MailboxState::Deleted("".into()))), None, None),
            ),
            record(6, None, PhaseRecord::Lingering, state(Some(<_>::default()), None, None)),
        ]
    }

    #[test]
    fn records_come_back_as_they_were() {
        assert_eq!(decode_head(&encode_head(&head())), Ok(head()));
        for record in records() {
            assert_eq!(decode(&encode(&record)), Ok(record));
        }
    }

    #[test]
    fn an_unknown_version_is_refused() {
        let mut bytes = encode_head(&head());
        bytes[MAGIC.len()] += 1;
        let error = decode_head(&bytes).expect_err("another version");
        assert!(error.contains(&format!("version {}", VERSION + 1)), "{error}");
    }

    #[test]
    fn what_is_cut_short_or_goes_on_is_refused() {
        let bytes = encode_head(&head());
        for end in 0..bytes.len() {
            assert_eq!(decode_head(&bytes[..end]), Err(MALFORMED.to_owned()), "{end}");
        }
        for record in records() {
            let mut bytes = encode(&record);
            for end in 0..bytes.len() {
                let decoded = decode::<ConnectionRecord>(&bytes[..end]);
                assert_eq!(decoded, Err(MALFORMED.to_owned()), "{end}");
            }
            bytes.push(0);
            assert_eq!(decode::<ConnectionRecord>(&bytes), Err(MALFORMED.to_owned()));
        }
    }

    fn addresses() -> AddressesRecord {
        let address = CountedAddress::Ip("2001:db8::".parse().expect("an address"));
        let left = Duration::from_micros(1_500_001);
        let join = |state, last_phases| JoinRecord {
            mailbox: "m".into(),
            holder: address,
            beginner: Some(CountedAddress::Unreadable),
            probation: (state == JoinState::Probation).then_some(left),
            progress: JoinProgress {
                nameplate: 77,
                joiner: "süde".into(),
                messages: [0, u64::MAX],
                last_phases,
                state,
                is_crowded: true,
                is_scary: false,
                is_charged: true,
            },
        };
        AddressesRecord {
            rates: vec![
                (Prefix { address, bits: 48 }, [0.5, -1.0, 1e9, 0.0, 3.0, 4.0, 5.0]),
                (Prefix::alone(CountedAddress::Unreadable), Default::default()),
            ],
            creators: vec![(i64::MIN, address), (7, CountedAddress::Unreadable)],
            joins: vec![
                join(JoinState::Unshown, [None, Some(1)]),
                join(JoinState::Probation, [Some(2), None]),
                join(JoinState::Failed, [None, None]),
                join(JoinState::Shown, [None, None]),
            ],
            attack: AttackRecord { level: 17.25, is_attack: true, held: left },
            ids: Some(AddressIdsRecord {
                generation: 3,
                started: 1_700_000_000.5,
                left,
                counters: vec![("192.0.2.1".parse().expect("an address"), 1)],
            }),
        }
    }

    #[test]
    fn addresses_come_back_as_they_were_and_a_part_of_them_does_not() {
        for record in [AddressesRecord::default(), addresses()] {
            let mut bytes = encode(&record);
            for end in 0..bytes.len() {
                let decoded = decode::<AddressesRecord>(&bytes[..end]);
                assert_eq!(decoded, Err(MALFORMED.to_owned()), "{end}");
            }
            assert_eq!(decode(&bytes).as_ref(), Ok(&record));
            bytes.push(0);
            assert_eq!(decode::<AddressesRecord>(&bytes), Err(MALFORMED.to_owned()));
        }
    }
}
