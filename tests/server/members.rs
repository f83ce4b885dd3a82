//! `--members`: members may begin an exchange, guests may join one. What must not be possible:
//! beginning one without a secret, guessing a secret, seeing it anywhere.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use crate::common::raw::{Raw, answer_to, upgrade};
use crate::common::{Client, Directory, PATIENCE, Server, Signal, output_of, stdout_of};
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;

const SECRET: &str = "correct-horse-battery-staple";
const OTHER_SECRET: &str = "0123456789abcdef";
const ONLY_MEMBERS: &str = "only members of this server may begin an exchange, others may join one";

/// A directory with a file of two members.
fn directory() -> Arc<Directory> {
    let directory = Arc::new(Directory::new());
    write(&directory, &format!("# who may\nalice {SECRET}\nbob {OTHER_SECRET}\n"));
    directory
}

fn write(directory: &Directory, members: &str) {
    fs::write(directory.file("members"), members).expect("a file");
}

fn start(options: &[&str]) -> Server {
    let directory = directory();
    start_in(directory, options)
}

fn start_in(directory: Arc<Directory>, options: &[&str]) -> Server {
    let members = format!("--members={}", directory.file("members").display());
    let options: Vec<&str> = options.iter().copied().chain([&*members]).collect();
    Server::start_in(directory, &options)
}

/// A bound connection at a path.
fn bind_at(server: &Server, path: &str, side: &str) -> Client {
    let stream = TcpStream::connect(server.address).expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    let url = format!("ws://{}{path}", server.address);
    let request = url.into_client_request().expect("a request");
    let (socket, _) = tungstenite::client(request, stream).expect("handshake");
    socket.get_ref().set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut client = Client { socket };
    assert_eq!(client.recv()["type"], "welcome");
    client.bound("app", side)
}

fn member(server: &Server, side: &str) -> Client {
    bind_at(server, &format!("/v1/{SECRET}"), side)
}

fn guest(server: &Server, side: &str) -> Client {
    bind_at(server, "/v1", side)
}

/// Whether the connection may begin something.
fn is_member(client: &mut Client) -> bool {
    let answer = client.one(json!({"type": "allocate"}));
    match answer["type"].as_str() {
        Some("allocated") => true,
        _ => {
            assert_eq!(answer["error"], ONLY_MEMBERS);
            false
        }
    }
}

/// The status of an upgrade at a path, from an address behind a trusted proxy.
fn upgrade_status(server: &Server, path: &str, ip: &str) -> String {
    let mut raw = Raw::connect(server.address);
    raw.send(upgrade(path, &format!("X-Real-IP: {ip}\r\n")).as_bytes());
    raw.head()[9..12].to_owned()
}

#[test]
fn a_member_sends_and_a_guest_receives() {
    let server = start(&[]);
    let (mut sender, mut receiver) = (member(&server, "s"), guest(&server, "r"));
    let nameplate = sender.allocate();
    let mailbox = sender.claim(&nameplate);
    sender.open(&mailbox);
    sender.one(json!({"type": "add", "phase": "p", "body": "00"}));
    assert_eq!(receiver.claim(&nameplate), mailbox);
    receiver.release();
    assert_eq!(receiver.open(&mailbox)[0]["body"], "00");
    receiver.one(json!({"type": "add", "phase": "q", "body": "01"}));
    assert_eq!(sender.recv()["body"], "01");
    receiver.close();
    sender.release();
    sender.close();
}

