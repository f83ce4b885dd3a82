//! One address: how many are remembered, what a join must show, and when what many of them do
//! counts as an attack.

use std::time::Duration;

/// Messages of each side after which a join may count as shown: the first is the key exchange, and
/// only with the right code does a client send a second.
pub const JOIN_MESSAGES_MIN: u64 = 2;

/// After that, time for either side to close because the code was wrong.
pub const JOIN_PROBATION: Duration = Duration::from_secs(10);

/// Entries for IPv4 addresses, and as many for IPv6 prefixes, in the limits by address.
pub const ADDRESSES_MAX: usize = 28 * 1024; // fills a hash table of 32 Ki places

/// Entries dropped at once when a table is full: enough that the cost of finding them is
/// negligible.
pub const ADDRESSES_FORGOTTEN_AT_ONCE: usize = ADDRESSES_MAX / 16;

/// Bytes of one such entry in a table that has just grown.
pub(super) const ADDRESS_BYTES: usize = 256;

/// Lengths of the IPv6 prefixes that are limited, in bits, with the multiples of the limits. A
/// customer usually has a /56 or a /48, of which each /64 may stand for a user of its own.
pub const IPV6_PREFIXES: [(u8, usize); 3] = [(64, 1), (56, 4), (48, 16)];

/// The multiple of the limits for all addresses of an `--onion-network` together: as an IPv6 /48.
pub const ONION_NETWORK_FACTOR: usize = 16;

/// `Retry-After` of an answer to an address with too many connections at once.
pub const ADDRESS_CONNECTIONS_RETRY: Duration = Duration::from_secs(60);

/// Longest wait that a refusal names, in seconds.
pub const ADDRESS_WAIT_SECONDS_MAX: f64 = 3_600.0;

/// Interval between two sweeps that drop the entries without state.
pub const ADDRESSES_SWEEP: Duration = Duration::from_secs(60);

/// Default number of zero bits of a proof of work: about half a second for the Rust client on an
/// ordinary machine. Each further bit doubles the time.
pub const HASHCASH_BITS: u32 = 20;

/// Bounds of the bits, set by the operator or raised by `auto`. No client can finish a proof of
/// more than 40 bits.
pub const HASHCASH_BITS_MIN: u32 = 1;
pub const HASHCASH_BITS_MAX: u32 = 40;

/// Longest stamp that is verified, in bytes; real ones have about 80.
pub const STAMP_BYTES_MAX: usize = 1_024;

/// Level of hostile events at which an attack begins: 20 at once, or 14 a minute for a long time.
/// Mistyped codes alone do not reach it.
pub const ATTACK_EVENTS: f64 = 20.0;

/// Hostile events of one address that count in a half-life: an address alone never makes an attack.
pub const ATTACK_EVENTS_PER_ADDRESS: usize = 2;

/// Half-life of a hostile event, in seconds.
pub const ATTACK_HALF_LIFE_SECONDS: f64 = 60.0;

/// Share of the level at which an attack begins, below which it may end.
pub const ATTACK_END_SHARE: f64 = 0.25;

/// Half-lives for which an attack continues after its level was last reached.
pub const ATTACK_HOLD_HALF_LIVES: f64 = 5.0;

/// Bits that an attack adds at most, one for each doubling of its level.
pub const ATTACK_BITS_EXTRA_MAX: u32 = 6;

/// Binds of one address that the usage database records in an hour.
pub const USAGE_BINDS_PER_HOUR: usize = 1_000;

/// Ends of nameplates and mailboxes that one address began, and that the usage database records in
/// an hour: of as many exchanges.
pub const USAGE_ENDINGS_PER_HOUR: usize = 2 * USAGE_BINDS_PER_HOUR;
