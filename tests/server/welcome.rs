//! Where the server listens and what it says first: the welcome, and in it the peer's address, as
//! the socket or a trusted proxy gives it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::common::raw::{Raw, upgrade};
use crate::common::{Client, Directory, FREE_PORT, PATIENCE, Server};
use serde_json::{Value, json};

/// The `welcome` object of a new connection with these header lines.
fn welcome_with(server: &Server, headers: &str) -> (Value, u16) {
    let mut raw = Raw::connect(server.address);
    raw.send(upgrade("/v1", headers).as_bytes());
    raw.head();
    let port = raw.stream.local_addr().expect("an address").port();
    (raw.json()["welcome"].clone(), port)
}

/// The address that a new connection with these header lines is told.
fn address_with(server: &Server, headers: &str) -> Value {
    welcome_with(server, headers).0["your-address"].clone()
}

/// Checks that these header lines make no difference.
fn assert_socket_address(server: &Server, headers: &str) {
    let (welcome, port) = welcome_with(server, headers);
    assert_eq!(welcome["your-address"], json!({"ipv4": "127.0.0.1", "port": port}), "{headers}");
}

#[test]
fn by_default_the_welcome_holds_only_the_address() {
    let server = Server::start(&[]);
    let (welcome, port) = welcome_with(&server, "");
    assert_eq!(welcome, json!({"your-address": {"ipv4": "127.0.0.1", "port": port}}));
}

#[test]
fn the_welcome_holds_what_the_operator_sets() {
    let server = Server::start(&[
        "--motd=Hello \"there\"\n\u{e9}",
        "--advertise-version=1.2.3",
        "--signal-error=Go away",
    ]);
    assert_eq!(
        server.operators_welcome(),
        json!({
            "motd": "Hello \"there\"\n\u{e9}",
            "current_cli_version": "1.2.3",
            "error": "Go away",
        })
    );
}

#[test]
fn an_empty_motd_is_sent_and_an_empty_version_or_error_is_not() {
    let server = Server::start(&["--motd=", "--advertise-version=", "--signal-error="]);
    assert_eq!(server.operators_welcome(), json!({"motd": ""}));
}

#[test]
fn a_signalled_error_is_shown_and_service_goes_on() {
    let server = Server::start(&["--signal-error=Go away"]);
    server.bind("app", "s").claim("4");
}

/// A connection to a server on all addresses, over loopback of that family; its address and port.
fn told_over(ip: IpAddr) -> (Value, u16) {
    let server = Server::start(&["--port=tcp:0:interface=\\:\\:"]);
    let mut client = Client::connect((ip, server.address.port()).into());
    let port = client.socket.get_ref().local_addr().expect("an address").port();
    (client.recv()["welcome"]["your-address"].take(), port)
}

#[test]
fn the_address_of_the_socket_is_told_as_ipv4_when_it_is_a_mapped_one() {
    let (address, port) = told_over(Ipv4Addr::LOCALHOST.into());
    assert_eq!(address, json!({"ipv4": "127.0.0.1", "port": port}));
}

#[test]
#[ignore = "needs IPv6"]
fn the_address_of_the_socket_is_told_as_ipv6() {
    let (address, port) = told_over(Ipv6Addr::LOCALHOST.into());
    assert_eq!(address, json!({"ipv6": "::1", "port": port}));
}

#[test]
fn a_proxy_on_this_host_is_believed_by_default() {
    let server = Server::start(&[]);
    for (headers, address) in [
        (
            "X-Real-IP: 192.0.2.7\r\nX-Real-Port: 4711\r\n",
            json!({"ipv4": "192.0.2.7", "port": 4711}),
        ),
        (
            "x-real-ip:192.0.2.7\r\nX-REAL-PORT:  4711 \r\n",
            json!({"ipv4": "192.0.2.7", "port": 4711}),
        ),
        ("X-Real-IP: 2001:db8::7\r\nX-Real-Port: 1\r\n", json!({"ipv6": "2001:db8::7", "port": 1})),
        (
            "X-Real-IP: ::ffff:192.0.2.7\r\nX-Real-Port: 65535\r\n",
            json!({"ipv4": "192.0.2.7", "port": 65_535}),
        ),
        ("X-Real-IP: 192.0.2.7\r\n", json!({"ipv4": "192.0.2.7"})),
        ("X-Real-IP: 2001:DB8:0::7\r\n", json!({"ipv6": "2001:db8::7"})),
    ] {
        assert_eq!(address_with(&server, headers), address, "{headers}");
    }
    assert!(!server.log().iter().any(|line| line.contains("X-Real-")), "{:#?}", server.log());
}

#[test]
fn a_port_alone_is_no_address() {
    assert_socket_address(&Server::start(&[]), "X-Real-Port: 4711\r\n");
}

