//! The tick: sleep, read, apply, commit, release (see the crate page).
//!
//! Owns the poll and all sockets, and is the only reader of the clock. Knows no JSON, SQL or
//! frames; what is behind the sockets is `engine`'s. `arrivals` has who comes and who goes.

mod accept;
pub mod service_manager;
pub mod signals;
mod timers;

use std::cmp::Reverse;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use log::info;
use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

use crate::admin::{Admin, ServerView};
use crate::config::{Config, reload};
use crate::engine::Engine;
use crate::limits;
use crate::message::close::{CloseReason, Farewell};
use crate::message::{ConnId, ConnMap};
use crate::net::connection::{Connection, Intake, Progress};
use crate::net::listeners::Listeners;
use crate::net::outbox::{Scratch, Sent};
use crate::server::service_manager::Notifier;
use crate::server::signals::Signals;
use crate::server::timers::Timers;
use crate::storage::Committed;
use crate::sys::clock::{Clock, Timestamp};

/// The signal stream's token; listeners come after it, then connections by their numbers.
const SIGNALS: Token = Token(0);
const FIRST_LISTENER: usize = 1;

/// A running server.
#[derive(Debug)]
pub struct Server {
    config: Rc<Config>,
    engine: Engine,
    poll: Poll,
    signals: Signals,
    listeners: Listeners,
    connections: ConnMap<Box<Slot>>,
    ledger: Ledger,
    /// The service manager, if there is one.
    notifier: Option<Notifier>,
    clock: Clock,
    /// What operators see, if they may look.
    admin: Option<Box<Admin>>,
    /// Operators' connections that wait for an answer of this tick.
    asked: Vec<ConnId>,
    /// Connections to read, unasked: their share of a tick was used up.
    leftovers: Vec<ConnId>,
    /// Shared by all connections: input on its way in, output on its way out.
    input: Intake,
    output: Scratch,
    /// Connections that are being told why they cannot stay.
    refused: usize,
    /// Connections of operators.
    operators: usize,
    first_conn: u64,
    next_conn: u64,
    /// While stopping: when the connections have had their time.
    stop_by: Option<Instant>,
    /// While draining: when it has taken long enough.
    drain_by: Option<Instant>,
}

/// What is kept of all connections together.
#[derive(Debug, Default)]
struct Ledger {
    timers: Timers,
    /// Sum of what the connections hold of unfinished input and waiting output.
    buffered_bytes: usize,
    /// Connections with released output that the socket may yet take, unasked.
    unsent: Vec<ConnId>,
    /// Connections to reap at the end of the tick, and why.
    doomed: Vec<(ConnId, CloseReason)>,
}

/// A connection, and what the server remembers of it.
#[derive(Debug)]
struct Slot {
    connection: Connection,
    /// Where its deadline stands in the timers.
    armed: Option<Instant>,
    /// Its share of the server's `buffered_bytes`.
    buffered_bytes: usize,
    /// It waits to be read, in this tick or as a leftover; once, however often it is told of.
    queued: bool,
    doomed: bool,
    /// It is only told why it cannot stay, and counts apart.
    is_refused: bool,
}

impl Server {
    /// Registers everything with a new poll.
    pub fn new(
        config: Rc<Config>,
        engine: Engine,
        mut listeners: Listeners,
        mut signals: Signals,
        notifier: Option<Notifier>,
        admin: Option<Admin>,
    ) -> io::Result<Server> {
        let poll = Poll::new()?;
        poll.registry().register(signals.stream_mut(), SIGNALS, Interest::READABLE)?;
        let first_conn = listeners.register(poll.registry(), FIRST_LISTENER)? as u64;
        Ok(Server {
            config,
            engine,
            poll,
            signals,
            listeners,
            connections: ConnMap::default(),
            ledger: Ledger::default(),
            notifier,
            clock: Clock::read(),
            admin: admin.map(Box::new),
            asked: Vec::new(),
            leftovers: Vec::new(),
            input: Intake::default(),
            output: Scratch::default(),
            refused: 0,
            operators: 0,
            first_conn,
            next_conn: first_conn,
            stop_by: None,
            drain_by: None,
        })
    }

