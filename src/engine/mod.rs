//! Everything behind the sockets: what a connection's events come to, and how a tick ends.
//!
//! The one place where `protocol`, `store` and the files meet: text → command → store → held
//! output, then commit or undo. Knows connections by number only; must never touch a socket, nor
//! read a clock: the time comes in with each tick.

pub mod client_programs;
mod counts;
mod handler;
pub mod health;
pub mod limit_log;
pub mod metrics;
pub mod permission;
pub mod quotas;

use std::rc::Rc;
use std::time::Instant;

use log::{debug, info, warn};

use crate::codec::http::{Rejection, Status};
use crate::codec::json::{self, DecodeError, Request, Welcome};
use crate::config::Config;
use crate::config::reloadable::Reloadable;
use crate::engine::client_programs::ClientPrograms;
use crate::engine::health::Health;
use crate::engine::metrics::Metrics;
use crate::engine::permission::{AttackChange, Permissions};
use crate::engine::quotas::{PeerAddress, QuotaExceeded, Quotas, whole_seconds};
use crate::limits;
use crate::message::close::{CloseReason, Farewell, Verdict};
use crate::message::peer::Peer;
use crate::message::{Command, ConnId, Demand, Field, Flag, Orig, Refusal, Response};
use crate::storage::db::{ConnectionChange, Current};
use crate::storage::held::{Held, Output, Released};
use crate::storage::records::Records;
use crate::storage::{Committed, Storage};
use crate::store::{Act, Counts, Effects, Store};
use crate::sys::clock::{Clock, Timestamp};
use crate::sys::entropy::Entropy;
use limit_log::{Limit, LimitLog};

/// What `welcome` says while the storage does not work.
const DEGRADED_WELCOME: &str = "The server's storage is unavailable, please try again later.";

/// When an address with too many connections at once is told to come back, in seconds.
const TOO_MANY_RETRY_SECONDS: u64 = 60;

/// State, files, and what this tick has caused.
#[derive(Debug)]
pub struct Engine {
    config: Rc<Config>,
    live: Reloadable,
    /// Nobody may bind any more; those who have, go on.
    draining: bool,
    store: Store,
    storage: Storage,
    records: Records,
    quotas: Quotas,
    permissions: Permissions,
    limit_log: LimitLog,
    metrics: Metrics,
    /// Counted only with `--admin`.
    client_programs: Option<Box<ClientPrograms>>,
    entropy: Box<dyn Entropy>,
    clock: Clock,
    /// This tick's changes, not yet committed.
    effects: Effects,
    /// This tick's output, waiting for the commit.
    held: Held,
    /// Connections whose commands are in the batch.
    participants: Vec<ConnId>,
    /// An expiry check has more to do.
    expiring: bool,
    next_expiry: Instant,
    next_sweep: Instant,
    /// When records that wait are written; none while nothing waits.
    next_flush: Option<Instant>,
    rebooted: Timestamp,
}

impl Engine {
    /// Puts the parts together and runs the first expiry check to its end.
    pub fn new(
        config: Rc<Config>,
        live: Reloadable,
        store: Store,
        storage: Storage,
        records: Records,
        entropy: Box<dyn Entropy>,
        clock: Clock,
    ) -> Engine {
        let mut engine = Engine {
            quotas: Quotas::new(config.limits.clone(), live.exempt.clone()),
            permissions: Permissions::new(config.permission, clock.instant),
            config,
            live,
            draining: false,
            store,
            storage,
            records,
            limit_log: LimitLog::default(),
            metrics: Metrics::default(),
            client_programs: None,
            entropy,
            clock,
            effects: Effects::default(),
            held: Held::default(),
            participants: Vec::new(),
            expiring: true,
            next_expiry: clock.instant,
            next_sweep: clock.instant,
            next_flush: None,
            rebooted: clock.wall,
        };
        while engine.expiring {
            engine.run_timers();
            // Nobody is connected yet: a failure shows as degraded, and is retried as such.
            _ = engine.commit();
        }
        engine.records.flush(engine.storage.db_mut());
        engine
    }

