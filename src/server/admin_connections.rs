//! The connections to the admin listener: at most [`limits::ADMIN_CONNECTIONS_MAX`], so each step
//! walks over all of them.

use std::time::Instant;

use mio::Registry;
use mio::event::Event;

use crate::codec::http::Question;
use crate::limits::{self, Limits};
use crate::message::ConnId;
use crate::net::admin_connection::AdminConnection;
use crate::net::socket;

/// All connections to the admin listener.
#[derive(Debug, Default)]
pub struct AdminConnections(Vec<AdminConnection>);

impl AdminConnections {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Makes room for one more: the oldest gives way, of those whose request is not complete, else
    /// of all. What it would have been sent is lost.
    pub fn make_room(&mut self, registry: &Registry) {
        if self.0.len() < limits::ADMIN_CONNECTIONS_MAX {
            return;
        }
        let idle = self.0.iter().position(AdminConnection::is_idle);
        let oldest = self.0.remove(idle.unwrap_or(0));
        socket::deregister(oldest.socket(), registry);
    }

    pub fn insert(&mut self, connection: AdminConnection) {
        self.0.push(connection);
    }

    /// Takes note of an event of the poll, and sends what the socket can take again.
    pub fn note_event(&mut self, conn: ConnId, event: &Event) {
        let Some(connection) = self.0.iter_mut().find(|it| it.conn == conn) else { return };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            connection.note_readable();
        }
        if event.is_writable() {
            connection.write();
        }
    }

    /// Reads the connections that are readable.
    pub fn read(&mut self, now: Instant, limits: &Limits) {
        for connection in self.0.iter_mut().filter(|connection| connection.is_readable()) {
            connection.read(now, limits);
        }
    }

    /// Answers the requests of this tick.
    pub fn answer(&mut self, now: Instant, answer_to: impl Fn(&Question) -> Vec<u8>) {
        for connection in &mut self.0 {
            if let Some(answer) = connection.question().map(&answer_to) {
                connection.answer(answer, now);
            }
        }
    }

    /// Whether there is work that needs no event.
    pub fn has_leftovers(&self) -> bool {
        self.0.iter().any(AdminConnection::is_readable)
    }

    /// The earliest deadline of a connection.
    pub fn next_deadline(&self, limits: &Limits) -> Option<Instant> {
        self.0.iter().map(|connection| connection.deadline(limits)).min()
    }

    /// Handles the deadlines that are due.
    pub fn run_timers(&mut self, now: Instant, limits: &Limits) {
        for connection in &mut self.0 {
            connection.handle_deadline(now, limits);
        }
    }

    /// Cuts short the requests that are not complete: the server stops.
    pub fn stop(&mut self, now: Instant) {
        for connection in &mut self.0 {
            connection.stop(now);
        }
    }

    /// Drops the connections that are over.
    pub fn reap(&mut self, registry: &Registry) {
        for connection in self.0.extract_if(.., |connection| connection.is_over()) {
            socket::deregister(connection.socket(), registry);
        }
    }
}
