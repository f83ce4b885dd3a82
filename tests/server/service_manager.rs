//! Service managers: systemd's notification protocol, and sockets passed at the start (socket
//! activation). The test is the manager.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use crate::common::client::assert_welcomed;
use crate::common::raw::{CLOSE, Raw, upgrade};
use crate::common::{
    Client, Directory, FREE_PORT, PATIENCE, PROGRAM, Server, Signal, eventually, level, process,
    sql,
};
use serde_json::json;

/// The end of the notification protocol that a service manager holds.
struct Manager {
    socket: UnixDatagram,
    /// What `NOTIFY_SOCKET` says.
    address: String,
}

impl Manager {
    fn at_path(directory: &Directory) -> Manager {
        let path = directory.file("notify");
        let address = path.to_str().expect("UTF-8").to_owned();
        Manager { socket: UnixDatagram::bind(path).expect("a socket"), address }.patient()
    }

    fn abstract_named(name: &str) -> Manager {
        let name = format!("wormhole-mailbox-test-{}-{name}", std::process::id());
        let address = UnixAddress::from_abstract_name(&name).expect("an address");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        Manager { socket, address: format!("@{name}") }.patient()
    }

    fn patient(self) -> Manager {
        self.socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        self
    }

    /// The program, told of this manager.
    fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(options).env("NOTIFY_SOCKET", &self.address);
        command
    }

    fn start(&self, options: &[&str]) -> Server {
        let options = [&[FREE_PORT], options].concat();
        Server::spawn(self.command(&options), Arc::new(Directory::new()))
    }

    fn recv(&self) -> String {
        let mut bytes = [0; 4096];
        let count = loop {
            match self.socket.recv(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {} // by a signal
                received => break received.expect("a message"),
            }
        };
        String::from_utf8(bytes[..count].to_vec()).expect("UTF-8")
    }

    /// Waits for a message that contains `part`; gives it with those before it.
    fn wait_for(&self, part: &str) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        let mut messages = Vec::new();
        loop {
            messages.push(self.recv());
            if messages.last().is_some_and(|message| message.contains(part)) {
                return messages;
            }
            assert!(Instant::now() < until, "no {part:?} in {messages:#?}");
        }
    }

    /// Takes what has been sent so far; returns the number of messages.
    fn drain(&self) -> usize {
        self.socket.set_nonblocking(true).expect("non-blocking");
        let count = (0..).take_while(|_| self.socket.recv(&mut [0; 4096]).is_ok()).count();
        self.socket.set_nonblocking(false).expect("blocking");
        count
    }
}

#[test]
fn the_manager_is_told_when_it_is_ready_and_when_it_stops() {
    let directory = Directory::new();
    for manager in [Manager::at_path(&directory), Manager::abstract_named("ready")] {
        let home = Arc::new(Directory::new());
        let command = manager.command(&[FREE_PORT, "--port=unix:x.sock", "--usage-db=u.sqlite"]);
        let starting = Arc::clone(&home);
        let starter = std::thread::spawn(move || Server::spawn(command, starting));
        assert_eq!(manager.recv(), "READY=1\nSTATUS=connections: 0, nameplates: 0, mailboxes: 0");
        // Then all is there: the sockets are listened on, the files exist.
        UnixStream::connect(home.file("x.sock")).expect("connect");
        assert!(home.file("relay.sqlite").exists() && home.file("u.sqlite").exists());
        let mut server = starter.join().expect("a server");
        let mut silent = Raw::open(server.address);
        server.signal(Signal::TERM);
        assert_eq!(silent.frame().0, CLOSE);
        // Told at once, and not when everybody has gone.
        manager.wait_for("STOPPING=1");
        drop(silent);
        assert!(server.wait().success());
    }
}

#[test]
fn reading_the_settings_again_is_told_from_its_beginning_to_its_end() {
    let manager = Manager::abstract_named("reload");
    let server = manager.start(&[]);
    manager.wait_for("READY=1");
    // Also if there is nothing to read: a manager that waits for the end must hear of it.
    for _ in 0..2 {
        server.signal(Signal::HUP);
        let told = manager.wait_for("READY=1");
        assert!(told[0].starts_with("RELOADING=1\nMONOTONIC_USEC="), "{told:?}");
        assert_eq!(told.len(), 2, "{told:?}");
    }
}

#[test]
fn the_status_tells_what_is_there() {
    let manager = Manager::abstract_named("status");
    let server = manager.start(&[]);
    manager.wait_for("READY=1");
    let mut client = server.bind("app", "side");
    client.claim("4");
    let told = manager.wait_for("STATUS=connections: 1, nameplates: 1, mailboxes: 1");
    assert!(told.iter().all(|message| message.starts_with("STATUS=")), "{told:?}");
    client.one(json!({"type": "release"}));
    drop(client);
    manager.wait_for("STATUS=connections: 0, nameplates: 0, mailboxes: 1");
    // Nothing is sent while nothing changes: the next message is of the next change.
    let _client = server.connect();
    assert_eq!(manager.recv(), "STATUS=connections: 1, nameplates: 0, mailboxes: 1");
}

