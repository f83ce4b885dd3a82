//! The commands that tell of a server: what they show, that they harm nothing, and what they say
//! when there is nothing to show.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use crate::common::sql::{self, ADDRID_V1, CHANNEL_V1, CHANNEL_V2, USAGE_V1, USAGE_V2};
use crate::common::{Directory, PROGRAM, Server, eventually, now};
use serde_json::{Value, json};

fn run(directory: &Directory, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).current_dir(directory.path()).output().expect("the program runs")
}

/// What a command prints, which must be all it does.
fn report(directory: &Directory, arguments: &[&str]) -> String {
    let output = run(directory, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn json_report(directory: &Directory, arguments: &[&str]) -> Value {
    let text = report(directory, &[arguments, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The one line on stderr of a command that ends with this status.
fn complaint(directory: &Directory, arguments: &[&str], status: i32) -> String {
    let output = run(directory, arguments);
    let error = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {error}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert_eq!(error.lines().count(), 1, "{arguments:?}: {error:?}");
    error
}

const ALL_FILES: [&str; 3] =
    ["--usage-db=usage.sqlite", "--addrid-db=addrid.sqlite", "--track-connections"];

const EVERY_REPORT: [&[&str]; 4] = [
    &["status", "--channel-db=relay.sqlite", "--usage-db=usage.sqlite"],
    &["usage", "--usage-db=usage.sqlite"],
    &["connections", "--channel-db=relay.sqlite"],
    &["connections", "--addresses", "--addrid-db=addrid.sqlite"],
];

/// A server that has all files, a bound client with an open mailbox and one message.
fn busy_server() -> (Server, crate::common::Client) {
    let server = Server::start(&ALL_FILES);
    let mut client = server.connect();
    client.quiet(json!({
        "type": "bind", "appid": "a", "side": "s1", "client_version": ["python", "0.24.0"],
    }));
    let mailbox = client.claim("7");
    client.open(&mailbox);
    client.ask(json!({"type": "add", "phase": "p", "body": "00"}));
    let tracked = "SELECT COUNT(*) FROM connection_messages WHERE name = 'add'";
    sql::wait_for(&server.file("relay.sqlite"), tracked, &json!([[1]]));
    sql::wait_for(
        &server.file("usage.sqlite"),
        "SELECT COUNT(*) FROM client_versions",
        &json!([[1]]),
    );
    (server, client)
}

#[test]
fn a_running_server_is_told_of_by_its_files() {
    let (server, mut client) = busy_server();
    let directory = Arc::clone(&server.directory);
    let status = json_report(&directory, EVERY_REPORT[0]);
    assert_eq!(status["channel"]["nameplates"], 1);
    assert_eq!(status["channel"]["mailboxes"], 1);
    assert_eq!(status["channel"]["messages"], 1);
    assert_eq!(status["channel"]["file"]["version"], 2);
    assert!(status["channel"]["file"]["wal_bytes"].as_u64() > Some(0), "{status}");
    assert_eq!(status["usage"]["current"]["stale"], false);
    assert_eq!(status["server"], Value::Null);
    let text = report(&directory, EVERY_REPORT[0]);
    assert!(text.contains("1 nameplates, 1 mailboxes, 1 messages"), "{text}");
    assert!(!text.contains("STALE"), "{text}");

    let connections = json_report(&directory, EVERY_REPORT[2]);
    let row = &connections["connections"][0];
    assert_eq!(row["address_id"], "addr-1-1");
    assert_eq!(row["side"], "s1");
    assert_eq!((&row["implementation"], &row["version"]), (&json!("python"), &json!("0.24.0")));
    let commands: Vec<&str> =
        row["last_commands"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert!(commands.contains(&"add") && commands.len() <= 5, "{commands:?}");
    assert!(row["commands"].as_u64() > Some(5), "pings are commands too: {row}");
    assert_eq!(row.get("address"), None);
    let text = report(&directory, EVERY_REPORT[2]);
    assert!(text.contains("addr-1-1") && !text.contains("127.0.0.1"), "{text}");
    let text = report(&directory, EVERY_REPORT[3]);
    assert!(text.contains("127.0.0.1") && !text.contains("addr-1-1"), "{text}");

    let usage = json_report(&directory, EVERY_REPORT[1]);
    assert_eq!(usage["clients"]["listed"][0]["implementation"], "python");
    assert_eq!(usage["clients"]["listed"][0]["share"], 1.0);

    // And the server goes on as if nobody had looked.
    client.ask(json!({"type": "add", "phase": "q", "body": "00"}));
    let (status, _) = server.stop();
    assert!(status.success());
    assert!(!directory.file("relay.sqlite-wal").exists());
}

#[test]
fn files_of_a_server_that_was_killed_or_stopped_are_read_and_left_as_they_are() {
    for killed in [true, false] {
        let (server, client) = busy_server();
        let directory = if killed {
            server.kill()
        } else {
            drop(client);
            server.stop().1
        };
        let before = sql::files(&directory);
        assert_eq!(before.contains_key("relay.sqlite-wal"), killed);
        for arguments in EVERY_REPORT {
            report(&directory, arguments);
        }
        let status = json_report(&directory, EVERY_REPORT[0]);
        assert_eq!(status["channel"]["messages"], 1, "killed: {killed}");
        let usage = json_report(&directory, EVERY_REPORT[1]);
        assert_eq!(usage["clients"]["binds"], 1, "killed: {killed}");
        let text = report(&directory, EVERY_REPORT[2]);
        let left_behind = if killed { "1 in all" } else { "No server has the file open" };
        assert!(text.contains(left_behind), "{text}");
        let after = sql::files(&directory);
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
        for (name, bytes) in &before {
            assert!(after[name] == *bytes, "{name} has changed (killed: {killed})");
        }
        // A server can take over as if nobody had looked.
        let server = Server::start_in(directory, &ALL_FILES);
        assert!(server.log().iter().any(|line| line.contains("1 messages")));
    }
}

#[test]
fn a_file_of_the_python_server_is_read_too() {
    let directory = Directory::new();
    let path = directory.file("relay.sqlite");
    sql::create(
        &path,
        &[
            CHANNEL_V1,
            "INSERT INTO mailboxes VALUES ('a', 'mb', 1600000000, 1), ('a', 'mc', 1600000060, 0)",
            "INSERT INTO nameplates VALUES (1, 'a', '4', 'mb', NULL)",
        ],
    );
    let before = sql::files(&directory);
    let status = json_report(&directory, &["status"]);
    assert_eq!(status["channel"]["mailboxes"], 2);
    assert_eq!(status["channel"]["oldest_activity"], 1_600_000_000.0);
    assert_eq!(status["channel"]["newest_activity"], 1_600_000_060.0);
    assert_eq!(status["channel"]["file"]["wal_bytes"], Value::Null);
    let text = report(&directory, &["status"]);
    assert!(text.contains("2020-09-13 12:26:40"), "{text}");
    let error = complaint(&directory, &["connections"], 1);
    assert!(error.contains("version 1") && error.contains("--track-connections"), "{error}");
    assert!(sql::files(&directory) == before);
}

#[test]
fn a_name_with_odd_characters_is_that_file_and_no_other() {
    let directory = Directory::new();
    let name = "a b?mode=rwc#%.sqlite";
    sql::create(&directory.file(name), &[CHANNEL_V1]);
    let status = json_report(&directory, &["status", &format!("--channel-db={name}")]);
    assert_eq!(status["channel"]["mailboxes"], 0);
    assert_eq!(sql::names(&directory), [name]);
}

#[test]
fn what_cannot_be_read_is_one_line_with_status_1_and_nothing_is_made() {
    let directory = Directory::new();
    fs::write(directory.file("text"), "no database at all, but long enough to look at")
        .expect("write");
    fs::create_dir(directory.file("folder")).expect("a directory");
    sql::create(&directory.file("usage.sqlite"), &[USAGE_V1]);
    sql::create(&directory.file("new.sqlite"), &[USAGE_V1, "UPDATE version SET version = 9"]);
    let before = sql::names(&directory);
    for (arguments, parts) in [
        (&["status"][..], &["channel database relay.sqlite", "No such file"][..]),
        (&["usage", "--usage-db=none.sqlite"], &["usage database none.sqlite", "No such file"]),
        (&["usage", "--usage-db=text"], &["text", "not an SQLite file"]),
        (&["usage", "--usage-db=folder"], &["folder", "not a regular file"]),
        (&["usage", "--usage-db=new.sqlite"], &["version 9 is unknown"]),
        (&["status", "--channel-db=usage.sqlite"], &["not a channel database"]),
        (&["connections", "--channel-db=none"], &["channel database none"]),
    ] {
        let error = complaint(&directory, arguments, 1);
        for part in parts {
            assert!(error.contains(part), "{arguments:?}: {error}");
        }
    }
    assert_eq!(sql::names(&directory), before);
}

#[test]
fn a_log_without_its_index_is_said_to_be_one() {
    let (server, _client) = busy_server();
    let directory = server.kill();
    fs::remove_file(directory.file("relay.sqlite-shm")).expect("an index");
    let before = sql::names(&directory);
    let error = complaint(&directory, &["status"], 1);
    assert!(error.contains("-shm"), "{error}");
    assert_eq!(sql::names(&directory), before);
}

#[test]
fn an_empty_log_without_its_index_is_nobodys_and_is_left_alone() {
    let (_, directory) = Server::start(&[]).stop();
    fs::write(directory.file("relay.sqlite-wal"), "").expect("write");
    let before = sql::files(&directory);
    let status = json_report(&directory, &["status"]);
    assert_eq!(status["channel"]["mailboxes"], 0);
    assert!(sql::files(&directory) == before);
}

#[test]
fn what_lies_beside_a_file_of_a_byte_is_left_alone() {
    let (server, _client) = busy_server();
    let directory = server.kill();
    for (text, command) in [("", "status"), ("x", "status"), ("x", "--check-config")] {
        fs::write(directory.file("relay.sqlite"), text).expect("write");
        let before = sql::files(&directory);
        let error = complaint(&directory, &[command, "--channel-db=relay.sqlite"], 1);
        assert!(error.contains("not a channel database"), "{error}");
        assert!(sql::files(&directory) == before, "{command} {text:?}");
    }
}

#[test]
fn mistakes_are_one_line_with_status_2() {
    let directory = Directory::new();
    for (arguments, parts) in [
        (&["statu"][..], &["statu", "status, usage, connections"][..]),
        (&["usage"], &["--usage-db", "must be given"]),
        (&["usage", "--usage-db=u", "--period=year"], &["--period", "day, week, month or all"]),
        (&["usage", "--usage-db=u", "--usage-db=v"], &["--usage-db", "only once"]),
        (&["usage", "--usage-db=:memory:"], &["--usage-db", ":memory:"]),
        (&["usage", "--usage-db="], &["--usage-db", "file name"]),
        (&["usage", "--json=1"], &["--json", "no value"]),
        (&["usage", "more"], &["more", "--help"]),
        (&["usage", "--port=4000"], &["--port", "unknown option"]),
        (&["connections", "--addresses"], &["--addresses", "--addrid-db"]),
        (&["status", "--admin=nowhere"], &["--admin", "nowhere"]),
        (&["status", "--admin"], &["--admin", "ENDPOINT"]),
    ] {
        let error = complaint(&directory, arguments, 2);
        for part in parts {
            assert!(error.contains(part), "{arguments:?}: {error}");
        }
    }
}

#[test]
fn every_command_has_its_help() {
    let directory = Directory::new();
    let all = report(&directory, &["--help"]);
    for (command, options) in [
        ("status", &["--admin", "--channel-db", "--usage-db", "--json"][..]),
        ("usage", &["--usage-db", "--period", "--json"]),
        ("connections", &["--channel-db", "--addrid-db", "--addresses", "--json"]),
    ] {
        assert!(all.contains(&format!("\n  {command}\n")), "{all}");
        for flag in ["--help", "-h"] {
            let help = report(&directory, &[command, flag]);
            assert!(help.contains(&format!("wormhole-mailbox {command} [options]")), "{help}");
            for option in options {
                assert!(help.contains(&format!("\n  {option}")), "{command} {option}: {help}");
            }
        }
    }
}

/// A usage database with endings at these ages in days.
fn usage_db(directory: &Directory, extra: &str) {
    let now = now();
    let mut rows = String::new();
    for (age, result, waiting) in [
        (0.1, "happy", "2"),
        (0.2, "happy", "4"),
        (0.3, "lonely", "NULL"),
        (3.0, "happy", "8"),
        (3.0, "scary", "1"),
        (20.0, "pruney", "NULL"),
        (400.0, "crowded", "1"),
    ] {
        let started = now - age * 86_400.0;
        rows += &format!(
            "INSERT INTO mailboxes VALUES ('a', 1, {started}, 100, {waiting}, '{result}');
             INSERT INTO nameplates VALUES ('a', {started}, {waiting}, 10, 'happy');
             INSERT INTO client_versions VALUES ('a', 's', {started}, 'go', 'v1.0.8');"
        );
    }
    sql::create(&directory.file("usage.sqlite"), &[USAGE_V1, USAGE_V2, &rows, extra]);
}

#[test]
fn usage_counts_results_with_shares_and_times_of_the_period() {
    let directory = Directory::new();
    usage_db(&directory, "");
    let usage = |period: &str| {
        json_report(
            &directory,
            &["usage", "--usage-db=usage.sqlite", &format!("--period={period}")],
        )
    };
    for (period, total, transfers, parts) in
        [("day", 3, 2, 1..=2), ("week", 5, 3, 2..=3), ("month", 6, 3, 3..=4), ("all", 7, 3, 2..=4)]
    {
        let usage = usage(period);
        assert_eq!(usage["mailboxes"]["total"], total, "{period}: {usage}");
        assert_eq!(usage["nameplates"]["total"], total, "{period}");
        assert_eq!(usage["transfers"], transfers, "{period}");
        assert_eq!(usage["clients"]["binds"], total, "{period}");
        let found = usage["parts"].as_array().expect("a list").len();
        assert!(parts.contains(&found), "{period}: {}", usage["parts"]);
    }
    let week = usage("week");
    assert_eq!(week["mailboxes"]["results"]["happy"], json!({"count": 3, "share": 0.6}));
    assert_eq!(week["mailboxes"]["results"]["crowded"], json!({"count": 0, "share": 0.0}));
    assert_eq!(week["waiting_seconds"], json!({"count": 4, "median": 2.0, "p90": 8.0}));
    assert_eq!(week["total_seconds"]["median"], 100.0);
    let default = json_report(&directory, &["usage", "--usage-db=usage.sqlite"]);
    assert_eq!(default["mailboxes"], week["mailboxes"]);
    let text = report(&directory, &["usage", "--usage-db=usage.sqlite"]);
    for part in ["happy", "60.0 %", "Transfers: 3", "go ", "v1.0.8", "100.0 %", "1 min 40 s"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_period_without_anything_and_blurred_times_are_said_to_be_so() {
    let directory = Directory::new();
    let current = format!("INSERT INTO current VALUES (1600000000, {}, 3600, 2)", now() - 400.0);
    sql::create(&directory.file("usage.sqlite"), &[USAGE_V1, USAGE_V2, &current]);
    let text = report(&directory, &["usage", "--usage-db=usage.sqlite"]);
    for part in ["Nothing ended", "No client has come", "rounded down to 1 h"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let usage = json_report(&directory, &["usage", "--usage-db=usage.sqlite"]);
    assert_eq!(usage["blur_seconds"], 3600.0);
    // Without a sign for more than six minutes, no server writes here.
    sql::create(&directory.file("relay.sqlite"), &[CHANNEL_V1]);
    let text = report(&directory, &["status", "--usage-db=usage.sqlite"]);
    assert!(text.contains("STALE") && text.contains("2 with a mailbox open"), "{text}");
    let status = json_report(&directory, &["status", "--usage-db=usage.sqlite"]);
    assert_eq!(status["usage"]["current"]["stale"], true);
}

#[test]
fn a_usage_file_of_version_1_has_no_clients() {
    let directory = Directory::new();
    sql::create(&directory.file("usage.sqlite"), &[USAGE_V1]);
    let text = report(&directory, &["usage", "--usage-db=usage.sqlite"]);
    assert!(text.contains("version 1"), "{text}");
    let usage = json_report(&directory, &["usage", "--usage-db=usage.sqlite"]);
    assert_eq!(usage["clients"], Value::Null);
    assert_eq!(usage["file"]["version"], 1);
}

#[test]
fn clients_beyond_the_listed_ones_are_counted_together() {
    let directory = Directory::new();
    let rows: String = (0..30)
        .map(|number| {
            let now = now();
            format!("INSERT INTO client_versions VALUES ('a', 's', {now}, 'it', 'v{number}');")
        })
        .collect();
    usage_db(&directory, &rows);
    let usage = json_report(&directory, &["usage", "--usage-db=usage.sqlite", "--period=day"]);
    assert_eq!(usage["clients"]["listed"].as_array().expect("a list").len(), 20);
    assert_eq!(usage["clients"]["binds"], 33);
    assert_eq!(usage["clients"]["others"], 11);
    let text = report(&directory, &["usage", "--usage-db=usage.sqlite", "--period=day"]);
    assert!(text.contains("(11 others)"), "{text}");
}

/// Text that would clear the screen, write elsewhere, and turn letters around.
const HOSTILE: &str = "\u{1b}[2J\u{9b}5m\u{202e}\u{7f}\r\n";

fn assert_harmless(text: &str) {
    let hostile = |char: char| char.is_control() && char != '\n' || char == '\u{202e}';
    assert!(!text.contains(hostile), "{text:?}");
}

#[test]
fn texts_that_clients_chose_cannot_steer_the_terminal() {
    let directory = Directory::new();
    let now = now();
    let client = format!(
        "INSERT INTO client_versions VALUES ('a', 's', {now}, '{HOSTILE}', '{HOSTILE}');
        INSERT INTO mailboxes VALUES ('a', 1, {now}, 1, 1, '{HOSTILE}')"
    );
    sql::create(&directory.file("usage.sqlite"), &[USAGE_V1, USAGE_V2, &client]);
    let connection = format!(
        "INSERT INTO connections VALUES (1, 3, 4, {now}, '{HOSTILE}', '{HOSTILE}', '{HOSTILE}', {now});
         INSERT INTO connection_messages VALUES (1, {now}, '{HOSTILE}')"
    );
    sql::create(&directory.file("relay.sqlite"), &[CHANNEL_V1, CHANNEL_V2, &connection]);
    let address = format!("INSERT INTO address_ids VALUES (3, 4, 'ipv4', '{HOSTILE}', NULL)");
    sql::create(&directory.file("addrid.sqlite"), &[ADDRID_V1, &address]);
    for arguments in EVERY_REPORT {
        assert_harmless(&report(&directory, arguments));
        assert_harmless(&report(&directory, &[arguments, &["--json"]].concat()));
    }
    let usage = json_report(&directory, EVERY_REPORT[1]);
    assert_eq!(usage["clients"]["listed"][0]["implementation"], HOSTILE, "JSON loses nothing");
    assert_eq!(usage["mailboxes"]["results"]["other"]["count"], 1);
}

#[test]
fn an_address_that_has_been_erased_stays_a_number() {
    let directory = Directory::new();
    let rows = "INSERT INTO connections VALUES (1, 3, 4, 1.0, 's', NULL, NULL, 2.0);
                INSERT INTO connections VALUES (2, NULL, 'odd', 1.0, NULL, NULL, NULL, 2.0);
                INSERT INTO connection_messages VALUES (NULL, 1.0, 'list')";
    sql::create(&directory.file("relay.sqlite"), &[CHANNEL_V1, CHANNEL_V2, rows]);
    let odd = "INSERT INTO address_ids (counter) VALUES ('odd')";
    sql::create(&directory.file("addrid.sqlite"), &[ADDRID_V1, odd]);
    let text = report(&directory, EVERY_REPORT[3]);
    assert!(text.contains("addr-3-4 (erased)") && text.contains("2 in all"), "{text}");
    let found = json_report(&directory, EVERY_REPORT[3]);
    assert_eq!(found["connections"][0]["address"], Value::Null);
    assert_eq!(found["connections"][1]["address_id"], Value::Null);
}

/// What a server says of itself.
fn told() -> Value {
    json!({
        "version": "0.1.0", "started": 1.0, "now": 2.0, "uptime_seconds": 125.0,
        "health": "ok",
        "connections": {"now": 3, "bound": 2, "subscribed": 1, "max": 100, "accepted": 10,
            "ended": {"peer_closed": 6}},
        "store": {"apps": 1, "nameplates": 5, "mailboxes": 6, "messages": 7, "bytes": 2048,
            "bytes_max": 134_217_728, "nameplates_by_digits": {"1": 5}},
        "storage": {"degraded": false, "files": [
            {"name": "channel", "path": "/var/lib/private/wormhole-mailbox/relay.sqlite", "bytes": 57344,
                "wal_bytes": null}]},
        "traffic": {"received_bytes": 1, "sent_bytes": 1, "messages_stored": 1,
            "messages_delivered": 1, "commands": {"bind": 2, "list": 0}, "errors": {HOSTILE: 1}},
        "process": {"resident_memory_bytes": 9_000_000, "cpu_seconds": 0.05, "open_fds": 14,
            "max_fds": null},
        "results_last_hour": {"happy": 1, "lonely": 0}, "results_last_day": {"happy": 4},
        "latency_last_hour": {"tick": {"p50_seconds": 0.0001, "p99_seconds": 0.002}, "commit": null},
        "clients_last_day": [{"implementation": HOSTILE, "version": null, "binds": 3},
            {"implementation": null, "version": null, "others": true, "binds": 9}],
        "limits_hit": {"address_connections": 1},
    })
}

/// Answers one request with this.
fn answer(mut stream: impl Read + Write, answer: &str) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("a request") == 1 {
        request.push(byte[0]);
    }
    stream.write_all(answer.as_bytes()).expect("an answer");
    String::from_utf8(request).expect("UTF-8")
}

fn assert_told(directory: &Directory, arguments: &[&str]) {
    let text = report(directory, arguments);
    for part in [
        "health       ok",
        "2 min 5 s",
        "3 of 100 (2 bound, 1 with a mailbox open), 10 since the start",
        "6 peer_closed",
        "5 nameplates, 6 mailboxes, 7 messages, 2 KiB of 128 MiB",
        "2 bind",
        "8.6 MiB of memory, 50 ms of CPU time, 14 of - descriptors",
        "half within 100 µs, 99 % within 2 ms",
        "1 happy",
        "9 others",
        "1 address_connections",
        "/var/lib/private/wormhole-mailbox/relay.sqlite: 56 KiB, - of write-ahead log",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_harmless(&text);
    assert!(!text.contains("lonely") && !text.contains("list"), "what did not happen: {text}");
}

#[test]
fn a_running_server_is_asked_over_tcp_and_its_files_are_left_alone() {
    let directory = Directory::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let body = told().to_string();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let server = std::thread::spawn(move || {
        [(); 2].map(|()| answer(listener.accept().expect("a guest").0, &format!("{head}{body}")))
    });
    let admin = format!("--admin={address}");
    assert_told(&directory, &["status", &admin]);
    let status = json_report(&directory, &["status", &admin]);
    assert_eq!(status["server"], told());
    assert_eq!((&status["channel"], &status["usage"]), (&Value::Null, &Value::Null));
    for request in server.join().expect("a server") {
        assert!(request.starts_with("GET /status.json HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nHost: ") && request.contains("\r\nConnection: close\r\n"));
    }
}

#[test]
fn a_server_that_is_not_healthy_is_shown_and_the_status_says_so() {
    let server = Server::start(&["--admin=unix:admin"]);
    let status = ["status", "--admin=unix:admin"];
    assert!(report(&server.directory, &status).contains("health       ok"));
    let path = server.file("relay.sqlite");
    fs::rename(&path, server.file("aside")).expect("rename");
    let mut client = server.bind("app", "s");
    client.send(json!({"type": "allocate"}));
    eventually("a failure", || !run(&server.directory, &status).status.success());
    let expected = "storage unavailable: channel database: the file is missing";
    for arguments in [&status[..], &["status", "--admin=unix:admin", "--json"]] {
        let output = run(&server.directory, arguments);
        let [text, error] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
        assert!(text.contains(expected), "the whole reason: {text}");
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert_eq!(error, format!("wormhole-mailbox: not healthy: {expected}\n"));
    }
    fs::rename(server.file("aside"), &path).expect("rename");
    eventually("health", || run(&server.directory, &status).status.success());
}

#[test]
fn a_running_server_is_asked_over_a_unix_socket_and_named_files_are_read_too() {
    let directory = Directory::new();
    sql::create(&directory.file("c.sqlite"), &[CHANNEL_V1]);
    let listener = UnixListener::bind(directory.file("admin")).expect("a socket");
    let server = std::thread::spawn(move || {
        let text = format!("HTTP/1.1 200 OK\r\n\r\n{}", told());
        answer(listener.accept().expect("a guest").0, &text);
    });
    let admin = format!("--admin=unix:{}", directory.file("admin").display());
    assert_told(&directory, &["status", &admin, "--channel-db=c.sqlite"]);
    server.join().expect("a server");
}

#[test]
fn what_does_not_answer_as_a_server_does_is_said_to_be_something_else() {
    let directory = Directory::new();
    for (text, part) in [
        ("HTTP/1.1 404 Not Found\r\n\r\n", "404"),
        ("HTTP/1.1 200 OK\r\n\r\n{\"now\":", "cut off"),
        ("220 mail.example.org ESMTP\r\n", "HTTP"),
        ("", "HTTP"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let admin = format!("--admin={}", listener.local_addr().expect("an address"));
        let server =
            std::thread::spawn(move || _ = answer(listener.accept().expect("a guest").0, text));
        let error = complaint(&directory, &["status", &admin], 1);
        assert!(error.contains("admin listener 127.0.0.1:") && error.contains(part), "{error}");
        server.join().expect("a server");
    }
    let error = complaint(&directory, &["status", "--admin=unix:nobody.sock"], 1);
    assert!(error.contains("unix:nobody.sock"), "{error}");
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let error = complaint(&directory, &["status", &format!("--admin={free}")], 1);
    assert!(error.contains("refused"), "{error}");
    assert!(sql::names(&directory).is_empty());
}

#[test]
fn a_server_that_stands_still_with_a_full_queue_is_not_waited_for_for_ever() {
    let directory = Directory::new();
    let path = directory.file("admin");
    let listener = UnixListener::bind(&path).expect("a socket");
    rustix::net::listen(&listener, 0).expect("a queue of one");
    let _waits = UnixStream::connect(&path).expect("a connection");
    let error = complaint(&directory, &["status", "--admin=unix:admin"], 1);
    assert!(error.contains("no answer within 5 seconds"), "{error}");
}

#[test]
fn a_server_in_memory_has_no_files_to_be_told_of() {
    let server = Server::start(&["--channel-db=:memory:"]);
    let error = complaint(&server.directory, &["status"], 1);
    assert!(error.contains("relay.sqlite"), "{error}");
    assert!(!Path::new(&server.file("relay.sqlite")).exists());
}
