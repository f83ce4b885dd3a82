//! What a local process has used, from `/proc`: no root needed for one's own processes.

use std::fs;
use std::time::Duration;

/// `/proc/PID/stat` counts CPU time in hundredths of a second (`USER_HZ`, fixed on Linux).
const TICKS_PER_SECOND: f64 = 100.0;

/// Fields of `/proc/PID/stat` after the command's name: user and system time.
const STAT_USER: usize = 11;
const STAT_SYSTEM: usize = 12;

/// A process's totals at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub cpu: Duration,
    pub resident_bytes: u64,
    /// The part of it that is no file's.
    pub anonymous_bytes: u64,
    /// Bytes that the process caused to be written to storage; `None` without permission.
    pub written_bytes: Option<u64>,
}

impl Usage {
    /// Reads a process's totals.
    pub fn of(pid: u32) -> Result<Usage, String> {
        let gone = || format!("process {pid} cannot be read: is it running, and yours?");
        let cpu = cpu(&pid.to_string()).ok_or_else(gone)?;
        let resident_bytes = memory(pid, "Rss:", "VmRSS:").ok_or_else(gone)?;
        let anonymous_bytes = memory(pid, "Anonymous:", "RssAnon:").ok_or_else(gone)?;
        Ok(Usage { cpu, resident_bytes, anonymous_bytes, written_bytes: written(pid) })
    }

    /// What was used between two moments; memory is the later one's.
    pub fn since(&self, earlier: &Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            resident_bytes: self.resident_bytes,
            anonymous_bytes: self.anonymous_bytes,
            written_bytes: self
                .written_bytes
                .zip(earlier.written_bytes)
                .map(|(now, then)| now.saturating_sub(then)),
        }
    }
}

/// CPU time of this program.
pub fn own_cpu() -> Duration {
    cpu("self").unwrap_or_default()
}

fn cpu(pid: &str) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain anything, parentheses too.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<f64>().ok();
    Some(Duration::from_secs_f64((ticks(STAT_USER)? + ticks(STAT_SYSTEM)?) / TICKS_PER_SECOND))
}

/// `smaps_rollup` is exact; the counters in `status` lag by some pages per thread.
fn memory(pid: u32, exact: &str, approximate: &str) -> Option<u64> {
    let kib = |file: &str, key: &str| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        number_after(&text, key)
    };
    kib("smaps_rollup", exact).or_else(|| kib("status", approximate)).map(|kib| kib * 1024)
}

fn written(pid: u32) -> Option<u64> {
    number_after(&fs::read_to_string(format!("/proc/{pid}/io")).ok()?, "write_bytes:")
}

fn number_after(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
