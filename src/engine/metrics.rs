//! Counters since the start.
//!
//! Counted with and without `--admin`, where events happen; a counter costs an addition. Pure: no
//! I/O, no clock, no log. They hold nothing that peers could make grow, and nothing that identifies
//! a peer.

use crate::message::{COMMAND_NAMES, Outcome, OutcomeCounts};
use crate::store::{UsageKind, UsageRecord};

/// Counters since the start of the process.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections of clients.
    pub accepted: u64,
    /// Connections of clients that ended, by reason.
    pub ended: Tally,
    /// Bytes that came from clients' sockets.
    pub received_bytes: u64,
    /// Commands, at their [`crate::message::Command::index`].
    pub commands: [u64; COMMAND_NAMES.len()],
    /// `error` answers, by [`crate::message::Refusal::label`].
    pub errors: Tally,
    /// Messages stored by `add`.
    pub messages_stored: u64,
    /// Nameplates that ended.
    pub nameplate_outcomes: OutcomeCounts,
    /// Mailboxes that ended.
    pub mailbox_outcomes: OutcomeCounts,
    /// `close`s, by mood.
    pub moods: Tally,
    pub commits_failed: u64,
}

impl Metrics {
    /// Counts the end of a nameplate or mailbox.
    pub fn count_end(&mut self, record: &UsageRecord) {
        if let UsageRecord::Ended { kind, result, .. } = record {
            let outcomes = match kind {
                UsageKind::Nameplate => &mut self.nameplate_outcomes,
                UsageKind::Mailbox { .. } => &mut self.mailbox_outcomes,
            };
            outcomes.add(*result, 1);
        }
    }

    /// Counts a `close`. Moods that the protocol does not define count as one.
    pub fn count_mood(&mut self, mood: Option<&str>) {
        self.moods.add(match mood {
            Some(mood) => Outcome::of_mood(mood).map_or("other", Outcome::name),
            None => "none",
        });
    }
}

/// Counts by name. The names are few and fixed, so a linear search is fast.
#[derive(Clone, Debug, Default)]
pub struct Tally(Vec<(&'static str, u64)>);

impl Tally {
    pub fn add(&mut self, name: &'static str) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => self.0.push((name, 1)),
        }
    }

    /// The names that occurred, in the order of their first occurrence, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moods_outside_the_protocol_count_as_one() {
        let mut metrics = Metrics::default();
        for mood in [Some("happy"), Some("sleepy"), Some("hungry"), None] {
            metrics.count_mood(mood);
        }
        let moods: Vec<_> = metrics.moods.iter().collect();
        assert_eq!(moods, [("happy", 1), ("other", 2), ("none", 1)]);
    }
}
