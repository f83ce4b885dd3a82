//! The metrics: a real parser reads them, they are named as the manual says, and they count what
//! happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::common::Server;
use crate::common::client::{MESSAGES_EACH, exchange};
use crate::common::raw::{Raw, TEXT, header};
use serde_json::{Value, json};

const ADMIN: &str = "--admin=0";

/// Samples by name and labels, as they stand in the text.
fn samples(server: &Server) -> BTreeMap<String, f64> {
    let text = server.ask_admin("/metrics").body;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.map(|line| line.rsplit_once(' ').expect("a name and a value"));
    pairs.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

/// One sample; the common beginning of names may be left out.
fn sample(server: &Server, name: &str) -> f64 {
    let samples = samples(server);
    let full = format!("wormhole_mailbox_{name}");
    let value = samples.get(&full).or_else(|| samples.get(name));
    *value.unwrap_or_else(|| panic!("no {name} in {samples:#?}"))
}

#[test]
fn a_message_whose_commit_fails_does_not_count_as_stored() {
    let mut server = Server::start(&[ADMIN]);
    let mut client = server.bind("app", "side");
    client.open("box");
    let add = |phase: &str| json!({"type": "add", "phase": phase, "body": "00"});
    client.one(add("stored"));
    fs::rename(server.file("relay.sqlite"), server.file("aside")).expect("rename");
    client.send(add("lost"));
    server.wait_for_log("storage failed");
    assert_eq!(client.close_code(), 1013);
    assert_eq!(sample(&server, "messages_stored_total"), 1.0);
    assert_eq!(sample(&server, "commands_total{command=\"add\"}"), 2.0);
}

#[test]
fn counters_count_what_happened() {
    let server = Server::start(&[ADMIN]);
    for mood in ["happy", "errory", "happy"] {
        exchange(&server, mood);
    }
    let mut client = server.bind("app", "side");
    client.allocate();
    client.error(json!({"type": "allocate"}));
    client.error(json!({"type": "open"}));
    client.error(json!({"type": "open", "mailbox": 5}));
    client.error(json!({"type": "nonsense"}));
    client.quiet(json!({"type": "open", "mailbox": "box"}));
    server.wait_for_status(|status| status["connections"]["now"] == 1);
    let added = (3 * 2 * MESSAGES_EACH) as f64;
    for (name, value) in [
        ("connections", 1.0),
        ("connections_bound", 1.0),
        ("subscriptions", 1.0),
        ("connections_accepted_total", 7.0),
        ("commands_total{command=\"bind\"}", 7.0),
        ("commands_total{command=\"add\"}", added),
        ("commands_total{command=\"unknown\"}", 1.0),
        ("commands_total{command=\"list\"}", 0.0),
        ("errors_total{error=\"already_allocated\"}", 1.0),
        ("errors_total{error=\"missing_field\"}", 1.0),
        ("errors_total{error=\"invalid_field\"}", 1.0),
        ("errors_total{error=\"unknown_type\"}", 1.0),
        ("messages_stored_total", added),
        ("messages_delivered_total", 2.0 * added),
        ("nameplates{digits=\"1\"}", 1.0),
        ("nameplates{digits=\"4+\"}", 0.0),
        ("mailboxes", 2.0),
        ("messages", 0.0),
        ("apps", 1.0),
        ("nameplates_ended_total{result=\"happy\"}", 3.0),
        ("mailboxes_ended_total{result=\"happy\"}", 2.0),
        ("mailboxes_ended_total{result=\"errory\"}", 1.0),
        ("mailboxes_ended_total{result=\"pruney\"}", 0.0),
        ("closes_total{mood=\"happy\"}", 4.0),
        ("closes_total{mood=\"errory\"}", 2.0),
        ("storage_degraded", 0.0),
        ("commits_failed_total", 0.0),
    ] {
        assert_eq!(sample(&server, name), value, "{name}");
    }
    for name in [
        "received_bytes_total",
        "sent_bytes_total",
        "tick_duration_seconds_count",
        "tick_duration_seconds_sum",
        "commit_duration_seconds_count",
        "commit_changes_sum",
        "database_file_bytes{file=\"channel\"}",
        "wal_pages",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    ] {
        assert!(sample(&server, name) > 0.0, "{name}");
    }
    let commits = sample(&server, "commit_duration_seconds_count");
    assert_eq!(sample(&server, "commit_changes_count"), commits);
    assert_eq!(sample(&server, "commit_changes_bucket{le=\"+Inf\"}"), commits);
}

#[test]
fn nameplates_are_counted_by_their_digits_and_over_a_restart() {
    let server = Server::start(&[ADMIN]);
    let by_digits = |server: &Server| {
        ["1", "2", "3", "4+"]
            .map(|digits| sample(server, &format!("nameplates{{digits=\"{digits}\"}}")))
    };
    let mut clients = Vec::new();
    for (index, name) in ["7", "42", "43", "512", "1234", "0001234567"].into_iter().enumerate() {
        let mut client = server.bind("app", &format!("side {index}"));
        client.claim(name);
        clients.push(client);
    }
    assert_eq!(by_digits(&server), [1.0, 2.0, 1.0, 2.0]);
    clients[1].one(json!({"type": "release", "nameplate": "42"}));
    assert_eq!(by_digits(&server), [1.0, 1.0, 1.0, 2.0]);
    let (_, directory) = server.stop();
    let server = Server::start_in(directory, &[ADMIN]);
    assert_eq!(by_digits(&server), [1.0, 1.0, 1.0, 2.0]);
    assert_eq!(sample(&server, "mailboxes"), 6.0);
}

#[test]
fn subscriptions_are_counted_until_their_mailbox_or_connection_goes() {
    let server = Server::start(&[ADMIN]);
    let mut clients: Vec<_> =
        (0..3).map(|number| server.bind("app", &number.to_string())).collect();
    clients[0].open("shared");
    clients[1].open("shared");
    clients[2].open("alone");
    assert_eq!(sample(&server, "subscriptions"), 3.0);
    clients[2].one(json!({"type": "close"}));
    assert_eq!(sample(&server, "subscriptions"), 2.0);
    // Another connection of each side closes it, and these lose it.
    for side in ["0", "1"] {
        server.bind("app", side).one(json!({"type": "close", "mailbox": "shared"}));
    }
    assert_eq!(sample(&server, "subscriptions"), 0.0);
    clients[0].open("shared");
    assert_eq!(sample(&server, "subscriptions"), 1.0);
    drop(clients);
    server.wait_for_status(|status| status["connections"]["now"] == 0);
    assert_eq!(sample(&server, "subscriptions"), 0.0);
    assert_eq!(sample(&server, "connections_bound"), 0.0);
    assert_eq!(sample(&server, "apps"), 0.0);
}

#[test]
fn ends_are_counted_by_their_reason_and_limits_by_their_name() {
    let server = Server::start(&[
        ADMIN,
        "--limit-message-bytes=1000",
        "--limit-bind-seconds=0.2",
        "--limit-mailbox-messages=1",
    ]);
    let mut long = server.connect();
    long.send_text(&"x".repeat(2_000));
    assert_eq!(long.recv()["type"], "ack");
    assert_eq!(long.recv()["type"], "error");
    drop(long);
    let mut endless = Raw::open(server.address);
    endless.send(&header(TEXT, 1 << 40, true));
    endless.send(&[0; 4]); // the mask
    assert_eq!(endless.close_code(), 1009);
    drop(endless);
    let mut silent = server.connect();
    assert_eq!(silent.close_code(), 1008);
    drop(silent);
    let mut raw = Raw::connect(server.address);
    raw.send(b"GET / HTTP/1.1\r\n\r\n");
    raw.rest();
    drop(raw);
    let mut full = server.bind("app", "side");
    full.open("box");
    full.one(json!({"type": "add", "phase": "1", "body": ""}));
    full.error(json!({"type": "add", "phase": "2", "body": ""}));
    server.wait_for_status(|status| status["connections"]["now"] == 1);
    for (name, value) in [
        ("connections_ended_total{reason=\"message_too_long\"}", 1.0),
        ("connections_ended_total{reason=\"not_bound\"}", 1.0),
        ("connections_ended_total{reason=\"http_answered\"}", 1.0),
        ("limit_hits_total{limit=\"bind_seconds\"}", 1.0),
        ("limit_hits_total{limit=\"mailbox_messages\"}", 1.0),
        ("errors_total{error=\"mailbox_full\"}", 1.0),
        ("errors_total{error=\"message_too_long\"}", 1.0),
        ("limit_hits_total{limit=\"message_bytes\"}", 1.0),
    ] {
        assert_eq!(sample(&server, name), value, "{name}");
    }
}

#[test]
fn the_manual_has_a_row_for_each_metric_and_none_besides() {
    let server = Server::start(&[ADMIN, "--usage-db=usage.sqlite"]);
    exchange(&server, "happy");
    let text = server.ask_admin("/metrics").body;
    let families: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manual/monitoring.md");
    let page = fs::read_to_string(page).expect("a page of the manual");
    let rows: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next())
        .filter(|name| name.starts_with("wormhole_mailbox_") || name.starts_with("process_"))
        .collect();
    assert_eq!(rows, families);
}

#[test]
fn alerts_and_the_dashboard_ask_for_metrics_that_are_there() {
    let server = Server::start(&[ADMIN, "--usage-db=usage.sqlite"]);
    let text = server.ask_admin("/metrics").body;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(".packaging");
    let asked = |name: &str| -> BTreeSet<String> {
        let content = fs::read_to_string(root.join(name)).expect("a file");
        let words = content.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
        let words = words.filter(|it| it.starts_with("wormhole_mailbox_"));
        words.map(|it| it.trim_end_matches("_bucket").to_owned()).collect()
    };
    for name in ["grafana.json", "prometheus/alerts.yml", "prometheus/alerts_test.yml"] {
        let asked = asked(name);
        assert!(asked.len() > 4, "{name}: {asked:?}");
        let unknown: Vec<_> =
            asked.iter().filter(|it| !text.contains(&format!("# TYPE {it} "))).collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
    }
    let dashboard = fs::read_to_string(root.join("grafana.json")).expect("a file");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 4));
}
