//! Files that are removed or replaced while the server runs, and files that two servers want at
//! once: nothing is acknowledged that will be lost.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::common::sql::{self, CHANNEL_V1};
use crate::common::{Directory, FREE_PORT, PROGRAM, Running, Server, eventually};
use serde_json::{Value, json};

const BEGINS: &str = "storage failed";
const ENDS: &str = "storage works again";
const TRY_AGAIN_LATER: u16 = 1013;

/// A claim that is not acknowledged, because of what happened to the file.
fn assert_claim_fails(server: &mut Server, why: &str) {
    let mut client = server.bind("app", "a");
    client.send(json!({"type": "claim", "nameplate": "9"}));
    assert_eq!(client.close_code(), TRY_AGAIN_LATER);
    let line = server.wait_for_log(BEGINS);
    assert!(line.contains(why), "{line}");
}

/// What was acknowledged is served, and after a restart, too.
fn assert_nothing_is_lost(server: Server, nameplate: &str, mailbox: &str, options: &[&str]) {
    assert_eq!(server.bind("app", "b").claim(nameplate), mailbox);
    let new = server.bind("app", "a").claim("8");
    let server = Server::start_in(server.kill(), options);
    assert_eq!(server.bind("app", "b").claim(nameplate), mailbox);
    assert_eq!(server.bind("app", "b").claim("8"), new);
}

#[test]
fn a_file_that_is_moved_away_is_missed_and_taken_up_again_when_it_is_back() {
    let options = ["--admin=tcp:0:interface=127.0.0.1"];
    let mut server = Server::start(&options);
    let mailbox = server.bind("app", "a").claim("7");
    let (path, aside) = (server.file("relay.sqlite"), server.file("aside"));
    fs::rename(&path, &aside).expect("rename");
    assert_claim_fails(&mut server, "relay.sqlite: the file is missing");
    let health = server.ask_admin("/healthz");
    assert_eq!(health.status, 503);
    assert!(health.body.contains("missing"), "{}", health.body);
    let mut reader = server.bind("app", "reader");
    let error = reader.error(json!({"type": "list"}));
    assert!(error.contains("unavailable"), "{error}");
    assert!(!path.exists(), "it is not made");
    fs::rename(&aside, &path).expect("rename");
    server.wait_for_log(ENDS);
    assert_eq!(server.ask_admin("/healthz").status, 200);
    assert_nothing_is_lost(server, "7", &mailbox, &options);
}

#[test]
fn a_file_that_is_removed_is_not_made_again() {
    let mut server = Server::start(&[]);
    server.bind("app", "a").claim("7");
    let path = server.file("relay.sqlite");
    fs::remove_file(&path).expect("remove");
    assert_claim_fails(&mut server, "relay.sqlite: the file is missing");
    server.bind("app", "reader").error(json!({"type": "claim", "nameplate": "1"}));
    let (status, directory) = server.stop();
    assert!(status.success());
    assert!(!directory.file("relay.sqlite").exists());
}

#[test]
fn a_file_that_is_replaced_is_opened_with_what_it_holds() {
    let mut server = Server::start(&[]);
    server.bind("app", "a").claim("7");
    let path = server.file("relay.sqlite");
    let other = server.file("other");
    let now = crate::common::now();
    let rows = format!(
        "INSERT INTO mailboxes VALUES ('app', 'box', {now}, 1);
         INSERT INTO mailbox_sides VALUES ('box', 1, 'a', {now}, NULL);
         INSERT INTO nameplates VALUES (41, 'app', '5', 'box', NULL);
         INSERT INTO nameplate_sides VALUES (41, 1, 'a', {now});"
    );
    sql::create(&other, &[CHANNEL_V1, &rows]);
    fs::rename(&other, &path).expect("rename");
    assert_claim_fails(&mut server, "relay.sqlite: the file was replaced");
    server.wait_for_log(ENDS);
    assert_eq!(sql::rows(&path, "PRAGMA integrity_check"), json!([["ok"]]));
    assert_nothing_is_lost(server, "5", "box", &[]);
}

