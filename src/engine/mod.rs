//! Everything behind the sockets: what a connection's events come to, and how a tick ends.
//!
//! The one place where `json`, `store` and the files meet: event → command → store → effects, then
//! commit or undo. Knows connections by number only; must never touch a socket, nor read a clock:
//! the time comes in with each tick.

pub mod client_programs;
mod commands;
mod events;
mod handover;
pub mod limit_log;
pub mod members;
pub mod metrics;
mod observing;
pub mod permission;
pub mod quotas;
mod timers;
mod trouble;

use std::collections::HashSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use crate::config::Config;
use crate::config::reloadable::Reloadable;
use crate::config::trouble::Trouble;
use crate::engine::client_programs::ClientPrograms;
use crate::engine::members::Memberships;
use crate::engine::metrics::Metrics;
use crate::engine::permission::{AttackChange, Permissions};
use crate::engine::quotas::Quotas;
use crate::engine::timers::{Timer, TimerTable};
use crate::limits;
use crate::message::{CHECK_APP, CloseReason, ConnId, Holder, Outputs, Prefix};
use crate::sorted::sorted;
use crate::storage::db::{AddridDb, Current};
use crate::storage::records::Records;
use crate::storage::{Committed, Storage, Undone};
use crate::store::{Act, Change, Effects, Row, Store, UsageRecord};
use crate::sys::clock::{Clock, Seconds, Timestamp};
use crate::sys::entropy::Entropy;
use crate::sys::logging::{debug, info, warn};
use limit_log::{Limit, LimitLog};

/// State, files, and what this tick has caused.
pub struct Engine {
    config: Rc<Config>,
    /// Those that a reload may change.
    settings: Reloadable,
    /// Nothing may begin any more; what exists goes on, and may be joined.
    draining: bool,
    store: Store,
    storage: Storage,
    records: Records,
    quotas: Quotas,
    permissions: Permissions,
    memberships: Memberships,
    /// Connections from outside of `--allocate-from`.
    outsiders: HashSet<ConnId>,
    /// Connections that got a notice, and are about to be closed.
    sent_away: HashSet<ConnId>,
    /// Connections that could not leave what they hold because the storage is unavailable.
    kept_from_leaving: HashSet<ConnId>,
    pub limit_log: LimitLog,
    /// Proxies that the log has named; none is a unix socket.
    proxies_named: Vec<Option<IpAddr>>,
    /// Counters since the start, also of what happens before a connection reaches the engine.
    pub metrics: Metrics,
    /// Binds by client program; counted only with an admin listener.
    pub client_programs: Option<Box<ClientPrograms>>,
    entropy: Box<dyn Entropy>,
    clock: Clock,
    /// From here the time for the rules of the store is counted.
    origin: Clock,
    /// All that this tick has caused, not yet committed.
    effects: Effects,
    timers: TimerTable,
    /// Trouble that this tick's commands have made due; none but in tests of clients.
    trouble: Vec<(Trouble, ConnId)>,
    /// There are more mailboxes to check, or messages of ended ones to delete.
    is_deleting: bool,
    started: Clock,
    /// The time of the start by the wall clock as it is set now.
    pub rebooted: Timestamp,
}

impl Engine {
    /// Puts the parts together. [`Engine::run_first_check`] must come before the first tick.
    pub fn new(
        config: Rc<Config>,
        settings: Reloadable,
        store: Store,
        storage: Storage,
        records: Records,
        entropy: Box<dyn Entropy>,
        clock: Clock,
    ) -> Engine {
        let mut engine = Engine {
            quotas: Quotas::new(config.limits.clone()),
            permissions: Permissions::new(config.permission, clock.instant),
            memberships: Memberships::default(),
            config,
            settings,
            draining: false,
            store,
            storage,
            records,
            outsiders: HashSet::new(),
            sent_away: HashSet::new(),
            kept_from_leaving: HashSet::new(),
            limit_log: LimitLog::default(),
            proxies_named: Vec::new(),
            metrics: Metrics::default(),
            client_programs: None,
            entropy,
            clock,
            origin: clock,
            effects: Effects::default(),
            timers: TimerTable::default(),
            trouble: Vec::new(),
            is_deleting: true,
            started: clock,
            rebooted: clock.wall,
        };
        engine.pass_settings_on();
        engine.timers.set(Timer::ExpiryCheck, clock.instant);
        engine.timers.set(Timer::AddressSweep, clock.instant);
        engine
    }

