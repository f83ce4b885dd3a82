//! The limits that clients meet: counted since the start for the metrics, and logged together, at
//! most one line every [`LOG_REPEAT`], since a peer can meet a limit at any rate.

use std::time::Instant;

use crate::limits::LOG_REPEAT;
use crate::message::{CloseReason, Refusal};
use crate::sys::logging::warn;

/// Declares the limits, a row each: its label in the metrics, and its name in the log.
macro_rules! limit_labels {
    ($($limit:ident: $label:literal, $name:literal;)*) => {
        /// A limit, or a rule that costs a peer its connection.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Limit {
            $($limit,)*
        }

        /// Label and name of each limit, in the order of the enum.
        const LIMITS: [(&str, &str); [$($label),*].len()] = [$(($label, $name)),*];
    };
}

limit_labels! {
    Connections: "connections", "connections";
    AddressConnections: "address_connections", "connections of one address";
    AddressAllocates: "address_allocates", "allocations of one address";
    AddressClaims: "address_claims", "claims of one address";
    AddressNameplates: "address_nameplates", "nameplates of one address";
    AddressRecords: "address_records", "usage of one address that is not recorded";
    MessageBytes: "message_bytes", "bytes of one message";
    MailboxMessages: "mailbox_messages", "messages of one mailbox";
    StoredBytes: "stored_bytes", "stored bytes";
    AddressStoredBytes: "address_stored_bytes", "stored bytes of one address";
    Evicted: "evicted", "mailboxes deleted because the store was full";
    OutboxBytes: "outbox_bytes", "output of one slow reader";
    BufferedBytes: "buffered_bytes", "buffered bytes of all connections";
    OutputSeconds: "output_seconds", "time without progress of output";
    MessageSeconds: "message_seconds", "time for an unfinished message";
    BindSeconds: "bind_seconds", "time to bind";
    HandshakeSeconds: "handshake_seconds", "time for a request head";
    PermissionMissing: "permission_missing", "binds without proof of work";
    PermissionDenied: "permission_denied", "proofs of work denied";
    Notice: "notice", "clients sent away with a notice";
    ProxyHeaderMalformed: "proxy_header_malformed", "PROXY headers that cannot be read";
    ProxyUntrusted: "proxy_untrusted", "connections to a proxy's listener from elsewhere";
    ForwardedMalformed: "forwarded_malformed",
        "--proxy-header, X-Real-IP or X-Real-Port headers that cannot be read and are ignored";
    UnknownMember: "unknown_member", "unknown secrets of members";
    AddressGuesses: "address_guesses", "unknown secrets of members from one address";
}

impl Limit {
    /// The limit behind a refused command, if there is one.
    pub fn of_refusal(refusal: &Refusal) -> Option<Limit> {
        Some(match refusal {
            Refusal::TooManyAllocates { .. } => Limit::AddressAllocates,
            Refusal::TooManyClaims { .. } => Limit::AddressClaims,
            Refusal::TooManyNameplates => Limit::AddressNameplates,
            Refusal::MailboxFull { .. } => Limit::MailboxMessages,
            Refusal::ServerFull => Limit::StoredBytes,
            Refusal::AddressFull => Limit::AddressStoredBytes,
            Refusal::PermissionRequired => Limit::PermissionMissing,
            Refusal::PermissionDenied { .. } => Limit::PermissionDenied,
            _ => return None,
        })
    }

    /// The limit behind the end of a connection, if there is one.
    pub fn of_close(reason: CloseReason) -> Option<Limit> {
        Some(match reason {
            CloseReason::SlowReader => Limit::OutboxBytes,
            CloseReason::Shed => Limit::BufferedBytes,
            CloseReason::StalledReader => Limit::OutputSeconds,
            CloseReason::SlowSender => Limit::MessageSeconds,
            CloseReason::NotBound => Limit::BindSeconds,
            CloseReason::HandshakeTimeout => Limit::HandshakeSeconds,
            CloseReason::Notice => Limit::Notice,
            CloseReason::BadProxyHeader => Limit::ProxyHeaderMalformed,
            _ => return None,
        })
    }
}

/// Counts of limits, and when the next line about them is due.
#[derive(Debug, Default)]
pub struct LimitLog {
    /// Counts since the start.
    totals: [u64; LIMITS.len()],
    /// Those that have been logged.
    logged: [u64; LIMITS.len()],
    /// No line is logged before then.
    quiet_until: Option<Instant>,
}

impl LimitLog {
    /// Counts that a client has met the limit.
    pub fn hit(&mut self, limit: Limit) {
        self.totals[limit as usize] += 1;
    }

    /// Label and count since the start of each limit that was met.
    pub fn totals(&self) -> Vec<(&'static str, u64)> {
        let totals = LIMITS.iter().zip(self.totals).map(|((label, _), count)| (*label, count));
        totals.filter(|(_, count)| *count > 0).collect()
    }

    /// The count since the start of the limit with this label.
    pub fn total(&self, label: &str) -> u64 {
        let place = LIMITS.iter().position(|(known, _)| *known == label);
        place.map_or(0, |place| self.totals[place])
    }

    /// When the next line is due, if there is something to report.
    pub fn report_at(&self, now: Instant) -> Option<Instant> {
        (self.totals != self.logged).then(|| self.quiet_until.map_or(now, |until| until.max(now)))
    }

    /// Logs what would wait for its time, before the process ends.
    pub fn report_rest(&mut self, now: Instant) {
        if self.totals != self.logged {
            self.report(now);
        }
    }

    /// Logs the counts since the last line.
    pub fn report(&mut self, now: Instant) {
        self.quiet_until = Some(now + LOG_REPEAT);
        let logged = std::mem::replace(&mut self.logged, self.totals);
        let counts = self.totals.iter().zip(logged).map(|(total, logged)| total - logged);
        let met = LIMITS.iter().zip(counts).filter(|(_, count)| *count > 0);
        let list: Vec<String> = met.map(|((_, name), count)| format!("{name} ({count})")).collect();
        warn!("limits met: {}", list.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    #[test]
    fn the_manual_has_the_label_of_each_limit() {
        let manual = include_str!("../manual/monitoring.md");
        for (label, _) in LIMITS {
            assert!(manual.contains(&format!("`{label}`")), "{label}");
        }
    }

    #[test]
    fn options_name_counters_that_exist() {
        for option in limits::TABLE {
            if let Some(counter) = option.counter {
                assert!(LIMITS.iter().any(|(label, _)| *label == counter), "{counter}");
            }
        }
    }
}