#[test]
fn the_status_tells_since_when_the_storage_fails_and_when_it_works_again() {
    let manager = Manager::abstract_named("storage");
    let mut server = manager.start(&[]);
    manager.wait_for("READY=1");
    let lock = sql::lock(&server.file("relay.sqlite"));
    let mut client = server.bind("app", "side");
    client.send(json!({"type": "claim", "nameplate": "4"}));
    server.wait_for_log("degraded mode");
    let told = manager.wait_for("STATUS=storage unavailable since ");
    let told = told.last().expect("the message");
    let (since, rest) = told
        .strip_prefix("STATUS=storage unavailable since ")
        .and_then(|rest| rest.split_once("; "))
        .unwrap_or_else(|| panic!("{told}"));
    assert!(since.starts_with("20") && since.ends_with(" UTC") && since.len() == 23, "{since}");
    assert!(rest.starts_with("connections: "), "{rest}");
    drop(lock);
    manager.wait_for("STATUS=connections: 0, nameplates: 0, mailboxes: 0");
}

#[test]
fn the_watchdog_hears_from_the_loop_while_it_turns() {
    const PATIENCE_MICROSECONDS: &str = "40000";
    let manager = Manager::abstract_named("watchdog");
    let mut command = manager.command(&[FREE_PORT]);
    command.env("WATCHDOG_USEC", PATIENCE_MICROSECONDS);
    let server = Server::spawn(command, Arc::new(Directory::new()));
    for _ in 0..10 {
        manager.wait_for("WATCHDOG=1");
    }
    // A process that stands still, stuck loop or not, says nothing.
    server.signal(Signal::STOP);
    eventually("it stands still", || process::state(server.pid()) == 'T');
    manager.drain();
    assert_eq!(manager.drain(), 0);
    server.signal(Signal::CONT);
    manager.wait_for("WATCHDOG=1");
    // One that is meant for another process is not fed.
    let other = Manager::abstract_named("other-watchdog");
    let mut command = other.command(&[FREE_PORT, "--limit-bind-seconds=0.2"]);
    command.env("WATCHDOG_USEC", PATIENCE_MICROSECONDS).env("WATCHDOG_PID", "1");
    let server = Server::spawn(command, Arc::new(Directory::new()));
    other.wait_for("READY=1");
    // Its loop turns for the time to bind, which is several times the watchdog's.
    let mut client = server.connect();
    let mut told = other.wait_for("STATUS=connections: 1");
    assert_eq!(client.close_code(), 1008);
    drop(client);
    told.extend(other.wait_for("STATUS=connections: 0"));
    assert!(!told.iter().any(|message| message.contains("WATCHDOG")), "{told:?}");
}

#[test]
fn a_manager_that_cannot_be_told_does_no_harm() {
    let directory = Directory::new();
    let nobody = directory.file("nobody").to_str().expect("UTF-8").to_owned();
    let long = format!("/{}", "x".repeat(200));
    for address in [nobody.as_str(), &long, "vsock:2:9999", "relative", "@"] {
        let mut command = Command::new(PROGRAM);
        command.arg(FREE_PORT).env("NOTIFY_SOCKET", address).env("WATCHDOG_USEC", "2000");
        let mut server = Server::spawn(command, Arc::new(Directory::new()));
        server.wait_for_log("the service manager");
        server.bind("app", "side").claim("4");
        let complaints =
            server.log().iter().filter(|line| line.contains("the service manager")).count();
        assert_eq!(complaints, 1, "{:#?}", server.log());
    }
    // Nor one that never reads: the kernel's queue is soon full.
    let deaf = Manager::abstract_named("deaf");
    let mut command = deaf.command(&[FREE_PORT]);
    command.env("WATCHDOG_USEC", "2000");
    let mut server = Server::spawn(command, Arc::new(Directory::new()));
    server.wait_for_log("the service manager cannot be sent");
    server.bind("app", "side").claim("4");
    server.signal(Signal::TERM);
    assert!(server.wait().success());
}

/// The program with one or two sockets passed, as a service manager does it.
pub fn passing(sockets: Vec<OwnedFd>, names: &str, options: &[&str]) -> Command {
    // The numbers can only be set between fork and exec, by a shell.
    const SHELL: &str = "exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_PID=$$; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", SHELL, "sh", PROGRAM]).args(options);
    command.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names);
    let mut sockets = sockets.into_iter();
    if let Some(first) = sockets.next() {
        command.stdin(Stdio::from(first));
    }
    if let Some(second) = sockets.next() {
        command.stdout(Stdio::from(second));
    }
    command
}

