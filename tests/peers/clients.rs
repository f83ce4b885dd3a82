//! The Magic Wormhole clients that people use, run against a server under test: Python's
//! `wormhole`, Go's `wormhole-william`, Rust's `wormhole-rs`.
//!
//! All traffic stays on this machine.

use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::LazyLock;

use super::programs::program;
use crate::common::{Directory, Running, retry};

/// The port of the public transit relay, which the Go client has built in.
pub const RELAY_PORT: u16 = 4001;

/// An implementation of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Python,
    Go,
    Rust,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Python, Kind::Go, Kind::Rust];

    pub fn program(self) -> PathBuf {
        program(match self {
            Kind::Python => "wormhole",
            Kind::Go => "wormhole-william",
            Kind::Rust => "wormhole-rs",
        })
    }

    /// Whether it can send and receive a text. The Rust command can only do files.
    pub fn knows_texts(self) -> bool {
        self != Kind::Rust
    }

    /// Whether a connection lost while it waits is made anew. The others give up, with any server.
    pub fn reconnects(self) -> bool {
        self == Kind::Python
    }

    /// Whether it says `close` and waits for the answer before it ends, when all went well.
    pub fn closes_when_done(self) -> bool {
        self != Kind::Go
    }

    /// Those that know texts.
    pub fn texting() -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(|kind| kind.knows_texts())
    }

    /// Every sender with every receiver.
    pub fn pairs() -> Vec<(Kind, Kind)> {
        Kind::ALL.iter().flat_map(|from| Kind::ALL.iter().map(|to| (*from, *to))).collect()
    }

    /// Sends with the given code, or one the server allocates a nameplate for.
    pub fn send(self, site: &Site, code: Option<&str>, what: &Payload) -> Client {
        let mut command = self.command(site, "send");
        if self != Kind::Go {
            command.arg("--no-qr");
        }
        if self == Kind::Rust {
            command.arg("--no-color");
        } else {
            command.arg("--hide-progress");
        }
        if let Some(code) = code {
            command.args(["--code", code]);
        }
        match what {
            Payload::Text(text) => command.args(["--text", text]),
            Payload::File(path) => command.arg(path),
        };
        Client::start(self, command, Directory::new())
    }

    /// Receives into a directory of its own.
    pub fn receive(self, site: &Site, code: &str) -> Client {
        let mut command = self.receiving(site);
        command.arg(code);
        Client::start(self, command, Directory::new())
    }

    /// Receives once a code is typed in. Python's client binds before that.
    pub fn receive_typed(self, site: &Site) -> Client {
        Client::start(self, self.receiving(site), Directory::new())
    }

    fn receiving(self, site: &Site) -> Command {
        let mut command = self.command(site, "receive");
        match self {
            Kind::Python => command.args(["--hide-progress", "--accept-file"]),
            Kind::Go => command.arg("--hide-progress"),
            Kind::Rust => command.args(["--no-color", "--noconfirm"]),
        };
        command
    }

    fn command(self, site: &Site, verb: &str) -> Command {
        let mut command = Command::new(self.program());
        let relay = site.relay.local_addr().expect("address");
        command.envs(site.authority.as_ref().map(|path| ("SSL_CERT_FILE", path)));
        match self {
            Kind::Python => {
                command.args(["--relay-url", &site.url]);
                command.args(["--transit-helper", &format!("tcp:{}:{}", relay.ip(), relay.port())]);
                command.arg(verb);
                command.env("PYTHONUNBUFFERED", "1");
            }
            Kind::Go => {
                command.args(["--relay-url", &site.url, verb]);
                redirect_relay(&mut command, relay.ip());
            }
            Kind::Rust => {
                command.args([verb, "--rendezvous-server", &site.url]);
                command.args(["--relay-server", &format!("tcp://{relay}")]);
                command.env("LD_PRELOAD", CLIENT_REPAIRS.as_path());
            }
        }
        command
    }
}

/// Has the Go client ask the C library for the name of the public relay, and that give this.
pub fn redirect_relay(command: &mut Command, to: IpAddr) {
    command.env("GODEBUG", "netdns=cgo");
    command.env("LD_PRELOAD", CLIENT_REPAIRS.as_path());
    command.env("TRANSIT_RELAY_ADDRESS", to.to_string());
}

/// The library that keeps the Go client from looking its transit relay up, and the Rust client from
/// ending when a transit connection that it no longer needs is reset.
static CLIENT_REPAIRS: LazyLock<PathBuf> = LazyLock::new(|| {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/client_repairs.c");
    let pid = std::process::id();
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("client_repairs.{pid}"));
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("client_repairs.so");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&built, &source])
        .arg("-ldl")
        .status()
        .expect("cc, which SQLite needs too");
    assert!(compiled.success());
    // Renamed, because another test process may be loading the one there.
    fs::rename(built, &library).expect("rename");
    library
});

