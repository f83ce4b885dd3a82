//! The limits that clients meet: counted since the start for the metrics, and logged together, at
//! most one line every [`LOG_REPEAT`], since a peer can meet a limit at any rate.

use std::collections::BTreeMap;
use std::time::Instant;

use log::warn;

use crate::engine::metrics::Tally;
use crate::limits::LOG_REPEAT;
use crate::message::close::CloseReason;
use crate::message::{Refusal, Throttled};

/// A limit, or a rule that costs a peer its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    Connections,
    AddressConnections,
    AddressAllocates,
    AddressClaims,
    AddressNameplates,
    AddressRecords,
    MessageBytes,
    MailboxMessages,
    StoredBytes,
    AddressStoredBytes,
    Evicted,
    OutboxBytes,
    BufferedBytes,
    OutputSeconds,
    MessageSeconds,
    BindSeconds,
    HandshakeSeconds,
    PermissionMissing,
    PermissionDenied,
    Notice,
    ProxyHeaderMalformed,
    ProxyUntrusted,
    ForwardedMalformed,
    UnknownMember,
    AddressGuesses,
}

/// One row a limit, in the order of the enum: its label in the metrics, and its name in the log.
const LIMITS: [(Limit, &str, &str); 25] = [
    (Limit::Connections, "connections", "connections"),
    (Limit::AddressConnections, "address_connections", "connections of one address"),
    (Limit::AddressAllocates, "address_allocates", "allocations of one address"),
    (Limit::AddressClaims, "address_claims", "claims of one address"),
    (Limit::AddressNameplates, "address_nameplates", "nameplates of one address"),
    (Limit::AddressRecords, "address_records", "usage of one address that is not recorded"),
    (Limit::MessageBytes, "message_bytes", "bytes of one message"),
    (Limit::MailboxMessages, "mailbox_messages", "messages of one mailbox"),
    (Limit::StoredBytes, "stored_bytes", "stored bytes"),
    (Limit::AddressStoredBytes, "address_stored_bytes", "stored bytes of one address"),
    (Limit::Evicted, "evicted", "mailboxes deleted because the store was full"),
    (Limit::OutboxBytes, "outbox_bytes", "output of one slow reader"),
    (Limit::BufferedBytes, "buffered_bytes", "buffered bytes of all connections"),
    (Limit::OutputSeconds, "output_seconds", "time without progress of output"),
    (Limit::MessageSeconds, "message_seconds", "time for an unfinished message"),
    (Limit::BindSeconds, "bind_seconds", "time to bind"),
    (Limit::HandshakeSeconds, "handshake_seconds", "time for a request head"),
    (Limit::PermissionMissing, "permission_missing", "binds without proof of work"),
    (Limit::PermissionDenied, "permission_denied", "proofs of work denied"),
    (Limit::Notice, "notice", "clients sent away with a notice"),
    (Limit::ProxyHeaderMalformed, "proxy_header_malformed", "PROXY headers that cannot be read"),
    (Limit::ProxyUntrusted, "proxy_untrusted", "connections to a proxy's listener from elsewhere"),
    (
        Limit::ForwardedMalformed,
        "forwarded_malformed",
        "--proxy-header, X-Real-IP or X-Real-Port headers that cannot be read and are ignored",
    ),
    (Limit::UnknownMember, "unknown_member", "unknown secrets of members"),
    (Limit::AddressGuesses, "address_guesses", "unknown secrets of members from one address"),
];

impl Limit {
    pub fn label(self) -> &'static str {
        LIMITS[self as usize].1
    }

    /// The limit behind a refused command, if there is one.
    pub fn of_refusal(refusal: &Refusal) -> Option<Limit> {
        Some(match refusal {
            Refusal::TooFast { command: Throttled::Allocate, .. } => Limit::AddressAllocates,
            Refusal::TooFast { command: Throttled::Claim, .. } => Limit::AddressClaims,
            Refusal::TooManyNameplates => Limit::AddressNameplates,
            Refusal::MailboxFull { .. } => Limit::MailboxMessages,
            Refusal::ServerFull => Limit::StoredBytes,
            Refusal::AddressFull => Limit::AddressStoredBytes,
            Refusal::PermissionRequired => Limit::PermissionMissing,
            Refusal::PermissionDenied(_) => Limit::PermissionDenied,
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

#[derive(Debug, Default)]
pub struct LimitLog {
    /// Counts since the last line.
    counts: BTreeMap<Limit, u64>,
    /// Counts since the start, by label.
    totals: Tally,
    /// No line is logged before then.
    quiet_until: Option<Instant>,
}

impl LimitLog {
    pub fn hit(&mut self, limit: Limit) {
        *self.counts.entry(limit).or_default() += 1;
        self.totals.add(limit.label());
    }

    /// Counts since the start, by [`Limit::label`].
    pub fn totals(&self) -> &Tally {
        &self.totals
    }

    /// When the next line is due, if there is something to report.
    pub fn report_at(&self, now: Instant) -> Option<Instant> {
        (!self.counts.is_empty()).then(|| self.quiet_until.map_or(now, |until| until.max(now)))
    }

    pub fn report(&mut self, now: Instant) {
        self.quiet_until = Some(now + LOG_REPEAT);
        let counts = std::mem::take(&mut self.counts);
        let list: Vec<String> = counts
            .iter()
            .map(|(limit, count)| format!("{} ({count})", LIMITS[*limit as usize].2))
            .collect();
        warn!("limits met: {}", list.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    #[test]
    fn each_limit_has_its_row_and_its_label_in_the_manual() {
        let manual = include_str!("../manual/monitoring.md");
        for (index, (limit, label, _)) in LIMITS.into_iter().enumerate() {
            assert_eq!(limit as usize, index);
            assert!(manual.contains(&format!("`{label}`")), "{label}");
        }
    }

    #[test]
    fn options_name_counters_that_exist() {
        for option in limits::TABLE {
            if let Some(counter) = option.counter {
                assert!(LIMITS.iter().any(|(_, label, _)| *label == counter), "{counter}");
            }
        }
    }
}
