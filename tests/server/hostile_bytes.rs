//! Bytes from the network mean harm: whatever comes, in whatever pieces, no parser panics, none
//! takes more than its limit, and none depends on where the pieces were cut.
//!
//! The fuzzing is seeded: a failure names its seed, and `FUZZ_SEED` repeats it. It is short by
//! default; `FUZZ_SECONDS` makes it as long as wanted.

use std::time::{Duration, Instant};

use crate::common::Server;
use crate::common::client::exchange;
use crate::common::random::Random;
use crate::common::raw::{CONTINUES, ENDS, Raw, TEXT, TEXT_BEGINS, frame, upgrade};
use serde_json::json;
use wormhole_mailbox::codec::http::{self, Parsed};
use wormhole_mailbox::codec::json as protocol;
use wormhole_mailbox::codec::origins::Origins;
use wormhole_mailbox::codec::proxy_header::{self, ProxyHeader};
use wormhole_mailbox::codec::websocket::{Inbound, WebSocket};
use wormhole_mailbox::limits::{Limits, PROXY_HEADER_BYTES_MAX};
use wormhole_mailbox::message::{AddressHeader, Event, FrameError};

/// Small, so that the limits are met.
fn limits() -> Limits {
    Limits {
        message_bytes_max: 600,
        frame_bytes_max: 400,
        head_bytes_max: 600,
        ..Limits::default()
    }
}

/// Pieces that parsers have opinions about.
const TOKENS: [&[u8]; 20] = [
    b"\r\n\r\n",
    b"\r\n",
    b"\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x92\xa9",
    b"{",
    b"}",
    b"[[[[[[[[",
    b"\"",
    b"\\ud800",
    b"\\u0000",
    b"1e999999",
    b"-",
    b":",
    b" HTTP/1.1\r\n",
    b"\x81\xfe\xff\xff",
    b"\x81\xff",
    b"\x00\x80",
    b"\x89\xfd",
];

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => {
                bytes.splice(at..at, random.pick(&TOKENS).iter().copied());
            }
            4 => {
                let end = at + random.below(bytes.len() - at + 1);
                bytes.drain(at..end);
            }
            5 => {
                let end = at + random.below((bytes.len() - at + 1).min(200));
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => bytes.insert(at, random.next() as u8),
        }
    }
}

/// Runs `check` on mutations of the corpus until the time is up.
fn fuzz(corpus: &[Vec<u8>], check: impl Fn(&[u8], &mut Random)) {
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let until = Instant::now() + Duration::from_secs_f64(seconds.unwrap_or(2.0));
    let first = std::env::var("FUZZ_SEED").ok().and_then(|text| text.parse().ok());
    for bytes in corpus {
        check(bytes, &mut Random::new(0));
    }
    let mut seed = first.unwrap_or(1_u64);
    loop {
        let mut random = Random::new(seed);
        let mut bytes = if random.below(10) == 0 {
            {
                let count = random.below(1000);
                random.bytes(count)
            }
        } else {
            corpus[random.below(corpus.len())].clone()
        };
        mutate(&mut bytes, &mut random);
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            check(&bytes, &mut random);
        }));
        assert!(
            checked.is_ok(),
            "FUZZ_SEED={seed} fails with {:?}",
            bytes.escape_ascii().to_string()
        );
        if first.is_some() || Instant::now() > until {
            return;
        }
        seed += 1;
    }
}

fn commands() -> Vec<String> {
    [
        json!({"type": "bind", "appid": "a", "side": "s", "client_version": ["rust", "0.7"]}),
        json!({"type": "list", "id": "ab12"}),
        json!({"type": "claim", "nameplate": "123"}),
        json!({"type": "release", "nameplate": null}),
        json!({"type": "open", "mailbox": "x\u{0}\u{1f4a9}"}),
        json!({"type": "add", "phase": "pake", "body": "00ff", "id": 17}),
        json!({"type": "close", "mailbox": "x", "mood": "happy"}),
        json!({"type": "ping", "ping": {"deep": [[[{}]]], "number": 1e300}}),
        json!({"type": "submit-permissions", "method": "hashcash"}),
        json!([1, "two", null]),
    ]
    .iter()
    .map(|command| command.to_string())
    .collect()
}

