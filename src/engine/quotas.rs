//! The limits of one peer address (an IPv4 address or an IPv6 /64): connections and nameplates at a
//! time, and the rates of connecting, allocating and claiming (manual: limits 2).
//!
//! Pure; the time is an argument. The table is bounded: when it is full, new addresses share one
//! entry.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::limits::{ADDRESSES_MAX, Limits};
use crate::message::peer::Network;
use crate::message::{ConnId, ConnMap, Refusal, Throttled};
use crate::store::{Change, NameplateId, Row};

/// Prefix of an IPv6 address that one user or office usually has.
const IPV6_PREFIX_BITS: u32 = 64;

/// The address of a peer, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    Ip(IpAddr),
    /// A unix socket without a proxy that reports an address.
    Unknown,
    /// A trusted proxy reports an address that cannot be read. Were the peer counted as the proxy,
    /// it could choose to be exempt.
    Unreadable,
}

impl From<Option<IpAddr>> for PeerAddress {
    fn from(ip: Option<IpAddr>) -> PeerAddress {
        ip.map_or(PeerAddress::Unknown, PeerAddress::Ip)
    }
}

/// The unit to which limits apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Holder {
    /// An IPv4 address, or an IPv6 address of which all but the prefix is 0.
    Address(IpAddr),
    /// All addresses for which the table had no room.
    Overflow,
    /// All peers with an unreadable address.
    Unreadable,
}

/// A token bucket, full at the start.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new(burst: usize, now: Instant) -> Bucket {
        Bucket { tokens: burst as f64, filled: now }
    }

    /// Takes one token; fails with the time until there is one.
    fn take(&mut self, per_second: f64, burst: usize, now: Instant) -> Result<(), Duration> {
        self.fill(per_second, burst, now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f64(
                ((1.0 - self.tokens) / per_second).clamp(0.0, WAIT_SECONDS_MAX),
            ))
        }
    }

    fn fill(&mut self, per_second: f64, burst: usize, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * per_second).min(burst as f64);
        self.filled = now;
    }
}

/// Longest wait in a refusal, in seconds.
const WAIT_SECONDS_MAX: f64 = 3_600.0;

/// What one holder uses.
#[derive(Debug)]
struct Usage {
    connections: usize,
    nameplates: usize,
    connects: Bucket,
    allocates: Bucket,
    claims: Bucket,
}

impl Usage {
    fn new(limits: &Limits, now: Instant) -> Usage {
        Usage {
            connections: 0,
            nameplates: 0,
            connects: Bucket::new(limits.address_connect_burst, now),
            allocates: Bucket::new(limits.address_allocate_burst, now),
            claims: Bucket::new(limits.address_claim_burst, now),
        }
    }

    /// Whether it equals a new entry.
    fn is_idle(&mut self, limits: &Limits, now: Instant) -> bool {
        self.connects.fill(limits.address_connect_per_second, limits.address_connect_burst, now);
        self.allocates.fill(limits.address_allocate_per_second, limits.address_allocate_burst, now);
        self.claims.fill(limits.address_claim_per_second, limits.address_claim_burst, now);
        self.connections == 0
            && self.nameplates == 0
            && self.connects.tokens >= limits.address_connect_burst as f64
            && self.allocates.tokens >= limits.address_allocate_burst as f64
            && self.claims.tokens >= limits.address_claim_burst as f64
    }
}

/// The limit of the address that a new connection exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaExceeded {
    /// Connections at a time.
    Connections,
    /// New connections in a short time; one more is accepted after `retry_after`.
    ConnectRate { retry_after: Duration },
}

/// The holders, and the connections and nameplates that count for each.
#[derive(Debug)]
pub struct Quotas {
    limits: Limits,
    /// Networks without limits.
    exempt: Vec<Network>,
    usage: HashMap<Holder, Usage>,
    connections: ConnMap<Holder>,
    /// The creator of each nameplate.
    creators: HashMap<NameplateId, Holder>,
    /// Nameplates created and deleted by the batch of this tick, whose commit may fail.
    created: Vec<NameplateId>,
    ended: Vec<NameplateId>,
}

