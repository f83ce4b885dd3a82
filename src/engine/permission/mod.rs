//! Proof of work before `bind` (`permission-required` in the published protocol): what each
//! connection was asked for, and whether it has given it.
//!
//! `stamp` judges a proof, `pressure` decides when `auto` asks for one. Pure: time and randomness
//! come in, and it is told what happens. Must never log, send or close; that is the engine's.

mod pressure;
mod stamp;

use std::time::Instant;

use crate::config::policy::{Mode, Policy};
use crate::limits::HASHCASH_BITS_MAX;
use crate::message::{Command, ConnId, ConnMap, Demand, Field, Proof, Refusal, StampError};
use crate::store::UsageRecord;
use crate::sys::entropy::Entropy;
use pressure::Pressure;

/// The one method there is.
const METHOD: &str = "hashcash";

/// A change of `auto`'s mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// An attack has begun.
    Demanding,
    /// It is over.
    Calm,
}

/// What a connection was asked for before it binds, and how it stands.
#[derive(Debug)]
struct Pending {
    demand: Demand,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It has not given a proof.
    Asked,
    /// It has.
    Met,
    /// It tried to bind without.
    Refused,
}

/// All connections that were asked for a proof and have not bound.
#[derive(Debug)]
pub struct Permissions {
    policy: Policy,
    pressure: Pressure,
    pending: ConnMap<Pending>,
}

impl Permissions {
    pub fn new(policy: Policy, now: Instant) -> Permissions {
        Permissions {
            pressure: Pressure::new(policy.attack_events, policy.attack_half_life, now),
            policy,
            pending: ConnMap::default(),
        }
    }

    /// Makes unknown what nobody knows while permissions are off: the name of the command that
    /// the published protocol has not, but a released client sends.
    pub fn screen(&self, command: &mut Command<'_>) {
        if self.policy.mode == Mode::None
            && matches!(command, Command::SubmitPermissions { is_singular: true, .. })
        {
            *command = Command::Unknown;
        }
    }

    /// What a new connection is asked for. It is held to that, whatever `auto` thinks later.
    pub fn ask(&mut self, conn: ConnId, now: Instant, entropy: &mut dyn Entropy) -> Option<Demand> {
        let is_required = match self.policy.mode {
            Mode::None => return None,
            Mode::Auto if !self.pressure.is_attack() => return None,
            Mode::Offer => false,
            Mode::Require | Mode::Auto => true,
        };
        // Without `auto` nothing is ever counted, and there is nothing to add.
        let bits = (self.policy.bits + self.pressure.extra_bits(now)).min(HASHCASH_BITS_MAX);
        let demand = Demand { bits, resource: entropy.next_u64(), is_required };
        self.pending.insert(conn, Pending { demand, standing: Standing::Asked });
        Some(demand)
    }

    /// Judges a proof. Of a connection that was asked for none, or has bound, any will do.
    pub fn submit(&mut self, conn: ConnId, proof: &Proof<'_>) -> Result<(), StampError> {
        let Some(pending) = self.pending.get_mut(&conn) else { return Ok(()) };
        if !matches!(&proof.method, Field::Text(method) if method == METHOD) {
            return Err(StampError::Method);
        }
        let Field::Text(text) = &proof.stamp else { return Err(StampError::Stamp) };
        stamp::judge(text, &pending.demand)?;
        pending.standing = Standing::Met;
        Ok(())
    }

    /// Whether the connection may bind. If not, it is refused for good.
    pub fn check_bind(&mut self, conn: ConnId) -> Result<(), Refusal> {
        match self.pending.get_mut(&conn) {
            Some(pending) if pending.demand.is_required && pending.standing != Standing::Met => {
                pending.standing = Standing::Refused;
                Err(Refusal::PermissionRequired)
            }
            _ => Ok(()),
        }
    }

    /// Whether the connection was refused to bind, and is on its way out.
    pub fn is_refused(&self, conn: ConnId) -> bool {
        self.pending.get(&conn).is_some_and(|pending| pending.standing == Standing::Refused)
    }

    /// The connection has bound, or is gone.
    pub fn forget(&mut self, conn: ConnId) {
        self.pending.remove(&conn);
    }

