//! WebSocket frames: what may come and in which pieces, what must not and which close code it
//! gets, pings in both directions, and the many ways in which clients leave.

use std::time::{Duration, Instant};

use crate::common::raw::{BINARY, CLOSE, PING, PONG, Raw, TEXT, answer_to, frame, header};
use crate::common::{Server, Signal, eventually, process};
use serde_json::json;

/// First bytes of fragments: an opcode without the final bit, and continuations.
const TEXT_BEGINNING: u8 = 0x01;
const BINARY_BEGINNING: u8 = 0x02;
const MIDDLE: u8 = 0x00;
const LAST: u8 = 0x80;

const COMMAND: &[u8] = br#"{"type":"ping","ping":"x"}"#;

fn assert_pong(raw: &mut Raw) {
    assert_eq!(raw.json()["type"], "ack");
    assert_eq!(raw.json()["pong"], "x");
}

/// The close code that these bytes get on a new connection, and after a message as well.
fn close_code_for(server: &Server, bytes: &[u8]) -> u16 {
    let mut used = Raw::open(server.address);
    used.send(&frame(TEXT, COMMAND));
    assert_pong(&mut used);
    used.send(bytes);
    let mut fresh = Raw::open(server.address);
    fresh.send(bytes);
    let code = fresh.close_code();
    assert_eq!(used.close_code(), code);
    code
}

#[test]
fn text_and_binary_frames_are_taken_and_text_comes_back() {
    let server = Server::start(&[]);
    let mut raw = Raw::open(server.address);
    for opcode in [TEXT, BINARY] {
        raw.send(&frame(opcode, COMMAND));
        assert_pong(&mut raw);
    }
}

#[test]
fn a_message_may_come_in_fragments() {
    let server = Server::start(&[]);
    let mut raw = Raw::open(server.address);
    for beginning in [TEXT_BEGINNING, BINARY_BEGINNING] {
        // As the Go client sends every message: all of it, then an empty last fragment.
        raw.send(&frame(beginning, COMMAND));
        raw.send(&frame(LAST, b""));
        assert_pong(&mut raw);
        raw.send(&frame(beginning, b""));
        for byte in COMMAND {
            raw.send(&frame(MIDDLE, &[*byte]));
        }
        raw.send(&frame(LAST, b""));
        assert_pong(&mut raw);
    }
}

#[test]
fn a_character_may_be_cut_by_a_fragment() {
    let server = Server::start(&[]);
    let mut raw = Raw::open(server.address);
    let text = r#"{"type":"ping","ping":"é"}"#.as_bytes();
    let middle_of_the_character = text.iter().position(|byte| *byte >= 0x80).expect("é") + 1;
    raw.send(&frame(TEXT_BEGINNING, &text[..middle_of_the_character]));
    raw.send(&frame(LAST, &text[middle_of_the_character..]));
    assert_eq!(raw.json()["type"], "ack");
    assert_eq!(raw.json()["pong"], "é");
}

#[test]
fn control_frames_may_come_between_fragments() {
    let server = Server::start(&[]);
    let mut raw = Raw::open(server.address);
    raw.send(&frame(TEXT_BEGINNING, &COMMAND[..5]));
    raw.send(&frame(PING, b"between"));
    assert_eq!(raw.frame(), (PONG, b"between".to_vec()));
    raw.send(&frame(PONG, b""));
    raw.send(&frame(LAST, &COMMAND[5..]));
    assert_pong(&mut raw);
}

#[test]
fn frames_may_come_byte_by_byte_and_many_at_once() {
    let server = Server::start(&[]);
    let mut raw = Raw::open(server.address);
    for byte in frame(TEXT, COMMAND) {
        raw.send(&[byte]);
    }
    assert_pong(&mut raw);
    raw.send(&frame(TEXT, COMMAND).repeat(300));
    for _ in 0..300 {
        assert_pong(&mut raw);
    }
}

