//! The usage database: a row for everything that ended, with the right result and times; client
//! versions; the `current` row; and that its troubles are nobody else's.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::sql::{self, CHANNEL_V1, USAGE_V1, USAGE_V2};
use crate::common::{Client, Directory, PATIENCE, Server, Signal, now, process};
use rusqlite::Connection;
use rustix::process::Resource;
use serde_json::{Value, json};

/// "About a second", on a busy machine.
const ABOUT_A_SECOND: Duration = Duration::from_secs(3);

const USAGE: &str = "--usage-db=usage.sqlite";

const NAMEPLATES: &str = "SELECT result FROM nameplates ORDER BY rowid";
const MAILBOXES: &str = "SELECT result FROM mailboxes ORDER BY rowid";

/// A side that has claimed nameplate 7 and opened its mailbox.
fn joined(server: &Server, side: &str) -> Client {
    let mut client = server.bind("app", side);
    let mailbox = client.claim("7");
    client.open(&mailbox);
    client
}

fn release(client: &mut Client) {
    client.release();
}

fn close(client: &mut Client, mood: Value) {
    // A mailbox's other messages may come first.
    let answers = client.ask(json!({"type": "close", "mood": mood}));
    assert_eq!(answers.last().expect("an answer")["type"], "closed");
}

/// Results of a session whose sides close with these moods after they release.
fn results_of(moods: &[Value]) -> (Value, Value) {
    let server = Server::start(&[USAGE]);
    let names = ["a", "b"];
    let mut sides: Vec<Client> =
        moods.iter().zip(names).map(|(_, it)| joined(&server, it)).collect();
    sides.iter_mut().for_each(release);
    sides.iter_mut().zip(moods).for_each(|(side, mood)| close(side, mood.clone()));
    drop(sides); // or the stop would wait for their closes
    let (_, directory) = server.stop();
    let usage = directory.file("usage.sqlite");
    (sql::rows(&usage, NAMEPLATES), sql::rows(&usage, MAILBOXES))
}

#[test]
fn a_session_of_two_is_happy_unless_a_side_says_otherwise_and_the_gravest_mood_counts() {
    for (first, second, result) in [
        ("happy", "happy", "happy"),
        ("happy", "lonely", "lonely"),
        ("errory", "lonely", "errory"),
        ("lonely", "errory", "errory"),
        ("scary", "errory", "scary"),
        ("happy", "scary", "scary"),
        ("happy", "unheard of", "happy"),
    ] {
        let results = results_of(&[json!(first), json!(second)]);
        assert_eq!(results, (json!([["happy"]]), json!([[result]])), "{first} {second}");
    }
    let results = results_of(&[Value::Null, json!("happy")]);
    assert_eq!(results, (json!([["happy"]]), json!([["happy"]])));
}

#[test]
fn records_are_written_once_though_their_log_cannot_be_copied_into_the_file() {
    // So many apps that each bind changes a page of its own, in a file that is longer than its log.
    const APPS: &str = "WITH RECURSIVE apps(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM apps
                                                    WHERE n < 60000)
        INSERT INTO client_versions SELECT printf('%064d', n * 7919 % 1000000), '', n, '', ''
        FROM apps; VACUUM";
    let (_, directory) = Server::start(&[USAGE]).stop();
    let usage = directory.file("usage.sqlite");
    sql::open(&usage).execute_batch(APPS).expect("SQL");
    let server = Server::start_in(directory, &[USAGE]);
    let bytes = usage.metadata().expect("metadata").len();
    process::limit(server.pid(), Resource::Fsize, Some(bytes));
    let bind =
        |number: u64| drop(server.bind(&format!("{:064}", number * 104_729 % 1_000_000), "new"));
    let new = "SELECT COUNT(*) FROM client_versions WHERE side = 'new'";
    let written = |expected: u64| sql::wait_for(&usage, new, &json!([[expected]]));
    for round in 0..8 {
        (round * 300..(round + 1) * 300).for_each(bind);
        written((round + 1) * 300);
    }
    let log = server.file("usage.sqlite-wal").metadata().expect("metadata").len();
    assert!(log > 2_000 * 1024, "it is copied from 2,000 pages on: {log}");
    bind(0);
    written(2_401);
    assert_eq!(server.count_log("usage database fails"), 0);
}

