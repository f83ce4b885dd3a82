//! How a connection begins: a PROXY header where one is due, the request head, and what comes of
//! it.

use std::time::Instant;

use super::{Connection, Handler, Phase};
use crate::codec::http::{self, Head, Question, Rejection, Status, Upgrade};
use crate::codec::proxy_header::{self, ProxyHeader};
use crate::codec::websocket::WebSocket;
use crate::limits::{Limits, PROXY_HEADER_BYTES_MAX};
use crate::message::close::{CloseReason, Verdict};
use crate::message::peer::Peer;
use crate::net::socket::Role;
use crate::storage::held::Output;

impl Connection {
    /// Takes in more of the PROXY header; gives the input that comes after it.
    pub(super) fn handle_proxy_header<'a>(
        &mut self,
        input: &'a [u8],
        now: Instant,
        handler: &mut impl Handler,
    ) -> &'a [u8] {
        let Phase::ProxyHeader(header) = &mut self.phase else { return input };
        let wanted = PROXY_HEADER_BYTES_MAX.saturating_sub(header.len()).min(input.len());
        let known = header.len();
        header.extend_from_slice(&input[..wanted]);
        match proxy_header::parse(header) {
            ProxyHeader::Incomplete => &input[wanted..],
            ProxyHeader::Malformed(why) => {
                let answer = http::text_answer(Status::BadRequest, why);
                handler.hold(self.id, Output::Bytes(answer));
                self.end(CloseReason::BadProxyHeader, now, handler);
                &[]
            }
            ProxyHeader::Parsed { source, header_bytes } => {
                self.phase = Phase::Head(Vec::new());
                if let Some(source) = source {
                    self.peer = Peer::of_socket(source);
                    if let Err(rejection) = handler.behind_proxy(self.id, self.peer) {
                        self.refuse(rejection, now, handler);
                    }
                }
                &input[header_bytes - known..]
            }
        }
    }

    /// Takes in more of the request head; gives the input that comes after it.
    pub(super) fn handle_head<'a>(
        &mut self,
        input: &'a [u8],
        now: Instant,
        limits: &Limits,
        handler: &mut impl Handler,
    ) -> &'a [u8] {
        let Phase::Head(head) = &mut self.phase else { return input };
        // One byte more than allowed is enough to see that it is too much.
        let wanted = (limits.head_bytes_max + 1).saturating_sub(head.len()).min(input.len());
        let known = head.len();
        head.extend_from_slice(&input[..wanted]);
        let parsed = match self.role {
            Role::Admin => http::parse_question(head, limits.head_bytes_max),
            _ => http::parse(head, limits.head_bytes_max, |origin| handler.origin_allowed(origin)),
        };
        match parsed {
            Head::Incomplete => &input[wanted..],
            Head::Question(question) => {
                (self.phase, self.since) = (Phase::Asked(question), now);
                &[]
            }
            Head::Answer(answer) => {
                self.answer(answer, now, handler);
                &[]
            }
            Head::Upgrade(upgrade) => {
                let verdict = self.handle_upgrade(&upgrade, now, handler);
                self.obey(verdict, now, limits, handler);
                &input[upgrade.head_bytes - known..]
            }
        }
    }

    fn handle_upgrade(
        &mut self,
        upgrade: &Upgrade,
        now: Instant,
        handler: &mut impl Handler,
    ) -> Verdict {
        match handler.open(self.id, self.peer, upgrade) {
            Ok(verdict) => {
                self.phase = Phase::Open(WebSocket::default());
                (self.pinged, self.ponged) = (now, now);
                self.begin_phase(now);
                verdict
            }
            Err(rejection) => {
                self.refuse(rejection, now, handler);
                Verdict::Stay
            }
        }
    }

    /// What an operator has asked and is not answered yet.
    pub fn question(&self) -> Option<&Question> {
        match &self.phase {
            Phase::Asked(question) => Some(question),
            _ => None,
        }
    }

    /// Answers a request, and ends.
    pub fn answer(&mut self, bytes: Vec<u8>, now: Instant, handler: &mut impl Handler) {
        handler.hold(self.id, Output::Bytes(bytes));
        self.end(CloseReason::HttpAnswered, now, handler);
    }

    /// Answers whatever the peer is about to ask with why it cannot stay.
    pub fn refuse(&mut self, rejection: Rejection, now: Instant, handler: &mut impl Handler) {
        handler.hold(self.id, Output::Bytes(rejection.answer()));
        self.end(CloseReason::Refused, now, handler);
    }
}
