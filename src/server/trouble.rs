//! Causes trouble deliberately, for the tests of clients (manual: testing 2).

use std::thread;
use std::time::{Duration, Instant};

use super::Server;
use crate::config::trouble::Trouble;
use crate::limits::TROUBLE_LOOK;
use crate::message::CloseReason;

impl Server {
    /// Causes the trouble that this tick's commands have made due; returns for how long the server
    /// is to stand still once the tick's output has left.
    pub(super) fn cause_trouble(&mut self) -> Duration {
        let now = self.clock.instant;
        let mut pause = Duration::ZERO;
        for (trouble, conn) in self.engine.take_trouble() {
            match trouble {
                Trouble::Restart { .. } => {
                    self.connections.close_all(CloseReason::GoingAway, now, &mut self.engine);
                }
                Trouble::Drop { .. } => self.connections.cut(conn),
                Trouble::Freeze { time, .. } => pause += time,
                Trouble::Crowded | Trouble::Error(_) | Trouble::SlowReplay(_) => {}
            }
        }
        pause
    }

    /// Stands still after a tick: for `pause`, or before the next message of a slow replay.
    pub(super) fn stand_still(&self, pause: Duration) {
        let between_messages = self.config.troubles.replay_pause();
        let between_messages = between_messages.filter(|_| self.connections.has_unsent());
        let pause = pause + between_messages.unwrap_or_default();
        if pause.is_zero() {
            return;
        }
        let until = Instant::now() + pause;
        // A stop does not wait for the end of it.
        while !self.signals.must_stop() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(TROUBLE_LOOK));
        }
    }
}
