//! Memory of the server and of the kernel's sockets, as Linux reports it.

use std::fs;
use std::time::{Duration, Instant};

use crate::common::{PATIENCE, Server};

/// Bytes of the system's pages, the unit of `/proc/net/sockstat`.
const PAGE_BYTES: usize = 4096;

pub const MIB: usize = 1024 * 1024;

/// The most that a process ever had in RAM.
pub fn peak_resident_bytes(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    let kib = line.split_whitespace().nth(1).and_then(|word| word.parse::<usize>().ok());
    kib.expect("a number") * 1024
}

/// Memory of all TCP sockets of this machine, both ends of a loopback connection included.
pub fn socket_bytes() -> usize {
    let text = fs::read_to_string("/proc/net/sockstat").expect("sockstat");
    let line = text.lines().find(|line| line.starts_with("TCP:")).expect("TCP");
    let pages = line.split_whitespace().skip_while(|word| *word != "mem").nth(1);
    pages.and_then(|word| word.parse::<usize>().ok()).expect("a number") * PAGE_BYTES
}

/// What the server counts towards the limit of all that is stored.
pub fn counted_bytes(server: &Server) -> usize {
    server.status()["store"]["bytes"].as_u64().expect("a number") as usize
}

/// The same, once it grows no more.
pub fn socket_bytes_when_quiet() -> usize {
    let until = Instant::now() + PATIENCE;
    let (mut most, mut unchanged) = (0, 0);
    while unchanged < 10 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
        let now = socket_bytes();
        unchanged = if now > most { 0 } else { unchanged + 1 };
        most = most.max(now);
    }
    most
}
