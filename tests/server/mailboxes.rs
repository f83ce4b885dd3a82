//! What open, add and close do to mailboxes: delivery, replay, sides that come and go, the end of
//! a mailbox, and what is recorded of it. A third side is the subject of `crowding.rs`.

use std::fs;

use crate::common::raw::Raw;
use crate::common::{Client, Server, sql};
use serde_json::{Value, json};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;

const NOTHING: [Value; 0] = [];

fn add(client: &mut Client, phase: &str) -> Value {
    client.one(json!({"type": "add", "phase": phase, "body": format!("body of {phase}")}))
}

fn close(client: &mut Client, mailbox: &str, mood: &str) {
    let answer = client.one(json!({"type": "close", "mailbox": mailbox, "mood": mood}));
    assert_eq!(answer, json!({"type": "closed"}));
}

/// The results of all mailboxes in the usage database, oldest first, after a clean stop.
fn mailbox_results(server: Server) -> Value {
    let (status, directory) = server.stop();
    assert!(status.success());
    sql::rows(&directory.file("usage.sqlite"), "SELECT result FROM mailboxes ORDER BY rowid")
}

#[test]
fn what_is_added_comes_to_all_subscribers_and_back_to_the_sender() {
    let server = Server::start(&[]);
    let (mut first, mut second) = (server.bind("app", "first"), server.bind("app", "second"));
    first.open("m");
    second.open("m");
    let mut echo = first.one(json!({"type": "add", "phase": "p", "body": "00ff", "id": "7"}));
    assert_eq!(second.recv(), echo);
    let server_rx = echo.as_object_mut().expect("an object").remove("server_rx");
    assert!(server_rx.is_some_and(|it| it.is_f64()));
    assert_eq!(
        echo,
        json!({"type": "message", "side": "first", "phase": "p", "body": "00ff", "id": "7"})
    );
}

#[test]
fn stored_messages_are_replayed_in_order_of_arrival_and_new_ones_follow() {
    let server = Server::start(&[]);
    let (mut first, mut second) = (server.bind("app", "first"), server.bind("app", "second"));
    first.open("m");
    let mut sent: Vec<Value> = (0..30).map(|number| add(&mut first, &number.to_string())).collect();
    assert_eq!(second.open("m"), sent);
    sent.push(add(&mut second, "answer"));
    assert_eq!(first.recv(), sent[30]);
    sent.push(add(&mut first, "last"));
    assert_eq!(second.recv(), sent[31]);
    assert_eq!(server.bind("app", "first").open("m"), sent);
}

#[test]
fn a_message_added_twice_is_stored_twice() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    client.open("m");
    let sent = [add(&mut client, "p"), add(&mut client, "p")];
    assert_eq!(server.bind("app", "s").open("m"), sent);
}

#[test]
fn two_connections_of_one_side_both_get_everything() {
    let server = Server::start(&[]);
    let (mut one, mut two) = (server.bind("app", "s"), server.bind("app", "s"));
    one.open("m");
    assert_eq!(two.open("m"), NOTHING);
    let sent = add(&mut one, "p");
    assert_eq!(two.recv(), sent);
    let sent = add(&mut two, "q");
    assert_eq!(one.recv(), sent);
}

#[test]
fn a_connection_gone_is_no_subscriber_and_nothing_is_lost_between() {
    let server = Server::start(&[]);
    let (mut first, mut second) = (server.bind("app", "first"), server.bind("app", "second"));
    first.open("m");
    second.open("m");
    let mut sent = vec![add(&mut first, "p")];
    assert_eq!(second.recv(), sent[0]);
    drop(first);
    sent.push(add(&mut second, "q"));
    assert_eq!(server.bind("app", "first").open("m"), sent);
}

