//! Proof of work before `bind` (manual: proof_of_work 1): the demand to each connection, and
//! whether its proof has come.
//!
//! `attack` decides when the mode `auto` demands one, `sources` which events it counts. Pure: time
//! and randomness are arguments. Must never log, send or close.

mod attack;
mod sources;

use std::time::Instant;

use crate::codec::hashcash;
use crate::config::permission::{Mode, Policy};
use crate::limits::{HASHCASH_BITS_MAX, SIDES_MAX};
use crate::message::handover::AttackRecord;
use crate::message::{
    Command, ConnId, ConnMap, Demand, Field, Holder, ProofState, Refusal, StampError, hash_of,
};
use crate::sys::entropy::Entropy;
pub use attack::AttackChange;
use attack::AttackDetector;
use sources::Sources;

/// The only method.
const METHOD: &str = "hashcash";

/// The demands to connections, and what decides whether there are any.
#[derive(Debug)]
pub struct Permissions {
    policy: Policy,
    /// Only the mode `auto` has it count anything.
    pub attack: AttackDetector,
    pub sources: Sources,
    /// To connections that are not bound yet.
    pub demands: ConnMap<Demand>,
}

impl Permissions {
    pub fn new(policy: Policy, now: Instant) -> Permissions {
        Permissions {
            attack: AttackDetector::new(policy.attack_events, policy.attack_half_life, now),
            sources: Sources::new(policy.attack_half_life),
            policy,
            demands: ConnMap::default(),
        }
    }

    /// While permissions are off, makes `submit-permission` an unknown type: the protocol has no
    /// command of that name, but one released client sends it.
    pub fn normalise(&self, command: &mut Command<'_>) {
        if self.policy.mode == Mode::None
            && matches!(command, Command::SubmitPermissions { is_singular: true, .. })
        {
            *command = Command::Unknown;
        }
    }

    /// The demand to a new connection. It holds even if the attack ends before the `bind`.
    pub fn ask(&mut self, conn: ConnId, now: Instant, entropy: &mut dyn Entropy) -> Option<Demand> {
        let is_required = match self.policy.mode {
            Mode::None => return None,
            Mode::Auto if !self.attack.is_attack => return None,
            Mode::Offer => false,
            Mode::Require | Mode::Auto => true,
        };
        // In other modes than `auto` the level is 0, and so are the extra bits.
        let bits = (self.policy.bits + self.attack.extra_bits(now)).min(HASHCASH_BITS_MAX);
        let (resource, proof) = (entropy.next_u64(), ProofState::Missing);
        let demand = Demand { bits, resource, is_required, proof };
        self.demands.insert(conn, demand);
        Some(demand)
    }

    /// Verifies a proof. Any proof is accepted from a connection without a demand.
    pub fn submit(
        &mut self,
        conn: ConnId,
        method: &Field<'_>,
        stamp: &Field<'_>,
    ) -> Result<(), StampError> {
        let Some(demand) = self.demands.get_mut(&conn) else { return Ok(()) };
        if !matches!(method, Field::Text(method) if method == METHOD) {
            return Err(StampError::Method);
        }
        let Field::Text(stamp) = stamp else { return Err(StampError::Stamp) };
        hashcash::verify(stamp, demand)?;
        demand.proof = ProofState::Given;
        Ok(())
    }

    /// Whether the connection may bind. After a refusal it stays refused.
    pub fn check_bind(&mut self, conn: ConnId) -> Result<(), Refusal> {
        match self.demands.get_mut(&conn) {
            Some(demand) if demand.is_required && demand.proof != ProofState::Given => {
                demand.proof = ProofState::Refused;
                Err(Refusal::PermissionRequired)
            }
            _ => Ok(()),
        }
    }

    /// Whether a `bind` was refused; the connection is then about to be closed.
    pub fn is_refused(&self, conn: ConnId) -> bool {
        self.demands.get(&conn).is_some_and(|demand| demand.proof == ProofState::Refused)
    }

