//! Runs the engine tick by tick in the order of the server's own loop, with clients, clock and
//! disk of its own, and compares everything that comes out with the model.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use wormhole_mailbox::config::reloadable::Reloadable;
use wormhole_mailbox::config::{self, Config, Invocation};
use wormhole_mailbox::engine::Engine;
use wormhole_mailbox::message::{self, CloseReason, ConnId, Forwarded, Output, Verdict};
use wormhole_mailbox::storage::held;
use wormhole_mailbox::storage::records::Records;
use wormhole_mailbox::storage::{Committed, Storage};
use wormhole_mailbox::store::{Listing, Rules, Store};
use wormhole_mailbox::sys::clock::{Clock, Seconds, Timestamp};

use crate::check;
use crate::commands::{CLOSED_1013, EVICTED, PONGED, REPLACED, Reply, Sent, UPGRADED};
use crate::database::{Disk, SimulatedDatabase};
use crate::faults::Fault;
use crate::joins::JOINS_PER_SECOND;
use crate::model::Model;
use crate::moments::Times;
use crate::random::Random;
use crate::takeover::Inheritance;
use crate::usage::UsageFile;
use crate::workload::Swarm;
use crate::world::peer;

/// All times are whole multiples of this, so that sums of them are exact.
pub const SECONDS_PER_UNIT: Seconds = 0.125;
const UNITS_PER_SECOND: i64 = 8;

/// By how much usage records may lag.
const USAGE_LAG: Duration = Duration::from_secs(1);

/// When a run begins, in units.
const EPOCH: i64 = 1_700_000_000 * UNITS_PER_SECOND;

/// What comes in from one connection.
#[derive(Clone, Debug)]
pub enum Event {
    Open {
        address: Option<u8>,
    },
    Text(Sent),
    /// A ping of the WebSocket level: its answer carries no state.
    Ping,
}

/// Where a run may be cut off.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Crash {
    BeforeCommit,
    AfterCommit,
    AfterRelease,
}

/// A connection as the driver sees it.
#[derive(Clone, Copy, Debug)]
pub struct Peering {
    pub conn: ConnId,
    pub address: Option<u8>,
    pub is_open: bool,
    /// Closing: it is silent, and reaped after so many ticks.
    pub reap_in: Option<usize>,
}

/// Numbers of a run, to see that it was worth something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub clients: usize,
    pub commands: usize,
    pub replies: usize,
    pub commits: usize,
    pub failures: usize,
    pub crashes: usize,
    pub takeovers: usize,
    pub endings: usize,
}

impl Totals {
    pub fn add(&mut self, other: Totals) {
        self.clients += other.clients;
        self.commands += other.commands;
        self.replies += other.replies;
        self.commits += other.commits;
        self.failures += other.failures;
        self.crashes += other.crashes;
        self.takeovers += other.takeovers;
        self.endings += other.endings;
    }
}

/// One run.
pub struct Simulation {
    pub random: Random,
    pub swarm: Swarm,
    pub fault: Option<Fault>,
    config: Rc<Config>,
    live: Reloadable,
    pub disk: Rc<RefCell<Disk>>,
    pub usage: Option<UsageFile>,
    /// When each tick since the start ended, and how many usage records there were then.
    usage_counts: Vec<(Instant, usize)>,
    engine: Option<Engine>,
    pub model: Model,
    start: Instant,
    /// Both clocks, in units.
    pub elapsed: i64,
    pub wall: i64,
    pub peerings: Vec<Peering>,
    pub next_conn: u64,
    pub mends_in: usize,
    pub totals: Totals,
    pub is_traced: bool,
}

/// Runs a seed to its end, or to the first thing that is wrong.
pub fn run(seed: u64, fault: Option<Fault>) -> Result<Totals, String> {
    let mut random = Random::new(seed);
    let swarm = Swarm::new(&mut random);
    let mut simulation = Simulation::new(seed, random, swarm, fault);
    for tick in 0..simulation.swarm.ticks {
        simulation.tick().map_err(|problem| format!("tick {tick}: {problem}"))?;
    }
    simulation.finish()
}

