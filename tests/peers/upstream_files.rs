//! The reference server, 0.8.0 from PyPI, and ours take turns on the same files; and the
//! reference's munin plugins read them while ours runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::common::{Client, Directory, Server, sql};
use crate::programs::{installed, program};
use crate::python_server::{FILES, PythonServer};
use serde_json::{Value, json};

/// A bound connection to either server.
fn bind(address: SocketAddr, appid: &str, side: &str) -> Client {
    let mut client = Client::connect(address);
    assert_eq!(client.recv()["type"], "welcome");
    client.quiet(json!(
        {"type": "bind", "appid": appid, "side": side, "client_version": ["test", "1"]}
    ));
    client
}

/// Adds a message; gives it as it comes back.
fn add(client: &mut Client, phase: &str) -> Value {
    let command =
        json!({"type": "add", "phase": phase, "body": "b0d1", "id": format!("id{phase}")});
    let message = client.one(command);
    assert_eq!(message["type"], "message");
    message
}

/// Everything in a file, as text: a time may be written as an integer or not.
fn contents(directory: &Directory, name: &str) -> BTreeMap<String, Value> {
    sql::contents(&directory.file(name))
}

/// The app and the nameplate of a session, by its name.
fn place_of(session: &str) -> (&str, &str) {
    if session == "other" { ("other", "1") } else { ("app", session) }
}

/// The first or second side of a session. No two sessions share one: 0.8.0 takes a side's claims
/// from it everywhere when one of its mailboxes ends.
fn side_of(session: &str, side: &str) -> String {
    format!("{side} of {session}")
}

/// The mailbox of each session and the messages it must have.
type Sessions = BTreeMap<&'static str, (String, Vec<Value>)>;

/// Sessions in every state that lasts: claimed by one, claimed by two, released by one, closed by
/// one, without nameplate, in two apps.
fn begin_sessions(address: SocketAddr) -> Sessions {
    let mut sessions = Sessions::new();
    for session in ["1", "2", "3", "4", "other"] {
        let (app, nameplate) = place_of(session);
        let mut first = bind(address, app, &side_of(session, "a"));
        let mailbox = first.claim(nameplate);
        first.open(&mailbox);
        let mut messages = vec![add(&mut first, "pake"), add(&mut first, "version")];
        if session != "1" {
            let mut second = bind(address, app, &side_of(session, "b"));
            assert_eq!(second.claim(nameplate), mailbox);
            assert_eq!(second.open(&mailbox), messages);
            messages.push(add(&mut second, "0"));
            if session == "3" || session == "4" {
                second.release();
            }
            if session == "4" {
                assert_eq!(second.one(json!({"type": "close", "mood": "happy"}))["type"], "closed");
            }
        }
        sessions.insert(session, (mailbox, messages));
    }
    let mut lone = bind(address, "app", &side_of("standalone", "a"));
    lone.open("standalone");
    sessions.insert("standalone", ("standalone".to_owned(), vec![add(&mut lone, "pake")]));
    sessions
}

/// Sides come back to the sessions, find everything, and add a message.
fn continue_sessions(address: SocketAddr, sessions: &mut Sessions, phase: &str) {
    for (session, (mailbox, messages)) in sessions {
        let (app, nameplate) = place_of(session);
        let mut first = bind(address, app, &side_of(session, "a"));
        if *session != "standalone" {
            assert_eq!(first.claim(nameplate), *mailbox, "session {session}");
        }
        assert_eq!(first.open(mailbox), *messages, "session {session}");
        messages.push(add(&mut first, phase));
        if matches!(*session, "3" | "4") {
            let mut second = bind(address, app, &side_of(session, "b"));
            let refused = second.error(json!({"type": "claim", "nameplate": nameplate}));
            assert_eq!(refused, "reclaimed", "session {session}");
        }
    }
}

/// All sides that have not done so release and close, happily.
fn end_sessions(address: SocketAddr, sessions: &Sessions) {
    for (session, (mailbox, messages)) in sessions {
        let (app, nameplate) = place_of(session);
        for side in ["a", "b"] {
            if side == "b" && matches!(*session, "1" | "4" | "standalone") {
                continue; // never came, or has closed
            }
            let mut client = bind(address, app, &side_of(session, side));
            if !matches!((*session, side), ("standalone", _) | ("3", "b")) {
                assert_eq!(client.claim(nameplate), *mailbox, "session {session}");
                client.release();
            }
            assert_eq!(client.open(mailbox), *messages, "session {session}");
            let closed = client.one(json!({"type": "close", "mood": "happy"}));
            assert_eq!(closed["type"], "closed");
        }
    }
}

const RESULTS: &str = "SELECT result, COUNT(*) FROM mailboxes GROUP BY result ORDER BY result";

#[test]
#[ignore = "needs the reference server"]
fn from_the_reference_to_ours_and_back_nothing_is_lost() {
    let directory = Arc::new(Directory::new());
    let reference = PythonServer::start_in(Arc::clone(&directory));
    let mut sessions = begin_sessions(reference.address);
    reference.stop();
    let left = contents(&directory, "relay.sqlite");
    let usage_left = contents(&directory, "usage.sqlite");

    let server = Server::start_in(directory, &FILES);
    assert_eq!(contents(&server.directory, "relay.sqlite"), left, "taken as it is");
    continue_sessions(server.address, &mut sessions, "ours");
    let (_, directory) = server.stop();
    let usage = contents(&directory, "usage.sqlite");
    let versions = |tables: &BTreeMap<String, Value>| {
        tables["client_versions"].as_array().expect("rows").clone()
    };
    assert!(versions(&usage).starts_with(&versions(&usage_left)));
    assert!(versions(&usage).len() > versions(&usage_left).len());
    let left = contents(&directory, "relay.sqlite");

    let reference = PythonServer::start_in(Arc::clone(&directory));
    assert_eq!(contents(&directory, "relay.sqlite"), left, "taken as it is");
    continue_sessions(reference.address, &mut sessions, "theirs");
    end_sessions(reference.address, &sessions);
    reference.stop();
    assert_all_ended(&directory);
}

