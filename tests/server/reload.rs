//! What clients are told by files, and SIGHUP: what is in the files by then is in force from then
//! on, all of it or nothing, and nobody is dropped.

use std::fs;
use std::sync::Arc;

use crate::common::raw::{CLOSE, Raw, TEXT, frame, upgrade};
use crate::common::{Client, Directory, Server, Signal};
use serde_json::json;

const WELCOME: &str = "welcome.json";
const NOTICES: &str = "notices.json";
const CONFIG: &str = "mailbox.conf";
const ONE: &str = "192.0.2.1";

/// A server in a directory that holds these files.
fn start(files: &[(&str, &str)], options: &[&str]) -> Server {
    let directory = Directory::new();
    for (name, content) in files {
        fs::write(directory.file(name), content).expect("write");
    }
    Server::start_in(Arc::new(directory), options)
}

fn write(server: &Server, name: &str, content: &str) {
    fs::write(server.file(name), content).expect("write");
}

/// Sends SIGHUP; gives the line that the log then has with this in it.
fn reload(server: &mut Server, part: &str) -> String {
    let seen = server.log().len();
    server.signal(Signal::HUP);
    server.wait_for_log_after(seen, part)
}

const DONE: &str = "now in force";
const REFUSED: &str = "all stays as it was";

/// The text of a new connection's welcome, as it came.
fn welcome_text(server: &Server) -> (String, u16) {
    let mut raw = Raw::connect(server.address);
    raw.send(upgrade("/v1", "").as_bytes());
    raw.head();
    let port = raw.stream.local_addr().expect("an address").port();
    (String::from_utf8(raw.frame().1).expect("UTF-8"), port)
}

fn assert_begins(server: &Server, keys: &str) {
    let (text, port) = welcome_text(server);
    let expected = format!(
        "{{\"type\":\"welcome\",\"welcome\":{{{keys}\"your-address\":\
         {{\"ipv4\":\"127.0.0.1\",\"port\":{port}}}}},\"server_tx\":"
    );
    assert!(text.starts_with(&expected), "{text}\n{expected}");
}

#[test]
fn the_welcome_file_is_merged_and_its_keys_win_and_come_as_they_are_written() {
    assert_begins(&Server::start(&[]), "");
    let content = r#"{"motd": "file \u00e9", "b": {"x": 1.50, "y": [1e400, null]}, "a": true}"#;
    let options = ["--welcome-file=welcome.json", "--motd=line", "--signal-error=Go away"];
    assert_begins(
        &start(&[(WELCOME, content)], &options),
        "\"motd\":\"file \u{e9}\",\"error\":\"Go away\",\"a\":true,\
         \"b\":{\"x\": 1.50, \"y\": [1e400, null]},",
    );
}

#[test]
fn sighup_without_files_says_so_and_changes_nothing() {
    let mut server = Server::start(&["--motd=m"]);
    let mut client = server.bind("app", "s");
    let line = reload(&mut server, "nothing to read again");
    assert!(line.contains("INFO"), "{line}");
    client.claim("4");
    assert_eq!(server.operators_welcome(), json!({"motd": "m"}));
    assert!(server.stop().0.success());
}

#[test]
fn sighup_reads_the_welcome_file_again_and_drops_nobody() {
    let mut server = start(&[(WELCOME, "{}")], &["--welcome-file", WELCOME, "--motd=m"]);
    let mut client = server.bind("app", "s");
    assert_eq!(server.operators_welcome(), json!({"motd": "m"}));
    for number in 0..3 {
        write(&server, WELCOME, &json!({"motd": "new", "number": number}).to_string());
        let line = reload(&mut server, DONE);
        assert!(line.contains("INFO") && line.contains("2 keys in the welcome"), "{line}");
        assert!(!line.contains("new"), "{line}");
        assert_eq!(server.operators_welcome(), json!({"motd": "new", "number": number}));
    }
    client.claim("4");
}

