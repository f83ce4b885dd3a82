//! Servers for the tests of clients, in the process of the test and as a subcommand; and the
//! trouble that they make on order.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Client, Directory, PROGRAM, Running, assert_mistake};
use serde_json::json;
use tungstenite::{Error, Message};
use wormhole_mailbox::testing::{Server, Trouble};

fn address(url: &str) -> SocketAddr {
    let rest = url.strip_prefix("ws://").and_then(|rest| rest.strip_suffix("/v1"));
    rest.and_then(|address| address.parse().ok()).expect("a URL of this machine")
}

fn connect(server: &Server) -> Client {
    let mut client = Client::connect(address(&server.url()));
    assert_eq!(client.recv()["type"], "welcome");
    client
}

fn bound(server: &Server, side: &str) -> Client {
    connect(server).bound("app", side)
}

fn start(trouble: &str) -> Server {
    Server::start_with(&[Trouble::parse(trouble).expect("a trouble")]).expect("a server")
}

fn test_server(directory: &Directory, arguments: &[&str]) -> (Child, String) {
    let mut command = Command::new(PROGRAM);
    command.current_dir(directory.path());
    command.arg("test-server").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("stdout");
    let mut stdout = BufReader::new(stdout);
    stdout.read_line(&mut line).expect("a line");
    child.stdout = Some(stdout.into_inner());
    (child, line)
}

#[test]
fn many_servers_run_in_one_process_and_know_nothing_of_each_other() {
    let servers: Vec<Server> = (0..20).map(|_| Server::start().expect("a server")).collect();
    let urls: BTreeSet<String> = servers.iter().map(Server::url).collect();
    assert_eq!(urls.len(), servers.len());
    for server in &servers {
        let mut client = bound(server, "side");
        assert_eq!(client.list(), [""; 0]);
        client.claim("7");
        assert_eq!(client.list(), ["7"]);
    }
}

#[test]
fn a_dropped_server_is_gone_and_its_clients_are_closed() {
    let server = Server::start().expect("a server");
    let address = address(&server.url());
    let mut client = bound(&server, "side");
    drop(server);
    assert_eq!(client.close_code(), 1001);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn the_program_prints_its_url_alone_and_ends_with_its_stdin() {
    let directory = Directory::new();
    let (child, line) = test_server(&directory, &[]);
    let mut child = Running(child);
    let mut client = Client::connect(address(line.trim_end()));
    assert_eq!(client.recv()["type"], "welcome");
    client.bound("app", "side").claim("7");
    drop(child.0.stdin.take());
    assert!(child.0.wait().expect("the end").success());
    let mut rest = String::new();
    child.0.stdout.take().expect("stdout").read_to_string(&mut rest).expect("UTF-8");
    assert_eq!(rest, "");
    assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0);
}

#[test]
fn the_program_takes_trouble_by_its_name() {
    let (child, line) =
        test_server(&Directory::new(), &["--trouble=error:closed", "--trouble", "crowded"]);
    let _child = Running(child);
    let welcome = Client::connect(address(line.trim_end())).recv();
    assert_eq!(welcome["welcome"]["error"], "closed");
    let mut command = Command::new(PROGRAM);
    command.args(["test-server", "--trouble=storm"]);
    assert_mistake(&mut command, &Directory::new(), &["--trouble", "drop:AFTER"]);
}

#[test]
fn a_restart_closes_all_after_its_command_and_keeps_what_is_stored() {
    let server = start("restart:3");
    let mut waiting = connect(&server);
    let mut client = bound(&server, "side");
    client.send(json!({"type": "claim", "nameplate": "7"}));
    assert_eq!(client.recv()["type"], "ack");
    let mailbox = client.recv()["mailbox"].clone();
    client.send(json!({"type": "ping", "ping": 1}));
    assert_eq!(client.recv()["type"], "ack");
    assert_eq!(client.recv(), json!({"type": "pong", "pong": 1}));
    assert_eq!(client.close_code(), 1001);
    assert_eq!(waiting.close_code(), 1001);
    let mut again = bound(&server, "side");
    assert_eq!(again.claim("7"), mailbox, "and it does not happen again");
}