    /// Runs the first expiry check to its end.
    pub fn run_first_check(&mut self) {
        while self.is_deleting {
            self.run_timers();
            self.commit_alone();
        }
        self.records.flush(self.storage.db_mut());
        self.arm_flush();
    }

    /// Begins a tick, all of which happens at this time.
    pub fn begin_tick(&mut self, clock: Clock) {
        self.clock = clock;
        self.quotas.charge_joins(clock.instant);
        // While nothing can be written, memory must go on as the file is.
        if let Some(step) = self.origin.step(clock).filter(|_| !self.is_degraded()) {
            self.shift_times(step);
        }
    }

    /// The wall clock was set: what is stored keeps its age, in memory and in the file.
    fn shift_times(&mut self, seconds: Seconds) {
        warn!("the clock was set by {seconds:.0} s: what is stored keeps its age");
        self.effects.changes.push(Change::ShiftTimes { seconds });
        self.commit_alone();
        if !self.is_degraded() {
            self.store.shift_times(seconds);
            self.origin = self.clock;
            self.rebooted = self.rebooted + seconds;
        }
    }

    /// The time for the rules of the store.
    fn now(&self) -> Timestamp {
        self.origin.steady_time(self.clock)
    }

    /// Whether there is work that will not wait for an event.
    pub fn has_leftovers(&self) -> bool {
        self.is_deleting
    }

    /// When a tick must begin next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.timers.next(),
            self.records.addresses.as_ref().map(AddridDb::ends),
            self.permissions.attack.ends_at(),
            self.storage.checkpoint_retry_at(),
            self.limit_log.report_at(self.clock.instant),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Does what is due, and the next slice of an expiry check.
    pub fn run_timers(&mut self) {
        let now = self.clock.instant;
        if let Some(ids) = &mut self.records.addresses {
            ids.renew_if_due(self.clock);
        }
        if self.limit_log.report_at(now).is_some_and(|due| due <= now) {
            self.limit_log.report(now);
        }
        while let Some(timer) = self.timers.pop_due(now) {
            self.handle_timer(timer);
        }
        let changes_before = self.effects.changes.len();
        let is_checking = self.store.continue_expiry(&mut Act {
            now: self.origin.steady_time(self.clock),
            wall: self.clock.wall,
            entropy: &mut *self.entropy,
            effects: &mut self.effects,
            may_begin: false,
        });
        let has_remains = !self.is_degraded() && self.store.end_tick(&mut self.effects);
        self.is_deleting = is_checking || has_remains;
        self.quotas.note_endings(&self.effects.changes[changes_before..]);
        self.update_attack();
    }

    fn handle_timer(&mut self, timer: Timer) {
        let now = self.clock.instant;
        match timer {
            Timer::StorageRetry => {
                self.storage.recover(&mut self.store, self.origin.steady_time(self.clock));
                if self.storage.is_degraded() {
                    self.timers.set(Timer::StorageRetry, now + limits::STORAGE_RETRY);
                } else {
                    self.quotas.note_reload(&self.store);
                    // The file may be another one.
                    self.timers.set(Timer::Flush, now);
                    // What was noted in memory meanwhile is written.
                    self.timers.set(Timer::ExpiryCheck, now);
                }
            }
            Timer::StorageQuiet => self.storage.db_mut().release_memory(),
            Timer::AddressSweep => {
                self.timers.set(Timer::AddressSweep, now + limits::ADDRESSES_SWEEP);
                self.quotas.sweep(now);
                self.permissions.sources.sweep(now);
            }
            Timer::ExpiryCheck => {
                let next_check = self.clock.after(self.config.expire_check);
                self.timers.set(Timer::ExpiryCheck, next_check);
                self.begin_expiry_check();
            }
            Timer::Flush => self.records.flush(self.storage.db_mut()),
        }
    }

    fn arm_flush(&mut self) {
        if !self.timers.is_set(Timer::Flush) && !self.records.is_written() {
            self.timers.set(Timer::Flush, self.clock.instant + limits::RECORDS_FLUSH);
        }
    }

