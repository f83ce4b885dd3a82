//! The operators' listener: who may have one where, what it answers, that clients and operators do
//! not take each other's room, and that it tells nothing by which a client could be known.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::common::admin::Answer;
use crate::common::client::{MESSAGES_EACH, exchange};
use crate::common::raw::{Raw, answer_to, upgrade};
use crate::common::{Directory, Server, Signal, sql};
use serde_json::{Value, json};

const ADMIN: &str = "--admin=0";

/// Operators' connections that are served at once.
const OPERATORS_MAX: usize = wormhole_mailbox::limits::ADMIN_CONNECTIONS_MAX;

const PATHS: [&str; 5] = ["/", "/live", "/metrics", "/healthz", "/status.json"];

#[test]
fn without_the_option_there_is_no_such_listener() {
    let server = Server::start(&[]);
    assert!(!server.log().iter().any(|line| line.contains("admin")), "{:#?}", server.log());
    for path in &PATHS[1..] {
        let answer = Answer::of(&answer_to(server.address, format!("GET {path} HTTP/1.1\r\n\r\n")));
        assert_eq!(answer.status, 404, "{path}");
    }
}

#[test]
fn a_bare_port_is_loopback_and_a_public_address_must_be_wanted() {
    let server = Server::start(&[ADMIN]);
    assert!(server.admin_address().ip().is_loopback());
    assert_ne!(server.admin_address(), server.address);
    assert_eq!(server.logged_addresses(), [server.address]);
    let server = Server::start(&["--admin=0.0.0.0:0", "--admin-public"]);
    assert!(server.admin_address().ip().is_unspecified());
}

#[test]
fn a_unix_socket_is_for_the_servers_own_user_unless_it_says_otherwise() {
    let server = Server::start(&["--admin=unix:admin.sock", "--admin=unix:group.sock:mode=660"]);
    for (name, mode) in [("admin.sock", 0o600), ("group.sock", 0o660)] {
        let path = server.file(name);
        let permissions = fs::metadata(&path).expect("the socket").permissions();
        assert_eq!(permissions.mode() & 0o777, mode);
        let mut socket = UnixStream::connect(&path).expect("connect");
        socket.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").expect("send");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        assert_eq!(Answer::of(&answer).body, "ok\n");
    }
}

#[test]
fn each_page_has_its_type_and_nothing_keeps_frames_or_sniffs_it() {
    let server = Server::start(&[ADMIN]);
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/live", "text/html; charset=utf-8"),
        ("/?anything", "text/html; charset=utf-8"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/healthz", "text/plain"),
        ("/status.json", "application/json"),
    ] {
        let answer = server.ask_admin(path);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("Content-Type"), Some(content_type), "{path}");
        assert_eq!(answer.header("Connection"), Some("close"), "{path}");
        assert_eq!(answer.header("Cache-Control"), Some("no-store"), "{path}");
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("Referrer-Policy"), Some("no-referrer"), "{path}");
        let length = answer.body.len().to_string();
        assert_eq!(answer.header("Content-Length"), Some(length.as_str()), "{path}");
    }
    let page = server.ask_admin("/");
    let policy = page.header("Content-Security-Policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'unsafe-inline'"), "{policy}");
    assert!(!page.body.contains("<script"), "no scripts");
    assert!(server.ask_admin("/live").body.contains("http-equiv=\"refresh\""));
    assert!(!page.body.contains("http-equiv=\"refresh\""));
}

#[test]
fn only_get_and_head_are_answered_and_head_without_a_body() {
    let server = Server::start(&[ADMIN, "--limit-head-bytes=300", "--limit-handshake-seconds=0.3"]);
    let status = |request: &str| Answer::of(&answer_to(server.admin_address(), request));
    for path in PATHS {
        let head = status(&format!("HEAD {path} HTTP/1.1\r\n\r\n"));
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        assert_ne!(head.header("Content-Length"), Some("0"), "{path}");
    }
    assert_eq!(status("POST /metrics HTTP/1.1\r\n\r\n").status, 405);
    assert_eq!(status("GET /metrics HTTP/2.0\r\n\r\n").status, 505);
    assert_eq!(status("GET /healthz HTTP/1.0\r\n\r\n").status, 200, "old programs may ask");
    assert_eq!(status("GET /else HTTP/1.1\r\n\r\n").status, 404);
    assert_eq!(status("\x16\x03\x01\r\n").status, 400);
    assert_eq!(status(&upgrade("/v1", "")).status, 404, "clients are not served here");
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(400));
    assert_eq!(status(&long).status, 431);
    assert_eq!(status("GET / HT").status, 408);
    for (request, expected) in [
        ("HEAD /else HTTP/1.1\r\n\r\n", 404),
        ("HEAD / HTTP/2.0\r\n\r\n", 505),
        ("HEAD /\r\n\r\n", 400),
        ("HEAD / HT", 408),
        (&long.replace("GET", "HEAD"), 431),
    ] {
        let head = status(request);
        assert_eq!((head.status, head.body.as_str()), (expected, ""), "{request:?}");
    }
}

