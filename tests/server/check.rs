//! `wormhole-mailbox check`: an exchange of two clients through a running server.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use crate::common::sql::open;
use crate::common::{Directory, FREE_PORT, Server, eventually, output_of, stdout_of};
use serde_json::{Value, json};

fn checked(url: &str) -> Value {
    serde_json::from_str(&stdout_of(&["check", url, "--json"])).expect("JSON")
}

/// Checks that a check fails with one line on stderr that names this.
fn assert_failure(url: &str, status: i32, named: &[&str]) {
    assert_fails(&[url], status, named);
}

fn assert_fails(arguments: &[&str], status: i32, named: &[&str]) {
    let Output { status: code, stdout, stderr } = output_of(&[&["check"], arguments].concat());
    let error = String::from_utf8(stderr).expect("UTF-8");
    assert_eq!((code.code(), stdout.len()), (Some(status), 0), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    for part in named {
        assert!(error.contains(part), "must name {part:?}: {error}");
    }
}

#[test]
fn a_check_shows_each_step_with_its_time_and_leaves_nothing() {
    let server = Server::start(&[]);
    let text = stdout_of(&["check", &server.url()]);
    let steps =
        ["connect", "allocate", "claim", "replay", "delivery", "release", "close", "in all"];
    for step in steps {
        let line = text.lines().find(|line| line.trim_start().starts_with(step));
        assert!(line.is_some_and(|line| line.ends_with('s')), "{step}: {text}");
    }
    let json = checked(&server.url());
    assert!(json["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{json}");
    assert!(json["steps"].as_array().is_some_and(|steps| steps.len() > 10), "{json}");
    let file = open(&server.file("relay.sqlite"));
    for table in ["nameplates", "mailboxes", "messages", "mailbox_sides", "nameplate_sides"] {
        let sql = format!("SELECT COUNT(*) FROM {table}");
        let rows: i64 = file.query_row(&sql, [], |row| row.get(0)).expect("a count");
        assert_eq!(rows, 0, "{table}");
    }
}

#[test]
fn a_check_goes_through_a_unix_socket_and_passes_a_demand_for_work() {
    let options = [
        "--port=unix:m.sock",
        FREE_PORT,
        "--permission=require",
        "--hashcash-bits=8",
        "--list=decoy",
    ];
    let server = Server::start(&options);
    checked(&format!("unix:{}", server.file("m.sock").display()));
    checked(&server.url());
}

#[test]
fn its_rows_are_left_out_of_results_clients_and_reports() {
    let directory = Arc::new(Directory::new());
    let options = ["--usage-db=usage.sqlite", "--admin=127.0.0.1:0"];
    let server = Server::start_in(Arc::clone(&directory), &options);
    checked(&server.url());
    let usage = server.file("usage.sqlite");
    let rows = |table: &str| {
        let sql = format!("SELECT COUNT(*) FROM {table} WHERE app_id = 'wormhole-mailbox/check'");
        open(&usage).query_row(&sql, [], |row| row.get::<_, i64>(0)).expect("a count")
    };
    eventually("the rows", || {
        (rows("mailboxes"), rows("nameplates"), rows("client_versions")) == (1, 1, 2)
    });
    let metrics = server.ask_admin("/metrics").body;
    let ended = metrics.lines().filter(|line| {
        ["mailboxes_ended_total{", "nameplates_ended_total{", "closes_total{"]
            .iter()
            .any(|name| line.contains(name))
    });
    assert!(ended.clone().count() > 0, "{metrics}");
    for line in ended {
        assert!(line.ends_with(" 0"), "{line}");
    }
    assert_eq!(server.status()["clients_last_day"], json!([]));
    let report = stdout_of(&["usage", &format!("--usage-db={}", usage.display()), "--json"]);
    assert!(!report.contains("wormhole-mailbox check"), "{report}");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["mailboxes"]["total"], 0, "{report}");
    // A restart restores the status page from the rows.
    server.stop();
    let server = Server::start_in(directory, &options);
    let status = server.status();
    assert_eq!(status["clients_last_day"], json!([]));
    let results = status["results_last_day"].as_object().expect("results").clone();
    assert!(results.values().all(|count| count == 0), "{results:?}");
}

#[test]
fn a_failing_step_is_named() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    assert_failure(&format!("ws://{free}/v1"), 1, &["connect", "nothing listens there"]);
    assert_failure("unix:/nonexistent/x.sock", 1, &["connect", "x.sock"]);
    let server = Server::start(&["--signal-error=closed for today"]);
    assert_failure(&server.url(), 1, &["'connect'", "closed for today"]);
    let path = format!("ws://{}/elsewhere", server.address);
    assert_failure(&path, 1, &["'connect'", "404"]);
}

