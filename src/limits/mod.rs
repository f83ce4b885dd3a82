//! The numbers that bound what peers and operators can make the server do: unit, default and reason
//! of each, in one place.
//!
//! Other modules name these and write no literal for them. What a protocol or a format fixes, and
//! how one part works inside, is beside the code that reads it. What an operator may change is in
//! [`Limits`], one row each; the rest are constants, by subject in the files beside this one. All
//! else here is arithmetic on them.

use std::time::Duration;

mod addresses;
mod net;
mod reports;
mod settings;
mod storage;
mod store;

pub use addresses::*;
pub use net::*;
pub use reports::*;
pub use settings::*;
pub use storage::*;
pub use store::*;

/// A row of the table of limits: an option of the command line.
#[derive(Debug)]
pub struct LimitRow {
    /// Dashes included.
    pub option: &'static str,
    /// Default, in `unit`; none if it follows from something else, which is `follows`.
    pub default: Option<f64>,
    pub follows: &'static str,
    /// Whether only whole numbers make sense.
    pub whole: bool,
    pub unit: &'static str,
    /// What it bounds, in a sentence.
    pub about: &'static str,
    /// What a client that meets it sees.
    pub effect: &'static str,
    /// The label of the count of how often it is met; several limits can share one.
    pub counter: Option<&'static str>,
    /// Sets it, in `unit`.
    pub set: fn(&mut Limits, f64),
    /// The value in force; none if there is no limit.
    pub get: fn(&Limits) -> Option<f64>,
}

/// The number, unless it stands for no limit.
const fn unless_unlimited(number: f64) -> Option<f64> {
    if number < usize::MAX as f64 { Some(number) } else { None }
}