fn start_passing(sockets: Vec<OwnedFd>, names: &str, options: &[&str]) -> Server {
    Server::spawn_with_its_stdin(passing(sockets, names, options), Arc::new(Directory::new()))
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// What the log says is listened on.
fn listened_on(server: &Server) -> Vec<String> {
    let log = server.log();
    let lines = log.iter().filter_map(|line| line.split("listening on ").nth(1));
    lines.map(|address| address.trim().to_owned()).collect()
}

fn assert_serves(address: SocketAddr) {
    assert_eq!(Client::connect(address).recv()["type"], "welcome");
}

#[test]
fn passed_sockets_are_listened_on_without_being_asked_for_and_stay_when_it_ends() {
    let home = Directory::new();
    let path = home.file("passed.sock");
    let unix = UnixListener::bind(&path).expect("a socket");
    let (tcp, address) = listener();
    let sockets = vec![tcp.into(), unix.try_clone().expect("a copy").into()];
    let server = start_passing(sockets, "web:local", &[]);
    assert_eq!(listened_on(&server), [address.to_string(), format!("unix:{}", path.display())]);
    assert_serves(address);
    assert_welcomed(UnixStream::connect(&path).expect("connect"));
    let (status, _directory) = server.stop();
    assert!(status.success());
    assert!(path.exists());
    UnixStream::connect(&path).expect("it is still listened on");
    // An abstract one has a name, if no file.
    let name = format!("wormhole-mailbox-test-{}-passed", std::process::id());
    let unnamed = UnixAddress::from_abstract_name(&name).expect("an address");
    let listener = UnixListener::bind_addr(&unnamed).expect("a socket");
    let server = start_passing(vec![listener.into()], "", &[]);
    assert_eq!(listened_on(&server), [format!("unix:@{name}")]);
    assert_welcomed(UnixStream::connect_addr(&unnamed).expect("connect"));
}

#[test]
fn passed_sockets_go_over_to_another_process() {
    let (first, _) = listener();
    let (second, other) = listener();
    let mut server = start_passing(vec![first.into(), second.into()], "a:b", &["--port=systemd:b"]);
    for _ in 0..2 {
        server.replace();
        assert_serves(other);
    }
    assert!(server.stop().0.success());
}

#[test]
fn a_passed_socket_that_is_not_there_is_found_before_a_takeover() {
    let home = Directory::new();
    let options = home.file("options");
    let put = |text: &str| fs::write(&options, text).expect("write");
    put("port = systemd:web");
    let ((first, _), (second, address)) = (listener(), listener());
    let config = format!("--config={}", options.display());
    let mut server = start_passing(vec![first.into(), second.into()], "first:web", &[&config]);
    for (text, reason) in [
        ("port = systemd:other", "systemd:other: none of the 2 passed sockets has"),
        ("port = systemd:2", "systemd:2: none of the 2 passed sockets has"),
        ("port = systemd:web\nport = systemd:1", "passed socket 1 is picked twice"),
        ("port = systemd:", "passed socket 0 comes with a restart only"),
    ] {
        put(text);
        let before = server.log().len();
        server.signal(Signal::USR2);
        let line = server.wait_for_log_after(before, "not replaced by ");
        assert!(line.contains("cannot listen on ") && line.contains(reason), "{line}");
        assert_serves(address);
    }
    put("port = systemd:1");
    server.replace();
    assert_serves(address);
}

#[test]
fn passed_sockets_are_picked_by_number_and_name_and_upstreams_spelling() {
    for (port, picked, unused) in [
        ("--port=systemd:", &[0, 1][..], 0),
        ("--port=systemd:0", &[0], 1),
        ("--port=systemd:1", &[1], 1),
        ("--port=systemd:web", &[1], 1),
        ("--port=systemd:name=web", &[1], 1),
        ("--port=systemd:domain=INET:index=0", &[0], 1),
        ("--port=haproxy:systemd:0", &[0], 1),
    ] {
        let sockets = [listener(), listener()];
        let addresses = [sockets[0].1, sockets[1].1];
        let sockets = sockets.map(|(socket, _)| socket.into()).into();
        let server = start_passing(sockets, "first:web", &[port]);
        let expected: Vec<String> =
            picked.iter().map(|index| addresses[*index].to_string()).collect();
        assert_eq!(listened_on(&server), expected, "{port}");
        let warnings = server.log().iter().filter(|line| line.contains("is not selected")).count();
        assert_eq!(warnings, unused, "{port}");
        if port.contains("haproxy") {
            let mut raw = Raw::connect(addresses[0]);
            raw.send(
                format!("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n{}", upgrade("/v1", "")).as_bytes(),
            );
            assert!(raw.head().starts_with("HTTP/1.1 101 "));
            assert_eq!(raw.json()["welcome"]["your-address"]["ipv4"], "192.0.2.1");
        } else {
            picked.iter().for_each(|index| assert_serves(addresses[*index]));
        }
    }
    // One name may stand for several, and a port of our own may come beside them.
    let sockets = [listener(), listener()];
    let addresses = [sockets[0].1, sockets[1].1];
    let sockets = sockets.map(|(socket, _)| socket.into()).into();
    let server = start_passing(sockets, "both:both", &["--port=systemd:both", FREE_PORT]);
    assert_eq!(listened_on(&server).len(), 3);
    addresses.into_iter().for_each(assert_serves);
}

#[test]
fn sockets_passed_to_another_process_are_left_alone() {
    let mut ours = Command::new(PROGRAM);
    ours.arg(FREE_PORT).env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    let server = Server::spawn(ours, Arc::new(Directory::new()));
    server.connect();
}

/// Runs to the end; gives the one line that says why.
fn failure(mut command: Command) -> String {
    let directory = Directory::new();
    command.current_dir(directory.path());
    let output = command.output().expect("the program runs");
    let log = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{log}");
    let errors: Vec<&str> = log.lines().filter(|line| level(line) == Some("ERROR")).collect();
    assert_eq!(errors.len(), 1, "{log}");
    assert_eq!(log.lines().last(), Some(errors[0]), "{log}");
    assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0);
    errors[0].to_owned()
}