#[test]
fn apps_do_not_see_each_others_mailboxes() {
    let server = Server::start(&[]);
    let mut owner = server.bind("app", "s");
    owner.open("m");
    let sent = add(&mut owner, "p");
    let mut stranger = server.bind("other", "s");
    for kind in ["open", "close"] {
        let error = stranger.error(json!({"type": kind, "mailbox": "m"}));
        assert!(error.contains("mailbox") && error.contains("not available"), "{error}");
    }
    // Nothing was used up, and nothing has happened to the mailbox.
    assert_eq!(stranger.open("n"), NOTHING);
    close(&mut stranger, "n", "happy");
    assert_eq!(server.bind("app", "s").open("m"), [sent]);
}

#[test]
fn the_last_close_deletes_the_mailbox_with_its_messages() {
    let server = Server::start(&[]);
    let (mut first, mut second) = (server.bind("app", "first"), server.bind("app", "second"));
    first.open("m");
    second.open("m");
    let sent = add(&mut first, "p");
    second.recv();
    close(&mut first, "m", "happy");
    assert_eq!(server.bind("app", "second").open("m"), [sent]);
    close(&mut second, "m", "happy");
    assert_eq!(server.bind("app", "second").open("m"), NOTHING);
}

#[test]
fn the_last_close_deletes_the_nameplate_even_while_both_sides_claim_it() {
    let server = Server::start(&["--usage-db=usage.sqlite"]);
    let (mut first, mut second) = (server.bind("app", "first"), server.bind("app", "second"));
    let mailbox = first.claim("4");
    assert_eq!(second.claim("4"), mailbox);
    close(&mut first, &mailbox, "happy");
    close(&mut second, &mailbox, "happy");
    let list = first.one(json!({"type": "list"}));
    assert_eq!(list["nameplates"], json!([]));
    assert_ne!(server.bind("app", "first").claim("4"), mailbox);
    // The nameplate went with its mailbox, without a usage row of its own.
    drop((first, second));
    let (_, directory) = server.stop();
    let usage = sql::contents(&directory.file("usage.sqlite"));
    let counts = ["nameplates", "mailboxes"].map(|table| usage[table].as_array().map(Vec::len));
    assert_eq!(counts, [Some(0), Some(1)]);
}

#[test]
fn deleting_one_mailbox_leaves_the_sides_of_others_alone() {
    let server = Server::start(&[]);
    let one = server.bind("app", "s").claim("1");
    let two = server.bind("app", "s").claim("2");
    close(&mut server.bind("app", "s"), &one, "happy");
    let mut client = server.bind("app", "s");
    assert_eq!(client.claim("2"), two);
    // Still claimed by this side, so this release is the last one.
    client.one(json!({"type": "release"}));
    assert_eq!(client.one(json!({"type": "list"}))["nameplates"], json!([]));
}

#[test]
fn a_close_names_no_mailbox_or_the_open_one_and_needs_no_mood() {
    let server = Server::start(&[]);
    for command in [
        json!({"type": "close"}),
        json!({"type": "close", "mood": null}),
        json!({"type": "close", "mailbox": "m"}),
        json!({"type": "close", "mailbox": "m", "mood": "of its own"}),
    ] {
        let mut client = server.bind("app", "s");
        client.open("m");
        add(&mut client, "p");
        assert_eq!(client.one(command), json!({"type": "closed"}));
        assert_eq!(server.bind("app", "s").open("m"), NOTHING);
        close(&mut server.bind("app", "s"), "m", "happy");
    }
}

#[test]
fn after_a_close_nothing_more_is_delivered() {
    let server = Server::start(&[]);
    let (mut first, mut second) = (server.bind("app", "first"), server.bind("app", "second"));
    first.open("m");
    second.open("m");
    first.one(json!({"type": "close"}));
    add(&mut second, "p");
    assert_eq!(first.one(json!({"type": "ping", "ping": 1}))["pong"], 1);
}