#[test]
fn a_file_that_is_replaced_by_one_that_is_in_use_or_no_database_is_not_taken() {
    let mut server = Server::start(&[]);
    server.bind("app", "a").claim("7");
    let path = server.file("relay.sqlite");
    fs::rename(&path, server.file("aside")).expect("rename");
    fs::write(&path, [b'x'; 5000]).expect("write");
    assert_claim_fails(&mut server, "relay.sqlite: the file was replaced");
    let used = Server::start(&[]);
    let mailbox = used.bind("app", "a").claim("6");
    fs::remove_file(&path).expect("remove");
    fs::hard_link(used.file("relay.sqlite"), &path).expect("link");
    server.bind("app", "reader").error(json!({"type": "claim", "nameplate": "1"}));
    assert_eq!(server.count_log(ENDS), 0);
    let (status, _) = used.stop();
    assert!(status.success());
    server.wait_for_log(ENDS);
    // The file that was moved away has all that it held.
    let claim = "SELECT name FROM nameplates WHERE name = '7'";
    let claimed = sql::rows(&server.file("aside"), claim);
    assert_eq!(claimed, json!([["7"]]));
    assert_nothing_is_lost(server, "6", &mailbox, &[]);
}

#[test]
fn a_file_that_is_emptied_is_a_new_one_and_takes_nothing_from_the_old_log() {
    let mut server = Server::start(&[]);
    let old = server.bind("app", "a").claim("7");
    let path = server.file("relay.sqlite");
    fs::write(&path, "").expect("emptied");
    assert_claim_fails(&mut server, "relay.sqlite: the file was replaced");
    server.wait_for_log(ENDS);
    let new = server.bind("app", "a").claim("7");
    assert_ne!(new, old);
    assert_eq!(sql::rows(&path, "PRAGMA integrity_check"), json!([["ok"]]));
    assert_nothing_is_lost(server, "7", &new, &[]);
}

#[test]
fn a_log_that_is_removed_or_replaced_is_missed_and_what_it_held_is_kept() {
    for replaced in [false, true] {
        let mut server = Server::start(&[]);
        let mailbox = server.bind("app", "a").claim("7");
        let log = server.file("relay.sqlite-wal");
        fs::remove_file(&log).expect("remove");
        if replaced {
            fs::write(&log, "").expect("write");
        }
        assert_claim_fails(&mut server, "its '-wal' file was removed or replaced");
        server.wait_for_log(ENDS);
        assert_nothing_is_lost(server, "7", &mailbox, &[]);
    }
}

#[test]
fn a_usage_file_that_is_moved_away_gets_its_rows_when_it_is_back() {
    let mut server = Server::start(&["--usage-db=u.db"]);
    let (path, aside) = (server.file("u.db"), server.file("aside"));
    fs::rename(&path, &aside).expect("rename");
    drop(server.bind("app", "late"));
    let line = server.wait_for_log("usage database fails");
    assert!(line.contains("u.db: the file is missing"), "{line}");
    assert!(!path.exists());
    fs::rename(&aside, &path).expect("rename");
    drop(server.bind("app", "later"));
    server.wait_for_log("usage database works again");
    let sides = "SELECT DISTINCT side FROM client_versions ORDER BY side";
    sql::wait_for(&path, sides, &json!([["late"], ["later"]]));
    assert_eq!(server.count_log(BEGINS), 0);
}

/// Of servers that start at once in one directory exactly one serves, on a file that is whole.
#[test]
fn of_two_first_starts_at_once_one_gets_the_file() {
    for prepare in ["none", "empty"] {
        for _ in 0..30 {
            let directory = Arc::new(Directory::new());
            if prepare == "empty" {
                fs::write(directory.file("relay.sqlite"), "").expect("write");
            }
            let start = || {
                let mut command = Command::new(PROGRAM);
                command.args([FREE_PORT, "--log-level=error"]).current_dir(directory.path());
                Running(command.stderr(Stdio::null()).spawn().expect("server starts"))
            };
            let mut servers = [start(), start()];
            let mut ended = 0;
            eventually("one of them ends", || {
                let statuses = servers.each_mut().map(|it| it.0.try_wait().expect("wait"));
                ended = statuses.iter().flatten().count();
                ended > 0
            });
            assert_eq!(ended, 1);
            eventually("the other has made its file", || {
                fs::metadata(directory.file("relay.sqlite-wal")).is_ok()
            });
            let structure = sql::structure(&sql::open(&directory.file("relay.sqlite")));
            assert_eq!(structure, sql::structure(&sql::in_memory(&[CHANNEL_V1])));
            drop(servers);
            let names = sql::names(&directory);
            let strays: Vec<_> = names.iter().filter(|name| name.contains(".new-")).collect();
            assert_eq!(strays, Vec::<&String>::new());
            let server = Server::start_in(directory, &[]);
            assert_eq!(server.bind("app", "a").open("box"), Vec::<Value>::new());
        }
    }
}
