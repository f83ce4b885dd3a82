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
