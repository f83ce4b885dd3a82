//! What connections and their sockets may hold, how long they may take, and their shares of a tick.

use std::time::Duration;

use super::{KIB, MIB, UNLIMITED_MESSAGE_BYTES};

/// Longest message that is thrown away as it comes in and answered by an `error`; one byte more is
/// a violation. Python's client would connect again and send the same after a close.
pub const MESSAGE_DISCARDED_BYTES_MAX: usize = UNLIMITED_MESSAGE_BYTES;

/// Empty fragments in one message, the last aside. Real clients send none or one.
pub const EMPTY_FRAGMENTS_MAX: usize = 64;

/// Time without progress of waiting output or of an unfinished message after which its connection
/// is dropped: long after a mobile phone in a tunnel has come back.
pub const STALLED: Duration = Duration::from_secs(60);

/// For a client whose `bind` was refused to say `release` and `close`, from the refusal to the
/// close: Python's waits for their answers before it shows the error.
pub const FAREWELL: Duration = Duration::from_secs(1);

/// An unfinished message has [`STALLED`] and a second for each of these bytes that came: a slow
/// line must not be made to send the same again for ever.
pub const SLOW_SENDER_BYTES_PER_SECOND: u64 = 8 * KIB as u64;

/// Time between two ticks, besides the sleep, from which on the server counts as having stood
/// still: no deadline of a connection runs meanwhile.
pub const STANDSTILL_MIN: Duration = Duration::from_secs(1);

/// At least one part in this many of `--limit-tick-accepts` is accepted in each tick, however many
/// connections wait to be read: fewer than are read, so that they get less, and enough that a full
/// queue of the kernel is not a matter of seconds.
pub const ACCEPTS_MIN_DIVISOR: usize = 4;

/// Shedding makes room for one part in this many of the limit of buffered bytes, so that it need
/// not walk over all connections for each message.
pub const SHED_DIVISOR: usize = 8;

/// Input and replies that one tick may have in hand before it stops reading and commits. With
/// messages of 1 KB that is about 5 ms of work.
pub const TICK_BYTES_MAX: usize = 4 * MIB;

/// The part of it that one connection or one address may use: so small that all addresses of an
/// attacker with thousands of connections leave room for the others in the same tick.
pub const SHARE_BYTES_PER_TICK_MAX: usize = 128 * KIB;

/// CPU time for which one tick reads, and applies what it reads. What takes longer for its bytes
/// than this for [`TICK_BYTES_MAX`], such as JSON of a million numbers, counts as more bytes.
const TICK_READING: Duration = Duration::from_millis(10);

/// Reading of a connection from which on its CPU time is measured, a system call that takes a
/// third of a microsecond: shorter ones cannot have waited for other processes, which have the
/// processor for a millisecond and more.
pub const MEASURED_LAP_MIN: Duration = Duration::from_micros(50);

/// What reading for that long counts in a tick.
pub fn bytes_read_in(time: Duration) -> usize {
    (time.as_secs_f64() / TICK_READING.as_secs_f64() * TICK_BYTES_MAX as f64) as usize
}

/// What comes in after the last answer is read and thrown away: one part in this many of its bytes
/// counts in a tick.
pub const THROWN_AWAY_DIVISOR: usize = 8;

/// What a frame counts in a tick besides its bytes: a ping takes as long as 512 bytes, about.
pub const FRAME_BYTES_IN_TICK: usize = 512;

/// What a change of a row counts in a tick besides: the commit takes about 10 µs for it.
pub const CHANGE_BYTES_IN_TICK: usize = 4 * KIB;

/// Released answers are encoded and written to the socket in portions of about this size, so that a
/// long replay is never in memory twice.
pub const WRITE_BYTES_PER_PORTION: usize = 64 * KIB;

/// Bytes of a shared buffer that are kept from one tick to the next.
pub const SCRATCH_BYTES_KEPT: usize = 16 * KIB;

/// Portions written for one connection before the others have their turn.
pub const WRITE_PORTIONS_PER_TURN_MAX: usize = 4;

