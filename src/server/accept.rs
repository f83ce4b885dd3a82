//! Who comes and who goes: accepting, room for clients and for operators, reaping.
//!
//! A part of the server, which its parent describes.

use mio::{Interest, Token};

use super::{Server, Slot};
use crate::codec::http::{Rejection, Status};
use crate::engine::limit_log::Limit;
use crate::limits;
use crate::message::ConnId;
use crate::message::close::CloseReason;
use crate::message::peer::Peer;
use crate::net::connection::Connection;
use crate::net::listeners;
use crate::net::socket::{Role, Socket};

impl Server {
    /// Accepts who waits, within the tick's budget.
    pub(super) fn accept(&mut self) {
        if self.stop_by.is_some() {
            return;
        }
        let mut listeners = std::mem::take(&mut self.listeners);
        let budget = self.config.limits.accepts_per_tick_max;
        listeners
            .accept(budget, self.clock.instant, |socket, peer, role| self.take(socket, peer, role));
        self.listeners = listeners;
    }

    /// Takes in a new connection, or says why not.
    fn take(&mut self, mut socket: Socket, peer: Peer, role: Role) {
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        let admitted = self.admit(conn, peer, role);
        let has_room_to_tell = role != Role::Admin && self.refused < limits::REFUSALS_AT_ONCE_MAX;
        if let Err(rejection) = admitted
            && !has_room_to_tell
        {
            listeners::refuse(socket, rejection);
            if role != Role::Admin {
                self.engine.metrics_mut().ended.add(CloseReason::Refused.name());
            }
            return;
        }
        let token = Token(conn.0 as usize);
        let interests = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(&mut socket, token, interests);
        if registered.is_err() || (self.config.tcp_nodelay && socket.set_nodelay().is_err()) {
            self.count_out(conn, role, CloseReason::PeerReset); // gone already, or no memory
            return;
        }
        let mut connection = Connection::new(conn, socket, peer, role, self.clock.instant);
        if let Err(rejection) = admitted {
            self.refused += 1;
            connection.refuse(rejection, self.clock.instant, &mut self.engine);
        }
        let is_refused = admitted.is_err();
        self.operators += usize::from(role == Role::Admin);
        let mut slot = Slot {
            connection,
            armed: None,
            buffered_bytes: 0,
            queued: false,
            doomed: false,
            is_refused,
        };
        slot.settle(conn, &self.config, &mut self.ledger);
        self.connections.insert(conn, Box::new(slot));
    }

    /// Whether a new connection may stay. Operators have room of their own.
    fn admit(&mut self, conn: ConnId, peer: Peer, role: Role) -> Result<(), Rejection> {
        if role == Role::Admin {
            let has_room = self.operators < limits::ADMIN_CONNECTIONS_MAX;
            let full = Rejection::new(Status::Unavailable, "too many operators, try again later");
            return if has_room { Ok(()) } else { Err(full) };
        }
        self.engine.metrics_mut().accepted += 1;
        if self.clients() >= self.config.limits.connections_max {
            self.engine.note_limit(Limit::Connections);
            return Err(Rejection::new(
                Status::Unavailable,
                "too many connections, try again later",
            ));
        }
        match role {
            Role::ProxiedClient => self.engine.admit_proxy(peer),
            Role::Client | Role::Admin => self.engine.admit(conn, peer),
        }
    }

    /// Connections of clients that may stay.
    pub(super) fn clients(&self) -> usize {
        self.connections.len() - self.refused - self.operators
    }

    /// Drops the sockets of connections that are over. The store learns of it here as well: a
    /// disconnect changes nothing that is stored.
    pub(super) fn reap(&mut self) {
        for (conn, reason) in std::mem::take(&mut self.ledger.doomed) {
            let Some(mut slot) = self.connections.remove(&conn) else { continue };
            // Fails only if the kernel has forgotten the socket, which is what we want.
            _ = self.poll.registry().deregister(slot.connection.socket_mut());
            self.ledger.timers.disarm(conn, &mut slot.armed);
            self.ledger.buffered_bytes -= slot.buffered_bytes;
            self.refused -= usize::from(slot.is_refused);
            let role = slot.connection.role();
            self.operators -= usize::from(role == Role::Admin);
            self.count_out(conn, role, reason);
        }
    }

    /// A connection that was admitted or refused is gone. Of operators' the engine knows nothing.
    fn count_out(&mut self, conn: ConnId, role: Role, reason: CloseReason) {
        if role != Role::Admin {
            self.engine.disconnect(conn, reason);
        }
    }
}
