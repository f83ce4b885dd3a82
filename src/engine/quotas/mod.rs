//! The limits of one peer address: connections, nameplates and joins at a time, and the rates of
//! what it does (manual: limits 2).
//!
//! An IPv6 peer counts for its /64, and with a multiple of the limits for its /56 and /48: one
//! customer may have that many /64s. An address of an onion service's network counts alone, and the
//! network with a multiple. Pure; the time is an argument. The tables are bounded: when
//! one is full, the entries nearest to idle are forgotten.

mod handover;
mod join_limits;
mod joins;
mod records;
mod tables;

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::codec::http::{Rejection, Status};
use crate::limits::{ADDRESS_CONNECTIONS_RETRY, Limits};
use crate::message::{ConnId, ConnMap, CountedAddress, Holder, Network, Refusal, Wait};
use crate::store::{Change, NameplateId, Row, Store};
use joins::Joins;
use tables::{Action, Count, PrefixTables};

/// The limits, and the connections, nameplates and joins that count for each address.
#[derive(Debug)]
pub struct Quotas {
    limits: Limits,
    /// Networks without limits.
    exempt: Vec<Network>,
    /// Networks whose IPv6 addresses stand for the circuits of an onion service.
    onion: Vec<Network>,
    tables: PrefixTables,
    connections: ConnMap<Holder>,
    /// The creator of each nameplate.
    creators: HashMap<NameplateId, Holder>,
    joins: Joins,
    batch: Batch,
}

/// Changes of this tick, to be kept or undone with its commit.
#[derive(Debug, Default)]
struct Batch {
    created: Vec<NameplateId>,
    ended: Vec<NameplateId>,
    /// Mailboxes with new joins.
    joined: Vec<Rc<str>>,
}

impl Quotas {
    pub fn new(limits: Limits) -> Quotas {
        Quotas {
            tables: PrefixTables::new(&limits),
            limits,
            exempt: Vec::new(),
            onion: Vec::new(),
            connections: ConnMap::default(),
            creators: HashMap::new(),
            joins: Joins::default(),
            batch: Batch::default(),
        }
    }

    /// Replaces the exempt networks and those of onion services. Present connections stay counted
    /// as they are, or not counted.
    pub fn set_networks(&mut self, exempt: Vec<Network>, onion: Vec<Network>) {
        (self.exempt, self.onion) = (exempt, onion);
    }

    /// Counts a connection against its address's limits; one from a unix socket has no address, and
    /// no limits. Called again with the real address once a trusted proxy reports it.
    pub fn connect(
        &mut self,
        conn: ConnId,
        address: Option<CountedAddress>,
        now: Instant,
    ) -> Result<(), Rejection> {
        // It was counted before if its proxy has become trusted since.
        self.disconnect(conn);
        let Some(holder) = address.and_then(|address| self.limited_holder(address)) else {
            return Ok(());
        };
        let connections_max = self.limits.address_connections_max;
        if !self.tables.has_room(holder, Count::Connections, connections_max, now) {
            let reason = "too many connections from your address at once, close some";
            return Err(too_many_requests(ADDRESS_CONNECTIONS_RETRY, reason));
        }
        self.tables.take(holder, Action::Connect, now).map_err(|wait| {
            too_many_requests(wait, "too many new connections from your address, slow down")
        })?;
        self.add_connection(conn, holder, now);
        Ok(())
    }

    /// The holder that a connection counts for; none if it is exempt or its address is unknown.
    pub fn holder_of(&self, conn: ConnId) -> Option<Holder> {
        self.connections.get(&conn).copied()
    }

    /// Removes a connection.
    pub fn disconnect(&mut self, conn: ConnId) {
        if let Some(holder) = self.connections.remove(&conn) {
            self.tables.lower(holder, Count::Connections);
        }
    }

    /// Counts a connection of another process. It has been accepted, so nothing is checked.
    pub fn restore_connection(&mut self, conn: ConnId, address: CountedAddress, now: Instant) {
        self.add_connection(conn, self.holder_at(address), now);
    }

    fn add_connection(&mut self, conn: ConnId, holder: Holder, now: Instant) {
        self.tables.raise(holder, Count::Connections, now);
        self.connections.insert(conn, holder);
    }

    /// Checks the limit of unknown secrets.
    pub fn check_secret(&mut self, conn: ConnId, now: Instant) -> Result<(), Rejection> {
        let Some(&holder) = self.connections.get(&conn) else { return Ok(()) };
        self.tables
            .check(holder, Action::Guess, now)
            .map_err(|wait| too_many_requests(wait, "too many unknown secrets from your address"))
    }

    /// Counts an unknown secret.
    pub fn note_unknown_secret(&mut self, conn: ConnId) {
        if let Some(&holder) = self.connections.get(&conn) {
            self.tables.spend(holder, Action::Guess);
        }
    }

