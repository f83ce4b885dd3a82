//! The tick: sleep, read, apply, commit, release (see the crate page).
//!
//! Owns everything and is the only reader of clock and entropy. Knows no JSON, SQL or frames.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::{debug, info};
use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

use crate::config::Config;
use crate::conn::{CloseReason, Connection, Progress};
use crate::db::{ConnectionChange, Current};
use crate::dispatch::Dispatch;
use crate::entropy::SystemEntropy;
use crate::held::{Committed, Held};
use crate::limits;
use crate::listeners::{self, Listeners};
use crate::message::{ConnId, Seconds};
use crate::outbox::Scratch;
use crate::records::Records;
use crate::signals::Signals;
use crate::storage::Storage;
use crate::store::{Effects, Store};
use crate::timers::Timers;
use crate::wire::Farewell;

/// The signal stream's token; listeners come after it, then connections by their numbers.
const SIGNALS: Token = Token(0);
const FIRST_LISTENER: usize = 1;

/// What a server is made of.
#[derive(Debug)]
pub struct Parts {
    pub config: Config,
    pub store: Store,
    pub storage: Storage,
    pub records: Records,
    pub listeners: Listeners,
    pub signals: Signals,
    pub entropy: SystemEntropy,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    config: Config,
    poll: Poll,
    signals: Signals,
    listeners: Listeners,
    connections: HashMap<ConnId, Box<Slot>>,
    timers: Timers,
    store: Store,
    storage: Storage,
    records: Records,
    entropy: SystemEntropy,
    batch: Batch,
    work: Work,
    clock: Clock,
    buffers: Buffers,
    next_conn: u64,
    first_conn: u64,
    next_expiry: Instant,
    /// When records that wait are written; none while nothing waits.
    next_flush: Option<Instant>,
    /// While stopping: when the connections have had their time.
    stop_by: Option<Instant>,
    rebooted: Seconds,
}

/// A connection and where its deadline stands in the timers.
#[derive(Debug)]
struct Slot {
    connection: Connection,
    armed: Option<Instant>,
}

/// What this tick has caused and not yet committed.
#[derive(Debug, Default)]
struct Batch {
    effects: Effects,
    held: Held,
    /// Connections whose commands are in it.
    participants: Vec<ConnId>,
}

/// What is left to do, now or at the end of the tick.
#[derive(Debug, Default)]
struct Work {
    /// Connections to read, unasked: their share of a tick was used up.
    leftovers: Vec<ConnId>,
    /// Connections to reap, and why.
    doomed: Vec<(ConnId, CloseReason)>,
    /// An expiry check is in progress.
    expiring: bool,
}

/// The time, read once a tick.
#[derive(Clone, Copy, Debug)]
struct Clock {
    instant: Instant,
    wall: Seconds,
}

impl Clock {
    fn read() -> Clock {
        Clock { instant: Instant::now(), wall: wall_clock() }
    }
}

