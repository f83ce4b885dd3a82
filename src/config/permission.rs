//! When a proof of work is required before `bind`, as the operator sets it.

use crate::limits;

/// `--permission`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Never; the welcome does not mention it.
    #[default]
    None,
    /// Always announced, optional.
    Offer,
    /// Always required before `bind`.
    Require,
    /// As `Require` during an attack, else as `None`.
    Auto,
}

impl Mode {
    /// Its names on the command line.
    pub const NAMES: [(&'static str, Mode); 4] = [
        ("none", Mode::None),
        ("offer", Mode::Offer),
        ("require", Mode::Require),
        ("auto", Mode::Auto),
    ];
}

/// All that an operator sets about proofs of work.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Whether, and when.
    pub mode: Mode,
    /// Bits required; more during an attack.
    pub bits: u32,
    /// Number of hostile events that counts as an attack.
    pub attack_events: f64,
    /// Seconds after which an event counts half.
    pub attack_half_life: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            mode: Mode::None,
            bits: limits::HASHCASH_BITS,
            attack_events: limits::ATTACK_EVENTS,
            attack_half_life: limits::ATTACK_HALF_LIFE_SECONDS,
        }
    }
}
