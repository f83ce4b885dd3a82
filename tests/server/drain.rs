//! SIGQUIT: nobody new is let in to bind, those who have bound finish, and then the server stops as
//! after SIGTERM.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{Client, PROGRAM, Server, Signal};
use serde_json::json;

const TEXT: &str = "Moving to a new machine, try again at noon.";

/// A server that drains, once it has said so; gives its line.
fn drain(server: &mut Server) -> String {
    server.signal(Signal::QUIT);
    server.wait_for_log("draining: ")
}

/// Waits for the end, which must be a good one with nobody left or so many.
fn assert_drained(server: &mut Server, left: usize) {
    let status = server.wait();
    assert!(status.success(), "{status}: {:#?}", server.log());
    server.wait_for_log(&format!("drained: {left} bound connections are left"));
    assert!(!server.file("relay.sqlite-wal").exists());
}

#[test]
fn who_has_bound_finishes_and_nobody_else_may_bind() {
    let mut server = Server::start(&["--drain-message", TEXT]);
    let mut bound = server.bind("app", "s");
    let mut other = server.bind("app", "t");
    let mut unbound = server.connect();
    let line = drain(&mut server);
    assert!(line.contains("INFO") && line.contains("2 bound connections"), "{line}");
    assert!(line.contains("600 s"), "{line}");

    let bind = json!({"type": "bind", "appid": "app", "side": "u"});
    let mut guest = Client::connect(server.address);
    let welcome = guest.recv();
    assert_eq!(welcome["welcome"]["error"], TEXT);
    for client in [&mut unbound, &mut guest] {
        assert_eq!(client.error(bind.clone()), TEXT);
        assert_eq!(client.error(json!({"type": "list"})), "must bind first");
    }
    assert_eq!(bound.error(bind), "already bound");

    let mailbox = bound.claim("4");
    assert_eq!(other.claim("4"), mailbox);
    for client in [&mut bound, &mut other] {
        client.open(&mailbox);
    }
    bound.one(json!({"type": "add", "phase": "p", "body": "b"}));
    assert_eq!(other.recv()["body"], "b");

    drop(bound);
    other.release();
    drop(other);
    // Who has not bound does not hold it up, and is told.
    for mut client in [unbound, guest] {
        assert_eq!(client.close_code(), 1001);
    }
    assert_drained(&mut server, 0);
}

#[test]
fn with_nobody_bound_it_stops_at_once() {
    let mut server = Server::start(&[]);
    let mut unbound = server.connect();
    drain(&mut server);
    assert_eq!(unbound.close_code(), 1001);
    drop(unbound);
    assert_drained(&mut server, 0);
}

#[test]
fn it_ends_when_its_time_is_up() {
    let mut server = Server::start(&["--drain-seconds=0.05"]);
    let mut client = server.bind("app", "s");
    drain(&mut server);
    assert_eq!(client.close_code(), 1001);
    drop(client);
    assert_drained(&mut server, 1);
}

#[test]
fn without_a_message_of_the_operators_there_is_the_one_of_the_help() {
    let mut server = Server::start(&["--drain-message=", "--signal-error=other"]);
    let _bound = server.bind("app", "s");
    drain(&mut server);
    let welcome = Client::connect(server.address).recv();
    let message = welcome["welcome"]["error"].as_str().expect("a text").to_owned();
    let output = Command::new(PROGRAM).arg("--help=all").output();
    let help = String::from_utf8(output.expect("the program runs").stdout).expect("UTF-8");
    let words: Vec<&str> = help.split_whitespace().collect();
    assert!(words.join(" ").contains(&format!("[default: {message}]")), "{message}");
}

#[test]
fn sigterm_ends_a_drain_at_once_and_a_second_sigquit_does_nothing() {
    let mut server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    drain(&mut server);
    server.signal(Signal::QUIT);
    // By this line, and an answer of a later tick, the signal before has been handled.
    server.signal(Signal::HUP);
    server.wait_for_log("nothing to read again");
    client.claim("4");
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
    let _bound = server.bind("app", "s");
    drain(&mut server);
    server.signal(Signal::HUP);
    server.wait_for_log("nothing to read again");
    assert!(Client::connect(server.address).recv()["welcome"]["error"].is_string());
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
fn after_a_refused_bind_release_and_close_are_answered_as_if_they_had_succeeded() {
    let mut server = Server::start(&[]);
    let _bound = server.bind("app", "s");
    drain(&mut server);
    let mut client = Client::connect(server.address);
    client.recv();
    assert_eq!(client.error(json!({"type": "release"})), "must bind first");
    client.error(json!({"type": "bind", "appid": "app", "side": "t"}));
    for _ in 0..2 {
        let released = client.one(json!({"type": "release", "nameplate": "4"}));
        assert_eq!(released["type"], "released");
        let closed = client.one(json!({"type": "close", "mailbox": "m", "mood": "errory"}));
        assert_eq!(closed["type"], "closed");
        assert_eq!(client.error(json!({"type": "claim", "nameplate": "4"})), "must bind first");
    }
}
