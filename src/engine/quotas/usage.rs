//! What the holders of limits use: an IPv4 address, or the IPv6 prefixes of an address, each with
//! its counts and tokens, in bounded tables.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::limits::{
    ADDRESSES_FORGOTTEN_AT_ONCE, ADDRESSES_MAX, IPV6_PREFIXES, Limits, ONION_NETWORK_FACTOR,
    USAGE_BINDS_PER_HOUR, USAGE_ENDINGS_PER_HOUR,
};
use crate::message::handover::{CountedAddress, RATES_COUNT, RatesRecord};

/// The address that a connection counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Of IPv6 the first one of the /64, unless the network is an onion service's.
    pub address: CountedAddress,
    /// Length of the onion service's network that has it (`--onion-network`).
    pub onion_bits: Option<u32>,
}

/// The unit to which limits apply: an address, or a prefix of an IPv6 address, which has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// The first one of the prefix.
    address: CountedAddress,
    /// 0 where the address is not of IPv6.
    prefix_bits: u32,
}

impl Holder {
    pub fn alone(address: CountedAddress) -> Holder {
        Holder { address, prefix_bits: 0 }
    }

    fn prefix(ip: Ipv6Addr, prefix_bits: u32) -> Holder {
        Holder { address: CountedAddress::Ip(prefix(ip, prefix_bits).into()), prefix_bits }
    }
}

impl Source {
    /// The holders, each with the multiple of the limits that it has.
    pub fn holders(self) -> impl Iterator<Item = (Holder, usize)> {
        let holders = match (self.address, self.onion_bits) {
            (CountedAddress::Ip(IpAddr::V6(ip)), None) => {
                IPV6_PREFIXES.map(|(bits, factor)| Some((Holder::prefix(ip, bits), factor)))
            }
            (CountedAddress::Ip(IpAddr::V6(ip)), Some(network_bits)) => [
                Some((Holder::prefix(ip, Ipv6Addr::BITS), 1)),
                Some((Holder::prefix(ip, network_bits), ONION_NETWORK_FACTOR)),
                None,
            ],
            (address, _) => [Some((Holder::alone(address), 1)), None, None],
        };
        holders.into_iter().flatten()
    }
}

pub(super) fn prefix(ip: Ipv6Addr, bits: u32) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(Ipv6Addr::BITS - bits).unwrap_or(0);
    Ipv6Addr::from_bits(ip.to_bits() & mask)
}

/// What is limited in number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Count {
    Connections,
    Nameplates,
    /// Joins that are not shown.
    UnshownJoins,
}

/// What is limited by a rate.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Connect,
    Allocate,
    Claim,
    /// A join that keeps a side out; it is charged after the fact.
    KeepOut,
    /// A connection with an unknown secret; it is charged after the fact.
    Guess,
    /// A `bind` that the usage database records.
    RecordBind,
    /// The end of a nameplate or mailbox that it records.
    RecordEnding,
}

/// The rate of an action, in tokens, for a holder with the simple limits.
#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: f64,
    burst: f64,
}

/// The rate of each action, in the order of [`Action`].
type Rates = [Rate; RATES_COUNT];

fn rates(limits: &Limits) -> Rates {
    let rate = |per_second, burst: usize| Rate { per_second, burst: burst as f64 };
    let per_minute = |count: f64, burst| rate(count / 60.0, burst);
    let per_hour = |count: usize| rate(count as f64 / 3_600.0, count);
    [
        rate(limits.address_connect_per_second, limits.address_connect_burst),
        rate(limits.address_allocate_per_second, limits.address_allocate_burst),
        rate(limits.address_claim_per_second, limits.address_claim_burst),
        per_minute(limits.address_joins_per_minute, limits.address_join_burst),
        per_minute(limits.address_guesses_per_minute, limits.address_guess_burst),
        per_hour(USAGE_BINDS_PER_HOUR),
        per_hour(USAGE_ENDINGS_PER_HOUR),
    ]
}

/// Longest wait in a refusal, in seconds.
const WAIT_SECONDS_MAX: f64 = 3_600.0;

/// What one holder uses.
#[derive(Debug)]
pub(super) struct Usage {
    /// The multiple of the limits that applies.
    factor: f64,
    /// In the order of [`Count`].
    pub(super) counts: [usize; 3],
    /// The token bucket of each action, full at the start.
    tokens: [f64; RATES_COUNT],
    /// When tokens were last added.
    filled: Instant,
}

impl Usage {
    fn new(rates: &Rates, factor: usize, now: Instant) -> Usage {
        let factor = factor as f64;
        let tokens = rates.map(|rate| rate.burst * factor);
        Usage { factor, counts: [0; 3], tokens, filled: now }
    }

    /// Adds the tokens since the last call.
    fn fill(&mut self, rates: &Rates, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        for (tokens, rate) in self.tokens.iter_mut().zip(rates) {
            let (per_second, burst) = (rate.per_second * self.factor, rate.burst * self.factor);
            *tokens = (*tokens + elapsed * per_second).min(burst);
        }
        self.filled = now;
    }

    /// The time until an action has a number of tokens.
    fn time_until(&self, tokens: f64, action: usize, rates: &Rates) -> Duration {
        let missing = tokens - self.tokens[action];
        if missing <= 0.0 {
            return Duration::ZERO;
        }
        let seconds = missing / (rates[action].per_second * self.factor);
        Duration::from_secs_f64(seconds.clamp(0.0, WAIT_SECONDS_MAX))
    }

