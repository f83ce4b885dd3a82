//! Counts and tokens of each IPv4 address and each prefix of an IPv6 address, in bounded tables.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::limits::{
    ADDRESS_WAIT_SECONDS_MAX, ADDRESSES_FORGOTTEN_AT_ONCE, ADDRESSES_MAX, IPV6_PREFIXES, Limits,
    USAGE_BINDS_PER_HOUR, USAGE_ENDINGS_PER_HOUR,
};
use crate::message::handover::{RATES_COUNT, Tokens};
use crate::message::{CountedAddress, Holder, Prefix};

/// Things of which an address may have a number at a time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Count {
    Connections,
    Nameplates,
    /// Joins that are not shown.
    UnshownJoins,
}

/// Actions that are limited by a rate.
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

/// The rate of an action, in tokens, for a prefix with the simple limits.
#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: f64,
    burst: f64,
}

/// The rate of each action, in the order of [`Action::ALL`].
type Rates = [Rate; RATES_COUNT];

impl Action {
    /// In the order of the enum, which is that of the records of a takeover.
    const ALL: [Action; RATES_COUNT] = [
        Action::Connect,
        Action::Allocate,
        Action::Claim,
        Action::KeepOut,
        Action::Guess,
        Action::RecordBind,
        Action::RecordEnding,
    ];

    fn rate(self, limits: &Limits) -> Rate {
        let per_second = |per_second, burst: usize| Rate { per_second, burst: burst as f64 };
        let per_minute = |count: f64, burst| per_second(count / 60.0, burst);
        let per_hour = |count: usize| per_second(count as f64 / 3_600.0, count);
        match self {
            Action::Connect => {
                per_second(limits.address_connect_per_second, limits.address_connect_burst)
            }
            Action::Allocate => {
                per_second(limits.address_allocate_per_second, limits.address_allocate_burst)
            }
            Action::Claim => {
                per_second(limits.address_claim_per_second, limits.address_claim_burst)
            }
            Action::KeepOut => {
                per_minute(limits.address_joins_per_minute, limits.address_join_burst)
            }
            Action::Guess => {
                per_minute(limits.address_guesses_per_minute, limits.address_guess_burst)
            }
            Action::RecordBind => per_hour(USAGE_BINDS_PER_HOUR),
            Action::RecordEnding => per_hour(USAGE_ENDINGS_PER_HOUR),
        }
    }
}

const _: () = {
    let mut index = 0;
    while index < RATES_COUNT {
        assert!(Action::ALL[index] as usize == index);
        index += 1;
    }
};

/// Counts and tokens of one prefix.
#[derive(Debug)]
pub(super) struct Entry {
    /// The multiple of the limits that applies.
    factor: f64,
    /// In the order of [`Count`].
    pub(super) counts: [usize; 3],
    /// The token bucket of each action, full at the start.
    tokens: Tokens,
    /// When tokens were last added.
    filled: Instant,
}

impl Entry {
    fn new(rates: &Rates, factor: usize, now: Instant) -> Entry {
        let factor = factor as f64;
        let tokens = rates.map(|rate| rate.burst * factor);
        Entry { factor, counts: [0; 3], tokens, filled: now }
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
        Duration::from_secs_f64(seconds.clamp(0.0, ADDRESS_WAIT_SECONDS_MAX))
    }

    /// How far the entry is from equalling a new one: the sum of its counts, and the time until its
    /// buckets are full.
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
type Table = HashMap<Prefix, Entry>;

/// Counts and tokens of all prefixes.
#[derive(Debug)]
pub(super) struct PrefixTables {
    rates: Rates,
    /// IPv4 has a table of its own, so that a peer with many IPv6 prefixes takes no entry from it.
    pub(super) v4: Table,
    pub(super) v6: Table,
}

impl PrefixTables {
    pub fn new(limits: &Limits) -> PrefixTables {
        PrefixTables {
            rates: Action::ALL.map(|action| action.rate(limits)),
            v4: Table::new(),
            v6: Table::new(),
        }
    }

    fn table_of(&mut self, holder: Holder) -> &mut Table {
        match holder.address {
            CountedAddress::Ip(IpAddr::V6(_)) => &mut self.v6,
            _ => &mut self.v4,
        }
    }

    /// Gives the prefixes of a holder entries if they have none; returns their table.
    fn add_entries(&mut self, holder: Holder, now: Instant) -> &mut Table {
        let rates = self.rates;
        let table = self.table_of(holder);
        make_room(table, &rates, now);
        for (prefix, factor) in holder.prefixes() {
            let entry = table.entry(prefix).or_insert_with(|| Entry::new(&rates, factor, now));
            entry.factor = factor as f64; // its network may be an onion service's since a reload
        }
        table
    }