#[test]
fn every_length_encoding_is_understood() {
    let server = Server::start(&[]);
    let mut raw = Raw::open(server.address);
    for padding in [98, 99, 100, 101, 102, 65_400, 65_508, 65_509, 65_510, 65_511, 200_000] {
        let mut command = COMMAND.to_vec();
        command.resize(COMMAND.len() + padding, b' ');
        raw.send(&frame(TEXT, &command));
        assert_pong(&mut raw);
    }
}

#[test]
fn pings_are_answered_with_their_payload() {
    let server = Server::start(&[]);
    let mut raw = Raw::open(server.address);
    for payload in [&b""[..], b"x", &[0xff; 125]] {
        raw.send(&frame(PING, payload));
        assert_eq!(raw.frame(), (PONG, payload.to_vec()));
    }
    // A pong that nobody asked for is no event.
    raw.send(&frame(PONG, b"unasked"));
    raw.send(&frame(TEXT, COMMAND));
    assert_pong(&mut raw);
}

/// The answers to a message that was too long: an `ack` and an `error`.
fn assert_too_long(raw: &mut Raw, limit: &str, beginning: &str) {
    let ack = raw.json();
    assert_eq!((&ack["type"], &ack["id"]), (&json!("ack"), &json!(null)));
    let error = raw.json();
    assert_eq!(error["type"], "error");
    assert!(error["error"].as_str().expect("a text").contains(limit), "{error}");
    assert_eq!(error["orig"], beginning);
}

#[test]
fn a_message_that_is_too_long_is_thrown_away_and_answered_and_the_connection_goes_on() {
    let server = Server::start(&["--websocket-protocol-option=maxMessagePayloadSize=1000"]);
    let mut raw = Raw::open(server.address);
    let mut longest = COMMAND.to_vec();
    longest.resize(1_000, b' ');
    for opcode in [TEXT, BINARY] {
        raw.send(&frame(opcode, &longest));
        assert_pong(&mut raw);
        for characters in [402, 999, 1_000, 1_001, 100_000, 1_000_000] {
            let text: String = "é✓".chars().cycle().take(characters).collect();
            let beginning: String = text.chars().take(1_000).collect();
            raw.send(&frame(opcode, text.as_bytes()));
            assert_too_long(&mut raw, "at most 1000 bytes", &beginning);
            raw.send(&frame(opcode, COMMAND));
            assert_pong(&mut raw);
        }
    }
}

#[test]
fn a_message_that_is_too_long_in_fragments_is_thrown_away_and_pings_between_are_answered() {
    let server = Server::start(&["--websocket-protocol-option=maxMessagePayloadSize=1000"]);
    let mut raw = Raw::open(server.address);
    let text = "aé".repeat(1_000);
    for size in [1, 2, 7, 599, 600, 601, 1_000, 1_001, 2_999] {
        let mut opcode = TEXT_BEGINNING;
        for fragment in text.as_bytes().chunks(size) {
            raw.send(&frame(opcode, fragment));
            opcode = MIDDLE;
        }
        raw.send(&frame(PING, b"between"));
        assert_eq!(raw.frame(), (PONG, b"between".to_vec()));
        raw.send(&frame(LAST, b""));
        let beginning: String = text.chars().take(1_000).collect();
        assert_too_long(&mut raw, "at most 1000 bytes", &beginning);
        raw.send(&frame(TEXT, COMMAND));
        assert_pong(&mut raw);
    }
}

#[test]
fn more_than_64_mib_gets_1009_by_the_header_alone() {
    const MOST: u64 = 64 * 1024 * 1024;
    let server = Server::start(&["--websocket-protocol-option=maxMessagePayloadSize=1000"]);
    for length in [MOST + 1, 1 << 40, (1 << 63) - 1] {
        let mut alone = header(TEXT, length, true);
        alone.extend([0; 4]); // the mask
        assert_eq!(close_code_for(&server, &alone), 1009, "{length}");
        // Together with fragments before it.
        let mut last = header(LAST, MOST - 1_999, true);
        last.extend([0; 4]);
        let fragments = [frame(TEXT_BEGINNING, &[b' '; 500]), frame(MIDDLE, &[b' '; 1_500])];
        assert_eq!(close_code_for(&server, &[fragments.concat(), last].concat()), 1009);
    }
}

