//! What the holders of limits use: an IPv4 address, or the IPv6 prefixes of an address, each with
//! its counts and token buckets, in bounded tables.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::limits::{
    ADDRESSES_FORGOTTEN_AT_ONCE, ADDRESSES_MAX, IPV6_PREFIXES, Limits, ONION_NETWORK_FACTOR,
    USAGE_BINDS_PER_HOUR, USAGE_ENDINGS_PER_HOUR,
};
use crate::message::handover::{CountedAddress, RATES_COUNT};

/// The address that a connection counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    /// One address of an onion service's network (`--onion-network`).
    Onion {
        ip: Ipv6Addr,
        network_bits: u32,
    },
    /// All peers with an unreadable address.
    Unreadable,
}

/// The unit to which limits apply. An IPv6 peer has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    V4(Ipv4Addr),
    /// All bits but the prefix are 0.
    V6 {
        prefix_bits: u32,
        prefix: Ipv6Addr,
    },
    Onion(Ipv6Addr),
    OnionNetwork {
        prefix_bits: u32,
        prefix: Ipv6Addr,
    },
    Unreadable,
}

impl From<Source> for CountedAddress {
    fn from(source: Source) -> CountedAddress {
        match source {
            Source::V4(ip) => CountedAddress::Ip(ip.into()),
            Source::V6(ip) | Source::Onion { ip, .. } => CountedAddress::Ip(ip.into()),
            Source::Unreadable => CountedAddress::Unreadable,
        }
    }
}

impl Source {
    /// The holders, each with the multiple of the limits that it has.
    pub fn holders(self) -> impl Iterator<Item = (Holder, usize)> {
        let alone = |holder| [Some((holder, 1)), None, None];
        let holders = match self {
            Source::V4(ip) => alone(Holder::V4(ip)),
            Source::Unreadable => alone(Holder::Unreadable),
            Source::V6(ip) => IPV6_PREFIXES.map(|(prefix_bits, factor)| {
                Some((Holder::V6 { prefix_bits, prefix: prefix(ip, prefix_bits) }, factor))
            }),
            Source::Onion { ip, network_bits: prefix_bits } => {
                let prefix = prefix(ip, prefix_bits);
                let network = Holder::OnionNetwork { prefix_bits, prefix };
                [Some((Holder::Onion(ip), 1)), Some((network, ONION_NETWORK_FACTOR)), None]
            }
        };
        holders.into_iter().flatten()
    }
}

pub(super) fn prefix(ip: Ipv6Addr, bits: u32) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(Ipv6Addr::BITS - bits).unwrap_or(0);
    Ipv6Addr::from_bits(ip.to_bits() & mask)
}

/// What is limited by a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl Action {
    pub(super) const ALL: [Action; RATES_COUNT] = [
        Action::Connect,
        Action::Allocate,
        Action::Claim,
        Action::KeepOut,
        Action::Guess,
        Action::RecordBind,
        Action::RecordEnding,
    ];
}

/// The rate of an action, in tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) per_second: f64,
    pub(super) burst: f64,
}

impl Rate {
    pub(super) fn of(action: Action, limits: &Limits, factor: usize) -> Rate {
        let (per_second, burst) = match action {
            Action::Connect => (limits.address_connect_per_second, limits.address_connect_burst),
            Action::Allocate => (limits.address_allocate_per_second, limits.address_allocate_burst),
            Action::Claim => (limits.address_claim_per_second, limits.address_claim_burst),
            Action::Guess => (limits.address_guesses_per_minute / 60.0, limits.address_guess_burst),
            Action::KeepOut => (limits.address_joins_per_minute / 60.0, limits.address_join_burst),
            Action::RecordBind => (per_hour(USAGE_BINDS_PER_HOUR), USAGE_BINDS_PER_HOUR),
            Action::RecordEnding => (per_hour(USAGE_ENDINGS_PER_HOUR), USAGE_ENDINGS_PER_HOUR),
        };
        Rate { per_second: per_second * factor as f64, burst: burst as f64 * factor as f64 }
    }
}

/// The rate per second.
fn per_hour(count: usize) -> f64 {
    count as f64 / 3_600.0
}

/// A token bucket, full at the start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    pub(super) tokens: f64,
    pub(super) filled: Instant,
}

impl Bucket {
    /// Adds the tokens since the last call. Returns the time until there are `tokens`.
    pub(super) fn fill(&mut self, rate: Rate, tokens: f64, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * rate.per_second).min(rate.burst);
        self.filled = now;
        if self.tokens >= tokens {
            return Duration::ZERO;
        }
        let seconds = ((tokens - self.tokens) / rate.per_second).clamp(0.0, WAIT_SECONDS_MAX);
        Duration::from_secs_f64(seconds)
    }
}

/// Longest wait in a refusal, in seconds.
const WAIT_SECONDS_MAX: f64 = 3_600.0;

/// What one holder uses.
#[derive(Debug)]
pub(super) struct Usage {
    /// The multiple of the limits that applies.
    pub(super) factor: usize,
    pub(super) connections: usize,
    pub(super) nameplates: usize,
    /// Joins that are not shown.
    pub(super) unshown_joins: usize,
    pub(super) buckets: [Bucket; Action::ALL.len()],
}

impl Usage {
    pub(super) fn new(limits: &Limits, factor: usize, now: Instant) -> Usage {
        let bucket = |action| {
            let Rate { burst, .. } = Rate::of(action, limits, factor);
            Bucket { tokens: burst, filled: now }
        };
        Usage {
            factor,
            connections: 0,
            nameplates: 0,
            unshown_joins: 0,
            buckets: Action::ALL.map(bucket),
        }
    }

    /// How far the entry is from equalling a new one: what is alive, and the time until its buckets
    /// are full.
    pub(super) fn distance_from_idle(
        &mut self,
        limits: &Limits,
        now: Instant,
    ) -> (usize, Duration) {
        let until_full = Action::ALL.into_iter().map(|action| {
            let rate = Rate::of(action, limits, self.factor);
            self.buckets[action as usize].fill(rate, rate.burst, now)
        });
        let until_full = until_full.max().unwrap_or_default();
        (self.connections + self.nameplates + self.unshown_joins, until_full)
    }
}

/// A bounded table of what holders use.
#[derive(Debug, Default)]
pub(super) struct Table(pub(super) HashMap<Holder, Usage>);

/// IPv4 has a table of its own, so that a peer with many IPv6 prefixes takes no entry from it.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) v4: Table,
    pub(super) v6: Table,
}

impl Tables {
    pub(super) fn of(&mut self, source: Source) -> &mut Table {
        match source {
            Source::V4(_) | Source::Unreadable => &mut self.v4,
            Source::V6(_) | Source::Onion { .. } => &mut self.v6,
        }
    }
}

impl Table {
    /// Forgets entries if there is no room for another source: many at once, since it examines
    /// all.
    pub(super) fn make_room(&mut self, limits: &Limits, now: Instant) {
        if self.0.len() + IPV6_PREFIXES.len() <= ADDRESSES_MAX {
            return;
        }
        let mut distances: Vec<_> = self
            .0
            .iter_mut()
            .map(|(holder, usage)| (usage.distance_from_idle(limits, now), *holder))
            .collect();
        let last = ADDRESSES_FORGOTTEN_AT_ONCE.min(distances.len()).saturating_sub(1);
        let (nearest, pivot, _) =
            distances.select_nth_unstable_by_key(last, |(distance, _)| *distance);
        for (_, holder) in nearest.iter().chain([&*pivot]) {
            self.0.remove(holder);
        }
    }
}
