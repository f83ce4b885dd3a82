//! What connections ask of the engine: may I open, here is a message, hold this for me.
//!
//! A part of the engine, which its parent describes.

use log::debug;

use super::Engine;
use super::limit_log::Limit;
use super::quotas::PeerAddress;
use crate::codec::http::{Rejection, Upgrade};
use crate::codec::json;
use crate::message::close::{CloseReason, Farewell, Verdict};
use crate::message::peer::Peer;
use crate::message::{ConnId, Response};
use crate::net::connection::Handler;
use crate::storage::db::ConnectionChange;
use crate::storage::held::Output;

impl Handler for Engine {
    fn behind_proxy(&mut self, conn: ConnId, peer: Peer) -> Result<(), Rejection> {
        self.admit(conn, peer)
    }

    fn open(
        &mut self,
        conn: ConnId,
        socket_peer: Peer,
        upgrade: &Upgrade,
    ) -> Result<Verdict, Rejection> {
        let peer = socket_peer.behind(&upgrade.forwarded, &self.live.trusted_proxies);
        if socket_peer.is_trusted(&self.live.trusted_proxies) {
            let forwarded = &upgrade.forwarded;
            let address =
                if forwarded.is_ip_unreadable { PeerAddress::Unreadable } else { peer.ip.into() };
            self.count(conn, address)?;
            if forwarded.is_ip_unreadable || forwarded.is_port_unreadable {
                self.note_limit(Limit::ForwardedMalformed);
            }
        }
        let at = self.clock.wall;
        let address_id = self.records.address_id(peer.ip, at);
        match address_id {
            _ if !self.logs_connections() => {}
            Some(id) => debug!("{conn}: connected from {id}"),
            None => debug!("{conn}: connected from {peer}"),
        }
        self.records.track(conn, || ConnectionChange::Connected { address_id, at });
        self.participants.push(conn);
        self.store.connect(conn);
        self.hold(conn, Output::Bytes(upgrade.response.clone()));
        let demand = self.permissions.ask(conn, self.clock.instant, &mut *self.entropy);
        let notice = self.live.notices.find(peer.ip);
        let welcome = self.welcome(peer, demand.as_ref(), notice);
        let verdict = match notice {
            Some(_) => Verdict::Close(Farewell::Notice, CloseReason::Notice),
            None => Verdict::Stay,
        };
        self.reply(conn, Response::Welcome(welcome));
        Ok(verdict)
    }

    fn is_bound(&self, conn: ConnId) -> bool {
        self.store.is_bound(conn)
    }

    fn text(&mut self, conn: ConnId, text: &str) -> Verdict {
        let request = json::decode(text, self.config.limits.name_bytes_max);
        self.handle(conn, request, text)
    }

    fn binary(&mut self, conn: ConnId, payload: &[u8]) -> Verdict {
        let request = json::decode_binary(payload, self.config.limits.name_bytes_max);
        self.handle(conn, request, &String::from_utf8_lossy(payload))
    }

    fn hold(&mut self, conn: ConnId, output: Output) {
        self.held.push(conn, output);
    }

    fn origin_allowed(&self, origin: &str) -> bool {
        self.config.origins.allow(origin)
    }

    fn count_received(&mut self, bytes: usize) {
        self.metrics.received_bytes += bytes as u64;
    }
}