#[test]
fn no_text_makes_the_command_decoder_panic() {
    const NAME_BYTES_MAX: usize = 20;
    let corpus: Vec<Vec<u8>> = commands().into_iter().map(String::into_bytes).collect();
    fuzz(&corpus, |bytes, _| {
        // What is accepted is one JSON object, as another parser sees it.
        if protocol::decode_binary(bytes, NAME_BYTES_MAX).is_ok() {
            let text = std::str::from_utf8(bytes).expect("what is accepted is UTF-8");
            let text = text.trim_matches([' ', '\t', '\r', '\n']);
            assert!(text.starts_with('{') && text.ends_with('}'));
        }
        let text = String::from_utf8_lossy(bytes);
        match protocol::decode(&text, NAME_BYTES_MAX) {
            Ok(request) => assert!(format!("{request:?}").len() < 100 + 20 * text.len()),
            Err(unreadable) => assert!(format!("{unreadable:?}").len() < 20_000),
        }
    });
}

#[test]
fn no_head_makes_the_parser_panic_and_a_head_in_pieces_is_the_same_head() {
    let bytes_max = limits().head_bytes_max;
    let mut corpus: Vec<Vec<u8>> = [
        "GET / HTTP/1.1\r\n\r\n",
        "HEAD /v1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /v1/x?y HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello",
        "GET http://relay.example/v1 HTTP/1.1\r\nConnection: Upgrade\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    for headers in [
        "",
        "X-Real-IP: 192.0.2.1\r\nX-Real-Port: 80\r\n",
        "X-Real-IP: 2001:db8::1\r\nX-Real-Port: 99999\r\nOrigin: null\r\n",
        "X-Forwarded-For: 192.0.2.1:5, [::1]:6\r\nForwarded: for=\"[::1]:1\", for=_x;a=\"\\\"\"\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: a, b\r\n",
    ] {
        corpus.push(upgrade("/v1", headers).into_bytes());
    }
    let origins = Origins(vec!["https://*.example:*".to_owned(), "null".to_owned()]);
    fuzz(&corpus, |bytes, _| {
        let (_, header) = AddressHeader::NAMES[bytes.len() % AddressHeader::NAMES.len()];
        let parse = |bytes: &[u8]| http::parse(bytes, bytes_max, header, &origins);
        // Every beginning either is told to go on, or ends it; then how much came makes no
        // difference to the kind of answer.
        let decided =
            (0..=bytes.len()).find(|end| !matches!(parse(&bytes[..*end]), Parsed::Incomplete));
        let Some(decided) = decided else {
            assert!(bytes.len() <= bytes_max, "more than the limit is waited for");
            return;
        };
        assert!(decided <= bytes_max + 1, "decided after {decided}");
        match (parse(&bytes[..decided]), parse(bytes)) {
            (Parsed::Request(one), Parsed::Request(other)) => {
                assert_eq!(one.head_bytes, decided);
                assert_eq!(other.head_bytes, decided);
                assert_eq!((one.response, one.forwarded), (other.response, other.forwarded));
            }
            (Parsed::Answer(one), Parsed::Answer(_)) => {
                let answer = String::from_utf8(one).expect("text");
                assert!(answer.starts_with("HTTP/1.1 ") && answer.contains("\r\n\r\n"), "{answer}");
                assert!(answer.len() < 1000);
            }
            (one, other) => panic!("{one:?} becomes {other:?}"),
        }
    });
}

#[test]
fn no_proxy_header_makes_the_parser_panic_and_its_end_does_not_depend_on_what_follows() {
    let binary =
        |fixed: &[u8; 4], rest: &[u8]| [b"\r\n\r\n\0\r\nQUIT\n", &fixed[..], rest].concat();
    let corpus: Vec<Vec<u8>> = vec![
        b"PROXY TCP4 192.0.2.1 198.51.100.255 56324 443\r\nGET /v1 HTTP/1.1\r\n\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 65535 0\r\n".to_vec(),
        b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\nmore".to_vec(),
        binary(b"\x21\x11\x00\x0c", b"\xc0\0\x02\x01\x7f\0\0\x01\x12\x34\x0f\xa0GET /"),
        binary(b"\x21\x21\x00\x2b", &[7; 43]),
        binary(b"\x21\x31\x00\xd8", &[b'x'; 216]),
        binary(b"\x20\x00\x00\x00", b"GET /"),
        binary(b"\x21\x12\x00\x0c", &[7; 12]),
        binary(b"\x21\x11\xff\xff", &[7; 5000]),
    ];
    fuzz(&corpus, |bytes, _| {
        // Every beginning either is told to go on, or settles it for good.
        let settled = (0..=bytes.len())
            .map(|end| proxy_header::parse(&bytes[..end]))
            .enumerate()
            .find(|(_, header)| *header != ProxyHeader::Incomplete);
        let Some((settled_at, header)) = settled else {
            assert!(bytes.len() < PROXY_HEADER_BYTES_MAX, "more than the limit is waited for");
            return;
        };
        assert!(settled_at <= PROXY_HEADER_BYTES_MAX, "settled after {settled_at}");
        assert_eq!(proxy_header::parse(bytes), header, "cut at {settled_at}");
        if let ProxyHeader::Parsed { header_bytes, .. } = header {
            assert_eq!(header_bytes, settled_at, "it takes all of itself and nothing more");
        }
    });
}

