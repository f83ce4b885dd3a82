//! Connections whose mailbox was deleted by another connection, and whose mailbox was made anew.

use crate::common::{Server, sql};
use serde_json::{Value, json};

/// Rows of mailboxes in the channel database.
fn mailboxes(server: &Server) -> Value {
    sql::rows(&server.file("relay.sqlite"), "SELECT count(*) FROM mailboxes")[0][0].clone()
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
    orphan.close();
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
        orphan.close();
        assert_eq!(mailboxes(&server), 1, "{app} {side}");
    }
}