    /// Goes on with an attack, if this process looks for any.
    pub fn restore_attack(&mut self, record: &AttackRecord, now: Instant) {
        if self.policy.mode == Mode::Auto {
            self.attack.restore(record, now);
        }
    }

    /// Counts the refusal of a nameplate by a limit. `holder`: the address that met it.
    pub fn note_refusal(
        &mut self,
        command: &Command<'_>,
        refusal: &Refusal,
        holder: Option<Holder>,
        now: Instant,
    ) {
        let is_limit = matches!(
            refusal,
            Refusal::TooManyAllocates { .. }
                | Refusal::TooManyClaims { .. }
                | Refusal::TooManyNameplates
                | Refusal::NoFreeNameplate
                | Refusal::ServerFull
        );
        if is_limit && matches!(command, Command::Allocate | Command::Claim { .. }) {
            self.count(&[holder], now);
        }
    }

    /// Counts mailboxes with a hostile outcome, by the addresses of their sides; one address alone
    /// can make as many as it likes. A nameplate counts through its mailbox.
    pub fn note_hostile_endings(&mut self, endings: &[Vec<Option<Holder>>], now: Instant) {
        for origins in endings {
            // Sides that were loaded have no address here.
            let first = origins.first().and_then(source);
            let is_of_one = first.is_some() && origins.iter().all(|it| source(it) == first);
            if !is_of_one || origins.len() < SIDES_MAX {
                self.count(origins, now);
            }
        }
    }

    /// Counts an event in which these addresses had a part; exempt and unknown ones are none.
    fn count(&mut self, origins: &[Option<Holder>], now: Instant) {
        let sources = origins.iter().filter_map(source).collect();
        if self.policy.mode == Mode::Auto && self.sources.admit(sources, now) {
            self.attack.add(1, now);
        }
    }
}

