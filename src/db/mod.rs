//! The SQLite files (contract section 5): opening, upgrading, loading, writing.
//!
//! `file` opens any of them, `schema` knows their tables, `channel`, `usage` and `addrid` each
//! speak for one. Knows `store`'s changes and records; must never know connections or JSON.

mod addrid;
mod channel;
mod connections;
mod file;
mod schema;
mod usage;

pub use addrid::AddridDb;
pub use channel::{ChannelDb, ChannelOptions, Synchronous};
pub use connections::{ConnectionChange, ConnectionTable};
pub use file::{MEMORY, OpenError};
pub use usage::{Current, UsageDb};
