//! Values ⇄ bytes: numbers, texts, options, lists, and the records that are made of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;

use crate::message::handover::{
    AddressIdsRecord, AddressesRecord, AttackRecord, ConnectionRecord, Head, JoinProgress,
    JoinRecord, JoinState, ListenerRecord, PhaseRecord, StateRecord,
};
use crate::message::{
    ConnId, CountedAddress, Demand, MailboxState, Member, Peer, Prefix, ProofState, Secret, Session,
};

/// A part of a record.
pub trait Coded: Sized {
    fn write(&self, out: &mut Vec<u8>);

    /// Takes the value from the beginning of `input`; none if it is malformed.
    fn read(input: &mut &[u8]) -> Option<Self>;

    fn write_list(list: &[Self], out: &mut Vec<u8>) {
        list.iter().for_each(|value| value.write(out));
    }

    fn read_list(count: u64, input: &mut &[u8]) -> Option<Vec<Self>> {
        (0..count).map(|_| Self::read(input)).collect()
    }
}

impl Coded for u8 {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }

    fn read(input: &mut &[u8]) -> Option<u8> {
        input.split_off_first().copied()
    }

    // As one piece: input and output that wait may be megabytes.

    fn write_list(list: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(list);
    }

    fn read_list(count: u64, input: &mut &[u8]) -> Option<Vec<u8>> {
        Some(input.split_off(..usize::try_from(count).ok()?)?.to_vec())
    }
}

impl Coded for u64 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn read(input: &mut &[u8]) -> Option<u64> {
        let bytes = input.split_off(..size_of::<u64>())?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

impl<T: Coded> Coded for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.is_some().write(out);
        self.iter().for_each(|value| value.write(out));
    }

    fn read(input: &mut &[u8]) -> Option<Option<T>> {
        if bool::read(input)? { T::read(input).map(Some) } else { Some(None) }
    }
}

impl<T: Coded> Coded for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        (self.len() as u64).write(out);
        T::write_list(self, out);
    }

    fn read(input: &mut &[u8]) -> Option<Vec<T>> {
        T::read_list(u64::read(input)?, input)
    }
}

impl<T: Coded, const N: usize> Coded for [T; N] {
    fn write(&self, out: &mut Vec<u8>) {
        T::write_list(self, out);
    }

    fn read(input: &mut &[u8]) -> Option<[T; N]> {
        T::read_list(N as u64, input)?.try_into().ok()
    }
}

impl<T: Coded, U: Coded> Coded for (T, U) {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
    }

    fn read(input: &mut &[u8]) -> Option<(T, U)> {
        Some((T::read(input)?, U::read(input)?))
    }
}

/// Types that are written as another, with the ways there and back.
macro_rules! written_as {
    ($($type:ty as $other:ty: $into:expr, $from:expr;)*) => {$(
        impl Coded for $type {
            fn write(&self, out: &mut Vec<u8>) {
                let into: fn(&$type) -> $other = $into;
                into(self).write(out);
            }

            fn read(input: &mut &[u8]) -> Option<$type> {
                let from: fn($other) -> Option<$type> = $from;
                from(<$other>::read(input)?)
            }
        }
    )*};
}

/// Structs, with their fields in the order of the format. A field after `;` is not written, and
/// has its default when the struct is read.
macro_rules! fields {
    ($($type:ident { $($field:ident),* $(; $unwritten:ident)? })*) => {$(
        impl Coded for $type {
            fn write(&self, out: &mut Vec<u8>) {
                $(self.$field.write(out);)*
            }

            fn read(input: &mut &[u8]) -> Option<$type> {
                $(let $field = Coded::read(input)?;)*
                Some($type { $($field,)* $($unwritten: <_>::default())? })
            }
        }
    )*};
}

