//! The server's health as the status line of the service manager shows it.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    pub connections: usize,
    pub nameplates: usize,
    pub mailboxes: usize,
    /// Whether the storage is unavailable.
    pub is_degraded: bool,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Health { connections, nameplates, mailboxes, is_degraded: _ } = self;
        write!(f, "connections: {connections}, nameplates: {nameplates}, mailboxes: {mailboxes}")
    }
}
