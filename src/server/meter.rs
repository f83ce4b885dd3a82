//! What it costs a tick to read a connection, in bytes of input that would cost as much.

use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::limits::{
    CHANGE_BYTES_IN_TICK, FRAME_BYTES_IN_TICK, SHARE_BYTES_PER_TICK_MAX, bytes_read_in,
};
use crate::sys::clock;

/// The state before a connection is read.
#[derive(Debug)]
pub struct Meter {
    began: Instant,
    changes: usize,
    held_bytes: usize,
}

impl Meter {
    pub fn start(engine: &Engine) -> Meter {
        let (changes, held_bytes) = (engine.batch_len(), engine.held_bytes());
        Meter { began: Instant::now(), changes, held_bytes }
    }

    fn reply_bytes(&self, engine: &Engine) -> usize {
        engine.held_bytes() - self.held_bytes
    }

    /// Whether the replies alone use up the connection's share.
    pub fn is_share_used(&self, engine: &Engine) -> bool {
        self.reply_bytes(engine) >= SHARE_BYTES_PER_TICK_MAX
    }

    /// The cost of what has been read since. `cpu_time` is the CPU time when it was last looked at.
    pub fn used_bytes(
        &self,
        received_bytes: u64,
        frames: usize,
        cpu_time: &mut Duration,
        engine: &Engine,
    ) -> usize {
        let counted_bytes = received_bytes as usize
            + frames * FRAME_BYTES_IN_TICK
            + self.reply_bytes(engine)
            + (engine.batch_len() - self.changes) * CHANGE_BYTES_IN_TICK;
        if bytes_read_in(self.began.elapsed()) <= counted_bytes {
            return counted_bytes;
        }
        // Or other processes had the processor.
        let since = std::mem::replace(cpu_time, clock::cpu_time());
        counted_bytes.max(bytes_read_in(cpu_time.saturating_sub(since)))
    }
}