    /// Serves until a signal, then leaves the files clean.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(limits::EVENTS_PER_TICK_MAX);
        self.notify(); // everything is ready
        while !self.is_stopped() {
            self.tick(&mut events)?;
        }
        self.engine.close();
        Ok(())
    }

    fn tick(&mut self, events: &mut Events) -> io::Result<()> {
        match self.poll.poll(events, Some(self.sleep_limit())) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => outcome?,
        }
        self.clock = Clock::read();
        self.engine.begin_tick(self.clock);

        for conn in std::mem::take(&mut self.ledger.unsent) {
            self.send(conn, self.clock.wall);
        }
        let mut readable = std::mem::take(&mut self.leftovers);
        for event in events.iter() {
            self.note_event(event, &mut readable);
        }
        for conn in readable {
            if self.engine.held_bytes() < limits::TICK_BYTES_MAX {
                self.read(conn);
            } else {
                self.leftovers.push(conn); // enough for one tick
            }
        }
        self.run_timers();
        self.end_drain_if_due();
        self.accept();

        let committed = self.commit();
        self.answer_operators();
        self.release(committed);
        self.shed_load();
        self.reap();
        self.output.trim();
        self.engine.end_tick(events.is_empty());
        self.notify();
        let clients = self.clients();
        if let Some(admin) = &mut self.admin {
            admin.note_tick(self.clock, clients, &self.engine);
        }
        Ok(())
    }

    /// Tells the service manager how things are, and that the loop turns.
    fn notify(&mut self) {
        let connections = self.clients();
        if let Some(notifier) = &mut self.notifier {
            let engine = &self.engine;
            notifier.update(self.clock, engine.is_degraded(), || engine.health(connections));
        }
    }

    /// How long the poll may sleep.
    fn sleep_limit(&self) -> Duration {
        let has_leftovers = !self.leftovers.is_empty()
            || !self.ledger.unsent.is_empty()
            || self.engine.has_leftovers()
            || self.is_drained()
            || self.listeners.has_leftovers();
        if has_leftovers {
            return Duration::ZERO;
        }
        let deadlines = [
            self.engine.next_deadline(),
            self.ledger.timers.next(),
            self.listeners.retry_at(),
            self.notifier.as_ref().and_then(Notifier::next_deadline),
            self.stop_by,
            self.admin.as_ref().map(|admin| admin.next_bucket()),
            self.drain_by,
        ];
        let now = Instant::now();
        let mut limit = limits::SLEEP_MAX;
        for deadline in deadlines.into_iter().flatten() {
            limit = limit.min(deadline.saturating_duration_since(now));
        }
        if self.engine.wants_idle_time() {
            limit = limit.min(limits::CHECKPOINT_IDLE);
        }
        limit
    }

    fn note_event(&mut self, event: &Event, readable: &mut Vec<ConnId>) {
        if event.token() == SIGNALS {
            self.obey_signals();
            return;
        }
        let number = event.token().0 as u64;
        if number < self.first_conn {
            self.listeners.set_ready(event.token().0 - FIRST_LISTENER);
            return;
        }
        let conn = ConnId(number);
        // A connection may have ended earlier in this very batch of events.
        let Some(slot) = self.connections.get_mut(&conn) else { return };
        let is_end = event.is_read_closed() || event.is_error();
        if event.is_readable() || is_end {
            slot.connection.note_readable(is_end);
            if !slot.queued {
                slot.queued = true;
                readable.push(conn);
            }
        }
        if event.is_writable() && slot.connection.has_output() {
            self.send(conn, self.clock.wall); // what is there was released in earlier ticks
        }
    }

    fn read(&mut self, conn: ConnId) {
        let Server { connections, ledger, config, input, clock, engine, .. } = self;
        let Some(slot) = connections.get_mut(&conn).filter(|slot| !slot.doomed) else { return };
        slot.queued = false;
        match slot.connection.read(input, clock.instant, &config.limits, engine) {
            Progress::Drained => {}
            Progress::More => {
                slot.queued = true;
                self.leftovers.push(conn);
            }
            Progress::Gone(reason) => slot.doom(conn, reason, ledger),
        }
        if slot.connection.question().is_some() {
            self.asked.push(conn);
        }
        slot.settle(conn, config, ledger);
    }

    /// Gives a connection's socket what it takes of the released output.
    fn send(&mut self, conn: ConnId, server_tx: Timestamp) {
        let Server { connections, ledger, config, output, .. } = self;
        if let Some(slot) = connections.get_mut(&conn) {
            let outcome = slot.connection.send(server_tx, output, &config.limits);
            slot.note_sending(conn, outcome, config, ledger);
        }
    }

    fn run_timers(&mut self) {
        while let Some(conn) = self.ledger.timers.pop_due(self.clock.instant) {
            let Server { connections, ledger, config, clock, engine, .. } = self;
            let Some(slot) = connections.get_mut(&conn) else { continue };
            slot.armed = None;
            let Config { limits, pings, .. } = &**config;
            match slot.connection.handle_deadline(clock.instant, limits, pings, engine) {
                Some(reason) => slot.doom(conn, reason, ledger),
                None => slot.settle(conn, config, ledger),
            }
        }
        self.engine.run_timers();
    }

    /// Commits the tick's batch; or, when that fails, closes those who took part in it.
    fn commit(&mut self) -> Committed {
        loop {
            match self.try_commit() {
                Ok(committed) => return committed,
                // Their farewells change nothing, so the next round has nothing to commit.
                Err(participants) => {
                    for conn in participants {
                        self.close(conn, Farewell::TryAgainLater, CloseReason::StorageFailed);
                    }
                }
            }
        }
    }

    /// One try, timed if somebody watches.
    fn try_commit(&mut self) -> Result<Committed, Vec<ConnId>> {
        let changes = self.engine.batch_len();
        let Some(admin) = self.admin.as_mut().filter(|_| changes > 0) else {
            return self.engine.commit();
        };
        let began = Instant::now();
        let outcome = self.engine.commit();
        admin.note_commit(began.elapsed().as_secs_f64(), changes);
        outcome
    }

    /// Answers what operators asked in this tick. After the commit, so that all they are told of
    /// is in the database.
    fn answer_operators(&mut self) {
        let connections = self.clients();
        for conn in std::mem::take(&mut self.asked) {
            let (Some(admin), Some(slot)) = (&self.admin, self.connections.get_mut(&conn)) else {
                continue;
            };
            let Some(question) = slot.connection.question() else { continue };
            let view = ServerView {
                config: &self.config,
                engine: &self.engine,
                clock: self.clock,
                connections,
                delivered: self.output.delivered(),
            };
            let answer = admin.answer(question, view);
            slot.connection.answer(answer, self.clock.instant, &mut self.engine);
            slot.settle(conn, &self.config, &mut self.ledger);
        }
    }

    fn release(&mut self, committed: Committed) {
        // Read anew: it is the time at which messages leave.
        let server_tx = Clock::read().wall;
        let Server { connections, ledger, config, output: scratch, engine, .. } = self;
        let mut outputs = engine.release(committed).peekable();
        while let Some(conn) = outputs.peek().map(|(conn, _)| *conn) {
            let own = std::iter::from_fn(|| outputs.next_if(|(next, _)| *next == conn));
            let own = own.map(|(_, output)| output);
            match connections.get_mut(&conn) {
                Some(slot) => {
                    let limits = &config.limits;
                    let outcome = slot.connection.release(own, server_tx, scratch, limits);
                    slot.note_sending(conn, outcome, config, ledger);
                }
                None => own.for_each(drop), // it ended in this tick
            }
        }
    }

    /// When all connections together hold too much, drops those that hold most. Walks over all
    /// of them, but only then.
    fn shed_load(&mut self) {
        let Server { connections, ledger, config, .. } = self;
        let bytes_max = config.limits.buffered_bytes_max;
        if ledger.buffered_bytes <= bytes_max {
            return;
        }
        let holders = connections.iter_mut().filter(|(_, slot)| slot.buffered_bytes > 0);
        let mut holders: Vec<(ConnId, &mut Box<Slot>)> =
            holders.map(|(conn, slot)| (*conn, slot)).collect();
        holders.sort_unstable_by_key(|(conn, slot)| Reverse((slot.buffered_bytes, *conn)));
        let mut left = ledger.buffered_bytes;
        for (conn, slot) in holders {
            if left <= bytes_max {
                break;
            }
            left -= slot.buffered_bytes;
            slot.doom(conn, CloseReason::Shed, ledger);
        }
    }

    fn close(&mut self, conn: ConnId, farewell: Farewell, reason: CloseReason) {
        let Server { connections, ledger, config, clock, engine, .. } = self;
        let Some(slot) = connections.get_mut(&conn) else { return };
        slot.connection.close(farewell, reason, clock.instant, &config.limits, engine);
        slot.settle(conn, config, ledger);
    }

    /// Does what signals ask for; a server that stops has nothing else to do.
    fn obey_signals(&mut self) {
        let asked = self.signals.take();
        if asked.stop {
            self.begin_stop();
        }
        if self.stop_by.is_some() {
            return;
        }
        if asked.reload {
            self.reload();
        }
        if asked.drain && self.drain_by.is_none() {
            self.drain_by = Some(self.engine.begin_drain());
        }
    }

    fn reload(&mut self) {
        if let Some(notifier) = &mut self.notifier {
            notifier.reloading();
        }
        if let Some(live) = reload::again(&self.config) {
            self.engine.set_live(live);
        }
    }

    fn is_drained(&self) -> bool {
        self.drain_by.is_some() && self.engine.is_drained()
    }

    /// Stops when a drain has nobody left to wait for, or has taken long enough.
    fn end_drain_if_due(&mut self) {
        if self.is_drained() || self.drain_by.is_some_and(|by| by <= self.clock.instant) {
            self.engine.end_drain();
            self.begin_stop();
        }
    }

    fn begin_stop(&mut self) {
        if self.stop_by.is_some() {
            return;
        }
        self.drain_by = None;
        info!("stopping: {} connections are told", self.connections.len());
        if let Some(notifier) = &mut self.notifier {
            notifier.stopping();
        }
        self.stop_by = Some(self.clock.instant + limits::SHUTDOWN);
        self.listeners = Listeners::default();
        let all: Vec<ConnId> = self.connections.keys().copied().collect();
        for conn in all {
            self.close(conn, Farewell::GoingAway, CloseReason::GoingAway);
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop_by.is_some_and(|by| self.connections.is_empty() || by <= self.clock.instant)
    }
}

