//! All clients' connections: reading and sending, deadlines, and what they hold together.
//!
//! Carries a connection's events to the engine, and the engine's verdicts back.

use std::collections::VecDeque;
use std::iter;
use std::ops::ControlFlow::{Break, Continue};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use mio::Registry;
use mio::event::Event;

use super::meter::Meter;
use super::read_queue::{ReadQueue, Weight};
use super::shedding::largest_first;
use super::timers::Timers;
use crate::engine::Engine;
use crate::limits::{self, SHARE_BYTES_PER_TICK_MAX};
use crate::message::handover::ConnectionRecord;
use crate::message::{CloseReason, ConnId, ConnMap, Event as Incoming, Outputs, Prefix};
use crate::net::connection::{Connection, ConnectionSettings, Context, Input, Progress, Times};
use crate::net::outbox::{Delivered, Sent, WriteBuffers};
use crate::net::socket;
use crate::sorted::sorted;
use crate::storage::Committed;
use crate::storage::held::{self, Released};
use crate::sys::clock::{Clock, Stopwatch};

/// All clients' connections.
#[derive(Debug)]
pub struct Connections {
    slots: ConnMap<Box<Slot>>,
    pub settings: ConnectionSettings,
    accounting: Accounting,
    /// Connections to read in this tick, or in the next.
    readable: ReadQueue,
    /// Connections that are only kept until they have read why they were rejected.
    pub rejected: usize,
    /// Measures what reading each connection takes.
    stopwatch: Stopwatch,
    input: Input,
    output: WriteBuffers,
}

/// A connection, and what the server keeps about it.
#[derive(Debug)]
struct Slot {
    conn: ConnId,
    connection: Connection,
    /// The addresses with which it shares its part of a tick; none if it is exempt or unknown.
    network: Option<Prefix>,
    /// Its deadline in the timers.
    armed: Option<Instant>,
    /// Its part of the accounting's `buffered_bytes`.
    buffered_bytes: usize,
    // The next three spare a search in a list of connections.
    /// Whether it is in `readable`.
    is_readable: bool,
    /// Whether it is in the accounting's `unsent`.
    is_unsent: bool,
    /// Whether it is in the accounting's `closing`.
    is_closing: bool,
    /// Whether it used up its share when it was last read, or half of it by all that there was.
    is_heavy: bool,
    /// Whether it has been silent for too long: it is read once more before it is dropped.
    is_overdue: bool,
    /// Whether it is only kept until it has read why.
    is_rejected: bool,
}

impl Slot {
    /// Sees to it that no output follows a close frame or the last answer.
    fn note_ending(&self, engine: &mut Engine) {
        if self.connection.is_ending() {
            engine.end_session(self.conn);
        }
    }

    /// Queues it for reading, unless it is queued already.
    fn queue(&mut self, readable: &mut ReadQueue) {
        if std::mem::replace(&mut self.is_readable, true) {
            return;
        }
        // The end of a long message takes as long as all of it: to decode and to answer.
        let ends_long_message = self.buffered_bytes > SHARE_BYTES_PER_TICK_MAX;
        let weight = if self.is_heavy || ends_long_message || self.connection.is_lingering() {
            Weight::Heavy
        } else if self.connection.is_opening() {
            Weight::Opening
        } else {
            Weight::Light
        };
        readable.push(self.conn, self.network, weight);
    }

    /// Tells the connection that it has bound. In time for its deadlines is early enough.
    fn note_bound(&mut self, engine: &Engine) {
        if engine.is_bound(self.conn) {
            self.connection.note_bound();
        }
    }
}

/// Deadlines, queues and sums over all connections.
#[derive(Debug, Default)]
struct Accounting {
    timers: Timers,
    /// Sum of the connections' unfinished input and waiting output, without large messages.
    buffered_bytes: usize,
    /// Connections with released output whose sockets may take more, in turn.
    unsent: VecDeque<ConnId>,
    /// Connections to reap at the end of the tick.
    closing: Vec<(ConnId, CloseReason)>,
}

impl Connections {
    pub fn new(settings: ConnectionSettings) -> Connections {
        Connections {
            slots: ConnMap::default(),
            settings,
            accounting: Accounting::default(),
            readable: ReadQueue::default(),
            rejected: 0,
            stopwatch: Stopwatch::start(),
            input: Input::default(),
            output: WriteBuffers::default(),
        }
    }

    /// All connections, rejected ones included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Connections that may stay.
    pub fn admitted(&self) -> usize {
        self.slots.len() - self.rejected
    }

    /// Connections that have something to read and have not been through their handshake.
    pub fn opening(&self) -> usize {
        self.readable.opening()
    }

