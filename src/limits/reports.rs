//! Limits of what operators see: the status page, its history, and the reports.

use std::time::Duration;

use super::{KIB, MIB};

/// The last hour on the status page: buckets, and the length of each.
pub const HOUR_BUCKETS: usize = 60;
pub const HOUR_BUCKET_SECONDS: f64 = 60.0;

/// The last day on the status page: buckets, and the length of each.
pub const DAY_BUCKETS: usize = 96;
pub const DAY_BUCKET_SECONDS: f64 = 900.0;

/// Rows of the usage database that are read at a start for the last day's history, newest first.
/// Reading them takes less than half a second; a busier server begins with a part of the day.
pub const USAGE_ROWS_READ_MAX: i64 = 100_000;

/// Client programs counted separately, by implementation and version; others count together.
pub const CLIENTS_KEPT_MAX: usize = 64;

/// Client programs that the status page shows; the rest is shown as one.
pub const CLIENTS_SHOWN_MAX: usize = 20;

/// Characters kept of a client program's implementation and version.
pub const CLIENT_NAME_CHARS_MAX: usize = 40;

/// Hours for which client programs are counted.
pub const CLIENT_HOURS: usize = 24;

/// How long a report waits for a database locked by another process.
pub const REPORT_BUSY: Duration = Duration::from_secs(2);

/// How often a report tries again to open a file that a server may just be opening or closing, and
/// the time in between.
pub const REPORT_RETRIES: usize = 10;
pub const REPORT_RETRY: Duration = Duration::from_millis(20);

/// Seconds after which the `current` row of the usage database is stale, as in the munin plugins:
/// the server rewrites it every five minutes.
pub const REPORT_STALE_SECONDS: f64 = 360.0;

/// Kinds of clients that a report lists; the others are counted together.
pub const REPORT_CLIENTS_MAX: usize = 20;

/// Commands of one connection that a report lists, the last ones.
pub const REPORT_COMMANDS_MAX: usize = 5;

/// Characters that a table shows of a text chosen by a client.
pub const REPORT_TEXT_CHARS_MAX: usize = 40;

/// Characters shown of an error that a server or a command answers with: three lines of openssl.
pub const REPORT_ERROR_CHARS_MAX: usize = 400;

/// How long a report waits for the answer of the admin listener.
pub const REPORT_ANSWER: Duration = Duration::from_secs(5);

/// Bytes of such an answer; real ones have a few thousand.
pub const REPORT_ANSWER_BYTES_MAX: usize = MIB;

/// How long a step of `check` may take: what a patient user waits.
pub const CHECK_STEP: Duration = Duration::from_secs(10);

/// How long `check` waits for a server to take back what a failed exchange holds.
pub const CHECK_LEAVE: Duration = Duration::from_secs(2);

/// Bytes of a message that `check` takes from a server; a welcome has the longest ones.
pub const CHECK_MESSAGE_BYTES_MAX: usize = MIB;

/// Bytes of a server's answer to the upgrade of `check`; proxies add a few lines.
pub const CHECK_HEAD_BYTES_MAX: usize = 16 * KIB;

/// Bytes of what a command beside the process (`check --via`, the check of a new program) writes
/// that are looked at, the first ones.
pub const COMPANION_OUTPUT_BYTES_MAX: u64 = 64 * KIB as u64;

/// Buckets of a histogram: three for each power of ten of [`DURATION_BOUNDS`].
pub const HISTOGRAM_BUCKETS: usize = 19;

/// Upper bounds of the buckets of durations, in seconds: from an idle tick to one that waited for a
/// failing disk.
pub const DURATION_BOUNDS: [f64; HISTOGRAM_BUCKETS] = [
    1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0,
    2.0, 5.0, 10.0,
];

/// Upper bounds of the buckets of changes in one commit: from a single `add` to many clients at
/// once.
pub const BATCH_CHANGES_BOUNDS: [f64; HISTOGRAM_BUCKETS] = [
    1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 256.0, 512.0,
    1_024.0, 4_096.0, 16_384.0,
];
