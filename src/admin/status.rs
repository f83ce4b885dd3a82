//! What an answer of the admin listener shows, collected once, whatever the format.

use std::path::{Path, PathBuf};

use super::histogram::Histogram;
pub use super::history::{Bucket, Counts};
use super::{Admin, ServerView};
use crate::limits::{CLIENTS_SHOWN_MAX, DURATION_BOUNDS};
use crate::message::ClientVersion;
use crate::storage::db::{self, MEMORY};
use crate::sys::clock::{Seconds, Timestamp};
use crate::sys::process::{self, Process};

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub struct Status<'a> {
    pub admin: &'a Admin,
    pub view: ServerView<'a>,
    /// By the clock of the history, which is never set.
    pub now: Timestamp,
    pub uptime: Seconds,
    pub process: Process,
    pub files: Vec<FileSizes>,
    /// The last hour and the last day, oldest first.
    pub hour: Vec<Bucket>,
    pub day: Vec<Bucket>,
}

#[derive(Debug)]
pub struct FileSizes {
    pub name: &'static str,
    pub path: PathBuf,
    /// Unknown in memory, or if the file cannot be read.
    pub bytes: Option<u64>,
    pub wal_bytes: Option<u64>,
}

impl<'a> Status<'a> {
    pub fn collect(admin: &'a Admin, view: ServerView<'a>) -> Status<'a> {
        let totals = Counts::totals(&view.engine.metrics, &admin.timings);
        let files = view.config.databases().map(|(name, path)| FileSizes::measure(name, path));
        let now = admin.started.steady_time(view.clock);
        let [hour, day] = admin.history.each_ref().map(|series| series.buckets(&totals));
        Status {
            admin,
            view,
            now,
            uptime: now - admin.started.wall,
            process: Process::read(),
            files: files.collect(),
            hour,
            day,
        }
    }

    /// The client programs that bound most in the last day, and the binds of all others.
    pub fn client_programs(&self) -> (Vec<(&'a ClientVersion, u64)>, u64) {
        let Some(programs) = &self.view.engine.client_programs else { return (Vec::new(), 0) };
        let (mut shown, mut others) = programs.last_day(self.now);
        let rest = shown.split_off(shown.len().min(CLIENTS_SHOWN_MAX));
        others += rest.iter().map(|(_, binds)| binds).sum::<u64>();
        (shown, others)
    }
}

impl FileSizes {
    fn measure(name: &'static str, path: &Path) -> FileSizes {
        let bytes = if path == Path::new(MEMORY) { None } else { process::file_bytes(path) };
        // Without a log there is nothing in it.
        let wal_bytes = bytes.map(|_| db::log_bytes(path).unwrap_or(0));
        FileSizes { name, path: path.to_owned(), bytes, wal_bytes }
    }
}

/// The median and the 99th percentile of durations.
pub fn quantiles(histogram: &Histogram) -> Option<(Seconds, Seconds)> {
    let quantile = |share| histogram.quantile(share, &DURATION_BOUNDS);
    Some((quantile(0.5)?, quantile(0.99)?))
}