/// All sessions have come to their end, with their results.
fn assert_all_ended(directory: &Directory) {
    let after = contents(directory, "relay.sqlite");
    assert!(after.values().all(|rows| *rows == json!([])), "all ended: {after:?}");
    let results = sql::rows(&directory.file("usage.sqlite"), RESULTS);
    assert_eq!(results, json!([["happy", 4], ["lonely", 2]]));
}

#[test]
#[ignore = "needs the reference server"]
fn from_ours_to_the_reference_and_back_nothing_is_lost() {
    for is_killed in [false, true] {
        let server = Server::start(&FILES);
        let mut sessions = begin_sessions(server.address);
        let directory = if is_killed { server.kill() } else { server.stop().1 };
        let reference = PythonServer::start_in(Arc::clone(&directory));
        continue_sessions(reference.address, &mut sessions, "theirs");
        reference.stop();
        let server = Server::start_in(directory, &FILES);
        continue_sessions(server.address, &mut sessions, "ours");
        end_sessions(server.address, &sessions);
        let (_, directory) = server.stop();
        assert_all_ended(&directory);
    }
}

#[test]
#[ignore = "needs the reference server"]
fn both_create_the_same_tables() {
    let theirs = Arc::new(Directory::new());
    PythonServer::start_in(Arc::clone(&theirs)).stop();
    let (_, ours) = Server::start(&FILES).stop();
    for name in ["relay.sqlite", "usage.sqlite"] {
        let structure = |directory: &Directory| sql::structure(&sql::open(&directory.file(name)));
        assert_eq!(structure(&ours), structure(&theirs), "{name}");
    }
}

/// Runs a plugin; gives what it printed, by name.
fn plugin(python: &Path, plugins: &Path, name: &str, server: &Server) -> BTreeMap<String, u64> {
    let output = Command::new(python)
        .arg(plugins.join(name))
        .env("channeldb", server.file("relay.sqlite"))
        .env("usagedb", server.file("usage.sqlite"))
        .env("python_client_versions", "0.9,1.0")
        .output()
        .expect("python runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {} {stderr}", output.status);
    let stdout = String::from_utf8(output.stdout).expect("text");
    let value = |line: &str| {
        let (key, value) = line.split_once(".value ")?;
        Some((key.to_owned(), value.parse().ok()?))
    };
    stdout.lines().map(|line| value(line).unwrap_or_else(|| panic!("{name}: {line}"))).collect()
}

#[test]
#[ignore = "needs the reference server's munin plugins"]
fn the_munin_plugins_of_the_reference_read_the_live_files() {
    let (python, plugins) = (program("python"), installed("munin"));
    for options in [&FILES[..], &[FILES[0], FILES[1], "--track-connections"]] {
        let server = Server::start(options);
        let mut live = bind(server.address, "app", "live");
        let mailbox = live.claim("7");
        live.open(&mailbox);
        for phase in ["0", "1", "2"] {
            add(&mut live, phase);
        }
        for (number, moods) in
            [&["happy", "happy"][..], &["happy", "scary"], &["happy"], &["errory"]]
                .iter()
                .enumerate()
        {
            let name = format!("{}", 10 + number);
            let mut sides: Vec<Client> = moods
                .iter()
                .enumerate()
                .map(|(side, _)| {
                    let mut client = server.connect();
                    client.quiet(json!({
                        "type": "bind", "appid": "app", "side": format!("{name}-{side}"),
                        "client_version": ["python", format!("0.{}", 8 + number)],
                    }));
                    let mailbox = client.claim(&name);
                    client.open(&mailbox);
                    client
                })
                .collect();
            for client in &mut sides {
                client.release();
            }
            for (client, mood) in sides.iter_mut().zip(*moods) {
                let closed = client.one(json!({"type": "close", "mood": mood}));
                assert_eq!(closed["type"], "closed");
            }
        }
        let usage = server.file("usage.sqlite");
        sql::wait_for(&usage, "SELECT COUNT(*) FROM mailboxes", &json!([[4]]));
        sql::wait_for(&usage, "SELECT COUNT(*) FROM nameplates", &json!([[4]]));

        let moods: &[(&str, u64)] = &[
            ("happy", 1),
            ("scary", 1),
            ("lonely", 1),
            ("errory", 1),
            ("pruney", 0),
            ("crowded", 0),
            ("total", 4),
        ];
        for (name, expected) in [
            ("wormhole_active", &[("nameplates", 1), ("mailboxes", 1), ("messages", 3)][..]),
            ("wormhole_errors", &[("nameplates", 2), ("mailboxes", 3), ("mailboxes_scary", 1)]),
            ("wormhole_event_rate", &[("happy", 1), ("incomplete", 1), ("scary", 1)]),
            ("wormhole_events", moods),
            ("wormhole_events_alltime", moods),
        ] {
            let expected: BTreeMap<String, u64> =
                expected.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
            assert_eq!(plugin(&python, &plugins, name, &server), expected, "{name}");
        }
    }
}
