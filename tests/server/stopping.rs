//! SIGTERM and SIGINT: everyone is told, everything is written, and it ends in time whatever the
//! clients do.

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::raw::{CLOSE, Raw, upgrade};
use crate::common::{Client, FREE_PORT, Server, Signal};
use rustix::net::sockopt;
use serde_json::json;

/// What is allowed from the signal to the exit (manual: command_line 5).
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Waits for the end after a signal at `since`; checks status, time and files.
fn assert_clean_stop(mut server: Server, since: Instant) {
    let status = server.wait();
    assert!(since.elapsed() < STOP_WITHIN, "{:?}", since.elapsed());
    assert_eq!(status.code(), Some(0), "{:#?}", server.log());
    let files: Vec<_> = std::fs::read_dir(server.directory.path())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    let is_database = |file: &std::ffi::OsString| file.to_string_lossy().ends_with(".sqlite");
    assert!(!files.is_empty() && files.iter().all(is_database), "{files:?}");
}

#[test]
fn either_signal_closes_connections_with_1001_and_exits_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Server::start(&[]);
        let mut clients = [server.connect(), server.bind("app", "s"), server.bind("app", "t")];
        clients[2].claim("4");
        clients[1].open("m");
        let since = Instant::now();
        server.signal(signal);
        for mut client in clients {
            assert_eq!(client.close_code(), 1001, "{signal:?}");
            while client.socket.read().is_ok() {} // sends the answer and waits for the end
        }
        assert_clean_stop(server, since);
    }
}

#[test]
fn with_no_clients_it_stops_at_once_and_leaves_every_file_clean() {
    let server = Server::start(&[
        "--usage-db=usage.sqlite",
        "--addrid-db=addrid.sqlite",
        "--track-connections",
    ]);
    server.bind("app", "s").claim("4");
    let since = Instant::now();
    server.signal(Signal::TERM);
    assert_clean_stop(server, since);
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
}

#[test]
fn a_client_that_never_answers_does_not_hold_it_up() {
    let server = Server::start(&[]);
    let mut silent = Raw::open(server.address);
    let since = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(silent.frame().0, CLOSE);
    assert_clean_stop(server, since);
}

#[test]
fn a_client_that_never_reads_does_not_hold_it_up() {
    let server = Server::start(&["--log-level=debug"]);
    let mut deaf = server.bind("app", "deaf");
    deaf.open("m");
    sockopt::set_socket_recv_buffer_size(deaf.socket.get_ref(), 4096).expect("a small buffer");
    // More than the sockets' buffers take, less than the client is dropped for.
    let mut talker = server.bind("app", "talker");
    talker.open("m");
    let body = "0".repeat(500_000);
    for _ in 0..10 {
        talker.one(json!({"type": "add", "phase": "p", "body": body}));
    }
    assert!(!server.log().iter().any(|it| it.contains("SlowReader")), "{:#?}", server.log());
    drop(talker);
    let since = Instant::now();
    server.signal(Signal::TERM);
    assert_clean_stop(server, since);
    drop(deaf);
}

#[test]
fn a_client_in_its_handshake_is_told_and_does_not_hold_it_up() {
    let server = Server::start(&[]);
    let mut silent = Raw::connect(server.address);
    let mut begun = Raw::connect(server.address);
    begun.send(b"GET /v1 HT");
    // By the answer to a later connection the server knows of the two before it.
    server.connect();
    let since = Instant::now();
    server.signal(Signal::TERM);
    for raw in [&mut silent, &mut begun] {
        assert!(raw.rest().starts_with("HTTP/1.1 503 "));
    }
    drop((silent, begun));
    assert_clean_stop(server, since);
}

#[test]
fn while_it_stops_it_accepts_nobody() {
    let server = Server::start(&[]);
    let mut silent = Raw::open(server.address);
    server.signal(Signal::TERM);
    assert_eq!(silent.frame().0, CLOSE);
    assert!(std::net::TcpStream::connect(server.address).is_err());
}

#[test]
fn after_the_signal_nothing_more_is_carried_out_and_all_before_is_kept() {
    let mut server = Server::start(&[]);
    let mailbox = server.bind("app", "s").claim("4");
    let mut raw = Raw::connect(server.address);
    raw.send(upgrade("/v1", "").as_bytes());
    raw.head();
    raw.json();
    server.signal(Signal::TERM);
    assert_eq!(raw.frame().0, CLOSE);
    raw.send_json(&json!({"type": "bind", "appid": "app", "side": "s"}));
    raw.send_json(&json!({"type": "claim", "nameplate": "5"}));
    drop(raw);
    assert!(server.wait().success());
    let server = Server::start_in(Arc::clone(&server.directory), &[]);
    let mut client: Client = server.bind("app", "s");
    assert_eq!(client.one(json!({"type": "list"}))["nameplates"], json!([{"id": "4"}]));
    assert_eq!(client.claim("4"), mailbox);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start(&[]);
    let mut silent = Raw::open(server.address);
    server.signal(Signal::TERM);
    assert_eq!(silent.frame().0, CLOSE);
    let since = Instant::now();
    server.signal(Signal::INT);
    server.wait();
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
}

#[test]
fn the_socket_of_a_successor_stays() {
    let options = ["--port=unix:x.sock", FREE_PORT];
    let server = Server::start(&options);
    let directory = Arc::clone(&server.directory);
    // As a successor does, when this one does not listen any more.
    let path = directory.file("x.sock");
    fs::remove_file(&path).expect("remove");
    let successor = UnixListener::bind(&path).expect("bind");
    let (status, _) = server.stop();
    assert!(status.success());
    assert!(UnixStream::connect(&path).is_ok(), "it is still there");
    drop(successor);
    // Its own goes with it.
    let server = Server::start_in(directory, &options);
    let (_, directory) = server.stop();
    assert!(!directory.file("x.sock").exists());
}
