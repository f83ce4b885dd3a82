//! The kernel's figures of this process and its machine: memory, CPU time, descriptors, sizes of
//! files, host name; and the signals that it must survive.
//!
//! Each value is read on request, with a system call or two. One that cannot be read is none: no
//! service depends on it.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use signal_hook::consts::{SIGPIPE, SIGXFSZ};
use signal_hook::flag;

/// Makes a write beyond the file size limit (`RLIMIT_FSIZE`) fail, as one on a full disk does,
/// instead of ending the process. To be called before the first line is logged.
pub fn survive_file_size_limit() -> io::Result<()> {
    survive(SIGXFSZ)
}

/// Makes a write to a closed pipe fail instead of ending the process. Rust's runtime ignores the
/// signal from the start, but `Command::exec` restores its default, even if it fails.
pub fn survive_closed_pipe() -> io::Result<()> {
    survive(SIGPIPE)
}

/// With a handler, the system call that caused the signal fails instead.
fn survive(signal: i32) -> io::Result<()> {
    flag::register(signal, Arc::default()).map(|_| ())
}

/// The process now.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// Memory in RAM.
    pub resident_bytes: Option<u64>,
    /// CPU time since the start, user and system.
    pub cpu_seconds: f64,
    /// Descriptors in use.
    pub open_fds: Option<u64>,
    /// Descriptors allowed; none if there is no limit.
    pub max_fds: Option<u64>,
}

impl Process {
    /// Asks for everything.
    pub fn read() -> Process {
        Process {
            resident_bytes: resident_bytes(),
            cpu_seconds: cpu_seconds().unwrap_or_else(cpu_seconds_of_clock),
            open_fds: open_fds(),
            max_fds: getrlimit(Resource::Nofile).current,
        }
    }
}

/// Linux counts in these whatever the processor (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

const BYTES_PER_KB: u64 = 1024;

/// From the kernel's own text: some C libraries have a clock of 32 bits, which is misread.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program may hold anything; `utime` and `stime` are the 12th and 13th after.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

/// Where there is no `/proc`.
fn cpu_seconds_of_clock() -> f64 {
    let time = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime));
    time.unwrap_or_default().as_secs_f64()
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * BYTES_PER_KB)
}

/// Newer kernels report the number as the directory's size; older ones report zero, and the
/// entries are counted.
fn open_fds() -> Option<u64> {
    const DIRECTORY: &str = "/proc/self/fd";
    match fs::metadata(DIRECTORY).ok()?.len() {
        0 => Some(fs::read_dir(DIRECTORY).ok()?.count() as u64),
        count => Some(count),
    }
}

/// The machine's host name, and the part before its first dot. Names may change at any time.
pub fn host_names() -> Vec<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let short = name.split('.').next().unwrap_or_default();
    [name, short].into_iter().filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The size of a file, if it is there.
pub fn file_bytes(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_cpu_time_that_the_kernel_writes_is_no_more_than_that_of_its_clock() {
        let written = cpu_seconds().expect("/proc");
        assert!(written <= cpu_seconds_of_clock(), "{written}");
    }
}
