//! SIGALRM: everything is left with the service manager, and the next process goes on with it. The
//! test is the manager.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Seek};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use rustix::fs::fstat;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde_json::json;
use wormhole_mailbox::net::handover;

use crate::common::raw::{CLOSE, ENDS, Raw, TEXT_BEGINS, frame};
use crate::common::sql;
use crate::common::{Directory, FREE_PORT, PATIENCE, PROGRAM, Server, Signal};
use crate::service_manager::passing;

const NAME: &str = "wormhole-handover";

/// A manager with the descriptors that it has been sent.
struct Manager {
    socket: UnixDatagram,
    directory: Arc<Directory>,
}

impl Manager {
    fn new() -> Manager {
        let directory = Arc::new(Directory::new());
        let socket = UnixDatagram::bind(directory.file("notify")).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Manager { socket, directory }
    }

    fn start(&self, mut command: Command) -> Server {
        command.env("NOTIFY_SOCKET", self.directory.file("notify"));
        Server::spawn_with_its_stdin(command, Arc::clone(&self.directory))
    }

    fn start_first(&self, options: &[&str]) -> Server {
        let mut command = Command::new(PROGRAM);
        command.arg(FREE_PORT).args(options).stdin(std::process::Stdio::null());
        self.start(command)
    }

    /// Starts the next process with what the one before has left.
    fn start_next(&self, stored: OwnedFd, options: &[&str]) -> Server {
        let options = [&[FREE_PORT], options].concat();
        let server = self.start(passing(vec![stored], NAME, &options));
        self.wait_for(&format!("FDSTOREREMOVE=1\nFDNAME={NAME}"));
        server
    }

    /// Starts a program as if one that hands over through a stream had executed it.
    fn start_on_stream(&self, descriptors: Vec<OwnedFd>) -> Server {
        const SHELL: &str = r#"WORMHOLE_HANDOVER="$$ $1" exec "$2" "$3""#;
        let (sender, receiver) = UnixStream::pair().expect("a pair");
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(100))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&borrowed)));
        let sent = sendmsg(&sender, &[IoSlice::new(&[0])], &mut control, SendFlags::empty());
        sent.expect("send");
        drop(descriptors);
        let inode = fstat(&receiver).expect("fstat").st_ino.to_string();
        let mut command = Command::new("sh");
        command.args(["-c", SHELL, "sh", &inode, PROGRAM, FREE_PORT]);
        command.stdin(OwnedFd::from(receiver));
        self.start(command)
    }

    /// Waits for a message that begins so; gives what came with it.
    fn wait_for(&self, beginning: &str) -> Option<OwnedFd> {
        loop {
            let (text, mut descriptors) = receive(self.socket.as_fd());
            if text.starts_with(beginning.as_bytes()) {
                return descriptors.pop();
            }
        }
    }

    /// Ends a process that leaves everything with this manager.
    fn stop(&self, server: &mut Server) -> (OwnedFd, ExitStatus) {
        server.signal(Signal::ALARM);
        let stored = self.wait_for(&format!("FDSTORE=1\nFDNAME={NAME}")).expect("a descriptor");
        (stored, server.wait())
    }
}

/// A message with its descriptors.
fn receive(socket: BorrowedFd<'_>) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut bytes = vec![0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(100))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let buffer = &mut [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, buffer, &mut control, RecvFlags::CMSG_CLOEXEC);
    let count = received.expect("a message").bytes;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    let descriptors = descriptors.flatten().collect();
    bytes.truncate(count);
    (bytes, descriptors)
}

#[test]
fn records_of_another_version_of_the_format_close_the_connections_and_lose_nothing() {
    const MAGIC: &[u8] = b"wormhole-mailbox handover";
    for change in [-1, 1, 100] {
        let manager = Manager::new();
        let mut server = manager.start_first(&[]);
        let mut client = server.bind("app", "s");
        let mailbox = client.claim("4");
        let (stored, _) = manager.stop(&mut server);
        let (_, descriptors) = receive(stored.as_fd());
        let mut records = File::from(descriptors[0].try_clone().expect("a copy"));
        let mut bytes = Vec::new();
        records.read_to_end(&mut bytes).expect("records");
        let at = bytes.windows(MAGIC.len()).position(|it| it == MAGIC).expect("a head");
        let version = at + MAGIC.len();
        bytes[version] = bytes[version].wrapping_add_signed(change);
        records.write_all_at(&bytes, 0).expect("records");
        records.rewind().expect("rewind");
        drop((stored, records));
        let mut server = if change == 100 {
            manager.start_on_stream(descriptors)
        } else {
            let changed = handover::send(descriptors.iter().map(AsFd::as_fd)).expect("send");
            drop(descriptors);
            manager.start_next(changed, &[])
        };
        let line = server.wait_for_log("their format is version");
        assert!(line.contains(&format!("version {}", bytes[version])), "{line}");
        client.assert_lost();
        assert_eq!(server.bind("app", "s").claim("4"), mailbox);
    }
}