/// What comes out of a connection's bytes.
#[derive(Debug, PartialEq)]
struct Seen {
    /// As `Debug` shows them.
    inbound: Vec<String>,
    violation: Option<FrameError>,
}

/// Feeds the pieces as the server does, with its limits checked after each.
fn feed<'a>(pieces: impl Iterator<Item = &'a [u8]>, limits: &Limits) -> Seen {
    feed_in_turn(pieces, limits, |wire| wire)
}

/// The same, by another process after each piece.
fn feed_handed_over<'a>(pieces: impl Iterator<Item = &'a [u8]>, limits: &Limits) -> Seen {
    feed_in_turn(pieces, limits, |wire| {
        let Some(unfinished) = wire.unfinished(limits.frame_bytes_max) else { return wire };
        let (mut next, mut input) = (WebSocket::default(), &unfinished[..]);
        while !input.is_empty() {
            let inbound = next.next(&mut input, limits).expect("no violation");
            assert!(matches!(inbound, None | Some(Inbound::Fragment)), "{inbound:?}");
        }
        next
    })
}

fn feed_in_turn<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    limits: &Limits,
    hand_over: impl Fn(WebSocket) -> WebSocket,
) -> Seen {
    let mut wire = WebSocket::default();
    let mut seen = Seen { inbound: Vec::new(), violation: None };
    for piece in pieces {
        wire = hand_over(wire);
        let mut input = piece;
        while !input.is_empty() {
            let left = input.len();
            match wire.next(&mut input, limits) {
                Ok(Some(inbound)) => {
                    let length = match &inbound {
                        Inbound::Message(Event::Text(text)) => text.len(),
                        Inbound::Message(Event::Binary(payload)) => payload.len(),
                        Inbound::Message(Event::TooLong { beginning, .. }) => {
                            beginning.chars().count()
                        }
                        _ => 0,
                    };
                    assert!(length <= limits.message_bytes_max);
                    seen.inbound.push(format!("{inbound:?}"));
                    if let Inbound::Close(_) = inbound {
                        return seen; // the server throws the rest away
                    }
                }
                Ok(None) => assert!(input.is_empty(), "what was not used is kept"),
                Err(violation) => {
                    seen.violation = Some(violation);
                    return seen;
                }
            }
            assert!(input.len() < left, "no progress");
            // A frame on its way, and the fragments before it, which may have room for as much.
            let most = 2 * (limits.frame_bytes_max + 14) + 2 * limits.message_bytes_max + 4_200;
            assert!(wire.buffered_bytes() <= most, "{} bytes kept", wire.buffered_bytes());
        }
    }
    seen
}

#[test]
fn no_frames_make_the_wire_panic_and_pieces_make_no_difference() {
    let limits = limits();
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    for command in commands() {
        corpus.push(frame(TEXT, command.as_bytes()));
        let (one, other) = command.as_bytes().split_at(command.len() / 2);
        corpus.push(
            [
                frame(TEXT_BEGINS, one),
                frame(0x89, b"between"),
                frame(ENDS, other),
                frame(ENDS, b""),
            ]
            .concat(),
        );
    }
    corpus.push([frame(0x82, b"binary"), frame(0x8a, b""), frame(0x88, b"\x03\xe8bye")].concat());
    corpus.push([frame(TEXT, "ä".repeat(130).as_bytes()), frame(TEXT, &[b'x'; 400])].concat());
    corpus.push([frame(TEXT_BEGINS, &[b'x'; 300]), frame(CONTINUES, &[b'x'; 300])].concat());
    corpus.push([frame(0x88, b""), frame(TEXT, b"after the close")].concat());
    fuzz(&corpus, |bytes, random| {
        let whole = feed(std::iter::once(bytes), &limits);
        assert_eq!(feed(bytes.chunks(1), &limits), whole, "byte by byte");
        for _ in 0..4 {
            let (one, other) = bytes.split_at(random.below(bytes.len() + 1));
            assert_eq!(feed([one, other].into_iter(), &limits), whole, "cut at {}", one.len());
        }
        let size = 1 + random.below(100);
        assert_eq!(feed(bytes.chunks(size), &limits), whole, "in pieces of {size}");
        assert_eq!(feed_handed_over(bytes.chunks(size), &limits), whole, "in pieces of {size}");
    });
    // The corpus itself, at every point.
    for bytes in &corpus {
        let whole = feed(std::iter::once(&bytes[..]), &limits);
        for at in 0..=bytes.len() {
            let (one, other) = bytes.split_at(at);
            assert_eq!(feed([one, other].into_iter(), &limits), whole, "cut at {at}");
            assert_eq!(feed_handed_over([one, other].into_iter(), &limits), whole, "cut at {at}");
        }
    }
}

