//! What the test binaries share: a real server on a free port in a directory of its own, a
//! WebSocket client that speaks JSON (`client`), one that sends bytes (`raw`), and ways to look at
//! files, processes and documents.

pub mod admin;
pub mod client;
pub mod document;
pub mod page;
pub mod process;
pub mod random;
pub mod raw;
pub mod sql;

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wormhole_mailbox::limits::LOG_LINE_BYTES_MAX;

pub use client::Client;
pub use rustix::process::Signal;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_wormhole-mailbox");

/// An ordinary listener for a server that has others besides.
pub const FREE_PORT: &str = "--port=tcp:0:interface=127.0.0.1";

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// The wall clock, in seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// Waits until something is so.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    retry(|| if is_so() { Ok(()) } else { Err(what.to_owned()) });
}

/// Tries until it succeeds; returns the result. The last error is what the test fails with.
#[track_caller]
pub fn retry<T>(mut attempt: impl FnMut() -> Result<T, String>) -> T {
    const LONGEST_PAUSE: Duration = Duration::from_millis(20);
    let until = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < until, "waited in vain: {error}"),
        }
        std::thread::sleep(pause);
        pause = LONGEST_PAUSE.min(2 * pause);
    }
}

/// A directory that is deleted when the test ends.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Directory {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir()
            .join(format!("wormhole-mailbox-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("temp directory");
        Directory(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// A child process that is killed when dropped.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Copies the program. Another process does it: while one of ours has the copy open for writing, it
/// cannot be executed, and children of other tests would have it open too.
pub fn copy_program(path: &Path) {
    let status = Command::new("cp").arg(PROGRAM).arg(path).status().expect("cp runs");
    assert!(status.success());
}

/// Runs the program to its end.
pub fn output_of(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().expect("the program runs")
}

/// What the program prints to stdout when all goes well.
pub fn stdout_of(arguments: &[&str]) -> String {
    let output = output_of(arguments);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs a command in the directory to its end. It must fail with this status, print nothing, and
/// say why in one line on stderr that contains all the parts.
#[track_caller]
pub fn assert_fails(command: &mut Command, directory: &Directory, status: i32, parts: &[&str]) {
    command.current_dir(directory.path()).stdin(Stdio::null());
    let output = command.output().expect("the program runs");
    assert!(output.stdout.is_empty(), "{output:?}");
    let error = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(status), "{command:?}: {error}");
    assert!(error.ends_with('\n') && error.lines().count() == 1, "{command:?}: {error:?}");
    assert!(error.len() <= LOG_LINE_BYTES_MAX, "{error}");
    for part in parts {
        assert!(error.contains(part), "{command:?} must name {part:?}: {error}");
    }
}

/// The same for a mistake, which ends the program with status 2 before any file is touched.
#[track_caller]
pub fn assert_mistake(command: &mut Command, directory: &Directory, parts: &[&str]) {
    let files = || fs::read_dir(directory.path()).expect("a directory").count();
    let files_before = files();
    assert_fails(command, directory, 2, parts);
    assert_eq!(files(), files_before, "{command:?}");
}

/// The level of a log line, which comes after its time.
pub fn level(line: &str) -> Option<&str> {
    line.split(' ').nth(1)
}

/// A running server. Killed when dropped.
pub struct Server {
    child: Running,
    /// The first TCP address that it listens on for clients.
    pub address: SocketAddr,
    /// Its stderr. A file, so that a line that was written can be read at once.
    log: File,
    pub directory: Arc<Directory>,
}

impl Server {
    /// Starts with these options, in a fresh directory, on a free port of 127.0.0.1.
    pub fn start(options: &[&str]) -> Server {
        Server::start_in(Arc::new(Directory::new()), options)
    }

    /// Starts in a directory that may hold files of an earlier run.
    pub fn start_in(directory: Arc<Directory>, options: &[&str]) -> Server {
        let mut command = Command::new(PROGRAM);
        if !options.iter().any(|option| option.starts_with("--port")) {
            command.arg(FREE_PORT);
        }
        command.args(options);
        Server::spawn(command, directory)
    }

    /// Starts a prepared command (a shell that executes the program, say); it must have its port.
    pub fn spawn(mut command: Command, directory: Arc<Directory>) -> Server {
        command.stdin(Stdio::null());
        Server::spawn_with_its_stdin(command, directory)
    }

    /// As `spawn`, with the standard input that the command has been given.
    pub fn spawn_with_its_stdin(mut command: Command, directory: Arc<Directory>) -> Server {
        let outside = Directory::new();
        let path = outside.file("log");
        let log = File::options().read(true).append(true).create(true).open(path).expect("log");
        let stderr = log.try_clone().expect("log");
        let child = command.current_dir(directory.path()).stderr(stderr).spawn();
        let child = Running(child.expect("server starts"));
        let mut server = Server { child, address: SocketAddr::from(([0; 4], 0)), log, directory };
        server.wait_for_log("listening on ");
        // The loop is made last, when the files are open and all settings are logged.
        eventually("the event loop", || process::has_event_loop(server.pid()));
        if let Some(address) = server.logged_addresses().first() {
            server.address = *address;
        }
        server
    }

    /// The TCP addresses that the log says are listened on.
    pub fn logged_addresses(&self) -> Vec<SocketAddr> {
        self.log()
            .iter()
            .filter_map(|line| line.split("listening on ").nth(1)?.trim().parse().ok())
            .collect()
    }

    /// All whole lines of the log so far.
    pub fn log(&self) -> Vec<String> {
        let mut bytes = vec![0; self.log.metadata().expect("log").len() as usize];
        self.log.read_exact_at(&mut bytes, 0).expect("log");
        let text = String::from_utf8_lossy(&bytes);
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_owned).collect()
    }

    /// The number of log lines so far that contain `part`.
    pub fn count_log(&self, part: &str) -> usize {
        self.log().iter().filter(|line| line.contains(part)).count()
    }

    /// Waits for a log line that contains `part`; returns it.
    pub fn wait_for_log(&mut self, part: &str) -> String {
        self.wait_for_log_after(0, part)
    }

    /// The same without the first `seen` lines.
    pub fn wait_for_log_after(&mut self, seen: usize, part: &str) -> String {
        retry(|| {
            let is_whole = self.child.0.try_wait().expect("wait").is_some();
            let log = self.log();
            match log.iter().skip(seen).find(|line| line.contains(part)) {
                Some(line) => Ok(line.clone()),
                None if is_whole => panic!("the server ended without {part:?}: {log:#?}"),
                None => Err(format!("{part:?} in {log:#?}")),
            }
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    pub fn url(&self) -> String {
        format!("ws://{}/v1", self.address)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.file(name)
    }

    pub fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// SIGUSR2, then waits until the new process serves.
    pub fn replace(&mut self) {
        let before = self.log().len();
        self.signal(Signal::USR2);
        self.wait_for_log_after(before, "took over ");
    }

    /// SIGTERM, then waits for the end; returns the directory for a next start.
    pub fn stop(mut self) -> (ExitStatus, Arc<Directory>) {
        self.signal(Signal::TERM);
        (self.wait(), Arc::clone(&self.directory))
    }

    /// SIGKILL, then waits for the end.
    pub fn kill(self) -> Arc<Directory> {
        Arc::clone(&self.directory)
    }

    /// Waits for the process to end.
    pub fn wait(&mut self) -> ExitStatus {
        retry(|| {
            let status = self.child.0.try_wait().expect("wait");
            status.ok_or_else(|| format!("the end: {:#?}", self.log()))
        })
    }
}
