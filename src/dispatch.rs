//! What happens with a connection's events: text → command → store → held output.
//!
//! The one place where `conn`, `protocol` and `store` meet. Borrows all it needs from the server
//! for the length of one tick; sends nothing.

use log::{debug, warn};

use crate::config::Config;
use crate::conn::Handler;
use crate::db::ConnectionChange;
use crate::entropy::SystemEntropy;
use crate::held::{Held, Output};
use crate::http::Upgrade;
use crate::message::{Command, ConnId, Field, Orig, Refusal, Response, Seconds};
use crate::peer::Peer;
use crate::protocol::{self, Request, Unreadable, Welcome};
use crate::records::Records;
use crate::store::{Effects, Moment, Store};

/// What `welcome` says while the storage does not work.
const DEGRADED_WELCOME: &str = "The server's storage is unavailable, please try again later.";

/// One tick's view of the server, for its connections.
pub struct Dispatch<'a> {
    pub store: &'a mut Store,
    pub effects: &'a mut Effects,
    pub held: &'a mut Held,
    pub records: &'a mut Records,
    pub entropy: &'a mut SystemEntropy,
    pub config: &'a Config,
    /// Connections whose commands are in this tick's batch.
    pub participants: &'a mut Vec<ConnId>,
    /// Nothing can be stored at present.
    pub degraded: bool,
    /// Wall-clock time of the tick.
    pub now: Seconds,
}

impl Dispatch<'_> {
    fn carry_out(&mut self, conn: ConnId, request: &Request<'_>, text: &str) {
        self.reply(conn, Response::Ack { id: request.id.map(Box::from) });
        let command = &request.command;
        let name = command.name();
        let at = self.now;
        self.records.track(conn, || ConnectionChange::Command { name, at });
        let outcome = if self.degraded && command.changes_state() {
            Err(Refusal::StorageUnavailable)
        } else {
            let mut moment = Moment { now: self.now, entropy: self.entropy };
            self.store.apply(conn, command, &mut moment, self.effects)
        };
        self.held.extend(self.effects.replies.drain(..));
        match outcome {
            Ok(()) => self.track_bind(conn, command),
            Err(refusal) => {
                self.reply(conn, Response::Error { refusal, orig: Orig::Command(text.into()) })
            }
        }
    }

    fn track_bind(&mut self, conn: ConnId, command: &Command<'_>) {
        if let Command::Bind { side: Field::Text(side), client_version, .. } = command {
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

    fn take_part(&mut self, conn: ConnId) {
        if self.participants.last() != Some(&conn) {
            self.participants.push(conn);
        }
    }

    fn handle(&mut self, conn: ConnId, request: Result<Request<'_>, Unreadable>, text: &str) {
        self.take_part(conn);
        match request {
            Ok(request) => self.carry_out(conn, &request, text),
            Err(Unreadable { refusal, orig }) => {
                self.reply(conn, Response::Error { refusal, orig })
            }
        }
    }
}

impl Handler for Dispatch<'_> {
    fn opened(&mut self, conn: ConnId, socket_peer: Peer, upgrade: &Upgrade) {
        let peer = socket_peer.behind(&upgrade.forwarded, &self.config.trusted_proxies);
        let address_id = self.records.address_id(peer.ip, self.now);
        if upgrade.forwarded.malformed {
            warn!("{conn}: ignoring an X-Real-IP or X-Real-Port header that cannot be read");
        }
        match address_id {
            Some(id) => debug!("{conn}: connected from {id}"),
            None if self.config.blur_usage.is_none() => debug!("{conn}: connected from {peer}"),
            None => {}
        }
        let at = self.now;
        self.records.track(conn, || ConnectionChange::Connected {
            address_id: address_id.map(|id| (id.generation, id.counter)),
            at,
        });
        self.take_part(conn);
        self.store.connect(conn);
        self.hold(conn, Output::Bytes(upgrade.response.clone()));
        let welcome = if self.degraded {
            let error = Some(DEGRADED_WELCOME.to_owned());
            protocol::welcome(&Welcome { error, ..self.config.welcome.clone() }, peer.ip, peer.port)
        } else {
            protocol::welcome(&self.config.welcome, peer.ip, peer.port)
        };
        self.reply(conn, Response::Welcome(welcome));
    }

    fn text(&mut self, conn: ConnId, text: &str) {
        self.handle(conn, protocol::decode(text), text);
    }

    fn binary(&mut self, conn: ConnId, payload: &[u8]) {
        let text = String::from_utf8_lossy(payload);
        self.handle(conn, protocol::decode_binary(payload), &text);
    }

    fn hold(&mut self, conn: ConnId, output: Output) {
        self.held.push(conn, output);
    }

    fn origin_allowed(&self, origin: &str) -> bool {
        self.config.origins.allow(origin)
    }
}