/// An enum: the number of each variant and its fields, in the order of the format.
macro_rules! variants {
    ($type:ty: $($number:literal [$($field:ident),*] ($($variant:tt)+);)*) => {
        impl Coded for $type {
            fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $($($variant)+ => {
                        out.push($number);
                        $($field.write(out);)*
                    })*
                }
            }

            fn read(input: &mut &[u8]) -> Option<$type> {
                Some(match u8::read(input)? {
                    $($number => {
                        $(let $field = Coded::read(input)?;)*
                        $($variant)+
                    })*
                    _ => return None,
                })
            }
        }
    };
}

written_as! {
    bool as u8: |flag| (*flag).into(), |byte| [false, true].get(usize::from(byte)).copied();
    u16 as u64: |number| (*number).into(), |number| number.try_into().ok();
    u32 as u64: |number| (*number).into(), |number| number.try_into().ok();
    i64 as u64: |number| number.cast_unsigned(), |number| Some(number.cast_signed());
    f64 as u64: |value| value.to_bits(),
        |bits| Some(f64::from_bits(bits)).filter(|value| value.is_finite());
    Duration as u64: |duration| duration.as_micros() as u64,
        |microseconds| Some(Duration::from_micros(microseconds));
    String as Vec<u8>: |text| text.as_bytes().to_vec(), |bytes| String::from_utf8(bytes).ok();
    IpAddr as Vec<u8>: |ip| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }, |bytes| {
        let v4 = <[u8; 4]>::try_from(&*bytes).map(|octets| Ipv4Addr::from(octets).into());
        let v6 = <[u8; 16]>::try_from(&*bytes).map(|octets| Ipv6Addr::from(octets).into());
        v4.or(v6).ok()
    };
    ConnId as u64: |conn| conn.0, |number| Some(ConnId(number));
    CountedAddress as Option<IpAddr>: |counted| match counted {
        CountedAddress::Ip(ip) => Some(*ip),
        CountedAddress::Unreadable => None,
    }, |ip| Some(ip.map_or(CountedAddress::Unreadable, CountedAddress::Ip));
    Secret as String: |secret| secret.reveal().to_owned(), |text| Some(Secret::new(&text));
    Rc<str> as String: |text| text.to_string(), |text| Some(text.into());
}

fields! {
    Head { next_conn, connections, listeners }
    ConnectionRecord {
        conn, is_unix, is_rejected, peer, phase, since, unread, unsent, is_ended, state
    }
    Peer { ip, port }
    StateRecord { counted, session, demand, is_outsider, member }
    Member { name, secret }
    Session { identity, has_tried_to_bind, claimed, allocated, released, closed, mailbox; holder }
    Demand { bits, resource, is_required, proof }
    AddressesRecord { rates, creators, joins, attack, ids }
    Prefix { address, bits }
    JoinRecord { mailbox, holder, beginner, probation, progress }
    JoinProgress {
        nameplate, joiner, messages, last_phases, state, is_crowded, is_scary, is_charged
    }
    AttackRecord { level, is_attack, held }
    AddressIdsRecord { generation, started, left, counters }
}

variants! { ListenerRecord:
    0 [endpoint, file] (ListenerRecord::Bound { endpoint, file });
    1 [index, name] (ListenerRecord::Passed { index, name });
}

variants! { PhaseRecord:
    0 [bytes] (PhaseRecord::ProxyHeader(bytes));
    1 [bytes] (PhaseRecord::Head(bytes));
    2 [pinged, unanswered] (PhaseRecord::Open { pinged, unanswered });
    3 [] (PhaseRecord::Closing);
    4 [] (PhaseRecord::Lingering);
}

variants! { MailboxState:
    0 [] (MailboxState::Unopened);
    1 [id] (MailboxState::Refused(id));
    2 [id] (MailboxState::Open(id));
    3 [id] (MailboxState::Deleted(id));
}

variants! { ProofState:
    0 [] (ProofState::Missing);
    1 [] (ProofState::Given);
    2 [] (ProofState::Refused);
}

variants! { JoinState:
    0 [] (JoinState::Unshown);
    1 [] (JoinState::Probation);
    2 [] (JoinState::Failed);
    3 [] (JoinState::Shown);
}
