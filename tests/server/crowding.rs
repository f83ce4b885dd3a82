//! A third side at a nameplate or a mailbox: it is turned away and put on record, and the first
//! two go on as if it had not come.

use crate::common::{Server, sql};
use serde_json::{Value, json};

const NOTHING: [Value; 0] = [];

fn close(server: &Server, side: &str, mailbox: &str) {
    let command = json!({"type": "close", "mailbox": mailbox, "mood": "happy"});
    assert_eq!(server.bind("app", side).one(command), json!({"type": "closed"}));
}

fn release(server: &Server, side: &str) {
    let command = json!({"type": "release", "nameplate": "4"});
    assert_eq!(server.bind("app", side).one(command), json!({"type": "released"}));
}

/// A nameplate "4" that two sides have claimed; gives its mailbox.
fn claimed_by_two(server: &Server) -> String {
    server.bind("app", "first").claim("4");
    server.bind("app", "second").claim("4")
}

/// What each of two strangers gets, again and again.
fn turn_strangers_away(server: &Server, mailbox: &str) {
    for side in ["third", "fourth", "third"] {
        let claim = json!({"type": "claim", "nameplate": "4"});
        assert_eq!(server.bind("app", side).error(claim), "crowded");
        let open = json!({"type": "open", "mailbox": mailbox});
        assert_eq!(server.bind("app", side).error(open), "crowded");
    }
}

#[test]
fn a_third_side_is_refused_however_often_it_tries() {
    let server = Server::start(&[]);
    let mailbox = claimed_by_two(&server);
    turn_strangers_away(&server, &mailbox);
    turn_strangers_away(&server, &mailbox);
}

#[test]
fn a_crowded_claim_uses_up_the_one_claim_and_can_be_released() {
    let server = Server::start(&[]);
    let mailbox = claimed_by_two(&server);
    let mut third = server.bind("app", "third");
    let claim = json!({"type": "claim", "nameplate": "4"});
    assert_eq!(third.error(claim.clone()), "crowded");
    assert_eq!(third.error(claim), "only one claim per connection");
    assert_eq!(
        third.error(json!({"type": "release", "nameplate": "5"})),
        "release and claim must use same nameplate"
    );
    third.release();
    // It released nothing of the others', and is a stranger still, not one who comes back.
    assert_eq!(server.bind("app", "first").claim("4"), mailbox);
    let again = json!({"type": "claim", "nameplate": "4"});
    assert_eq!(server.bind("app", "third").error(again), "crowded");
}

#[test]
fn a_crowded_open_subscribes_to_nothing_and_leaves_the_connection_free_to_open_another() {
    let server = Server::start(&[]);
    for side in ["first", "second"] {
        server.bind("app", side).open("m");
    }
    let mut first = server.bind("app", "first");
    first.open("m");
    let mut third = server.bind("app", "third");
    assert_eq!(third.error(json!({"type": "open", "mailbox": "m"})), "crowded");
    first.one(json!({"type": "add", "phase": "p", "body": "b"}));
    let add = json!({"type": "add", "phase": "p", "body": "b"});
    assert_eq!(third.error(add.clone()), "must open mailbox before adding");
    assert_eq!(third.open("n"), NOTHING);
    assert_eq!(third.one(add)["type"], "message");
}

#[test]
fn the_first_two_sides_go_on_undisturbed_reconnects_included() {
    let server = Server::start(&[]);
    let mailbox = claimed_by_two(&server);
    let (mut first, mut second) = (server.bind("app", "first"), server.bind("app", "second"));
    first.open(&mailbox);
    second.open(&mailbox);
    turn_strangers_away(&server, &mailbox);
    let sent = [first.one(json!({"type": "add", "phase": "p", "body": "b"}))];
    assert_eq!(second.recv(), sent[0]);
    drop((first, second));
    for side in ["first", "second"] {
        assert_eq!(server.bind("app", side).claim("4"), mailbox);
        assert_eq!(server.bind("app", side).open(&mailbox), sent);
    }
    turn_strangers_away(&server, &mailbox);
    release(&server, "first");
    assert_eq!(
        server.bind("app", "first").error(json!({"type": "claim", "nameplate": "4"})),
        "reclaimed"
    );
    // A place that was given up stays given up: its release does not let the third side in.
    turn_strangers_away(&server, &mailbox);
}

#[test]
fn a_stranger_may_release_and_close_and_takes_nothing_with_it() {
    let server = Server::start(&[]);
    let mailbox = claimed_by_two(&server);
    let mut first = server.bind("app", "first");
    first.open(&mailbox);
    let sent = first.one(json!({"type": "add", "phase": "p", "body": "b"}));
    turn_strangers_away(&server, &mailbox);
    for _ in 0..2 {
        release(&server, "third");
        close(&server, "third", &mailbox);
        // One that never tried to come in may leave as well.
        close(&server, "fifth", &mailbox);
        release(&server, "fifth");
    }
    assert_eq!(first.list(), ["4"]);
    assert_eq!(server.bind("app", "second").open(&mailbox), [sent]);
}