/// Makes the struct, its defaults and the table from one list.
macro_rules! limits {
    ($($field:ident: $type:ty = $default:expr, $option:literal,
       $unit:literal $(/ $follows:literal)?, $about:literal,
       $effect:literal $(, $counter:expr)?;)*) => {
        /// The limits in force.
        #[derive(Clone, Debug)]
        pub struct Limits {
            $(#[doc = concat!($about, " (", $unit, ")")] pub $field: $type,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Limits { $($field: $default,)* }
            }
        }

        /// All limits that an operator may change.
        pub const TABLE: &[LimitRow] = &[$(LimitRow {
            option: $option,
            default: unless_unlimited($default as $type as f64),
            follows: [$($follows,)? ""][0],
            whole: (0.5 as $type) as f64 == 0.0, // a whole type has no half
            unit: $unit,
            about: $about,
            effect: $effect,
            counter: [$(Some($counter),)? None][0],
            set: |limits, number| limits.$field = number as $type, // saturates
            get: |limits| unless_unlimited(limits.$field as f64),
        },)*];
    };
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

limits! {
    // Messages. Honest ones have a few hundred bytes; long texts are hex, twice their size.
    message_bytes_max: usize = 4 * MIB, "--limit-message-bytes", "bytes",
        "One message, after reassembly.", "`error` with `ack`; above 64 MiB close 1009",
        "message_bytes";
    frame_bytes_max: usize = usize::MAX, "--limit-frame-bytes", "bytes" / "the limit of a message",
        "One WebSocket frame.", "`error` with `ack`; above 64 MiB close 1009", "message_bytes";
    name_bytes_max: usize = 256, "--limit-name-bytes", "bytes",
        "An app id, side, mailbox id, phase or mood; real ones have 5 to 60.", "`error` naming the field";

    // What is kept.
    mailbox_bytes_max: usize = 16 * MIB, "--limit-mailbox-bytes", "bytes",
        "Messages stored in one mailbox.", "`error` to the `add`", "mailbox_messages";
    mailbox_messages_max: usize = 50_000, "--limit-mailbox-messages", "messages",
        "Messages stored in one mailbox.", "`error` to the `add`", "mailbox_messages";
    stored_bytes_max: usize = 128 * MIB, "--limit-stored-bytes", "bytes",
        "Memory of all mailboxes together; one address has an eighth.",
        "`error` to a command that would store more", "stored_bytes";

    // What waits.
    outbox_bytes_max: usize = 8 * MIB, "--limit-outbox-bytes", "bytes",
        "Output waiting for one slow reader; a replay does not count, it is in the mailbox already.",
        "dropped", "outbox_bytes";
    buffered_bytes_max: usize = 64 * MIB, "--limit-buffered-bytes", "bytes",
        "Unfinished input and waiting output of all connections together.",
        "the largest holders are dropped", "buffered_bytes";

    // Connections and their time.
    connections_max: usize = usize::MAX, "--limit-connections",
        "connections" / "open files less 64",
        "Connections at once.", "HTTP 503", "connections";
    head_bytes_max: usize = 16 * KIB, "--limit-head-bytes", "bytes",
        "A request head; browsers send 1 to 2 KiB, and all cookies of a domain.", "HTTP 431";
    handshake_seconds: f64 = 10.0, "--limit-handshake-seconds", "seconds",
        "From connect to a complete request head.", "HTTP 408", "handshake_seconds";
    bind_seconds: f64 = 60.0, "--limit-bind-seconds", "seconds",
        "From handshake to `bind`; clients send it at once.", "close 1008", "bind_seconds";
    close_seconds: f64 = 3.0, "--limit-close-seconds", "seconds",
        "For the peer to answer a close frame, or to receive the last answer.", "dropped";

    // Shares of one turn of the loop.
    messages_per_tick_max: usize = 64, "--limit-tick-messages", "messages",
        "Messages handled for one connection before others have their turn.", "later answers";
    accepts_per_tick_max: usize = 256, "--limit-tick-accepts", "connections",
        "Connections accepted before existing ones have their turn.", "later welcome";

    // One peer address: an IPv4 address, or an IPv6 /64. See also `IPV6_PREFIXES`.
    address_connections_max: usize = 250, "--limit-address-connections", "connections",
        "Connections at once from one address.", "HTTP 429", "address_connections";
    address_connect_per_second: f64 = 10.0, "--limit-address-connect-rate", "per second",
        "New connections from one address, after the burst.", "HTTP 429",
        "address_connections";
    address_connect_burst: usize = 250, "--limit-address-connect-burst", "connections",
        "New connections from one address at once.", "HTTP 429", "address_connections";
    address_allocate_per_second: f64 = 1.0, "--limit-address-allocate-rate", "per second",
        "`allocate` from one address, after the burst.", "`error` with the wait",
        "address_allocates";
    address_allocate_burst: usize = 200, "--limit-address-allocate-burst", "commands",
        "`allocate` from one address at once.", "`error` with the wait", "address_allocates";
    address_claim_per_second: f64 = 4.0, "--limit-address-claim-rate", "per second",
        "`claim` from one address, after the burst; this also bounds the guessing of codes.",
        "`error` with the wait", "address_claims";
    address_claim_burst: usize = 400, "--limit-address-claim-burst", "commands",
        "`claim` from one address at once.", "`error` with the wait", "address_claims";
    address_joins_per_minute: f64 = 2.0, "--limit-address-join-rate", "per minute",
        "Claims of one address, after the burst, by which another side found a nameplate crowded.",
        "`error` with the wait", "address_claims";
    address_join_burst: usize = 10, "--limit-address-join-burst", "claims",
        "Claims of one address by which another side found a nameplate crowded, at once.",
        "`error` with the wait", "address_claims";
    address_guesses_per_minute: f64 = 6.0, "--limit-address-guess-rate", "per minute",
        "Connections of one address that guess at a member's URL, after the burst.", "HTTP 429",
        "address_guesses";
    address_guess_burst: usize = 20, "--limit-address-guess-burst", "connections",
        "Connections of one address that guess at a member's URL, at once.", "HTTP 429",
        "address_guesses";
    address_nameplates_max: usize = 250, "--limit-address-nameplates", "nameplates",
        "Nameplates alive at once that one address created.", "`error`", "address_nameplates";
}

impl Limits {
    /// Settles the limits that follow from others: no frame is larger than a message, and a largest
    /// message is always deliverable. Returns a sentence for the log about each that is raised.
    pub fn settle_dependent_limits(&mut self) -> Vec<String> {
        let mut raised = Vec::new();
        self.frame_bytes_max = self.frame_bytes_max.min(self.message_bytes_max);
        let needed = self.message_bytes_max.saturating_mul(OUTBOX_MESSAGES_MIN);
        raise("--limit-outbox-bytes", &mut self.outbox_bytes_max, needed, &mut raised);
        let needed = self.outbox_bytes_max;
        raise("--limit-buffered-bytes", &mut self.buffered_bytes_max, needed, &mut raised);
        raised
    }

    /// Upper bound in bytes on the memory that clients can make the server use: connections, stored
    /// messages, buffers, the input and replies of one tick, limits by address, the program itself.
    pub fn memory_bytes_max(&self) -> usize {
        let shares = [
            self.connections_max.saturating_mul(CONNECTION_BYTES),
            self.stored_bytes_max,
            self.buffered_bytes_max,
            TICK_BYTES_MAX,
            TICK_OVERSHOOT_MESSAGES.saturating_mul(self.message_bytes_max),
            2 * ADDRESSES_MAX * ADDRESS_BYTES,
            BASE_BYTES,
        ];
        shares.into_iter().fold(0, usize::saturating_add)
    }
}

/// Raises a limit to what another one needs.
fn raise(option: &str, limit: &mut usize, needed: usize, raised: &mut Vec<String>) {
    if *limit < needed {
        *limit = needed;
        raised.push(format!("{option} is {needed}, so that largest messages can be delivered"));
    }
}

/// Times that upstream sets by other names (`autoPingInterval`, `autoPingTimeout`).
#[derive(Clone, Copy, Debug)]
pub struct Pings {
    /// Seconds between WebSocket pings to one connection; zero means never.
    pub interval_seconds: f64,
    /// Seconds from the first unanswered ping until a connection is dropped; zero means never.
    pub timeout_seconds: f64,
}

impl Default for Pings {
    /// See manual: protocol 1.3. HAProxy, as Debian configures it, gives up on an idle connection
    /// after 50 s, nginx after 60 s.
    fn default() -> Self {
        Pings { interval_seconds: 40.0, timeout_seconds: 600.0 }
    }
}

/// Largest messages that an outbox holds at least: one on its way, and the next.
const OUTBOX_MESSAGES_MIN: usize = 2;

/// Upper bound on the memory of an idle connection: its state, session, names and deadlines.
const CONNECTION_BYTES: usize = 2 * KIB;

/// Size in bytes from which a buffer gets memory pages of its own, outside the heap: large enough
/// that the unused rest of its last page does not matter.
pub const OWN_PAGES_BYTES_MIN: usize = 32 * KIB;

/// Bytes of the system's pages, to count what a buffer takes; larger ones on some machines.
pub const PAGE_BYTES: usize = 4 * KIB;

/// Number of largest messages by which a tick may exceed [`TICK_BYTES_MAX`]: the share of the
/// connection that was being read, and its replies.
const TICK_OVERSHOOT_MESSAGES: usize = 8;

/// The program itself, with SQLite's page cache.
const BASE_BYTES: usize = 16 * MIB;

/// Replies and changes of one tick whose list is kept for the next.
pub const BATCH_ENTRIES_KEPT: usize = 1_024;

/// Levels of arrays and objects in a message; what clients send has 3. Parsers on the other side
/// fail at 128 (serde_json) to 1,000 (Python).
pub const JSON_DEPTH_MAX: usize = 128;

/// Characters of a message that is not a JSON object that its error repeats.
pub const ORIG_CHARS_MAX: usize = 1_000;

/// How long connections have to receive their close after SIGTERM: the process must exit within
/// five seconds, and the databases need some of them.
pub const SHUTDOWN: Duration = Duration::from_secs(3);

/// How long the check of a new program may take (manual: reloading 5), and how often the loop looks
/// whether it has ended.
pub const TAKEOVER_CHECK: Duration = Duration::from_secs(10);
pub const TAKEOVER_CHECK_POLL: Duration = Duration::from_millis(10);

/// How long connections have to come to the end of a message that is thrown away before a hand-over
/// closes them, and requests to the admin listener to be answered.
pub const TAKEOVER_GRACE: Duration = Duration::from_secs(1);

/// Default of `--drain-seconds`, the longest duration of a drain: by then even slow exchanges are
/// over, and a client that still waits for the other side has waited long.
pub const DRAIN_SECONDS: f64 = 600.0;

/// Longest sleep of the loop without any deadline. A safety net only.
pub const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Seconds by which the wall clock may differ from what the monotonic clock makes of it before it
/// counts as set, and what is stored gets new times (manual: rules 5).
pub const CLOCK_STEP_SECONDS: f64 = 30.0;

/// Interval between two status lines to the service manager, unless the storage fails or recovers.
pub const NOTIFY_STATUS: Duration = Duration::from_secs(2);

/// Delay before a watchdog message that could not be sent is sent again.
pub const NOTIFY_RETRY: Duration = Duration::from_secs(1);

/// How long `READY=1` waits while the service manager's queue is full.
pub const NOTIFY_READY: Duration = Duration::from_secs(2);

/// Bytes of one log line: what a pipe takes in one piece (PIPE_BUF).
pub const LOG_LINE_BYTES_MAX: usize = 4 * KIB;

/// Shortest interval between two log lines of a kind that peers can cause.
pub const LOG_REPEAT: Duration = Duration::from_secs(10);

/// How soon a server that stands still for a test sees that it must stop.
pub const TROUBLE_LOOK: Duration = Duration::from_millis(20);

const _: () = {
    assert!(OWN_PAGES_BYTES_MIN >= 8 * PAGE_BYTES);
    assert!(READ_BYTES_PER_TICK_MAX > FRAME_HEADER_BYTES_MAX);
    assert!(READ_BYTES_PER_TICK_MAX <= SHARE_BYTES_PER_TICK_MAX);
    assert!(SHARE_BYTES_PER_TICK_MAX < TICK_BYTES_MAX / 2);
    assert!(CHECKPOINT_IDLE_PAGES < CHECKPOINT_PAGES);
    assert!(EXPIRE_AFTER_SECONDS > EXPIRE_CHECK_SECONDS);
    assert!(REJECTED_CONNECTIONS_MAX + ADMIN_CONNECTIONS_MAX < DESCRIPTORS_RESERVED);
    assert!(HOUR_BUCKETS as f64 * HOUR_BUCKET_SECONDS == 3_600.0);
    assert!(DAY_BUCKETS as f64 * DAY_BUCKET_SECONDS == 86_400.0);
    assert!(CLIENTS_SHOWN_MAX < CLIENTS_KEPT_MAX);
    assert!(SIDES_RECORDED_MAX > SIDES_MAX);
    assert!(HASHCASH_BITS_MIN <= HASHCASH_BITS && HASHCASH_BITS <= HASHCASH_BITS_MAX);
    assert!(ATTACK_END_SHARE < 1.0);
    assert!(STORAGE_PROBE_BYTES_MIN < STORAGE_PROBE_BYTES_MAX);
    assert!(STORAGE_PROBE_BYTES_MIN as u64 + DATABASE_RESERVE_BYTES < DATABASE_SPARE_BYTES);
    assert!(RECORDS_FLUSH.as_millis() < 1_000);
    assert!(USAGE_ROOM_BYTES > LOG_BYTES_KEPT as u64);
    assert!(SHUTDOWN.as_millis() + USAGE_LAST_WRITE_BUSY.as_millis() < 5_000);
    assert!(WELCOME_FILE_BYTES_MAX <= SETTINGS_FILE_BYTES_MAX);
    assert!(NOTICE_BYTES_MAX <= SETTINGS_FILE_BYTES_MAX);
};