    /// Changes the entries of a holder, as far as it has any.
    fn update(&mut self, holder: Holder, change: impl Fn(&mut Entry)) {
        let table = self.table_of(holder);
        for (prefix, _) in holder.prefixes() {
            if let Some(entry) = table.get_mut(&prefix) {
                change(entry);
            }
        }
    }

    /// Whether all prefixes of the holder have less than `max`, or their multiple of it.
    pub fn has_room(&mut self, holder: Holder, count: Count, max: usize, now: Instant) -> bool {
        let table = self.add_entries(holder, now);
        holder.prefixes().all(|(prefix, factor)| {
            let max = max.saturating_mul(factor);
            table.get(&prefix).is_none_or(|entry| entry.counts[count as usize] < max)
        })
    }

    /// Counts one more, whatever the limit.
    pub fn raise(&mut self, holder: Holder, count: Count, now: Instant) {
        self.add_entries(holder, now);
        self.update(holder, |entry| entry.counts[count as usize] += 1);
    }

    /// Counts one less. What a full table has forgotten stays at zero.
    pub fn lower(&mut self, holder: Holder, count: Count) {
        self.update(holder, |entry| {
            let count = &mut entry.counts[count as usize];
            *count = count.saturating_sub(1);
        });
    }

    /// Fails with the time until all prefixes of the holder have a token, if one has none.
    pub fn check(&mut self, holder: Holder, action: Action, now: Instant) -> Result<(), Duration> {
        let rates = self.rates;
        let table = self.add_entries(holder, now);
        let waits = holder.prefixes().filter_map(|(prefix, _)| {
            let entry = table.get_mut(&prefix)?;
            entry.fill(&rates, now);
            Some(entry.time_until(1.0, action as usize, &rates))
        });
        match waits.max() {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    /// Takes a token from all prefixes of the holder, also one that is not there.
    pub fn spend(&mut self, holder: Holder, action: Action) {
        self.update(holder, |entry| entry.tokens[action as usize] -= 1.0);
    }

    /// Takes a token from all prefixes of the holder, or from none; fails with the time until all
    /// have one.
    pub fn take(&mut self, holder: Holder, action: Action, now: Instant) -> Result<(), Duration> {
        self.check(holder, action, now)?;
        self.spend(holder, action);
        Ok(())
    }

    /// Removes idle entries.
    pub fn sweep(&mut self, now: Instant) {
        for table in [&mut self.v4, &mut self.v6] {
            table.retain(|_, entry| {
                entry.distance_from_idle(&self.rates, now) != (0, Duration::ZERO)
            });
            table.shrink_to_fit();
        }
    }

    /// The tokens of the prefixes that do not have all of theirs.
    pub fn export(&mut self, now: Instant) -> Vec<(Prefix, Tokens)> {
        let entries = self.v4.iter_mut().chain(&mut self.v6);
        let records = entries.filter_map(|(prefix, entry)| {
            let (_, until_full) = entry.distance_from_idle(&self.rates, now);
            (until_full > Duration::ZERO).then_some((*prefix, entry.tokens))
        });
        records.collect()
    }

    /// Goes on with the tokens of another process. `holder`: the one of the prefix's address.
    pub fn restore(&mut self, known: Prefix, tokens: Tokens, holder: Holder, now: Instant) {
        let is_it = |(prefix, _): &(Prefix, usize)| prefix.bits == known.bits;
        let Some((prefix, factor)) = holder.prefixes().find(is_it) else { return };
        let rates = self.rates;
        let table = self.table_of(holder);
        if table.len() < ADDRESSES_MAX {
            let entry = table.entry(prefix).or_insert_with(|| Entry::new(&rates, factor, now));
            (entry.tokens, entry.filled) = (tokens, now);
        }
    }
}

/// Forgets the entries nearest to idle if there is no room for another holder: many at once, since
/// all are examined.
fn make_room(table: &mut Table, rates: &Rates, now: Instant) {
    if table.len() + IPV6_PREFIXES.len() <= ADDRESSES_MAX {
        return;
    }
    let distances = table
        .iter_mut()
        .map(|(prefix, entry)| Reverse((entry.distance_from_idle(rates, now), *prefix)));
    let mut nearest: BinaryHeap<_> = distances.collect();
    for _ in 0..ADDRESSES_FORGOTTEN_AT_ONCE {
        if let Some(Reverse((_, prefix))) = nearest.pop() {
            table.remove(&prefix);
        }
    }
}
