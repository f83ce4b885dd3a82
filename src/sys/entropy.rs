//! The system's secure randomness, drawn in blocks.

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

/// A source of randomness. Mailbox ids depend on it: outside tests it must be secure.
pub trait Entropy: std::fmt::Debug {
    fn next_u64(&mut self) -> u64;
}

/// Bytes drawn from the system at a time: the kernel returns that many in whole or not at all.
const POOL_BYTES: usize = 256;

#[derive(Debug)]
pub struct SystemEntropy {
    pool: [u8; POOL_BYTES],
    used: usize,
}

impl SystemEntropy {
    /// Fails if the system has no randomness; after a first success it does not fail.
    pub fn new() -> Result<SystemEntropy, Errno> {
        let mut pool = [0; POOL_BYTES];
        getrandom(&mut pool, GetRandomFlags::empty())?;
        Ok(SystemEntropy { pool, used: 0 })
    }
}

impl Entropy for SystemEntropy {
    fn next_u64(&mut self) -> u64 {
        if self.used == POOL_BYTES {
            match SystemEntropy::new() {
                Ok(fresh) => *self = fresh,
                // Guessable mailbox ids would be worse than stopping.
                Err(error) => panic!("the system's randomness failed: {error}"),
            }
        }
        let end = self.used + size_of::<u64>();
        let mut bytes = [0; size_of::<u64>()];
        bytes.copy_from_slice(&self.pool[self.used..end]);
        self.pool[self.used..end].fill(0); // never used again
        self.used = end;
        u64::from_le_bytes(bytes)
    }
}