#[test]
fn a_bad_file_is_refused_with_one_line_and_all_stays_as_it_was() {
    let files = [(CONFIG, "signal-error = old"), (WELCOME, r#"{"motd": "old"}"#), (NOTICES, "{}")];
    let options =
        ["--config=mailbox.conf", "--welcome-file=welcome.json", "--notices-file=notices.json"];
    let mut server = start(&files, &options);
    for (name, bad, named) in [
        (CONFIG, "\nsignal-errors = x", "mailbox.conf:2: --signal-errors"),
        (WELCOME, "{", "--welcome-file: welcome.json: must be one JSON object"),
        (WELCOME, r#"{"motd": 5}"#, "--welcome-file: welcome.json: 'motd' must be a string"),
        (WELCOME, r#"{"your-address": {}}"#, "'your-address'"),
        (NOTICES, r#"{"192.0.2.0/33": "a"}"#, "--notices-file: notices.json: '192.0.2.0/33'"),
        (NOTICES, r#"{"192.0.2.1": ""}"#, "'192.0.2.1' must have a text of 1 to 4096 bytes"),
    ] {
        // What is good beside the bad one must not come into force.
        for (file, _) in files {
            match file {
                CONFIG => write(&server, file, "signal-error = new"),
                WELCOME => write(&server, file, r#"{"motd": "new"}"#),
                _ => write(&server, file, r#"{"127.0.0.1": "new"}"#),
            }
        }
        write(&server, name, bad);
        let seen = server.log().len();
        let line = reload(&mut server, REFUSED);
        assert!(line.contains("WARN") && line.contains(named), "{named}: {line}");
        assert_eq!(server.log().len(), seen + 1, "{:#?}", server.log());
        assert_eq!(server.operators_welcome(), json!({"motd": "old", "error": "old"}));
    }
    fs::remove_file(server.file(WELCOME)).expect("remove");
    write(&server, NOTICES, "{}");
    assert!(reload(&mut server, REFUSED).contains("welcome.json: cannot be read"));
    assert_eq!(server.operators_welcome(), json!({"motd": "old", "error": "old"}));
    write(&server, WELCOME, r#"{"motd": "new"}"#);
    reload(&mut server, DONE);
    assert_eq!(server.operators_welcome()["motd"], "new");
}

#[test]
fn clients_of_a_network_get_its_notice_and_a_close() {
    let notices = json!({
        "192.0.2.0/24": "please stop",
        "192.0.2.1": "you too",
        "2001:db8::/32": "please stop, IPv6",
        "198.51.100.0/24": "not here",
    });
    let mut server =
        start(&[(NOTICES, &notices.to_string())], &["--notices-file=notices.json", "--motd=m"]);
    for (ip, text) in [
        (ONE, "you too"),
        ("192.0.2.2", "please stop"),
        ("2001:db8::5", "please stop, IPv6"),
        ("::ffff:192.0.2.2", "please stop"),
    ] {
        let mut raw = Raw::connect(server.address);
        // Clients do not wait for the welcome: what they say is not carried out any more.
        raw.send(upgrade("/v1", &format!("X-Real-IP: {ip}\r\n")).as_bytes());
        raw.send_json(&json!({"type": "bind", "appid": "app", "side": "s"}));
        raw.head();
        let told = raw.json()["welcome"].clone();
        assert_eq!((&told["error"], &told["motd"]), (&json!(text), &json!("m")), "{ip}");
        let (first, payload) = raw.frame();
        assert_eq!((first, &payload[..2]), (CLOSE, &1008_u16.to_be_bytes()[..]));
    }
    // Python's and Go's clients wait for answers when they leave.
    let mut raw = Raw::connect(server.address);
    raw.send(upgrade("/v1", &format!("X-Real-IP: {ONE}\r\n")).as_bytes());
    raw.head();
    assert_eq!(raw.json()["type"], "welcome");
    for (command, answer) in [("release", "released"), ("close", "closed")] {
        raw.send_json(&json!({"type": command, "id": command}));
        assert_eq!(raw.json()["id"], command);
        assert_eq!(raw.json()["type"], answer);
        raw.send(&frame(TEXT, b"nonsense"));
    }
    assert_eq!(raw.frame().0, CLOSE);
    for ip in ["203.0.113.1", "2001:db9::1"] {
        let mut client = server.connect_from(Some(ip)).expect("not meant");
        client.quiet(json!({"type": "bind", "appid": "app", "side": "s"}));
    }
    server.wait_for_log("sent away with a notice");
    write(&server, NOTICES, r#"{"127.0.0.1": "now you"}"#);
    let mut client = server.bind("app", "s");
    assert!(reload(&mut server, DONE).contains("1 notices"));
    client.claim("4");
    let mut guest = Client::connect(server.address);
    assert_eq!(guest.recv()["welcome"]["error"], "now you");
    assert_eq!(guest.close_code(), 1008);
    server.connect_from(Some(ONE)).expect("not meant any more");
}

#[test]
fn exemptions_and_trusted_proxies_follow_the_file() {
    let limited = "limit-address-connections = 1\n";
    let options = ["--config=mailbox.conf", "--log-level=debug"];
    let mut server = start(&[(CONFIG, limited)], &options);
    let mut first = server.connect_from(Some(ONE)).expect("the first");
    assert!(server.connect_from(Some(ONE)).is_err());
    write(&server, CONFIG, &format!("{limited}limit-exempt=192.0.2.0/24\nlimit-exempt=127.0.0.1"));
    assert!(reload(&mut server, DONE).contains("2 networks exempt"));
    let exempt: Vec<_> = (0..5).map(|_| server.connect_from(Some(ONE))).collect();
    assert!(exempt.iter().all(Result::is_ok));
    write(&server, CONFIG, limited);
    reload(&mut server, DONE);
    assert!(server.connect_from(Some(ONE)).is_err());
    first.quiet(json!({"type": "bind", "appid": "app", "side": "s"}));
    drop((first, exempt));

    write(&server, CONFIG, &format!("{limited}trusted-proxy = 10.0.0.0/8"));
    assert!(reload(&mut server, DONE).contains("1 trusted networks"));
    let mut client = Client::connect(server.address);
    assert_eq!(client.recv()["welcome"]["your-address"]["ipv4"], "127.0.0.1");
    drop(client);
    let seen = server.log().len();
    drop(server.connect_from(Some(ONE)).expect("loopback is exempt"));
    server.wait_for_log_after(seen, "connected from 127.0.0.1");
}

#[test]
fn networks_of_onion_services_follow_the_file() {
    let limited = "limit-address-connections = 1\n";
    let mut server = start(&[(CONFIG, limited)], &["--config=mailbox.conf"]);
    let connect = |server: &Server, number: u8| {
        server.connect_from(Some(&format!("fc00:dead:beef:4dad::0:{number}")))
    };
    let _of_all = connect(&server, 1).expect("the first of a /64");
    assert!(connect(&server, 2).is_err());
    write(&server, CONFIG, &format!("{limited}onion-network = fc00:dead:beef:4dad::/64"));
    reload(&mut server, DONE);
    let _circuits = [1, 2].map(|number| connect(&server, number).expect("the first of a circuit"));
    assert!(connect(&server, 2).is_err());
}

#[test]
fn the_answer_to_list_follows_the_file() {
    let mut server = start(&[(CONFIG, "")], &["--config=mailbox.conf"]);
    let mut client = server.bind("app", "s");
    client.claim("4");
    for (content, listed) in [("disallow-list", json!([])), ("", json!([{"id": "4"}]))] {
        write(&server, CONFIG, content);
        let line = reload(&mut server, DONE);
        assert_eq!(line.contains("empty list"), !content.is_empty(), "{line}");
        assert_eq!(client.one(json!({"type": "list"}))["nameplates"], listed);
    }
}

#[test]
fn options_that_need_a_restart_are_named_in_one_line() {
    let files = [(CONFIG, "motd = a\nexpire-after = 60\nlimit-bind-seconds = 5\nlog-level = info")];
    let mut server = start(&files, &["--config=mailbox.conf", "--expire-check=30"]);
    write(
        &server,
        CONFIG,
        "motd = b\nexpire-after = 70\nexpire-check = 1\nusage-db = u\nlog-level = info",
    );
    let line = reload(&mut server, "only a restart");
    assert!(line.contains("WARN"), "{line}");
    let named = line.rsplit(": ").next().expect("a list");
    let mut named: Vec<&str> = named.split(", ").collect();
    named.sort_unstable();
    assert_eq!(named, ["--expire-after", "--limit-bind-seconds", "--usage-db"]);
    assert_eq!(server.operators_welcome(), json!({"motd": "b"}));
    assert!(!server.file("u").exists());
}