fn wall_clock() -> Seconds {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Buffers that all connections share.
#[derive(Debug)]
struct Buffers {
    input: Box<[u8]>,
    output: Scratch,
}

impl Server {
    /// Puts the parts together and runs the first expiry check.
    pub fn new(parts: Parts) -> io::Result<Server> {
        let Parts { config, store, storage, records, mut listeners, mut signals, entropy } = parts;
        let poll = Poll::new()?;
        poll.registry().register(signals.stream_mut(), SIGNALS, Interest::READABLE)?;
        let first_conn = listeners.register(poll.registry(), FIRST_LISTENER)? as u64;
        let clock = Clock::read();
        let mut server = Server {
            config,
            poll,
            signals,
            listeners,
            connections: HashMap::new(),
            timers: Timers::default(),
            store,
            storage,
            records,
            entropy,
            batch: Batch::default(),
            work: Work::default(),
            clock,
            buffers: Buffers {
                input: vec![0; limits::READ_BYTES_PER_TICK_MAX].into(),
                output: Scratch::default(),
            },
            next_conn: first_conn,
            first_conn,
            next_expiry: clock.instant,
            next_flush: None,
            stop_by: None,
            rebooted: clock.wall,
        };
        server.run_timers();
        server.commit_and_release();
        server.records.flush(server.storage.db_mut());
        Ok(server)
    }

    /// Serves until a signal, then leaves the files clean.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(limits::EVENTS_PER_TICK_MAX);
        while !self.is_stopped() {
            self.tick(&mut events)?;
        }
        self.records.close(self.storage.db_mut());
        self.storage.close();
        info!("stopped");
        Ok(())
    }

    fn tick(&mut self, events: &mut Events) -> io::Result<()> {
        match self.poll.poll(events, Some(self.sleep_limit())) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
            outcome => outcome?,
        }
        self.clock = Clock::read();

        let mut readable = std::mem::take(&mut self.work.leftovers);
        for event in events.iter() {
            self.note_event(event, &mut readable);
        }
        for conn in readable.drain(..) {
            self.read(conn);
        }
        self.run_timers();
        self.accept();

        self.commit_and_release();
        self.reap();
        self.assert_nothing_left();
        self.storage.checkpoint_if_due(events.is_empty());
        Ok(())
    }

    /// How long the poll may sleep.
    fn sleep_limit(&self) -> Duration {
        if !self.work.leftovers.is_empty() || self.work.expiring || self.listeners.has_leftovers() {
            return Duration::ZERO;
        }
        let deadlines = [
            Some(self.next_expiry),
            self.timers.next(),
            self.next_flush,
            self.storage.retry_at(),
            self.listeners.retry_at(),
            self.stop_by,
        ];
        let now = Instant::now();
        let until = |deadline: Instant| deadline.saturating_duration_since(now);
        let mut limit = Duration::from_secs_f64(limits::SLEEP_SECONDS_MAX);
        for deadline in deadlines.into_iter().flatten() {
            limit = limit.min(until(deadline));
        }
        if self.storage.wants_checkpoint() {
            limit = limit.min(Duration::from_millis(limits::CHECKPOINT_IDLE_MILLISECONDS));
        }
        limit
    }

    fn note_event(&mut self, event: &Event, readable: &mut Vec<ConnId>) {
        if event.token() == SIGNALS {
            if self.signals.take() {
                self.begin_stop();
            }
            return;
        }
        let number = event.token().0 as u64;
        if number < self.first_conn {
            self.listeners.set_ready(event.token().0 - FIRST_LISTENER);
            return;
        }
        let conn = ConnId(number);
        let Some(slot) = self.connections.get_mut(&conn) else { return };
        if event.is_writable() && slot.connection.outbox_bytes() > 0 {
            // Only output released in earlier ticks is there.
            let lost = slot.connection.send(
                self.clock.wall,
                &mut self.buffers.output,
                &self.config.limits,
            );
            self.doom(conn, lost);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            if let Some(slot) = self.connections.get_mut(&conn) {
                slot.connection.note_readable(event.is_read_closed() || event.is_error());
            }
            readable.push(conn);
        }
    }

    fn read(&mut self, conn: ConnId) {
        let Some(slot) = self.connections.get_mut(&conn) else { return };
        if slot.connection.doomed {
            return;
        }
        let mut dispatch = dispatch(
            &mut self.store,
            &mut self.batch,
            &mut self.records,
            &mut self.entropy,
            &self.config,
            &self.storage,
            self.clock,
        );
        let progress = slot.connection.read(
            &mut self.buffers.input,
            self.clock.instant,
            &self.config.limits,
            &mut dispatch,
        );
        let deadline = slot.connection.deadline(&self.config.limits);
        self.timers.arm(conn, &mut slot.armed, deadline);
        match progress {
            Progress::Drained => {}
            Progress::More => self.work.leftovers.push(conn),
            Progress::Gone(reason) => self.doom(conn, Some(reason)),
        }
    }

    /// Marks a connection for reaping, if there is a reason to.
    fn doom(&mut self, conn: ConnId, reason: Option<CloseReason>) {
        if let (Some(reason), Some(slot)) = (reason, self.connections.get_mut(&conn))
            && !slot.connection.doomed
        {
            slot.connection.doomed = true;
            self.work.doomed.push((conn, reason));
        }
    }

    fn run_timers(&mut self) {
        while let Some(conn) = self.timers.pop_due(self.clock.instant) {
            self.run_deadline(conn);
        }
        if let Some(snapshot) = self.storage.recover_if_due(self.clock.instant) {
            self.store.reload(snapshot);
        }
        if self.clock.instant >= self.next_expiry {
            self.next_expiry =
                self.clock.instant + Duration::from_secs_f64(self.config.expire_check);
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
        self.work.expiring = self.store.continue_expiry(&mut self.batch.effects);
    }

    fn run_deadline(&mut self, conn: ConnId) {
        let Some(slot) = self.connections.get_mut(&conn) else { return };
        slot.armed = None;
        let mut dispatch = dispatch(
            &mut self.store,
            &mut self.batch,
            &mut self.records,
            &mut self.entropy,
            &self.config,
            &self.storage,
            self.clock,
        );
        let lost =
            slot.connection.handle_deadline(self.clock.instant, &self.config.limits, &mut dispatch);
        let deadline = slot.connection.deadline(&self.config.limits);
        if lost.is_none() {
            self.timers.arm(conn, &mut slot.armed, deadline);
        }
        self.doom(conn, lost);
    }

    fn accept(&mut self) {
        if self.stop_by.is_some() {
            return;
        }
        let Server { listeners, connections, config, clock, next_conn, poll, timers, .. } = self;
        listeners.accept(limits::ACCEPTS_PER_TICK_MAX, clock.instant, |mut socket, peer| {
            if connections.len() >= config.limits.connections_max {
                listeners::refuse(socket, "too many connections, try again later");
                return;
            }
            let conn = ConnId(*next_conn);
            *next_conn += 1;
            if config.tcp_nodelay && socket.set_nodelay().is_err() {
                return; // the peer is gone already
            }
            let token = Token(conn.0 as usize);
            if poll
                .registry()
                .register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)
                .is_err()
            {
                return; // out of kernel memory: the peer sees a close and comes back
            }
            let connection = Connection::new(conn, socket, peer, clock.instant);
            let mut slot = Box::new(Slot { connection, armed: None });
            let deadline = slot.connection.deadline(&config.limits);
            timers.arm(conn, &mut slot.armed, deadline);
            connections.insert(conn, slot);
        });
    }

    /// Commits the tick's batch and lets its output go; or, when that fails, undoes the tick.
    fn commit_and_release(&mut self) {
        let committed = self.commit();
        let proof = match committed {
            Some(proof) => proof,
            None => {
                self.undo_tick();
                match self.commit() {
                    Some(proof) => proof, // there was nothing to commit
                    None => return,
                }
            }
        };
        self.records.push_usage(&mut self.batch.effects.usage);
        self.batch.participants.clear();
        self.release(proof);
        if self.next_flush.is_none() && !self.records.is_empty() {
            let lag = Duration::from_secs_f64(limits::RECORDS_FLUSH_SECONDS);
            self.next_flush = Some(self.clock.instant + lag);
        }
    }

    fn commit(&mut self) -> Option<Committed> {
        let flush_is_due = self.next_flush.is_some_and(|due| due <= self.clock.instant);
        let connections = self.records.connections().filter(|_| flush_is_due);
        let rides_along = connections.is_some() && !self.batch.effects.changes.is_empty();
        let outcome =
            self.storage.commit(&mut self.batch.effects.changes, connections, self.clock.instant);
        if flush_is_due {
            if rides_along && outcome.is_ok() {
                self.records.connections_written();
            }
            self.records.flush(self.storage.db_mut());
            self.next_flush = None;
        }
        outcome.ok()
    }

    /// Nothing of this tick has left, and nothing will: memory goes back to what the database
    /// holds, and those who took part are told to come back.
    fn undo_tick(&mut self) {
        self.batch.held.discard_messages();
        self.batch.effects = Effects::default();
        for conn in std::mem::take(&mut self.batch.participants) {
            self.store.disconnect(conn);
            self.close(conn, Farewell::TryAgainLater, CloseReason::StorageFailed);
        }
        self.store.reload(self.storage.load().unwrap_or_default());
        self.work.expiring = false;
    }

    fn close(&mut self, conn: ConnId, farewell: Farewell, reason: CloseReason) {
        let Some(slot) = self.connections.get_mut(&conn) else { return };
        let mut dispatch = dispatch(
            &mut self.store,
            &mut self.batch,
            &mut self.records,
            &mut self.entropy,
            &self.config,
            &self.storage,
            self.clock,
        );
        let limits = &self.config.limits;
        slot.connection.close(farewell, reason, self.clock.instant, limits, &mut dispatch);
        let deadline = slot.connection.deadline(limits);
        self.timers.arm(conn, &mut slot.armed, deadline);
    }

    fn release(&mut self, proof: Committed) {
        if self.batch.held.is_empty() {
            return;
        }
        let server_tx = wall_clock();
        let limits = &self.config.limits;
        let mut released = self.batch.held.release(proof).peekable();
        while let Some((conn, output)) = released.next() {
            let Some(slot) = self.connections.get_mut(&conn) else { continue };
            slot.connection.push(output);
            while let Some((_, output)) = released.next_if(|(next, _)| *next == conn) {
                slot.connection.push(output);
            }
            let lost = slot.connection.send(server_tx, &mut self.buffers.output, limits);
            if let Some(reason) = lost
                && !slot.connection.doomed
            {
                slot.connection.doomed = true;
                self.work.doomed.push((conn, reason));
            }
        }
    }

    /// Drops the sockets of connections that are over. The store learns of it here as well: a
    /// disconnect changes nothing that is stored.
    fn reap(&mut self) {
        for (conn, reason) in self.work.doomed.drain(..) {
            let Some(mut slot) = self.connections.remove(&conn) else { continue };
            // Fails only if the kernel has forgotten the socket, which is what we want.
            _ = self.poll.registry().deregister(slot.connection.socket_mut());
            self.timers.disarm(conn, &mut slot.armed);
            self.store.disconnect(conn);
            self.records.track(conn, || ConnectionChange::Lost);
            if self.config.blur_usage.is_none() {
                debug!("{conn}: gone, {reason:?}");
            }
        }
    }

    fn assert_nothing_left(&self) {
        assert!(self.batch.held.is_empty(), "held output outlived its tick");
        assert!(self.batch.effects.changes.is_empty(), "changes outlived their tick");
        assert!(self.work.doomed.is_empty(), "a doomed connection outlived its tick");
    }

    fn begin_stop(&mut self) {
        if self.stop_by.is_some() {
            return;
        }
        info!("stopping: {} connections are told", self.connections.len());
        self.stop_by = Some(self.clock.instant + Duration::from_secs_f64(limits::SHUTDOWN_SECONDS));
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

/// The server's parts that a connection's events act on, apart from the connection itself.
fn dispatch<'a>(
    store: &'a mut Store,
    batch: &'a mut Batch,
    records: &'a mut Records,
    entropy: &'a mut SystemEntropy,
    config: &'a Config,
    storage: &Storage,
    clock: Clock,
) -> Dispatch<'a> {
    Dispatch {
        store,
        effects: &mut batch.effects,
        held: &mut batch.held,
        records,
        entropy,
        config,
        participants: &mut batch.participants,
        degraded: storage.is_degraded(),
        now: clock.wall,
    }
}