#[test]
fn a_question_may_come_in_pieces_and_its_asker_may_have_stopped_talking() {
    let server = Server::start(&[ADMIN]);
    let mut raw = Raw::connect(server.admin_address());
    for piece in ["GE", "T /healthz HTT", "P/1.1\r\nHost: x\r", "\n\r", "\nGET / HTTP/1.1\r\n\r\n"]
    {
        raw.send(piece.as_bytes());
        server.status(); // a tick or two
    }
    raw.end_of_input();
    let answers = raw.rest();
    assert_eq!(Answer::of(&answers).body, "ok\n", "one question a connection: {answers}");
}

#[test]
fn operators_are_served_when_clients_have_used_up_their_room() {
    let server = Server::start(&[ADMIN, "--limit-connections=2"]);
    for _ in 0..2 {
        let clients = [server.connect(), server.connect()];
        let refused = Answer::of(&answer_to(server.address, upgrade("/v1", "")));
        assert_eq!(refused.status, 503);
        let status = server.wait_for_status(|status| status["connections"]["now"] == 2);
        assert_eq!(status["connections"]["max"], 2);
        assert_eq!(server.ask_admin("/healthz").status, 200);
        drop(clients);
        server.wait_for_status(|status| status["connections"]["now"] == 0);
    }
    let hits = server.status()["limits_hit"].clone();
    assert_eq!(hits, json!({"connections": 2}));
}

#[test]
fn the_oldest_idle_connection_to_the_admin_listener_gives_way_to_one_more() {
    let server = Server::start(&[ADMIN, "--limit-connections=2"]);
    let _clients = [server.connect(), server.connect()];
    for _ in 0..3 {
        let mut waiting: Vec<Raw> =
            (0..OPERATORS_MAX).map(|_| Raw::connect(server.admin_address())).collect();
        // Its head is not complete either, but it is the newest.
        let mut newest = Raw::connect(server.admin_address());
        newest.send(b"GET /healthz HTTP/1.1\r\n");
        assert_eq!(server.ask_admin("/healthz").status, 200);
        newest.send(b"\r\n");
        assert_eq!(Answer::of(&newest.rest()).body, "ok\n");
        assert_eq!(waiting[0].rest(), "");
        let mut last = waiting.pop().expect("the last of them");
        last.send(b"GET /healthz HTTP/1.1\r\n\r\n");
        assert_eq!(Answer::of(&last.rest()).body, "ok\n");
    }
    assert_eq!(server.status()["limits_hit"], json!({}));
}

