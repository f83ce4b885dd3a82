//! Files that are removed or replaced while the server runs, and files that two servers want at
//! once: nothing is acknowledged that will be lost.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::common::sql::{self, CHANNEL_V1, CHANNEL_V2};
use crate::common::{Directory, FREE_PORT, PROGRAM, Running, Server, Signal, eventually};
use serde_json::{Value, json};

const BEGINS: &str = "storage failed";
const ENDS: &str = "storage works again";
const TRY_AGAIN_LATER: u16 = 1013;

fn claim(nameplate: &str) -> Value {
    json!({"type": "claim", "nameplate": nameplate})
}

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

/// A database whose messages cannot all be read, which only the load notices.
pub fn damaged_in_the_middle(path: &Path) {
    let rows = "INSERT INTO mailboxes VALUES ('app', 'box', 1, 0);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         INSERT INTO messages SELECT 'app', 'box', 'a', i, hex(zeroblob(500)), 1, NULL FROM n;";
    sql::create(path, &[CHANNEL_V1, rows]);
    let file = fs::File::options().write(true).open(path).expect("open");
    let bytes = file.metadata().expect("metadata").len();
    file.write_all_at(&vec![0xff; bytes as usize / 5], bytes * 2 / 5).expect("write");
}

#[test]
fn why_the_storage_stays_unavailable_is_told_when_it_changes() {
    let mut server = Server::start(&["--admin=tcp:0:interface=127.0.0.1"]);
    let mailbox = server.bind("app", "a").claim("7");
    let (path, aside, other) =
        (server.file("relay.sqlite"), server.file("aside"), server.file("other"));
    let uptime = |status: &Value| status["uptime_seconds"].as_f64().expect("seconds");
    fs::rename(&path, &aside).expect("rename");
    assert_claim_fails(&mut server, "relay.sqlite: the file is missing");
    sql::create(&other, &[CHANNEL_V1, "UPDATE version SET version = 9"]);
    fs::rename(&other, &path).expect("rename");
    server.wait_for_log("relay.sqlite: version 9 is unknown");
    damaged_in_the_middle(&other);
    fs::rename(&other, &path).expect("rename");
    server.wait_for_log("relay.sqlite: the file is damaged");
    let health = server.ask_admin("/healthz");
    assert_eq!(health.status, 503);
    let told =
        health.body.strip_prefix("storage unavailable: channel database: the file is damaged: ");
    assert!(told.is_some(), "{}", health.body);
    let began = uptime(&server.status());
    server.wait_for_status(|status| uptime(status) > began + 2.5); // two tries
    assert_eq!((server.count_log(BEGINS), server.count_log("still unavailable")), (1, 2));
    fs::rename(&aside, &path).expect("rename");
    server.wait_for_log(ENDS);
    assert_nothing_is_lost(server, "7", &mailbox, &[]);
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

/// Uses up what two addresses may have: a nameplate, and joins that have not shown themselves.
fn use_up(server: &Server) {
    const ONE: &str = "192.0.2.1";
    const OTHER: &str = "192.0.2.2";
    server.bind_from(ONE, "app", "a").claim("4");
    let refused = server.bind_from(ONE, "app", "b").error(claim("5"));
    assert!(refused.contains("too many nameplates"), "{refused}");
    for nameplate in ["6", "7", "8", "9"] {
        server.bind("app", "begins").claim(nameplate);
        server.bind_from(OTHER, "app", "joins").claim(nameplate);
    }
    server.bind("app", "begins").claim("10");
    let refused = server.bind_from(OTHER, "app", "joins").error(claim("10"));
    assert!(refused.contains("too many 'claim'"), "{refused}");
}

#[test]
fn nameplates_and_joins_that_went_with_a_file_count_no_more() {
    let options = ["--limit-address-nameplates=1", "--limit-address-connections=4"];
    let mut server = Server::start(&options);
    use_up(&server);
    let other = server.file("other");
    sql::create(&other, &[CHANNEL_V1]);
    fs::rename(&other, server.file("relay.sqlite")).expect("rename");
    assert_claim_fails(&mut server, "relay.sqlite: the file was replaced");
    server.wait_for_log(ENDS);
    use_up(&server);
}

#[test]
fn a_file_that_is_replaced_takes_nothing_from_the_old_log_at_a_stop_or_a_takeover() {
    let other = Server::start(&[]);
    let mailbox = other.bind("app", "a").claim("5");
    let (_, others) = other.stop();
    for is_stopped in [true, false] {
        let mut server = Server::start(&[]);
        for nameplate in ["6", "7", "8"] {
            server.bind("app", "a").claim(nameplate);
        }
        let [path, aside, new] = ["relay.sqlite", "aside", "new"].map(|name| server.file(name));
        fs::copy(others.file("relay.sqlite"), &new).expect("copy");
        fs::rename(&path, &aside).expect("rename");
        fs::rename(&new, &path).expect("rename");
        if is_stopped {
            let (_, directory) = server.stop();
            server = Server::start_in(directory, &[]);
        } else {
            server.signal(Signal::USR2);
            let line = server.wait_for_log("not replaced by");
            assert!(line.contains("the file was replaced"), "{line}");
            assert_claim_fails(&mut server, "relay.sqlite: the file was replaced");
            server.wait_for_log(ENDS);
        }
        // The one that was moved away has all that was acknowledged.
        let acknowledged = "SELECT name FROM nameplates WHERE name < '9' ORDER BY name";
        let names = sql::rows(&aside, acknowledged);
        assert_eq!(names, json!([["6"], ["7"], ["8"]]));
        assert_nothing_is_lost(server, "5", &mailbox, &[]);
    }
}

#[test]
fn a_file_that_is_moved_away_for_good_has_all_that_was_acknowledged() {
    let server = Server::start(&[]);
    let mailbox = server.bind("app", "a").claim("7");
    let aside = server.file("aside");
    fs::rename(server.file("relay.sqlite"), &aside).expect("rename");
    let (_, directory) = server.stop();
    assert_eq!(sql::rows(&aside, "SELECT mailbox_id FROM nameplates"), json!([[mailbox]]));
    // A new file takes nothing from the old log.
    assert!(Server::start_in(directory, &[]).bind("app", "a").list().is_empty());
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
fn a_file_from_which_an_earlier_run_cannot_be_cleared_is_not_served_before_it_can() {
    let mut server = Server::start(&["--track-connections"]);
    server.bind("app", "a").claim("7");
    let (path, other) = (server.file("relay.sqlite"), server.file("other"));
    sql::create(
        &other,
        &[
            CHANNEL_V1,
            CHANNEL_V2,
            "INSERT INTO version VALUES (2); INSERT INTO connections (id) VALUES (1000000);
             CREATE TRIGGER keeping BEFORE DELETE ON connections
             BEGIN SELECT RAISE(ABORT, 'it stays'); END",
        ],
    );
    fs::rename(other, &path).expect("rename");
    assert_claim_fails(&mut server, "relay.sqlite: the file was replaced");
    const JOURNAL_AT: usize = 19; // 2 when it is opened: a write-ahead log
    eventually("it is opened", || fs::read(&path).expect("read")[JOURNAL_AT] == 2);
    sql::open(&path).execute_batch("DROP TRIGGER keeping").expect("drop");
    server.wait_for_log(ENDS);
    assert_eq!(sql::rows(&path, "SELECT id FROM connections WHERE id = 1000000"), json!([]));
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

/// What is moved while a link leads to it keeps what was acknowledged, after a kill as well: SQLite
/// looks for the log beside the file, not beside the link.
#[test]
fn a_file_that_is_moved_and_linked_to_takes_its_log_along() {
    for was_linked_to in [false, true] {
        let directory = Arc::new(Directory::new());
        let path = directory.file("relay.sqlite");
        let mut file = path.clone();
        if was_linked_to {
            file = directory.file("file");
            sql::create(&file, &[CHANNEL_V1]);
            symlink(&file, &path).expect("link");
        }
        let mut server = Server::start_in(directory, &[]);
        let mailbox = server.bind("app", "a").claim("7");
        let moved = server.file("moved");
        fs::rename(&file, &moved).expect("rename");
        if was_linked_to {
            fs::remove_file(&path).expect("remove");
        }
        symlink(&moved, &path).expect("link");
        assert_claim_fails(&mut server, "its '-wal' file was removed or replaced");
        server.wait_for_log(ENDS);
        assert_nothing_is_lost(server, "7", &mailbox, &[]);
    }
}

#[test]
fn a_stop_keeps_what_a_removed_log_held() {
    let server = Server::start(&[]);
    let mailbox = server.bind("app", "a").claim("7");
    fs::remove_file(server.file("relay.sqlite-wal")).expect("remove");
    let (status, directory) = server.stop();
    assert!(status.success());
    let path = directory.file("relay.sqlite");
    assert_eq!(sql::rows(&path, "PRAGMA journal_mode"), json!([["delete"]]));
    assert_eq!(sql::rows(&path, "SELECT id FROM mailboxes"), json!([[mailbox]]));
    assert_nothing_is_lost(Server::start_in(directory, &[]), "7", &mailbox, &[]);
}

/// A claim whose pages are in the database, by a checkpoint of another program, and one whose pages
/// are in the log alone.
fn checkpointed_and_logged(server: &Server) -> [String; 2] {
    let first = server.bind("app", "a").claim("7");
    let other = sql::open(&server.file("relay.sqlite"));
    sql::query(&other, "PRAGMA wal_checkpoint(PASSIVE)");
    [first, server.bind("app", "a").claim("6")]
}

#[test]
fn a_log_that_is_overwritten_where_it_is_does_not_get_into_the_file() {
    let empty = |_: Vec<u8>| Vec::new();
    let half = |log: Vec<u8>| log[..log.len() / 2].to_vec();
    let garbage = |log: Vec<u8>| vec![b'x'; log.len()];
    for overwrite in [empty, half, garbage] as [fn(Vec<u8>) -> Vec<u8>; 3] {
        let mut server = Server::start(&[]);
        let [kept, lost] = checkpointed_and_logged(&server);
        let path = server.file("relay.sqlite-wal");
        let log = overwrite(fs::read(&path).expect("read"));
        fs::write(&path, log).expect("write");
        assert_claim_fails(&mut server, "its '-wal' file was overwritten");
        server.wait_for_log(ENDS);
        let integrity = "PRAGMA integrity_check";
        assert_eq!(sql::rows(&server.file("relay.sqlite"), integrity), json!([["ok"]]));
        assert_ne!(server.bind("app", "a").claim("6"), lost);
        assert_nothing_is_lost(server, "7", &kept, &[]);
    }
}

#[test]
fn a_file_that_is_overwritten_where_it_is_is_opened_with_what_it_holds() {
    for nameplates in [1, 60] {
        let other = Server::start(&[]);
        let mut mailbox = String::new();
        for number in 0..nameplates {
            mailbox = other.bind("app", "a").claim(&(100 + number).to_string());
        }
        let (_, directory) = other.stop();
        let mut server = Server::start(&[]);
        checkpointed_and_logged(&server);
        // Copied into the file, which stays the same inode.
        fs::copy(directory.file("relay.sqlite"), server.file("relay.sqlite")).expect("copy");
        assert_claim_fails(&mut server, "relay.sqlite: the file was replaced");
        server.wait_for_log(ENDS);
        assert_eq!(server.bind("app", "a").list().len(), nameplates);
        assert_nothing_is_lost(server, &(99 + nameplates).to_string(), &mailbox, &[]);
    }
}

#[test]
fn a_file_that_is_cut_is_not_written_any_more() {
    let mut server = Server::start(&[]);
    checkpointed_and_logged(&server);
    let file = fs::File::options().write(true).open(server.file("relay.sqlite")).expect("open");
    file.set_len(file.metadata().expect("metadata").len() / 2).expect("cut");
    assert_claim_fails(&mut server, "relay.sqlite: the file was replaced");
    server.bind("app", "reader").error(json!({"type": "claim", "nameplate": "1"}));
}

#[test]
fn what_other_programs_write_by_the_rules_is_no_overwriting() {
    let server = Server::start(&[]);
    let other = sql::open(&server.file("relay.sqlite"));
    for (number, command) in [
        "PRAGMA wal_checkpoint(PASSIVE)",
        "PRAGMA wal_checkpoint(RESTART)",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "VACUUM",
        "CREATE TABLE theirs AS SELECT zeroblob(100000)",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "DROP TABLE theirs",
        "VACUUM",
        "PRAGMA wal_checkpoint(TRUNCATE)",
    ]
    .into_iter()
    .enumerate()
    {
        sql::query(&other, command);
        server.bind("app", "a").claim(&(10 + number).to_string());
        server.bind("app", "a").claim(&(20 + number).to_string());
    }
    assert_eq!(server.count_log(BEGINS), 0);
}

#[test]
fn a_file_that_is_opened_again_is_locked_as_one_in_use() {
    let mut server = Server::start(&[]);
    let mailbox = server.bind("app", "a").claim("7");
    fs::remove_file(server.file("relay.sqlite-wal")).expect("remove");
    assert_claim_fails(&mut server, "its '-wal' file was removed");
    server.wait_for_log(ENDS);
    // SQLite removes the log when the last program closes the file.
    let other = sql::open(&server.file("relay.sqlite"));
    sql::query(&other, "SELECT * FROM nameplates");
    other.close().expect("close");
    assert_nothing_is_lost(server, "7", &mailbox, &[]);
}

#[test]
fn connections_from_before_a_replacement_leave_no_rows_that_point_to_nothing() {
    let options = ["--track-connections"];
    let mut server = Server::start(&options);
    let path = server.file("relay.sqlite");
    let mut listener = server.bind("app", "listener");
    listener.open("box");
    sql::wait_for(&path, "SELECT side FROM connections", &json!([["listener"]]));
    let other = server.file("other");
    sql::create(&other, &[CHANNEL_V1, CHANNEL_V2]);
    fs::rename(&other, &path).expect("rename");
    assert_claim_fails(&mut server, "relay.sqlite: the file was replaced");
    server.wait_for_log(ENDS);
    listener.one(json!({"type": "list"}));
    let _new = server.bind("app", "new");
    sql::wait_for(&path, "SELECT side FROM connections", &json!([["listener"], ["new"]]));
    let server = Server::start_in(server.kill(), &options);
    server.bind("app", "a").claim("7");
}

#[test]
fn a_usage_file_that_is_replaced_takes_nothing_from_the_old_log_at_a_takeover() {
    let options = ["--usage-db=u.db"];
    let sides = "SELECT side FROM client_versions";
    let other = Server::start(&options);
    drop(other.bind("app", "other"));
    let (_, others) = other.stop();
    let mut server = Server::start(&options);
    let mut client = server.bind("app", "old");
    let path = server.file("u.db");
    sql::wait_for(&path, sides, &json!([["old"]]));
    fs::rename(others.file("u.db"), &path).expect("rename");
    server.replace();
    client.claim("7");
    drop(server.bind("app", "new"));
    sql::wait_for(&path, sides, &json!([["other"], ["new"]]));
    assert_eq!(sql::rows(&path, "PRAGMA integrity_check"), json!([["ok"]]));
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
                command.arg(FREE_PORT).current_dir(directory.path());
                Running(command.stderr(Stdio::piped()).spawn().expect("server starts"))
            };
            let mut servers = [start(), start()];
            let mut ended = 0;
            eventually("one of them ends", || {
                let statuses = servers.each_mut().map(|it| it.0.try_wait().expect("wait"));
                ended = statuses.iter().flatten().count();
                ended > 0
            });
            assert_eq!(ended, 1);
            let mut log = String::new();
            let stderr = servers.iter_mut().find_map(|it| {
                let has_ended = it.0.try_wait().expect("wait").is_some();
                if has_ended { it.0.stderr.take() } else { None }
            });
            stderr.expect("a pipe").read_to_string(&mut log).expect("UTF-8");
            assert_eq!(log.lines().count(), 1, "{log}");
            assert!(log.contains("another server uses it"), "{log}");
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

#[test]
fn what_is_refused_whatever_is_stored_is_told_so_while_the_file_is_missing() {
    let mut server = Server::start(&["--delete"]);
    let [mut unbound, mut first, mut second] =
        [server.connect(), server.bind("app", "a"), server.bind("app", "b")];
    first.claim("7");
    fs::rename(server.file("relay.sqlite"), server.file("aside")).expect("rename");
    assert_claim_fails(&mut server, "missing");
    assert_eq!(unbound.error(claim("8")), "must bind first");
    assert_eq!(first.error(claim("8")), "only one claim per connection");
    let other = json!({"type": "release", "nameplate": "8"});
    assert_eq!(first.error(other), "release and claim must use same nameplate");
    assert_eq!(
        second.error(json!({"type": "release"})),
        "release without nameplate must follow claim"
    );
    assert_eq!(second.error(json!({"type": "close"})), "close without mailbox must follow open");
    assert_eq!(second.error(json!({"type": "open"})), "open requires 'mailbox'");
    let add = json!({"type": "add", "phase": "p", "body": ""});
    assert_eq!(second.error(add), "must open mailbox before adding");
    let delete = json!({"type": "delete", "their-phase": "p", "their-side": "a"});
    assert_eq!(second.error(delete), "must open mailbox before DELETE-ing");
    let close = json!({"type": "close", "mailbox": "m", "mood": 1});
    assert!(second.error(close).starts_with("close requires 'mood' to be "));
    assert!(second.error(claim("8")).contains("storage is unavailable"));
    fs::rename(server.file("aside"), server.file("relay.sqlite")).expect("rename");
    server.wait_for_log(ENDS);
    second.claim("7"); // and was not closed
}