#[test]
fn a_message_that_is_discarded_obeys_the_rules_of_framing() {
    let server = Server::start(&["--websocket-protocol-option=maxMessagePayloadSize=1000"]);
    let long = frame(TEXT_BEGINNING, &[b' '; 2_000]);
    let another = [long.clone(), frame(TEXT, COMMAND)].concat();
    assert_eq!(close_code_for(&server, &another), 1002);
    let compressed = [long.clone(), frame(LAST | 0x40, COMMAND)].concat();
    assert_eq!(close_code_for(&server, &compressed), 1002);
    let endless = [long.clone(), frame(MIDDLE, b"").repeat(1_000)].concat();
    assert_eq!(close_code_for(&server, &endless), 1002);
    let closed = [long, frame(CLOSE, &1000_u16.to_be_bytes())].concat();
    assert_eq!(close_code_for(&server, &closed), 1000);
}

#[test]
fn empty_fragments_without_end_get_1002_and_a_few_are_taken() {
    let server = Server::start(&[]);
    let mut raw = Raw::open(server.address);
    for _ in 0..2 {
        raw.send(&frame(TEXT_BEGINNING, b""));
        raw.send(&frame(MIDDLE, b"").repeat(30));
        raw.send(&frame(LAST, COMMAND));
        assert_pong(&mut raw);
    }
    let endless = [frame(TEXT_BEGINNING, b"{"), frame(MIDDLE, b"").repeat(65)].concat();
    assert_eq!(close_code_for(&server, &endless), 1002);
}

#[test]
fn a_limit_on_frames_alone_lets_longer_messages_come_in_fragments() {
    let server = Server::start(&["--websocket-protocol-option=maxFramePayloadSize=1000"]);
    let mut raw = Raw::open(server.address);
    raw.send(&frame(TEXT_BEGINNING, COMMAND));
    raw.send(&frame(MIDDLE, &[b' '; 1_000]));
    raw.send(&frame(LAST, &[b' '; 1_000]));
    assert_pong(&mut raw);
    raw.send(&frame(TEXT, &[b' '; 1_001]));
    assert_too_long(&mut raw, "frame is too long: at most 1000 bytes", &" ".repeat(1_000));
    raw.send(&frame(TEXT, COMMAND));
    assert_pong(&mut raw);
}

#[test]
fn by_default_a_message_of_4_mib_is_taken_and_a_larger_one_is_answered_by_an_error() {
    let server = Server::start(&[]);
    let mut raw = Raw::open(server.address);
    let mut longest = COMMAND.to_vec();
    longest.resize(4 * 1024 * 1024, b' ');
    raw.send(&frame(TEXT, &longest));
    assert_pong(&mut raw);
    longest.push(b' ');
    raw.send(&frame(TEXT, &longest));
    let beginning = std::str::from_utf8(&longest[..1_000]).expect("ASCII");
    assert_too_long(&mut raw, "message is too long: at most 4194304 bytes", beginning);
}

#[test]
fn text_that_is_not_utf_8_gets_1007() {
    let server = Server::start(&[]);
    assert_eq!(close_code_for(&server, &frame(TEXT, b"\"\xff\"")), 1007);
    assert_eq!(close_code_for(&server, &frame(TEXT, b"\"\xc3")), 1007);
    let mut in_fragments = frame(TEXT_BEGINNING, b"\"\xc3");
    in_fragments.extend(frame(LAST, b"\""));
    assert_eq!(close_code_for(&server, &in_fragments), 1007);
}

#[test]
fn binary_that_is_not_utf_8_is_no_json_and_no_violation() {
    let server = Server::start(&[]);
    let mut raw = Raw::open(server.address);
    raw.send(&frame(BINARY, b"\"\xff\""));
    assert_eq!(raw.json()["type"], "error");
    raw.send(&frame(TEXT, COMMAND));
    assert_pong(&mut raw);
}

