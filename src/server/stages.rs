//! The stages of a server's life, and the signals that change it: reloading, draining, stopping.

use std::time::Instant;

use super::Server;
use super::signals::Request;
use super::takeover::Successor;
use crate::config::reload;
use crate::limits;
use crate::message::CloseReason;
use crate::net::listeners::Listeners;
use crate::sys::logging::info;
use crate::sys::program::Check;

/// Where the server is between its start and its end.
#[derive(Debug)]
pub(super) enum Stage {
    /// Until a signal asks for something else.
    Serving,
    /// A new program checks itself; ends with it, or at that time.
    Checking { check: Check, until: Instant },
    /// Connections come to a point at which they can be handed over; ends then, or at that time.
    HandingOver { successor: Successor, until: Instant },
    /// Nothing may begin any more; ends when no mailbox is left, or at that time.
    Draining { until: Instant },
    /// All connections are being closed; ends when none is left, or at that time.
    Stopping { until: Instant },
    /// The service manager keeps everything for the next process.
    Left,
}

impl Stage {
    /// When to look at it again at the latest.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        match self {
            Stage::Serving | Stage::Left => None,
            Stage::Checking { .. } => Some(now + limits::TAKEOVER_CHECK_POLL),
            Stage::HandingOver { until, .. }
            | Stage::Draining { until }
            | Stage::Stopping { until } => Some(*until),
        }
    }
}

impl Server {
    /// Does what signals ask for; a server that stops has nothing else to do.
    pub(super) fn handle_signals(&mut self) {
        for request in self.signals.take() {
            if let Stage::Stopping { .. } = self.stage {
                return;
            }
            match request {
                Request::Stop => self.begin_stop(),
                Request::Reload => self.reload(),
                Request::ReopenLogs => {
                    info!("SIGUSR1 is ignored: the log goes to stderr; SIGQUIT drains");
                }
                Request::Replace => self.begin_takeover(),
                Request::Leave => self.begin_leaving(),
                Request::Drain => self.begin_drain(),
            }
        }
    }

    fn reload(&mut self) {
        if let Some(notifier) = &mut self.notifier {
            notifier.reloading();
        }
        if let Some(settings) = reload::again(&self.config) {
            self.engine.replace_settings(settings);
        }
    }

    fn begin_drain(&mut self) {
        match self.stage {
            Stage::Serving => {}
            Stage::Checking { .. } | Stage::HandingOver { successor: Successor::Program, .. } => {
                self.refuse_takeover("the server drains");
            }
            // It ends sooner than a drain would.
            Stage::HandingOver { successor: Successor::NextProcess, .. }
            | Stage::Draining { .. }
            | Stage::Stopping { .. }
            | Stage::Left => return,
        }
        self.stage = Stage::Draining { until: self.engine.begin_drain() };
    }

    /// Whether a drain has come to its end before its time.
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

    /// Closes all connections and listeners; the server ends when the peers have closed, too.
    pub(super) fn begin_stop(&mut self) {
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

    /// Whether the loop is to end.
    pub(super) fn is_stopped(&self) -> bool {
        match self.stage {
            Stage::Stopping { until } => {
                self.connections_count() == 0 || until <= self.clock.instant
            }
            Stage::Left => true,
            _ => false,
        }
    }

    fn connections_count(&self) -> usize {
        self.connections.len() + self.admin_connections.len()
    }
}