    fn begin_expiry_check(&mut self) {
        if !self.timers.is_set(Timer::Flush) {
            // Even if nothing is to be written, it looks whether the files are at their paths.
            self.timers.set(Timer::Flush, self.clock.instant + limits::RECORDS_FLUSH);
        }
        if let Some(usage) = &mut self.records.usage {
            usage.set_current(Current {
                rebooted: self.rebooted,
                updated: self.clock.wall,
                blur_time: self.config.rules.blur,
                connections_websocket: self.store.counts().subscriptions,
            });
        }
        if self.is_degraded() {
            self.store.note_subscribers(self.now());
        } else {
            self.store.begin_expiry(self.now());
        }
    }

    /// Whether the channel database cannot be written (manual: durability 3).
    pub fn is_degraded(&self) -> bool {
        self.storage.is_degraded()
    }

    /// Logs it when an attack begins or ends.
    fn update_attack(&mut self) {
        match self.permissions.attack.update(self.clock.instant) {
            Some(AttackChange::Began) => {
                warn!("under attack: proof of work is demanded from now on");
            }
            Some(AttackChange::Ended) => {
                info!("the attack is over: proof of work is not demanded any more");
            }
            None => {}
        }
    }

    /// This tick's output so far. Pings, close frames and HTTP answers are put there directly.
    pub fn outputs_mut(&mut self) -> &mut Outputs {
        &mut self.effects.outputs
    }

    /// Bytes of output that wait for the commit.
    pub fn held_bytes(&self) -> usize {
        self.effects.outputs.bytes()
    }

    /// The addresses with which a connection shares its limits; none if it is exempt or unknown.
    pub fn network_of(&self, conn: ConnId) -> Option<Prefix> {
        self.quotas.holder_of(conn).map(Holder::network)
    }

    /// Commits the tick's changes. If that fails, the tick is undone: memory goes back to what the
    /// database holds, and the tick's participants are to be closed. Returns the connections to be
    /// closed, and why.
    pub fn commit(&mut self) -> (Committed, Vec<(ConnId, CloseReason)>) {
        let now = self.clock.instant;
        if !self.effects.changes.is_empty() {
            self.timers.set(Timer::StorageQuiet, now + limits::STORAGE_QUIET);
        }
        let is_message = |it: &&Change| matches!(it, Change::Insert(Row::Message { .. }));
        let messages = self.effects.changes.iter().filter(is_message).count();
        let (committed, undone) = self.storage.commit(&mut self.effects);
        self.quotas.update_accounting(undone.is_none(), now);
        self.memberships.update_counts(undone.is_none());
        if let Some(Undone { participants }) = undone {
            self.timers.set(Timer::StorageRetry, now + limits::STORAGE_RETRY);
            self.undo(&participants);
            let closings = participants.iter().map(|conn| (*conn, CloseReason::StorageFailed));
            return (committed, closings.collect());
        }
        self.metrics.messages_stored += messages as u64;
        if !self.effects.usage.is_empty() {
            let hostile = std::mem::take(&mut self.effects.hostile_endings);
            self.permissions.note_hostile_endings(&hostile, now);
            self.update_attack();
            self.note_usage();
        }
        for _ in 0..std::mem::take(&mut self.effects.evicted_count) {
            self.limit_log.hit(Limit::Evicted);
        }
        let mut closings = std::mem::take(&mut self.effects.closings);
        if !self.is_degraded() {
            // Python's client waits for the answer, and asks again on another connection.
            let waiting = sorted(self.kept_from_leaving.drain()).into_iter();
            closings.extend(waiting.map(|conn| (conn, CloseReason::StorageFailed)));
        }
        (committed, closings)
    }

    /// Commits changes of the server itself, between two ticks: no output waits for the proof, and
    /// no connection takes part.
    fn commit_alone(&mut self) {
        let (_, closings) = self.commit();
        debug_assert!(closings.is_empty() && self.effects.outputs.is_empty());
    }

