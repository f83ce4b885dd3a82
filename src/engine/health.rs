//! The server's health as the service manager's status line shows it.

use std::fmt;

/// How things are, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Connections at once.
    pub connections: usize,
    /// Nameplates alive.
    pub nameplates: usize,
    /// Mailboxes alive.
    pub mailboxes: usize,
    /// Nothing can be stored at present.
    pub is_degraded: bool,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Health { connections, nameplates, mailboxes, is_degraded: _ } = self;
        write!(f, "connections: {connections}, nameplates: {nameplates}, mailboxes: {mailboxes}")
    }
}
