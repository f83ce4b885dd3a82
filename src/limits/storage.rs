//! The files and their commits: how long the loop waits for them, what waits for them, what they
//! keep.

use std::time::Duration;

use super::{KIB, MIB};

/// Default of `--generation-duration`: seconds that one generation of address ids lasts (manual:
/// files 4).
pub const GENERATION_SECONDS: f64 = 86_400.0;

/// Addresses numbered in one generation; one more starts a new generation early. At about 64
/// bytes each this bounds the table to 4 MiB.
pub const ADDRESS_IDS_MAX: usize = 65_536;

/// How long a commit waits for a database locked by another process before the storage counts as
/// failed. The loop is blocked meanwhile.
pub const DATABASE_BUSY: Duration = Duration::from_millis(100);

/// The same while a file is opened or, by a start, brought into its journal mode: a reader may have
/// it for a moment.
pub const DATABASE_OPEN_BUSY: Duration = Duration::from_secs(2);

/// How long the last write of usage records, before a stop or a takeover, waits for a lock of
/// another process: no client waits then.
pub const USAGE_LAST_WRITE_BUSY: Duration = Duration::from_secs(1);

/// Bytes that must be free beside a file before shared memory in it is used: a piece of 32 KiB, and
/// as much for the log itself.
pub const DATABASE_RESERVE_BYTES: u64 = 64 * KIB as u64;

/// Bytes to which a write-ahead log shrinks again after a reader has blocked it, or a large batch
/// went through it: twice what it has in ordinary service, in a file that was made here.
pub const LOG_BYTES_KEPT: usize = 4 * MIB;

/// Time after which a reader that keeps the write-ahead log from being copied is logged, and time
/// between two attempts to copy the rest.
pub const LOG_BLOCKED_TOLERATED: Duration = Duration::from_secs(120);
pub const LOG_BLOCKED_RETRY: Duration = Duration::from_secs(5);

/// Bytes of a page in files that are made here. A message dirties a few pages, each of which
/// goes to the log in whole: SQLite's own 4096 more than doubles the bytes of an exchange, and
/// saves no time.
pub const DATABASE_PAGE_BYTES: usize = KIB;

/// Pages that a record dirties in its table and indexes, at most.
pub const RECORD_PAGES: usize = 4;

/// Between two attempts to leave degraded mode (manual: durability 3).
pub const STORAGE_RETRY: Duration = Duration::from_secs(1);

/// Time without a commit after which the database frees its cached pages: after a burst they would
/// fragment the heap.
pub const STORAGE_QUIET: Duration = Duration::from_millis(250);

/// Bytes that an attempt to leave degraded mode writes: this many more than the room that the
/// failed batch needed, up to a maximum. The file may keep them as free pages.
pub const STORAGE_PROBE_BYTES_MIN: usize = 128 * KIB;
pub const STORAGE_PROBE_BYTES_MAX: usize = 4 * MIB;

/// Each attempt takes that room to be smaller by this part: of 4 MiB little is left after a minute.
/// A disk that stays full has one failure, not one every second.
pub const STORAGE_PROBE_SHRINKS: usize = 16;

/// Room on the disk that commits leave, so that an attempt to leave degraded mode and a start find
/// some: with them the server gets to where it may delete what has expired.
pub const DATABASE_SPARE_BYTES: u64 = 256 * KIB as u64;

/// Pages of a write-ahead log after which the room on its disk is looked at again: less often costs
/// nothing more, and other programs use the disk, too.
pub const ROOM_CHECK_PAGES: u32 = 256;

/// How far usage, address and connection records may lag (manual: durability 4): a second, less a
/// share for the write itself.
pub const RECORDS_FLUSH: Duration = Duration::from_millis(500);

/// Commands of one connection that the connection table keeps.
pub const TRACKED_COMMANDS_MAX: u32 = 1_000;

/// Records that wait for a failing usage or address database before they are dropped.
pub const RECORDS_BACKLOG_MAX: usize = 10_000;

/// Longest name in a row of the usage database, in bytes.
pub const USAGE_NAME_BYTES_MAX: usize = 64;

/// Rows of a table that one write of usage records examines for rows that are too old, and those of
/// them that it deletes: about a millisecond each.
pub const USAGE_ROWS_EXAMINED_AT_ONCE: usize = 5_000;
pub const USAGE_ROWS_DELETED_AT_ONCE: usize = 1_000;

/// Room on its file system below which usage is not recorded: what the channel database may need
/// for its log and a busy hour. On a small file system one part in [`USAGE_ROOM_DIVISOR`] of it;
/// recording goes on when there is a quarter more.
pub const USAGE_ROOM_BYTES: u64 = 64 * MIB as u64;

/// See [`USAGE_ROOM_BYTES`].
pub const USAGE_ROOM_DIVISOR: u64 = 8;

/// WAL pages after which the log is copied into the database even in a busy tick: few, so that each
/// time the clients wait no longer than for some commits.
pub const CHECKPOINT_PAGES: u32 = 2_000;

/// WAL pages worth a checkpoint when the loop has nothing else to do.
pub const CHECKPOINT_IDLE_PAGES: u32 = 250;

/// Time without any event after which the loop counts as idle enough for a checkpoint.
pub const CHECKPOINT_IDLE: Duration = Duration::from_millis(20);