#[test]
fn a_header_that_is_no_address_is_ignored_with_a_warning() {
    for headers in [
        "X-Real-IP: example.org\r\nX-Real-Port: 4711\r\n",
        "X-Real-IP: \r\n",
        "X-Real-IP: 192.0.2.256\r\n",
        "X-Real-IP: 192.0.2.7, 192.0.2.8\r\n",
        "X-Real-IP: 192.0.2.7\r\nX-Real-IP: 192.0.2.7\r\n",
        "X-Real-IP: 192.0.2.7\r\nx-real-ip: \u{ff}\r\n",
    ] {
        let mut server = Server::start(&[]);
        assert_socket_address(&server, headers);
        assert!(server.wait_for_log("X-Real-IP").contains("WARN"));
    }
}

#[test]
fn a_port_that_is_none_is_left_out_with_a_warning() {
    for port in ["http", "0x10", "65536", "-1", "", "4711\r\nX-Real-Port: 4711"] {
        let mut server = Server::start(&[]);
        let headers = format!("X-Real-IP: 192.0.2.7\r\nX-Real-Port: {port}\r\n");
        assert_eq!(address_with(&server, &headers), json!({"ipv4": "192.0.2.7"}), "{port}");
        assert!(server.wait_for_log("X-Real-Port").contains("WARN"));
    }
}

#[test]
fn only_the_listed_proxies_are_believed() {
    let headers = "X-Real-IP: 192.0.2.7\r\nX-Real-Port: 4711\r\n";
    assert_socket_address(&Server::start(&["--trusted-proxy=10.0.0.0/8"]), headers);
    let server = Server::start(&["--trusted-proxy=10.0.0.0/8", "--trusted-proxy", "127.0.0.1"]);
    assert_eq!(address_with(&server, headers)["ipv4"], "192.0.2.7");
}

fn assert_listens(options: &[&str], count: usize) {
    let server = Server::start(options);
    let addresses = server.logged_addresses();
    assert_eq!(addresses.len(), count, "{addresses:?}");
    server.bind("app", "s").claim("4");
    for mut address in addresses {
        assert_ne!(address.port(), 0);
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into()); // IPv6 sockets take IPv4 as well
        }
        let mut client = Client::connect(address);
        assert_eq!(client.recv()["type"], "welcome");
        client.quiet(json!({"type": "bind", "appid": "app", "side": "s"}));
        let listed = client.one(json!({"type": "list"}));
        assert_eq!(listed["nameplates"], json!([{"id": "4"}]), "{address}");
    }
}

#[test]
fn every_port_that_is_given_is_listened_on_and_logged() {
    assert_listens(&[FREE_PORT, "--port=127.0.0.1:0", "-p", "tcp:0"], 3);
}

#[test]
#[ignore = "needs IPv6"]
fn every_ipv6_port_that_is_given_is_listened_on_and_logged() {
    assert_listens(&[FREE_PORT, "--port", "[::1]:0", "-p", "tcp6:0", "--port=0"], 4);
}

/// The `welcome` object on a unix socket.
fn unix_welcome(mut stream: UnixStream, headers: &str) -> Value {
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.write_all(upgrade("/v1", headers).as_bytes()).expect("send");
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a byte");
        bytes.push(byte[0]);
        // The head has no brace, nor has a short frame's header.
        if let Some(start) = bytes.iter().position(|byte| *byte == b'{')
            && let Ok(message) = serde_json::from_slice::<Value>(&bytes[start..])
        {
            return message["welcome"].clone();
        }
    }
}

#[test]
fn a_unix_socket_has_its_mode_and_believes_its_proxy() {
    let directory = Arc::new(Directory::new());
    let path = directory.file("mailbox.sock");
    let server = Server::start_in(directory, &["--port=unix:mailbox.sock:mode=620"]);
    let metadata = std::fs::metadata(&path).expect("a socket");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o620);
    let connect = || UnixStream::connect(&path).expect("connect");
    assert_eq!(unix_welcome(connect(), ""), json!({"your-address": {}}));
    let headers = "X-Real-IP: 192.0.2.7\r\nX-Real-Port: 4711\r\n";
    assert_eq!(
        unix_welcome(connect(), headers)["your-address"],
        json!({"ipv4": "192.0.2.7", "port": 4711})
    );
    // The socket goes with the server; one that a crash left behind is in nobody's way.
    let directory = server.kill();
    assert!(path.exists());
    let server = Server::start_in(directory, &["--port=unix:mailbox.sock"]);
    assert_eq!(unix_welcome(connect(), ""), json!({"your-address": {}}));
    server.stop();
    assert!(!path.exists());
}

#[test]
fn after_a_welcome_with_an_error_a_client_may_leave_without_a_bind() {
    let server = Server::start(&["--signal-error=too old"]);
    let mut client = server.connect();
    assert_eq!(client.error(json!({"type": "list"})), "must bind first");
    assert_eq!(client.error(json!({"type": "release"})), "must bind first");
    assert_eq!(client.one(json!({"type": "close", "mood": "errory"}))["type"], "closed");
    client.quiet(json!({"type": "bind", "appid": "app", "side": "s"}));
    let error = "close without mailbox must follow open";
    assert_eq!(client.error(json!({"type": "close"})), error);
    let server = Server::start(&[]);
    assert_eq!(server.connect().error(json!({"type": "close"})), "must bind first");
}
