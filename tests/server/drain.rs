//! SIGQUIT: what exists goes on and may be joined, nothing new begins, and when no mailbox is left
//! the server stops as after SIGTERM.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{Client, PROGRAM, Server, Signal, sql};
use serde_json::json;

const TEXT: &str = "Moving to a new machine, try again at noon.";

/// A server that drains, once it has said so; gives its line.
fn drain(server: &mut Server) -> String {
    server.signal(Signal::QUIT);
    server.wait_for_log("draining: ")
}

/// Closes the last mailbox, after which the server answers nothing else.
fn close_last(client: &mut Client) {
    client.send(json!({"type": "close"}));
    assert_eq!(client.recv()["type"], "ack");
    assert_eq!(client.recv()["type"], "closed");
}

/// Waits for the end, which must be a good one, with that many mailboxes left.
fn assert_drained(server: &mut Server, left: usize) {
    let status = server.wait();
    assert!(status.success(), "{status}: {:#?}", server.log());
    server.wait_for_log(&format!("drained: {left} mailboxes are left"));
    assert!(!server.file("relay.sqlite-wal").exists());
}

#[test]
fn what_exists_goes_on_and_is_joined_and_nothing_new_begins() {
    let mut server = Server::start(&["--drain-message", TEXT]);
    let mut sender = server.bind("app", "s");
    let mailbox = sender.claim("4");
    sender.open(&mailbox);
    sender.one(json!({"type": "add", "phase": "p", "body": "b"}));
    let line = drain(&mut server);
    assert!(line.contains("INFO") && line.contains("1 mailboxes"), "{line}");
    assert!(line.contains("600 s"), "{line}");

    let mut guest = Client::connect(server.address);
    assert!(guest.recv()["welcome"].get("error").is_none());
    let mut guest = guest.bound("app", "u");
    for command in [
        json!({"type": "allocate"}),
        json!({"type": "claim", "nameplate": "5"}),
        json!({"type": "open", "mailbox": "unknown"}),
    ] {
        assert_eq!(guest.error(command), TEXT);
    }
    guest.one(json!({"type": "ping", "ping": 1}));

    let mut receiver = server.bind("app", "r");
    assert_eq!(receiver.claim("4"), mailbox);
    assert_eq!(receiver.open(&mailbox)[0]["body"], "b");
    receiver.one(json!({"type": "add", "phase": "q", "body": "c"}));
    assert_eq!(sender.recv()["body"], "c");
    sender.release();
    receiver.release();
    sender.close();
    close_last(&mut receiver);
    // A connection without a mailbox does not hold it up.
    for client in [&mut sender, &mut receiver, &mut guest] {
        assert_eq!(client.close_code(), 1001);
    }
    drop((sender, receiver, guest));
    assert_drained(&mut server, 0);
}

#[test]
fn a_side_that_comes_back_finds_its_mailbox() {
    let mut server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    let mailbox = client.claim("4");
    drop(client);
    drain(&mut server);
    let mut client = server.bind("app", "s");
    assert_eq!(client.claim("4"), mailbox);
    client.open(&mailbox);
    close_last(&mut client);
    assert_eq!(client.close_code(), 1001);
    drop(client);
    assert_drained(&mut server, 0);
}

#[test]
fn without_mailboxes_it_stops_at_once() {
    let mut server = Server::start(&[]);
    let mut unbound = server.connect();
    let mut bound = server.bind("app", "s");
    drain(&mut server);
    for client in [&mut unbound, &mut bound] {
        assert_eq!(client.close_code(), 1001);
    }
    drop((unbound, bound));
    assert_drained(&mut server, 0);
}

#[test]
fn it_ends_when_its_time_is_up() {
    let mut server = Server::start(&["--drain-seconds=0.05"]);
    let mut client = server.bind("app", "s");
    client.claim("4");
    drain(&mut server);
    assert_eq!(client.close_code(), 1001);
    drop(client);
    assert_drained(&mut server, 1);
}

#[test]
fn without_a_message_of_the_operators_there_is_the_one_of_the_help() {
    let mut server = Server::start(&["--drain-message=", "--signal-error=other"]);
    let mut client = server.bind("app", "s");
    client.claim("4");
    drain(&mut server);
    let message = client.error(json!({"type": "allocate"}));
    let output = Command::new(PROGRAM).arg("--help=all").output();
    let help = String::from_utf8(output.expect("the program runs").stdout).expect("UTF-8");
    let words: Vec<&str> = help.split_whitespace().collect();
    assert!(words.join(" ").contains(&format!("[default: {message}]")), "{message}");
}

#[test]
fn sigterm_ends_a_drain_at_once_and_a_second_sigquit_does_nothing() {
    let mut server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    client.claim("4");
    drain(&mut server);
    server.signal(Signal::QUIT);
    // By this line, and an answer of a later tick, the signal before has been handled.
    server.signal(Signal::HUP);
    server.wait_for_log("nothing to read again");
    client.one(json!({"type": "ping", "ping": 1}));
    assert_eq!(server.count_log("draining: "), 1, "{:#?}", server.log());
    let since = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(client.close_code(), 1001);
    drop(client);
    assert!(server.wait().success());
    assert!(since.elapsed() < Duration::from_secs(5));
    assert!(!server.log().iter().any(|line| line.contains("drained: ")), "{:#?}", server.log());
}

#[test]
fn sigquit_while_it_stops_does_nothing() {
    let mut server = Server::start(&[]);
    let mut silent = crate::common::raw::Raw::open(server.address);
    server.signal(Signal::TERM);
    assert_eq!(silent.frame().0, crate::common::raw::CLOSE);
    server.signal(Signal::QUIT);
    server.signal(Signal::HUP);
    drop(silent);
    assert!(server.wait().success());
    assert!(!server.log().iter().any(|line| line.contains("drain")), "{:#?}", server.log());
}

#[test]
fn settings_can_be_read_again_while_it_drains() {
    let mut server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    client.claim("4");
    drain(&mut server);
    server.signal(Signal::HUP);
    server.wait_for_log("nothing to read again");
    client.error(json!({"type": "allocate"}));
}

#[test]
fn sigusr1_of_log_rotation_is_ignored_with_one_line() {
    let mut server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    server.signal(Signal::USR1);
    server.wait_for_log("SIGUSR1 is ignored");
    client.claim("4");
    server.bind("app", "newcomer").claim("4");
    assert_eq!(server.count_log("SIGUSR1 is ignored"), 1, "{:#?}", server.log());
    assert!(!server.log().iter().any(|line| line.contains("draining: ")), "{:#?}", server.log());
}

#[test]
fn a_close_that_is_not_committed_ends_no_drain() {
    let mut server = Server::start(&[]);
    let mut client = server.bind("app", "a");
    client.open("box");
    drain(&mut server);
    let lock = sql::lock(&server.file("relay.sqlite"));
    client.send(json!({"type": "close"}));
    assert_eq!(client.close_code(), 1013);
    drop(lock);
    server.wait_for_log("storage works again");
    let mut client = server.bind("app", "a");
    client.open("box");
    close_last(&mut client);
    assert_drained(&mut server, 0);
}