#[test]
fn open_works_again_after_a_close_and_close_does_not() {
    let server = Server::start(&[]);
    let (mut first, mut second) = (server.bind("app", "first"), server.bind("app", "second"));
    first.open("m");
    second.open("m");
    let before = add(&mut second, "p");
    first.recv();
    first.one(json!({"type": "close"}));
    assert_eq!(first.open("m"), [before]);
    let after = add(&mut second, "q");
    assert_eq!(first.recv(), after);
    add(&mut first, "r");
    assert_eq!(first.error(json!({"type": "close"})), "only one close per connection");
}

#[test]
fn another_mailbox_can_be_opened_after_a_close() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    client.open("m");
    client.one(json!({"type": "close"}));
    assert_eq!(client.open("n"), NOTHING);
    let sent = add(&mut client, "p");
    assert_eq!(server.bind("app", "s").open("n"), [sent]);
}

#[test]
fn a_side_that_opens_again_after_its_close_does_not_keep_the_mailbox() {
    let server = Server::start(&[]);
    let (mut first, mut second) = (server.bind("app", "first"), server.bind("app", "second"));
    first.open("m");
    second.open("m");
    first.one(json!({"type": "close"}));
    let mut again = server.bind("app", "first");
    again.open("m");
    let sent = add(&mut second, "p");
    assert_eq!(again.recv(), sent);
    second.one(json!({"type": "close"}));
    assert_eq!(server.bind("app", "second").open("m"), NOTHING);
}

#[test]
fn a_mailbox_deleted_elsewhere_is_open_no_more() {
    let server = Server::start(&[]);
    let (mut first, mut second) = (server.bind("app", "first"), server.bind("app", "second"));
    first.open("m");
    second.open("m");
    let mut late = server.bind("app", "first");
    late.open("m");
    first.one(json!({"type": "close"}));
    second.one(json!({"type": "close"}));
    let command = json!({"type": "add", "phase": "p", "body": "b"});
    assert_eq!(late.error(command), "must open mailbox before adding");
    // Nothing was stored, not even for a mailbox of the same id that comes later.
    assert_eq!(server.bind("app", "second").open("m"), NOTHING);
    let sent = add(&mut second_connection(&server), "q");
    assert_eq!(late.open("m"), [sent]);
}

/// A connection of the second side with the mailbox open.
fn second_connection(server: &Server) -> Client {
    let mut client = server.bind("app", "second");
    client.open("m");
    client
}

#[test]
fn a_mailbox_deleted_elsewhere_can_still_be_closed() {
    let server = Server::start(&[]);
    for command in [json!({"type": "close"}), json!({"type": "close", "mailbox": "m"})] {
        let (mut one, mut two) = (server.bind("app", "s"), server.bind("app", "s"));
        one.open("m");
        two.open("m");
        one.one(json!({"type": "close"}));
        assert_eq!(two.one(command), json!({"type": "closed"}));
    }
}

#[test]
fn a_close_by_name_on_a_new_connection_closes_for_the_side() {
    let server = Server::start(&["--usage-db=usage.sqlite"]);
    let mut first = server.bind("app", "first");
    first.open("m");
    add(&mut first, "p");
    drop(first);
    close(&mut server.bind("app", "first"), "m", "happy");
    assert_eq!(server.bind("app", "first").open("m"), NOTHING);
    assert_eq!(mailbox_results(server), json!([["lonely"]]));
}

#[test]
fn a_close_can_be_repeated_after_the_mailbox_is_gone_and_is_recorded_each_time() {
    let server = Server::start(&["--usage-db=usage.sqlite"]);
    let (mut first, mut second) = (server.bind("app", "first"), server.bind("app", "second"));
    first.open("m");
    second.open("m");
    close(&mut first, "m", "happy");
    close(&mut second, "m", "happy");
    drop((first, second));
    close(&mut server.bind("app", "first"), "m", "happy");
    close(&mut server.bind("app", "first"), "m", "scary");
    assert_eq!(mailbox_results(server), json!([["happy"], ["lonely"], ["scary"]]));
}