const PROTOCOL_ERROR: u16 = 1002;
const NOT_UTF8: u16 = 1007;

#[test]
fn bad_frames_are_answered_with_the_close_code_that_names_the_fault() {
    let server = Server::start(&[]);
    let unmasked = b"\x81\x02{}".to_vec();
    let padded = |form: u8, length: &[u8]| [&[TEXT, 0x80 | form], length, &[0; 4], b"{}"].concat();
    let cut_character = "ä".as_bytes();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("text that is not UTF-8", frame(TEXT, b"\"\xff\""), NOT_UTF8),
        ("an encoded surrogate", frame(TEXT, b"\"\xed\xa0\x80\""), NOT_UTF8),
        ("a cut character", frame(TEXT, &cut_character[..1]), NOT_UTF8),
        ("a frame without mask", unmasked, PROTOCOL_ERROR),
        ("a reserved opcode", frame(0x83, b"x"), PROTOCOL_ERROR),
        ("a reserved control opcode", frame(0x8b, b"x"), PROTOCOL_ERROR),
        ("a reserved bit", frame(0xc1, b"{}"), PROTOCOL_ERROR),
        ("a continuation of nothing", frame(ENDS, b"x"), PROTOCOL_ERROR),
        (
            "text inside a text",
            [frame(TEXT_BEGINS, b"{"), frame(TEXT, b"{}")].concat(),
            PROTOCOL_ERROR,
        ),
        ("a ping in fragments", frame(0x09, b"x"), PROTOCOL_ERROR),
        ("a long ping", frame(0x89, &[b'x'; 126]), PROTOCOL_ERROR),
        ("a close of one byte", frame(0x88, b"\x03"), PROTOCOL_ERROR),
        ("a length in two bytes too many", padded(126, &[0, 2]), PROTOCOL_ERROR),
        (
            "a length in eight bytes too many",
            padded(127, &[0, 0, 0, 0, 0, 0, 0, 2]),
            PROTOCOL_ERROR,
        ),
    ];
    for (what, bytes, code) in cases {
        for pieces in [bytes.len(), 1] {
            let mut raw = Raw::upgraded(server.address);
            for piece in bytes.chunks(pieces) {
                raw.send(piece);
            }
            assert_eq!(raw.last_close_code(), code, "{what}");
        }
    }
    // A character may be cut by a fragment's end.
    let mut raw = Raw::upgraded(server.address);
    let text = r#"{"type":"ping","ping":"ä"}"#.as_bytes();
    let middle = text.iter().position(|byte| *byte >= 0x80).expect("it is there") + 1;
    raw.send(&frame(TEXT_BEGINS, &text[..middle]));
    raw.send(&frame(ENDS, &text[middle..]));
    raw.send(&frame(0x88, &1000u16.to_be_bytes()));
    let answer = String::from_utf8_lossy(&raw.drain()).into_owned();
    assert!(answer.contains("\"pong\":\"ä\""), "{answer}");
    exchange(&server, "happy");
}