#[test]
fn a_drop_cuts_the_connection_that_sent_the_command_and_no_other() {
    let server = start("drop:4");
    let mut other = bound(&server, "other");
    let mut client = bound(&server, "side");
    for number in 0..4 {
        // The last ones may find the connection cut.
        let ping = json!({"type": "ping", "ping": number}).to_string();
        _ = client.socket.send(Message::text(ping));
    }
    let mut pongs = 0;
    let error = loop {
        match client.socket.read() {
            Ok(Message::Text(text)) => pongs += usize::from(text.contains("pong")),
            Ok(message) => panic!("no close frame: {message}"),
            Err(error) => break error,
        }
    };
    // What the client sends after that may turn the end into a reset, which takes answers along.
    assert!(pongs <= 2, "{pongs}");
    assert!(matches!(error, Error::Protocol(_) | Error::Io(_)), "{error}");
    other.list();
    bound(&server, "side").list();
}

#[test]
fn a_frozen_server_answers_later() {
    let server = start("freeze:1:0.3");
    let mut client = bound(&server, "side");
    let began = Instant::now();
    client.list();
    assert!(began.elapsed() > Duration::from_millis(200), "{:?}", began.elapsed());
    // A stop does not wait for the end.
    let server = start("freeze:1:3600");
    bound(&server, "side");
    drop(server);
}

#[test]
fn a_crowded_server_has_no_room_for_anybody() {
    let server = start("crowded");
    let mut client = bound(&server, "side");
    let nameplate = client.allocate();
    assert_eq!(client.error(json!({"type": "claim", "nameplate": nameplate})), "crowded");
    assert_eq!(client.error(json!({"type": "open", "mailbox": "m"})), "crowded");
    // As a third side may, it leaves what it has not got.
    let again = client.error(json!({"type": "claim", "nameplate": nameplate}));
    assert_eq!(again, "only one claim per connection");
    assert_eq!(client.one(json!({"type": "release"}))["type"], "released");
    assert_eq!(client.one(json!({"type": "close"}))["type"], "closed");
}

#[test]
fn an_error_is_in_the_welcome_and_in_the_answers() {
    let server = start("error:closed: until noon");
    let mut client = Client::connect(address(&server.url()));
    assert_eq!(client.recv()["welcome"]["error"], "closed: until noon");
    let mut client = client.bound("app", "side");
    assert_eq!(client.error(json!({"type": "allocate"})), "closed: until noon");
}

#[test]
fn a_slow_replay_has_its_messages_apart() {
    const PAUSE: Duration = Duration::from_millis(50);
    const MESSAGES: u32 = 5;
    let server = start(&format!("slow-replay:{}", PAUSE.as_millis()));
    let mut sender = bound(&server, "sender");
    sender.open("m");
    for number in 0..MESSAGES {
        sender.one(json!({"type": "add", "phase": number.to_string(), "body": ""}));
    }
    let mut receiver = bound(&server, "receiver");
    let began = Instant::now();
    receiver.send(json!({"type": "open", "mailbox": "m"}));
    for number in 0..MESSAGES {
        // An answer in between changes nothing.
        receiver.send(json!({"type": "ping", "ping": 1}));
        let phase = number.to_string();
        while receiver.recv()["phase"] != *phase {}
        assert!(began.elapsed() >= PAUSE * number, "{number}: {:?}", began.elapsed());
    }
    // There is no pause after the last, and all can be dropped in the midst of one.
    let server = start("slow-replay:3600000");
    let mut sender = bound(&server, "sender");
    sender.open("m");
    sender.one(json!({"type": "add", "phase": "1", "body": ""}));
    assert_eq!(bound(&server, "receiver").open("m").len(), 1);
    for phase in ["2", "3"] {
        sender.one(json!({"type": "add", "phase": phase, "body": ""}));
    }
    bound(&server, "receiver").send(json!({"type": "open", "mailbox": "m"}));
    drop(server);
}