impl Simulation {
    fn new(seed: u64, random: Random, swarm: Swarm, fault: Option<Fault>) -> Simulation {
        let start = Instant::now();
        let wall = EPOCH as Seconds * SECONDS_PER_UNIT;
        let origin = Clock { instant: start, wall: Timestamp(wall) };
        let times =
            Times { instant: start, wall, steady: wall, origin, next_check: start, retry_at: None };
        let disk = Rc::new(RefCell::new(Disk::new(fault)));
        let usage = swarm.records_usage.then(|| UsageFile::new(seed));
        let (config, live) = config(&swarm);
        let mut simulation = Simulation {
            random,
            fault,
            config: Rc::new(config),
            live,
            disk,
            usage,
            usage_counts: Vec::new(),
            engine: None,
            model: Model::new(swarm.settings.clone(), fault, times),
            swarm,
            start,
            elapsed: 0,
            wall: EPOCH,
            peerings: Vec::new(),
            next_conn: 1,
            mends_in: 0,
            totals: Totals::default(),
            is_traced: std::env::var_os("SIMULATION_TRACE").is_some(),
        };
        simulation.start(None);
        simulation
    }

    /// A process starts on what the disk holds, and on what another has handed over.
    pub fn start(&mut self, inheritance: Option<Inheritance>) {
        // That times later than the start count as the start is a test of its own.
        self.wall = self.wall.max((self.model.rows.latest() / SECONDS_PER_UNIT) as i64);
        let clock = self.clock();
        let storage = Storage::new(Box::new(SimulatedDatabase(self.disk.clone())));
        let mut store = Store::new(self.config.rules.clone(), self.config.limits.clone());
        store.set_listing(self.live.list);
        storage.load(&mut store, clock.wall).expect("a disk is readable at a start");
        let records =
            Records { usage: self.usage.as_ref().map(UsageFile::open), ..Records::default() };
        let entropy = Box::new(Random::new(self.random.next()));
        let (config, live) = (Rc::clone(&self.config), self.live.clone());
        let mut engine = Engine::new(config, live, store, storage, records, entropy, clock);
        match inheritance {
            Some(Inheritance { addresses, connections }) => {
                engine.restore(addresses, connections.into_iter());
            }
            None => {
                self.peerings.clear();
                self.model.lose_connections();
            }
        }
        engine.run_first_check();
        self.engine = Some(engine);
        self.model.times.origin = clock;
        self.model.begin_tick(clock, &self.disk.borrow(), false);
        self.model.restart(&self.disk.borrow());
    }

    fn clock(&self) -> Clock {
        let seconds = self.elapsed as f64 * SECONDS_PER_UNIT;
        Clock {
            instant: self.start + Duration::from_secs_f64(seconds),
            wall: Timestamp(self.wall as Seconds * SECONDS_PER_UNIT),
        }
    }

