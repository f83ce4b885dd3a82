//! What the store counts, the shares of it, how long it keeps it, and what one tick may delete.

use super::{KIB, Limits};

/// Memory of a mailbox in addition to its names and messages: the structures of its sides,
/// subscribers and charges, and its entry in the table of all at its emptiest.
pub const MAILBOX_BYTES: usize = KIB;

/// Names of the greatest length that count with a mailbox or a nameplate from its beginning: a
/// crowded side and a mood, which are recorded even when the store is full.
pub const SPARE_NAMES: usize = 2;

/// Memory of a nameplate in addition to its names; also an app of its own, and its creator.
pub const NAMEPLATE_BYTES: usize = KIB;

/// Bytes that a message counts towards its mailbox's limit in addition to its text.
pub const MESSAGE_OVERHEAD_BYTES: usize = 128;

/// Messages at the beginning of a mailbox that a `delete` looks at: clients delete what they have
/// received, so it is near the beginning.
pub const DELETE_SEARCHED_MAX: usize = 256;

/// Memory of a message in addition to its text: its head, and its entry in a list that may be half
/// empty.
pub const MESSAGE_BYTES: usize = 112;

/// Memory for charging a mailbox to one more address: entries in two lists and two tables.
pub const CHARGE_BYTES: usize = 144;

/// A network, of an IPv6 peer its /48, is as large a holder as an address with one part in this
/// many of what it holds: it has that multiple of an address's limits.
pub const LEDGER_NETWORK_DIVISOR: usize = 16;

/// One address may hold one part in this many of the store, but at least one full mailbox.
const ADDRESS_DIVISOR: usize = 8;

/// One part in this many of the store is kept for ordinary exchanges: nameplates, mailboxes, and
/// messages of at most [`SHORT_MESSAGE_BYTES`].
const RESERVE_DIVISOR: usize = 16;

/// Memory of a message of an ordinary exchange, at most: real ones have a few hundred bytes.
pub const SHORT_MESSAGE_BYTES: usize = 4 * KIB;

/// One part in this many of the store is freed at once when it is full, because the search for the
/// largest holders looks at all mailboxes.
pub const ROOM_DIVISOR: usize = 64;

/// Most mailboxes that are deleted to make room for one command.
pub const EVICTED_AT_ONCE_MAX: usize = 128;

/// How many times one tick may make room: each time it looks at all mailboxes.
pub const EVICTIONS_PER_TICK_MAX: usize = 8;

/// Rows of messages that one tick deletes from the database: a few milliseconds. Long ones count as
/// several.
pub const DELETIONS_PER_TICK_MAX: usize = 1_000;

/// Connections of one side that may be subscribed to a mailbox; one more closes the oldest, which
/// died unnoticed (manual: rules 3.1).
pub const SUBSCRIBERS_PER_SIDE_MAX: usize = 8;

/// Sides that a nameplate or a mailbox serves (manual: rules 4).
pub const SIDES_MAX: usize = 2;

/// Sides kept on record: the two served, and one more that shows the record was crowded.
pub const SIDES_RECORDED_MAX: usize = SIDES_MAX + 1;

/// Nameplates that cool down at once; beyond that the oldest may be allocated again. They take at
/// most 0.6 MiB, which is in `BASE_BYTES`.
pub const COOLING_MAX: usize = 8_192;

/// How much older the last activity in the file may be than it was: at most this, and one part in
/// [`ACTIVITY_LAG_DIVISOR`] of `--expire-after`. A mailbox may expire that early after a restart.
pub const ACTIVITY_LAG_SECONDS_MAX: f64 = 30.0;

/// See [`ACTIVITY_LAG_SECONDS_MAX`].
pub const ACTIVITY_LAG_DIVISOR: f64 = 10.0;

/// Mailboxes that one tick of an expiry check looks at.
pub const PRUNES_PER_TICK_MAX: usize = 128;

/// Longest nameplate, in digits (manual: protocol 2.5).
pub const NAMEPLATE_DIGITS_MAX: usize = 40;

/// Steps from a random start to the next free long nameplate, before none counts as free: that many
/// taken in a row mean that nearly all are.
pub const NAMEPLATE_STEPS_MAX: u64 = 10_000;

/// Digits of a nameplate that is allocated: a code should be short enough to be told.
pub const NAMEPLATE_DIGITS_ALLOCATED_MAX: u32 = 6;

/// Default of `--expire-after`: seconds a mailbox lives without subscriber or activity (manual:
/// rules 5).
pub const EXPIRE_AFTER_SECONDS: f64 = 660.0;

/// Default of `--expire-check`: seconds between two expiry checks (manual: rules 5).
pub const EXPIRE_CHECK_SECONDS: f64 = 300.0;

impl Limits {
    /// Bytes of the store that one address may hold (manual: limits 2).
    pub fn address_share_bytes(&self) -> usize {
        // A message takes up to an eighth more memory than it counts in its mailbox: blocks and
        // pages are rounded up. Besides messages, a mailbox has its names.
        let messages = self.mailbox_bytes_max.saturating_add(self.mailbox_bytes_max / 8);
        let full_mailbox = messages.saturating_add(8 * MAILBOX_BYTES);
        full_mailbox.max(self.stored_bytes_max / ADDRESS_DIVISOR)
    }

    /// Bytes of the store that only ordinary exchanges may use.
    pub fn reserve_bytes(&self) -> usize {
        self.stored_bytes_max / RESERVE_DIVISOR
    }
}
