//! The cost of reading a connection, in bytes of input that would take a tick as long.

use crate::engine::Engine;
use crate::limits::{CHANGE_BYTES_IN_TICK, SHARE_BYTES_PER_TICK_MAX, bytes_read_in};
use crate::sys::clock::Stopwatch;

/// The state before a connection is read.
#[derive(Debug)]
pub struct Meter {
    changes: usize,
    held_bytes: usize,
}

impl Meter {
    pub fn start(engine: &Engine) -> Meter {
        let (changes, held_bytes) = (engine.batch_len(), engine.held_bytes());
        Meter { changes, held_bytes }
    }

    fn reply_bytes(&self, engine: &Engine) -> usize {
        engine.held_bytes() - self.held_bytes
    }

    /// Whether the replies alone use up the connection's share.
    pub fn is_share_used(&self, engine: &Engine) -> bool {
        self.reply_bytes(engine) >= SHARE_BYTES_PER_TICK_MAX
    }

    /// The cost of what has been read since: of that input, of its replies and changes, or of the
    /// time that they have taken, if that is more.
    pub fn used_bytes(
        &self,
        input_bytes: usize,
        stopwatch: &mut Stopwatch,
        engine: &Engine,
    ) -> usize {
        let counted_bytes = input_bytes
            + self.reply_bytes(engine)
            + (engine.batch_len() - self.changes) * CHANGE_BYTES_IN_TICK;
        counted_bytes.max(bytes_read_in(stopwatch.lap()))
    }
}