#[test]
fn a_session_of_one_is_lonely_unless_the_side_says_worse() {
    for (mood, result) in [("happy", "lonely"), ("lonely", "lonely"), ("errory", "errory")] {
        assert_eq!(results_of(&[json!(mood)]), (json!([["lonely"]]), json!([[result]])), "{mood}");
    }
}

#[test]
fn a_third_side_makes_it_crowded_whatever_the_moods() {
    let server = Server::start(&[USAGE]);
    let mut sides = [joined(&server, "a"), joined(&server, "b")];
    let mut third = server.bind("app", "c");
    assert_eq!(third.error(json!({"type": "claim", "nameplate": "7"})), "crowded");
    sides.iter_mut().for_each(release);
    sides.iter_mut().for_each(|side| close(side, json!("scary")));
    let usage = server.file("usage.sqlite");
    sql::wait_for(&usage, NAMEPLATES, &json!([["crowded"]]));
    sql::wait_for(&usage, MAILBOXES, &json!([["crowded"]]));
}

#[test]
fn a_third_side_at_the_mailbox_alone_crowds_only_the_mailbox() {
    let server = Server::start(&[USAGE]);
    let mut sides = [joined(&server, "a"), joined(&server, "b")];
    let mailbox = server.bind("app", "a").claim("7");
    let mut third = server.bind("app", "c");
    assert_eq!(third.error(json!({"type": "open", "mailbox": mailbox})), "crowded");
    sides.iter_mut().for_each(release);
    sides.iter_mut().for_each(|side| close(side, json!("happy")));
    let usage = server.file("usage.sqlite");
    sql::wait_for(&usage, NAMEPLATES, &json!([["happy"]]));
    sql::wait_for(&usage, MAILBOXES, &json!([["crowded"]]));
}

#[test]
fn a_nameplate_that_goes_with_its_mailbox_has_no_row_of_its_own() {
    let server = Server::start(&[USAGE]);
    let mut sides = [joined(&server, "a"), joined(&server, "b")];
    sides.iter_mut().for_each(|side| close(side, json!("happy")));
    drop(sides);
    let (_, directory) = server.stop();
    let usage = directory.file("usage.sqlite");
    assert_eq!(sql::rows(&usage, NAMEPLATES), json!([]));
    let mailboxes = "SELECT app_id, for_nameplate, result FROM mailboxes";
    assert_eq!(sql::rows(&usage, mailboxes), json!([["app", 1, "happy"]]));
}

#[test]
fn a_mailbox_without_nameplate_says_so_and_a_late_close_has_a_row_too() {
    let server = Server::start(&[USAGE]);
    let mut client = server.bind("app", "a");
    client.open("box");
    close(&mut client, json!("happy"));
    let mut again = server.bind("app", "a");
    let answer = again.one(json!({"type": "close", "mailbox": "box", "mood": "happy"}));
    assert_eq!(answer["type"], "closed");
    let usage = server.file("usage.sqlite");
    let rows = "SELECT for_nameplate, result, waiting_time FROM mailboxes";
    sql::wait_for(&usage, rows, &json!([[0, "lonely", null], [0, "lonely", null]]));
}

/// A file with a session that sides "a" and "b" began so many seconds ago, and nothing else.
fn session_of_the_past(since_a: f64, since_b: f64, since_update: f64) -> Arc<Directory> {
    let directory = Arc::new(Directory::new());
    let now = now();
    let [a, b, updated] = [now - since_a, now - since_b, now - since_update];
    let rows = format!(
        "INSERT INTO mailboxes VALUES ('app', 'box', {updated}, 1);
         INSERT INTO mailbox_sides VALUES ('box', 1, 'a', {a}, NULL), ('box', 1, 'b', {b}, NULL);
         INSERT INTO nameplates VALUES (1, 'app', '7', 'box', NULL);
         INSERT INTO nameplate_sides VALUES (1, 1, 'a', {a}), (1, 1, 'b', {b});"
    );
    sql::create(&directory.file("relay.sqlite"), &[CHANNEL_V1, &rows]);
    directory
}

