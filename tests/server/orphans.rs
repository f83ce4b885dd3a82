//! Connections whose mailbox was deleted by another connection, and whose mailbox was made anew.

use crate::common::Server;
use rusqlite::Connection;
use serde_json::json;

/// How many mailboxes the channel database holds.
fn mailboxes(server: &Server) -> u32 {
    let database = Connection::open(server.file("relay.sqlite")).expect("database");
    database.query_row("SELECT count(*) FROM mailboxes", [], |row| row.get(0)).expect("a count")
}

#[test]
fn a_close_after_the_mailbox_was_deleted_closes_the_sides_new_one_of_that_name() {
    let server = Server::start(&[]);
    let mut orphan = server.bind("app", "side");
    orphan.open("box");
    let mut other = server.bind("app", "side");
    assert_eq!(other.one(json!({"type": "close", "mailbox": "box"})), json!({"type": "closed"}));
    assert_eq!(mailboxes(&server), 0);
    server.bind("app", "side").open("box");
    assert_eq!(mailboxes(&server), 1);
    assert_eq!(orphan.one(json!({"type": "close"})), json!({"type": "closed"}));
    assert_eq!(mailboxes(&server), 0);
}

#[test]
fn a_close_after_the_mailbox_was_deleted_leaves_others_alone() {
    for (app, side) in [("app", "stranger"), ("another app", "side")] {
        let server = Server::start(&[]);
        let mut orphan = server.bind("app", "side");
        orphan.open("box");
        server.bind("app", "side").one(json!({"type": "close", "mailbox": "box"}));
        server.bind(app, side).open("box");
        assert_eq!(orphan.one(json!({"type": "close"})), json!({"type": "closed"}));
        assert_eq!(mailboxes(&server), 1, "{app} {side}");
    }
}
