//! JSON text of a WebSocket message ⇄ `Command` and `Response`.
//!
//! Stateless. `decode` borrows from the text and builds no tree; `encode` appends to a buffer of
//! the caller. Only decoding can fail.

mod decode;
mod encode;

pub use decode::{DecodeError, Request, decode, decode_binary};
pub use encode::{ServerTx, Welcome, encode, message_beginning, welcome};
