//! Draft extensions of the protocol, each off unless an option turns it on: claims that do not
//! allocate, nameplates that cool down, lists that tell nothing.

use crate::common::{Client, Server, eventually};
use serde_json::{Value, json};

fn claim(nameplate: &str, allocate: Value) -> Value {
    json!({"type": "claim", "nameplate": nameplate, "allocate": allocate})
}

#[test]
fn by_default_a_claim_allocates_whatever_it_says() {
    let server = Server::start(&[]);
    for (number, allocate) in [json!(true), json!(false), json!(null), json!(3)].iter().enumerate()
    {
        let mut client = server.bind("app", "side");
        let answer = client.one(claim(&number.to_string(), allocate.clone()));
        assert_eq!(answer["type"], "claimed", "{allocate}");
    }
}

#[test]
fn a_claim_that_does_not_allocate_finds_a_nameplate_or_fails_and_is_not_used_up() {
    let server = Server::start(&["--claim-without-allocate"]);
    let mut client = server.bind("app", "a");
    for _ in 0..2 {
        assert_eq!(client.error(claim("4", json!(false))), "unallocated");
    }
    assert_eq!(client.list(), Vec::<String>::new());
    // Another app's is none of ours.
    let elsewhere = server.bind("other", "a").claim("4");
    assert_eq!(client.error(claim("4", json!(false))), "unallocated");
    let mailbox = client.claim("4");
    assert_ne!(mailbox, elsewhere);
    assert_eq!(client.error(claim("4", json!(false))), "only one claim per connection");

    let mut peer = server.bind("app", "b");
    assert_eq!(peer.one(claim("4", json!(false)))["mailbox"], json!(mailbox));
    let mut third = server.bind("app", "c");
    assert_eq!(third.error(claim("4", json!(false))), "crowded");
    let mut allocating = server.bind("app", "a");
    assert_eq!(allocating.one(claim("5", json!(true)))["type"], "claimed");
}

#[test]
fn what_a_claim_says_of_allocating_must_be_a_boolean() {
    let server = Server::start(&["--claim-without-allocate"]);
    let mut client = server.bind("app", "a");
    for allocate in [json!(null), json!(0), json!("false"), json!([])] {
        let error = client.error(claim("4", allocate));
        assert_eq!(error, "claim requires 'allocate' to be true or false");
    }
    let without = json!({"type": "claim", "allocate": false});
    assert_eq!(client.error(without), "claim requires 'nameplate'");
    client.claim("4");
}

#[test]
fn claims_that_do_not_allocate_are_limited_as_claims_and_not_as_nameplates() {
    let server = Server::start(&["--claim-without-allocate", "--limit-address-nameplates=1"]);
    server.bind("app", "a").claim("4");
    assert_eq!(server.bind("app", "a").error(claim("5", json!(false))), "unallocated");
}

/// Takes the nine nameplates of one digit and gives them back.
fn use_short_ones(server: &Server) {
    let mut clients: Vec<Client> = (0..9).map(|_| server.bind("app", "a")).collect();
    for client in &mut clients {
        let nameplate = client.allocate();
        assert_eq!(nameplate.len(), 1);
        client.one(json!({"type": "release", "nameplate": nameplate}));
    }
}

#[test]
fn by_default_a_released_nameplate_is_handed_out_again_at_once() {
    let server = Server::start(&[]);
    for _ in 0..3 {
        use_short_ones(&server);
    }
}

#[test]
fn a_nameplate_that_cools_is_not_handed_out_but_can_be_claimed() {
    let server = Server::start(&["--nameplate-cooldown=3600"]);
    use_short_ones(&server);
    let mut next = server.bind("app", "a");
    assert_eq!(next.allocate().len(), 2);
    server.bind("app", "b").claim("4");
    assert_eq!(server.bind("other", "a").allocate().len(), 1, "apps cool for themselves");
    // A restart forgets what cools; what is claimed stays so.
    let (_, directory) = server.stop();
    let server = Server::start_in(directory, &["--nameplate-cooldown=3600"]);
    for _ in 0..8 {
        let nameplate = server.bind("app", "a").allocate();
        assert!(nameplate.len() == 1 && nameplate != "4", "{nameplate}");
    }
}

#[test]
fn a_nameplate_that_has_cooled_down_is_handed_out_again() {
    let server = Server::start(&["--nameplate-cooldown=0.5"]);
    use_short_ones(&server);
    eventually("they cool down", || server.bind("app", "a").allocate().len() == 1);
}