    fn tick(&mut self) -> Result<(), String> {
        let Some(mut engine) = self.engine.take() else { return Err("nothing runs".to_owned()) };
        self.pass_time();
        self.break_or_mend();
        let clock = self.clock();
        let failures_before = self.disk.borrow().failures_count;
        engine.begin_tick(clock);
        let has_failed = self.disk.borrow().failures_count > failures_before;
        self.model.begin_tick(clock, &self.disk.borrow(), has_failed);
        let commits_before = self.disk.borrow().commits_count;
        let failures_before = self.disk.borrow().failures_count;
        let stolen = match self.fault {
            Some(Fault::ReleasesEarly) => Some(engine.commit().0),
            _ => None,
        };
        self.disk.borrow_mut().creations.clear();
        self.disk.borrow_mut().deletions.clear();
        self.disk.borrow_mut().openings.clear();
        self.model.shares.remains = self.disk.borrow().remains();

        let mut events = self.events();
        self.flood(&mut engine, &mut events);
        for (conn, event) in &events {
            self.feed(&mut engine, *conn, event);
        }
        engine.run_timers();
        self.accept(&mut engine);
        let crash = self.random.chance(self.swarm.crashes).then(|| {
            self.random.pick(&[Crash::BeforeCommit, Crash::AfterCommit, Crash::AfterRelease])
        });
        if crash == Some(Crash::BeforeCommit) {
            return self.crash(engine);
        }
        let mut replies = Vec::new();
        if let Some(proof) = stolen {
            self.release(&mut engine, proof, &mut replies);
        }
        let commits_at_release = self.disk.borrow().commits_count;
        let (proof, closings) = commit(&mut engine);
        let affected: Vec<ConnId> = closings.iter().map(|(conn, _)| *conn).collect();
        let has_failed = self.disk.borrow().failures_count > failures_before;
        let commits_at_release =
            if replies.is_empty() { self.disk.borrow().commits_count } else { commits_at_release };
        if crash != Some(Crash::AfterCommit) {
            self.release(&mut engine, proof, &mut replies);
        }
        if self.is_traced {
            eprintln!("{} failed: {has_failed}, crash: {crash:?}, {events:?}", clock.wall.0);
        }
        self.totals.commands += events.len();
        self.totals.replies += replies.len();
        self.totals.failures += usize::from(has_failed);

        if has_failed {
            check::affected(&events, &affected, &self.model)?;
            self.fail(&events, &affected);
        } else if closings.iter().any(|(conn, reason)| {
            *reason == CloseReason::StorageFailed && !self.model.may_be_refused_farewell(*conn)
        }) {
            return Err(format!("{affected:?} are closed though no commit has failed"));
        } else {
            let rows_before = self.model.rows.clone();
            self.model.creations = std::mem::take(&mut self.disk.borrow_mut().creations).into();
            self.model.shares.deletions =
                std::mem::take(&mut self.disk.borrow_mut().deletions).into();
            self.model.shares.openings =
                std::mem::take(&mut self.disk.borrow_mut().openings).into();
            self.perform(&events, engine.has_leftovers());
            let remains = self.disk.borrow().remains();
            if !remains.is_empty() && !engine.has_leftovers() && !self.model.is_degraded {
                return Err(format!("messages of {remains:?} are left behind"));
            }
            let is_early = commits_at_release == commits_before && !replies.is_empty();
            check::rows(&self.disk.borrow(), &mut self.model)?;
            if self.model.rows != rows_before && is_early && crash != Some(Crash::AfterCommit) {
                return Err("answers left before the commit of what they tell".to_owned());
            }
        }
        check::rows(&self.disk.borrow(), &mut self.model)?;
        if crash != Some(Crash::AfterCommit) {
            self.tamper(&mut replies);
            self.model.expected.retain(|(_, reply)| *reply != Reply::Nothing);
            check::replies(&mut replies, &mut self.model.expected)?;
        }
        if crash.is_some() {
            return self.crash(engine);
        }
        self.reap(&mut engine, &affected);
        engine.end_tick(events.is_empty());
        self.model.end_tick();
        self.usage_counts.push((clock.instant, self.model.usage.len()));
        // Where the next process cannot read its files, its check fails.
        let may_take_over = engine.has_state_on_disk() && !self.disk.borrow().unreadable;
        if self.random.chance(self.swarm.takeovers) && may_take_over {
            return self.take_over(engine);
        }
        self.engine = Some(engine);
        Ok(())
    }

    /// The model learns what has happened in a tick that succeeded.
    fn perform(&mut self, events: &[(ConnId, Event)], is_checking: bool) {
        for (conn, event) in events {
            match event {
                Event::Open { address } => self.model.connect(*conn, *address),
                Event::Text(sent) => self.model.command(*conn, sent),
                Event::Ping => self.model.tell(*conn, Reply::Bytes(PONGED)),
            }
        }
        let disk = self.disk.borrow();
        self.model.run_timers(&disk, &disk.rows(), is_checking);
        let mut closings = std::mem::take(&mut self.model.shares.closings);
        if !self.model.is_degraded {
            closings.extend(self.model.close_refused_farewells());
        }
        let mut closed = HashSet::new();
        for (conn, reply) in closings {
            if closed.insert(conn) {
                self.model.tell(conn, reply);
            }
        }
    }

    /// The model learns of a tick that failed: only what carries no state has left.
    fn fail(&mut self, events: &[(ConnId, Event)], affected: &[ConnId]) {
        for (conn, event) in events {
            match event {
                Event::Open { .. } => self.model.tell(*conn, Reply::Bytes(UPGRADED)),
                Event::Ping => self.model.tell(*conn, Reply::Bytes(PONGED)),
                Event::Text(_) if self.fault == Some(Fault::FailureKeepsChanges) => {
                    let Event::Text(sent) = event else { continue };
                    self.model.command(*conn, sent);
                }
                Event::Text(_) => {}
            }
        }
        self.model.fail(&self.disk.borrow(), affected);
    }

    fn feed(&mut self, engine: &mut Engine, conn: ConnId, event: &Event) {
        match event {
            Event::Open { address } => {
                let upgrade = message::Event::Upgrade {
                    peer: peer(*address),
                    forwarded: Forwarded::default(),
                    secret: None,
                    response: UPGRADED.as_bytes().to_vec(),
                };
                let opened = engine.handle(conn, upgrade);
                assert!(opened.is_ok(), "connections are not limited here");
            }
            Event::Text(sent) => {
                let message = if self.random.chance(100) {
                    message::Event::Binary(sent.text.as_bytes().to_vec())
                } else {
                    message::Event::Text(sent.text.to_string())
                };
                let verdict = engine.handle(conn, message);
                assert_eq!(verdict, Ok(Verdict::Stay), "nobody is sent away here");
            }
            Event::Ping => {
                engine.outputs_mut().push(conn, Output::Bytes(PONGED.as_bytes().to_vec()));
            }
        }
    }

