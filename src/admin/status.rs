//! All that is told, gathered once for an answer, whatever its form.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::history::Step;
use super::{Admin, Present};
use crate::engine::metrics::{Histogram, Timings};
use crate::limits::DURATION_BOUNDS;
use crate::message::outcome::OutcomeCounts;
use crate::storage::db::MEMORY;
use crate::sys::clock::{Seconds, Timestamp};
use crate::sys::process::{self, Process};

/// The server now and lately.
#[derive(Debug)]
pub struct Status<'a> {
    pub version: &'static str,
    pub started: Timestamp,
    pub now: Timestamp,
    pub uptime: Seconds,
    pub health: Result<(), &'static str>,
    /// What the server and the engine know.
    pub present: Present<'a>,
    pub timings: &'a Timings,
    pub process: Process,
    pub files: Vec<DatabaseFile>,
    /// Steps of the last hour, and of the last day, oldest first.
    pub hour: Vec<Step>,
    pub day: Vec<Step>,
}

/// A database in use.
#[derive(Debug)]
pub struct DatabaseFile {
    pub name: &'static str,
    pub path: PathBuf,
    /// None in memory, or when it cannot be looked at.
    pub bytes: Option<u64>,
    /// Its write-ahead log.
    pub wal_bytes: Option<u64>,
}

impl<'a> Status<'a> {
    /// Asks everybody.
    pub fn gather(admin: &'a Admin, present: Present<'a>) -> Status<'a> {
        let totals = Step::totals(present.engine.metrics(), &admin.timings);
        let now = admin.wall(present.clock.instant);
        Status {
            version: env!("CARGO_PKG_VERSION"),
            started: admin.started.wall,
            now,
            uptime: now - admin.started.wall,
            health: present.engine.can_serve(),
            present,
            timings: &admin.timings,
            process: Process::read(),
            files: files(present),
            hour: admin.history.hour.steps(&totals),
            day: admin.history.day.steps(&totals),
        }
    }
}

fn files(present: Present<'_>) -> Vec<DatabaseFile> {
    let config = present.config;
    let named = [
        ("channel", Some(&config.channel_db)),
        ("usage", config.usage_db.as_ref()),
        ("addrid", config.addrid_db.as_ref()),
    ];
    named.into_iter().filter_map(|(name, path)| Some(DatabaseFile::look(name, path?))).collect()
}

impl DatabaseFile {
    fn look(name: &'static str, path: &Path) -> DatabaseFile {
        let is_file = path != Path::new(MEMORY);
        let bytes = if is_file { process::file_bytes(path) } else { None };
        let mut log = OsString::from(path);
        log.push("-wal");
        // No log is an empty one.
        let wal_bytes = bytes.map(|_| process::file_bytes(Path::new(&log)).unwrap_or(0));
        DatabaseFile { name, path: path.to_owned(), bytes, wal_bytes }
    }
}

/// Mailboxes that ended in these steps.
pub fn results(steps: &[Step]) -> OutcomeCounts {
    let mut sums = OutcomeCounts::default();
    steps.iter().for_each(|step| sums.merge(&step.outcomes));
    sums
}

/// Half of all values, and all but a hundredth of them, take at most this long.
pub fn quantiles(histogram: &Histogram) -> Option<(Seconds, Seconds)> {
    let quantile = |share| histogram.quantile(share, &DURATION_BOUNDS);
    Some((quantile(0.5)?, quantile(0.99)?))
}

/// The durations of all these steps together.
pub fn merged(steps: &[Step], durations: impl Fn(&Step) -> &Histogram) -> Histogram {
    let mut all = Histogram::default();
    steps.iter().for_each(|step| all.merge(durations(step)));
    all
}