#[test]
fn framing_violations_get_1002() {
    let server = Server::start(&[]);
    let mut unmasked = header(TEXT, COMMAND.len() as u64, false);
    unmasked.extend(COMMAND);
    let mut two_beginnings = frame(TEXT_BEGINNING, b"{");
    two_beginnings.extend(frame(TEXT, COMMAND));
    for (what, bytes) in [
        ("no mask", unmasked),
        ("rsv1, as compressed messages have it", frame(TEXT | 0x40, COMMAND)),
        ("rsv2", frame(TEXT | 0x20, COMMAND)),
        ("rsv3", frame(TEXT | 0x10, COMMAND)),
        ("reserved data opcode", frame(0x83, COMMAND)),
        ("reserved control opcode", frame(0x8b, b"")),
        ("continuation of nothing", frame(LAST, COMMAND)),
        ("a message within a message", two_beginnings),
        ("a ping in fragments", frame(0x09, b"")),
        ("a ping of 126 bytes", frame(PING, &[0; 126])),
        ("a close of one byte", frame(CLOSE, &[3])),
        ("a length with the highest bit", [header(TEXT, 1 << 63, true), vec![0; 4]].concat()),
    ] {
        assert_eq!(close_code_for(&server, &bytes), 1002, "{what}");
    }
}

#[test]
fn what_came_before_a_violation_is_still_answered() {
    let server = Server::start(&[]);
    let mut raw = Raw::open(server.address);
    let mut bytes = frame(TEXT, COMMAND);
    bytes.extend(frame(LAST, b""));
    raw.send(&bytes);
    assert_pong(&mut raw);
    assert_eq!(raw.close_code(), 1002);
}

#[test]
fn a_close_is_answered_after_all_that_was_asked_before() {
    let server = Server::start(&[]);
    let mut raw = Raw::open(server.address);
    let mut bytes = frame(TEXT, COMMAND);
    bytes.extend(frame(CLOSE, &1000_u16.to_be_bytes()));
    raw.send(&bytes);
    assert_pong(&mut raw);
    assert_eq!(raw.close_code(), 1000);
    let mut without_code = Raw::open(server.address);
    without_code.send(&frame(CLOSE, b""));
    assert_eq!(without_code.frame().0, CLOSE);
    assert_eq!(without_code.rest(), "");
}

#[test]
fn what_was_sent_before_the_end_of_input_is_all_answered() {
    let server = Server::start(&[]);
    let mut raw = Raw::open(server.address);
    // More than one tick's share.
    raw.send(&frame(TEXT, COMMAND).repeat(1_000));
    raw.end_of_input();
    for _ in 0..1_000 {
        assert_pong(&mut raw);
    }
    assert_eq!(raw.rest(), "");
}

#[test]
fn a_close_code_comes_back_as_it_was_if_it_may_be_sent() {
    let server = Server::start(&[]);
    let close = |code: u16| [&code.to_be_bytes()[..], "why: ✓".as_bytes()].concat();
    let valid = (1000..=1003).chain(1007..=1014).chain([3000, 3999, 4000, 4999]);
    for code in valid {
        let mut raw = Raw::open(server.address);
        raw.send(&frame(CLOSE, &close(code)));
        assert_eq!(raw.frame(), (CLOSE, close(code)));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        let mut raw = Raw::open(server.address);
        raw.send(&frame(CLOSE, &close(code)));
        assert_eq!(raw.close_code(), 1002, "{code}");
    }
    // Without a code there is none to repeat.
    let mut raw = Raw::open(server.address);
    raw.send(&frame(CLOSE, b""));
    assert_eq!(raw.frame(), (CLOSE, Vec::new()));
}

