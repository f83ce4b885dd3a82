//! Accepts connections, and enforces the limits on them before anything is read.

use mio::{Interest, Token};

use super::Server;
use super::connections::context;
use crate::codec::http::{Rejection, Status};
use crate::engine::limit_log::Limit;
use crate::limits;
use crate::message::{CloseReason, ConnId, Peer};
use crate::net::admin_connection::AdminConnection;
use crate::net::connection::Connection;
use crate::net::listeners;
use crate::net::socket::{self, Role, Socket};

/// The answer when the server is full.
const TOO_MANY: Rejection =
    Rejection::new(Status::Unavailable, "too many connections, try again later");

impl Server {
    /// Accepts the connections that wait, within the tick's budget: no more than are read, or they
    /// would pile up until the limit of connections is reached.
    pub(super) fn accept(&mut self) {
        let now = self.clock.instant;
        let tries_max = self.config.limits.accepts_per_tick_max;
        let tries_min = tries_max.div_ceil(limits::ACCEPTS_MIN_DIVISOR);
        let mut tries_left = tries_max.saturating_sub(self.connections.opening()).max(tries_min);
        let roles = &[Role::Client, Role::ProxiedClient];
        while let Some((socket, peer, role)) = self.listeners.accept(roles, &mut tries_left, now) {
            self.add_connection(socket, peer, role);
        }
    }

    /// Accepts connections to the admin listener: before clients are read, however many there are.
    pub(super) fn accept_admins(&mut self) {
        let now = self.clock.instant;
        let mut tries_left = limits::ADMIN_CONNECTIONS_MAX;
        let roles = &[Role::Admin];
        while let Some((socket, ..)) = self.listeners.accept(roles, &mut tries_left, now) {
            let conn = self.new_conn();
            let connection = AdminConnection::new(conn, socket, now);
            if self.register(conn, connection.socket()) {
                self.admin_connections.make_room(self.poll.registry());
                self.admin_connections.insert(connection);
            }
        }
    }

    fn new_conn(&mut self) -> ConnId {
        self.next_conn += 1;
        ConnId(self.next_conn - 1)
    }

    /// Adds a client's connection; one that may not stay is kept until it has read why, or, when
    /// there are many of those, gets its answer at once.
    fn add_connection(&mut self, socket: Socket, peer: Peer, role: Role) {
        let (conn, now) = (self.new_conn(), self.clock.instant);
        match self.admit(conn, peer, role) {
            Ok(()) => self.insert(conn, Connection::new(socket, peer, role, now), false),
            Err(rejection) if self.connections.rejected < limits::REJECTED_CONNECTIONS_MAX => {
                let mut connection = Connection::new(socket, peer, role, now);
                let settings = &self.connections.settings;
                connection.reject(rejection, &mut context(conn, now, settings, &mut self.engine));
                self.insert(conn, connection, true);
            }
            Err(rejection) => {
                listeners::reject(socket, rejection);
                self.engine.metrics.ended.add(CloseReason::Refused.name());
            }
        }
    }

    /// Begins to serve a client's connection, which the engine knows already.
    pub(super) fn insert(&mut self, conn: ConnId, connection: Connection, is_rejected: bool) {
        if self.register(conn, connection.socket()) {
            let network = self.engine.network_of(conn);
            self.connections.insert(conn, connection, network, is_rejected);
        } else {
            self.engine.disconnect(conn, CloseReason::PeerReset);
        }
    }

    /// Fails if the peer is gone already, or the kernel has no memory.
    fn register(&self, conn: ConnId, socket: &Socket) -> bool {
        let token = Token(conn.0 as usize);
        let interests = Interest::READABLE | Interest::WRITABLE;
        socket::register(socket, self.poll.registry(), token, interests).is_ok()
            && (!self.config.tcp_nodelay || socket.set_nodelay().is_ok())
    }

    /// Whether a client's connection may stay.
    fn admit(&mut self, conn: ConnId, peer: Peer, role: Role) -> Result<(), Rejection> {
        self.engine.metrics.accepted += 1;
        if self.connections.admitted() >= self.config.limits.connections_max {
            self.engine.limit_log.hit(Limit::Connections);
            return Err(TOO_MANY);
        }
        match role {
            Role::ProxiedClient => self.engine.admit_proxy(peer),
            Role::Client | Role::Admin => self.engine.admit(conn, peer),
        }
    }
}
