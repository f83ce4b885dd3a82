//! Addresses that cannot be listened on: one line, and no file is touched.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::common::client::assert_welcomed;
use crate::common::{Directory, FREE_PORT, PROGRAM, Running, Server, assert_fails, eventually};

fn assert_failure(directory: &Directory, arguments: &[&str], named: &[&str]) {
    assert_fails(Command::new(PROGRAM).args(arguments), directory, 1, named);
}

#[test]
fn an_address_that_cannot_be_bound_is_a_failure() {
    let directory = Directory::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    assert_failure(&directory, &[&format!("--port={address}")], &[&address]);
    assert_failure(&directory, &["--port=192.0.2.1:0"], &["192.0.2.1"]);
    assert_failure(&directory, &["--port=unix:missing/x.sock"], &["missing/x.sock"]);
    // A second server on the same address must not touch the files of the first.
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0);
}

#[test]
fn one_address_that_cannot_be_bound_among_others_is_a_failure() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    assert_failure(&Directory::new(), &[FREE_PORT, &format!("--port={address}")], &[&address]);
}

#[test]
fn an_address_may_name_its_interface() {
    for port in ["--port=tcp:0:interface=\\:\\:1%lo", "--port=[::1%lo]:0", "--port=[::1%1]:0"] {
        Server::start(&[port]).bind("app", "side");
    }
}

#[test]
fn addresses_that_overlap_are_a_failure() {
    let directory = Directory::new();
    for (one, other) in [
        ("--port=127.0.0.1:4000", "--port=127.0.0.1:4000"),
        ("--port=4000", "--port=tcp:4000"),
        ("--port=tcp:4000", "--port=tcp6:4000"),
        ("--port=tcp:4000", "--admin=4000"),
        ("--port=127.0.0.1:4000", "--port=[::ffff:127.0.0.1]:4000"),
        ("--port=tcp:4000", "--port=[::ffff:127.0.0.1]:4000"),
        ("--port=[::1]:4000", "--port=[::1%lo]:4000"),
        ("--port=[fe80::1%1]:4000", "--port=[fe80::1%lo]:4000"),
        ("--port=unix:x.sock", "--admin=unix:x.sock"),
        ("--port=unix:x.sock", "--port=unix:./x.sock"),
        (
            "--port=unix:x.sock",
            &format!("--port=unix:{}", directory.path().join("x.sock").display()),
        ),
    ] {
        for arguments in [[one, other], [other, one]] {
            assert_failure(&directory, &arguments, &["cannot listen on", "listened on as well"]);
            let check = [arguments[0], arguments[1], "--check-config"];
            assert_failure(&directory, &check, &["cannot listen on", "listened on as well"]);
        }
    }
    assert_failure(&directory, &["--admin=4000"], &["127.0.0.1:4000 is listened on as well"]);
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0);
    Server::start(&["--port=127.0.0.1:0", "--port=[::1]:0"]).bind("app", "side");
}

#[test]
fn a_unix_socket_that_somebody_listens_on_is_a_failure() {
    let server = Server::start_in(Arc::new(Directory::new()), &["--port=unix:x.sock"]);
    assert_failure(&server.directory, &["--port=unix:x.sock", "--channel-db=o"], &["x.sock"]);
    // A process that hangs, with all connections waiting for it that may.
    let hanging = UnixListener::bind(server.directory.file("y.sock")).expect("a socket");
    rustix::net::listen(&hanging, 0).expect("it listens");
    let _waits = UnixStream::connect(server.directory.file("y.sock")).expect("it waits");
    let mut in_time = Command::new("timeout");
    in_time.args(["--signal=KILL", "10", PROGRAM, "--port=unix:y.sock", "--channel-db=o"]);
    assert_fails(&mut in_time, &server.directory, 1, &["y.sock"]);
}

#[test]
fn of_servers_that_start_at_once_at_a_unix_socket_one_serves_it() {
    let directory = Directory::new();
    let start = || {
        let mut command = Command::new(PROGRAM);
        command.args(["--port=unix:x.sock", "--channel-db=:memory:"]);
        command
            .current_dir(directory.path())
            .stderr(Stdio::null())
            .spawn()
            .map(Running)
            .expect("it starts")
    };
    for _ in 0..10 {
        let mut servers: Vec<Running> = (0..6).map(|_| start()).collect();
        eventually("one is left", || {
            servers.retain_mut(|server| server.0.try_wait().expect("a child").is_none());
            servers.len() == 1
        });
        let connect = || UnixStream::connect(directory.file("x.sock"));
        eventually("it listens", || connect().is_ok());
        assert_welcomed(connect().expect("a connection"));
        // It is killed, and leaves a stale socket.
    }
}

#[test]
fn a_directory_that_somebody_locks_does_not_keep_a_unix_socket_from_being_made() {
    let directory = Arc::new(Directory::new());
    let locked = File::open(directory.path()).expect("a directory");
    locked.lock().expect("a lock");
    let server = Server::start_in(directory, &["--port=unix:x.sock"]);
    assert_welcomed(UnixStream::connect(server.file("x.sock")).expect("a connection"));
}
