//! All clients' connections: reading and sending, deadlines, and what they hold together.
//!
//! Carries a connection's events to the engine, and the engine's verdicts back.

use std::cmp::Reverse;
use std::iter;
use std::time::Instant;

use mio::Registry;
use mio::event::Event;

use super::timers::Timers;
use crate::engine::Engine;
use crate::limits;
use crate::message::close::CloseReason;
use crate::message::output::Outputs;
use crate::message::{ConnId, ConnMap};
use crate::net::connection::{Connection, Context, Input, Progress, Settings};
use crate::net::outbox::{Delivered, Sent, WriteBuffers};
use crate::storage::Committed;
use crate::storage::held::{self, Released};
use crate::sys::clock::Timestamp;

/// All clients' connections.
#[derive(Debug)]
pub struct Connections {
    slots: ConnMap<Box<Slot>>,
    settings: Settings,
    accounting: Accounting,
    /// Connections to read in this tick, or in the next: those whose share was used up come first.
    readable: Vec<ConnId>,
    /// Connections that are only kept until they have read why they were rejected.
    rejected: usize,
    input: Input,
    output: WriteBuffers,
}

/// A connection, and what the server keeps about it.
#[derive(Debug)]
struct Slot {
    connection: Connection,
    /// Its deadline in the timers.
    armed: Option<Instant>,
    /// Its part of the accounting's `buffered_bytes`.
    buffered_bytes: usize,
    /// It is in `readable`.
    is_readable: bool,
    /// It is in the accounting's `closing`.
    is_closing: bool,
    is_rejected: bool,
}

/// What is kept of all connections together.
#[derive(Debug, Default)]
struct Accounting {
    timers: Timers,
    /// Sum of the connections' unfinished input and waiting output.
    buffered_bytes: usize,
    /// Connections with released output whose sockets may take more.
    unsent: Vec<ConnId>,
    /// Connections to reap at the end of the tick.
    closing: Vec<(ConnId, CloseReason)>,
}

impl Connections {
    pub fn new(settings: Settings) -> Connections {
        Connections {
            slots: ConnMap::default(),
            settings,
            accounting: Accounting::default(),
            readable: Vec::new(),
            rejected: 0,
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

    pub fn rejected(&self) -> usize {
        self.rejected
    }

    /// What all sockets together have taken.
    pub fn delivered(&self) -> Delivered {
        self.output.delivered()
    }

    /// Whether there is work that needs no event.
    pub fn has_leftovers(&self) -> bool {
        !self.readable.is_empty() || !self.accounting.unsent.is_empty()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.accounting.timers.next()
    }

    pub fn insert(&mut self, conn: ConnId, connection: Connection, is_rejected: bool) {
        self.rejected += usize::from(is_rejected);
        let mut slot = Slot {
            connection,
            armed: None,
            buffered_bytes: 0,
            is_readable: false,
            is_closing: false,
            is_rejected,
        };
        self.accounting.update(conn, &mut slot, &self.settings);
        self.slots.insert(conn, Box::new(slot));
    }

    /// A connection's part in a tick, for what happens outside of reading.
    pub fn context<'a>(
        &'a self,
        conn: ConnId,
        now: Instant,
        engine: &'a mut Engine,
    ) -> Context<'a> {
        context(conn, now, &self.settings, engine)
    }

    /// Takes note of an event of the poll, and sends what the socket can take again.
    pub fn note_event(&mut self, conn: ConnId, event: &Event, server_tx: Timestamp) {
        // It may have ended earlier in this very batch of events.
        let Some(slot) = self.slots.get_mut(&conn) else { return };
        let is_end = event.is_read_closed() || event.is_error();
        if event.is_readable() || is_end {
            slot.connection.note_readable(is_end);
            if !slot.is_readable {
                slot.is_readable = true;
                self.readable.push(conn);
            }
        }
        if event.is_writable() && slot.connection.has_output() {
            self.send(conn, iter::empty(), server_tx); // what waits was released in earlier ticks
        }
    }

    /// Reads the connections that are readable, until the tick's output is enough.
    pub fn read_all(&mut self, now: Instant, engine: &mut Engine) {
        for conn in std::mem::take(&mut self.readable) {
            if engine.held_bytes() < limits::TICK_BYTES_MAX {
                self.read(conn, now, engine);
            } else {
                self.readable.push(conn);
            }
        }
    }

    fn read(&mut self, conn: ConnId, now: Instant, engine: &mut Engine) {
        let Some(slot) = self.slots.get_mut(&conn).filter(|slot| !slot.is_closing) else { return };
        let (connection, input, settings) = (&mut slot.connection, &mut self.input, &self.settings);
        connection.begin_read(input, &settings.limits);
        while let Some(event) =
            connection.next_event(input, &mut context(conn, now, settings, engine))
        {
            let decision = engine.handle(conn, event);
            connection.apply(decision, &mut context(conn, now, settings, engine));
        }
        let progress = connection.end_read(input, &mut context(conn, now, settings, engine));
        engine.count_received(input.take_received_bytes());
        slot.is_readable = progress == Progress::More;
        match progress {
            Progress::Drained => {}
            Progress::More => self.readable.push(conn),
            Progress::Gone(reason) => self.accounting.close_later(conn, slot, reason),
        }
        self.accounting.update(conn, slot, settings);
    }

