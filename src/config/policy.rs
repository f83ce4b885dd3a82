//! When a proof of work is demanded before `bind`, as the operator sets it.

use crate::limits;

/// When proof of work is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Never; the welcome says nothing of it.
    #[default]
    None,
    /// Always, and nobody needs to give it.
    Offer,
    /// Always, and nobody may bind without.
    Require,
    /// As `Require` while there is an attack, as `None` while there is not.
    Auto,
}

impl Mode {
    pub const ALL: [Mode; 4] = [Mode::None, Mode::Offer, Mode::Require, Mode::Auto];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Mode::None => "none",
            Mode::Offer => "offer",
            Mode::Require => "require",
            Mode::Auto => "auto",
        }
    }
}

/// What an operator may set about it.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    pub mode: Mode,
    /// Bits asked for; more under attack.
    pub bits: u32,
    /// What counts as an attack, in hostile events.
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
