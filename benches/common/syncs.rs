//! Counts a process's calls of fsync and fdatasync, by strace.
//!
//! `/proc` does not have them. A process started under the tracer stops at these calls only
//! (seccomp), so its other figures hardly change. One that runs already can be attached to, but
//! then stops at every system call: its times are not to be trusted, its counts are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

const CALLS: [&str; 6] = ["-f", "-qq", "-e", "trace=fsync,fdatasync", "-e", "signal=none"];

/// Time for strace to attach.
const ATTACH: Duration = Duration::from_millis(500);

/// The command line prefix that traces a command.
pub fn launcher(log: &Path) -> Vec<String> {
    let log = log.display().to_string();
    let words = ["strace", "--seccomp-bpf", "-o", &log].into_iter().chain(CALLS).chain(["--"]);
    words.map(str::to_owned).collect()
}

/// The command line prefix that makes a command wait so much longer for the disk.
pub fn delayer(delay: Duration) -> Vec<String> {
    let inject = format!("--inject=fdatasync:delay_exit={}", delay.as_micros());
    let words = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", "signal=none"];
    let words = words.into_iter().chain(["-e", "trace=fdatasync", &inject, "--"]);
    words.map(str::to_owned).collect()
}

/// The calls in a tracer's log so far.
pub fn count(log: &Path) -> Option<usize> {
    let log = fs::read(log).ok()?;
    // Of a call that another thread interrupts, a second line says that it is resumed.
    let is_call = |line: &&str| line.contains("sync(");
    Some(String::from_utf8_lossy(&log).lines().filter(is_call).count())
}

/// A tracer on a process that runs already.
#[derive(Debug)]
pub struct Tracer {
    child: Child,
    pub log: PathBuf,
}

impl Tracer {
    pub fn attach(pid: u32) -> Result<Tracer, String> {
        let log = std::env::temp_dir().join(format!("load-syncs-{}-{pid}", std::process::id()));
        let mut child = Command::new("strace")
            .args(CALLS)
            .arg("-o")
            .arg(&log)
            .args(["-p", &pid.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("fsyncs cannot be counted without strace: {error}"))?;
        sleep(ATTACH);
        match child.try_wait() {
            Ok(None) => Ok(Tracer { child, log }),
            _ => Err("strace cannot attach: it needs root, or kernel.yama.ptrace_scope=0".into()),
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        _ = Command::new("kill").arg(self.child.id().to_string()).status();
        _ = self.child.wait();
        _ = fs::remove_file(&self.log);
    }
}