    /// How far the entry is from equalling a new one: what is alive, and the time until its buckets
    /// are full.
    fn distance_from_idle(&mut self, rates: &Rates, now: Instant) -> (usize, Duration) {
        self.fill(rates, now);
        let until_full = rates
            .iter()
            .enumerate()
            .map(|(action, rate)| self.time_until(rate.burst * self.factor, action, rates));
        (self.counts.iter().sum(), until_full.max().unwrap_or_default())
    }
}

/// A bounded table.
type Table = HashMap<Holder, Usage>;

/// What all holders use.
#[derive(Debug)]
pub(super) struct Tables {
    rates: Rates,
    /// IPv4 has a table of its own, so that a peer with many IPv6 prefixes takes no entry from it.
    pub(super) v4: Table,
    pub(super) v6: Table,
}

impl Tables {
    pub fn new(limits: &Limits) -> Tables {
        Tables { rates: rates(limits), v4: Table::new(), v6: Table::new() }
    }

    fn of(&mut self, source: Source) -> &mut Table {
        match source.address {
            CountedAddress::Ip(IpAddr::V6(_)) => &mut self.v6,
            _ => &mut self.v4,
        }
    }

    /// The table of a source, in which its holders have entries.
    fn with(&mut self, source: Source, now: Instant) -> &mut Table {
        let rates = self.rates;
        let table = self.of(source);
        make_room(table, &rates, now);
        for (holder, factor) in source.holders() {
            let usage = table.entry(holder).or_insert_with(|| Usage::new(&rates, factor, now));
            usage.factor = factor as f64; // its network may be an onion service's since a reload
        }
        table
    }

    /// Changes the entries of a source, as far as it has any.
    fn update(&mut self, source: Source, change: impl Fn(&mut Usage)) {
        let table = self.of(source);
        for (holder, _) in source.holders() {
            if let Some(usage) = table.get_mut(&holder) {
                change(usage);
            }
        }
    }

    /// Whether all holders of the source have less than `max`, or their multiple of it.
    pub fn has_room(&mut self, source: Source, count: Count, max: usize, now: Instant) -> bool {
        let table = self.with(source, now);
        source.holders().all(|(holder, factor)| {
            let max = max.saturating_mul(factor);
            table.get(&holder).is_none_or(|usage| usage.counts[count as usize] < max)
        })
    }

    /// Counts one more, whatever the limit.
    pub fn raise(&mut self, source: Source, count: Count, now: Instant) {
        self.with(source, now);
        self.update(source, |usage| usage.counts[count as usize] += 1);
    }

    pub fn lower(&mut self, source: Source, count: Count) {
        self.update(source, |usage| {
            let count = &mut usage.counts[count as usize];
            *count = count.saturating_sub(1);
        });
    }

    /// The time until all holders of the source have a token.
    pub fn wait(&mut self, source: Source, action: Action, now: Instant) -> Duration {
        let rates = self.rates;
        let table = self.with(source, now);
        let waits = source.holders().filter_map(|(holder, _)| {
            let usage = table.get_mut(&holder)?;
            usage.fill(&rates, now);
            Some(usage.time_until(1.0, action as usize, &rates))
        });
        waits.max().unwrap_or_default()
    }

    /// Takes a token from all holders of the source, also one that is not there.
    pub fn spend(&mut self, source: Source, action: Action) {
        self.update(source, |usage| usage.tokens[action as usize] -= 1.0);
    }

    /// Takes a token from all holders of the source, or from none; fails with the time until all
    /// have one.
    pub fn take(&mut self, source: Source, action: Action, now: Instant) -> Result<(), Duration> {
        match self.wait(source, action, now) {
            Duration::ZERO => {
                self.spend(source, action);
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// Removes idle entries.
    pub fn sweep(&mut self, now: Instant) {
        for table in [&mut self.v4, &mut self.v6] {
            table.retain(|_, usage| {
                usage.distance_from_idle(&self.rates, now) != (0, Duration::ZERO)
            });
            table.shrink_to_fit();
        }
    }

    /// The tokens of the holders that do not have all of theirs.
    pub fn export(&mut self, now: Instant) -> Vec<RatesRecord> {
        let entries = self.v4.iter_mut().chain(&mut self.v6);
        let records = entries.filter_map(|(holder, usage)| {
            let (_, until_full) = usage.distance_from_idle(&self.rates, now);
            let Holder { address, prefix_bits } = *holder;
            let record = RatesRecord { address, prefix_bits, tokens: usage.tokens };
            (until_full > Duration::ZERO).then_some(record)
        });
        records.collect()
    }

    /// Goes on with the tokens of another process. `source`: the one of the record's address.
    pub fn restore(&mut self, record: &RatesRecord, source: Source, now: Instant) {
        let is_it = |(holder, _): &(Holder, usize)| holder.prefix_bits == record.prefix_bits;
        let Some((holder, factor)) = source.holders().find(is_it) else { return };
        let rates = self.rates;
        let table = self.of(source);
        if table.len() < ADDRESSES_MAX {
            let usage = table.entry(holder).or_insert_with(|| Usage::new(&rates, factor, now));
            (usage.tokens, usage.filled) = (record.tokens, now);
        }
    }
}

/// Forgets the entries nearest to idle if there is no room for another source: many at once, since
/// all are examined.
fn make_room(table: &mut Table, rates: &Rates, now: Instant) {
    if table.len() + IPV6_PREFIXES.len() <= ADDRESSES_MAX {
        return;
    }
    let distances = table
        .iter_mut()
        .map(|(holder, usage)| Reverse((usage.distance_from_idle(rates, now), *holder)));
    let mut nearest: BinaryHeap<_> = distances.collect();
    for _ in 0..ADDRESSES_FORGOTTEN_AT_ONCE {
        if let Some(Reverse((_, holder))) = nearest.pop() {
            table.remove(&holder);
        }
    }
}