#[test]
fn the_next_process_goes_on_with_all_connections() {
    let manager = Manager::new();
    let mut server = manager.start_first(&["--port=unix:relay.sock"]);
    let (mut sender, mut receiver) = (server.bind("app", "s"), server.bind("app", "r"));
    let mailbox = sender.claim("4");
    sender.open(&mailbox);
    receiver.claim("4");
    receiver.open(&mailbox);
    let address = server.address;
    for phase in 0..3 {
        let (stored, status) = manager.stop(&mut server);
        assert!(status.success());
        assert!(manager.directory.file("relay.sock").exists());
        let database = File::open(server.file("relay.sqlite")).expect("a file");
        assert!(database.try_lock().is_err(), "a second server could get it");
        // What is sent meanwhile, and who comes, waits.
        sender.send(json!({"type": "add", "phase": phase.to_string(), "body": "00"}));
        let mut newcomer = std::net::TcpStream::connect(address).expect("connect");
        std::io::Write::write_all(&mut newcomer, b"GET / HTTP/1.0\r\n\r\n").expect("write");
        server = manager.start_next(stored, &["--port=unix:relay.sock"]);
        assert_eq!(server.address, address);
        let mut answer = String::new();
        newcomer.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(sender.recv()["type"], "ack");
        assert_eq!(sender.recv()["phase"], phase.to_string());
        assert_eq!(receiver.recv()["phase"], phase.to_string());
    }
    let (status, _) = server.stop();
    assert!(status.success());
    assert!(!manager.directory.file("relay.sock").exists());
    assert_eq!(receiver.close_code(), 1001);
}

#[test]
fn connections_keep_their_rows() {
    const ROWS: &str = "SELECT addrid_generation, addrid_counter, side, connected FROM connections";
    let options = ["--track-connections", "--addrid-db=a.db"];
    let manager = Manager::new();
    let mut server = manager.start_first(&options);
    let file = server.file("relay.sqlite");
    let mut client = server.bind("app", "s");
    sql::wait_for(&file, "SELECT side FROM connections", &json!([["s"]]));
    let before = sql::rows(&file, ROWS);
    assert_eq!(before[0][1], 1);
    let (stored, _) = manager.stop(&mut server);
    assert_eq!(sql::rows(&file, ROWS), before);
    let _server = manager.start_next(stored, &options);
    client.one(json!({"type": "list"}));
    assert_eq!(sql::rows(&file, ROWS), before);
}

#[test]
fn what_the_manager_drops_is_closed_and_what_was_acknowledged_stays() {
    let manager = Manager::new();
    let mut server = manager.start_first(&[]);
    let mut client = server.bind("app", "s");
    let mailbox = client.claim("4");
    let (stored, _) = manager.stop(&mut server);
    drop(stored);
    client.assert_lost();
    let server = manager.start_first(&[]);
    assert_eq!(server.bind("app", "s").claim("4"), mailbox);
}

#[test]
fn a_manager_that_starts_again_after_a_start_that_failed_passes_the_same_again() {
    let manager = Manager::new();
    let mut server = manager.start_first(&[]);
    let mut client = server.bind("app", "s");
    let (stored, _) = manager.stop(&mut server);
    let again = stored.try_clone().expect("a copy");
    let failing = passing(vec![stored], NAME, &[FREE_PORT, "--no-such-option"]).output();
    assert_eq!(failing.expect("it ends").status.code(), Some(2));
    // One that takes it, and a later one that is passed what is empty now.
    let copy = again.try_clone().expect("a copy");
    let mut server = manager.start_next(again, &[]);
    client.claim("4");
    server.signal(Signal::KILL);
    server.wait();
    client.assert_lost();
    let server = manager.start_next(copy, &[]);
    server.bind("app", "s").claim("4");
}

#[test]
fn without_a_manager_or_with_takeover_no_it_stops_as_after_sigterm() {
    let manager = Manager::new();
    for mut server in [Server::start(&[]), manager.start_first(&["--takeover=no"])] {
        let mut client = server.bind("app", "s");
        server.signal(Signal::ALARM);
        assert_eq!(client.close_code(), 1001);
        assert!(server.wait().success());
    }
}

#[test]
fn a_message_in_fragments_goes_on_and_one_that_is_thrown_away_is_waited_for() {
    let manager = Manager::new();
    let mut server = manager.start_first(&["--limit-message-bytes=1000"]);
    let (mut begun, mut hangs) = (Raw::open(server.address), Raw::open(server.address));
    let mut idle = server.bind("app", "s");
    begun.send(&frame(TEXT_BEGINS, br#"{"type": "ping", "ping": 7}"#));
    hangs.send(&frame(TEXT_BEGINS, &[b'x'; 1001]));
    idle.claim("4");
    let (stored, status) = manager.stop(&mut server);
    assert!(status.success());
    let (opcode, payload) = hangs.frame();
    assert_eq!((opcode, &payload[..2]), (CLOSE, &1001_u16.to_be_bytes()[..]));
    let _server = manager.start_next(stored, &[]);
    idle.one(json!({"type": "ping", "ping": 1}));
    begun.send(&frame(ENDS, b""));
    assert_eq!(begun.json()["type"], "ack");
    assert_eq!(begun.json()["pong"], 7);
}

#[test]
fn an_address_of_a_passed_socket_that_is_not_passed_again_is_free() {
    let manager = Manager::new();
    let listener = TcpListener::bind("[::]:0").expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    let mut server = manager.start(passing(vec![listener.into()], "client", &[]));
    let mut client = server.bind("app", "s");
    let (stored, _) = manager.stop(&mut server);
    let server = manager.start_next(stored, &[&format!("--port=127.0.0.1:{port}")]);
    assert!(server.logged_addresses().iter().any(|address| address.port() == port));
    client.allocate();
}

#[test]
fn a_restart_goes_before_a_takeover_and_a_second_signal_changes_nothing() {
    let manager = Manager::new();
    let mut server = manager.start_first(&["--limit-message-bytes=1000"]);
    let (mut hangs, mut client) = (Raw::open(server.address), server.bind("app", "s"));
    hangs.send(&frame(TEXT_BEGINS, &[b'x'; 1001])); // which is waited for
    client.claim("4");
    server.signal(Signal::USR2);
    server.signal(Signal::ALARM);
    manager.wait_for("STOPPING=1");
    let (stored, status) = manager.stop(&mut server);
    assert!(status.success());
    let _server = manager.start_next(stored, &[]);
    client.one(json!({"type": "ping", "ping": 1}));
}
