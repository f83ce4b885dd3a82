//! Memory of the server and of its sockets, as Linux reports it.

use std::fs;
use std::time::{Duration, Instant};

use crate::common::{PATIENCE, Server};

pub const MIB: usize = 1024 * 1024;

/// The most that a process ever had in RAM.
pub fn peak_resident_bytes(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    let kib = line.split_whitespace().nth(1).and_then(|word| word.parse::<usize>().ok());
    kib.expect("a number") * 1024
}

/// Bytes that wait in the kernel on connections of that server: sent and not yet received, or
/// received and not yet read, at both ends.
pub fn socket_bytes(server: &Server) -> usize {
    let port = format!(":{:04X}", server.address.port());
    let table = fs::read_to_string("/proc/net/tcp").expect("the table of sockets");
    let waiting = table.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let (local, remote) = (columns.next()?, columns.next()?);
        let (sending, receiving) = columns.nth(1)?.split_once(':')?;
        let bytes = |text| usize::from_str_radix(text, 16).ok();
        let is_its = local.ends_with(&port) || remote.ends_with(&port);
        is_its.then_some(bytes(sending)? + bytes(receiving)?)
    });
    waiting.sum()
}

/// What the server counts towards the limit of all that is stored.
pub fn counted_bytes(server: &Server) -> usize {
    server.status()["store"]["bytes"].as_u64().expect("a number") as usize
}

/// [`socket_bytes`], once it grows no more.
pub fn socket_bytes_when_quiet(server: &Server) -> usize {
    let until = Instant::now() + PATIENCE;
    let (mut most, mut unchanged) = (0, 0);
    while unchanged < 10 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
        let now = socket_bytes(server);
        unchanged = if now > most { 0 } else { unchanged + 1 };
        most = most.max(now);
    }
    most
}