/// Time for which one tick sends output that waits, and then again what it has released; the rest
/// waits for its turn. Bytes would be no measure: a long message is encoded before anybody knows
/// whether its reader is still there.
pub const TICK_SENDING: Duration = Duration::from_millis(5);

/// Bytes read from one connection in one tick; the rest waits for the next tick, so that a
/// flooding client delays the others by no more than its share.
pub const READ_BYTES_PER_TICK_MAX: usize = 64 * KIB;

/// Bytes for `SO_SNDBUF` of clients' sockets; the kernel doubles it. Left to itself, it lets a
/// reader that reads nothing pin 4 MiB. Enough for 2.5 MB/s to a client 100 ms away.
pub const SEND_BUFFER_BYTES: usize = 128 * KIB;

/// Bytes for `SO_RCVBUF` of clients' sockets; the kernel doubles it. Left to itself, it takes up to
/// 6 MiB of a connection whose turn does not come.
pub const RECEIVE_BUFFER_BYTES: usize = 64 * KIB;

/// From this length on, a message that waits for several connections is encoded once for all.
pub const LARGE_MESSAGE_BYTES: usize = 16 * KIB;

/// Readiness events taken from the kernel in one tick; more wait there for the next.
pub const EVENTS_PER_TICK_MAX: usize = 8 * 1024;

/// Header lines of a request head. Browsers and proxies send 10 to 40; upstream takes 250.
pub const HEAD_LINES_MAX: usize = 256;

/// Longest PROXY header of either version. Addresses take 16 to 232 bytes; the rest is for
/// extensions, of which the longest in use describe a client's certificate.
pub const PROXY_HEADER_BYTES_MAX: usize = 4 * KIB;

/// Addresses of a list of proxies that are read, from its end: chains of trusted proxies have two
/// or three, and a client can send a list of thousands.
pub const PROXY_HOPS_MAX: usize = 32;

/// Proxies that the log names because they send another header than the one that is looked at.
pub const PROXIES_NAMED_MAX: usize = 16;

/// Depth of the kernel's accept queue: a burst of a thousand connects must not wait for a
/// retransmitted SYN. The kernel cuts it to `net.core.somaxconn`.
pub const LISTEN_BACKLOG: i32 = 4096;

/// How often a lock that another start holds on the directory of a unix socket is tried again, and
/// the pause before. Such a start holds it for less than a millisecond.
pub const DIRECTORY_LOCK_RETRIES: usize = 50;
pub const DIRECTORY_LOCK_RETRY: Duration = Duration::from_millis(4);

/// Delay before a listener that failed is tried again.
pub const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// Rejected connections kept open until they have received the reason; further ones are answered
/// and closed at once. They use the reserved descriptors.
pub const REJECTED_CONNECTIONS_MAX: usize = 32;

/// Bytes that are read of the request of a connection that is rejected and closed at once.
pub const REJECTED_HEAD_BYTES: usize = 2 * KIB;

/// Seconds after which a client is to try a full or stopping server again.
pub const UNAVAILABLE_RETRY_SECONDS: u64 = 5;

/// Bytes read at a time on the admin listener: more than most request heads have.
pub const ADMIN_READ_BYTES: usize = 4 * KIB;

/// Seconds for a request head on the admin listener, where monitors ask from nearby.
pub const ADMIN_HEAD_SECONDS: f64 = 2.0;

/// Operators' connections at once; one more takes the place of the oldest. They come out of the
/// reserved descriptors, so that they find room when clients have none left.
pub const ADMIN_CONNECTIONS_MAX: usize = 8;

/// Longest frame header of the WebSocket protocol, in bytes.
pub const FRAME_HEADER_BYTES_MAX: usize = 14;

/// Listening sockets that a service manager may pass. More than any setup needs, and few enough
/// that a nonsensical number is rejected.
pub const PASSED_SOCKETS_MAX: usize = 256;

/// Descriptors kept back from connections: listeners, databases with WAL and shared memory,
/// the poll, signal and log descriptors, a spare, and the odd temporary one.
pub const DESCRIPTORS_RESERVED: usize = 64;
