//! Sockets and connections: listening, accepting, one connection's life, its output.
//!
//! Speaks to the engine in plain data only (`message`), and sends nothing that `storage` has not
//! released. Must never know a rule of the protocol, a database or an option.

pub mod admin_connection;
pub mod connection;
pub mod handover;
pub mod listeners;
pub mod outbox;
pub mod passed_sockets;
pub mod socket;
