//! A process as the kernel sees it: signals, limits, memory, descriptors.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit, setrlimit};

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(pid as i32).expect("a process id")
}

pub fn signal(pid: u32, signal: Signal) {
    kill_process(pid_of(pid), signal).expect("a running process");
}

/// Changes a soft limit of a running process; `None` is no limit.
pub fn limit(pid: u32, resource: Resource, current: Option<u64>) {
    let maximum = prlimit_of(pid, resource).maximum;
    prlimit(Some(pid_of(pid)), resource, Rlimit { current, maximum }).expect("a limit");
}

fn prlimit_of(pid: u32, resource: Resource) -> Rlimit {
    let name = match resource {
        Resource::Nofile => "Max open files",
        Resource::Fsize => "Max file size",
        other => panic!("{other:?}"),
    };
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("the limit");
    let mut values = line.split_whitespace().map(|word| word.parse().ok());
    let (current, maximum) = (values.next().expect("soft"), values.next().expect("hard"));
    Rlimit { current, maximum }
}

/// Lets the test itself hold as many sockets as the system allows.
pub fn raise_own_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the hard limit");
}

/// Memory of a process that is in RAM, in bytes.
pub fn resident_bytes(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kib = line.split_whitespace().nth(1).and_then(|word| word.parse::<usize>().ok());
    kib.expect("a number") * 1024
}

/// Open descriptors of a process.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("fd").count()
}

/// Whether a process has an event loop, that is, an epoll descriptor.
pub fn has_event_loop(pid: u32) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let mut targets = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.any(|target| target.as_os_str() == "anon_inode:[eventpoll]")
}

/// Whether any process has that working directory.
pub fn is_any_in(directory: &Path) -> bool {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let mut directories = processes.filter_map(|it| fs::read_link(it.path().join("cwd")).ok());
    directories.any(|it| it == directory)
}

/// The state of a process, as in `ps`: R, S, T for stopped.
pub fn state(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let (_, fields) = stat.rsplit_once(") ").expect("fields");
    fields.chars().next().expect("a state")
}

/// Processor time a process has used, in seconds.
pub fn processor_seconds(pid: u32) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0; // USER_HZ, the same on every Linux
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let after_name = stat.rsplit(')').next().expect("fields");
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}