/// Starts on that file, ends the session, and checks what `nameplates` and `mailboxes` have.
fn assert_summary(options: &[&str], started: impl Fn(f64) -> bool) {
    let server = Server::start_in(session_of_the_past(100.0, 60.0, 1.0), options);
    for side in ["a", "b"] {
        let mut client = joined(&server, side);
        release(&mut client);
        close(&mut client, json!("happy"));
    }
    let (_, directory) = server.stop();
    for table in ["nameplates", "mailboxes"] {
        let sql = format!("SELECT started, waiting_time, total_time, result FROM {table}");
        let rows = sql::rows(&directory.file("usage.sqlite"), &sql);
        let number = |column: usize| rows[0][column].as_f64().expect("a number");
        assert_eq!(rows.as_array().expect("rows").len(), 1);
        assert!(started(number(0)), "{table}: {rows}");
        assert!((number(1) - 40.0).abs() < 0.001, "{table} waiting: {rows}");
        assert!((100.0..140.0).contains(&number(2)), "{table} total: {rows}");
        assert_eq!(rows[0][3], "happy");
    }
}

#[test]
fn times_run_from_the_first_side_to_the_second_and_to_the_end() {
    let about = now() - 100.0;
    assert_summary(&[USAGE], |started| (started - about).abs() < 20.0);
}

#[test]
fn blurring_rounds_when_it_started_and_leaves_durations_alone() {
    let before = now() - 100.0;
    assert_summary(&[USAGE, "--blur-usage=3600"], |started| {
        started % 3600.0 == 0.0 && started <= before + 20.0 && started > before - 3600.0
    });
}

#[test]
fn what_expires_is_pruney() {
    let directory = session_of_the_past(2000.0, 1990.0, 1000.0);
    let server = Server::start_in(directory, &[USAGE]);
    for table in ["nameplates", "mailboxes"] {
        let rows = format!("SELECT result, ROUND(waiting_time), total_time > 1990 FROM {table}");
        sql::wait_for(&server.file("usage.sqlite"), &rows, &json!([["pruney", 10.0, 1]]));
    }
    assert_eq!(sql::rows(&server.file("relay.sqlite"), "SELECT * FROM mailboxes"), json!([]));
}

#[test]
fn every_bind_is_recorded_with_its_client_version_however_odd() {
    let server = Server::start(&[USAGE]);
    let before = now();
    let cases = [
        (json!(["python", "0.11.0"]), json!(["python", "0.11.0"])),
        (json!(["rust", "1", "more"]), json!(["rust", "1"])),
        (json!([null, "x"]), json!([null, "x"])),
        (json!(["x", null]), json!(["x", null])),
        (json!([1, true]), json!(["1", "true"])),
        (json!([["l"], {"k": 1}]), json!(["[\"l\"]", "{\"k\":1}"])),
        (json!(["", "ü\n"]), json!(["", "ü\n"])),
        (json!([]), json!([null, null])),
        (json!(["alone"]), json!([null, null])),
        (json!("python 1"), json!([null, null])),
        (json!(17), json!([null, null])),
        (json!({"0": "a", "1": "b"}), json!([null, null])),
        (Value::Null, json!([null, null])),
    ];
    let mut expected = vec![json!([null, null])];
    drop(server.bind("app", "side")); // without the key
    for (sent, recorded) in cases {
        let mut client = server.connect();
        client.quiet(json!(
            {"type": "bind", "appid": "app", "side": "side", "client_version": sent}
        ));
        expected.push(recorded);
    }
    let usage = server.file("usage.sqlite");
    let versions = "SELECT implementation, version FROM client_versions ORDER BY rowid";
    sql::wait_for(&usage, versions, &expected.into());
    let common = "SELECT DISTINCT app_id, side FROM client_versions";
    assert_eq!(sql::rows(&usage, common), json!([["app", "side"]]));
    let times =
        sql::rows(&usage, "SELECT MIN(connect_time), MAX(connect_time) FROM client_versions");
    assert!(times[0][0].as_f64().expect("a time") >= before - 0.001);
    assert!(times[0][1].as_f64().expect("a time") <= now());
}