    /// Checks the limits of `allocate`.
    pub fn allocate(&mut self, conn: ConnId, now: Instant) -> Result<(), Refusal> {
        self.check_nameplates(conn, now)?;
        let taken = self.take(conn, Action::Allocate, now);
        taken.map_err(|retry_after| Refusal::TooManyAllocates { retry_after })
    }

    /// Checks the limits of `claim`. `creates`: the nameplate does not exist yet.
    pub fn claim(&mut self, conn: ConnId, creates: bool, now: Instant) -> Result<(), Refusal> {
        if creates {
            self.check_nameplates(conn, now)?;
        }
        let taken = self.take(conn, Action::Claim, now);
        taken.map_err(|retry_after| Refusal::TooManyClaims { retry_after })
    }

    fn check_nameplates(&mut self, conn: ConnId, now: Instant) -> Result<(), Refusal> {
        let Some(&holder) = self.connections.get(&conn) else { return Ok(()) };
        let nameplates_max = self.limits.address_nameplates_max;
        let has_room = self.tables.has_room(holder, Count::Nameplates, nameplates_max, now);
        if has_room { Ok(()) } else { Err(Refusal::TooManyNameplates) }
    }

    /// Takes a token of the connection's address; fails with the time until there is one.
    fn take(&mut self, conn: ConnId, action: Action, now: Instant) -> Result<(), Wait> {
        let Some(&holder) = self.connections.get(&conn) else { return Ok(()) };
        self.tables.take(holder, action, now).map_err(|wait| Wait(whole_seconds(wait)))
    }

    /// Counts the nameplates that a command of `conn` created, joined or deleted. `claimed`: app
    /// and name of the nameplate, if the command is a `claim`.
    pub fn note_changes(
        &mut self,
        conn: ConnId,
        claimed: Option<(&str, &str)>,
        changes: &[Change],
        now: Instant,
    ) {
        for change in changes {
            if let Change::Insert(Row::Nameplate { id, .. }) = change
                && let Some(&holder) = self.connections.get(&conn)
            {
                self.add_nameplate(*id, holder, now);
                self.batch.created.push(*id);
            }
        }
        self.note_joins(conn, claimed, changes, now);
        self.note_endings(changes);
    }

    fn add_nameplate(&mut self, id: NameplateId, creator: Holder, now: Instant) {
        self.tables.raise(creator, Count::Nameplates, now);
        self.creators.insert(id, creator);
    }

    /// Counts deleted nameplates, whether a command or their expiry deleted them.
    pub fn note_endings(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::DeleteNameplate { id, .. } => self.batch.ended.push(*id),
                Change::DeleteMailbox { mailbox, mood, .. } => {
                    // The last side's close is no change of its own.
                    self.joins.note_close(mailbox, *mood);
                    self.joins.end(mailbox);
                }
                _ => {}
            }
        }
    }

    /// After a commit, deleted nameplates count no more; after a failed one, created ones do not,
    /// and their row ids will be used again.
    pub fn update_accounting(&mut self, is_committed: bool, now: Instant) {
        let Batch { created, ended, joined } = std::mem::take(&mut self.batch);
        if !is_committed {
            joined.iter().for_each(|mailbox| self.joins.end(mailbox));
        }
        self.charge_joins(now);
        for id in if is_committed { ended } else { created } {
            self.remove_nameplate(id);
        }
    }

    fn remove_nameplate(&mut self, id: NameplateId) {
        if let Some(holder) = self.creators.remove(&id) {
            self.tables.lower(holder, Count::Nameplates);
        }
    }

    /// The store was loaded from what may be another file: what is not in it counts no more.
    pub fn note_reload(&mut self, store: &Store) {
        let mut gone = self.creators.clone();
        store.nameplate_ids().for_each(|id| _ = gone.remove(&id));
        gone.into_keys().for_each(|id| self.remove_nameplate(id));
        self.joins.retain(|mailbox| store.has_mailbox(mailbox));
    }

    /// Removes idle entries.
    pub fn sweep(&mut self, now: Instant) {
        self.tables.sweep(now);
    }

    /// The holder of an address; `None` if it is exempt. An unreadable one never is.
    fn limited_holder(&self, address: CountedAddress) -> Option<Holder> {
        let is_exempt = |ip| self.exempt.iter().any(|network| network.contains(ip));
        match address {
            CountedAddress::Ip(ip) if is_exempt(ip) => None,
            address => Some(self.holder_at(address)),
        }
    }

    /// The holder of an address that is counted already, whether it is exempt by now or not.
    fn holder_at(&self, address: CountedAddress) -> Holder {
        let contains = |network: &&Network| match address {
            CountedAddress::Ip(ip) => ip.is_ipv6() && network.contains(ip),
            CountedAddress::Unreadable => false,
        };
        let onion = self.onion.iter().find(contains);
        Holder::new(address, onion.map(|network| network.prefix_bits as u8))
    }
}

