//! One log line for many events: what peers can cause any number of times is told when it begins,
//! then counted, and told together every few seconds. Those who watch get the counts of all time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use log::warn;

use crate::engine::metrics::Tally;
use crate::limits::LOG_REPEAT_SECONDS;
use crate::message::Refusal;

/// What limits are called in the line.
pub const CONNECTIONS: &str = "connections";
pub const ADDRESS_CONNECTIONS: &str = "connections of one address";
pub const ADDRESS_ALLOCATIONS: &str = "allocations of one address";
pub const ADDRESS_CLAIMS: &str = "claims of one address";
pub const ADDRESS_NAMEPLATES: &str = "nameplates of one address";
pub const MAILBOX_MESSAGES: &str = "messages of one mailbox";
pub const STORED_BYTES: &str = "stored bytes";
pub const OUTBOX_BYTES: &str = "output of one slow reader";
pub const BUFFERED_BYTES: &str = "buffered bytes of all connections";
pub const BIND_SECONDS: &str = "time to bind";
pub const HEAD_SECONDS: &str = "time for a request head";

/// Counts since the last line.
#[derive(Debug, Default)]
pub struct LimitLog {
    counts: BTreeMap<&'static str, u64>,
    /// Counts since the start.
    totals: Tally,
    /// Nothing is told before then.
    quiet_until: Option<Instant>,
}

impl LimitLog {
    /// Something of that name has happened once more.
    pub fn hit(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
        self.totals.add(name);
    }

    /// How often what has happened since the start.
    pub fn totals(&self) -> &Tally {
        &self.totals
    }

    /// Counts a refusal, if a limit is behind it.
    pub fn note_refusal(&mut self, refusal: &Refusal) {
        match refusal {
            Refusal::TooFast { command: "allocate", .. } => self.hit(ADDRESS_ALLOCATIONS),
            Refusal::TooFast { .. } => self.hit(ADDRESS_CLAIMS),
            Refusal::TooManyNameplates => self.hit(ADDRESS_NAMEPLATES),
            Refusal::MailboxFull { .. } => self.hit(MAILBOX_MESSAGES),
            Refusal::PermissionRequired => self.hit("binds without proof of work"),
            Refusal::PermissionDenied(_) => self.hit("proofs of work denied"),
            Refusal::ServerFull => self.hit(STORED_BYTES),
            _ => {}
        }
    }

    /// When [`LimitLog::report_if_due`] wants to be called.
    pub fn report_at(&self) -> Option<Instant> {
        self.quiet_until.filter(|_| !self.counts.is_empty())
    }

    /// Writes the line, if there is something to say and it is time.
    pub fn report_if_due(&mut self, now: Instant) {
        if self.counts.is_empty() || self.quiet_until.is_some_and(|until| until > now) {
            return;
        }
        self.quiet_until = Some(now + Duration::from_secs_f64(LOG_REPEAT_SECONDS));
        let counts = std::mem::take(&mut self.counts);
        let list: Vec<String> =
            counts.iter().map(|(name, count)| format!("{name} ({count})")).collect();
        warn!("limits met: {}", list.join(", "));
    }
}
