//! Every number that bounds the server: its unit, its default and its reason, in one place.
//!
//! Nothing here does anything. Other modules name these constants and never write a literal for
//! a limit, a time or a size. `Limits` holds the values in force; its `Default` is the constants.

/// Largest WebSocket message accepted, after reassembly. Honest clients send a few hundred bytes,
/// long texts a few hundred KB.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Largest single WebSocket frame accepted. A message may always come as one frame.
pub const FRAME_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

/// Largest value that `maxMessagePayloadSize` and `maxFramePayloadSize` take.
pub const MESSAGE_BYTES_CEILING: usize = 64 * 1024 * 1024;

/// Largest number of seconds that an option takes: ten years.
pub const OPTION_SECONDS_MAX: f64 = 10.0 * 365.0 * 86_400.0;

/// Output waiting for one slow reader, beyond replays (those live in the mailbox already). More
/// than this and the connection is dropped.
pub const OUTBOX_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Released answers are encoded and handed to the socket in portions of about this size, so that
/// a long replay never exists twice in memory.
pub const WRITE_BYTES_PER_PORTION: usize = 64 * 1024;

/// Largest HTTP request head. Browsers send 1 to 2 KiB, proxies add a little.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Longest app id, side, mailbox id, phase or mood. Real ones have 5 to 60 bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// Longest nameplate, in digits (contract section 2).
pub const NAMEPLATE_DIGITS_MAX: usize = 40;

/// How much of a message that is not a JSON object is shown back to its sender, in characters.
pub const ORIG_CHARS_MAX: usize = 1_000;

/// Sides that a nameplate or a mailbox serves (contract section 3, Crowding).
pub const SIDES_MAX: usize = 2;

/// Sides kept on record: the two served, and one more that shows the record was crowded.
pub const SIDES_RECORDED_MAX: usize = SIDES_MAX + 1;

/// Bytes read from one connection in one tick; the rest waits for the next tick, so that a
/// flooding client delays the others by no more than its share.
pub const READ_BYTES_PER_TICK_MAX: usize = 64 * 1024;

/// Messages handled for one connection in one tick, for the same reason.
pub const MESSAGES_PER_TICK_MAX: usize = 64;

/// Connections accepted in one tick, over all listeners.
pub const ACCEPTS_PER_TICK_MAX: usize = 256;

/// Readiness events taken from the kernel in one tick; more wait there for the next.
pub const EVENTS_PER_TICK_MAX: usize = 1024;

/// Mailboxes that one tick of an expiry check looks at.
pub const PRUNES_PER_TICK_MAX: usize = 128;

/// Depth of the kernel's accept queue: a burst of a thousand connects must not wait for a
/// retransmitted SYN. The kernel cuts it to `net.core.somaxconn`.
pub const LISTEN_BACKLOG: i32 = 4096;

/// Descriptors kept back from connections: listeners, databases with WAL and shared memory,
/// the poll, signal and log descriptors, a spare, and the odd temporary one.
pub const DESCRIPTORS_RESERVED: usize = 64;

/// Seconds from accept to a complete request head.
pub const HANDSHAKE_SECONDS: f64 = 10.0;

/// Seconds given to the peer to answer our close, or to take in a last answer.
pub const CLOSE_SECONDS: f64 = 3.0;

/// Bytes of late input read and thrown away while a closing connection lingers.
pub const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// Seconds between WebSocket pings to one connection (contract section 1).
pub const PING_INTERVAL_SECONDS: f64 = 60.0;

/// Seconds without an answer to any ping before a connection is dropped (contract section 1).
pub const PING_TIMEOUT_SECONDS: f64 = 600.0;

/// Seconds a mailbox lives without subscriber or activity (contract section 3, Expiry).
pub const EXPIRE_AFTER_SECONDS: f64 = 660.0;

/// Seconds between two expiry checks (contract section 3, Expiry).
pub const EXPIRE_CHECK_SECONDS: f64 = 300.0;

/// Seconds that one generation of address ids lasts (contract section 5).
pub const GENERATION_SECONDS: f64 = 86_400.0;

/// Addresses numbered in one generation; one more starts a new generation early. At about 64
/// bytes each this bounds the table to 4 MiB.
pub const ADDRESS_IDS_MAX: usize = 65_536;