#[test]
fn a_guest_may_begin_nothing() {
    let server = start(&["--admin=tcp:0:interface=127.0.0.1"]);
    let mut owner = member(&server, "m");
    let nameplate = owner.allocate();
    let mut guest = guest(&server, "g");
    assert_eq!(guest.one(json!({"type": "ping", "ping": 1}))["pong"], 1);
    assert_eq!(guest.list(), Vec::<String>::new());
    assert_eq!(owner.list(), [&*nameplate]);
    for command in [
        json!({"type": "allocate"}),
        json!({"type": "claim", "nameplate": "77"}),
        json!({"type": "open", "mailbox": "nothing"}),
    ] {
        for _ in 0..2 {
            assert_eq!(guest.error(command.clone()), ONLY_MEMBERS, "{command}");
        }
    }
    let add = json!({"type": "add", "phase": "p", "body": "00"});
    assert_eq!(guest.error(add), "must open mailbox before adding");
    let farewells = [
        (json!({"type": "release", "nameplate": "77"}), "released"),
        (json!({"type": "close", "mailbox": "nothing"}), "closed"),
    ];
    for (command, answer) in farewells {
        assert_eq!(guest.one(command)["type"], answer);
    }
    let status = server.status();
    assert_eq!(status["store"]["mailboxes"], 1, "{status}");
    assert_eq!(status["store"]["nameplates"], 1);
    // What it did not begin, it can still join.
    assert!(!guest.claim(&nameplate).is_empty());
}

#[test]
fn a_guest_s_close_of_a_mailbox_that_is_gone_creates_nothing() {
    let server = start(&["--usage-db=usage.sqlite", "--admin=tcp:0:interface=127.0.0.1"]);
    let (mut owner, mut joiner) = (member(&server, "m"), guest(&server, "g"));
    owner.open("box");
    joiner.open("box");
    joiner.close();
    owner.close();
    // The connection was lost before the answer came: the client closes again until it has one.
    for _ in 0..3 {
        let mut again = guest(&server, "g");
        let close = json!({"type": "close", "mailbox": "box", "mood": "happy"});
        assert_eq!(again.one(close.clone())["type"], "closed");
        assert_eq!(again.error(close), "only one close per connection");
    }
    let ended = server.ask_admin("/metrics").body;
    let line = ended.lines().find(|line| line.contains("mailboxes_ended_total{result=\"happy\"}"));
    assert!(line.is_some_and(|line| line.ends_with(" 1")), "{line:?}");
}

#[test]
fn without_the_option_every_path_below_v1_is_as_before() {
    let server = Server::start(&[]);
    for path in ["/v1", "/v1/", "/v1/anything", &format!("/v1/{SECRET}?x")] {
        assert!(is_member(&mut bind_at(&server, path, "s")), "{path}");
    }
}

#[test]
fn after_a_restart_what_is_in_the_files_counts_as_begun_by_members() {
    let server = start(&[]);
    let mailbox = member(&server, "m").claim("5");
    let server = start_in(server.stop().1, &[]);
    let mut guest = guest(&server, "g");
    assert_eq!(guest.claim("5"), mailbox);
    guest.open(&mailbox);
}

#[test]
fn a_reload_brings_new_members_and_makes_guests_of_those_whose_line_is_gone() {
    let mut server = start(&["--admin=tcp:0:interface=127.0.0.1"]);
    let (mut alice, mut bob) =
        (member(&server, "a"), bind_at(&server, &format!("/v1/{OTHER_SECRET}"), "b"));
    let mailbox = bob.claim("5");
    write(&server.directory, &format!("alice {SECRET}\ncarol {OTHER_SECRET}\n"));
    server.signal(Signal::HUP);
    server.wait_for_log("read again, now in force");
    assert!(is_member(&mut alice));
    assert!(!is_member(&mut bob), "the secret is another member's now");
    assert!(is_member(&mut bind_at(&server, &format!("/v1/{OTHER_SECRET}"), "c")));
    bob.open(&mailbox); // what it began goes on
    let status = server.status();
    let names: Vec<_> = status["members"].as_array().expect("members").iter().collect();
    assert_eq!(names.iter().map(|it| &it["name"]).collect::<Vec<_>>(), ["alice", "carol"]);

    // A file that is not right changes nothing, and the log does not repeat it.
    write(&server.directory, "alice hunter2hunter2/hunter2\n");
    server.signal(Signal::HUP);
    let line = server.wait_for_log("not read again");
    assert!(line.contains("line 1") && !line.contains("hunter2"), "{line}");
    assert!(is_member(&mut member(&server, "d")));
}

#[test]
fn members_and_guests_stay_what_they_are_when_the_process_is_replaced() {
    let mut server = start(&[]);
    let (mut alice, mut stranger) = (member(&server, "a"), guest(&server, "g"));
    server.replace();
    assert!(is_member(&mut alice));
    assert!(!is_member(&mut stranger));
}

