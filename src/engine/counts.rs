//! What the engine counts, and what it tells those who watch it: numbers, never names.
//!
//! A part of the engine, which its parent describes.

use super::Engine;
use crate::engine::client_programs::{ClientPrograms, Program};
use crate::engine::metrics::{Metrics, Tally};
use crate::message::{Command, Field};
use crate::store::{Store, UsageRecord};

impl Engine {
    /// Enables counting of binds per client program, starting from the counts before the start.
    pub fn watch_clients(&mut self, programs: ClientPrograms) {
        self.client_programs = Some(Box::new(programs));
    }

    /// Whether clients can be served as they should be; if not, why, in a few words. What else
    /// makes a server one that nobody should be sent to belongs here.
    pub fn can_serve(&self) -> Result<(), &'static str> {
        if self.is_degraded() {
            Err("storage unavailable")
        } else if self.draining {
            Err("draining")
        } else {
            Ok(())
        }
    }

    /// Pages in the channel database's write-ahead log since its last checkpoint.
    pub fn wal_pages(&self) -> u32 {
        self.storage.wal_pages()
    }

    /// The state, to be counted.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What has happened since the start.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The same, for what happens before it comes to the engine.
    pub fn metrics_mut(&mut self) -> &mut Metrics {
        &mut self.metrics
    }

    /// How often which limit was met since the start.
    pub fn limits_met(&self) -> &Tally {
        self.limit_log.totals()
    }

    /// Binds per client program; counted only with `--admin`.
    pub fn client_programs(&self) -> Option<&ClientPrograms> {
        self.client_programs.as_deref()
    }

    /// Changes that wait for the commit.
    pub fn batch_len(&self) -> usize {
        self.effects.changes.len()
    }

    /// Counts a command that was carried out.
    pub(super) fn count_done(&mut self, command: &Command<'_>) {
        match command {
            Command::Add { .. } => self.metrics.messages_stored += 1,
            Command::Close { mood: Field::Text(mood), .. } => self.metrics.count_mood(Some(mood)),
            Command::Close { .. } => self.metrics.count_mood(None),
            _ => {}
        }
    }

    /// Counts what ended and who bound in a tick that is committed.
    pub(super) fn count_usage(&mut self) {
        for record in &self.effects.usage {
            match record {
                UsageRecord::Nameplate { result, .. } => {
                    self.metrics.nameplate_outcomes.add(*result, 1)
                }
                UsageRecord::Mailbox { result, .. } => {
                    self.metrics.mailbox_outcomes.add(*result, 1)
                }
                UsageRecord::ClientVersion { implementation, version, .. } => {
                    if let Some(programs) = &mut self.client_programs {
                        let program = Program::new(implementation.as_deref(), version.as_deref());
                        programs.count(program, self.clock.wall, 1);
                    }
                }
            }
        }
    }
}