/// Milliseconds that a commit waits for a database locked by another process before the storage
/// counts as failed. The loop stands still meanwhile.
pub const DATABASE_BUSY_MILLISECONDS: u64 = 100;

/// Seconds between attempts to leave degraded mode (contract section 4).
pub const STORAGE_RETRY_SECONDS: f64 = 1.0;

/// Seconds that usage, address and connection records may lag (contract section 5).
pub const RECORDS_FLUSH_SECONDS: f64 = 1.0;

/// Records that wait for a failing usage or address database before they are dropped.
pub const RECORDS_BACKLOG_MAX: usize = 10_000;

/// WAL pages after which the log is copied into the database even in a busy tick.
pub const CHECKPOINT_PAGES: u32 = 4_000;

/// WAL pages worth a checkpoint when the loop has nothing else to do.
pub const CHECKPOINT_IDLE_PAGES: u32 = 250;

/// Milliseconds without any event after which the loop counts as idle enough for a checkpoint.
pub const CHECKPOINT_IDLE_MILLISECONDS: u64 = 20;

/// Seconds that connections get to take in their close after SIGTERM; the contract allows five
/// until exit, and the databases need some of it.
pub const SHUTDOWN_SECONDS: f64 = 3.0;

/// Longest sleep of the loop without any deadline, in seconds. A safety net only.
pub const SLEEP_SECONDS_MAX: f64 = 60.0;

/// Seconds until a listener that met an error is tried again.
pub const ACCEPT_RETRY_SECONDS: f64 = 1.0;

/// The limits in force: the defaults above, as changed on the command line.
#[derive(Clone, Debug)]
pub struct Limits {
    /// See [`MESSAGE_BYTES_MAX`].
    pub message_bytes_max: usize,
    /// See [`FRAME_BYTES_MAX`].
    pub frame_bytes_max: usize,
    /// See [`OUTBOX_BYTES_MAX`].
    pub outbox_bytes_max: usize,
    /// Connections at once; the default is the descriptor limit less [`DESCRIPTORS_RESERVED`].
    pub connections_max: usize,
    /// See [`HANDSHAKE_SECONDS`].
    pub handshake_seconds: f64,
    /// See [`CLOSE_SECONDS`].
    pub close_seconds: f64,
    /// See [`PING_INTERVAL_SECONDS`]; zero means never.
    pub ping_interval_seconds: f64,
    /// See [`PING_TIMEOUT_SECONDS`]; zero means never.
    pub ping_timeout_seconds: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            message_bytes_max: MESSAGE_BYTES_MAX,
            frame_bytes_max: FRAME_BYTES_MAX,
            outbox_bytes_max: OUTBOX_BYTES_MAX,
            connections_max: usize::MAX,
            handshake_seconds: HANDSHAKE_SECONDS,
            close_seconds: CLOSE_SECONDS,
            ping_interval_seconds: PING_INTERVAL_SECONDS,
            ping_timeout_seconds: PING_TIMEOUT_SECONDS,
        }
    }
}

impl Limits {
    /// Adjusts limits that follow from others: a largest message must always be deliverable.
    pub fn fit(&mut self) {
        self.frame_bytes_max = self.frame_bytes_max.min(self.message_bytes_max);
        self.outbox_bytes_max =
            self.outbox_bytes_max.max(OUTBOX_MESSAGES_MIN * self.message_bytes_max);
    }
}

/// Largest messages that an outbox holds at least.
const OUTBOX_MESSAGES_MIN: usize = 4;

/// Longest frame header of the WebSocket protocol, in bytes.
pub const FRAME_HEADER_BYTES_MAX: usize = 14;

const _: () = {
    // One largest message must fit into an empty outbox, or it could never be delivered.
    assert!(OUTBOX_BYTES_MAX >= OUTBOX_MESSAGES_MIN * MESSAGE_BYTES_MAX);
    assert!(FRAME_BYTES_MAX <= MESSAGE_BYTES_MAX);
    assert!(READ_BYTES_PER_TICK_MAX > HEAD_BYTES_MAX);
    assert!(NAMEPLATE_DIGITS_MAX <= NAME_BYTES_MAX);
    assert!(CHECKPOINT_IDLE_PAGES < CHECKPOINT_PAGES);
    assert!(EXPIRE_AFTER_SECONDS > EXPIRE_CHECK_SECONDS);
};