impl Quotas {
    pub fn new(limits: Limits, exempt: Vec<Network>) -> Quotas {
        Quotas {
            limits,
            exempt,
            usage: HashMap::new(),
            connections: ConnMap::default(),
            creators: HashMap::new(),
            created: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Replaces the exempt networks. Present connections stay counted, or not counted.
    pub fn set_exempt(&mut self, exempt: Vec<Network>) {
        self.exempt = exempt;
    }

    /// Counts a connection against its address's limits. Called again with the real address once a
    /// trusted proxy reports it.
    pub fn connect(
        &mut self,
        conn: ConnId,
        address: impl Into<PeerAddress>,
        now: Instant,
    ) -> Result<(), QuotaExceeded> {
        // It was counted before if its proxy has become trusted since.
        self.disconnect(conn);
        let Some(holder) = self.holder(address.into()) else { return Ok(()) };
        let limits = &self.limits;
        let usage = self.usage.entry(holder).or_insert_with(|| Usage::new(limits, now));
        if usage.connections >= limits.address_connections_max {
            return Err(QuotaExceeded::Connections);
        }
        usage
            .connects
            .take(limits.address_connect_per_second, limits.address_connect_burst, now)
            .map_err(|retry_after| QuotaExceeded::ConnectRate { retry_after })?;
        usage.connections += 1;
        self.connections.insert(conn, holder);
        Ok(())
    }

    /// Removes a connection.
    pub fn disconnect(&mut self, conn: ConnId) {
        if let Some(usage) =
            self.connections.remove(&conn).and_then(|holder| self.usage.get_mut(&holder))
        {
            usage.connections = usage.connections.saturating_sub(1);
        }
    }

    /// Checks the limits of `allocate`.
    pub fn allocate(&mut self, conn: ConnId, now: Instant) -> Result<(), Refusal> {
        let limits = &self.limits;
        let (rate, burst) = (limits.address_allocate_per_second, limits.address_allocate_burst);
        self.command(conn, Throttled::Allocate, true, now, |usage| {
            usage.allocates.take(rate, burst, now)
        })
    }

    /// Checks the limits of `claim`. `creates`: the nameplate does not exist yet.
    pub fn claim(&mut self, conn: ConnId, creates: bool, now: Instant) -> Result<(), Refusal> {
        let limits = &self.limits;
        let (rate, burst) = (limits.address_claim_per_second, limits.address_claim_burst);
        self.command(conn, Throttled::Claim, creates, now, |usage| {
            usage.claims.take(rate, burst, now)
        })
    }

    fn command(
        &mut self,
        conn: ConnId,
        command: Throttled,
        creates: bool,
        now: Instant,
        take: impl Fn(&mut Usage) -> Result<(), Duration>,
    ) -> Result<(), Refusal> {
        let Some(holder) = self.connections.get(&conn) else { return Ok(()) };
        let limits = &self.limits;
        let usage = self.usage.entry(*holder).or_insert_with(|| Usage::new(limits, now));
        if creates && usage.nameplates >= limits.address_nameplates_max {
            return Err(Refusal::TooManyNameplates);
        }
        take(usage).map_err(|wait| Refusal::TooFast { command, retry_seconds: whole_seconds(wait) })
    }

    /// Counts the nameplates that a command of `conn` created or deleted.
    pub fn note(&mut self, conn: ConnId, changes: &[Change]) {
        for change in changes {
            if let Change::Insert(Row::Nameplate { id, .. }) = change
                && let Some(holder) = self.connections.get(&conn)
                && let Some(usage) = self.usage.get_mut(holder)
            {
                usage.nameplates += 1;
                self.creators.insert(*id, *holder);
                self.created.push(*id);
            }
        }
        self.note_endings(changes);
    }

    /// Counts deleted nameplates, whether a command or their expiry deleted them.
    pub fn note_endings(&mut self, changes: &[Change]) {
        self.ended.extend(changes.iter().filter_map(|change| match change {
            Change::DeleteNameplate { id, .. } => Some(*id),
            _ => None,
        }));
    }

    /// After a commit, deleted nameplates count no more; after a failed one, created ones do not,
    /// and their row ids will be used again.
    pub fn update_accounting(&mut self, is_committed: bool) {
        let (created, ended) = (std::mem::take(&mut self.created), std::mem::take(&mut self.ended));
        for id in if is_committed { ended } else { created } {
            self.forget_nameplate(id);
        }
    }

    fn forget_nameplate(&mut self, id: NameplateId) {
        if let Some(creator) = self.creators.remove(&id)
            && let Some(usage) = self.usage.get_mut(&creator)
        {
            usage.nameplates = usage.nameplates.saturating_sub(1);
        }
    }

    /// Removes idle entries.
    pub fn sweep(&mut self, now: Instant) {
        let limits = &self.limits;
        self.usage.retain(|_, usage| !usage.is_idle(limits, now));
        self.usage.shrink_to_fit();
    }

    /// The holder of an address; `None` if it is exempt or unknown.
    fn holder(&self, address: PeerAddress) -> Option<Holder> {
        let address = match address {
            PeerAddress::Ip(address) => address,
            PeerAddress::Unknown => return None,
            PeerAddress::Unreadable => return Some(Holder::Unreadable),
        };
        if self.exempt.iter().any(|network| network.contains(address)) {
            return None;
        }
        let holder = Holder::Address(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(long) => {
                let mask = u128::MAX << (Ipv6Addr::BITS - IPV6_PREFIX_BITS);
                IpAddr::V6(Ipv6Addr::from_bits(long.to_bits() & mask))
            }
        });
        let has_room = self.usage.len() < ADDRESSES_MAX || self.usage.contains_key(&holder);
        Some(if has_room { holder } else { Holder::Overflow })
    }
}

/// A wait in whole seconds, at least one.
pub fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs_f64().ceil() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas(limits: Limits) -> Quotas {
        Quotas::new(limits, vec!["127.0.0.0/8".parse().expect("a network")])
    }

