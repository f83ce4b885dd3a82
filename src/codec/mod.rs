//! Bytes to values and back: HTTP heads, PROXY headers, WebSocket frames, JSON messages,
//! hashcash stamps.
//!
//! Pure functions and state machines in memory. Must never touch a socket, a file or the clock.

pub mod forwarded;
pub mod handover;
pub mod hashcash;
pub mod http;
pub mod json;
pub mod proxy_header;
pub mod websocket;