    fn release(
        &mut self,
        engine: &mut Engine,
        proof: Committed,
        replies: &mut Vec<(ConnId, Reply)>,
    ) {
        let mut parts = Vec::new();
        held::release(engine.outputs_mut(), proof, |conn, outputs| {
            outputs.for_each(|released| Reply::all_of(released, &mut parts));
            replies.extend(parts.drain(..).map(|reply| (conn, reply)));
        });
    }

    /// The process dies here; what the disk holds must be what the model says is durable.
    fn crash(&mut self, engine: Engine) -> Result<(), String> {
        drop(engine);
        self.totals.crashes += 1;
        let counts = std::mem::take(&mut self.usage_counts);
        if let Some(usage) = &self.usage {
            let is_old = |tick: &&(Instant, usize)| {
                counts.last().is_some_and(|(last, _)| tick.0 + USAGE_LAG <= *last)
            };
            let due = counts.iter().rfind(is_old).map_or(0, |(_, count)| *count);
            usage.crashed(&mut self.model.usage, due)?;
        }
        if self.fault == Some(Fault::CrashLosesCommit) {
            self.disk.borrow_mut().lose_last_commit();
        }
        self.model.creations.clear();
        self.disk.borrow_mut().fail_once = false;
        self.disk.borrow_mut().unreadable = false;
        check::rows(&self.disk.borrow(), &mut self.model)?;
        self.start(None);
        check::rows(&self.disk.borrow(), &mut self.model)
    }

    fn finish(mut self) -> Result<Totals, String> {
        if let Some(engine) = self.engine.take() {
            engine.close();
        }
        self.totals.endings = self.model.usage.len();
        self.totals.commits = self.disk.borrow().commits_count;
        if let Some(usage) = &self.usage {
            usage.stopped(&self.model.usage)?;
        }
        Ok(self.totals)
    }
}

/// As the server's loop does it: the close frames are held and leave.
fn commit(engine: &mut Engine) -> (Committed, Vec<(ConnId, CloseReason)>) {
    let (proof, mut closings) = engine.commit();
    let mut closed = HashSet::new();
    closings.retain(|(conn, _)| closed.insert(*conn)); // the server closes each once
    closings.sort_by_key(|(conn, _)| *conn);
    for (conn, reason) in &closings {
        let frame = match reason {
            CloseReason::Replaced => REPLACED,
            CloseReason::Evicted => EVICTED,
            _ => CLOSED_1013,
        };
        engine.outputs_mut().push(*conn, Output::Bytes(frame.as_bytes().to_vec()));
    }
    (proof, closings)
}

fn config(swarm: &Swarm) -> (Config, Reloadable) {
    let Ok(Invocation::Serve(mut config, mut live)) = config::parse([], [], |_| Err(String::new()))
    else {
        unreachable!("no arguments are valid arguments");
    };
    let settings = &swarm.settings;
    config.expire_check = settings.expire_check;
    config.delete = settings.delete;
    config.rules = Rules {
        expire_after: settings.expire_after,
        blur: settings.blur,
        claim_without_allocate: settings.claim_without_allocate,
        nameplate_digits_min: 1,
        nameplate_cooldown: settings.nameplate_cooldown,
        deletions_per_tick_max: settings.deletions_per_tick_max,
        subscribers_per_side_max: settings.subscribers_per_side_max,
        is_crowded: false,
    };
    live.list = if settings.allow_list { Listing::Real } else { Listing::Empty };
    let limits = &mut config.limits;
    limits.mailbox_bytes_max = settings.mailbox_bytes_max;
    limits.mailbox_messages_max = settings.mailbox_messages_max;
    limits.stored_bytes_max = settings.stored_bytes_max;
    limits.address_nameplates_max = settings.address_nameplates_max;
    limits.address_join_burst = settings.address_join_burst;
    limits.address_joins_per_minute = 60.0 * JOINS_PER_SECOND;
    for unlimited in [
        &mut limits.address_connections_max,
        &mut limits.address_connect_burst,
        &mut limits.address_allocate_burst,
        &mut limits.address_claim_burst,
    ] {
        *unlimited = 1_000_000;
    }
    (*config, *live)
}