#[test]
fn the_gravest_mood_is_the_result() {
    let server = Server::start(&["--usage-db=usage.sqlite"]);
    let cases = [
        ("happy", "happy", "happy"),
        ("happy", "lonely", "lonely"),
        ("errory", "lonely", "errory"),
        ("errory", "scary", "scary"),
        ("scary", "happy", "scary"),
        ("of its own", "happy", "happy"),
    ];
    for (first_mood, second_mood, _) in cases {
        let (mut first, mut second) = (server.bind("app", "first"), server.bind("app", "second"));
        first.open("m");
        second.open("m");
        close(&mut first, "m", first_mood);
        close(&mut second, "m", second_mood);
    }
    assert_eq!(mailbox_results(server), json!(cases.map(|(_, _, result)| [result])));
}

#[test]
fn the_ninth_connection_of_a_side_in_a_mailbox_closes_the_first() {
    let server = Server::start(&[]);
    let mut other = server.bind("app", "other");
    other.open("box");
    let mut clients: Vec<_> = (0..8).map(|_| server.bind("app", "side")).collect();
    for client in &mut clients {
        client.open("box");
    }
    let mut ninth = server.bind("app", "side");
    ninth.open("box");
    assert_eq!(clients[0].close_code(), 1008);
    other.send(json!({"type": "add", "phase": "p", "body": "to all"}));
    for client in clients.iter_mut().skip(1).chain([&mut ninth]) {
        assert_eq!(client.recv()["body"], "to all");
    }
}

#[test]
fn the_first_of_a_side_is_the_one_that_connected_first_in_whatever_order_they_opened() {
    let server = Server::start(&[]);
    let mut clients: Vec<_> = (0..8).map(|_| server.bind("app", "side")).collect();
    for client in clients.iter_mut().rev() {
        client.open("box");
    }
    server.bind("app", "side").open("box");
    assert_eq!(clients[0].close_code(), 1008);
}

#[test]
fn a_connection_that_is_being_closed_makes_room_for_another_of_its_side() {
    let server = Server::start(&[]);
    let mut clients: Vec<_> = (0..8).map(|_| server.bind("app", "side")).collect();
    for client in &mut clients {
        client.open("box");
    }
    let leaving = clients.last_mut().expect("eight");
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    leaving.socket.close(Some(frame)).expect("close");
    assert_eq!(leaving.close_code(), 1000); // and the TCP connection stays
    let mut ninth = server.bind("app", "side");
    ninth.open("box");
    add(&mut ninth, "p");
    for client in &mut clients[..7] {
        assert_eq!(client.recv()["phase"], "p");
    }
}

#[test]
fn nothing_follows_a_close_frame() {
    let mut server = Server::start(&[]);
    let (mut raw, mut other) = (Raw::open(server.address), server.bind("app", "other"));
    raw.send_json(&json!({"type": "bind", "appid": "app", "side": "raw"}));
    raw.send_json(&json!({"type": "claim", "nameplate": "4"}));
    let [_, _, claimed] = [(); 3].map(|()| raw.json());
    raw.send_json(&json!({"type": "open", "mailbox": claimed["mailbox"]}));
    assert_eq!(raw.json()["type"], "ack");
    other.open(claimed["mailbox"].as_str().expect("a mailbox"));
    // A `release` that is refused closes the connection as soon as the storage works again.
    fs::rename(server.file("relay.sqlite"), server.file("aside")).expect("rename");
    server.bind("app", "third").send(json!({"type": "allocate"}));
    server.wait_for_log("storage failed");
    raw.send_json(&json!({"type": "release"}));
    assert_eq!([raw.json()["type"].clone(), raw.json()["type"].clone()], ["ack", "error"]);
    fs::rename(server.file("aside"), server.file("relay.sqlite")).expect("rename");
    server.wait_for_log("storage works again");
    add(&mut other, "p");
    assert_eq!(raw.close_code(), 1013);
}