impl Slot {
    fn note_sending(
        &mut self,
        conn: ConnId,
        outcome: Result<Sent, CloseReason>,
        config: &Config,
        ledger: &mut Ledger,
    ) {
        match outcome {
            Ok(Sent::More) => ledger.unsent.push(conn),
            Ok(_) => {}
            Err(reason) => self.doom(conn, reason, ledger),
        }
        self.settle(conn, config, ledger);
    }

    /// After something happened to the connection: brings its deadline and its share of the
    /// buffers up to date.
    fn settle(&mut self, conn: ConnId, config: &Config, ledger: &mut Ledger) {
        // Activity only moves a deadline later, which it will see when it comes up.
        if self.armed.is_none() || self.connection.take_phase_change() {
            let deadline = self.connection.deadline(&config.limits, &config.pings);
            ledger.timers.arm(conn, &mut self.armed, deadline);
        }
        let buffered_bytes = self.connection.buffered_bytes();
        ledger.buffered_bytes = ledger.buffered_bytes - self.buffered_bytes + buffered_bytes;
        self.buffered_bytes = buffered_bytes;
    }

    /// Marks it for reaping; only the first reason counts.
    fn doom(&mut self, conn: ConnId, reason: CloseReason, ledger: &mut Ledger) {
        if !std::mem::replace(&mut self.doomed, true) {
            ledger.doomed.push((conn, reason));
        }
    }
}
