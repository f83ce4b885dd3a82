//! The system's secure randomness, drawn in blocks.

use std::io;

/// A source of randomness. Mailbox ids depend on it: outside tests it must be secure.
pub trait Entropy {
    fn next_u64(&mut self) -> u64;
}

/// The digits of base32, in lower case.
pub const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Bytes drawn from the system at a time: the kernel returns that many in whole or not at all.
const POOL_BYTES: usize = 256;

#[derive(Debug)]
pub struct SystemEntropy {
    pool: [u8; POOL_BYTES],
    used: usize,
}

impl SystemEntropy {
    /// Fails if the system has no randomness; after a first success it does not fail.
    pub fn new() -> io::Result<SystemEntropy> {
        let mut pool = [0; POOL_BYTES];
        fill(&mut pool)?;
        Ok(SystemEntropy { pool, used: 0 })
    }
}

#[cfg(target_os = "linux")]
fn fill(pool: &mut [u8; POOL_BYTES]) -> io::Result<()> {
    rustix::rand::getrandom(pool, rustix::rand::GetRandomFlags::empty())?;
    Ok(())
}

/// On BSD and macOS the device is as good as a system call: it waits until it has been seeded.
#[cfg(not(target_os = "linux"))]
fn fill(pool: &mut [u8; POOL_BYTES]) -> io::Result<()> {
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, pool)
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
