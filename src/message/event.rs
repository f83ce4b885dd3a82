//! What a connection reports to the engine, and what the engine decides about the connection.

use crate::message::{CloseReason, Forwarded, Peer, Refusal, Secret};

/// Something that came from a client and that the engine must decide on.
#[derive(Debug)]
pub enum Event {
    /// A trusted proxy's PROXY header names the client's address.
    ProxiedPeer(Peer),
    /// A WebSocket handshake is complete.
    Upgrade {
        /// The peer of the socket, or the one in the PROXY header.
        peer: Peer,
        /// The peer in the request's headers, not yet trusted.
        forwarded: Forwarded,
        /// What follows `/v1/` in the request's path.
        secret: Option<Secret>,
        /// The HTTP response that accepts the handshake.
        response: Vec<u8>,
    },
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A message beyond a limit, of which only the first characters are known.
    TooLong { refusal: Refusal, beginning: String },
}

/// The decision on a connection after an event.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The connection goes on.
    Stay,
    /// The connection is closed; replies of this tick leave before the close frame.
    Close(CloseReason),
    /// The connection is closed a little later: the peer may still send a command whose answer it
    /// waits for.
    CloseSoon(CloseReason),
}
