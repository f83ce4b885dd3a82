//! Bytes to values and back: HTTP heads, PROXY headers, WebSocket frames, JSON messages, hashcash
//! stamps, the records of a takeover.
//!
//! Pure functions and state machines in memory. Must never touch a socket, a file or the clock.

mod forwarded;
pub mod handover;
pub mod hashcash;
pub mod http;
pub mod json;
pub mod origins;
pub mod proxy_header;
pub mod websocket;

use std::str::FromStr;

/// A number of decimal digits only: the library's parser would take a plus sign as well.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}
