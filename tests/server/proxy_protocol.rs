//! The PROXY protocol: a proxy sends its client's address in a header before anything else. Refused
//! are headers from peers that are not trusted, and malformed ones.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use crate::common::raw::{Raw, answer_to, upgrade};
use crate::common::{Client, FREE_PORT, PATIENCE, Server, Signal};
use serde_json::{Value, json};

/// A listener for a proxy, besides the ordinary one that the test helpers use.
const PORTS: [&str; 2] = ["--port=haproxy:tcp:0:interface=127.0.0.1", FREE_PORT];

fn start(options: &[&str]) -> (Server, SocketAddr) {
    let server = Server::start(&[&PORTS[..], options].concat());
    let proxied = server.address;
    (server, proxied)
}

/// A binary header with addresses of a family.
fn v2(version_command: u8, family_transport: u8, addresses: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([version_command, family_transport]);
    header.extend((addresses.len() as u16).to_be_bytes());
    header.extend(addresses);
    header
}

const PROXY: u8 = 0x21;
const LOCAL: u8 = 0x20;
const INET: u8 = 0x11;
const INET6: u8 = 0x21;
const UNIX: u8 = 0x31;
const DATAGRAM: u8 = 0x12;

/// From 192.0.2.1, port 4660.
const ADDRESSES: [u8; 12] = [192, 0, 2, 1, 127, 0, 0, 1, 0x12, 0x34, 0x0f, 0xa0];

fn from(ip: &str) -> Vec<u8> {
    format!("PROXY TCP4 {ip} 127.0.0.1 4660 4000\r\n").into_bytes()
}

/// What the welcome says of the peer, after these bytes.
fn address_after(proxied: SocketAddr, bytes: &[u8], pieces: usize) -> (Value, Raw) {
    let mut raw = Raw::connect(proxied);
    for piece in bytes.chunks(pieces) {
        raw.send(piece);
    }
    let head = raw.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{}: {head}", bytes.escape_ascii());
    (raw.json()["welcome"]["your-address"].take(), raw)
}

fn with_request(header: &[u8]) -> Vec<u8> {
    [header, upgrade("/v1", "").as_bytes()].concat()
}

#[test]
fn the_address_in_the_header_is_the_peers() {
    let (_server, proxied) = start(&[]);
    let v6 = [&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[7], &[0; 16], &[0, 80, 0, 81]].concat();
    let mapped = [&[0; 10][..], &[0xff, 0xff, 192, 0, 2, 9], &[0; 16], &[0, 80, 0, 81]].concat();
    let extended =
        [&ADDRESSES[..], &[0x02, 0, 3, b'a', b'.', b'b', 0x03, 0, 4, 0, 0, 0, 0]].concat();
    for (header, expected) in [
        (from("192.0.2.1"), json!({"ipv4": "192.0.2.1", "port": 4660})),
        (
            b"PROXY TCP6 2001:db8::7 ::1 80 81\r\n".to_vec(),
            json!({"ipv6": "2001:db8::7", "port": 80}),
        ),
        (
            b"PROXY TCP6 2001:db8::9 192.0.2.1 51512 443\r\n".to_vec(),
            json!({"ipv6": "2001:db8::9", "port": 51512}),
        ),
        (
            b"PROXY TCP6 ::ffff:192.0.2.9 ::1 80 81\r\n".to_vec(),
            json!({"ipv4": "192.0.2.9", "port": 80}),
        ),
        (v2(PROXY, INET, &ADDRESSES), json!({"ipv4": "192.0.2.1", "port": 4660})),
        (v2(PROXY, INET, &extended), json!({"ipv4": "192.0.2.1", "port": 4660})),
        (v2(PROXY, INET6, &v6), json!({"ipv6": "2001:db8::7", "port": 80})),
        (v2(PROXY, INET6, &mapped), json!({"ipv4": "192.0.2.9", "port": 80})),
    ] {
        let bytes = with_request(&header);
        for pieces in [bytes.len(), 1, header.len()] {
            assert_eq!(address_after(proxied, &bytes, pieces).0, expected);
        }
    }
}