    /// Counts of what all sockets together have taken.
    pub fn delivered(&self) -> Delivered {
        self.output.delivered()
    }

    /// Whether there is work that needs no event.
    pub fn has_leftovers(&self) -> bool {
        !self.readable.is_empty() || self.has_unsent()
    }

    /// Whether output waits for the next tick.
    pub fn has_unsent(&self) -> bool {
        !self.accounting.unsent.is_empty()
    }

    /// The earliest deadline of a connection.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.accounting.timers.next()
    }

    /// Adds a connection, whose socket is registered with the poll. `is_rejected`: it is only kept
    /// until it has read why.
    pub fn insert(
        &mut self,
        conn: ConnId,
        connection: Connection,
        network: Option<Prefix>,
        is_rejected: bool,
    ) {
        self.rejected += usize::from(is_rejected);
        let mut slot = Slot {
            conn,
            connection,
            network,
            armed: None,
            buffered_bytes: 0,
            is_readable: false,
            is_unsent: false,
            is_closing: false,
            is_heavy: false,
            is_overdue: false,
            is_rejected,
        };
        self.accounting.update(&mut slot, &self.settings);
        if slot.connection.has_unread() {
            slot.queue(&mut self.readable);
        }
        self.slots.insert(conn, Box::new(slot));
    }

    /// The connections in a state that cannot be handed over.
    pub fn unsettled(&self) -> Vec<ConnId> {
        let slots = self.slots.iter().filter(|(_, slot)| slot.connection.is_unsettled());
        slots.map(|(conn, _)| *conn).collect()
    }

    /// All connections in the order of their numbers.
    pub fn numbers(&self) -> Vec<ConnId> {
        sorted(self.slots.keys().copied())
    }

    /// The connections to hand over, in the order of their numbers: as many as have no more than
    /// that much output waiting in all, those with the least first.
    pub fn with_least_output(&self, bytes_max: usize) -> Vec<ConnId> {
        let waiting = self.slots.iter();
        let waiting = waiting.map(|(conn, slot)| (slot.connection.waiting_bytes(), *conn));
        let waiting = sorted(waiting);
        let mut bytes_left = bytes_max;
        let fits = |(bytes, conn): (usize, ConnId)| {
            bytes_left = bytes_left.checked_sub(bytes)?;
            Some(conn)
        };
        sorted(waiting.into_iter().map_while(fits))
    }

    /// The record of a connection; see [`Connection::export`].
    pub fn export(
        &mut self,
        conn: ConnId,
        engine: &Engine,
        times: &Times,
    ) -> Option<ConnectionRecord> {
        let slot = self.slots.get_mut(&conn)?;
        let state = engine.export(conn);
        let limits = &self.settings.limits;
        let connection = &mut slot.connection;
        let record = connection.export(conn, slot.is_rejected, state, times, limits);
        self.accounting.update(slot, &self.settings);
        Some(record)
    }

    /// The connection's socket, to be handed over.
    pub fn descriptor(&self, conn: ConnId) -> Option<BorrowedFd<'_>> {
        self.slots.get(&conn).map(|slot| slot.connection.socket().as_fd())
    }

    /// Takes note of an event of the poll.
    pub fn note_event(&mut self, conn: ConnId, event: &Event) {
        // It may have ended earlier in this very batch of events.
        let Some(slot) = self.slots.get_mut(&conn) else { return };
        let is_end = event.is_read_closed() || event.is_error();
        if event.is_readable() || is_end {
            slot.connection.note_readable(is_end);
            slot.queue(&mut self.readable);
        }
        if event.is_writable() && slot.connection.has_output() {
            self.accounting.note_unsent(slot);
        }
    }

    /// Reads the connections that are readable, until the tick has enough in hand.
    pub fn read_all(&mut self, now: Instant, engine: &mut Engine) {
        self.readable.begin_tick();
        // What a connection costs matters to those that wait for it.
        self.stopwatch = match self.readable.len() {
            0 | 1 => Stopwatch::start(),
            _ => Stopwatch::start_with_cpu(),
        };
        self.read_queued(now, engine);
    }

    /// Goes on with what the poll has reported since, within what is left of the tick.
    pub fn read_more(&mut self, now: Instant, engine: &mut Engine) {
        self.readable.resume_tick();
        self.stopwatch.skip();
        self.read_queued(now, engine);
    }

    fn read_queued(&mut self, now: Instant, engine: &mut Engine) {
        while let Some(conn) = self.readable.next() {
            self.read(conn, now, engine);
        }
    }

    fn read(&mut self, conn: ConnId, now: Instant, engine: &mut Engine) {
        let Some(slot) = self.slots.get_mut(&conn).filter(|slot| !slot.is_closing) else { return };
        let (connection, input, settings) = (&mut slot.connection, &mut self.input, &self.settings);
        let meter = Meter::start(engine);
        connection.begin_read(input, &settings.limits);
        let progress = loop {
            let in_tick = &mut context(conn, now, settings, engine);
            let event = match connection.next_event(input, in_tick) {
                Continue(event) => event,
                Break(progress) => break progress,
            };
            let names_peer = matches!(event, Incoming::ProxiedPeer(_) | Incoming::Upgrade { .. });
            let decision = engine.handle(conn, event);
            connection.apply(decision, &mut context(conn, now, settings, engine));
            if names_peer {
                slot.network = engine.network_of(conn);
            }
            if meter.is_share_used(engine) {
                input.use_up_share();
            }
        };
        connection.end_read(input, &mut context(conn, now, settings, engine));
        engine.metrics.received_bytes += input.bytes() as u64;
        // Input after the last answer is thrown away.
        let share = if connection.is_lingering() { limits::THROWN_AWAY_DIVISOR } else { 1 };
        let input_bytes = input.bytes() / share + input.frames() * limits::FRAME_BYTES_IN_TICK;
        let used_bytes = meter.used_bytes(input_bytes, &mut self.stopwatch, engine);
        self.readable.note_used(slot.network, used_bytes);
        slot.is_readable = false;
        slot.is_heavy = progress == Progress::More || used_bytes >= SHARE_BYTES_PER_TICK_MAX / 2;
        let is_overdue = std::mem::take(&mut slot.is_overdue);
        match progress {
            Progress::Drained => {}
            Progress::More => slot.queue(&mut self.readable),
            Progress::Gone(reason) => self.accounting.close_later(slot, reason),
        }
        slot.note_ending(engine);
        self.accounting.update(slot, settings);
        if is_overdue && !slot.is_closing {
            slot.note_bound(engine);
            self.handle_deadline(conn, now, engine);
        }
        self.shed_load();
    }

    /// Sends what waits, released in earlier ticks, to the sockets that can take more: each in
    /// turn, up to this tick's share.
    pub fn send_unsent(&mut self, clock: Clock) {
        if !self.has_unsent() {
            return;
        }
        // The tick's own time may be long past: it has taken note of its events since.
        self.output.begin_round(Instant::now());
        for _ in 0..self.accounting.unsent.len() {
            if self.output.is_round_over() {
                break;
            }
            let Some(conn) = self.accounting.unsent.pop_front() else { break };
            if let Some(slot) = self.slots.get_mut(&conn) {
                slot.is_unsent = false;
                self.send(conn, iter::empty(), clock);
            }
        }
    }

    /// Hands released output to the sockets; `clock`: the time of this.
    pub fn release(&mut self, committed: Committed, clock: Clock, outputs: &mut Outputs) {
        self.output.begin_round(clock.instant);
        held::release(outputs, committed, |conn, own| self.send(conn, own, clock));
        self.output.trim();
    }

    fn send(&mut self, conn: ConnId, outputs: impl Iterator<Item = Released>, clock: Clock) {
        // It may have ended earlier in this tick.
        let Some(slot) = self.slots.get_mut(&conn) else { return };
        let limits = &self.settings.limits;
        self.output.begin_turn(slot.is_unsent);
        match slot.connection.send(outputs, clock, &mut self.output, limits) {
            Ok(Sent::More) => self.accounting.note_unsent(slot),
            Ok(Sent::All | Sent::Blocked | Sent::Ended) => {}
            Err(reason) => self.accounting.discard(slot, reason),
        }
        self.accounting.update(slot, &self.settings);
        self.shed_load();
    }

    /// Handles the deadlines that are due.
    pub fn run_timers(&mut self, now: Instant, engine: &mut Engine) {
        while let Some(conn) = self.accounting.timers.pop_due(now) {
            let Some(slot) = self.slots.get_mut(&conn) else { continue };
            slot.armed = None;
            if slot.is_closing {
                continue;
            }
            slot.note_bound(engine);
            if slot.connection.is_silent_too_long(&self.settings, now) {
                // A sign of life may have come, and not have been read.
                slot.is_overdue = true;
                slot.queue(&mut self.readable);
            } else {
                self.handle_deadline(conn, now, engine);
            }
        }
    }

    fn handle_deadline(&mut self, conn: ConnId, now: Instant, engine: &mut Engine) {
        let Some(slot) = self.slots.get_mut(&conn) else { return };
        match slot.connection.handle_deadline(&mut context(conn, now, &self.settings, engine)) {
            Some(reason) => self.accounting.close_later(slot, reason),
            None => self.accounting.update(slot, &self.settings),
        }
        slot.note_ending(engine);
    }

    /// Moves all deadlines: the server stood still for that time.
    pub fn postpone_deadlines(&mut self, standstill: Duration) {
        self.slots.values_mut().for_each(|slot| slot.connection.postpone_deadlines(standstill));
    }

    /// Begins to close a connection.
    pub fn close(&mut self, conn: ConnId, reason: CloseReason, now: Instant, engine: &mut Engine) {
        let Some(slot) = self.slots.get_mut(&conn) else { return };
        slot.connection.close(reason, &mut context(conn, now, &self.settings, engine));
        slot.note_ending(engine);
        self.accounting.update(slot, &self.settings);
    }

    /// From now on a tick sends one message of a replay at most.
    pub fn replay_slowly(&mut self) {
        self.output.replays_slowly = true;
    }

    /// Cuts a connection without a close frame.
    pub fn cut(&mut self, conn: ConnId) {
        if let Some(slot) = self.slots.get_mut(&conn) {
            self.accounting.close_later(slot, CloseReason::PeerReset);
        }
    }

    /// Begins to close all connections, in the order of their numbers.
    pub fn close_all(&mut self, reason: CloseReason, now: Instant, engine: &mut Engine) {
        for conn in self.numbers() {
            self.close(conn, reason, now, engine);
        }
    }

    fn buffered_bytes(&self) -> usize {
        self.accounting.buffered_bytes + self.output.large_bytes()
    }

    /// When all connections together buffer too much, drops some of the largest holders. Walks over
    /// all of them, but only then.
    fn shed_load(&mut self) {
        let bytes_max = self.settings.limits.buffered_bytes_max;
        if self.buffered_bytes() <= bytes_max {
            return;
        }
        let claims = self.slots.iter().filter(|(_, slot)| !slot.is_closing);
        let claims = claims.map(|(conn, it)| (*conn, it.network, it.connection.claimed_bytes()));
        for conn in largest_first(claims.filter(|(_, _, bytes)| *bytes > 0).collect()) {
            let Some(slot) = self.slots.get_mut(&conn) else { continue };
            self.accounting.discard(slot, CloseReason::Shed);
            self.accounting.update(slot, &self.settings);
            if self.buffered_bytes() <= bytes_max - bytes_max / limits::SHED_DIVISOR {
                break;
            }
        }
    }

    /// Drops the connections that are over; the engine forgets them.
    pub fn reap(&mut self, registry: &Registry, engine: &mut Engine) {
        for (conn, reason) in std::mem::take(&mut self.accounting.closing) {
            let Some(mut slot) = self.slots.remove(&conn) else { continue };
            socket::deregister(slot.connection.socket(), registry);
            self.accounting.timers.disarm(conn, &mut slot.armed);
            self.accounting.buffered_bytes -= slot.buffered_bytes;
            self.rejected -= usize::from(slot.is_rejected);
            engine.disconnect(conn, reason);
        }
    }
}