/// What counts as one address: of IPv6 a /48, since one peer may have that many addresses.
fn source(origin: &Option<Holder>) -> Option<u64> {
    origin.map(|holder| hash_of(holder.network()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::message::{CountedAddress, Flag, Wait};

    #[derive(Debug)]
    struct Counter(u64);

    impl Entropy for Counter {
        fn next_u64(&mut self) -> u64 {
            self.0 += 1;
            self.0
        }
    }

    fn permissions(mode: Mode, now: Instant) -> Permissions {
        Permissions::new(Policy { mode, bits: 1, attack_events: 2.0, ..Policy::default() }, now)
    }

    fn crowded(permissions: &mut Permissions, count: usize, now: Instant) {
        permissions.note_hostile_endings(&vec![vec![None; 3]; count], now);
    }

    fn of(address: u32) -> Option<Holder> {
        let ip = Ipv4Addr::from_bits(address);
        Some(Holder::new(CountedAddress::Ip(ip.into()), None))
    }

    #[test]
    fn one_address_counts_twice_in_a_half_life_and_not_alone_in_a_mailbox() {
        let policy = Policy { mode: Mode::Auto, attack_events: 2.5, ..Policy::default() };
        let now = Instant::now();
        let begins = |endings: &[Vec<Option<Holder>>], refusals: &[Option<Holder>]| {
            let mut permissions = Permissions::new(policy, now);
            permissions.note_hostile_endings(endings, now);
            for holder in refusals {
                let refusal = Refusal::TooManyNameplates;
                permissions.note_refusal(&Command::Allocate, &refusal, *holder, now);
            }
            permissions.attack.update(now) == Some(AttackChange::Began)
        };
        assert!(!begins(&vec![vec![of(1), of(1)]; 1_000], &[]), "all sides of one address");
        let victims: Vec<_> = (2..1_000).map(|victim| vec![of(victim), of(1)]).collect();
        assert!(!begins(&victims, &[of(1); 1_000]), "one address, many victims");
        let pairs: Vec<_> = (0..3).map(|pair| vec![of(2 * pair), of(2 * pair + 1)]).collect();
        assert!(begins(&pairs, &[]), "three pairs");
        assert!(begins(&[vec![of(1), of(2)]], &[of(3), of(4)]));
        assert!(begins(&vec![vec![None, None]; 3], &[]), "unknown addresses");
    }

    #[test]
    fn every_connection_is_asked_for_a_stamp_of_its_own() {
        let now = Instant::now();
        let (mut permissions, mut entropy) = (permissions(Mode::Require, now), Counter(0));
        let mut ask = |conn| permissions.ask(ConnId(conn), now, &mut entropy).expect("a demand");
        assert_ne!(ask(1).resource(), ask(2).resource());
    }

    #[test]
    fn a_demand_outlives_the_attack_and_goes_with_the_bind() {
        let now = Instant::now();
        let (mut permissions, mut entropy) = (permissions(Mode::Auto, now), Counter(0));
        assert_eq!(permissions.ask(ConnId(1), now, &mut entropy), None);
        crowded(&mut permissions, 2, now);
        assert_eq!(permissions.attack.update(now), Some(AttackChange::Began));
        assert!(permissions.ask(ConnId(2), now, &mut entropy).is_some());
        let calm = permissions.attack.ends_at().expect("an end");
        assert_eq!(permissions.attack.update(calm), Some(AttackChange::Ended));
        assert_eq!(permissions.attack.ends_at(), None);
        assert_eq!(permissions.check_bind(ConnId(1)), Ok(()));
        assert_eq!(permissions.check_bind(ConnId(2)), Err(Refusal::PermissionRequired));
        permissions.demands.remove(&ConnId(2));
        assert!(permissions.demands.is_empty());
    }

    #[test]
    fn the_pressure_raises_the_bits() {
        let now = Instant::now();
        let (mut permissions, mut entropy) = (permissions(Mode::Auto, now), Counter(0));
        let mut bits = Vec::new();
        for events in [2, 2, 4, 1_000_000] {
            crowded(&mut permissions, events, now);
            permissions.attack.update(now);
            bits.extend(permissions.ask(ConnId(1), now, &mut entropy).map(|demand| demand.bits));
        }
        assert_eq!(bits, [1, 2, 3, 7]);
    }

    #[test]
    fn nameplates_refused_by_a_limit_are_hostile() {
        let now = Instant::now();
        let claim = Command::Claim { nameplate: Field::Absent, allocate: Flag::Absent };
        let too_fast = Refusal::TooManyClaims { retry_after: Wait(1) };
        let open = Command::Open { mailbox: Field::Absent };
        for (command, refusal, is_hostile) in [
            (&claim, too_fast, true),
            (&Command::Allocate, Refusal::TooManyNameplates, true),
            (&Command::Allocate, Refusal::NoFreeNameplate, true),
            (&Command::Allocate, Refusal::ServerFull, true),
            (&open, Refusal::ServerFull, false),
            (&claim, Refusal::Crowded, false),
            (&Command::Allocate, Refusal::AlreadyAllocated, false),
            (&Command::Allocate, Refusal::StorageUnavailable, false),
        ] {
            let mut permissions = permissions(Mode::Auto, now);
            for _ in 0..1_000 {
                permissions.note_refusal(command, &refusal, None, now);
            }
            assert_eq!(permissions.attack.update(now).is_some(), is_hostile, "{refusal:?}");
        }
    }

    #[test]
    fn only_auto_counts() {
        let now = Instant::now();
        for mode in [Mode::None, Mode::Offer, Mode::Require] {
            let mut permissions = permissions(mode, now);
            crowded(&mut permissions, 1_000, now);
            assert_eq!(
                (permissions.attack.update(now), permissions.attack.ends_at()),
                (None, None),
                "{mode:?}"
            );
        }
    }
}