#[test]
fn a_crowded_connection_can_close_what_it_tried_to_open() {
    let server = Server::start(&[]);
    let mailbox = claimed_by_two(&server);
    let mut third = server.bind("app", "third");
    third.error(json!({"type": "open", "mailbox": mailbox}));
    let close = json!({"type": "close", "mailbox": mailbox, "mood": "errory"});
    assert_eq!(third.one(close), json!({"type": "closed"}));
}

#[test]
fn a_stranger_does_not_hold_the_nameplate() {
    let server = Server::start(&[]);
    let mailbox = claimed_by_two(&server);
    turn_strangers_away(&server, &mailbox);
    release(&server, "first");
    release(&server, "second");
    let mut client = server.bind("app", "third");
    assert_eq!(client.list(), Vec::<String>::new());
    assert_ne!(client.claim("4"), mailbox);
}

#[test]
fn a_stranger_does_not_hold_the_mailbox() {
    let server = Server::start(&[]);
    let mailbox = claimed_by_two(&server);
    server.bind("app", "first").open(&mailbox);
    turn_strangers_away(&server, &mailbox);
    close(&server, "first", &mailbox);
    close(&server, "second", &mailbox);
    let mut client = server.bind("app", "third");
    assert_eq!(client.list(), Vec::<String>::new());
    assert_eq!(client.open(&mailbox), NOTHING);
}

#[test]
fn a_stranger_is_on_record_as_gone_already_and_renews_nothing() {
    let server = Server::start(&[]);
    let mailbox = claimed_by_two(&server);
    let (_, directory) = server.stop();
    // So that the next activity is written.
    sql::set_back_activity(&directory.file("relay.sqlite"), 100.0);
    let server = Server::start_in(directory, &[]);
    let channel = server.file("relay.sqlite");
    let updated = || sql::rows(&channel, "SELECT updated FROM mailboxes")[0][0].as_f64();
    let before = updated();
    turn_strangers_away(&server, &mailbox);
    release(&server, "third");
    close(&server, "third", &mailbox);
    assert_eq!(updated(), before);
    for held in
        ["claimed FROM nameplate_sides ORDER BY added", "opened FROM mailbox_sides ORDER BY added"]
    {
        let rows = sql::rows(&channel, &format!("SELECT {held}"));
        let rows = rows.as_array().expect("rows");
        assert_eq!(rows[..3], [json!([1]), json!([1]), json!([0])], "{held}");
        // Nor does anyone who comes after leave anything that holds.
        assert!(rows[3..].iter().all(|row| *row == json!([0])), "{held}");
    }
    // One of the two does renew.
    server.bind("app", "first").claim("4");
    assert!(updated() > before);
}

#[test]
fn the_record_of_a_stranger_survives_a_restart_and_locks_nobody_out() {
    let server = Server::start(&[]);
    let mailbox = claimed_by_two(&server);
    turn_strangers_away(&server, &mailbox);
    let (_, directory) = server.stop();
    let server = Server::start_in(directory, &[]);
    for side in ["first", "second"] {
        assert_eq!(server.bind("app", side).claim("4"), mailbox);
        assert_eq!(server.bind("app", side).open(&mailbox), NOTHING);
    }
    turn_strangers_away(&server, &mailbox);
}

#[test]
fn usage_rows_say_crowded() {
    let server = Server::start(&["--usage-db=usage.sqlite"]);
    let mailbox = claimed_by_two(&server);
    turn_strangers_away(&server, &mailbox);
    release(&server, "first");
    release(&server, "second");
    close(&server, "first", &mailbox);
    close(&server, "second", &mailbox);
    let (_, directory) = server.stop();
    let usage = directory.file("usage.sqlite");
    for table in ["nameplates", "mailboxes"] {
        let results = sql::rows(&usage, &format!("SELECT result FROM {table}"));
        assert_eq!(results, json!([["crowded"]]), "{table}");
    }
}

#[test]
fn a_mailbox_that_two_sides_opened_by_its_id_is_crowded_for_a_claim() {
    let server = Server::start(&[]);
    let mailbox = server.bind("app", "first").claim("4");
    server.bind("app", "second").open(&mailbox);
    let mut third = server.bind("app", "third");
    assert_eq!(third.error(json!({"type": "claim", "nameplate": "4"})), "crowded");
    assert_eq!(server.bind("app", "second").claim("4"), mailbox);
    // The third did not take the nameplate's second place either, nor does it hold it.
    release(&server, "first");
    release(&server, "second");
    assert_eq!(third.list(), Vec::<String>::new());
}
