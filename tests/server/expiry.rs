//! The end of what nobody uses: which mailboxes an expiry check deletes, and what it records.
//! Where the time is not the point, it is written into the database instead of waited for.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{Client, Directory, Server, eventually, sql};
use rusqlite::Connection;
use serde_json::{Value, json};

/// Options under which a mailbox lives for a moment.
const SHORT: &[&str] = &["--expire-after=0.8", "--expire-check=0.1", "--usage-db=usage.sqlite"];

/// Asks until the list is as expected.
fn wait_for_list(client: &mut Client, expected: &[&str]) {
    eventually("the list", || client.list() == expected);
}

/// A server with nameplates "1" and "2", each with a mailbox and a message; both idle for 500 s,
/// "2" not quite. Gives its directory and the mailboxes.
fn idle_for_500_seconds() -> (Arc<Directory>, [String; 2]) {
    let server = Server::start(&[]);
    let mailboxes = ["1", "2"].map(|nameplate| {
        let mut client = server.bind("app", "s");
        let mailbox = client.claim(nameplate);
        client.open(&mailbox);
        client.one(json!({"type": "add", "phase": "p", "body": "b"}));
        mailbox
    });
    let (_, directory) = server.stop();
    let db = Connection::open(directory.file("relay.sqlite")).expect("database");
    for (mailbox, seconds) in mailboxes.iter().zip([500.0, 400.0]) {
        let changed = db
            .execute("UPDATE mailboxes SET updated = updated - ? WHERE id = ?", (seconds, mailbox))
            .expect("update");
        assert_eq!(changed, 1);
    }
    (directory, mailboxes)
}

#[test]
fn the_first_check_runs_at_the_start_and_knows_what_was_idle_before() {
    let (directory, [old, young]) = idle_for_500_seconds();
    let server = Server::start_in(directory, &["--expire-after=450"]);
    let mut client = server.bind("app", "s");
    assert_eq!(client.list(), ["2"]);
    assert_eq!(client.open(&old), Vec::<Value>::new());
    assert_eq!(server.bind("app", "s").open(&young).len(), 1);
    assert_ne!(server.bind("app", "s").claim("1"), old);
}

#[test]
fn by_default_660_seconds_pass_before_anything_expires() {
    let (directory, _) = idle_for_500_seconds();
    let server = Server::start_in(directory, &[]);
    assert_eq!(server.bind("app", "s").list(), ["1", "2"]);
    let (_, directory) = server.stop();
    let db = Connection::open(directory.file("relay.sqlite")).expect("database");
    db.execute("UPDATE mailboxes SET updated = updated - 170", []).expect("update");
    drop(db);
    let server = Server::start_in(directory, &[]);
    assert_eq!(server.bind("app", "s").list(), ["2"]);
}

#[test]
fn an_idle_mailbox_goes_and_a_subscribed_one_stays() {
    let server = Server::start(SHORT);
    let mut subscribed = server.bind("app", "s");
    let mailbox = subscribed.claim("1");
    subscribed.open(&mailbox);
    let sent = subscribed.one(json!({"type": "add", "phase": "p", "body": "b"}));
    server.bind("app", "s").claim("2");
    // Younger, and yet it goes first.
    wait_for_list(&mut subscribed, &["1"]);
    assert_eq!(server.bind("app", "s").open(&mailbox), [sent]);
    // A connection that is there but not subscribed is no activity.
    subscribed.one(json!({"type": "close"}));
    let mut watching = server.bind("app", "s");
    wait_for_list(&mut watching, &[]);
}

#[test]
fn a_mailbox_goes_once_its_last_subscriber_is_gone() {
    let server = Server::start(SHORT);
    let mut subscribed = server.bind("app", "s");
    let mailbox = subscribed.claim("1");
    subscribed.open(&mailbox);
    let mut watching = server.bind("app", "s");
    assert_eq!(watching.list(), ["1"]);
    drop(subscribed);
    wait_for_list(&mut watching, &[]);
    assert_eq!(watching.open(&mailbox), Vec::<Value>::new());
}

