//! The system's secure randomness.

use std::io;

/// A source of randomness. Mailbox ids depend on it: outside tests it must be secure.
pub trait Entropy {
    /// 64 bits, each value as likely as any other.
    fn next_u64(&mut self) -> u64;
}

/// The digits of base32, in lower case.
pub const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Asks the system each time: that takes about a microsecond, and an exchange needs two numbers.
#[derive(Debug)]
pub struct SystemEntropy(());

impl SystemEntropy {
    /// Fails if the system has no randomness; after a first success it does not fail.
    pub fn new() -> io::Result<SystemEntropy> {
        draw().map(|_| SystemEntropy(()))
    }
}

#[cfg(target_os = "linux")]
fn draw() -> io::Result<u64> {
    let mut bytes = [0; size_of::<u64>()];
    // So few bytes come in whole or not at all.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_le_bytes(bytes))
}

/// On BSD and macOS the device is as good as a system call: it waits until it has been seeded.
#[cfg(not(target_os = "linux"))]
fn draw() -> io::Result<u64> {
    let mut bytes = [0; size_of::<u64>()];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

impl Entropy for SystemEntropy {
    /// 64 bits, each value as likely as any other.
    fn next_u64(&mut self) -> u64 {
        // Guessable mailbox ids would be worse than stopping.
        draw().unwrap_or_else(|error| panic!("the system's randomness failed: {error}"))
    }
}