#[test]
fn a_request_head_has_two_seconds_on_the_admin_listener() {
    let server = Server::start(&[ADMIN]);
    let mut idle = Raw::connect(server.admin_address());
    idle.send(b"GET / HTTP/1.1\r\n");
    let begun = std::time::Instant::now();
    assert_eq!(Answer::of(&idle.rest()).status, 408);
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// The status of an answer to a request with these header lines.
fn status_of(server: &Server, path: &str, headers: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\n{headers}\r\n");
    Answer::of(&answer_to(server.admin_address(), &request)).status
}

#[test]
fn a_host_by_another_name_is_misdirected_and_told_the_option() {
    let directory = Arc::new(Directory::new());
    fs::write(directory.file("options"), "admin-host = wormhole.lan\n").expect("write");
    let mut server = Server::start_in(directory, &[ADMIN, "--config=options"]);
    let name = fs::read_to_string("/proc/sys/kernel/hostname").expect("the host name");
    let name = name.trim();
    for host in [
        "localhost",
        "LocalHost:9000",
        "localhost.",
        "127.0.0.1",
        "127.0.0.1:9000",
        "192.0.2.1:80",
        "[::1]",
        "[::1]:9000",
        "[2001:db8::1]:9000",
        name,
        &format!("{name}:9000"),
        "wormhole.lan:9000",
        "Wormhole.LAN.",
        "",
    ] {
        let header = format!("Host: {host}\r\n");
        assert_eq!(status_of(&server, "/", &header), 200, "{host}");
    }
    assert_eq!(status_of(&server, "/", ""), 200);
    for host in [
        "evil.example",
        "evil.example:9000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil-localhost",
        "[::1].evil.example",
        "127.0.0.1@evil.example",
        "x y",
    ] {
        let header = format!("Host: {host}\r\n");
        for path in ["/", "/live", "/status.json", "/elsewhere"] {
            assert_eq!(status_of(&server, path, &header), 421, "{host}");
        }
        for path in ["/healthz", "/metrics"] {
            assert_eq!(status_of(&server, path, &header), 200, "{host}");
        }
    }
    assert_eq!(status_of(&server, "/", "Host: localhost\r\nHost: evil.example\r\n"), 400);
    let request = "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    let told = Answer::of(&answer_to(server.admin_address(), request));
    assert!(told.body.contains("--admin-host") && !told.body.contains("evil"), "{}", told.body);

    fs::write(server.file("options"), "admin-host = another.lan\n").expect("write");
    server.signal(Signal::HUP);
    server.wait_for_log("now in force");
    assert_eq!(status_of(&server, "/", "Host: another.lan\r\n"), 200);
    assert_eq!(status_of(&server, "/", "Host: wormhole.lan\r\n"), 421);
}

#[test]
fn health_says_why_not_and_recovers() {
    let mut server = Server::start(&[ADMIN]);
    assert_eq!(server.ask_admin("/healthz").body, "ok\n");
    let other = sql::lock(&server.file("relay.sqlite"));
    let mut client = server.bind("app", "side");
    client.send(json!({"type": "allocate"}));
    assert_eq!(client.close_code(), 1013);
    let health = server.ask_admin("/healthz");
    let why = "storage unavailable: channel database: another program has it locked";
    assert_eq!((health.status, health.body), (503, format!("{why}\n")));
    let status = server.status();
    assert_eq!(status["health"], why);
    assert_eq!(status["storage"]["degraded"], true);
    assert!(server.ask_admin("/").body.contains("cannot be written"));
    assert!(server.ask_admin("/metrics").body.contains("wormhole_mailbox_storage_degraded 1\n"));
    drop(other);
    server.wait_for_log("storage works again");
    let status = server.wait_for_status(|status| status["health"] == "ok");
    assert_eq!(status["storage"]["degraded"], false);
    assert_eq!(server.ask_admin("/healthz").status, 200);
}

#[test]
fn a_stopping_server_says_so_and_does_not_wait_for_operators() {
    let mut server = Server::start(&[ADMIN]);
    let mut waiting = Raw::connect(server.admin_address());
    waiting.send(b"GET /healthz HTTP/1.1\r\n");
    server.status(); // it has come by now
    server.signal(Signal::TERM);
    let told = Answer::of(&waiting.rest());
    assert_eq!((told.status, told.body.as_str()), (503, "server is stopping\n"));
    drop(waiting);
    assert!(server.wait().success());
}

#[test]
fn the_status_tells_what_clients_did() {
    let server = Server::start(&[ADMIN, "--usage-db=usage.sqlite"]);
    for mood in ["happy", "happy", "scary"] {
        exchange(&server, mood);
    }
    let mut client = server.bind("secret-app", "secret-side-3");
    client.allocate();
    client.open("secret-mailbox");
    client.error(json!({"type": "open", "mailbox": "secret-mailbox"}));
    let status = server.wait_for_status(|status| status["connections"]["now"] == 1);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["health"], "ok");
    let connections = &status["connections"];
    assert_eq!(connections["bound"], 1);
    assert_eq!(connections["subscribed"], 1);
    assert_eq!(connections["accepted"], 7);
    let ended: u64 = counts(&connections["ended"]).iter().sum();
    assert_eq!(ended, 6);
    let store = &status["store"];
    assert_eq!(store["apps"], 1);
    assert_eq!(store["nameplates"], 1);
    assert_eq!(store["nameplates_by_digits"], json!({"1": 1, "2": 0, "3": 0, "4+": 0}));
    assert_eq!(store["mailboxes"], 2);
    assert_eq!(store["messages"], 0);
    let results =
        json!({"happy": 2, "lonely": 0, "errory": 0, "scary": 1, "pruney": 0, "crowded": 0});
    assert_eq!(status["results_last_hour"], results);
    assert_eq!(status["results_last_day"], results);
    let traffic = &status["traffic"];
    assert_eq!(traffic["messages_stored"], 3 * 2 * MESSAGES_EACH);
    assert_eq!(traffic["commands"]["bind"], 7);
    assert_eq!(traffic["errors"], json!({"only_one_open": 1}));
    let clients = json!([
        {"implementation": "tester", "version": "1.2", "binds": 6},
        {"implementation": null, "version": null, "binds": 1},
    ]);
    assert_eq!(status["clients_last_day"], clients);
    let files = status["storage"]["files"].as_array().expect("files");
    let names: Vec<&Value> = files.iter().map(|file| &file["name"]).collect();
    assert_eq!(names, ["channel", "usage"]);
    let on_disk = fs::metadata(server.file("relay.sqlite")).expect("the file").len();
    assert_eq!(files[0]["bytes"], on_disk);
    assert!(status["latency_last_hour"]["commit"]["p99_seconds"].as_f64() > Some(0.0));
    for number in ["resident_memory_bytes", "open_fds", "max_fds"] {
        assert!(status["process"][number].as_f64() > Some(0.0), "{number}: {status:#}");
    }
    // Counted in hundredths of a second, and each answer takes some time.
    server.wait_for_status(|status| status["process"]["cpu_seconds"].as_f64() > Some(0.0));
}