#[test]
fn what_expired_is_recorded_as_pruney_and_leaves_no_row() {
    let server = Server::start(SHORT);
    let mut watching = server.bind("app", "watching");
    let mailbox = server.bind("app", "first").claim("1");
    server.bind("app", "second").claim("1");
    let mut first = server.bind("app", "first");
    first.open(&mailbox);
    first.one(json!({"type": "add", "phase": "p", "body": "b"}));
    drop(first);
    wait_for_list(&mut watching, &[]);
    drop(watching);
    let (_, directory) = server.stop();
    for table in ["nameplates", "mailboxes"] {
        let sql = format!("SELECT result, total_time FROM {table}");
        let rows = sql::rows(&directory.file("usage.sqlite"), &sql);
        assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows}");
        assert_eq!(rows[0][0], "pruney", "{table}");
        assert!(rows[0][1].as_f64() >= Some(0.8), "{table}: {rows}");
    }
    let left = sql::contents(&directory.file("relay.sqlite"));
    assert!(left.values().all(|rows| *rows == json!([])), "{left:?}");
}

#[test]
fn a_mailbox_that_closed_sides_listen_to_stays_while_they_do() {
    let server = Server::start(SHORT);
    let (mut first, mut second) = (server.bind("app", "first"), server.bind("app", "second"));
    first.open("m");
    second.open("m");
    second.one(json!({"type": "add", "phase": "p", "body": "b"}));
    second.one(json!({"type": "close"}));
    drop(second);
    // Long enough for anything idle to go.
    let mut watching = server.bind("app", "watching");
    server.bind("app", "s").claim("2");
    wait_for_list(&mut watching, &[]);
    assert_eq!(server.bind("app", "second").open("m").len(), 1);
}

#[test]
fn open_add_and_claim_by_one_of_the_two_sides_are_activity() {
    let server = Server::start(&[]);
    let mailbox = server.bind("app", "first").claim("1");
    let (_, mut directory) = server.stop();
    type Activity<'a> = (&'a str, &'a dyn Fn(&Server));
    let activities: [Activity<'_>; 4] = [
        ("claim again", &|server| _ = server.bind("app", "first").claim("1")),
        ("claim by the second side", &|server| _ = server.bind("app", "second").claim("1")),
        ("open", &|server| _ = server.bind("app", "first").open(&mailbox)),
        ("add", &|server| {
            let mut client = server.bind("app", "first");
            client.open(&mailbox);
            client.one(json!({"type": "add", "phase": "p", "body": "b"}));
        }),
    ];
    for (what, act) in activities {
        // Older than the file may be.
        sql::set_back_activity(&directory.file("relay.sqlite"), 100.0);
        let server = Server::start_in(directory, &[]);
        let sql = format!("SELECT updated FROM mailboxes WHERE id = '{mailbox}'");
        let updated = || sql::rows(&server.file("relay.sqlite"), &sql)[0][0].as_f64();
        let before = updated();
        act(&server);
        assert!(updated() >= before.map(|before| before + 100.0), "{what}");
        (_, directory) = server.stop();
    }
}

#[test]
fn activity_within_a_tenth_of_the_lifetime_writes_nothing() {
    let server = Server::start(&[]);
    let updated = || sql::rows(&server.file("relay.sqlite"), "SELECT updated FROM mailboxes");
    let mailbox = server.bind("app", "first").claim("1");
    let created = updated();
    let mut client = server.bind("app", "second");
    client.open(&mailbox);
    client.one(json!({"type": "add", "phase": "p", "body": "b"}));
    assert_eq!(updated(), created);
}

#[test]
fn a_subscriber_counts_as_activity_while_the_storage_fails() {
    const LIFETIME: Duration = Duration::from_secs(3);
    let mut server = Server::start(&["--expire-after=3", "--expire-check=0.2"]);
    let mut subscribed = server.bind("app", "s");
    subscribed.open("box");
    let sent = subscribed.one(json!({"type": "add", "phase": "p", "body": "b"}));
    let lock = sql::lock(&server.file("relay.sqlite"));
    let mut other = server.bind("app", "t");
    other.send(json!({"type": "claim", "nameplate": "1"}));
    assert_eq!(other.close_code(), 1013);
    std::thread::sleep(LIFETIME + LIFETIME / 6);
    drop(subscribed);
    drop(lock);
    server.wait_for_log("storage works again");
    assert_eq!(server.bind("app", "s").open("box"), [sent]);
}
