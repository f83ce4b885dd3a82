//! The record of what is known of addresses ⇄ bytes.

use std::time::Duration;

use super::{HandoverError, Reader, Writer};
use crate::message::handover::{
    AddressIdsRecord, AddressesRecord, AttackRecord, JoinRecord, JoinState, RatesRecord,
};

pub fn encode_addresses(record: &AddressesRecord) -> Vec<u8> {
    let mut out = Writer(Vec::new());
    let AddressesRecord { rates, creators, joins, attack, ids } = record;
    out.list(rates, |out, rates| {
        out.counted(rates.address);
        out.number(rates.prefix_bits.into());
        rates.tokens.iter().for_each(|tokens| out.float(*tokens));
    });
    out.list(creators, |out, (nameplate, creator)| {
        out.time(*nameplate);
        out.counted(*creator);
    });
    out.list(joins, Writer::join);
    out.float(attack.level);
    out.flag(attack.is_attack);
    out.duration(attack.held);
    out.option(ids.as_ref(), |out, ids| {
        out.number(ids.generation);
        out.float(ids.started);
        out.duration(ids.left);
        out.list(&ids.counters, |out, (address, counter)| {
            out.address(*address);
            out.number(*counter);
        });
    });
    out.0
}

pub fn decode_addresses(bytes: &[u8]) -> Result<AddressesRecord, HandoverError> {
    let mut input = Reader(bytes);
    let record = input.addresses().filter(|_| input.0.is_empty());
    record.ok_or(HandoverError::Malformed)
}

impl Writer {
    fn float(&mut self, value: f64) {
        self.number(value.to_bits());
    }

    fn duration(&mut self, duration: Duration) {
        self.number(duration.as_micros() as u64);
    }

    fn list<T>(&mut self, list: &[T], mut write: impl FnMut(&mut Writer, &T)) {
        self.number(list.len() as u64);
        list.iter().for_each(|entry| write(self, entry));
    }

    fn join(&mut self, join: &JoinRecord) {
        self.text(&join.mailbox);
        self.counted(join.source);
        self.option(join.beginner, Writer::counted);
        self.number(join.nameplate);
        self.text(&join.joiner);
        join.messages.iter().for_each(|count| self.number(*count));
        join.last_phases.iter().for_each(|hash| self.option(*hash, Writer::number));
        match join.state {
            JoinState::Unshown => self.byte(0),
            JoinState::Probation { left } => {
                self.byte(1);
                self.duration(left);
            }
            JoinState::Failed => self.byte(2),
            JoinState::Shown => self.byte(3),
        }
        for flag in [join.is_crowded, join.is_scary, join.is_charged] {
            self.flag(flag);
        }
    }
}

impl Reader<'_> {
    fn float(&mut self) -> Option<f64> {
        self.number().map(f64::from_bits).filter(|value| value.is_finite())
    }

    fn duration(&mut self) -> Option<Duration> {
        self.number().map(Duration::from_micros)
    }

    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.number()?;
        (0..count).map(|_| read(self)).collect()
    }

    fn pair<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<[T; 2]> {
        Some([read(self)?, read(self)?])
    }

    fn addresses(&mut self) -> Option<AddressesRecord> {
        Some(AddressesRecord {
            rates: self.list(Self::rates)?,
            creators: self.list(|input| Some((input.time()?, input.counted()?)))?,
            joins: self.list(Self::join)?,
            attack: AttackRecord {
                level: self.float()?,
                is_attack: self.flag()?,
                held: self.duration()?,
            },
            ids: self.option(|input| {
                Some(AddressIdsRecord {
                    generation: input.number()?,
                    started: input.float()?,
                    left: input.duration()?,
                    counters: input.list(|input| Some((input.address()?, input.number()?)))?,
                })
            })?,
        })
    }

    fn rates(&mut self) -> Option<RatesRecord> {
        let address = self.counted()?;
        let prefix_bits = self.number()?.try_into().ok()?;
        let mut tokens = [0.0; _];
        for tokens in &mut tokens {
            *tokens = self.float()?;
        }
        Some(RatesRecord { address, prefix_bits, tokens })
    }

    fn join(&mut self) -> Option<JoinRecord> {
        Some(JoinRecord {
            mailbox: self.text()?,
            source: self.counted()?,
            beginner: self.option(Self::counted)?,
            nameplate: self.number()?,
            joiner: self.text()?,
            messages: self.pair(Self::number)?,
            last_phases: self.pair(|input| input.option(Self::number))?,
            state: match self.byte()? {
                0 => JoinState::Unshown,
                1 => JoinState::Probation { left: self.duration()? },
                2 => JoinState::Failed,
                3 => JoinState::Shown,
                _ => return None,
            },
            is_crowded: self.flag()?,
            is_scary: self.flag()?,
            is_charged: self.flag()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::handover::CountedAddress;

    fn record() -> AddressesRecord {
        let address = CountedAddress::Ip("2001:db8::".parse().expect("an address"));
        let join = |state, last_phases| JoinRecord {
            mailbox: "m".into(),
            source: address,
            beginner: Some(CountedAddress::Unreadable),
            nameplate: 77,
            joiner: "süde".into(),
            messages: [0, u64::MAX],
            last_phases,
            state,
            is_crowded: true,
            is_scary: false,
            is_charged: true,
        };
        let left = Duration::from_micros(1_500_001);
        AddressesRecord {
            rates: vec![
                RatesRecord {
                    address,
                    prefix_bits: 48,
                    tokens: [0.5, -1.0, 1e9, 0.0, 3.0, 4.0, 5.0],
                },
                RatesRecord {
                    address: CountedAddress::Unreadable,
                    prefix_bits: 0,
                    tokens: Default::default(),
                },
            ],
            creators: vec![(i64::MIN, address), (7, CountedAddress::Unreadable)],
            joins: vec![
                join(JoinState::Unshown, [None, Some(1)]),
                join(JoinState::Probation { left }, [Some(2), None]),
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
    fn the_record_comes_back_as_it_was_and_a_part_of_it_does_not() {
        for record in [AddressesRecord::default(), record()] {
            let mut bytes = encode_addresses(&record);
            for end in 0..bytes.len() {
                let decoded = decode_addresses(&bytes[..end]);
                assert_eq!(decoded, Err(HandoverError::Malformed), "{end}");
            }
            assert_eq!(decode_addresses(&bytes).as_ref(), Ok(&record));
            bytes.push(0);
            assert_eq!(decode_addresses(&bytes), Err(HandoverError::Malformed));
        }
    }
}
