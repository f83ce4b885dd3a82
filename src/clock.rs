//! The time. Read at the beginning of a tick and when its messages leave, by the server alone; all
//! others are told.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::limits;
use crate::message::Seconds;

/// The time, read once a tick.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// For deadlines.
    pub instant: Instant,
    /// For the wire and the files.
    pub wall: Seconds,
}

impl Clock {
    /// Reads both clocks.
    pub fn read() -> Clock {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        Clock { instant: Instant::now(), wall: wall.map_or(0.0, |since| since.as_secs_f64()) }
    }

    /// When the wall clock will show `wall`, if nobody sets it; sooner if that is far off, in
    /// case somebody does.
    pub fn after_wall(&self, wall: Seconds) -> Instant {
        self.after((wall - self.wall).clamp(0.0, limits::SLEEP_SECONDS_MAX))
    }

    /// So many seconds from now.
    pub fn after(&self, seconds: f64) -> Instant {
        self.instant + Duration::from_secs_f64(seconds)
    }
}