/// As while a secret is being replaced: the old line goes when the new URL has come to everybody.
#[test]
fn of_several_lines_of_a_name_each_keeps_its_connections_when_the_process_is_replaced() {
    const NEW: &str = "replacement-of-the-staple";
    let mut server = start(&[]);
    write(&server.directory, &format!("alice {SECRET}\nalice {NEW}\nbob {OTHER_SECRET}\n"));
    server.signal(Signal::HUP);
    server.wait_for_log("read again, now in force");
    let path = |secret: &str| format!("/v1/{secret}");
    let mut old = member(&server, "old");
    let mut new = bind_at(&server, &path(NEW), "new");
    let mut bob = bind_at(&server, &path(OTHER_SECRET), "bob");
    server.replace();
    write(&server.directory, &format!("alice {NEW}\ncarol {OTHER_SECRET}\n"));
    let seen = server.log().len();
    server.signal(Signal::HUP);
    server.wait_for_log_after(seen, "read again, now in force");
    assert!(!is_member(&mut old));
    assert!(is_member(&mut new));
    assert!(!is_member(&mut bob), "the secret is another member's now");
}

#[test]
fn a_file_that_is_not_right_stops_the_start_without_showing_a_secret() {
    let directory = Directory::new();
    let path = directory.file("members");
    for content in ["alice hunter2", "hunter2hunter2hunter2hunter2", "a hunter2hunter2 hunter2"] {
        fs::write(&path, content).expect("a file");
        let output = output_of(&[&format!("--members={}", path.display())]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("--members: ") && error.contains("line 1: "), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_secret_in_the_wrong_place_is_not_shown() {
    let directory = directory();
    let members = directory.file("members");
    for words in [
        vec![format!("--config={}", members.display())],
        vec![format!("--welcome-file={}", members.display())],
        vec![format!("--notices-file={}", members.display())],
        vec!["check".to_owned(), format!("ws://127.0.0.1:x/v1/{SECRET}")],
        vec!["check".to_owned(), format!("ws://127.0.0.1:1/v1/{SECRET}")],
        vec!["member".to_owned(), "add".to_owned(), format!("--url=https://host/v1/{SECRET}")],
    ] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = output_of(&words);
        assert!(!output.status.success(), "{words:?}");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(text.contains("wormhole-mailbox: ") && !text.contains(SECRET), "{words:?}: {text}");
    }
}

#[test]
fn names_and_counts_are_in_the_status_and_secrets_are_nowhere() {
    let options = [
        "--admin=tcp:0:interface=127.0.0.1",
        "--log-level=debug",
        "--track-connections",
        "--usage-db=usage.sqlite",
    ];
    let mut server = start(&options);
    let (mut one, two) = (member(&server, "1"), member(&server, "2"));
    let nameplate = one.allocate();
    one.claim(&nameplate);
    drop(two);
    // Wrong ones, wrong commands, wrong requests: what is answered does not repeat the path.
    let wrong = format!("{SECRET}-or-so");
    let mut guest = bind_at(&server, &format!("/v1/{wrong}"), "g");
    let mut seen = guest.error(json!({"type": "allocate"}));
    for request in [
        format!("GET /v1/{SECRET} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("POST /v1/{SECRET} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET /v2/{SECRET} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET /v1/{SECRET} HTTP/3.0\r\nHost: x\r\n\r\n"),
        format!("GET /v1/{SECRET} HTTP/1.1\nHost: x\n\n"),
        format!("GET /v1/{SECRET} HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"),
        format!("GET /v1/{SECRET} HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(300)),
    ] {
        seen += &answer_to(server.address, &request);
    }
    let status = server.wait_for_status(|status| status["members"][0]["connected"] == 1);
    let alice = json!({"name": "alice", "connected": 1, "connections": 2, "exchanges": 1});
    let bob = json!({"name": "bob", "connected": 0, "connections": 0, "exchanges": 0});
    assert_eq!(status["members"], json!([alice, bob]));
    assert!(server.ask_admin("/").body.contains("alice"));
    for path in ["/", "/live", "/metrics", "/healthz", "/status.json", &format!("/{SECRET}")] {
        let answer = server.ask_admin(path);
        seen += &answer.head;
        seen += &answer.body;
    }
    let admin = format!("--admin={}", server.admin_address());
    let report = stdout_of(&["status", &admin]);
    assert!(report.contains("  member       alice: 1 exchanges begun, 2 connections"), "{report}");
    seen += &report;
    server.wait_for_log("unknown secrets of members (1)");
    let (status, directory) = server.stop();
    assert!(status.success());
    let files = fs::read_dir(directory.path()).expect("a directory");
    for file in files.map(|file| file.expect("a file").path()).filter(|it| !it.ends_with("members"))
    {
        seen += &String::from_utf8_lossy(&fs::read(file).expect("readable"));
    }
    for secret in [SECRET, OTHER_SECRET, &wrong] {
        assert!(!seen.contains(secret), "a secret is shown");
    }
}

#[test]
fn an_exchange_whose_commit_fails_is_not_counted() {
    let mut server = start(&["--admin=tcp:0:interface=127.0.0.1"]);
    let mut alice = member(&server, "a");
    alice.allocate();
    fs::rename(server.file("relay.sqlite"), server.file("aside")).expect("rename");
    alice.send(json!({"type": "open", "mailbox": "another"}));
    server.wait_for_log("storage failed");
    assert_eq!(server.status()["members"][0]["exchanges"], 1);
}

#[test]
fn the_log_never_shows_a_secret() {
    let mut server = start(&["--log-level=debug"]);
    let (_alice, _wrong) = (member(&server, "m"), bind_at(&server, "/v1/wrong-wrong-wrong", "w"));
    server.wait_for_log("unknown secrets of members");
    server.signal(Signal::HUP);
    server.wait_for_log("read again");
    server.signal(Signal::TERM);
    server.wait();
    for line in server.log() {
        assert!(!line.contains(SECRET) && !line.contains("wrong-wrong"), "{line}");
        assert!(!line.contains("/v1"), "{line}");
    }
}

/// Runs `member add` in a directory; returns its exit status, and stdout and stderr together.
fn add(directory: &Directory, words: &[&str]) -> (Option<i32>, String) {
    let members = format!("--members={}", directory.file("members").display());
    let output = output_of(&[&["member"], words, &[&*members]].concat());
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("UTF-8"))
}

#[test]
fn member_add_writes_a_line_that_works_and_prints_what_to_type() {
    let directory = Arc::new(Directory::new());
    let (status, text) = add(&directory, &["add", "alice", "--url=wss://mailbox.example.org/v1"]);
    assert_eq!(status, Some(0), "{text}");
    let file = directory.file("members");
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    let content = fs::read_to_string(&file).expect("readable");
    let secret = content.strip_prefix("alice ").expect("a line").trim_end();
    assert_eq!(secret.len(), 26);
    let url = format!("wss://mailbox.example.org/v1/{secret}");
    assert!(text.matches(&url).count() == 4, "the URL, and three clients: {text}");

    // A file without a line end at its end, by hand, and a second member.
    fs::write(&file, content.trim_end()).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("a mode");
    let (status, text) = add(&directory, &["add", "bob"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("wss://HOST/v1/") && text.contains("chmod 600"), "{text}");
    assert!(!text.contains(secret), "another member's secret: {text}");
    let content = fs::read_to_string(&file).expect("readable");
    assert_eq!(content.lines().count(), 2);

    for (words, status, named) in [
        (&["add", "alice"][..], 1, "alice already"),
        (&["add", "a b"], 2, "the name"),
        (&["add"], 2, "add NAME"),
        (&[], 2, "add NAME"),
        (&["remove", "alice"], 2, "add NAME"),
        (&["add", "carol", "--url=https://x/v1"], 2, "wss://HOST/v1"),
    ] {
        let (found, text) = add(&directory, words);
        assert!(found == Some(status) && text.contains(named), "{words:?}: {text}");
    }
    assert_eq!(fs::read_to_string(&file).expect("readable"), content);

    let server = start_in(directory, &[]);
    for line in content.lines() {
        let (_, secret) = line.split_once(' ').expect("two words");
        assert!(is_member(&mut bind_at(&server, &format!("/v1/{secret}"), secret)));
    }
}

#[test]
fn what_is_nearly_a_secret_is_none() {
    let server = start(&[]);
    for path in [
        "/v1".to_owned(),
        "/v1/".to_owned(),
        format!("/v1/{}", &SECRET[1..]),
        format!("/v1/{}", &SECRET[..SECRET.len() - 1]),
        format!("/v1/{SECRET}x"),
        format!("/v1/{SECRET}/"),
        format!("/v1//{SECRET}"),
        format!("/v1/{SECRET}%00"),
        format!("/v1/{}", SECRET.to_uppercase()),
        format!("/v1/{}", SECRET.replace('-', "%2d")),
        format!("/v1?{SECRET}"),
        format!("/v1/x?/v1/{SECRET}"),
        format!("/v1/./{SECRET}"),
        "/v1/alice".to_owned(),
        "/v1/*".to_owned(),
    ] {
        assert!(!is_member(&mut bind_at(&server, &path, "s")), "{path}");
    }
    for path in [format!("/v1/{SECRET}"), format!("/v1/{SECRET}?query")] {
        assert!(is_member(&mut bind_at(&server, &path, "s")), "{path}");
    }
}

#[test]
fn an_unknown_secret_is_answered_as_none_is() {
    let server = start(&[]);
    let answers = |path: &str| {
        let mut raw = Raw::connect(server.address);
        raw.send(upgrade(path, "X-Real-IP: 192.0.2.1\r\n").as_bytes());
        let head = raw.head();
        let mut welcome = raw.json();
        welcome["server_tx"] = Value::Null;
        (head, welcome)
    };
    let expected = answers("/v1");
    for path in ["/v1/unknown-unknown-unknown", &format!("/v1/{SECRET}")] {
        assert_eq!(answers(path), expected);
    }
    let plain = |path: &str| answer_to(server.address, format!("GET {path} HTTP/1.1\r\n\r\n"));
    for path in ["/v1/unknown-unknown-unknown", &format!("/v1/{SECRET}")] {
        assert_eq!(plain(path), plain("/v1"));
    }
}

#[test]
fn many_unknown_secrets_from_one_address_are_slowed_down_right_or_wrong() {
    let mut server = start(&["--limit-address-guess-burst=3", "--limit-address-guess-rate=0.001"]);
    for _ in 0..2 {
        // Right ones cost nothing.
        assert_eq!(upgrade_status(&server, &format!("/v1/{SECRET}"), "192.0.2.1"), "101");
    }
    for number in 0..3 {
        let path = format!("/v1/unknown-unknown-{number}");
        assert_eq!(upgrade_status(&server, &path, "192.0.2.1"), "101", "{path}");
    }
    for _ in 0..2 {
        for path in ["/v1/unknown-unknown-unknown", &format!("/v1/{SECRET}")] {
            assert_eq!(upgrade_status(&server, path, "192.0.2.1"), "429", "{path}");
            assert_eq!(upgrade_status(&server, path, "192.0.2.2"), "101", "{path}");
        }
        // Guests are not affected.
        assert_eq!(upgrade_status(&server, "/v1", "192.0.2.1"), "101");
    }
    let line = server.wait_for_log("unknown secrets of members from one address");
    assert!(!line.contains("192.0.2"), "{line}");
}

#[test]
fn a_guest_s_guesses_of_nameplates_are_slowed_down_as_a_member_s_are() {
    let server = start(&["--limit-address-claim-burst=3", "--limit-address-claim-rate=0.001"]);
    let guess = |nameplate: u32| {
        let mut client = server.bind_from("192.0.2.1", "app", &format!("side-{nameplate}"));
        client.error(json!({"type": "claim", "nameplate": nameplate.to_string()}))
    };
    for nameplate in 0..3 {
        assert_eq!(guess(nameplate), ONLY_MEMBERS);
    }
    assert!(guess(3).starts_with("too many 'claim'"));
}
