//! One log line for many events: what peers can cause any number of times is told when it begins,
//! then counted, and told together every few seconds.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use log::warn;

use crate::limits::LOG_REPEAT_SECONDS;
use crate::message::Refusal;

/// Counts since the last line.
#[derive(Debug, Default)]
pub struct LimitLog {
    counts: BTreeMap<&'static str, u64>,
    /// Nothing is told before then.
    quiet_until: Option<Instant>,
}

impl LimitLog {
    /// Something of that name has happened once more.
    pub fn hit(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    /// Counts a refusal, if a limit is behind it.
    pub fn note_refusal(&mut self, refusal: &Refusal) {
        match refusal {
            Refusal::TooFast { command: "allocate", .. } => self.hit("allocations of one address"),
            Refusal::TooFast { .. } => self.hit("claims of one address"),
            Refusal::TooManyNameplates => self.hit("nameplates of one address"),
            Refusal::MailboxFull { .. } => self.hit("messages of one mailbox"),
            Refusal::PermissionRequired => self.hit("binds without proof of work"),
            Refusal::PermissionDenied(_) => self.hit("proofs of work denied"),
            Refusal::ServerFull => self.hit("stored bytes"),
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
