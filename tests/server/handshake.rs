//! From the first byte to the upgrade: plain HTTP answers, bad and slow request heads, and what
//! the WebSocket handshake says. Frames are the subject of `frames.rs`, the peer's address and the
//! welcome of `welcome.rs`.

use std::time::{Duration, Instant};

use crate::common::raw::{ACCEPT, KEY, PING, PONG, Raw, TEXT, answer_to, frame, upgrade};
use crate::common::{PATIENCE, Server, eventually};
use serde_json::json;

/// Checks an answer that is not an upgrade: its status, and one line of text that says something.
fn assert_refused(answer: &str, status: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer:?}");
    let length = format!("\r\nContent-Length: {}\r\n", body.len());
    assert!(format!("{head}\r\n").contains(&length), "{answer:?}");
    assert!(head.contains("\r\nContent-Type: text/plain"), "{answer:?}");
    assert!(body.len() > 1 && body.ends_with('\n') && body.lines().count() == 1, "{answer:?}");
}

/// An upgrade request with one of its lines replaced.
fn upgrade_with(line: &str, replacement: &str) -> String {
    let request = upgrade("/v1", "");
    assert!(request.contains(line));
    request.replace(line, replacement)
}

#[test]
fn get_of_the_root_says_what_this_is() {
    let server = Server::start(&[]);
    let answer = answer_to(server.address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert_eq!(body, "Wormhole Relay\n");
    let mut lines: Vec<&str> = head.lines().collect();
    assert_eq!(lines.remove(0), "HTTP/1.1 200 OK");
    lines.sort();
    let server = concat!("Server: wormhole-mailbox/", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        lines,
        ["Connection: close", "Content-Length: 15", "Content-Type: text/plain", server]
    );
}

#[test]
fn head_of_the_root_says_the_same_without_the_body() {
    let server = Server::start(&[]);
    let get = answer_to(server.address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = answer_to(server.address, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(get, format!("{head}Wormhole Relay\n"));
}

#[test]
fn the_root_may_have_a_query() {
    let server = Server::start(&[]);
    for target in ["/?x=y", "http://h?x=/v1", "http://h"] {
        let answer = answer_to(server.address, format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(answer.ends_with("\r\n\r\nWormhole Relay\n"), "{target}: {answer}");
    }
}

#[test]
fn the_endpoint_without_an_upgrade_says_what_it_is() {
    let server = Server::start(&[]);
    for target in ["/v1", "/v1/", "/v1?x=y"] {
        let answer = answer_to(server.address, format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_refused(&answer, "200");
        assert!(
            answer.ends_with("\r\n\r\nWormhole Relay: this is a WebSocket Endpoint\n"),
            "{answer}"
        );
        let head = answer_to(server.address, format!("HEAD {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(answer.starts_with(&head) && head.ends_with("\r\n\r\n"), "{head}");
    }
}

#[test]
fn an_upgrade_without_a_path_names_the_path() {
    let server = Server::start(&[]);
    for path in ["/", "/?x"] {
        let answer = answer_to(server.address, upgrade(path, ""));
        assert!(
            answer.starts_with("HTTP/1.1 404 Not Found: the WebSocket is at /v1\r\n"),
            "{answer}"
        );
        assert_refused(&answer, "404");
    }
}

#[test]
fn an_unknown_path_is_404() {
    let server = Server::start(&[]);
    for target in [
        "/v2",
        "/v12",
        "/favicon.ico",
        "/V1",
        "//v1",
        "/a://h/v1",
        "://h/v1",
        "/%2fv1",
        "/v1%2f",
        "/%561",
    ] {
        let plain = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        for request in [plain, upgrade(target, "")] {
            let answer = answer_to(server.address, &request);
            assert_refused(&answer, "404");
            // Clients show nothing but the phrase.
            assert!(answer.lines().next().is_some_and(|line| line.contains("/v1")), "{answer}");
        }
    }
}

#[test]
fn another_method_is_405() {
    let server = Server::start(&[]);
    for request in [
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        "POST /v1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "DELETE /v1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let answer = answer_to(server.address, request);
        assert_refused(&answer, "405");
        assert!(answer.contains("\r\nAllow: GET, HEAD\r\n"), "{answer}");
    }
}

#[test]
fn another_http_version_is_505() {
    let server = Server::start(&[]);
    for request in ["GET / HTTP/1.2\r\n\r\n", "GET /v1 HTTP/2.0\r\n\r\n", "GET / HTTP/0.9\r\n\r\n"]
    {
        assert_refused(&answer_to(server.address, request), "505");
    }
    // What a client of HTTP/2 with prior knowledge begins with.
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    assert_refused(&answer_to(server.address, preface), "505");
}

#[test]
fn http_1_0_works_like_1_1() {
    let server = Server::start(&[]);
    // A load balancer's check, and a proxy that speaks 1.0 to the server behind it.
    let answer = answer_to(server.address, "GET / HTTP/1.0\r\n\r\n");
    assert_refused(&answer, "200");
    assert!(answer.ends_with("\r\n\r\nWormhole Relay\n"), "{answer}");
    assert_refused(&answer_to(server.address, "GET /v1 HTTP/1.0\r\n\r\n"), "200");
    assert_refused(&answer_to(server.address, "GET /v2 HTTP/1.0\r\n\r\n"), "404");
    let mut raw = Raw::connect(server.address);
    raw.send(upgrade("/v1", "").replace("HTTP/1.1", "HTTP/1.0").as_bytes());
    assert!(raw.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(raw.json()["type"], "welcome");
}

#[test]
fn header_lists_may_be_spread_over_lines_and_padded_with_any_blanks() {
    let server = Server::start(&[]);
    for (line, replacement) in [
        ("Connection: Upgrade\r\n", "Connection: keep-alive\r\nConnection: Upgrade\r\n"),
        ("Connection: Upgrade\r\n", "Connection: Upgrade\r\nX: y\r\nConnection: close\r\n"),
        ("Connection: Upgrade\r\n", "Connection:\tkeep-alive\t ,\t upgrade  \r\n"),
        ("Connection: Upgrade\r\n", "Connection: ,,Upgrade,\r\n"),
        ("Upgrade: websocket\r\n", "Upgrade: h2c\r\nUpgrade: websocket\r\n"),
        ("Upgrade: websocket\r\n", "Upgrade:websocket \t\r\n"),
        ("Sec-WebSocket-Version: 13\r\n", "Sec-WebSocket-Version:  \t13\t\r\n"),
    ] {
        let mut raw = Raw::connect(server.address);
        raw.send(upgrade_with(line, replacement).as_bytes());
        assert!(raw.head().starts_with("HTTP/1.1 101 "), "{replacement:?}");
    }
}

#[test]
fn a_key_is_what_decodes_to_16_bytes() {
    let server = Server::start(&[]);
    // The second is an example of RFC 6455 itself; its last digit has bits that encode nothing.
    for key in ["AQIDBAUGBwgJCgsMDQ4PEA==", "AQIDBAUGBwgJCgsMDQ4PEC==", "++++++++++++++++++++//=="]
    {
        let mut raw = Raw::connect(server.address);
        raw.send(upgrade_with(KEY, key).as_bytes());
        let head = raw.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{key}: {head}");
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        assert!(head.contains(&format!(": {accept}\r\n")), "{key}: {head}");
    }
    let two = format!("{KEY}\r\nSec-WebSocket-Key: {KEY}");
    for key in ["AQIDBAUGBwgJCgsMDQ4PEA", "AQIDBAUGBwgJCgsMDQ4P", "AQIDBAUGBwgJCgsMDQ4-_A==", &two]
    {
        assert_refused(&answer_to(server.address, upgrade_with(KEY, key)), "400");
    }
}

#[test]
fn a_bare_line_feed_ends_no_line() {
    let server = Server::start(&[]);
    for request in [
        "GET / HTTP/1.1\nHost: x\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\nX-Real-IP: 192.0.2.1\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\n\n".to_owned(),
        "GET / HTTP/1.1\n\n".to_owned(),
        upgrade("/v1", "X: y\nX-Real-IP: 192.0.2.1\r\n"),
    ] {
        assert_refused(&answer_to(server.address, &request), "400");
    }
}

#[test]
fn a_bad_upgrade_is_400_and_says_what_is_wrong() {
    let server = Server::start(&[]);
    for (line, replacement, named) in [
        ("Upgrade: websocket\r\n", "Upgrade: h2c\r\n", "Upgrade"),
        ("Connection: Upgrade\r\n", "Connection: close\r\n", "Connection"),
        ("Connection: Upgrade\r\n", "", "Connection"),
        ("Host: localhost\r\n", "", "Host"),
        ("Sec-WebSocket-Version: 13\r\n", "Sec-WebSocket-Version: 8\r\n", "Sec-WebSocket-Version"),
        ("Sec-WebSocket-Version: 13\r\n", "", "Sec-WebSocket-Version"),
        (&format!("Sec-WebSocket-Key: {KEY}\r\n"), "", "Sec-WebSocket-Key"),
        (KEY, "short", "Sec-WebSocket-Key"),
    ] {
        let answer = answer_to(server.address, upgrade_with(line, replacement));
        assert_refused(&answer, "400");
        let body = answer.split_once("\r\n\r\n").expect("a head").1;
        assert!(body.contains(named), "{line:?} → {replacement:?}: {body}");
    }
}

#[test]
fn one_empty_line_may_stand_before_the_request_line() {
    let server = Server::start(&[]);
    let answer = answer_to(server.address, "\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_refused(&answer, "200");
    assert_refused(&answer_to(server.address, "\r\nGET / HTTP/1.2\r\n\r\n"), "505");
    for byte_by_byte in [false, true] {
        let mut raw = Raw::connect(server.address);
        let mut request = format!("\r\n{}", upgrade("/v1", "")).into_bytes();
        request.extend(frame(PING, b"at once"));
        request.chunks(if byte_by_byte { 1 } else { request.len() }).for_each(|it| raw.send(it));
        assert!(raw.head().starts_with("HTTP/1.1 101 "));
        assert_eq!(raw.json()["type"], "welcome");
        assert_eq!(raw.frame(), (PONG, b"at once".to_vec()));
    }
    for beginning in ["\r\n\r\n", "\n", "\r", "\r\n\n"] {
        let request = format!("{beginning}GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_refused(&answer_to(server.address, request), "400");
    }
}

#[test]
fn an_answer_to_head_has_no_body_whatever_it_says() {
    let server = Server::start(&["--websocket-protocol-option=openHandshakeTimeout=0.5"]);
    for (request, status) in [
        ("HEAD / HTTP/1.1\r\n\r\n".to_owned(), "200"),
        ("HEAD /v1 HTTP/1.0\r\n\r\n".to_owned(), "200"),
        ("HEAD /v2 HTTP/1.1\r\n\r\n".to_owned(), "404"),
        (upgrade("/v2", "").replace("GET", "HEAD"), "404"),
        (upgrade("/v1", "").replace("GET", "HEAD"), "200"),
        ("HEAD / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), "400"),
        ("\r\nHEAD / HTTP/1.1\r\nHost: x\n\r\n".to_owned(), "400"),
        ("HEAD /".to_owned(), "408"),
        ("HEAD /v1 HTTP/1.1\r\nHost: x\r\n".to_owned(), "408"),
        (format!("HEAD /{}", "x".repeat(20_000)), "431"),
        ("HEAD / HTTP/2.0\r\n\r\n".to_owned(), "505"),
    ] {
        let answer = answer_to(server.address, &request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
        assert!(answer.contains("\r\nContent-Length: "), "{request:?}: {answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{request:?}: {answer}");
    }
    // Another method that begins in the same way.
    assert_refused(&answer_to(server.address, "HEADS / HTTP/1.1\r\n\r\n"), "405");
}

#[test]
fn what_is_no_http_is_400() {
    let server = Server::start(&[]);
    for request in ["nonsense\r\n\r\n", "GET /\r\n\r\n", "\r\n\r\n", "GET  / HTTP/1.1\r\n\r\n"] {
        assert_refused(&answer_to(server.address, request), "400");
    }
    let bad_header = upgrade_with("Host: localhost\r\n", "no colon\r\n");
    assert_refused(&answer_to(server.address, &bad_header), "400");
    for target in ["/v1#part", "/v1?x=y#", "/#part"] {
        assert_refused(&answer_to(server.address, upgrade(target, "")), "400");
    }
}

#[test]
fn a_tls_hello_is_400_at_once() {
    let server = Server::start(&[]);
    let mut raw = Raw::connect(server.address);
    // The hello has no end of line for a long time: nothing may wait for one.
    raw.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    assert_refused(&raw.rest(), "400");
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let server = Server::start(&[]);
    for (request, status) in [
        (upgrade("/v1", ""), "101"),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "200"),
        ("GET /v1 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "200"),
    ] {
        let mut raw = Raw::connect(server.address);
        for byte in request.as_bytes() {
            raw.send(&[*byte]);
        }
        let head = raw.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
}

#[test]
fn a_head_that_is_too_large_is_431() {
    let server = Server::start(&[]);
    let fits = upgrade("/v1", &format!("X-Padding: {}\r\n", "x".repeat(16_000)));
    let mut raw = Raw::connect(server.address);
    raw.send(fits.as_bytes());
    assert!(raw.head().starts_with("HTTP/1.1 101 "));
    let whole = upgrade("/v1", &format!("X-Padding: {}\r\n", "x".repeat(16_384)));
    assert_refused(&answer_to(server.address, &whole), "431");
    let many = upgrade("/v1", &"X-Padding: x\r\n".repeat(245));
    let mut raw = Raw::connect(server.address);
    raw.send(many.as_bytes());
    assert!(raw.head().starts_with("HTTP/1.1 101 "), "250 lines");
    let endless = format!("GET /v1 HTTP/1.1\r\n{}", "X-Padding: x\r\n".repeat(2_000));
    assert_refused(&answer_to(server.address, &endless), "431");
    let endless_line = format!("GET /{}", "x".repeat(20_000));
    assert_refused(&answer_to(server.address, &endless_line), "431");
}

#[test]
fn a_head_that_takes_too_long_is_408() {
    let server = Server::start(&["--websocket-protocol-option=openHandshakeTimeout=0.5"]);
    let mut upgraded = Raw::open(server.address);
    for beginning in ["", "G", "GET /v1 HTTP/1.1\r\nHost: x\r\n"] {
        assert_refused(&answer_to(server.address, beginning), "408");
    }
    // Who is past the handshake has all the time in the world.
    upgraded.send(&frame(PING, b"still here"));
    assert_eq!(upgraded.frame(), (PONG, b"still here".to_vec()));
}

#[test]
fn a_head_that_trickles_gets_no_more_time() {
    let server = Server::start(&["--websocket-protocol-option=openHandshakeTimeout=0.5"]);
    let mut raw = Raw::connect(server.address);
    raw.stream.set_read_timeout(Some(Duration::from_millis(20))).expect("timeout");
    raw.send(b"GET /v1 HTTP/1.1\r\n");
    let started = Instant::now();
    while raw.stream.peek(&mut [0]).is_err() {
        raw.send(b"X: x\r\n");
        assert!(started.elapsed() < PATIENCE);
    }
    raw.stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    assert_refused(&raw.rest(), "408");
}

#[test]
fn the_handshake_proves_the_key_and_negotiates_nothing() {
    let server = Server::start(&[]);
    let mut raw = Raw::connect(server.address);
    let offers = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n\
                  Sec-WebSocket-Protocol: chat, superchat\r\n";
    raw.send(upgrade("/v1", offers).as_bytes());
    let head = raw.head();
    assert!(head.contains(&format!(": {ACCEPT}\r\n")), "{head}");
    let mut names: Vec<String> = head
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.to_ascii_lowercase()))
        .collect();
    names.sort();
    assert_eq!(names, ["connection", "sec-websocket-accept", "server", "upgrade"]);
    assert_eq!(raw.json()["type"], "welcome");
}

#[test]
fn header_names_and_values_of_the_handshake_are_case_insensitive() {
    let server = Server::start(&[]);
    let mut raw = Raw::connect(server.address);
    let request = upgrade("/v1", "")
        .replace("Upgrade: websocket", "UPGRADE: WebSocket")
        .replace("Connection: Upgrade", "connection: keep-alive, upgrade")
        .replace("Sec-WebSocket", "sec-websocket");
    raw.send(request.as_bytes());
    assert!(raw.head().starts_with("HTTP/1.1 101 "));
}

#[test]
fn the_endpoint_has_subpaths_queries_and_an_absolute_form() {
    let server = Server::start(&[]);
    for target in [
        "/v1",
        "/v1/",
        "/v1/anything",
        "/v1?x=y",
        "/v1/?x=y/z",
        "/v1?x=http://h/y",
        "http://localhost/v1",
        "ws://h/v1",
        "WSS://h:443/v1?x=http://h/y",
        "/v%31",
        "/%761/",
        "/%76%31?x=y",
    ] {
        let mut raw = Raw::connect(server.address);
        raw.send(upgrade(target, "").as_bytes());
        let head = raw.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{target}: {head}");
        assert_eq!(raw.json()["type"], "welcome");
    }
}

#[test]
fn frames_may_follow_the_head_in_the_same_packet() {
    let server = Server::start(&[]);
    let mut raw = Raw::connect(server.address);
    let mut bytes = upgrade("/v1", "").into_bytes();
    for number in 0..3 {
        let ping = json!({"type": "ping", "ping": number}).to_string();
        bytes.extend(frame(TEXT, ping.as_bytes()));
    }
    raw.send(&bytes);
    raw.head();
    assert_eq!(raw.json()["type"], "welcome");
    for number in 0..3 {
        assert_eq!(raw.json()["type"], "ack");
        assert_eq!(raw.json()["pong"], number);
    }
}

#[test]
fn any_origin_is_welcome_by_default() {
    let server = Server::start(&[]);
    for origin in ["null", "https://example.org", "moz-extension://x", ""] {
        let mut raw = Raw::connect(server.address);
        raw.send(upgrade("/v1", &format!("Origin: {origin}\r\n")).as_bytes());
        assert!(raw.head().starts_with("HTTP/1.1 101 "), "{origin}");
    }
}

#[test]
fn an_operator_may_list_origins_and_who_has_none_is_no_browser() {
    let server = Server::start(&[
        r#"--websocket-protocol-option=allowedOrigins=["https://example.org", "http://localhost:*"]"#,
    ]);
    for allowed in ["Origin: https://example.org\r\n", "Origin: http://localhost:8080\r\n", ""] {
        let mut raw = Raw::connect(server.address);
        raw.send(upgrade("/v1", allowed).as_bytes());
        assert!(raw.head().starts_with("HTTP/1.1 101 "), "{allowed}");
    }
    for refused in ["null", "https://example.org.evil", "http://example.org"] {
        let request = upgrade("/v1", &format!("Origin: {refused}\r\n"));
        assert_refused(&answer_to(server.address, &request), "403");
    }
}

#[test]
fn one_more_than_max_connections_is_told_so_and_a_place_that_is_free_is_given_again() {
    let server = Server::start(&["--websocket-protocol-option=maxConnections=2", "--admin=0"]);
    for _ in 0..2 {
        // Of the round before, the server learns by and by that the last request has gone.
        server.wait_for_connections(0);
        let (one, mut two) = (server.connect(), server.connect());
        for _ in 0..2 {
            assert_refused(&Raw::connect(server.address).rest(), "503");
        }
        assert_eq!(two.one(json!({"type": "ping", "ping": 1}))["pong"], 1);
        drop(one);
        // The server learns of the end by and by.
        eventually("a place is free", || {
            let answer = answer_to(server.address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            answer.starts_with("HTTP/1.1 200 ")
        });
        two.socket.close(None).expect("close");
        while two.socket.read().is_ok() {}
        drop(two);
        server.wait_for_connections(0);
    }
}