#[test]
fn names_are_cut_to_64_bytes_between_characters() {
    let server = Server::start(&[USAGE]);
    let long = "é".repeat(40);
    let odd = format!("x{long}");
    let mut client = server.connect();
    client.quiet(json!(
        {"type": "bind", "appid": long, "side": odd, "client_version": [odd, long]}
    ));
    client.claim("7");
    client.release();
    client.open("box");
    client.close();
    drop(client);
    let (_, directory) = server.stop();
    let usage = directory.file("usage.sqlite");
    let (even, odd) = ("é".repeat(32), format!("x{}", "é".repeat(31)));
    let versions = "SELECT app_id, side, implementation, version FROM client_versions";
    assert_eq!(sql::rows(&usage, versions), json!([[even, odd, odd, even]]));
    for table in ["nameplates", "mailboxes"] {
        let apps = sql::rows(&usage, &format!("SELECT app_id FROM {table}"));
        assert_eq!(apps, json!([[even]]), "{table}");
    }
}

#[test]
fn of_one_address_a_thousand_binds_are_recorded_and_the_rest_is_counted() {
    let server = Server::start(&[
        USAGE,
        "--limit-exempt=192.0.2.0/24",
        "--limit-address-connect-burst=2000",
        "--expire-check=3600",
    ]);
    for _ in 0..1_004 {
        drop(server.bind("app", "flood"));
    }
    drop(server.bind_from("198.51.100.1", "app", "other"));
    drop(server.bind_from("192.0.2.1", "app", "exempt"));
    let log = server.log();
    let (_, directory) = server.stop();
    let counts = "SELECT side, COUNT(*) FROM client_versions GROUP BY side ORDER BY side";
    let rows = sql::rows(&directory.file("usage.sqlite"), counts);
    let count = |row: usize| rows[row][1].as_u64().expect("a count");
    assert!((1_000..1_004).contains(&count(1)), "{rows}"); // one more every 3.6 s
    assert_eq!((count(0), count(2)), (1, 1), "{rows}");
    let part = "usage of one address that is not recorded";
    assert!(log.iter().any(|line| line.contains(part)), "{log:#?}");
}

#[test]
fn records_older_than_usage_keep_are_deleted_at_the_start_and_at_checks() {
    const DAY_SECONDS: f64 = 86_400.0;
    let directory = Arc::new(Directory::new());
    let age = |days: f64| now() - days * DAY_SECONDS;
    let mut rows = String::new();
    for (days, name) in [(9.0, "old"), (7.001, "old"), (6.99, "new"), (0.0, "new")] {
        let time = age(days);
        rows += &format!(
            "INSERT INTO nameplates VALUES ('{name}', {time}, NULL, 1, 'lonely'); \
             INSERT INTO mailboxes VALUES ('{name}', 0, {time}, 1, NULL, 'lonely'); \
             INSERT INTO client_versions VALUES ('{name}', 's', {time}, NULL, NULL);"
        );
    }
    // More than one portion before these; in one table by a clock that was ahead.
    let many = |table: &str, columns: &str, days: f64| {
        format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 7500) \
             INSERT INTO {table} (app_id, {columns}) SELECT 'many', {} FROM n;",
            age(days)
        )
    };
    let old = many("client_versions", "connect_time", 30.0);
    let ahead = many("mailboxes", "started", -30.0);
    sql::create(&directory.file("usage.sqlite"), &[USAGE_V1, USAGE_V2, &old, &ahead, &rows]);
    let server = Server::start_in(Arc::clone(&directory), &[USAGE, "--usage-keep=7"]);
    let usage = server.file("usage.sqlite");
    for (table, many) in [("nameplates", 0), ("mailboxes", 7500), ("client_versions", 0)] {
        let apps = format!("SELECT app_id, count(*) FROM {table} GROUP BY app_id");
        let new = [json!(["many", many]), json!(["new", 2])];
        let expected = &new[usize::from(many == 0)..];
        sql::wait_for(&usage, &apps, &json!(expected));
    }
}