/// What clients are pointed at: the mailbox server, and a transit relay that never pairs anyone, so
/// that clients connect directly.
pub struct Site {
    pub url: String,
    /// Whose signature on the server's certificate is taken, instead of the system's list.
    pub authority: Option<PathBuf>,
    relay: TcpListener,
}

impl Site {
    pub fn new(url: String) -> Site {
        // The Go client's relay port is fixed, so every site takes another loopback address.
        let relay = (1..=u8::MAX)
            .map(|number| Ipv4Addr::new(127, 77, std::process::id() as u8, number))
            .find_map(|ip| TcpListener::bind(SocketAddr::from((ip, RELAY_PORT))).ok())
            .expect("a loopback address with the relay port free");
        Site { url, authority: None, relay }
    }
}

/// What is sent.
#[derive(Clone, Debug)]
pub enum Payload {
    Text(String),
    File(PathBuf),
}

/// An exchange in which Go's client had another key than the one at the other end, as it has in
/// about 1 of 256 with a client of another kind, at any server: it drops a leading zero byte of
/// the point from which the key is made (gospake2, `AffinePoint.Compress`).
#[derive(Debug)]
pub struct KeysDiffer;

/// Waits for the end of both, which must be a good one.
pub fn succeed_both(sender: &mut Client, receiver: &mut Client) -> Result<(), KeysDiffer> {
    let mut clients = [receiver, sender];
    for client in &mut clients {
        client.wait();
    }
    let is_mixed = clients[0].kind != clients[1].kind;
    if is_mixed && clients.iter().any(|it| it.kind == Kind::Go && it.has_another_key()) {
        return Err(KeysDiffer);
    }
    clients.into_iter().for_each(Client::succeed);
    Ok(())
}

/// A running client. Killed when dropped.
pub struct Client {
    pub kind: Kind,
    child: Running,
    directory: Directory,
}

impl Client {
    pub fn start(kind: Kind, mut command: Command, directory: Directory) -> Client {
        let output = File::create(directory.file("output")).expect("output file");
        let received = directory.file("received");
        fs::create_dir(&received).expect("directory");
        let child = command
            .current_dir(received)
            // Configuration and caches of the user must not matter, nor change.
            .env("HOME", directory.path())
            .stdin(Stdio::piped())
            .stdout(output.try_clone().expect("output file"))
            .stderr(output)
            .spawn()
            .expect("client starts");
        let mut client = Client { kind, child: Running(child), directory };
        if kind == Kind::Go {
            client.type_line("y"); // it has no option to accept a file unasked
        }
        client
    }

    /// Types a line. A client gone already is noticed by its exit status.
    pub fn type_line(&mut self, line: &str) {
        let stdin = self.child.0.stdin.as_mut().expect("piped");
        _ = stdin.write_all(format!("{line}\n").as_bytes());
    }

    /// All it has written to its terminal.
    pub fn output(&self) -> String {
        let bytes = fs::read(self.directory.file("output")).expect("output file");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until it shows its user the code.
    pub fn code(&self) -> String {
        retry(|| {
            let output = self.output();
            let code = output.lines().find_map(|line| {
                line.strip_prefix("Wormhole code is: ")
                    .or_else(|| line.strip_prefix("This wormhole's code is: "))
            });
            let code = code.and_then(|it| it.split_whitespace().next()).unwrap_or_default();
            // A line may be there in part.
            let is_whole = [" ", "\n"].iter().any(|end| output.contains(&format!("{code}{end}")));
            if !code.is_empty() && is_whole { Ok(code.to_owned()) } else { Err(output) }
        })
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        retry(|| self.child.0.try_wait().expect("wait").ok_or_else(|| self.output()))
    }

    /// Waits for its end, which must be a good one.
    pub fn succeed(&mut self) {
        let status = self.wait();
        assert!(status.success(), "{:?}: {status}: {}", self.kind, self.output());
    }

    /// Whether Go's client has said that it cannot read what the other end wrote.
    fn has_another_key(&self) -> bool {
        self.output().contains("decrypt message failed")
    }

    /// The one file it has received.
    pub fn received(&self) -> Vec<u8> {
        let files: Vec<_> = fs::read_dir(self.directory.file("received"))
            .expect("directory")
            .map(|entry| entry.expect("entry").path())
            .collect();
        assert_eq!(files.len(), 1, "{files:?}: {}", self.output());
        fs::read(&files[0]).expect("received file")
    }
}