    fn address(text: &str) -> PeerAddress {
        PeerAddress::Ip(text.parse().expect("an address"))
    }

    #[test]
    fn an_ipv6_64_counts_as_one_and_exempt_networks_not_at_all() {
        let quotas = quotas(Limits::default());
        let holder = |text| quotas.holder(address(text));
        assert_eq!(holder("2001:db8:1:2::3"), holder("2001:db8:1:2:ffff::4"));
        assert_ne!(holder("2001:db8:1:2::3"), holder("2001:db8:1:3::3"));
        assert_eq!(holder("127.1.2.3"), None);
        assert_ne!(holder("192.0.2.1"), holder("192.0.2.2"));
    }

    #[test]
    fn unreadable_addresses_are_one_that_is_never_exempt() {
        let mut quotas = quotas(Limits { address_connections_max: 1, ..Limits::default() });
        quotas.set_exempt(vec!["0.0.0.0/0".parse().expect("a network")]);
        let now = Instant::now();
        for _ in 0..2 {
            assert_eq!(quotas.connect(ConnId(1), PeerAddress::Unreadable, now), Ok(()));
            let second = quotas.connect(ConnId(2), PeerAddress::Unreadable, now);
            assert_eq!(second, Err(QuotaExceeded::Connections));
            for (conn, address) in [(3, address("192.0.2.1")), (4, PeerAddress::Unknown)] {
                assert_eq!(quotas.connect(ConnId(conn), address, now), Ok(()));
            }
            (1..=4).for_each(|conn| quotas.disconnect(ConnId(conn)));
        }
    }

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let mut quotas = quotas(Limits {
            address_allocate_burst: 3,
            address_allocate_per_second: 0.5,
            ..Limits::default()
        });
        let (conn, start) = (ConnId(1), Instant::now());
        assert_eq!(quotas.connect(conn, address("192.0.2.1"), start), Ok(()));
        for _ in 0..3 {
            assert_eq!(quotas.allocate(conn, start), Ok(()));
        }
        let refused = Err(Refusal::TooFast { command: Throttled::Allocate, retry_seconds: 2 });
        assert_eq!(quotas.allocate(conn, start), refused);
        assert_eq!(quotas.allocate(conn, start + Duration::from_secs(2)), Ok(()));
        assert!(quotas.allocate(conn, start + Duration::from_secs(2)).is_err());
        quotas.disconnect(conn);
        quotas.sweep(start + Duration::from_secs(60));
        assert!(quotas.usage.is_empty());
    }

    #[test]
    fn a_connection_counts_once_even_if_it_is_asked_about_twice() {
        let mut quotas = quotas(Limits::default());
        let now = Instant::now();
        for address in [address("192.0.2.1"), address("192.0.2.2")] {
            assert_eq!(quotas.connect(ConnId(1), address, now), Ok(()));
        }
        quotas.disconnect(ConnId(1));
        assert!(quotas.usage.values().all(|usage| usage.connections == 0));
    }

    #[test]
    fn other_networks_can_be_exempt_later() {
        let mut quotas = quotas(Limits { address_connections_max: 1, ..Limits::default() });
        let now = Instant::now();
        let connect =
            |quotas: &mut Quotas, conn| quotas.connect(ConnId(conn), address("192.0.2.1"), now);
        assert_eq!(connect(&mut quotas, 1), Ok(()));
        assert_eq!(connect(&mut quotas, 2), Err(QuotaExceeded::Connections));
        quotas.set_exempt(vec!["192.0.2.0/24".parse().expect("a network")]);
        assert_eq!(connect(&mut quotas, 2), Ok(()));
        quotas.set_exempt(Vec::new());
        assert_eq!(connect(&mut quotas, 3), Err(QuotaExceeded::Connections));
    }

    #[test]
    fn connections_at_once_are_counted_and_given_back() {
        let mut quotas = quotas(Limits { address_connections_max: 2, ..Limits::default() });
        let now = Instant::now();
        let connect =
            |quotas: &mut Quotas, conn| quotas.connect(ConnId(conn), address("192.0.2.1"), now);
        for _ in 0..2 {
            assert_eq!(connect(&mut quotas, 1), Ok(()));
            assert_eq!(connect(&mut quotas, 2), Ok(()));
            assert_eq!(connect(&mut quotas, 3), Err(QuotaExceeded::Connections));
            quotas.disconnect(ConnId(1));
            quotas.disconnect(ConnId(2));
            quotas.disconnect(ConnId(3));
        }
    }
}
