//! Starts the servers that are compared, each with fresh files in a directory of its own.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::modes::Dialect;
use crate::common::net::Target;
use crate::common::syncs;

/// How long a server may take to listen.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// How long a server may take to stop before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

const POLL_EVERY: Duration = Duration::from_micros(500);

/// The Python packages that are compared with.
const PYTHON_PACKAGES: [&str; 2] =
    ["magic-wormhole-mailbox-server==0.8.0", "magic-wormhole==0.24.0"];

/// The argument that makes this program the floor.
pub const FLOOR_ARGUMENT: &str = "--floor";

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Python,
    Ours,
    Floor,
    /// Another build of this server: its binary.
    Build(&'static Path),
}

impl Kind {
    pub fn dialect(self) -> Dialect {
        match self {
            Kind::Floor => Dialect::Floor,
            Kind::Python | Kind::Ours | Kind::Build(_) => Dialect::Mailbox,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Python => "Python",
            Kind::Ours => "this server",
            Kind::Floor => "floor",
            Kind::Build(_) => "the other build",
        }
    }
}

/// A running server. Killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// The server itself; the child may be a tracer.
    pub pid: u32,
    /// When it was started.
    pub started: Instant,
    pub target: Target,
    directory: PathBuf,
    /// The log of the tracer, if it runs under one.
    pub trace: Option<PathBuf>,
}

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Under strace, to count its fsyncs.
    pub count_syncs: bool,
    /// With the databases in memory; only for ours.
    pub in_memory: bool,
    /// A channel database to begin with.
    pub channel_db: Option<PathBuf>,
    /// Instead of the options that make mailboxes roomy; only for ours.
    pub options: Option<Vec<String>>,
    /// How much longer each of its commits waits for the disk, by strace.
    pub slow_disk: Option<Duration>,
    /// A command to run it under, such as valgrind's.
    pub under: Vec<String>,
}

impl Server {
    /// Starts a server on a free port, and waits until it listens.
    pub fn start(kind: Kind, setup: &Setup) -> Result<Server, String> {
        let directory = fresh_directory()?;
        if let Some(file) = &setup.channel_db {
            fs::copy(file, directory.join("channel.sqlite"))
                .map_err(|error| format!("{}: {error}", file.display()))?;
        }
        let address = free_address()?;
        let mut words = setup.under.clone();
        let trace = setup.count_syncs.then(|| directory.join("syncs"));
        if let Some(trace) = &trace {
            words.extend(syncs::launcher(trace));
        }
        words.extend(setup.slow_disk.into_iter().flat_map(syncs::delayer));
        words.extend(command(kind, address, &directory, setup)?);
        let started = Instant::now();
        let child = Command::new(&words[0])
            .args(&words[1..])
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", words[0]))?;
        let target = Target::parse(&format!("ws://{address}/v1"))?;
        let mut server = Server { pid: child.id(), child, started, target, directory, trace };
        server.wait_until_it_listens()?;
        if server.trace.is_some() || setup.slow_disk.is_some() {
            server.pid = child_of(server.pid).ok_or("strace has no child")?;
        }
        Ok(server)
    }

    fn wait_until_it_listens(&mut self) -> Result<(), String> {
        let until = Instant::now() + START_PATIENCE;
        while TcpStream::connect(self.target.address).is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("a server ended at its start: {status}"));
            }
            if Instant::now() > until {
                return Err("a server does not listen".to_owned());
            }
            sleep(POLL_EVERY);
        }
        Ok(())
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Ends the server as an operator would.
    pub fn stop(mut self) {
        self.terminate();
    }

    fn terminate(&mut self) {
        _ = Command::new("kill").args(["-TERM", &self.pid.to_string()]).status();
        let until = Instant::now() + STOP_PATIENCE;
        while Instant::now() < until {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            sleep(POLL_EVERY);
        }
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.terminate();
        }
        _ = fs::remove_dir_all(&self.directory);
    }
}

/// All limits are on, but these are higher than the defaults: relaying fills a mailbox with more
/// messages in a second than people do in a year.
pub const ROOMY_MAILBOXES: [&str; 3] = [
    "--limit-mailbox-messages=100000000",
    "--limit-mailbox-bytes=1000000000",
    "--limit-stored-bytes=1000000000",
];

fn command(
    kind: Kind,
    address: SocketAddr,
    directory: &Path,
    setup: &Setup,
) -> Result<Vec<String>, String> {
    let port = format!("--port=tcp:{}:interface={}", address.port(), address.ip());
    let databases = ["channel", "usage"].map(|name| match setup.in_memory {
        true => format!("--{name}-db=:memory:"),
        false => format!("--{name}-db={name}.sqlite"),
    });
    let mut words = match kind {
        Kind::Ours | Kind::Build(_) => {
            let own = Path::new(env!("CARGO_BIN_EXE_wormhole-mailbox"));
            let binary = if let Kind::Build(other) = kind { other } else { own };
            let roomy = || ROOMY_MAILBOXES.map(str::to_owned).to_vec();
            let mut words = vec![binary.display().to_string(), port];
            words.extend(setup.options.clone().unwrap_or_else(roomy));
            words
        }
        Kind::Python => vec![twist()?, "wormhole-mailbox".to_owned(), port],
        Kind::Floor => {
            let own = std::env::current_exe().map_err(|error| error.to_string())?;
            let file = directory.join("floor.sqlite").display().to_string();
            return Ok(vec![
                own.display().to_string(),
                FLOOR_ARGUMENT.to_owned(),
                address.to_string(),
                file,
            ]);
        }
    };
    words.extend(databases);
    Ok(words)
}

fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// The Python server's start script; makes the virtual environment when it is missing.
fn twist() -> Result<String, String> {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv");
    let twist = venv.join("bin/twist");
    if !twist.exists() {
        eprintln!("installing the Python server into {} ...", venv.display());
        let path = venv.display().to_string();
        must_run("python3", &["-m", "venv", &path])?;
        let pip = venv.join("bin/pip").display().to_string();
        must_run(&pip, &[&["install", "--quiet"], &PYTHON_PACKAGES[..]].concat())?;
    }
    Ok(twist.display().to_string())
}

fn must_run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let status = Command::new(program)
        .args(arguments)
        .status()
        .map_err(|error| format!("{program}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program}: {status}")) }
}

/// Beside the build, hence on a real disk: a temporary directory may be in memory.
pub fn fresh_directory() -> Result<PathBuf, String> {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("side-by-side-{}-{number}", std::process::id()));
    fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

pub fn free_address() -> Result<SocketAddr, String> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|error| format!("no free port: {error}"))
}