#[test]
fn a_proxy_that_speaks_for_itself_or_does_not_know_is_the_peer() {
    let (_server, proxied) = start(&[]);
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(),
        v2(LOCAL, 0, b""),
        v2(LOCAL, INET, &ADDRESSES),
        v2(PROXY, 0, b""),
        v2(PROXY, UNIX, &[b'x'; 216]),
    ] {
        let bytes = with_request(&header);
        let (address, raw) = address_after(proxied, &bytes, bytes.len());
        let port = raw.stream.local_addr().expect("an address").port();
        assert_eq!(address, json!({"ipv4": "127.0.0.1", "port": port}));
        // As ever, it may then say in HTTP for whom it speaks.
        let request = upgrade("/v1", "X-Real-IP: 192.0.2.77\r\n");
        let bytes = [&header, request.as_bytes()].concat();
        let (address, _) = address_after(proxied, &bytes, bytes.len());
        assert_eq!(address, json!({"ipv4": "192.0.2.77"}));
    }
}

#[test]
fn the_header_works_on_a_unix_socket() {
    let server = Server::start(&["--port=haproxy:unix:x.sock:mode=660", FREE_PORT]);
    let mode = fs::metadata(server.file("x.sock")).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let mut stream = UnixStream::connect(server.file("x.sock")).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.write_all(&with_request(&from("192.0.2.1"))).expect("send");
    let mut seen = String::new();
    while !seen.ends_with('}') {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a welcome");
        seen.push(char::from(byte[0]));
    }
    assert!(seen.contains("101 ") && seen.contains("192.0.2.1"), "{seen}");
}

#[test]
fn what_is_no_header_is_answered_with_400_and_one_line_and_counted() {
    let (mut server, proxied) = start(&[]);
    let too_long = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
    for (bytes, line) in [
        (upgrade("/v1", "").into_bytes(), "a PROXY header must come first here"),
        (b"\x16\x03\x01\x02\x00".to_vec(), "must come first"),
        (b"PROXY TCP4 nobody 127.0.0.1 1 2\r\n".to_vec(), "PROXY header: the line must be"),
        (b"PROXY UNKNOWN\n".to_vec(), "CR LF"),
        (too_long, "at most 107 bytes"),
        (v2(PROXY, DATAGRAM, &ADDRESSES), "datagrams"),
        (v2(PROXY, INET, &ADDRESSES[1..]), "too short"),
        (v2(0x11, INET, &ADDRESSES), "version"),
        (v2(PROXY, 0x51, &ADDRESSES), "family"),
        (v2(PROXY, INET, &[0; 5000]), "too long"),
    ] {
        let answer = answer_to(proxied, &bytes);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        let body = answer.split("\r\n\r\n").nth(1).expect("a body");
        assert!(body.contains(line) && body.lines().count() == 1, "{body:?}");
    }
    server.wait_for_log("limits met: PROXY headers that cannot be read");
    // The ordinary listener does not know it, and the server is well.
    let ordinary = server.logged_addresses()[1];
    let answer = answer_to(ordinary, with_request(&from("192.0.2.1")));
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(Client::connect(ordinary).recv()["type"], "welcome");
}

#[test]
fn whoever_is_no_trusted_proxy_is_answered_with_403_and_counted() {
    let (mut server, proxied) = start(&["--trusted-proxy=192.0.2.0/24"]);
    for bytes in [with_request(&from("192.0.2.1")), upgrade("/v1", "").into_bytes(), Vec::new()] {
        let answer = answer_to(proxied, &bytes);
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\nonly trusted proxies may connect here\n"), "{answer}");
    }
    server.wait_for_log("limits met: connections to a proxy's listener from elsewhere");
    let ordinary = server.logged_addresses()[1];
    assert_eq!(Client::connect(ordinary).recv()["type"], "welcome");
}

#[test]
fn a_header_and_its_request_have_the_time_of_a_handshake_together() {
    let (_server, proxied) = start(&["--limit-handshake-seconds=0.3"]);
    let whole = with_request(&from("192.0.2.1"));
    let header = from("192.0.2.1").len();
    for end in [0, 3, header - 1, header, whole.len() - 1] {
        let answer = answer_to(proxied, &whole[..end]);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{end}: {answer}");
    }
}

#[test]
fn a_connection_in_its_header_is_told_when_the_server_stops() {
    let (mut server, proxied) = start(&[]);
    let mut raw = Raw::connect(proxied);
    raw.send(b"PROXY TC");
    // By the answer to a later connection the server knows of the one before it.
    drop(Client::connect(server.logged_addresses()[1]));
    server.signal(Signal::TERM);
    assert!(raw.rest().starts_with("HTTP/1.1 503 "));
    drop(raw);
    assert!(server.wait().success());
}