#[test]
fn what_fails_in_the_middle_leaves_nothing() {
    let server = Server::start(&["--limit-mailbox-messages=1"]);
    assert_failure(&server.url(), 1, &["'delivery'", "mailbox is full"]);
    let file = open(&server.file("relay.sqlite"));
    let count = |table: &str| {
        file.query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |row| row.get::<_, i64>(0))
    };
    eventually("nothing is left", || {
        ["nameplates", "mailboxes"].iter().all(|table| count(table).expect("a count") == 0)
    });
}

#[test]
fn a_url_that_cannot_be_checked_is_a_mistake() {
    assert_failure("wss://relay.example/v1", 2, &["TLS", "--via=", "ws://127.0.0.1:4000/v1"]);
    assert_failure("http://localhost:4000", 2, &["http://localhost:4000", "unix:PATH"]);
    assert!(fs::metadata("relay.sqlite").is_err());
}

/// A command with what every Debian has: its stdin and stdout are a connection to the server, which
/// a process of its own reads. The line has quotes, so only a shell understands it.
fn through_bash(server: &Server) -> String {
    let place = server.address.to_string().replace(':', "/");
    format!("--via=bash -c 'exec 3<>/dev/tcp/{place}; cat <&3 & exec cat >&3'")
}

#[test]
fn a_check_talks_through_a_command_by_the_name_that_clients_use() {
    let server = Server::start(&["--log-level=debug"]);
    let via = through_bash(&server);
    let json = stdout_of(&["check", "wss://mailbox.example.org/v1/x", &via, "--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["server"], "wss://mailbox.example.org/v1/…");
    assert!(json["steps"].as_array().is_some_and(|steps| steps.len() > 10), "{json}");
    // Its own steps fail as without a command.
    let server = Server::start(&["--limit-mailbox-bytes=1"]);
    let via = through_bash(&server);
    assert_fails(&["wss://mailbox.example.org/v1", &via], 1, &["'add'"]);
    assert_fails(&["ws://localhost/elsewhere", &via], 1, &["'connect'", "404"]);
}

#[test]
fn a_command_that_fails_is_quoted_in_the_error() {
    let url = "wss://mailbox.example.org/v1";
    assert_fails(&[url, "--via=/nonexistent/x"], 1, &["'connect'", "ended", "/nonexistent/x"]);
    let via = "--via=echo first >&2; echo no route >&2";
    assert_fails(&[url, via], 1, &["'connect'", "ended; the command says 'first / no route'"]);
    assert_fails(&[url, "--via=true"], 1, &["'connect'", "ended"]);
    assert_fails(&[url, "--via=yes"], 1, &["'connect'", "no HTTP"]);
    // The request comes back, and with it the secret of a member: it is not quoted.
    let secret = format!("{url}/0123456789abcdef");
    assert_fails(&[&secret, "--via=cat"], 1, &["'connect': the answer is no HTTP"]);
    assert_fails(&[url, "--via= "], 2, &["--via"]);
    assert_fails(&["unix:x.sock", "--via=true"], 2, &["--via"]);
}

#[test]
fn a_command_that_says_nothing_holds_nothing_up_and_is_gone_afterwards() {
    let directory = Directory::new();
    let pids = directory.file("pids");
    // Neither hears a polite signal, and the second outlives the shell that started it.
    let via = format!(
        "--via=trap '' TERM HUP; sleep 1000 & echo $$ $! >{}; exec sleep 1000",
        pids.display()
    );
    assert_fails(&["wss://mailbox.example.org/v1", &via], 1, &["'connect'", "within 10 seconds"]);
    let pids = fs::read_to_string(pids).expect("the command ran");
    assert_eq!(pids.split_whitespace().count(), 2, "{pids}");
    eventually("both are gone", || {
        pids.split_whitespace().all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    });
}
