//! Signals, draining and stopping.

use std::time::Instant;

use log::info;

use super::Server;
use crate::config::reload;
use crate::limits;
use crate::message::close::CloseReason;
use crate::net::listeners::Listeners;

/// Where the server is between its start and its end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    Serving,
    /// Nothing may begin any more; ends when no mailbox is left, or at that time.
    Draining {
        until: Instant,
    },
    /// All connections are being closed; ends when none is left, or at that time.
    Stopping {
        until: Instant,
    },
    /// The service manager keeps everything for the next process.
    Left,
}

impl Stage {
    /// When the stage ends at the latest.
    pub fn until(self) -> Option<Instant> {
        match self {
            Stage::Serving | Stage::Left => None,
            Stage::Draining { until } | Stage::Stopping { until } => Some(until),
        }
    }
}

impl Server {
    /// Does what signals ask for; a server that stops has nothing else to do.
    pub(super) fn handle_signals(&mut self) {
        let asked = self.signals.take();
        if asked.stop {
            self.begin_stop();
        }
        if let Stage::Stopping { .. } = self.stage {
            return;
        }
        if asked.reload {
            self.reload();
        }
        if asked.reopen_logs {
            info!("SIGUSR1 is ignored: the log goes to stderr; SIGQUIT drains");
        }
        if asked.replace {
            self.begin_takeover();
        }
        if asked.leave && !self.begin_leaving() {
            self.begin_stop();
        }
        if asked.drain && matches!(self.stage, Stage::Serving) {
            self.stage = Stage::Draining { until: self.engine.begin_drain() };
        }
    }

    fn reload(&mut self) {
        if let Some(notifier) = &mut self.notifier {
            notifier.reloading();
        }
        if let Some(live) = reload::again(&self.config) {
            self.engine.set_live(live);
        }
    }

    pub(super) fn is_drained(&self) -> bool {
        matches!(self.stage, Stage::Draining { .. }) && self.engine.is_drained()
    }

    /// Stops when a drain has no mailbox left to wait for, or its time is up.
    pub(super) fn end_drain_if_due(&mut self) {
        let Stage::Draining { until } = self.stage else { return };
        if self.engine.is_drained() || until <= self.clock.instant {
            self.engine.end_drain();
            self.begin_stop();
        }
    }

    pub(super) fn begin_stop(&mut self) {
        if let Stage::Stopping { .. } = self.stage {
            return;
        }
        let now = self.clock.instant;
        info!("stopping: closing {} connections", self.connections_count());
        if let Some(notifier) = &mut self.notifier {
            notifier.stopping();
        }
        self.stage = Stage::Stopping { until: now + limits::SHUTDOWN };
        self.listeners = Listeners::default();
        self.admin_connections.stop(now);
        self.connections.close_all(CloseReason::GoingAway, now, &mut self.engine);
    }

    pub(super) fn is_stopped(&self) -> bool {
        match self.stage {
            Stage::Serving | Stage::Draining { .. } => false,
            Stage::Stopping { until } => {
                self.connections_count() == 0 || until <= self.clock.instant
            }
            Stage::Left => true,
        }
    }

    fn connections_count(&self) -> usize {
        self.connections.len() + self.admin_connections.len()
    }
}