#[test]
fn a_refused_bind_is_not_recorded() {
    let server = Server::start(&[USAGE]);
    let mut client = server.bind("app", "side");
    client.error(json!({"type": "bind", "appid": "app", "side": "other"}));
    drop(client);
    server.connect().error(json!({"type": "bind", "appid": "app"}));
    let (_, directory) = server.stop();
    let sides = sql::rows(&directory.file("usage.sqlite"), "SELECT side FROM client_versions");
    assert_eq!(sides, json!([["side"]]));
}

#[test]
fn blurring_rounds_the_times_of_client_versions() {
    let before = now();
    let server = Server::start(&[USAGE, "--blur-usage=600"]);
    drop(server.bind("app", "side"));
    let (_, directory) = server.stop();
    let times =
        sql::rows(&directory.file("usage.sqlite"), "SELECT connect_time FROM client_versions");
    let time = times[0][0].as_f64().expect("a time");
    assert_eq!(time % 600.0, 0.0);
    assert!(time > before - 600.0 && time <= now());
}

#[test]
fn the_current_row_is_one_written_at_the_start_and_at_every_check() {
    let directory = Arc::new(Directory::new());
    let old = "INSERT INTO current VALUES (1, 2, 3, 4), (5, 6, 7, 8);";
    sql::create(&directory.file("usage.sqlite"), &[USAGE_V1, USAGE_V2, old]);
    let before = now();
    let server = Server::start_in(directory, &[USAGE, "--expire-check=1"]);
    let usage = server.file("usage.sqlite");
    let sql = "SELECT rebooted, updated, blur_time, connections_websocket FROM current";
    let is_new = |rows: &Value| rows.as_array().is_some_and(|rows| rows.len() == 1);
    let first = sql::wait_until(&usage, sql, is_new);
    let (rebooted, updated) = (first[0][0].as_f64(), first[0][1].as_f64());
    assert!(rebooted.is_some_and(|it| it >= before - 0.001 && it <= now()), "{first}");
    assert!(updated >= rebooted);
    assert_eq!((&first[0][2], &first[0][3]), (&Value::Null, &json!(0)));

    let mut client = server.bind("app", "a");
    client.open("box");
    let _bystander = server.bind("app", "b");
    let later = sql::wait_until(&usage, sql, |rows| rows[0][3] == 1);
    assert_eq!(later.as_array().expect("rows").len(), 1);
    assert_eq!(later[0][0].as_f64(), rebooted);
    assert_eq!(later[0][3], 1, "those with a mailbox open: {later}");
    assert!(later[0][1].as_f64() > updated);
}

#[test]
fn the_current_row_tells_the_blurring_in_force() {
    let server = Server::start(&[USAGE, "--blur-usage=600"]);
    sql::wait_for(&server.file("usage.sqlite"), "SELECT blur_time FROM current", &json!([[600]]));
}

#[test]
fn rows_are_visible_within_about_a_second() {
    let server = Server::start(&[USAGE]);
    let usage = server.file("usage.sqlite");
    for count in 1..=2 {
        let mut client = server.bind("app", "a");
        client.open("box");
        close(&mut client, json!("happy"));
        let ended = Instant::now();
        sql::wait_for(&usage, "SELECT COUNT(*) FROM mailboxes", &json!([[count]]));
        assert!(ended.elapsed() < ABOUT_A_SECOND, "{:?}", ended.elapsed());
    }
}

#[test]
fn a_clean_stop_writes_what_has_just_happened() {
    let server = Server::start(&[USAGE]);
    for _ in 0..50 {
        let mut client = server.bind("app", "a");
        client.open("box");
        close(&mut client, json!("happy"));
    }
    let (status, directory) = server.stop();
    assert!(status.success());
    let usage = directory.file("usage.sqlite");
    assert_eq!(sql::rows(&usage, "SELECT COUNT(*) FROM mailboxes"), json!([[50]]));
    assert_eq!(sql::rows(&usage, "SELECT COUNT(*) FROM client_versions"), json!([[50]]));
}

