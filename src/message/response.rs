//! The messages to clients, as plain data (manual: protocol 2.2).

use std::rc::Rc;

use crate::message::{Message, Refusal, Replay};
use crate::sys::heap::block_bytes;

/// The `orig` of an `error`: the message that caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Orig {
    /// The whole command, as received.
    Command(Box<str>),
    /// The beginning of something that is not a JSON object.
    Text(Box<str>),
}

/// One message to a client. `server_tx` is added when it is released.
#[derive(Clone, Debug)]
pub enum Response {
    /// The JSON text of the `welcome` object.
    Welcome(Box<str>),
    /// The `id` is JSON text.
    Ack {
        id: Option<Box<str>>,
    },
    Nameplates(Rc<[Rc<str>]>),
    Allocated(Rc<str>),
    Claimed(Rc<str>),
    Released,
    Message(Rc<Message>),
    /// Stored messages, each sent as one `message`.
    Replay(Replay),
    Closed,
    /// The value is JSON text.
    Pong(Box<str>),
    /// The refusal is boxed, because it would make every response larger.
    Error {
        refusal: Box<Refusal>,
        orig: Orig,
    },
}

impl Response {
    /// Bytes that count towards the outbox limit. The memory of a replay is the mailbox's.
    pub fn queued_bytes(&self) -> usize {
        let payload = match self {
            Response::Welcome(text) | Response::Pong(text) => block_bytes(text.len()),
            Response::Ack { id } => id.as_ref().map_or(0, |id| block_bytes(id.len())),
            // A list that has changed since is kept only for the connections that it waits for.
            Response::Nameplates(names) => size_of_val(&**names),
            Response::Message(message) => message.bytes(),
            Response::Error { orig: Orig::Command(text) | Orig::Text(text), .. } => {
                block_bytes(text.len()) + block_bytes(size_of::<Refusal>())
            }
            _ => 0,
        };
        payload + size_of::<Response>()
    }
}

/// The proof of work that a connection is asked for (`permission-required` in its welcome).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Minimum of leading zero bits of the stamp's hash.
    pub bits: u32,
    /// The resource of the stamp: random, so that none can be computed in advance.
    pub resource: u64,
    /// Whether `bind` needs the proof.
    pub is_required: bool,
    pub proof: ProofState,
}

/// Whether the proof that was demanded has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofState {
    Missing,
    Given,
    /// A `bind` came while the proof was missing.
    Refused,
}

impl Demand {
    /// The resource as text, in the welcome and in stamps.
    pub fn resource(&self) -> String {
        format!("{:016x}", self.resource)
    }
}