#[test]
fn nothing_tells_who_the_clients_are() {
    let server = Server::start(&[ADMIN, "--usage-db=usage.sqlite", "--addrid-db=addrid.sqlite"]);
    exchange(&server, "happy");
    // So long that no duration has its digits by chance.
    const NAMEPLATE: &str = "47114711471147114711";
    let mut client = server.bind("secret-app", "secret-side-3");
    client.claim(NAMEPLATE);
    client.open("secret-mailbox");
    client.one(json!({"type": "ping", "ping": "secret-ping"}));
    client.error(json!({"type": "claim", "nameplate": NAMEPLATE, "extra": "secret-extra"}));
    for path in PATHS {
        let body = server.ask_admin(path).body;
        for secret in ["secret", NAMEPLATE, "127.0.0.1"] {
            assert!(!body.contains(secret), "{path} tells {secret}: {body}");
        }
    }
}

#[test]
fn what_operators_ask_does_not_count_as_what_clients_do() {
    let server = Server::start(&[ADMIN]);
    for path in PATHS {
        server.ask_admin(path);
    }
    let status = server.status();
    assert_eq!(status["connections"]["accepted"], 0);
    assert_eq!(status["connections"]["now"], 0);
    assert_eq!(status["connections"]["ended"], json!({}));
    assert_eq!(status["traffic"]["received_bytes"], 0);
    assert_eq!(status["traffic"]["sent_bytes"], 0);
}

#[test]
fn bytes_and_messages_are_counted_both_ways() {
    let server = Server::start(&[ADMIN]);
    let mut raw = Raw::connect(server.address);
    let request = upgrade("/v1", "");
    raw.send(request.as_bytes());
    let head = raw.head();
    let (_, welcome) = raw.frame();
    let status = server.status();
    assert_eq!(status["traffic"]["received_bytes"], request.len());
    // A frame of that length has a head of four bytes, or of two.
    let frame_head = if welcome.len() < 126 { 2 } else { 4 };
    assert_eq!(status["traffic"]["sent_bytes"], head.len() + frame_head + welcome.len());
    let mut client = server.bind("app", "side");
    client.open("box");
    for phase in ["a", "b"] {
        client.send(json!({"type": "add", "phase": phase, "body": ""}));
        while client.recv()["type"] != "message" {}
    }
    let mut late = server.bind("app", "other");
    late.open("box");
    let status = server.status();
    assert_eq!(status["traffic"]["messages_stored"], 2);
    assert_eq!(status["traffic"]["messages_delivered"], 4, "two at once, two replayed");
}

#[test]
fn the_last_day_outlives_a_restart_if_usage_is_recorded() {
    let options = [ADMIN, "--usage-db=usage.sqlite"];
    let server = Server::start(&options);
    exchange(&server, "happy");
    exchange(&server, "errory");
    let (before, (_, directory)) = (server.status(), server.stop());
    let server = Server::start_in(directory, &options);
    exchange(&server, "errory");
    let after = server.status();
    assert_eq!(before["results_last_day"]["errory"], 1);
    for span in ["results_last_hour", "results_last_day"] {
        assert_eq!(after[span]["happy"], 1, "{after:#}");
        assert_eq!(after[span]["errory"], 2, "{after:#}");
    }
    assert_eq!(after["clients_last_day"][0]["binds"], 6);
    assert_eq!(after["connections"]["accepted"], 2, "since the start, as all others");
}

#[test]
fn in_memory_there_are_no_files_to_tell_of() {
    let server = Server::start(&[ADMIN, "--channel-db=:memory:"]);
    let files = &server.status()["storage"]["files"];
    let none = json!([{"name": "channel", "path": ":memory:", "bytes": null, "wal_bytes": null}]);
    assert_eq!(*files, none);
    assert_eq!(server.ask_admin("/").status, 200);
    assert_eq!(server.ask_admin("/metrics").status, 200);
}

fn counts(object: &Value) -> Vec<u64> {
    object.as_object().expect("an object").values().filter_map(Value::as_u64).collect()
}
