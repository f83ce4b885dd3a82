//! The time, and how it is written. The time of a tick is read once, and the rooms below get it as
//! an argument; so is the time at which its messages leave. Only what must end in time, such as
//! sending, reads the clock as it goes.

use std::cmp::Ordering;
use std::ops::{Add, Sub};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::limits;

/// A length of time in seconds, as the files and the options have it. May be negative: the
/// difference of two points in time between which the clock was set back.
pub type Seconds = f64;

pub const SECONDS_PER_HOUR: Seconds = 3_600.0;
pub const SECONDS_PER_DAY: Seconds = 86_400.0;

/// A point in time: seconds since 1970, as the wire and the files have it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timestamp(pub f64);

impl Ord for Timestamp {
    fn cmp(&self, other: &Timestamp) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Timestamp {
    fn partial_cmp(&self, other: &Timestamp) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Timestamp {
    fn eq(&self, other: &Timestamp) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Timestamp {}

impl Add<Seconds> for Timestamp {
    type Output = Timestamp;

    fn add(self, seconds: Seconds) -> Timestamp {
        Timestamp(self.0 + seconds)
    }
}

impl Sub<Seconds> for Timestamp {
    type Output = Timestamp;

    fn sub(self, seconds: Seconds) -> Timestamp {
        Timestamp(self.0 - seconds)
    }
}

impl Sub for Timestamp {
    type Output = Seconds;

    fn sub(self, earlier: Timestamp) -> Seconds {
        self.0 - earlier.0
    }
}

/// The time, read once a tick.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// For deadlines.
    pub instant: Instant,
    /// For the wire and the files.
    pub wall: Timestamp,
}

impl Clock {
    /// Reads both clocks.
    pub fn read() -> Clock {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let wall = wall.unwrap_or_default().as_secs_f64();
        Clock { instant: Instant::now(), wall: Timestamp(wall) }
    }

    /// The instant that many seconds later; they must not be negative.
    pub fn after(&self, seconds: Seconds) -> Instant {
        after(self.instant, seconds)
    }

    /// The time at `now` for the rules: the monotonic clock's, counted from this reading of the
    /// wall clock. Setting the wall clock makes nothing older or younger.
    pub fn steady_time(&self, now: Clock) -> Timestamp {
        self.wall + now.instant.saturating_duration_since(self.instant).as_secs_f64()
    }

    /// By how many seconds the wall clock was set since this reading, if that is worth new times.
    pub fn step(&self, now: Clock) -> Option<Seconds> {
        let step = now.wall - self.steady_time(now);
        Some(step).filter(|step| step.abs() > limits::CLOCK_STEP_SECONDS)
    }
}

/// The instant that many seconds later; they must not be negative.
pub fn after(instant: Instant, seconds: Seconds) -> Instant {
    instant + Duration::from_secs_f64(seconds)
}

/// The kernel's monotonic clock, as service managers compare it.
pub fn monotonic_microseconds() -> i64 {
    // Its fields have other types where pointers have 32 bits.
    let now = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
    now.as_micros() as i64
}

/// CPU time of this thread; zero where it cannot be read.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Measures the CPU time of one piece of work after another, and asks the kernel for it only where
/// it matters: unlike reading the clock, that is a system call.
#[derive(Debug)]
pub struct Stopwatch {
    /// When the last piece ended.
    lap_began: Instant,
    /// CPU time at the last measurement; none if it is never asked for.
    measured: Option<Duration>,
    /// Time that pieces have taken since without being measured.
    unmeasured: Duration,
}

impl Stopwatch {
    /// Measures only time from now on.
    pub fn start() -> Stopwatch {
        Stopwatch { lap_began: Instant::now(), measured: None, unmeasured: Duration::ZERO }
    }

    /// Measures CPU time from now on.
    pub fn start_with_cpu() -> Stopwatch {
        Stopwatch { measured: Some(cpu_time()), ..Stopwatch::start() }
    }

    /// Leaves out what has been done since the last piece.
    pub fn skip(&mut self) {
        self.lap_began = Instant::now();
    }

    /// The CPU time of the piece that ends now. A long one is measured, since other processes may
    /// have had the processor; a short one counts as the time that has passed.
    pub fn lap(&mut self) -> Duration {
        let ended = Instant::now();
        let elapsed = ended - std::mem::replace(&mut self.lap_began, ended);
        match &mut self.measured {
            Some(measured) if elapsed >= limits::MEASURED_LAP_MIN => {
                let used = cpu_time();
                let since = used.saturating_sub(std::mem::replace(measured, used));
                since.saturating_sub(std::mem::take(&mut self.unmeasured)).min(elapsed)
            }
            _ => {
                self.unmeasured += elapsed;
                elapsed
            }
        }
    }
}

/// Date and time of day, for people.
pub fn utc(wall: Timestamp) -> String {
    format!("{} UTC", date_and_time(wall.0 as i64, ' '))
}

/// Date and time of day to the millisecond, as RFC 3339 writes it.
pub fn rfc3339(wall: Timestamp) -> String {
    let milliseconds = (wall.0 * 1_000.0) as i64;
    let (seconds, rest) = (milliseconds.div_euclid(1_000), milliseconds.rem_euclid(1_000));
    format!("{}.{rest:03}Z", date_and_time(seconds, 'T'))
}

/// The date and the time of day in UTC, with a character between them.
fn date_and_time(seconds: i64, between: char) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02}{between}{hour:02}:{minute:02}:{second:02}")
}

/// Year, month and day, `days` after 1970-01-01. Counts in years that begin with March, so that
/// the leap day comes last, from a year that begins a cycle of 400.
fn date(days: i64) -> (i64, i64, i64) {
    const CYCLE_DAYS: i64 = 400 * 365 + 97;
    const FROM_MARCH_OF_YEAR_0: i64 = 719_468;
    let days = days + FROM_MARCH_OF_YEAR_0;
    let (cycle, day) = (days.div_euclid(CYCLE_DAYS), days.rem_euclid(CYCLE_DAYS));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // March to July have 153 days, as have August to December.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (cycle * 400 + year + next_year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steady_time_runs_on_when_the_wall_clock_is_set() {
        let origin = Clock { instant: Instant::now(), wall: Timestamp(1_000.0) };
        for (elapsed, wall, step) in [
            (10, 1_010.0, None),
            (10, 1_040.0, None),
            (10, 1_041.0, Some(31.0)),
            (10, 979.0, Some(-31.0)),
        ] {
            let instant = origin.instant + Duration::from_secs(elapsed);
            let clock = Clock { instant, wall: Timestamp(wall) };
            assert_eq!(origin.steady_time(clock), Timestamp(1_010.0));
            assert_eq!(origin.step(clock), step);
        }
    }

    #[test]
    fn the_time_is_written_as_people_write_it() {
        for (wall, expected) in [
            (0.0, "1970-01-01 00:00:00 UTC"),
            (951_782_399.9, "2000-02-28 23:59:59 UTC"),
            (951_782_400.0, "2000-02-29 00:00:00 UTC"),
            (951_868_800.0, "2000-03-01 00:00:00 UTC"),
            (1_735_689_599.0, "2024-12-31 23:59:59 UTC"),
            (1_735_689_600.0, "2025-01-01 00:00:00 UTC"),
            (4_107_542_400.0, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(Timestamp(wall)), expected);
        }
    }
}