    /// Counts a refused command, if a limit on nameplates is behind it.
    pub fn note_refusal(&mut self, command: &Command<'_>, refusal: &Refusal, now: Instant) {
        let is_limit = matches!(
            refusal,
            Refusal::TooFast { .. }
                | Refusal::TooManyNameplates
                | Refusal::NoFreeNameplate
                | Refusal::ServerFull
        );
        if is_limit && matches!(command, Command::Allocate | Command::Claim { .. }) {
            self.count(1, now);
        }
    }

    /// Counts the exchanges among what has ended that tell of an attack. One that had a nameplate
    /// counts by its mailbox.
    pub fn note_endings(&mut self, records: &[UsageRecord], now: Instant) {
        let is_hostile = |record: &&UsageRecord| match record {
            UsageRecord::Mailbox { result, .. } => result.is_hostile(),
            _ => false,
        };
        self.count(records.iter().filter(is_hostile).count(), now);
    }

    fn count(&mut self, events: usize, now: Instant) {
        if self.policy.mode == Mode::Auto && events > 0 {
            self.pressure.add(events, now);
        }
    }

    /// Lets `auto` change its mind, if it is time.
    pub fn turn(&mut self, now: Instant) -> Option<Turn> {
        (self.policy.mode == Mode::Auto).then(|| self.pressure.turn(now))?
    }

    /// When [`Permissions::turn`] wants to be called without anything having been counted.
    pub fn turn_at(&self) -> Option<Instant> {
        self.pressure.ends_at()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::outcome::Outcome;
    use crate::message::{Flag, Throttled};

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

    fn end(permissions: &mut Permissions, result: Outcome, count: usize, now: Instant) {
        let record = UsageRecord::Mailbox {
            app: "app".into(),
            for_nameplate: true,
            started: 0.0,
            waiting_time: None,
            total_time: 0.0,
            result,
        };
        permissions.note_endings(&vec![record; count], now);
    }

    fn crowded(permissions: &mut Permissions, count: usize, now: Instant) {
        end(permissions, Outcome::Crowded, count, now);
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
        assert_eq!(permissions.turn(now), Some(Turn::Demanding));
        assert!(permissions.ask(ConnId(2), now, &mut entropy).is_some());
        let calm = permissions.turn_at().expect("an end");
        assert_eq!(permissions.turn(calm), Some(Turn::Calm));
        assert_eq!(permissions.turn_at(), None);
        assert_eq!(permissions.check_bind(ConnId(1)), Ok(()));
        assert_eq!(permissions.check_bind(ConnId(2)), Err(Refusal::PermissionRequired));
        permissions.forget(ConnId(2));
        assert!(permissions.pending.is_empty());
    }

    #[test]
    fn the_pressure_raises_the_bits() {
        let now = Instant::now();
        let (mut permissions, mut entropy) = (permissions(Mode::Auto, now), Counter(0));
        let mut bits = Vec::new();
        for events in [2, 2, 4, 1_000_000] {
            crowded(&mut permissions, events, now);
            permissions.turn(now);
            bits.extend(permissions.ask(ConnId(1), now, &mut entropy).map(|demand| demand.bits));
        }
        assert_eq!(bits, [1, 2, 3, 7]);
    }

    #[test]
    fn endings_with_a_stranger_or_a_wrong_code_are_hostile() {
        let now = Instant::now();
        for result in Outcome::all() {
            let mut permissions = permissions(Mode::Auto, now);
            end(&mut permissions, result, 1_000, now);
            let is_hostile = matches!(result, Outcome::Scary | Outcome::Crowded);
            let turn = is_hostile.then_some(Turn::Demanding);
            assert_eq!(permissions.turn(now), turn, "{result:?}");
        }
    }

    #[test]
    fn nameplates_refused_by_a_limit_are_hostile() {
        let now = Instant::now();
        let claim = Command::Claim { nameplate: Field::Absent, allocate: Flag::Absent };
        let too_fast = Refusal::TooFast { command: Throttled::Claim, retry_seconds: 1 };
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
                permissions.note_refusal(command, &refusal, now);
            }
            assert_eq!(permissions.turn(now).is_some(), is_hostile, "{refusal:?}");
        }
    }

    #[test]
    fn only_auto_counts() {
        let now = Instant::now();
        for mode in [Mode::None, Mode::Offer, Mode::Require] {
            let mut permissions = permissions(mode, now);
            crowded(&mut permissions, 1_000, now);
            assert_eq!((permissions.turn(now), permissions.turn_at()), (None, None), "{mode:?}");
        }
    }
}