#[test]
fn a_list_is_real_or_empty_or_the_same_for_everyone() {
    for (option, is_real) in [("--list=real", true), ("--list=empty", false)] {
        let server = Server::start(&[option]);
        let mut client = server.bind("app", "a");
        client.claim("1234");
        let names: &[&str] = if is_real { &["1234"] } else { &[] };
        assert_eq!(client.list(), names, "{option}");
    }
    let server = Server::start(&["--list=decoy"]);
    let mut decoys: Vec<String> = (1..=999).map(|number: u32| number.to_string()).collect();
    decoys.sort();
    for app in ["app", "other"] {
        let mut client = server.bind(app, "a");
        assert_eq!(client.list(), decoys);
        let nameplate = client.allocate();
        assert_eq!(client.list(), decoys, "{nameplate} is taken");
        server.bind(app, "b").claim("1234");
        assert_eq!(client.list(), decoys);
    }
}

fn delete(phase: &str, side: &str) -> Value {
    json!({"type": "delete", "their-phase": phase, "their-side": side})
}

fn add(client: &mut Client, phase: &str) {
    client.one(json!({"type": "add", "phase": phase, "body": "b"}));
}

/// The phases that an `open` of this side replays.
fn replayed(server: &Server, side: &str) -> Vec<String> {
    let messages = server.bind("app", side).open("m");
    messages.iter().map(|it| it["phase"].as_str().expect("a phase").to_owned()).collect()
}

#[test]
fn without_the_option_delete_is_an_unknown_type() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "a");
    client.open("m");
    add(&mut client, "p");
    let mut other = server.bind("app", "b");
    other.open("m");
    assert_eq!(other.error(delete("p", "a")), "unknown type");
    assert_eq!(replayed(&server, "a"), ["p"]);
}

#[test]
fn a_client_deletes_what_the_other_side_has_sent() {
    let server = Server::start(&["--delete"]);
    let mut unbound = server.connect();
    assert_eq!(unbound.error(delete("p", "a")), "must bind first");
    let mut sender = server.bind("app", "a");
    assert_eq!(sender.error(delete("p", "b")), "must open mailbox before DELETE-ing");
    sender.open("m");
    // A client that comes back sends again what was not confirmed, so a phase may be there twice.
    for phase in ["pake", "version", "pake", "0"] {
        add(&mut sender, phase);
    }
    let mut receiver = server.bind("app", "b");
    assert_eq!(receiver.open("m").len(), 4);
    receiver.one(json!({"type": "add", "phase": "pake", "body": "b"}));
    receiver.quiet(delete("pake", "a"));
    assert_eq!(replayed(&server, "b"), ["version", "0", "pake"]);
    for (phase, side) in [("pake", "b"), ("pake", "a"), ("1", "a"), ("0", "c")] {
        receiver.quiet(delete(phase, side));
    }
    assert_eq!(replayed(&server, "a"), ["version", "0", "pake"]);
    sender.recv();
    sender.quiet(delete("pake", "b"));
    assert_eq!(replayed(&server, "a"), ["version", "0"]);

    // Another mailbox's stays, whatever its app.
    for (app, mailbox) in [("app", "m2"), ("other", "m3")] {
        let mut stranger = server.bind(app, "z");
        stranger.open(mailbox);
        stranger.quiet(delete("version", "a"));
    }
    assert_eq!(replayed(&server, "a"), ["version", "0"]);

    for (command, error) in [
        (json!({"type": "delete"}), "delete is missing argument 'their-phase'"),
        (json!({"type": "delete", "their-phase": 3}), "delete is missing argument 'their-side'"),
        (
            json!({"type": "delete", "their-phase": 3, "their-side": "a"}),
            "delete requires 'their-phase' to be a string of at most 256 bytes",
        ),
    ] {
        assert_eq!(receiver.error(command), error);
    }
    let (_, directory) = server.stop();
    let server = Server::start_in(directory, &["--delete"]);
    assert_eq!(replayed(&server, "b"), ["version", "0"]);
    let mut receiver = server.bind("app", "b");
    receiver.open("m");
    receiver.quiet(delete("version", "a"));
    assert_eq!(Server::start_in(server.kill(), &[]).bind("app", "b").open("m").len(), 1);
}

#[test]
fn a_session_that_deletes_what_it_has_received_never_fills_its_mailbox() {
    let limits = ["--limit-mailbox-messages=10", "--limit-mailbox-bytes=4000"];
    let server = Server::start(&[&limits[..], &["--delete", "--admin=0"]].concat());
    let mut clients = ["a", "b"].map(|side| server.bind("app", side));
    clients.iter_mut().for_each(|client| drop(client.open("m")));
    for round in 0..200 {
        let phase = round.to_string();
        let [one, other] = &mut clients;
        add(one, &phase);
        assert_eq!(other.recv()["phase"], phase.as_str());
        other.quiet(delete(&phase, "a"));
    }
    for phase in 0..10 {
        add(&mut clients[0], &phase.to_string());
    }
    let full = clients[0].error(json!({"type": "add", "phase": "p", "body": "b"}));
    assert!(full.starts_with("mailbox is full"), "{full}");
}
