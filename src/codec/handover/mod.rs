//! Records of a takeover ⇄ bytes. The two processes may be of different versions of the program:
//! the format has a version of its own, and a process refuses all but its own.
//!
//! A number has eight bytes, lowest first; a text its length before it; an option or a choice a
//! byte before it. Change [`VERSION`] with every change of the format.

mod addresses;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::message::ConnId;
use crate::message::handover::{
    ConnectionRecord, CountedAddress, DemandRecord, Head, ListenerRecord, MailboxRecord,
    PhaseRecord, SessionRecord, StateRecord,
};
use crate::message::peer::Peer;
pub use addresses::{decode_addresses, encode_addresses};

/// Begins the head in every version, and what follows it is the version.
const MAGIC: &[u8] = b"wormhole-mailbox handover";

/// The version of the format.
pub const VERSION: u64 = 2;

/// Why records cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoverError {
    UnknownVersion(u64),
    Malformed,
}

pub fn encode_head(head: &Head) -> Vec<u8> {
    let mut out = Writer(MAGIC.to_vec());
    out.number(VERSION);
    out.number(head.first_conn);
    out.number(head.next_conn);
    out.number(head.connections);
    out.number(head.listeners.len() as u64);
    for listener in &head.listeners {
        match listener {
            ListenerRecord::Bound { endpoint, file } => {
                out.byte(0);
                out.text(endpoint);
                out.option(file.as_ref(), |out, (device, inode)| {
                    out.number(*device);
                    out.number(*inode);
                });
            }
            ListenerRecord::Passed { index, name } => {
                out.byte(1);
                out.number(*index);
                out.text(name);
            }
        }
    }
    out.0
}

pub fn decode_head(bytes: &[u8]) -> Result<Head, HandoverError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(HandoverError::Malformed)?;
    let mut input = Reader(rest);
    let version = input.number().ok_or(HandoverError::Malformed)?;
    if version != VERSION {
        return Err(HandoverError::UnknownVersion(version));
    }
    let mut head = || {
        let (first_conn, next_conn) = (input.number()?, input.number()?);
        let connections = input.number()?;
        let count = input.number()?;
        let listener = |input: &mut Reader<'_>| {
            Some(match input.byte()? {
                0 => ListenerRecord::Bound {
                    endpoint: input.text()?,
                    file: input.option(|input| Some((input.number()?, input.number()?)))?,
                },
                1 => ListenerRecord::Passed { index: input.number()?, name: input.text()? },
                _ => return None,
            })
        };
        let listeners = (0..count).map(|_| listener(&mut input)).collect::<Option<_>>()?;
        input.0.is_empty().then_some(Head { first_conn, next_conn, listeners, connections })
    };
    head().ok_or(HandoverError::Malformed)
}

pub fn encode_connection(record: &ConnectionRecord) -> Vec<u8> {
    let mut out = Writer(Vec::new());
    out.number(record.conn.0);
    out.flag(record.is_unix);
    out.flag(record.is_rejected);
    out.option(record.peer.ip, |out, ip| out.address(ip));
    out.option(record.peer.port, |out, port| out.number(port.into()));
    match &record.phase {
        PhaseRecord::ProxyHeader(bytes) => {
            out.byte(0);
            out.bytes(bytes);
        }
        PhaseRecord::Head(bytes) => {
            out.byte(1);
            out.bytes(bytes);
        }
        PhaseRecord::Open { pinged, unanswered } => {
            out.byte(2);
            out.time(*pinged);
            out.option(*unanswered, Writer::time);
        }
        PhaseRecord::Closing => out.byte(3),
        PhaseRecord::Lingering => out.byte(4),
    }
    out.time(record.since);
    out.bytes(&record.unread);
    out.bytes(&record.unsent);
    out.flag(record.is_ended);
    let StateRecord { counted, session, demand, is_outsider, member } = &record.state;
    out.option(*counted, Writer::counted);
    out.option(session.as_ref(), Writer::session);
    out.option(demand.as_ref(), |out, demand| {
        out.number(demand.bits.into());
        out.number(demand.resource);
        for flag in [demand.is_required, demand.is_given, demand.is_refused] {
            out.flag(flag);
        }
    });
    out.flag(*is_outsider);
    out.option(member.as_deref(), Writer::text);
    out.0
}

pub fn decode_connection(bytes: &[u8]) -> Result<ConnectionRecord, HandoverError> {
    let mut input = Reader(bytes);
    let record = input.connection().filter(|_| input.0.is_empty());
    record.ok_or(HandoverError::Malformed)
}

struct Writer(Vec<u8>);

impl Writer {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn flag(&mut self, flag: bool) {
        self.byte(flag.into());
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn time(&mut self, time: i64) {
        self.0.extend_from_slice(&time.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Writer, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn counted(&mut self, counted: CountedAddress) {
        let ip = match counted {
            CountedAddress::Ip(ip) => Some(ip),
            CountedAddress::Unreadable => None,
        };
        self.option(ip, Writer::address);
    }

    fn address(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => self.bytes(&ip.octets()),
            IpAddr::V6(ip) => self.bytes(&ip.octets()),
        }
    }

    fn session(&mut self, session: &SessionRecord) {
        self.option(session.identity.as_ref(), |out, (app, side)| {
            out.text(app);
            out.text(side);
        });
        self.option(session.claimed.as_deref(), Writer::text);
        for flag in [session.allocated, session.released, session.closed] {
            self.flag(flag);
        }
        let (state, id) = match &session.mailbox {
            MailboxRecord::Unopened => (0, ""),
            MailboxRecord::Refused(id) => (1, id.as_str()),
            MailboxRecord::Open(id) => (2, id.as_str()),
            MailboxRecord::Deleted(id) => (3, id.as_str()),
        };
        self.byte(state);
        self.text(id);
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn time(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let count = usize::try_from(self.number()?).ok()?;
        Some(self.take(count)?.to_vec())
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }

    /// The outer `None` is a malformed record.
    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Some(None) }
    }

