//! What an operator may set: the numbers of options, and the files that options name.

use super::{KIB, MIB};

/// Bytes of a message with `maxMessagePayloadSize=0`, which means no limit in the Python server.
/// The resulting bound on memory is logged at the start.
pub const UNLIMITED_MESSAGE_BYTES: usize = 64 * MIB;

/// Largest value that an option takes for a number of bytes or things. Fits 32-bit machines.
pub const OPTION_NUMBER_MAX: f64 = 1_000_000_000.0;

/// Smallest number of seconds above zero that an option takes: the poll counts milliseconds.
pub const OPTION_SECONDS_MIN: f64 = 0.001;

/// Largest number of seconds that an option takes: ten years.
pub const OPTION_SECONDS_MAX: f64 = 10.0 * 365.0 * 86_400.0;

/// Bytes of a file of options, of a welcome or of notices: the loop itself reads it and is blocked
/// meanwhile.
pub const SETTINGS_FILE_BYTES_MAX: usize = MIB;

/// Bytes of a welcome file, which is sent to every new connection.
pub const WELCOME_FILE_BYTES_MAX: usize = 16 * KIB;

/// Bytes of one notice, a text that people read.
pub const NOTICE_BYTES_MAX: usize = 4 * KIB;

/// Bytes of a member's secret at least: 16 random letters and digits have 95 bits.
pub const MEMBER_SECRET_BYTES_MIN: usize = 16;

/// Bytes of a member's secret at most. Each that is presented is compared over as many.
pub const MEMBER_SECRET_BYTES_MAX: usize = 128;

/// Bytes of a member's name.
pub const MEMBER_NAME_BYTES_MAX: usize = 64;
