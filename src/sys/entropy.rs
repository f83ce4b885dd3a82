//! The system's secure randomness, drawn in portions.

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

/// Randomness from outside. Mailbox ids depend on it: outside tests it must be the system's
/// secure source.
pub trait Entropy: std::fmt::Debug {
    /// Sixty-four random bits.
    fn next_u64(&mut self) -> u64;
}

/// Bytes drawn from the system at a time.
const POOL_BYTES: usize = 256;

/// Randomness for mailbox ids and nameplates.
#[derive(Debug)]
pub struct SystemEntropy {
    pool: [u8; POOL_BYTES],
    used: usize,
}

impl SystemEntropy {
    /// Fails if the system has no randomness to give; once it has, it never fails again.
    pub fn new() -> Result<SystemEntropy, Errno> {
        let mut pool = [0; POOL_BYTES];
        // So many bytes the kernel gives in whole or not at all.
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
        self.pool[self.used..end].fill(0); // used once, remembered nowhere
        self.used = end;
        u64::from_le_bytes(bytes)
    }
}
