//! The tick: sleep, read, apply, commit, release (see the crate page).
//!
//! Owns the poll and all sockets, and reads the clock for all. Knows no JSON, SQL or frames: what
//! is behind the sockets is the engine's.

mod accept;
mod admin_connections;
mod connections;
pub mod inheritance;
mod meter;
mod read_queue;
pub mod service_manager;
mod shedding;
pub mod signals;
mod stages;
mod takeover;
mod timers;
mod trouble;

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use crate::admin::{Admin, ServerView};
use crate::config::Config;
use crate::engine::Engine;
use crate::limits;
use crate::message::ConnId;
use crate::net::connection::ConnectionSettings;
use crate::net::listeners::Listeners;
use crate::server::admin_connections::AdminConnections;
use crate::server::connections::Connections;
use crate::server::service_manager::{Health, Notifier};
use crate::server::signals::Signals;
use crate::server::stages::Stage;
use crate::storage::Committed;
use crate::sys::clock::Clock;
use crate::sys::program::Program;

/// Tokens from the top: the signals, and below them room for 65,535 listeners. All others are the
/// numbers of connections. Where a token has 32 bits, they last for 4 billion connections, 16
/// months at 100 a second; a restart begins anew, a takeover does not.
const SIGNALS: Token = Token(usize::MAX);
const FIRST_LISTENER: usize = usize::MAX - u16::MAX as usize;

/// A running server.
pub struct Server {
    config: Rc<Config>,
    engine: Box<Engine>,
    poll: Poll,
    signals: Signals,
    listeners: Listeners,
    connections: Connections,
    admin_connections: AdminConnections,
    /// None without a service manager.
    notifier: Option<Notifier>,
    /// State of the admin listener; none without `--admin`.
    admin: Option<Box<Admin>>,
    clock: Clock,
    stage: Stage,
    /// The program at whose path the next one is looked for.
    program: Program,
    /// The number of the next connection.
    next_conn: u64,
}

impl Server {
    /// Registers everything with a new poll. If that fails, the files are left clean.
    pub fn new(
        config: Rc<Config>,
        engine: Box<Engine>,
        listeners: Listeners,
        mut signals: Signals,
        notifier: Option<Notifier>,
        admin: Option<Admin>,
    ) -> io::Result<Server> {
        let poll = match new_poll(&mut signals, &listeners) {
            Ok(poll) => poll,
            Err(error) => {
                engine.close();
                return Err(error);
            }
        };
        let mut connections = Connections::new(ConnectionSettings {
            limits: config.limits.clone(),
            pings: config.pings,
            address_header: config.address_header,
            origins: config.origins.clone(),
        });
        if config.troubles.replay_pause().is_some() {
            connections.replay_slowly();
        }
        Ok(Server {
            config,
            engine,
            poll,
            signals,
            listeners,
            connections,
            admin_connections: AdminConnections::default(),
            notifier,
            admin: admin.map(Box::new),
            clock: Clock::read(),
            stage: Stage::Serving,
            program: Program::current(),
            next_conn: 1,
        })
    }