#[test]
fn who_does_not_finish_its_close_is_dropped() {
    let server = Server::start(&[
        "--websocket-protocol-option=closeHandshakeTimeout=0.2",
        "--websocket-protocol-option=maxConnections=1",
    ]);
    let mut raw = Raw::open(server.address);
    raw.send(&frame(LAST, b""));
    assert_eq!(raw.close_code(), 1002);
    // It never ends its side, and yet its place becomes free.
    eventually("its place is free", || {
        answer_to(server.address, "GET / HTTP/1.1\r\n\r\n").contains("200 OK")
    });
}

#[test]
fn however_a_client_leaves_what_it_sent_counts() {
    let server = Server::start(&[]);
    let going_away = frame(CLOSE, &1001_u16.to_be_bytes());
    for (side, farewell) in [("closes", &going_away[..]), ("ends", b""), ("tears off", &[TEXT])] {
        let mut raw = Raw::open(server.address);
        for command in [
            json!({"type": "bind", "appid": side, "side": side}),
            json!({"type": "open", "mailbox": side}),
            json!({"type": "add", "phase": "p", "body": "b"}),
        ] {
            raw.send_json(&command);
        }
        raw.send(farewell);
        raw.end_of_input();
        raw.drain();
        let stored = server.bind(side, side).open(side);
        assert_eq!(stored.len(), 1, "{side}");
    }
}

#[test]
fn the_server_pings_and_keeps_who_answers() {
    let server = Server::start(&[
        "--websocket-protocol-option=autoPingInterval=0.05",
        "--websocket-protocol-option=autoPingTimeout=2",
    ]);
    let started = Instant::now();
    let mut raw = Raw::open(server.address);
    let mut pings = 0;
    while pings < 10 {
        let (first, payload) = raw.frame();
        assert_eq!(first, PING);
        raw.send(&frame(PONG, &payload));
        pings += 1;
    }
    assert!(started.elapsed().as_millis() >= 500, "{:?}", started.elapsed());
    raw.send(&frame(TEXT, COMMAND));
    while raw.frame().0 == PING {}
}

#[test]
fn who_answers_is_kept_when_the_server_stood_still_for_longer_than_the_timeout() {
    let server = Server::start(&[
        "--websocket-protocol-option=autoPingInterval=0.2",
        "--websocket-protocol-option=autoPingTimeout=1",
    ]);
    let mut raw = Raw::open(server.address);
    assert_eq!(raw.frame().0, PING);
    server.signal(Signal::STOP);
    std::thread::sleep(Duration::from_secs(3)); // the standstill
    server.signal(Signal::CONT);
    raw.send(&frame(PONG, b""));
    for _ in 0..5 {
        assert_eq!(raw.frame().0, PING);
        raw.send(&frame(PONG, b""));
    }
}

#[test]
fn who_answers_no_ping_is_dropped() {
    let server = Server::start(&[
        "--websocket-protocol-option=autoPingInterval=0.1",
        "--websocket-protocol-option=autoPingTimeout=0.2",
    ]);
    let started = Instant::now();
    let mut raw = Raw::open(server.address);
    raw.drain();
    assert!(started.elapsed().as_millis() >= 200, "{:?}", started.elapsed());
}

#[test]
fn a_server_that_stood_still_drops_nobody_that_answers() {
    let server = Server::start(&[
        "--websocket-protocol-option=autoPingInterval=0.3",
        "--websocket-protocol-option=autoPingTimeout=2",
    ]);
    let mut peers: Vec<Raw> = (0..8).map(|_| Raw::open(server.address)).collect();
    let answer = |peer: &mut Raw| {
        assert_eq!(peer.frame(), (PING, Vec::new()));
        peer.send(&frame(PONG, b""));
    };
    peers.iter_mut().for_each(answer);
    server.signal(Signal::STOP);
    eventually("it stands still", || process::state(server.pid()) == 'T');
    std::thread::sleep(Duration::from_secs(3));
    server.signal(Signal::CONT);
    for _ in 0..3 {
        peers.iter_mut().for_each(answer);
    }
}