#[test]
fn bad_json_gets_an_error_and_the_connection_goes_on() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "side");
    let deep = format!("{}{}", "[".repeat(400_000), "]".repeat(400_000));
    let deep_objects = format!("{}1{}", "{\"a\":".repeat(150_000), "}".repeat(150_000));
    for (text, expected) in [
        (deep.clone(), "message must be a JSON object"),
        ("[".repeat(400_000), "message must be "),
        (deep_objects.clone(), "message must not be nested deeper than 128 levels"),
        (
            format!(r#"{{"type":"ping","ping":{deep}}}"#),
            "message must not be nested deeper than 128 levels",
        ),
        ("{\"a\":".repeat(150_000), "message must be valid JSON"),
        ("\0".to_owned(), "message must be valid JSON"),
        ("{\"type\":\"ping\",\"ping\":1}\0".to_owned(), "message must be valid JSON"),
        ("{\"type\":\"a\0\"}".to_owned(), "message must be valid JSON"),
        ("nan".to_owned(), "message must be valid JSON"),
        (String::new(), "message must be valid JSON"),
        (r#"{"type":"\ud800"}"#.to_owned(), "unknown type"),
        (r#"{"type":["ping"]}"#.to_owned(), "unknown type"),
        (r#"{"type":"open","mailbox":"\udc00\ud800"}"#.to_owned(), "open requires 'mailbox' to be"),
        (
            r#"{"type":"claim","nameplate":1e999999999}"#.to_owned(),
            "claim requires 'nameplate' to be",
        ),
        (r#"{"type":"claim","nameplate":"१"}"#.to_owned(), "claim requires 'nameplate' to be"),
    ] {
        client.send_text(&text);
        // Read as text: what comes back of it, other parsers refuse.
        let error = loop {
            let answer = client.socket.read().expect("an answer").into_text().expect("text");
            if answer.contains(r#""type":"error""#) {
                break answer;
            }
            assert!(answer.contains(r#""type":"ack""#), "{answer:.200}");
        };
        let expected = format!(r#""error":"{expected}"#);
        assert!(error.contains(&expected), "{text:.100}: {error:.300}");
    }
    // Its own command comes back to the sender.
    let (deep, deep_objects) = ("[".repeat(127) + &"]".repeat(127), r#"{"a":{"b":[[{}]]}}"#);
    client.send_text(deep_objects);
    let answer = client.socket.read().expect("an answer").into_text().expect("text");
    assert!(answer.contains("\"missing 'type'\"") && answer.contains(deep_objects));
    // What is only odd works.
    client.send_text(&format!(r#"{{"type":"ping","ping":0,"x":[[[["2"]]]],"ping":{deep}}}"#));
    assert_eq!(client.recv()["type"], "ack");
    assert!(
        matches!(client.socket.read(), Ok(tungstenite::Message::Text(text)) if text.contains(&deep))
    );
    client.send_text(r#"{"type":"add","type":"open","mailbox":"nul\u0000 and 💩"}"#);
    client.send_text(
        r#"{"type":"add","phase":"p\u0000","body":"\u0000💩","id":123456789012345678901234567890}"#,
    );
    assert_eq!(
        (client.recv()["type"].take(), client.recv()["type"].take()),
        ("ack".into(), "ack".into())
    );
    let message = client.recv();
    assert_eq!((&message["phase"], &message["body"]), (&json!("p\0"), &json!("\0💩")));
    let directory = server.kill();
    let server = Server::start_in(directory, &[]);
    let replayed = server.bind("app", "side").open("nul\0 and 💩");
    assert_eq!((&replayed[0]["phase"], &replayed[0]["body"]), (&json!("p\0"), &json!("\0💩")));
}

#[test]
fn bad_heads_are_answered_in_http() {
    let server = Server::start(&[]);
    for (head, status) in [
        ("\0\0\0\0", 400),
        ("\u{16}\u{3}\u{1}", 400),
        ("GET\r\n\r\n", 400),
        ("GET /v1 HTTP/1.1 more\r\n\r\n", 400),
        ("GET /v1 HTTP/1.1\r\nno colon\r\n\r\n", 400),
        ("GET /v1 HTTP/1.1\r\nBad Name: x\r\n\r\n", 400),
        ("GET /v1 HTTP/1.2\r\n\r\n", 505),
        ("GET /v2 HTTP/1.1\r\n\r\n", 404),
        ("BREW /v1 HTTP/1.1\r\n\r\n", 405),
        ("GET /v1 HTTP/1.1\r\n\r\n", 200),
        ("GET /v1 HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 200),
    ] {
        for pieces in [head.len(), 1] {
            let mut raw = Raw::connect(server.address);
            for piece in head.as_bytes().chunks(pieces) {
                raw.send(piece);
            }
            assert_eq!(raw.status(), status, "{head:?}");
        }
    }
    // An empty line without its carriage return ends no head, and takes no server down.
    let mut raw = Raw::connect(server.address);
    let early = upgrade("/v1", "").replace("\r\n\r\n", "\r\n\n");
    raw.send(format!("{early}more").as_bytes());
    exchange(&server, "happy"); // by then it is read, and the rest comes on its own
    raw.send(b"\r\n\r\n");
    assert_eq!(raw.status(), 400);
    exchange(&server, "happy");
    for (lines, status) in [(250, 200), (300, 431)] {
        let mut raw = Raw::connect(server.address);
        raw.send(format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(lines)).as_bytes());
        assert_eq!(raw.status(), status, "{lines} lines");
    }
    exchange(&server, "happy");
}