    fn counted(&mut self) -> Option<CountedAddress> {
        let ip = self.option(Self::address)?;
        Some(ip.map_or(CountedAddress::Unreadable, CountedAddress::Ip))
    }

    fn address(&mut self) -> Option<IpAddr> {
        let bytes = self.bytes()?;
        let v4 = <[u8; 4]>::try_from(&*bytes).map(|octets| Ipv4Addr::from(octets).into());
        let v6 = <[u8; 16]>::try_from(&*bytes).map(|octets| Ipv6Addr::from(octets).into());
        v4.or(v6).ok()
    }

    fn connection(&mut self) -> Option<ConnectionRecord> {
        Some(ConnectionRecord {
            conn: ConnId(self.number()?),
            is_unix: self.flag()?,
            is_rejected: self.flag()?,
            peer: Peer {
                ip: self.option(Self::address)?,
                port: self.option(|input| input.number()?.try_into().ok())?,
            },
            phase: match self.byte()? {
                0 => PhaseRecord::ProxyHeader(self.bytes()?),
                1 => PhaseRecord::Head(self.bytes()?),
                2 => {
                    PhaseRecord::Open { pinged: self.time()?, unanswered: self.option(Self::time)? }
                }
                3 => PhaseRecord::Closing,
                4 => PhaseRecord::Lingering,
                _ => return None,
            },
            since: self.time()?,
            unread: self.bytes()?,
            unsent: self.bytes()?,
            is_ended: self.flag()?,
            state: StateRecord {
                counted: self.option(Self::counted)?,
                session: self.option(Self::session)?,
                demand: self.option(Self::demand)?,
                is_outsider: self.flag()?,
                member: self.option(Self::text)?,
            },
        })
    }

    fn session(&mut self) -> Option<SessionRecord> {
        Some(SessionRecord {
            identity: self.option(|input| Some((input.text()?, input.text()?)))?,
            claimed: self.option(Self::text)?,
            allocated: self.flag()?,
            released: self.flag()?,
            closed: self.flag()?,
            mailbox: match (self.byte()?, self.text()?) {
                (0, _) => MailboxRecord::Unopened,
                (1, id) => MailboxRecord::Refused(id),
                (2, id) => MailboxRecord::Open(id),
                (3, id) => MailboxRecord::Deleted(id),
                _ => return None,
            },
        })
    }

    fn demand(&mut self) -> Option<DemandRecord> {
        Some(DemandRecord {
            bits: self.number()?.try_into().ok()?,
            resource: self.number()?,
            is_required: self.flag()?,
            is_given: self.flag()?,
            is_refused: self.flag()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        let bound =
            |endpoint: &str, file| ListenerRecord::Bound { endpoint: endpoint.into(), file };
        Head {
            first_conn: 3,
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
        let session = |mailbox| SessionRecord {
            identity: Some(("app".into(), "süde".into())),
            allocated: true,
            claimed: Some("4".into()),
            released: true,
            mailbox,
            closed: true,
        };
        let demand = DemandRecord {
            bits: 20,
            resource: 1,
            is_required: true,
            is_given: false,
            is_refused: true,
        };
        let state = |session: Option<SessionRecord>, counted, demand| {
            let is_outsider = session.is_some();
            let member = is_outsider.then(|| "alice".into());
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
                    Some(session(MailboxRecord::Open("m".into()))),
                    Some(CountedAddress::Ip(v6)),
                    Some(demand),
                ),
            ),
            record(
                4,
                Some(v4),
                PhaseRecord::Open { pinged: 0, unanswered: None },
                state(
                    Some(session(MailboxRecord::Refused("m".into()))),
                    Some(CountedAddress::Unreadable),
                    None,
                ),
            ),
            record(
                5,
                None,
                PhaseRecord::Closing,
                state(Some(session(MailboxRecord::Deleted(String::new()))), None, None),
            ),
            record(6, None, PhaseRecord::Lingering, state(Some(<_>::default()), None, None)),
        ]
    }

    #[test]
    fn records_come_back_as_they_were() {
        assert_eq!(decode_head(&encode_head(&head())), Ok(head()));
        for record in records() {
            assert_eq!(decode_connection(&encode_connection(&record)), Ok(record));
        }
    }

    #[test]
    fn an_unknown_version_is_refused() {
        let mut bytes = encode_head(&head());
        bytes[MAGIC.len()] += 1;
        assert_eq!(decode_head(&bytes), Err(HandoverError::UnknownVersion(VERSION + 1)));
    }

    #[test]
    fn what_is_cut_short_or_goes_on_is_refused() {
        let bytes = encode_head(&head());
        for end in 0..bytes.len() {
            assert_eq!(decode_head(&bytes[..end]), Err(HandoverError::Malformed), "{end}");
        }
        for record in records() {
            let mut bytes = encode_connection(&record);
            for end in 0..bytes.len() {
                let decoded = decode_connection(&bytes[..end]);
                assert_eq!(decoded, Err(HandoverError::Malformed), "{end}");
            }
            bytes.push(0);
            assert_eq!(decode_connection(&bytes), Err(HandoverError::Malformed));
        }
    }
}
