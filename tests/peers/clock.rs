//! The wall clock is set while the server runs, or was wrong when it wrote its files
//! (manual: rules 5). libfaketime shows the server another wall clock and leaves the monotonic one.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use crate::common::{Client, Directory, FREE_PORT, PROGRAM, Server, eventually, now};
use crate::programs::program;
use rusqlite::Connection;
use serde_json::json;

const YEAR: f64 = 365.0 * 86_400.0;

/// Where the wall clock's offset is read from, in a server's directory.
const OFFSET: &str = "offset";

fn set_clock(directory: &Directory, seconds: f64) {
    // Renamed, so that it is never read in part.
    fs::write(directory.file("new"), format!("{seconds:+}\n")).expect("write");
    fs::rename(directory.file("new"), directory.file(OFFSET)).expect("rename");
}

/// The library that the `faketime` program preloads.
fn library() -> PathBuf {
    let output = Command::new(program("faketime"))
        .args(["-f", "+0", "sh", "-c", "echo $LD_PRELOAD"])
        .output()
        .expect("faketime runs");
    String::from_utf8(output.stdout).expect("UTF-8").trim().into()
}

/// A server whose wall clock is off by that much, and which looks for expired mailboxes often.
fn start(directory: &Arc<Directory>, seconds: f64) -> Server {
    set_clock(directory, seconds);
    let mut command = Command::new(PROGRAM);
    command
        .args([FREE_PORT, "--usage-db=usage.sqlite", "--expire-check=0.05", "--admin=127.0.0.1:0"])
        .env("LD_PRELOAD", library())
        .env("FAKETIME_TIMESTAMP_FILE", directory.file(OFFSET))
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Server::spawn(command, Arc::clone(directory))
}

fn claims(client: &mut Client) -> Vec<String> {
    let answer = client.one(json!({"type": "list"}));
    let nameplates = answer["nameplates"].as_array().expect("a list");
    nameplates.iter().map(|it| it["id"].as_str().expect("a text").to_owned()).collect()
}

fn query<T: rusqlite::types::FromSql>(directory: &Directory, file: &str, sql: &str) -> Vec<T> {
    let db = Connection::open(directory.file(file)).expect("database");
    let mut statement = db.prepare(sql).expect("SQL");
    let rows = statement.query_map([], |row| row.get(0)).expect("rows");
    rows.map(|row| row.expect("a row")).collect()
}

const TIMES: &str = "SELECT updated FROM mailboxes UNION ALL SELECT added FROM mailbox_sides \
                     UNION ALL SELECT added FROM nameplate_sides";

#[test]
#[ignore = "needs faketime"]
fn what_is_stored_keeps_its_age_when_the_clock_is_set() {
    // A router starts in 1970, then learns the time; a clock is far ahead, then set right.
    for wrong in [-56.0 * YEAR, YEAR, -3_600.0, 3_600.0] {
        let directory = Arc::new(Directory::new());
        let mut server = start(&directory, wrong);
        let mailbox = server.bind("app", "s").claim("4");
        let mut client = server.bind("app", "s");
        client.open(&mailbox);
        client.one(json!({"type": "add", "phase": "p", "body": "00"}));
        drop(client);
        let mut connected = server.bind("app", "connected");
        set_clock(&directory, 0.0);
        server.wait_for_log("the clock was set by ");
        // Some checks later it is still there.
        let mut watching = server.bind("other", "watching");
        for name in 0..3 {
            watching = server.bind("other", &format!("{name}"));
            watching.claim(&format!("{name}"));
        }
        drop(watching);
        assert_eq!(connected.one(json!({"type": "ping", "ping": 1}))["type"], "pong");
        assert_eq!(claims(&mut server.bind("app", "s")), ["4"], "{wrong}");
        assert_eq!(server.bind("app", "s").open(&mailbox).len(), 1, "{wrong}");
        for time in query::<f64>(&directory, "relay.sqlite", TIMES) {
            assert!((now() - time).abs() < 300.0, "{wrong}: {time}");
        }
        // It is there after the next start, too, and its end is recorded as it was.
        let (status, directory) = server.stop();
        assert!(status.success());
        let server = start(&directory, 0.0);
        let mut client = server.bind("app", "s");
        assert_eq!(client.open(&mailbox).len(), 1, "{wrong}");
        client.one(json!({"type": "close", "mood": "happy"}));
        drop(client);
        server.stop();
        let total = query::<f64>(&directory, "usage.sqlite", "SELECT total_time FROM mailboxes");
        assert!(total.iter().all(|total| (0.0..300.0).contains(total)), "{wrong}: {total:?}");
    }
}

#[test]
#[ignore = "needs faketime"]
fn client_programs_are_counted_though_the_clock_was_ahead() {
    let directory = Arc::new(Directory::new());
    let mut server = start(&directory, YEAR);
    let bind = |server: &Server, name: &str| {
        server.connect().quiet(json!({
            "type": "bind", "appid": "app", "side": "s", "client_version": [name, "1"],
        }));
    };
    let shows = |server: &Server, names: &[&str]| {
        server.wait_for_status(|status| {
            let clients = status["clients_last_day"].as_array().expect("a list");
            names.iter().all(|name| clients.iter().any(|it| it["implementation"] == *name))
        });
    };
    bind(&server, "before");
    set_clock(&directory, 0.0);
    server.wait_for_log("the clock was set by ");
    bind(&server, "after");
    shows(&server, &["before", "after"]);
    for key in ["now", "started"] {
        let time = server.status()[key].as_f64().expect("a time");
        assert!((now() - time).abs() < 300.0, "{key}: {time}");
    }
    // The next start finds times that are still to come.
    server.stop();
    let server = start(&directory, 0.0);
    bind(&server, "again");
    shows(&server, &["before", "after", "again"]);
}

#[test]
#[ignore = "needs faketime"]
fn a_clock_that_was_ahead_leaves_nothing_that_never_expires() {
    let directory = Arc::new(Directory::new());
    let server = start(&directory, YEAR);
    server.bind("app", "s").claim("4");
    server.stop();
    let server = Server::start_in(
        Arc::clone(&directory),
        &["--usage-db=usage.sqlite", "--expire-after=0.3", "--expire-check=0.1"],
    );
    eventually("it expires", || claims(&mut server.bind("app", "s")).is_empty());
    server.stop();
    let sql = "SELECT total_time FROM mailboxes UNION ALL SELECT total_time FROM nameplates";
    let total = query::<f64>(&directory, "usage.sqlite", sql);
    assert_eq!(total.len(), 2);
    assert!(total.iter().all(|total| (0.0..300.0).contains(total)), "{total:?}");
}