    /// Counts the ends and binds of a committed tick, but those of `check`, and hands over their
    /// records; of one address up to a bound an hour.
    fn note_usage(&mut self) {
        let now = self.clock.instant;
        for (record, origin) in self.effects.usage.drain(..) {
            if record.app() != CHECK_APP {
                self.metrics.count_end(&record);
                if let Some(programs) = &mut self.client_programs
                    && let UsageRecord::ClientVersion { implementation, version, .. } = &record
                {
                    // Setting the wall clock moves no hour.
                    let at = self.started.steady_time(self.clock);
                    programs.count(implementation.as_deref(), version.as_deref(), at, 1);
                }
            }
            let Some(usage) = &mut self.records.usage else { continue };
            if self.quotas.may_record(&record, origin, now) {
                usage.push(record);
            } else {
                self.limit_log.hit(Limit::AddressRecords);
            }
        }
    }

    fn undo(&mut self, participants: &[ConnId]) {
        self.metrics.commits_failed += 1;
        self.is_deleting = false;
        for conn in participants {
            self.store.disconnect(*conn);
            self.kept_from_leaving.remove(conn);
        }
        // If that fails as well, the next try to recover tells why.
        _ = self.storage.load(&mut self.store, self.origin.steady_time(self.clock));
    }

    /// Must be called at the end of each tick, after reaping. `is_idle`: it had neither events nor
    /// leftovers.
    pub fn end_tick(&mut self, is_idle: bool) {
        self.effects.end_tick();
        self.arm_flush();
        self.storage.checkpoint_if_due(self.clock.instant, is_idle);
    }

    /// Whether the loop should wake soon to see that it is idle.
    pub fn wants_idle_time(&self) -> bool {
        self.storage.wants_checkpoint()
    }

    /// Ends the session of a connection that is being closed: it gets no messages any more, and
    /// makes room for another of its side.
    pub fn end_session(&mut self, conn: ConnId) {
        self.store.disconnect(conn);
    }

    /// Forgets a connection that is gone. What is stored stays as it is.
    pub fn disconnect(&mut self, conn: ConnId, reason: CloseReason) {
        self.store.disconnect(conn);
        self.quotas.disconnect(conn);
        self.permissions.demands.remove(&conn);
        self.outsiders.remove(&conn);
        self.sent_away.remove(&conn);
        self.memberships.connections.remove(&conn);
        self.kept_from_leaving.remove(&conn);
        if let Some(connections) = &mut self.records.connections {
            connections.remove(conn);
        }
        self.metrics.ended.add(reason.name());
        if let Some(limit) = Limit::of_close(reason) {
            self.limit_log.hit(limit);
        }
        if self.logs_connections() {
            debug!("{conn}: gone, {reason:?}");
        }
    }

    /// Replaces the settings that a reload may change.
    pub fn replace_settings(&mut self, settings: Reloadable) {
        self.store.set_listing(settings.list);
        self.settings = settings;
        self.pass_settings_on();
    }

    /// Passes on the settings that other parts keep.
    fn pass_settings_on(&mut self) {
        let Reloadable { exempt, onion_networks, members, .. } = &self.settings;
        self.quotas.set_networks(exempt.clone(), onion_networks.clone());
        self.memberships.set(members.as_ref());
    }

    /// Lets nothing begin any more; returns the time at which the drain ends at the latest.
    pub fn begin_drain(&mut self) -> Instant {
        self.draining = true;
        let seconds = self.settings.drain.seconds;
        info!(
            "draining: {} mailboxes have up to {seconds} s, no new ones are created",
            self.stored().mailboxes
        );
        self.clock.after(seconds)
    }

    /// Whether a drain has no mailbox left to wait for. Without its storage the server does not
    /// know, nor before the commit.
    pub fn is_drained(&self) -> bool {
        let is_known = self.store.is_loaded() && self.effects.changes.is_empty();
        self.draining && is_known && self.stored().mailboxes == 0
    }

    /// Logs what a drain has left.
    pub fn end_drain(&self) {
        info!("drained: {} mailboxes are left", self.stored().mailboxes);
    }

    fn logs_connections(&self) -> bool {
        self.config.rules.blur.is_none()
    }

    fn logs_addresses(&self) -> bool {
        self.logs_connections() && self.config.addrid_db.is_none()
    }

    /// Writes what waits and leaves the files clean.
    pub fn close(mut self) {
        self.limit_log.report_rest(self.clock.instant);
        self.records.close(self.storage.db_mut());
        self.storage.close();
        info!("stopped");
    }
}