/// A connection's part in a tick.
pub fn context<'a>(
    conn: ConnId,
    now: Instant,
    settings: &'a ConnectionSettings,
    engine: &'a mut Engine,
) -> Context<'a> {
    Context { conn, now, settings, outputs: engine.outputs_mut() }
}

impl Accounting {
    /// Brings a connection's deadline and its part of the buffered bytes up to date.
    fn update(&mut self, slot: &mut Slot, settings: &ConnectionSettings) {
        // Activity only moves a deadline later, which shows when it comes up.
        if slot.connection.take_deadline_change() || slot.armed.is_none() {
            let deadline = slot.connection.deadline(settings);
            self.timers.arm(slot.conn, &mut slot.armed, deadline);
        }
        let buffered_bytes = slot.connection.buffered_bytes();
        self.buffered_bytes = self.buffered_bytes - slot.buffered_bytes + buffered_bytes;
        slot.buffered_bytes = buffered_bytes;
    }

    /// Notes that a connection has output that its socket may take.
    fn note_unsent(&mut self, slot: &mut Slot) {
        if !slot.is_unsent {
            slot.is_unsent = true;
            self.unsent.push_back(slot.conn);
        }
    }

    /// Frees what a connection buffers, and marks it for reaping.
    fn discard(&mut self, slot: &mut Slot, reason: CloseReason) {
        slot.connection.discard_buffers(reason);
        self.close_later(slot, reason);
    }

    /// Marks a connection for reaping; the first reason counts.
    fn close_later(&mut self, slot: &mut Slot, reason: CloseReason) {
        if !slot.is_closing {
            slot.is_closing = true;
            self.closing.push((slot.conn, reason));
        }
    }
}
