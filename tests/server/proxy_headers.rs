//! `--proxy-header`: which header of a trusted proxy names the client's address. How its lists are
//! read is tried in the unit tests of `codec::forwarded`.

use crate::common::Server;
use crate::common::raw::{Raw, upgrade};
use serde_json::{Value, json};

/// The address in the welcome after an upgrade with these header lines.
fn address_with(server: &Server, headers: &str) -> Value {
    let mut raw = Raw::connect(server.address);
    raw.send(upgrade("/v1", headers).as_bytes());
    assert!(raw.head().starts_with("HTTP/1.1 101 "));
    raw.json()["welcome"]["your-address"].take()
}

#[test]
fn only_the_header_that_is_named_is_looked_at() {
    let headers = "X-Real-IP: 192.0.2.1\r\nX-Real-Port: 1\r\n\
                   X-Forwarded-For: 203.0.113.9, 192.0.2.2:2\r\n\
                   Forwarded: for=203.0.113.9, for=\"[2001:db8::3]:3\"\r\n";
    for (header, expected) in [
        ("x-real-ip", json!({"ipv4": "192.0.2.1", "port": 1})),
        ("x-forwarded-for", json!({"ipv4": "192.0.2.2", "port": 2})),
        ("X-Forwarded-For", json!({"ipv4": "192.0.2.2", "port": 2})),
        ("forwarded", json!({"ipv6": "2001:db8::3", "port": 3})),
    ] {
        let server = Server::start(&[&format!("--proxy-header={header}")]);
        assert_eq!(address_with(&server, headers), expected, "{header}");
        assert!(!server.log().iter().any(|line| line.contains("WARN")), "{:#?}", server.log());
    }
}

#[test]
fn a_chain_of_trusted_proxies_is_followed_to_the_client() {
    let server = Server::start(&[
        "--proxy-header=x-forwarded-for",
        "--trusted-proxy=127.0.0.1",
        "--trusted-proxy=198.51.100.0/24",
    ]);
    let chain = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 192.0.2.2, 198.51.100.7\r\n";
    assert_eq!(address_with(&server, chain), json!({"ipv4": "192.0.2.2"}));
}

#[test]
fn a_network_of_mapped_addresses_is_one_of_ipv4() {
    for (network, expected) in [
        ("::ffff:127.0.0.0/104", "192.0.2.1"),
        ("::ffff:127.0.0.1", "192.0.2.1"),
        ("::ffff:126.0.0.0/104", "127.0.0.1"),
        ("::/0", "127.0.0.1"),
    ] {
        let server = Server::start(&[&format!("--trusted-proxy={network}")]);
        let address = address_with(&server, "X-Real-IP: 192.0.2.1\r\n");
        assert_eq!(address["ipv4"], expected, "{network}");
    }
}

#[test]
fn an_untrusted_peer_s_lists_are_not_looked_at() {
    for header in ["x-forwarded-for", "forwarded"] {
        let server = Server::start(&[
            &format!("--proxy-header={header}"),
            "--trusted-proxy=198.51.100.1",
            "--limit-exempt=198.51.100.1",
        ]);
        let headers = "X-Forwarded-For: 192.0.2.2\r\nForwarded: for=192.0.2.2\r\n";
        assert_eq!(address_with(&server, headers)["ipv4"], "127.0.0.1");
    }
}

#[test]
fn unreadable_lists_are_one_address_that_is_never_exempt() {
    let mut server = Server::start(&["--proxy-header=forwarded", "--limit-address-connections=1"]);
    let mut first = Raw::connect(server.address);
    first.send(upgrade("/v1", "Forwarded: for=unknown\r\n").as_bytes());
    assert!(first.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(first.json()["welcome"]["your-address"]["ipv4"], "127.0.0.1");
    for header in ["for=_secret", "for=", "proto=https"] {
        let mut second = Raw::connect(server.address);
        second.send(upgrade("/v1", &format!("Forwarded: {header}\r\n")).as_bytes());
        assert_eq!(second.status(), 429, "{header}");
    }
    assert!(server.wait_for_log("headers that cannot be read").contains("WARN"));
}

#[test]
fn a_proxy_that_sends_another_header_is_named_once_with_the_option() {
    let mut server = Server::start(&[]);
    for _ in 0..3 {
        let address = address_with(&server, "X-Forwarded-For: 192.0.2.2\r\n");
        assert_eq!(address["ipv4"], "127.0.0.1");
    }
    let line = server.wait_for_log("--proxy-header=x-forwarded-for");
    assert!(line.contains("WARN") && line.contains("127.0.0.1"), "{line}");
    let count = |server: &Server| {
        server.log().iter().filter(|line| line.contains("--proxy-header=")).count()
    };
    assert_eq!(count(&server), 1, "{:#?}", server.log());

    // Without addresses in the log, the proxy's stays out of it too.
    for option in ["--blur-usage=60", "--addrid-db=:memory:"] {
        let mut server = Server::start(&["--proxy-header=forwarded", option]);
        address_with(&server, "X-Real-IP: 192.0.2.2\r\n");
        let line = server.wait_for_log("--proxy-header=x-real-ip");
        assert!(!line.contains("127.0.0.1") && !line.contains("192.0.2.2"), "{line}");
    }
}