fn too_many_requests(retry_after: Duration, reason: &'static str) -> Rejection {
    Rejection::new(Status::TooManyRequests(whole_seconds(retry_after)), reason)
}

/// At least one.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs_f64().ceil() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::limits::ADDRESSES_MAX;

    pub fn quotas(limits: Limits) -> Quotas {
        let mut quotas = Quotas::new(limits);
        quotas.set_networks(vec![network("127.0.0.0/8")], Vec::new());
        quotas
    }

    fn network(text: &str) -> Network {
        text.parse().expect("a network")
    }

    pub fn address(text: &str) -> Option<CountedAddress> {
        Some(CountedAddress::Ip(text.parse().expect("an address")))
    }

    fn too_many_connections() -> Rejection {
        let reason = "too many connections from your address at once, close some";
        too_many_requests(ADDRESS_CONNECTIONS_RETRY, reason)
    }

    fn status_of(connected: Result<(), Rejection>) -> Option<Status> {
        connected.err().map(|rejection| rejection.status)
    }

    #[test]
    fn an_ipv6_64_counts_as_one_and_exempt_networks_not_at_all() {
        let quotas = quotas(Limits::default());
        let prefix = |text| {
            let holder = quotas.limited_holder(address(text)?);
            holder.and_then(|holder| holder.prefixes().next())
        };
        assert_eq!(prefix("2001:db8:1:2::3"), prefix("2001:db8:1:2:ffff::4"));
        assert_ne!(prefix("2001:db8:1:2::3"), prefix("2001:db8:1:3::3"));
        assert_eq!(prefix("127.1.2.3"), None);
        assert_ne!(prefix("192.0.2.1"), prefix("192.0.2.2"));
    }

    /// The IPv6 address of a /64, by the numbers of its /48, of its /56 there and of the /64 there.
    fn in_prefix(site: u32, customer: u32, network: u32) -> Option<CountedAddress> {
        let bits = u128::from(site) << 80 | u128::from(customer) << 72 | u128::from(network) << 64;
        Some(CountedAddress::Ip(Ipv6Addr::from_bits(0x2001 << 112 | bits).into()))
    }

    #[test]
    fn wider_ipv6_prefixes_have_a_multiple_of_the_limits() {
        let limits = Limits {
            address_connections_max: 2,
            address_connect_burst: usize::MAX,
            ..Limits::default()
        };
        let mut quotas = quotas(limits);
        let now = Instant::now();
        for _ in 0..2 {
            let mut accepted = Vec::new();
            let mut count = |quotas: &mut Quotas, sites, customers, networks| {
                let before = accepted.len();
                for site in 0..sites {
                    for customer in 0..customers {
                        for network in 0..networks {
                            for _ in 0..3 {
                                let conn = ConnId(accepted.len() as u64);
                                let address = in_prefix(site, customer, network);
                                if quotas.connect(conn, address, now).is_ok() {
                                    accepted.push(conn);
                                }
                            }
                        }
                    }
                }
                accepted.len() - before
            };
            assert_eq!(count(&mut quotas, 1, 1, 1), 2, "a /64");
            assert_eq!(count(&mut quotas, 1, 1, 256), 6, "the rest of its /56");
            assert_eq!(count(&mut quotas, 1, 256, 9), 24, "the rest of its /48");
            assert_eq!(count(&mut quotas, 2, 256, 9), 32, "another /48");
            accepted.into_iter().for_each(|conn| quotas.disconnect(conn));
        }
    }

    #[test]
    fn a_refusal_by_a_wider_prefix_costs_the_narrow_one_no_token() {
        let limits = Limits {
            address_connect_burst: 1,
            address_connect_per_second: 1.0,
            address_connections_max: 1_000,
            ..Limits::default()
        };
        let (mut quotas, now) = (quotas(limits), Instant::now());
        let mut connect = |network, now| {
            quotas.connect(ConnId(u64::from(network)), in_prefix(0, 0, network), now)
        };
        for network in 0..4 {
            assert_eq!(connect(network, now), Ok(()));
        }
        let wait = Duration::from_millis(250);
        for too_early in [Duration::ZERO, wait - Duration::from_millis(1)] {
            assert_eq!(status_of(connect(4, now + too_early)), Some(Status::TooManyRequests(1)));
        }
        assert_eq!(connect(4, now + wait), Ok(()));
        assert!(connect(4, now + 2 * wait).is_err(), "now its own token is taken");
    }

    #[test]
    fn a_full_table_forgets_what_is_nearest_to_idle_and_ipv4_is_apart() {
        let (mut quotas, start) = (quotas(Limits::default()), Instant::now());
        let innocent = in_prefix(1, 0, 0);
        assert_eq!(quotas.connect(ConnId(0), innocent, start), Ok(()));
        assert_eq!(quotas.connect(ConnId(1), address("192.0.2.1"), start), Ok(()));
        // Each comes and goes; together they would need three times the table.
        let mut now = start;
        for site in 2..ADDRESSES_MAX as u32 {
            now += Duration::from_millis(1);
            assert_eq!(quotas.connect(ConnId(2), in_prefix(site, 0, 0), now), Ok(()), "{site}");
            quotas.disconnect(ConnId(2));
            assert!(quotas.tables.v6.len() <= ADDRESSES_MAX);
        }
        assert_eq!(quotas.tables.v4.len(), 1);
        let mut prefixes = quotas.connections[&ConnId(0)].prefixes();
        assert!(prefixes.all(|(prefix, _)| quotas.tables.v6[&prefix].counts == [1, 0, 0]));
    }

    #[test]
    fn unreadable_addresses_are_one_that_is_never_exempt() {
        let mut quotas = quotas(Limits { address_connections_max: 1, ..Limits::default() });
        quotas.set_networks(vec![network("0.0.0.0/0")], Vec::new());
        let now = Instant::now();
        let unreadable = Some(CountedAddress::Unreadable);
        for _ in 0..2 {
            assert_eq!(quotas.connect(ConnId(1), unreadable, now), Ok(()));
            assert_eq!(quotas.connect(ConnId(2), unreadable, now), Err(too_many_connections()));
            for (conn, address) in [(3, address("192.0.2.1")), (4, None)] {
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
        let refused = Err(Refusal::TooManyAllocates { retry_after: Wait(2) });
        assert_eq!(quotas.allocate(conn, start), refused);
        assert_eq!(quotas.allocate(conn, start + Duration::from_secs(2)), Ok(()));
        assert!(quotas.allocate(conn, start + Duration::from_secs(2)).is_err());
        quotas.disconnect(conn);
        quotas.sweep(start + Duration::from_secs(60));
        assert!(quotas.tables.v4.is_empty());
    }

    #[test]
    fn a_connection_counts_once_even_if_it_is_asked_about_twice() {
        let mut quotas = quotas(Limits::default());
        let now = Instant::now();
        for address in [address("192.0.2.1"), address("192.0.2.2")] {
            assert_eq!(quotas.connect(ConnId(1), address, now), Ok(()));
        }
        quotas.disconnect(ConnId(1));
        assert!(quotas.tables.v4.values().all(|entry| entry.counts == [0; 3]));
    }

    #[test]
    fn other_networks_can_be_exempt_later() {
        let mut quotas = quotas(Limits { address_connections_max: 1, ..Limits::default() });
        let now = Instant::now();
        let connect =
            |quotas: &mut Quotas, conn| quotas.connect(ConnId(conn), address("192.0.2.1"), now);
        assert_eq!(connect(&mut quotas, 1), Ok(()));
        assert_eq!(connect(&mut quotas, 2), Err(too_many_connections()));
        quotas.set_networks(vec![network("192.0.2.0/24")], Vec::new());
        assert_eq!(connect(&mut quotas, 2), Ok(()));
        quotas.set_networks(Vec::new(), Vec::new());
        assert_eq!(connect(&mut quotas, 3), Err(too_many_connections()));
    }

    #[test]
    fn a_circuit_of_an_onion_service_is_one_address_after_a_takeover_too() {
        let mut quotas = quotas(Limits { address_connections_max: 1, ..Limits::default() });
        quotas.set_networks(Vec::new(), vec![network("fc00:dead:beef:4dad::/64")]);
        let circuit = |number: u128| Ipv6Addr::from_bits(0xfc00_dead_beef_4dad << 64 | number);
        let now = Instant::now();
        quotas.restore_connection(ConnId(1), CountedAddress::Ip(circuit(1).into()), now);
        let mut connect = |conn, number| {
            quotas.connect(ConnId(conn), Some(CountedAddress::Ip(circuit(number).into())), now)
        };
        assert_eq!(connect(2, 1), Err(too_many_connections()));
        assert_eq!(connect(3, 2), Ok(()));
        let [one, other] = [1, 3].map(|conn| quotas.holder_of(ConnId(conn)).expect("a holder"));
        assert_eq!(one.network(), other.network());
        assert_ne!(one, other);
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
            assert_eq!(connect(&mut quotas, 3), Err(too_many_connections()));
            quotas.disconnect(ConnId(1));
            quotas.disconnect(ConnId(2));
            quotas.disconnect(ConnId(3));
        }
    }
}
