//! The beginning of a connection: a PROXY header where one is due, and the request head.

use super::{Connection, ConnectionSettings, Context, Input, Open, Phase};
use crate::codec::http::{self, Parsed, Status};
use crate::codec::proxy_header::{self, ProxyHeader};
use crate::limits::PROXY_HEADER_BYTES_MAX;
use crate::message::{CloseReason, Event, Peer};

impl Connection {
    /// Reads more of the PROXY header; returns the client's address if it is complete and has one.
    pub(super) fn read_proxy_header(
        &mut self,
        input: &mut Input,
        context: &mut Context<'_>,
    ) -> Option<Peer> {
        let Phase::ProxyHeader(header) = &mut self.phase else { return None };
        let known = header.len();
        let wanted = PROXY_HEADER_BYTES_MAX.saturating_sub(known).min(input.rest().len());
        header.extend_from_slice(&input.rest()[..wanted]);
        match proxy_header::parse(header) {
            ProxyHeader::Incomplete => {
                input.skip(wanted);
                None
            }
            ProxyHeader::Malformed(why) => {
                let answer = http::text_answer(Status::BadRequest, why);
                self.answer(answer, CloseReason::BadProxyHeader, context);
                None
            }
            ProxyHeader::Parsed { source, header_bytes } => {
                input.skip(header_bytes - known);
                // The time of the handshake goes on.
                self.phase = Phase::Head(Vec::new());
                self.peer = Peer::of_socket(source?);
                Some(self.peer)
            }
        }
    }

    /// Reads more of the request head.
    pub(super) fn read_head(
        &mut self,
        input: &mut Input,
        context: &mut Context<'_>,
    ) -> Option<Event> {
        let Phase::Head(head) = &mut self.phase else { return None };
        let bytes_max = context.settings.limits.head_bytes_max;
        let known = head.len();
        // One byte more than allowed is enough to see that it is too much.
        let wanted = (bytes_max + 1).saturating_sub(known).min(input.rest().len());
        head.extend_from_slice(&input.rest()[..wanted]);
        let ConnectionSettings { address_header, origins, .. } = context.settings;
        match http::parse(head, bytes_max, *address_header, origins) {
            Parsed::Incomplete => {
                input.skip(wanted);
                None
            }
            Parsed::Answer(answer) => {
                self.answer(answer, CloseReason::HttpAnswered, context);
                None
            }
            Parsed::Request(upgrade) => {
                input.skip(upgrade.head_bytes - known);
                self.enter(Phase::Open(Open::new(context.now)), context.now);
                Some(Event::Upgrade {
                    peer: self.peer,
                    forwarded: upgrade.forwarded,
                    secret: upgrade.secret,
                    response: upgrade.response,
                })
            }
        }
    }
}