    /// Sends what was left over because a turn's share was used up.
    pub fn send_unsent(&mut self, server_tx: Timestamp) {
        for conn in std::mem::take(&mut self.accounting.unsent) {
            self.send(conn, iter::empty(), server_tx);
        }
    }

    /// Hands released output to the sockets.
    pub fn release(&mut self, committed: Committed, server_tx: Timestamp, outputs: &mut Outputs) {
        held::release(outputs, committed, |conn, own| self.send(conn, own, server_tx));
        self.output.trim();
    }

    fn send(
        &mut self,
        conn: ConnId,
        outputs: impl Iterator<Item = Released>,
        server_tx: Timestamp,
    ) {
        // It may have ended earlier in this tick.
        let Some(slot) = self.slots.get_mut(&conn) else { return };
        let limits = &self.settings.limits;
        match slot.connection.send(outputs, server_tx, &mut self.output, limits) {
            Ok(Sent::More) => self.accounting.unsent.push(conn),
            Ok(Sent::All | Sent::Blocked | Sent::Ended) => {}
            Err(reason) => self.accounting.close_later(conn, slot, reason),
        }
        self.accounting.update(conn, slot, &self.settings);
    }

    /// Handles the deadlines that are due.
    pub fn run_timers(&mut self, now: Instant, engine: &mut Engine) {
        while let Some(conn) = self.accounting.timers.pop_due(now) {
            let Some(slot) = self.slots.get_mut(&conn) else { continue };
            slot.armed = None;
            let is_bound = engine.is_bound(conn);
            let mut context = context(conn, now, &self.settings, engine);
            match slot.connection.handle_deadline(is_bound, &mut context) {
                Some(reason) => self.accounting.close_later(conn, slot, reason),
                None => self.accounting.update(conn, slot, &self.settings),
            }
        }
    }

    /// Begins to close a connection.
    pub fn close(&mut self, conn: ConnId, reason: CloseReason, now: Instant, engine: &mut Engine) {
        let Some(slot) = self.slots.get_mut(&conn) else { return };
        slot.connection.close(reason, &mut context(conn, now, &self.settings, engine));
        self.accounting.update(conn, slot, &self.settings);
    }

    pub fn close_all(&mut self, reason: CloseReason, now: Instant, engine: &mut Engine) {
        for (conn, slot) in &mut self.slots {
            slot.connection.close(reason, &mut context(*conn, now, &self.settings, engine));
            self.accounting.update(*conn, slot, &self.settings);
        }
    }

    /// When all connections together buffer too much, closes those that buffer the most. Walks over
    /// all of them, but only then.
    pub fn shed_load(&mut self) {
        let bytes_max = self.settings.limits.buffered_bytes_max;
        let mut left = self.accounting.buffered_bytes;
        if left <= bytes_max {
            return;
        }
        let holders = self.slots.iter_mut().filter(|(_, slot)| slot.buffered_bytes > 0);
        let mut holders: Vec<_> = holders.collect();
        holders.sort_unstable_by_key(|(conn, slot)| Reverse((slot.buffered_bytes, **conn)));
        for (conn, slot) in holders {
            if left <= bytes_max {
                break;
            }
            left -= slot.buffered_bytes;
            self.accounting.close_later(*conn, slot, CloseReason::Shed);
        }
    }

    /// Drops the connections that are over; the engine forgets them.
    pub fn reap(&mut self, registry: &Registry, engine: &mut Engine) {
        for (conn, reason) in std::mem::take(&mut self.accounting.closing) {
            let Some(mut slot) = self.slots.remove(&conn) else { continue };
            // Fails only if the kernel has forgotten the socket, which is as good.
            _ = registry.deregister(slot.connection.socket_mut());
            self.accounting.timers.disarm(conn, &mut slot.armed);
            self.accounting.buffered_bytes -= slot.buffered_bytes;
            self.rejected -= usize::from(slot.is_rejected);
            engine.disconnect(conn, reason);
        }
    }
}

fn context<'a>(
    conn: ConnId,
    now: Instant,
    settings: &'a Settings,
    engine: &'a mut Engine,
) -> Context<'a> {
    Context { conn, now, settings, outputs: engine.outputs_mut() }
}

impl Accounting {
    /// Brings a connection's deadline and its part of the buffered bytes up to date.
    fn update(&mut self, conn: ConnId, slot: &mut Slot, settings: &Settings) {
        // Activity only moves a deadline later, which shows when it comes up.
        if slot.armed.is_none() || slot.connection.take_phase_change() {
            let deadline = slot.connection.deadline(settings);
            self.timers.arm(conn, &mut slot.armed, deadline);
        }
        let buffered_bytes = slot.connection.buffered_bytes();
        self.buffered_bytes = self.buffered_bytes - slot.buffered_bytes + buffered_bytes;
        slot.buffered_bytes = buffered_bytes;
    }

    /// Marks a connection for reaping; the first reason counts.
    fn close_later(&mut self, conn: ConnId, slot: &mut Slot, reason: CloseReason) {
        if !slot.is_closing {
            slot.is_closing = true;
            self.closing.push((conn, reason));
        }
    }
}
