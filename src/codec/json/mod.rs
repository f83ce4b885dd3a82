//! JSON text of a WebSocket message ⇄ `Command` and `Response`.
//!
//! Stateless. `decode` borrows from the text and builds no tree; `encode` appends to a buffer the
//! caller keeps. Neither may fail on anything but the peer's text, and neither knows a session.

mod decode;
mod encode;

pub use decode::{Request, Unreadable, decode, decode_binary};
pub use encode::{ServerTx, Welcome, encode, welcome};