#[test]
fn what_cannot_be_listened_on_stops_the_start_with_one_line() {
    let mut without = Command::new(PROGRAM);
    without.arg("--port=systemd:");
    let line = failure(without);
    assert!(line.contains("systemd:") && line.contains("no socket has been passed"), "{line}");

    let passing_one = |options: &[&str]| passing(vec![listener().0.into()], "web", options);
    for (options, parts) in [
        (&["--port=systemd:1"][..], ["systemd:1", "none of the 1 passed sockets"]),
        (&["--port=systemd:other"], ["systemd:other", "none of the 1 passed sockets"]),
        (&["--port=systemd:", "--port=systemd:web"], ["systemd:web", "picked twice"]),
    ] {
        let line = failure(passing_one(options));
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }

    let home = Directory::new();
    let file = std::fs::File::create(home.file("file")).expect("a file");
    let datagram = UnixDatagram::bind(home.file("datagram")).expect("a socket");
    let (near, _far) = UnixStream::pair().expect("a pair");
    let (listening, address) = listener();
    let stream = TcpStream::connect(address).expect("connect");
    for (socket, why) in [
        (OwnedFd::from(file), "not a stream socket"),
        (datagram.into(), "not a stream socket"),
        (UdpSocket::bind("127.0.0.1:0").expect("a socket").into(), "not a stream socket"),
        (near.into(), "does not listen"),
        (stream.into(), "does not listen"),
    ] {
        let line = failure(passing(vec![socket], "", &[]));
        assert!(line.contains("passed socket 0") && line.contains(why), "{line}");
    }
    drop(listening);

    let mut too_few = passing(vec![listener().0.into()], "", &[]);
    too_few.env("LISTEN_FDS", "3");
    let line = failure(too_few);
    assert!(line.contains("LISTEN_FDS: 3 sockets are announced"), "{line}");

    let mut nonsense = passing(vec![listener().0.into()], "", &[]);
    nonsense.env("LISTEN_FDS", "many");
    let line = failure(nonsense);
    assert!(line.contains("LISTEN_FDS") && line.contains("'many'"), "{line}");
}

#[test]
fn nobody_is_refused_while_it_restarts() {
    const GUESTS: usize = 20;
    let directory = Arc::new(Directory::new());
    let (ours, address) = listener();
    let start = || {
        let copy = ours.try_clone().expect("a copy").into();
        Server::spawn_with_its_stdin(passing(vec![copy], "", &[]), Arc::clone(&directory))
    };
    let mut server = start();
    for _ in 0..2 {
        let mut before = server.bind("app", "before");
        let mailbox = before.claim("4");
        let (status, _) = server.stop();
        assert!(status.success());
        assert_eq!(before.close_code(), 1001);
        // Between the two, they wait instead of being refused.
        let guests: Vec<Raw> = (0..GUESTS)
            .map(|_| {
                let mut raw = Raw::connect(address);
                raw.send(upgrade("/v1", "").as_bytes());
                raw
            })
            .collect();
        server = start();
        for mut guest in guests {
            assert!(guest.head().starts_with("HTTP/1.1 101 "));
            assert_eq!(guest.json()["type"], "welcome");
        }
        assert_eq!(server.bind("app", "before").claim("4"), mailbox);
    }
}