    /// Serves until a signal, then leaves the files clean.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(limits::EVENTS_PER_TICK_MAX);
        self.notify(); // everything is ready
        while !self.is_stopped() {
            self.tick(&mut events)?;
        }
        if let Stage::Left = self.stage {
            self.listeners.leave_files();
            self.engine.leave_connections();
        }
        self.engine.close();
        Ok(())
    }

    fn tick(&mut self, events: &mut Events) -> io::Result<()> {
        let (began, sleep) = (self.clock.instant, self.sleep_limit());
        self.wait(events, sleep)?;
        self.clock = Clock::read();
        self.engine.begin_tick(self.clock);
        let standstill = (self.clock.instant - began).saturating_sub(sleep);
        if standstill >= limits::STANDSTILL_MIN {
            self.connections.postpone_deadlines(standstill);
        }

        let is_idle = events.is_empty() && !sleep.is_zero();
        self.note_events(events);
        self.connections.send_unsent(self.clock);
        self.accept_admins();
        self.admin_connections.read(self.clock.instant, &self.config.limits);
        self.connections.read_all(self.clock.instant, &mut self.engine);
        self.gather(events)?;
        self.run_timers();
        self.close_late_for_takeover();
        self.end_drain_if_due();
        self.accept();
        let pause = self.cause_trouble();

        let committed = self.commit();
        self.answer_admins();
        // The clock is read again: it is the time at which messages leave.
        self.connections.release(committed, Clock::read(), self.engine.outputs_mut());
        self.connections.reap(self.poll.registry(), &mut self.engine);
        self.admin_connections.reap(self.poll.registry());
        self.engine.end_tick(is_idle);
        self.stand_still(pause);
        self.notify();
        if let Some(admin) = &mut self.admin {
            admin.note_tick(self.clock, self.connections.admitted(), &self.engine);
        }
        self.advance_takeover();
        Ok(())
    }

    /// Waits for events; a signal ends the wait.
    fn wait(&mut self, events: &mut Events, timeout: Duration) -> io::Result<()> {
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
            outcome => outcome?,
        }
        Ok(())
    }

    /// Sends the service manager what is due.
    fn notify(&mut self) {
        let Some(notifier) = &mut self.notifier else { return };
        let stored = self.engine.stored();
        let health = Health {
            connections: self.connections.admitted(),
            nameplates: stored.nameplates,
            mailboxes: stored.mailboxes,
            is_degraded: self.engine.is_degraded(),
        };
        notifier.update(self.clock, health);
    }

    /// How long the poll may sleep.
    fn sleep_limit(&self) -> Duration {
        let has_leftovers = self.connections.has_leftovers()
            || self.admin_connections.has_leftovers()
            || self.engine.has_leftovers()
            || self.is_drained()
            || self.listeners.has_leftovers();
        if has_leftovers {
            return Duration::ZERO;
        }
        let deadlines = [
            self.engine.next_deadline(),
            self.connections.next_deadline(),
            self.admin_connections.next_deadline(&self.config.limits),
            self.listeners.retry_at(),
            self.notifier.as_ref().and_then(Notifier::next_deadline),
            self.admin.as_ref().map(|admin| admin.next_bucket()),
            self.stage.next_deadline(self.clock.instant),
        ];
        let mut limit = limits::SLEEP_MAX;
        if let Some(deadline) = deadlines.into_iter().flatten().min() {
            limit = limit.min(deadline.saturating_duration_since(Instant::now()));
        }
        if self.engine.wants_idle_time() {
            limit = limit.min(limits::CHECKPOINT_IDLE);
        }
        limit
    }

    /// Adds to the tick what has come in meanwhile, if it waits for the disk in any case.
    fn gather(&mut self, events: &mut Events) -> io::Result<()> {
        if self.engine.batch_len() == 0 {
            return Ok(());
        }
        self.wait(events, Duration::ZERO)?;
        self.note_events(events);
        self.connections.read_more(self.clock.instant, &mut self.engine);
        Ok(())
    }

    fn note_events(&mut self, events: &Events) {
        for event in events {
            match event.token() {
                SIGNALS => self.handle_signals(),
                Token(FIRST_LISTENER..) => {
                    self.listeners.set_ready(event.token().0 - FIRST_LISTENER);
                }
                Token(number) => {
                    let conn = ConnId(number as u64);
                    self.connections.note_event(conn, event);
                    self.admin_connections.note_event(conn, event);
                }
            }
        }
    }

    fn run_timers(&mut self) {
        self.connections.run_timers(self.clock.instant, &mut self.engine);
        self.admin_connections.run_timers(self.clock.instant, &self.config.limits);
        self.engine.run_timers();
    }

    /// Commits the tick, and closes the connections that it ends; if the commit fails, all that
    /// took part.
    fn commit(&mut self) -> Committed {
        let changes = self.engine.batch_len();
        let began = (self.admin.is_some() && changes > 0).then(Instant::now);
        let (committed, closings) = self.engine.commit();
        if let (Some(admin), Some(began)) = (&mut self.admin, began) {
            admin.timings.note_commit(began.elapsed().as_secs_f64(), changes);
        }
        for (conn, reason) in closings {
            self.connections.close(conn, reason, self.clock.instant, &mut self.engine);
        }
        committed
    }

    /// Answers the requests to the admin listener. After the commit, so that all that the answers
    /// show is in the database.
    fn answer_admins(&mut self) {
        let Some(admin) = &self.admin else { return };
        let view = ServerView {
            config: &self.config,
            engine: &self.engine,
            clock: self.clock,
            connections: self.connections.admitted(),
            delivered: self.connections.delivered(),
        };
        let answer_to = |question: &_| admin.answer(question, view);
        self.admin_connections.answer(self.clock.instant, answer_to);
    }
}

/// A poll with the signals and the listeners.
fn new_poll(signals: &mut Signals, listeners: &Listeners) -> io::Result<Poll> {
    let poll = Poll::new()?;
    poll.registry().register(&mut signals.stream, SIGNALS, Interest::READABLE)?;
    listeners.register(poll.registry(), FIRST_LISTENER)?;
    Ok(poll)
}
