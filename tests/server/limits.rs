//! Limits on what one connection sends, stores and leaves unread, on time, and on the number of
//! connections: below and at each limit all is well, above it comes the refusal that the table in
//! `limits` names. Everything is done twice, to see that what was taken comes back.
//!
//! Limits on one peer address are in `limits_of_addresses.rs`.

use std::io::Read;
use std::time::Duration;

use crate::common::client::exchange;
use crate::common::raw::{CONTINUES, ENDS, Raw, TEXT, TEXT_BEGINS, frame, upgrade, upgrade_of};
use crate::common::{Client, Server, Signal, eventually};
use crate::takeover;
use serde_json::{Value, json};
use tungstenite::{Error, Message};

const POLICY: u16 = 1008;

/// A ping whose text has exactly that many bytes.
fn ping_of(bytes: usize) -> String {
    let bare = r#"{"type":"ping","ping":""}"#.len();
    format!(r#"{{"type":"ping","ping":"{}"}}"#, "p".repeat(bytes - bare))
}

fn add(body_bytes: usize) -> Value {
    json!({"type": "add", "phase": "p", "body": "b".repeat(body_bytes)})
}

/// Adds a message and reads the ack and the echo.
fn add_well(client: &mut Client, body_bytes: usize) {
    assert_eq!(client.one(add(body_bytes))["type"], "message");
}

/// The `ack` and the `error` for a message that was too long.
fn assert_too_long(client: &mut Client, text: &str) {
    assert_eq!(client.recv()["id"], Value::Null);
    let error = client.recv();
    assert!(error["error"].as_str().expect("a text").contains(text), "{error}");
}

#[test]
fn a_message_over_the_limit_is_answered_by_an_error_and_one_at_the_limit_is_not() {
    let mut server = Server::start(&["--limit-message-bytes=1000"]);
    for _ in 0..2 {
        let mut client = server.connect();
        for bytes in [999, 1000] {
            client.send_text(&ping_of(bytes));
            assert_eq!(client.recv()["type"], "ack");
            assert_eq!(client.recv()["type"], "pong");
        }
        client.send_text(&ping_of(1001));
        assert_too_long(&mut client, "message is too long: at most 1000 bytes");
        client.quiet(json!({"type": "bind", "appid": "a", "side": "s"}));
    }
    server.wait_for_log("bytes of one message");
}

#[test]
fn a_frame_over_the_limit_is_answered_by_an_error_and_an_absurd_one_refused_from_its_header() {
    let server = Server::start(&["--limit-frame-bytes=500", "--limit-message-bytes=1000"]);
    for _ in 0..2 {
        let mut client = server.connect();
        for bytes in [499, 500] {
            client.send_text(&ping_of(bytes));
            assert_eq!(client.recv()["type"], "ack");
            assert_eq!(client.recv()["type"], "pong");
        }
        client.send_text(&ping_of(501));
        assert_too_long(&mut client, "frame is too long: at most 500 bytes");

        // A length that no machine has.
        let mut raw = Raw::upgraded(server.address);
        raw.send(&[0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        assert_ne!(raw.last_close_code(), 1000);
    }
}

#[test]
fn a_frame_may_be_as_long_as_a_message_unless_its_own_limit_is_given() {
    let option = "--websocket-protocol-option=maxMessagePayloadSize";
    let [by_option, unlimited] = [format!("{option}=1500000"), format!("{option}=0")];
    for options in [&["--limit-message-bytes=1500000"][..], &[&by_option], &[&unlimited]] {
        let server = Server::start(options);
        let mut client = server.connect();
        client.send_text(&ping_of(1_500_000));
        assert_eq!(client.recv()["type"], "ack");
        assert_eq!(client.recv()["type"], "pong");
        let log = server.log();
        let is_warned = log.iter().any(|it| it.contains("maxMessagePayloadSize=0 is a limit of"));
        assert_eq!(is_warned, options[0] == unlimited, "{log:#?}");
    }
}

#[test]
fn fragments_may_add_up_to_the_message_limit_and_not_beyond() {
    let server = Server::start(&["--limit-frame-bytes=500", "--limit-message-bytes=1000"]);
    for _ in 0..2 {
        let ping = ping_of(1000);
        let (one, other) = ping.as_bytes().split_at(500);
        let mut raw = Raw::upgraded(server.address);
        raw.send(&frame(TEXT_BEGINS, one));
        raw.send(&frame(ENDS, other));
        // And one that does not end for long.
        raw.send(&frame(TEXT_BEGINS, one));
        for _ in 0..100 {
            raw.send(&frame(CONTINUES, &[b' '; 400]));
        }
        raw.send(&frame(ENDS, b""));
        raw.send(&frame(TEXT, br#"{"type":"ping","ping":"after"}"#));
        raw.end_of_input();
        let answers = raw.drain();
        let text = String::from_utf8_lossy(&answers);
        assert!(text.contains(r#""type":"pong""#), "the whole one is answered: {text}");
        assert!(text.contains("message is too long: at most 1000 bytes"), "{text}");
        assert!(text.contains(r#""pong":"after""#), "the connection goes on: {text}");
    }
}

#[test]
fn names_over_the_limit_are_refused_and_the_connection_goes_on() {
    let server = Server::start(&["--limit-name-bytes=20"]);
    let (long, longest) = ("n".repeat(21), "n".repeat(20));
    for _ in 0..2 {
        let mut client = server.connect();
        for (appid, side, field) in [(&*long, "s", "appid"), ("a", &*long, "side")] {
            let bind = json!({"type": "bind", "appid": appid, "side": side});
            let error = client.error(bind);
            assert!(error.contains(&format!("'{field}'")) && error.contains("20 bytes"), "{error}");
        }
        client.quiet(json!({"type": "bind", "appid": longest, "side": longest}));
        for (command, field) in [
            (json!({"type": "open", "mailbox": long}), "mailbox"),
            (json!({"type": "close", "mailbox": long}), "mailbox"),
        ] {
            let error = client.error(command);
            assert!(error.contains(&format!("'{field}'")), "{error}");
        }
        client.open(&longest);
        let error = client.error(json!({"type": "add", "phase": long, "body": ""}));
        assert!(error.contains("'phase'"), "{error}");
        let added = client.one(json!({"type": "add", "phase": longest, "body": ""}));
        assert_eq!(added["type"], "message");
        let error = client.error(json!({"type": "close", "mood": long}));
        assert!(error.contains("'mood'"), "{error}");
        assert_eq!(client.one(json!({"type": "close", "mood": longest}))["type"], "closed");
    }
}

#[test]
fn who_may_not_bind_for_a_long_name_may_leave_all_the_same() {
    let server = Server::start(&[]);
    for (appid, side) in [("a".repeat(257), "s".to_owned()), ("a".to_owned(), "s".repeat(257))] {
        let mut client = server.connect();
        for command in ["release", "close"] {
            assert_eq!(client.error(json!({"type": command})), "must bind first");
        }
        client.error(json!({"type": "bind", "appid": appid, "side": side}));
        // Python's client waits for these answers before it shows the error.
        for (command, answer) in [("release", "released"), ("close", "closed")] {
            let command = json!({"type": command, "nameplate": "4", "mailbox": "m"});
            assert_eq!(client.one(command), json!({"type": answer}));
        }
        assert_eq!(client.error(json!({"type": "list"})), "must bind first");
        client.quiet(json!({"type": "bind", "appid": "a", "side": "s"}));
        for command in ["release", "close"] {
            assert!(client.error(json!({"type": command})).contains("must follow"));
        }
    }
}

#[test]
fn a_mailbox_with_all_its_messages_takes_no_more_and_keeps_what_it_has() {
    let server = Server::start(&["--limit-mailbox-messages=3"]);
    for _ in 0..2 {
        let mut client = server.bind("app", "one");
        client.open("box");
        for _ in 0..3 {
            add_well(&mut client, 10);
        }
        for _ in 0..2 {
            let error = client.error(add(10));
            assert_eq!(error, "mailbox is full: at most 3 messages and 16777216 bytes");
        }
        let mut other = server.bind("app", "two");
        assert_eq!(other.open("box").len(), 3);
        for client in [&mut client, &mut other] {
            client.close();
        }
    }
}

#[test]
fn a_mailbox_with_all_its_bytes_takes_no_more_and_keeps_what_it_has() {
    // Each message counts with 128 bytes besides its phase and its body.
    let server = Server::start(&["--limit-mailbox-bytes=1129"]);
    for _ in 0..2 {
        let mut client = server.bind("app", "one");
        client.open("box");
        assert!(client.error(add(1001)).starts_with("mailbox is full"));
        add_well(&mut client, 871); // 1000 of 1129
        assert!(client.error(add(1)).starts_with("mailbox is full"));
        add_well(&mut client, 0); // all of 1129
        assert!(client.error(add(0)).starts_with("mailbox is full"));
        let mut other = server.bind("app", "two");
        assert_eq!(other.open("box").len(), 2);
        for client in [&mut client, &mut other] {
            client.close();
        }
    }
}

#[test]
fn a_full_store_takes_no_more_of_the_largest_holder_which_goes_when_others_need_room() {
    let mut server = Server::start(&["--limit-stored-bytes=40000"]);
    for _ in 0..2 {
        let mut client = server.bind("app", "one");
        client.open("box");
        let mut stored = 0;
        let error = loop {
            client.send(add(1000));
            assert_eq!(client.recv()["type"], "ack");
            let answer = client.recv();
            if answer["type"] == "error" {
                break answer;
            }
            stored += 1;
        };
        assert_eq!(error["error"], "server is full, try again later");
        assert!((20..40).contains(&stored), "{stored}");
        assert_eq!(server.bind("app", "one").open("box").len(), stored, "it keeps what it has");
        let mut other = server.bind("app", "two");
        other.open("other");
        add_well(&mut other, 1000);
        assert_eq!(client.close_code(), 1008);
        assert_eq!(server.bind("app", "one").open("box").len(), 0);
        for (side, mailbox) in [("one", "box"), ("two", "other")] {
            let close = json!({"type": "close", "mailbox": mailbox});
            assert_eq!(server.bind("app", side).one(close)["type"], "closed");
        }
    }
    server.wait_for_log("stored bytes");
    server.wait_for_log("mailboxes deleted because the store was full");
}

#[test]
fn a_slow_reader_is_dropped_and_an_innocent_pair_beside_it_is_not() {
    let mut server = Server::start(&[
        "--limit-message-bytes=20000",
        "--limit-outbox-bytes=80000",
        "--limit-mailbox-bytes=100000000",
    ]);
    // The rows of the first may still be being deleted when the second begins.
    for mailbox in ["box", "another"] {
        let mut slow = server.bind("app", "slow");
        slow.open(mailbox);
        let mut sender = server.bind("app", "sender");
        sender.open(mailbox);
        // The kernel takes some megabytes in the reader's place.
        for _ in 0..900 {
            add_well(&mut sender, 19_000);
        }
        exchange(&server, "happy");
        let mut received = 0;
        let end = loop {
            match slow.socket.read() {
                Ok(_) => received += 1,
                Err(error) => break error,
            }
        };
        assert!(received < 900, "dropped with less than all: {received}");
        assert!(matches!(end, Error::Io(_) | Error::Protocol(_)), "{end}");
        let mut slow = server.bind("app", "slow");
        assert_eq!(slow.open(mailbox).len(), 900, "what it missed is still there");
        for client in [&mut slow, &mut sender] {
            client.close();
        }
    }
    server.wait_for_log("output of one slow reader");
}

#[test]
fn a_full_mailbox_is_replayed_to_a_slow_reader_in_whole() {
    let server = Server::start(&[]);
    let mut sender = server.bind("app", "sender");
    sender.open("box");
    const MESSAGES: usize = 16;
    for _ in 0..MESSAGES {
        sender.send(add(1_048_000));
        assert_eq!(sender.recv()["type"], "ack");
        assert_eq!(sender.recv()["type"], "message");
    }
    for _ in 0..2 {
        let mut slow = server.bind("app", "slow");
        slow.send(json!({"type": "open", "mailbox": "box"}));
        slow.send(json!({"type": "ping", "ping": "after"}));
        exchange(&server, "happy");
        assert_eq!(slow.recv()["type"], "ack");
        for _ in 0..MESSAGES {
            assert_eq!(slow.recv()["body"].as_str().map(str::len), Some(1_048_000));
        }
        assert_eq!(slow.recv()["type"], "ack");
        assert_eq!(slow.recv()["pong"], "after");
    }
}

#[test]
fn when_all_connections_together_hold_too_much_the_largest_holders_go() {
    let mut server = Server::start(&[
        "--limit-message-bytes=100000",
        "--limit-outbox-bytes=400000",
        "--limit-buffered-bytes=1000000",
    ]);
    let message = || {
        let mut holder = Raw::upgraded(server.address);
        holder.send(&frame(TEXT, &[b' '; 100_000])[..90_000]);
        holder
    };
    let head = || {
        let mut holder = Raw::connect(server.address);
        holder.send(&upgrade_of(16_000).as_bytes()[..15_000]);
        holder
    };
    let kinds: [&dyn Fn() -> Raw; 2] = [&message, &head];
    for hold in kinds.into_iter().chain(kinds) {
        const COUNT: usize = 100;
        let mut small = Raw::upgraded(server.address);
        small.send(&frame(TEXT, ping_of(900).as_bytes())[..500]);
        let mut holders: Vec<Raw> = (0..COUNT).map(|_| hold()).collect();
        exchange(&server, "happy");
        small.send(&frame(TEXT, ping_of(900).as_bytes())[500..]);
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&seen).contains(r#""type":"pong""#) {
            let count = small.stream.read(&mut buffer).expect("the small holder is served");
            assert_ne!(count, 0, "the small holder was dropped");
            seen.extend_from_slice(&buffer[..count]);
        }
        let mut alive = 0;
        for holder in &mut holders {
            // Those dropped are at their end; the others can go on.
            holder.stream.set_read_timeout(Some(Duration::from_millis(1))).expect("timeout");
            let ended = loop {
                match holder.stream.read(&mut buffer) {
                    Ok(0) => break true,
                    Ok(_) => {}
                    Err(error) => break error.kind() == std::io::ErrorKind::ConnectionReset,
                }
            };
            alive += usize::from(!ended);
        }
        assert!(alive < COUNT && alive > 2, "{alive} of {COUNT} holders are left");
    }
    server.wait_for_log("buffered bytes of all connections");
}

#[test]
fn readers_with_more_output_than_buffers_may_hold_are_closed_at_a_takeover() {
    let (mut server, _) = takeover::start(&["--limit-buffered-bytes=9000000"]);
    let mut writer = server.bind("app", "w");
    writer.open("m");
    for _ in 0..60 {
        add_well(&mut writer, 100_000);
    }
    // Of 6 MB for each, two do not fit.
    let readers = [(); 3].map(|()| {
        let mut reader = server.bind("app", "r");
        reader.send(json!({"type": "open", "mailbox": "m"}));
        assert_eq!(reader.recv()["type"], "ack");
        reader
    });
    server.replace();
    server.wait_for_log("2 connections are not handed over: too much output waits for them");
    add_well(&mut writer, 1);
    let mut received =
        readers.map(|mut reader| (0..=60).take_while(|_| reader.socket.read().is_ok()).count());
    received.sort_unstable();
    assert!(received[1] <= 60 && received[2] == 61, "{received:?}");
}

#[test]
fn a_connection_too_many_gets_503_and_has_room_once_another_has_left() {
    let mut server = Server::start(&["--limit-connections=3", "--admin=0"]);
    for _ in 0..2 {
        let mut clients: Vec<Client> = (0..3).map(|_| server.connect()).collect();
        for _ in 0..5 {
            let refused = server.connect_from(None).err().expect("refused");
            assert_eq!((refused.status, refused.retry_after), (503, Some(5)));
            assert!(refused.body.contains("too many connections"), "{}", refused.body);
        }
        for client in &mut clients {
            client.send(json!({"type": "ping", "ping": 1}));
            assert_eq!(client.recv()["type"], "ack");
        }
        drop(clients);
        server.wait_for_connections(0);
    }
    server.wait_for_log("limits met: connections");
}

#[test]
fn a_head_over_the_limit_gets_431_and_one_at_the_limit_is_served() {
    let server = Server::start(&["--limit-head-bytes=500"]);
    for _ in 0..2 {
        for bytes in [499, 500] {
            let mut raw = Raw::connect(server.address);
            raw.send(upgrade_of(bytes).as_bytes());
            let mut start = [0; 12];
            raw.stream.read_exact(&mut start).expect("an answer");
            assert_eq!(&start, b"HTTP/1.1 101");
        }
        let mut raw = Raw::connect(server.address);
        raw.send(upgrade_of(501).as_bytes());
        assert_eq!(raw.status(), 431);
        // A request line without end.
        let mut raw = Raw::connect(server.address);
        raw.send(&[b'G'; 501]);
        assert_eq!(raw.status(), 431);
    }
}

#[test]
fn a_head_that_takes_too_long_gets_408() {
    let mut server = Server::start(&["--limit-handshake-seconds=0.5"]);
    for _ in 0..2 {
        for part in ["", "GET", "GET /v1 HTTP/1.1\r\nHost: x\r\n"] {
            let mut raw = Raw::connect(server.address);
            raw.send(part.as_bytes());
            assert_eq!(raw.status(), 408);
        }
        exchange(&server, "happy");
    }
    server.wait_for_log("time for a request head");
}

#[test]
fn who_does_not_bind_in_time_is_closed_with_1008_and_who_binds_stays() {
    let mut server = Server::start(&["--limit-bind-seconds=0.5"]);
    for _ in 0..2 {
        let mut bound = server.bind("app", "side");
        let mut idle = server.connect();
        let mut pinging = server.connect();
        pinging.send(json!({"type": "ping", "ping": "that is no bind"}));
        assert_eq!(idle.close_code(), POLICY);
        assert_eq!(pinging.close_code(), POLICY);
        bound.open("box");
    }
    server.wait_for_log("time to bind");
}

#[test]
fn who_does_not_answer_a_close_is_dropped() {
    let server = Server::start(&["--limit-bind-seconds=0.1", "--limit-close-seconds=0.3"]);
    for _ in 0..2 {
        let mut raw = Raw::upgraded(server.address);
        // The stream ends as well, although nothing was answered.
        assert_eq!(raw.last_close_code(), POLICY);
        let mut raw = Raw::connect(server.address);
        raw.send(b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(raw.status(), 200);
        eventually("what lingers is gone", || !raw.try_send(b"more"));
    }
}

#[test]
fn with_a_share_of_one_message_and_one_connection_a_tick_all_are_still_served() {
    let server = Server::start(&["--limit-tick-messages=1", "--limit-tick-accepts=1"]);
    for _ in 0..2 {
        let mut clients: Vec<Raw> = (0..50).map(|_| Raw::connect(server.address)).collect();
        for raw in &mut clients {
            let mut flood = upgrade("/v1", "").into_bytes();
            for number in 0..100 {
                let ping = json!({"type": "ping", "ping": number}).to_string();
                flood.extend_from_slice(&frame(TEXT, ping.as_bytes()));
            }
            flood.extend_from_slice(&frame(0x88, &1000u16.to_be_bytes()));
            raw.send(&flood);
        }
        for raw in &mut clients {
            let answers = raw.drain();
            let text = String::from_utf8_lossy(&answers);
            let pongs: Vec<usize> =
                text.split(r#""pong":"#).skip(1).filter_map(leading_number).collect();
            assert_eq!(pongs, (0..100).collect::<Vec<_>>());
        }
    }
}

fn leading_number(text: &str) -> Option<usize> {
    text.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

#[test]
fn a_ping_flood_that_is_never_read_ends_the_connection() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.socket.get_ref().set_write_timeout(Some(Duration::from_millis(500))).expect("timeout");
    let payload = ping_of(60_000);
    let dropped = (0..2_000).any(|_| client.socket.send(Message::text(&*payload)).is_err());
    assert!(dropped, "120 MB of pongs were kept");
    exchange(&server, "happy");
}

#[test]
fn limits_that_were_met_before_the_end_are_logged_at_the_end() {
    let mut server = Server::start(&["--limit-message-bytes=2000"]);
    let mut client = server.bind("app", "a");
    let long = "x".repeat(3_000);
    let mut meet_the_limit = || {
        client.send_text(&long);
        assert_eq!(client.recv()["type"], "ack");
        assert_eq!(client.recv()["type"], "error");
    };
    meet_the_limit();
    server.wait_for_log("limits met: ");
    meet_the_limit();
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert_eq!(server.count_log("limits met: "), 2);
}