    /// A new tick; all of it happens at this time.
    pub fn begin_tick(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// Whether there is work that will not wait for an event.
    pub fn has_leftovers(&self) -> bool {
        self.expiring
    }

    /// When [`Engine::run_timers`] wants to be called next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [
            Some(self.next_expiry),
            Some(self.next_sweep),
            self.next_flush,
            self.storage.retry_at(),
            self.storage.release_at(),
            self.limit_log.report_at(),
            self.permissions.attack_ends_at(),
            self.records.generation_ends().map(|ends| self.clock.after_wall(ends)),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Does what is due: recovery, sweeps, the next slice of an expiry check.
    pub fn run_timers(&mut self) {
        let now = self.clock.instant;
        self.records.renew_generation_if_due(self.clock.wall);
        self.storage.recover_if_due(now, &mut self.store);
        self.storage.release_memory_if_due(now);
        if now >= self.next_sweep {
            self.next_sweep = now + limits::ADDRESSES_SWEEP;
            self.quotas.sweep(now);
        }
        if now >= self.next_expiry {
            self.next_expiry = self.clock.after(self.config.expire_check);
            self.records.set_current(Current {
                rebooted: self.rebooted,
                updated: self.clock.wall,
                blur_time: self.config.blur_usage,
                connections_websocket: self.store.subscriptions_count(),
            });
            if !self.storage.is_degraded() {
                self.store.begin_expiry(self.clock.wall);
            }
        }
        let changes_before = self.effects.changes.len();
        self.expiring = self.store.continue_expiry(&mut Act {
            now: self.clock.wall,
            entropy: &mut *self.entropy,
            effects: &mut self.effects,
        });
        self.quotas.note_endings(&self.effects.changes[changes_before..]);
        self.turn_permissions();
        self.limit_log.report_if_due(now);
    }

    /// Whether nothing can be stored at present.
    pub fn is_degraded(&self) -> bool {
        self.storage.is_degraded()
    }

    /// How things are, with so many connections.
    pub fn health(&self, connections: usize) -> Health {
        let Counts { nameplates, mailboxes, .. } = self.store.counts();
        Health { connections, nameplates, mailboxes, is_degraded: self.is_degraded() }
    }

    /// Says it when an attack begins or ends, by what `auto` goes by.
    fn turn_permissions(&mut self) {
        match self.permissions.update_attack(self.clock.instant) {
            Some(AttackChange::Began) => {
                warn!("under attack: proof of work is demanded from now on")
            }
            Some(AttackChange::Ended) => {
                info!("the attack is over: proof of work is not demanded any more")
            }
            None => {}
        }
    }

    /// Bytes of output that wait for the commit, about.
    pub fn held_bytes(&self) -> usize {
        self.held.bytes()
    }

    /// Whether a new connection may stay, by its socket's address.
    pub fn admit(&mut self, conn: ConnId, peer: Peer) -> Result<(), Rejection> {
        if peer.is_trusted(&self.live.trusted_proxies) {
            return Ok(()); // whom it speaks for will be asked then
        }
        self.count(conn, peer.ip.into())
    }

    /// Whether a connection may begin with a PROXY header, by its socket's address.
    pub fn admit_proxy(&mut self, peer: Peer) -> Result<(), Rejection> {
        if peer.is_trusted(&self.live.trusted_proxies) {
            return Ok(());
        }
        self.note_limit(Limit::ProxyUntrusted);
        Err(Rejection::new(Status::Forbidden, "only trusted proxies may connect here"))
    }

    fn count(&mut self, conn: ConnId, address: PeerAddress) -> Result<(), Rejection> {
        self.quotas.connect(conn, address, self.clock.instant).map_err(|exceeded| {
            self.note_limit(Limit::AddressConnections);
            rejection(exceeded)
        })
    }

    /// Counts a limit that was met, for the log and the metrics.
    pub fn note_limit(&mut self, limit: Limit) {
        self.limit_log.hit(limit);
    }

    /// Ends the tick: the batch is in the database, and what is held may leave. Or it is not:
    /// then the tick is undone, memory goes back to what the database holds, and those who took
    /// part come back, to be closed; after that a second call succeeds.
    pub fn commit(&mut self) -> Result<Committed, Vec<ConnId>> {
        let now = self.clock.instant;
        let flush_is_due = self.next_flush.is_some_and(|due| due <= now);
        let outcome = self.storage.commit(&mut self.effects.changes, now);
        if flush_is_due {
            self.records.flush(self.storage.db_mut());
            self.next_flush = None;
        }
        self.quotas.update_accounting(outcome.is_ok());
        let Ok(committed) = outcome else { return Err(self.undo()) };
        self.permissions.note_endings(&self.effects.usage, now);
        self.turn_permissions();
        self.count_usage();
        self.records.push_usage(&mut self.effects.usage);
        self.participants.clear();
        Ok(committed)
    }

    fn undo(&mut self) -> Vec<ConnId> {
        self.metrics.commits_failed += 1;
        self.held.discard_messages();
        self.effects = Effects::default();
        self.expiring = false;
        let participants = std::mem::take(&mut self.participants);
        for conn in &participants {
            self.store.disconnect(*conn);
        }
        self.storage.load(&mut self.store);
        participants
    }

    /// Lets go what was held: grouped by connection, in order within each.
    pub fn release(&mut self, proof: Committed) -> impl Iterator<Item = (ConnId, Released)> {
        self.held.release(proof)
    }

    /// The tick is over; the loop was idle or not.
    pub fn end_tick(&mut self, idle: bool) {
        assert!(self.held.is_empty(), "held output outlived its tick");
        assert!(self.effects.changes.is_empty(), "changes outlived their tick");
        self.held.trim();
        if self.effects.changes.capacity() > limits::BATCH_ENTRIES_KEPT {
            self.effects.changes = Vec::new();
        }
        // Whatever the tick left to record, reaping included.
        if self.next_flush.is_none() && !self.records.is_empty() {
            self.next_flush = Some(self.clock.instant + limits::RECORDS_FLUSH);
        }
        self.storage.checkpoint_if_due(idle);
    }

    /// Whether the loop should wake soon to see that it is idle.
    pub fn wants_idle_time(&self) -> bool {
        self.storage.wants_checkpoint()
    }

    /// A connection is gone. What is stored stays as it is.
    pub fn disconnect(&mut self, conn: ConnId, reason: CloseReason) {
        self.store.disconnect(conn);
        self.quotas.disconnect(conn);
        self.permissions.forget(conn);
        self.records.track(conn, || ConnectionChange::Lost);
        self.metrics.ended.add(reason.name());
        if let Some(limit) = Limit::of_close(reason) {
            self.note_limit(limit);
        }
        if self.logs_connections() {
            debug!("{conn}: gone, {reason:?}");
        }
    }

    /// Other settings are in force from now on, for all that comes.
    pub fn set_live(&mut self, live: Reloadable) {
        self.quotas.set_exempt(live.exempt.clone());
        self.store.set_list(live.list);
        self.live = live;
    }

    /// From now on nobody may bind; gives the time by which those who have must be done.
    pub fn begin_drain(&mut self) -> Instant {
        self.draining = true;
        let seconds = self.live.drain.seconds;
        info!(
            "draining: {} bound connections have up to {seconds} s, nobody else may bind",
            self.store.bound_count()
        );
        self.clock.after(seconds)
    }

    /// Whether nobody is left for whom a drain would wait.
    pub fn is_drained(&self) -> bool {
        self.draining && self.store.bound_count() == 0
    }

    /// The drain is over.
    pub fn end_drain(&self) {
        info!("drained: {} bound connections are left", self.store.bound_count());
    }

    fn logs_connections(&self) -> bool {
        self.config.blur_usage.is_none()
    }

    /// Writes what waits and leaves the files clean.
    pub fn close(mut self) {
        self.records.close(self.storage.db_mut());
        self.storage.close();
        info!("stopped");
    }

    fn handle(
        &mut self,
        conn: ConnId,
        request: Result<Request<'_>, DecodeError>,
        text: &str,
    ) -> Verdict {
        if self.participants.last() != Some(&conn) {
            self.participants.push(conn);
        }
        match request {
            Ok(mut request) => {
                self.permissions.normalise(&mut request.command);
                self.carry_out(conn, &request, text)
            }
            Err(DecodeError { refusal, orig }) => {
                self.metrics.errors.add(refusal.label());
                self.reply(conn, Response::Error { refusal: refusal.into(), orig });
                Verdict::Stay
            }
        }
    }

    fn carry_out(&mut self, conn: ConnId, request: &Request<'_>, text: &str) -> Verdict {
        if self.permissions.is_refused(conn) {
            self.see_off(conn, request);
            return Verdict::Stay;
        }
        self.reply(conn, Response::Ack { id: request.id.map(Box::from) });
        let command = &request.command;
        self.metrics.commands[command.index()] += 1;
        let (name, at) = (command.name(), self.clock.wall);
        self.records.track(conn, || ConnectionChange::Command { name, at });
        let outcome = self.check(conn, command).and_then(|()| {
            let changes_before = self.effects.changes.len();
            let (entropy, effects) = (&mut *self.entropy, &mut self.effects);
            let outcome = self.store.apply(conn, command, &mut Act { now: at, entropy, effects });
            self.quotas.note(conn, &self.effects.changes[changes_before..]);
            outcome
        });
        // Their sessions have changed with the batch, and must go with it if it fails.
        self.participants.append(&mut self.effects.orphans);
        self.held.extend(self.effects.replies.drain(..));
        match outcome {
            Ok(()) => {
                self.note_bind(conn, command);
                self.count_done(command);
                Verdict::Stay
            }
            Err(refusal) => {
                self.metrics.errors.add(refusal.label());
                if let Some(limit) = Limit::of_refusal(&refusal) {
                    self.note_limit(limit);
                }
                self.permissions.note_refusal(command, &refusal, self.clock.instant);
                let verdict = verdict_on(&refusal);
                let orig = Orig::Command(text.into());
                self.reply(conn, Response::Error { refusal: refusal.into(), orig });
                verdict
            }
        }
    }

    /// Answers one who was refused to bind and is about to be closed. Python's client shows why
    /// only after a `released` to its `release` and a `closed` to its `close`, for which it comes
    /// back again and again. What else came with the `bind` is passed over, as after any close.
    fn see_off(&mut self, conn: ConnId, request: &Request<'_>) {
        let answer = match &request.command {
            Command::Release { .. } => Response::Released,
            Command::Close { .. } => Response::Closed,
            _ => return,
        };
        self.reply(conn, Response::Ack { id: request.id.map(Box::from) });
        self.reply(conn, answer);
    }

    /// What may stand against a command besides the protocol's own rules.
    fn check(&mut self, conn: ConnId, command: &Command<'_>) -> Result<(), Refusal> {
        let tells_state = matches!(command, Command::List);
        if self.storage.is_degraded()
            && (command.changes_state() || tells_state && !self.store.is_loaded())
        {
            return Err(Refusal::StorageUnavailable);
        }
        let now = self.clock.instant;
        match command {
            Command::SubmitPermissions { proof, .. } => {
                self.permissions.submit(conn, proof).map_err(Refusal::PermissionDenied)
            }
            Command::Bind { .. } if self.draining && !self.store.is_bound(conn) => {
                Err(Refusal::Draining(Rc::clone(&self.live.drain.message)))
            }
            Command::Bind { .. } => self.permissions.check_bind(conn),
            Command::Allocate => self.quotas.allocate(conn, now),
            Command::Claim { nameplate: Field::Text(name), allocate } => {
                let never_creates =
                    self.config.claim_without_allocate && *allocate == Flag::Set(false);
                let creates = !never_creates && !self.store.has_nameplate(conn, name);
                self.quotas.claim(conn, creates, now)
            }
            _ => Ok(()),
        }
    }

    fn note_bind(&mut self, conn: ConnId, command: &Command<'_>) {
        if let Command::Bind { side: Field::Text(side), client_version, .. } = command {
            self.permissions.forget(conn);
            self.records.track(conn, || ConnectionChange::Bound {
                side: (&**side).into(),
                implementation: client_version.implementation.clone(),
                version: client_version.version.clone(),
            });
        }
    }

    fn reply(&mut self, conn: ConnId, response: Response) {
        self.held.push(conn, Output::Response(response));
    }

    /// The `welcome` object for a peer; with an `error` instead of the operator's if there is more
    /// to say.
    fn welcome(&self, peer: Peer, demand: Option<&Demand>, notice: Option<&str>) -> Box<str> {
        let error = match notice {
            Some(notice) => notice,
            None if self.draining => &self.live.drain.message,
            None if self.storage.is_degraded() => DEGRADED_WELCOME,
            None => return json::welcome(&self.live.welcome, demand, peer.ip, peer.port),
        };
        let welcome = Welcome { error: Some(error.to_owned()), ..self.live.welcome.clone() };
        json::welcome(&welcome, demand, peer.ip, peer.port)
    }
}

/// Whom a refusal costs the connection: those who would otherwise go on trying.
fn verdict_on(refusal: &Refusal) -> Verdict {
    match refusal {
        Refusal::PermissionDenied(_) => {
            Verdict::Close(Farewell::NotPermitted, CloseReason::NotPermitted)
        }
        Refusal::PermissionRequired => {
            Verdict::CloseSoon(Farewell::NotPermitted, CloseReason::NotPermitted)
        }
        _ => Verdict::Stay,
    }
}

/// The answer to a connection that its address has no quota for.
fn rejection(exceeded: QuotaExceeded) -> Rejection {
    match exceeded {
        QuotaExceeded::Connections => Rejection::new(
            Status::TooManyRequests(TOO_MANY_RETRY_SECONDS),
            "too many connections from your address at once, close some",
        ),
        QuotaExceeded::ConnectRate { retry_after } => Rejection::new(
            Status::TooManyRequests(whole_seconds(retry_after)),
            "too many new connections from your address, slow down",
        ),
    }
}
