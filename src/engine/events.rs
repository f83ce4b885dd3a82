//! Handles a connection's events, and decides which connections may stay.

use std::net::IpAddr;

use super::Engine;
use crate::codec::http::{Rejection, Status};
use crate::codec::json;
use crate::engine::limit_log::Limit;
use crate::limits::PROXIES_NAMED_MAX;
use crate::message::{
    AddressHeader, CloseReason, ConnId, CountedAddress, Event, Forwarded, Output, Peer, Response,
    Verdict,
};
use crate::storage::db::ConnectionChange;
use crate::sys::logging::{debug, warn};

/// The `error` of a `welcome` while the storage does not work.
const DEGRADED_WELCOME: &str = "The server's storage is unavailable, please try again later.";

impl Engine {
    /// Decides on an event; its replies go to this tick's outputs. An error is the answer to a
    /// connection that may not stay, and comes only before its handshake is complete.
    pub fn handle(&mut self, conn: ConnId, event: Event) -> Result<Verdict, Rejection> {
        match event {
            Event::Text(text) => {
                let request = json::decode(&text, self.config.limits.name_bytes_max);
                Ok(self.carry_out(conn, request, &text))
            }
            Event::Binary(payload) => {
                let request = json::decode_binary(&payload, self.config.limits.name_bytes_max);
                Ok(self.carry_out(conn, request, &String::from_utf8_lossy(&payload)))
            }
            Event::TooLong { refusal, beginning } => {
                self.refuse_too_long(conn, refusal, &beginning);
                Ok(Verdict::Stay)
            }
            Event::ProxiedPeer(peer) => self.admit(conn, peer).map(|()| Verdict::Stay),
            Event::Upgrade { peer, forwarded, secret, response } => {
                let peer = self.identify(conn, peer, &forwarded)?;
                self.recognise(conn, secret.as_ref())?;
                self.open(conn, peer, response)
            }
        }
    }

    /// Whether a new connection may stay, by its socket's address. Trusted proxies may; the
    /// address that they report is asked about later.
    pub fn admit(&mut self, conn: ConnId, peer: Peer) -> Result<(), Rejection> {
        if peer.is_trusted(&self.settings.trusted_proxies) {
            return Ok(());
        }
        self.count_connection(conn, peer.ip.map(CountedAddress::Ip))
    }

    /// Whether a connection may begin with a PROXY header, by its socket's address.
    pub fn admit_proxy(&mut self, peer: Peer) -> Result<(), Rejection> {
        if peer.is_trusted(&self.settings.trusted_proxies) {
            return Ok(());
        }
        self.limit_log.hit(Limit::ProxyUntrusted);
        Err(Rejection::new(Status::Forbidden, "only trusted proxies may connect here"))
    }

    fn count_connection(
        &mut self,
        conn: ConnId,
        address: Option<CountedAddress>,
    ) -> Result<(), Rejection> {
        let counted = self.quotas.connect(conn, address, self.clock.instant);
        counted.inspect_err(|_| self.limit_log.hit(Limit::AddressConnections))
    }

    fn open(&mut self, conn: ConnId, peer: Peer, response: Vec<u8>) -> Result<Verdict, Rejection> {
        let at = self.clock.wall;
        let ids = self.records.addresses.as_mut();
        let address_id = ids.zip(peer.ip).map(|(ids, ip)| ids.id(ip, self.clock));
        match address_id {
            _ if !self.logs_connections() => {}
            Some(id) => debug!("{conn}: connected from {id}"),
            None => debug!("{conn}: connected from {peer}"),
        }
        self.records.track(conn, || ConnectionChange::Connected { address_id, at });
        self.effects.participants.push(conn);
        self.store.connect(conn, self.quotas.holder_of(conn));
        self.effects.outputs.push(conn, Output::Bytes(response));
        let demand = self.permissions.ask(conn, self.clock.instant, &mut *self.entropy);
        let notice = self.settings.notices.find(peer.ip);
        let degraded = self.is_degraded().then_some(DEGRADED_WELCOME);
        let error = notice.or(degraded);
        let welcome = json::welcome(&self.settings.welcome, error, demand.as_ref(), peer);
        let verdict = match notice {
            Some(_) => {
                self.sent_away.insert(conn);
                Verdict::CloseSoon(CloseReason::Notice)
            }
            None => Verdict::Stay,
        };
        self.effects.outputs.reply(conn, Response::Welcome(welcome));
        Ok(verdict)
    }

    /// Decides whether a connection may begin exchanges, by its address if that is known.
    fn note_outsider(&mut self, conn: ConnId, ip: Option<IpAddr>) {
        let networks = &self.config.allocate_from;
        let is_inside = |ip| networks.iter().any(|network| network.contains(ip));
        if !networks.is_empty() && !ip.is_some_and(is_inside) {
            self.outsiders.insert(conn);
        }
    }

    /// The client's address, as far as a trusted proxy names it; the connection is then counted.
    fn identify(
        &mut self,
        conn: ConnId,
        socket_peer: Peer,
        forwarded: &Forwarded,
    ) -> Result<Peer, Rejection> {
        if !socket_peer.is_trusted(&self.settings.trusted_proxies) {
            self.note_outsider(conn, socket_peer.ip);
            return Ok(socket_peer);
        }
        let client = forwarded.client(&self.settings.trusted_proxies);
        let peer = client.unwrap_or_default().unwrap_or(socket_peer);
        let address = match client {
            Ok(_) => peer.ip.map(CountedAddress::Ip),
            Err(_) => Some(CountedAddress::Unreadable),
        };
        self.count_connection(conn, address)?;
        self.note_outsider(conn, peer.ip.filter(|_| client.is_ok()));
        if client.is_err() || forwarded.is_port_unreadable {
            self.limit_log.hit(Limit::ForwardedMalformed);
        }
        if let Some(header) = forwarded.other {
            self.warn_of_other_header(socket_peer, header);
        }
        Ok(peer)
    }

    /// Logs once that a trusted proxy sends another header than the one that is looked at.
    fn warn_of_other_header(&mut self, proxy: Peer, header: AddressHeader) {
        if self.proxies_named.contains(&proxy.ip) || self.proxies_named.len() == PROXIES_NAMED_MAX {
            return;
        }
        self.proxies_named.push(proxy.ip);
        let proxy = match proxy.ip {
            Some(ip) if self.logs_addresses() => format!("the proxy at {ip}"),
            Some(_) => "a proxy".to_owned(),
            None => "the proxy at a unix socket".to_owned(),
        };
        let (looked_at, sent) = (self.config.address_header.name(), header.name());
        warn!(
            "{proxy} sends no {looked_at} but {sent}, which is not looked at: all its clients count \
             as one address; if the proxy itself writes it, give --proxy-header={sent}"
        );
    }
}
