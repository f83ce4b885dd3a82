//! Plain data shared by the rooms above: commands and responses, peers, stored messages, reasons to
//! close.
//!
//! `codec` knows their JSON text and `store` their rules; neither knows the other. Nothing here
//! acts on them, but that `log` and `ledger` count the memory of what is stored.

mod close;
mod command;
mod event;
pub mod handover;
mod holder;
mod ledger;
mod log;
mod network;
mod outcome;
mod output;
mod peer;
mod refusal;
mod response;
mod secret;
mod session;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};

pub use self::log::{Message, MessageLog, Replay};
pub use close::{CloseReason, FrameError};
pub use command::{COMMAND_NAMES, ClientVersion, Command, CommandType, Field, Flag};
pub use event::{Event, Verdict};
pub use holder::{CountedAddress, Holder, Prefix};
pub use ledger::Ledger;
pub use network::{LOOPBACK, Network, is_private};
pub use outcome::{Outcome, OutcomeCounts};
pub use output::{Output, Outputs};
pub use peer::{AddressHeader, Forwarded, Peer, Unreadable};
pub use refusal::{Refusal, Rule, StampError, Wait};
pub use response::{Demand, Orig, ProofState, Response};
pub use secret::{Member, Secret};
pub use session::{MailboxState, Session};

/// The app of `check`, which results, clients and reports leave out.
pub const CHECK_APP: &str = "wormhole-mailbox/check";

/// The number of a connection: unique while the server runs, never reused, safe to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A map by connection. No peer can choose a connection's number, so that the hash needs no secret
/// and only has to spread consecutive numbers.
pub type ConnMap<T> = HashMap<ConnId, T, BuildHasherDefault<ConnHasher>>;

/// Multiplicative hash of a connection's number.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnHasher(u64);

impl Hasher for ConnHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
        self.0 = number.wrapping_mul(GOLDEN_RATIO);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A hash that stands for a value where memory must not hold the value itself.
pub fn hash_of(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