#[test]
fn limits_by_address_hold_for_the_address_in_the_header() {
    let (mut server, proxied) = start(&["--limit-address-connections=1", "--admin=0"]);
    for round in 0..2 {
        let bytes = with_request(&from("192.0.2.1"));
        let (_, one) = address_after(proxied, &bytes, bytes.len());
        // Counted as soon as the header is there.
        for bytes in [&bytes[..], &from("192.0.2.1")] {
            let answer = answer_to(proxied, bytes);
            assert!(answer.starts_with("HTTP/1.1 429 "), "{round}: {answer}");
            assert!(answer.contains("too many connections from your address"), "{answer}");
        }
        let bytes = with_request(&from("192.0.2.2"));
        let (_, other) = address_after(proxied, &bytes, bytes.len());
        for mut raw in [one, other] {
            raw.end_of_input();
            raw.drain();
        }
        server.wait_for_connections(0);
    }
    server.wait_for_log("connections of one address");
}

/// As tor writes it (`HiddenServiceExportCircuitID haproxy`): the number of the circuit in two
/// parts, and its lower one as the port.
fn circuit(number: u32) -> Vec<u8> {
    let (high, low) = (number >> 16, number & 0xffff);
    format!("PROXY TCP6 fc00:dead:beef:4dad::{high:x}:{low:x} ::1 {low} 80\r\n").into_bytes()
}

const ONION_NETWORK: &str = "--onion-network=fc00:dead:beef:4dad::/64";

/// How many of these are accepted, and kept open.
fn accepted(proxied: SocketAddr, headers: impl Iterator<Item = Vec<u8>>) -> Vec<Raw> {
    let connect = |header: Vec<u8>| {
        let mut raw = Raw::connect(proxied);
        raw.send(&with_request(&header));
        raw.head().starts_with("HTTP/1.1 101 ").then_some(raw)
    };
    headers.filter_map(connect).collect()
}

#[test]
fn the_circuits_of_an_onion_service_count_each_alone_and_all_together() {
    let (_server, proxied) = start(&[ONION_NETWORK]);
    assert_eq!(accepted(proxied, (0..300).map(circuit)).len(), 300);

    // One address may have 2, so all circuits 32.
    let (server, proxied) = start(&[ONION_NETWORK, "--limit-address-connections=2", "--admin=0"]);
    for _ in 0..2 {
        let of_one = accepted(proxied, [0x1_0001; 5].into_iter().map(circuit));
        assert_eq!(of_one.len(), 2);
        let all = accepted(proxied, (0x1_0001..0x1_0065).map(circuit));
        assert_eq!(of_one.len() + all.len(), 32);
        let others = ["fc00:dead:beef:4dae::1", "2001:db8::1"];
        let others = others.map(|ip| format!("PROXY TCP6 {ip} ::1 1 80\r\n").into_bytes());
        let others = accepted(proxied, others.into_iter().chain([from("192.0.2.1")]));
        assert_eq!(others.len(), 3, "they have what they have without circuits");
        drop((of_one, all, others));
        server.wait_for_connections(0);
    }
}

#[test]
fn an_onion_network_of_one_address_counts_it_once() {
    for network in ["fc00:dead:beef:4dad::1:1", "fc00:dead:beef:4dad::1:1/128"] {
        let option = format!("--onion-network={network}");
        let (_server, proxied) = start(&[&option, "--limit-address-connections=2"]);
        assert_eq!(accepted(proxied, [0x1_0001; 5].into_iter().map(circuit)).len(), 2);
    }
}

#[test]
fn a_header_inside_the_request_counts_only_from_an_address_that_is_trusted_itself() {
    let (_server, proxied) = start(&[
        "--trusted-proxy=127.0.0.0/8",
        "--trusted-proxy=192.0.2.1",
        "--limit-address-connections=1",
    ]);
    let request = upgrade("/v1", "X-Real-IP: 203.0.113.5\r\nX-Real-Port: 5\r\n");
    let after = |ip: &str| {
        let bytes = [from(ip), request.clone().into_bytes()].concat();
        address_after(proxied, &bytes, bytes.len())
    };
    let first = after("192.0.2.1");
    assert_eq!(first.0, json!({"ipv4": "203.0.113.5", "port": 5}));
    let second = after("192.0.2.2");
    assert_eq!(second.0, json!({"ipv4": "192.0.2.2", "port": 4660}));
    // Whom the inner proxy speaks for is counted, not the proxy.
    let bytes = [from("192.0.2.1"), request.clone().into_bytes()].concat();
    assert!(answer_to(proxied, &bytes).starts_with("HTTP/1.1 429 "));
}