#[test]
fn a_locked_usage_database_hurts_nobody_and_gets_its_rows_when_it_is_free() {
    let mut server = Server::start(&[USAGE]);
    let usage = server.file("usage.sqlite");
    sql::wait_for(&usage, "SELECT COUNT(*) FROM current", &json!([[1]]));
    let lock = sql::open(&usage);
    lock.execute_batch("BEGIN EXCLUSIVE").expect("lock");
    let session = |number: usize| {
        let mut client = server.bind("app", &format!("side{number}"));
        client.open("box");
        client.one(json!({"type": "add", "phase": "p", "body": "b"}));
        close(&mut client, json!("happy"));
    };
    session(0);
    let failing = "usage database fails";
    let until = Instant::now() + PATIENCE;
    let mut count = 1;
    // Well past a second try to write.
    let mut failing_since = None;
    while failing_since.is_none_or(|since: Instant| since.elapsed() < Duration::from_millis(1500)) {
        assert!(Instant::now() < until, "{:#?}", server.log());
        if failing_since.is_none() && server.count_log(failing) > 0 {
            failing_since = Some(Instant::now());
        }
        session(count);
        count += 1;
    }
    lock.execute_batch("COMMIT").expect("unlock");
    drop(lock);
    server.wait_for_log("usage database works again");
    sql::wait_for(&usage, "SELECT COUNT(*) FROM mailboxes", &json!([[count]]));
    sql::wait_for(&usage, "SELECT COUNT(*) FROM client_versions", &json!([[count]]));
    let said = |part: &str| server.count_log(part);
    assert_eq!((said(failing), said("usage database works again")), (1, 1));
    assert_eq!(said("storage failed"), 0, "the channel database is well");
}

/// A row of `mailboxes` that a lock on the file keeps waiting.
fn row_kept_waiting(server: &Server, side: &str) -> Connection {
    let usage = server.file("usage.sqlite");
    let mut client = joined(server, side);
    let bound = format!("SELECT COUNT(*) FROM client_versions WHERE side = '{side}'");
    sql::wait_for(&usage, &bound, &json!([[1]]));
    let lock = sql::lock(&usage);
    close(&mut client, json!("happy"));
    lock
}

#[test]
fn a_stop_waits_for_a_lock_on_the_usage_database_that_is_brief() {
    let mut server = Server::start(&[USAGE]);
    let lock = row_kept_waiting(&server, "a");
    server.signal(Signal::TERM);
    server.wait_for_log("stopping");
    thread::sleep(Duration::from_millis(150)); // without patience it would have ended
    drop(lock);
    assert!(server.wait().success());
    assert_eq!(sql::rows(&server.file("usage.sqlite"), MAILBOXES), json!([["lonely"]]));
    assert_eq!(server.count_log("are lost"), 0);
}

#[test]
fn rows_that_cannot_be_written_before_the_end_are_told() {
    const LOST: &str = "1 rows of usage are lost";
    let mut server = Server::start(&[USAGE]);
    let lock = row_kept_waiting(&server, "a");
    server.replace();
    drop(lock);
    server.wait_for_log(LOST);
    let usage = server.file("usage.sqlite");
    let lock = row_kept_waiting(&server, "b");
    let began = Instant::now();
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(lock);
    assert_eq!(server.count_log(LOST), 2);
    assert_eq!(sql::rows(&usage, MAILBOXES), json!([]));
}

#[test]
fn a_usage_database_that_is_spoiled_hurts_nobody() {
    let mut server = Server::start(&[USAGE]);
    let usage = server.file("usage.sqlite");
    sql::wait_for(&usage, "SELECT COUNT(*) FROM current", &json!([[1]]));
    sql::open(&usage).execute_batch("DROP TABLE client_versions").expect("SQL");
    let mut client = joined(&server, "a");
    server.wait_for_log("usage database fails");
    client.one(json!({"type": "add", "phase": "p", "body": "b"}));
    close(&mut client, json!("happy"));
    drop(client);
    let (status, _) = server.stop();
    assert!(status.success());
}
