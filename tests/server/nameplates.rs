//! What allocate, claim, release and list do to nameplates, whichever connection they come over.
//! A third side is the subject of `crowding.rs`.

use crate::common::{Client, Server};
use serde_json::{Value, json};

fn release(client: &mut Client, nameplate: &str) {
    let answer = client.one(json!({"type": "release", "nameplate": nameplate}));
    assert_eq!(answer, json!({"type": "released"}));
}

#[test]
fn allocation_takes_all_of_the_fewest_digits_first() {
    let server = Server::start(&[]);
    let mut allocated: Vec<String> =
        (0..9).map(|number| server.bind("app", &format!("s{number}")).allocate()).collect();
    allocated.sort();
    assert_eq!(allocated, ["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    let tenth: u32 = server.bind("app", "s9").allocate().parse().expect("a number");
    assert!((10..=99).contains(&tenth), "{tenth}");
    // One of one digit that is free again is preferred again.
    let free = "6";
    for number in 0..9 {
        release(&mut server.bind("app", &format!("s{number}")), free);
    }
    assert_eq!(server.bind("app", "s10").allocate(), free);
}

#[test]
fn allocation_takes_three_digits_after_two_and_long_ones_after_three() {
    let server = Server::start(&[]);
    let fill = |range: std::ops::Range<u32>| {
        for number in range {
            server.bind("app", "filler").claim(&number.to_string());
        }
    };
    fill(1..100);
    let three: u32 = server.bind("app", "s").allocate().parse().expect("a number");
    assert!((100..=999).contains(&three), "{three}");
    fill(100..1_000);
    let long: u32 = server.bind("app", "s").allocate().parse().expect("a number");
    assert!((1_000..=999_999).contains(&long), "{long}");
}

#[test]
fn a_number_written_with_zeros_in_front_is_another_nameplate() {
    let server = Server::start(&[]);
    let mailbox = server.bind("app", "s").claim("007");
    assert_ne!(server.bind("app", "s").claim("7"), mailbox);
    assert_eq!(server.bind("app", "s").list(), ["007", "7"]);
}

#[test]
fn allocation_claims_for_the_side_and_its_claim_is_the_same_one() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "first");
    let nameplate = client.allocate();
    let mailbox = client.claim(&nameplate);
    assert_eq!(server.bind("app", "second").claim(&nameplate), mailbox);
    assert_eq!(server.bind("app", "first").claim(&nameplate), mailbox);
    // Released once, it is released.
    release(&mut client, &nameplate);
    release(&mut server.bind("app", "second"), &nameplate);
    assert_eq!(client.list(), Vec::<String>::new());
}

#[test]
fn an_allocated_nameplate_can_be_released_by_name_without_a_claim() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    let nameplate = client.allocate();
    release(&mut client, &nameplate);
    assert_eq!(client.list(), Vec::<String>::new());
}

#[test]
fn a_claim_of_an_unknown_nameplate_makes_a_mailbox_with_a_random_id() {
    let server = Server::start(&[]);
    let ids: Vec<String> =
        ["1", "2", "3"].iter().map(|it| server.bind("app", "s").claim(it)).collect();
    for id in &ids {
        assert_eq!(id.len(), 13, "{id}");
        assert!(id.bytes().all(|it| matches!(it, b'a'..=b'z' | b'2'..=b'7')), "{id}");
        // 64 bits in 13 digits of 5 leave one bit in the last.
        assert!(
            id.ends_with([
                'a', 'c', 'e', 'g', 'i', 'k', 'm', 'o', 'q', 's', 'u', 'w', 'y', '2', '4', '6'
            ]),
            "{id}"
        );
    }
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
}

#[test]
fn both_sides_get_the_same_mailbox_on_any_connection() {
    let server = Server::start(&[]);
    let mailbox = server.bind("app", "first").claim("4");
    for side in ["first", "second", "second", "first"] {
        assert_eq!(server.bind("app", side).claim("4"), mailbox);
    }
    assert_eq!(server.bind("app", "first").list(), ["4"]);
}

#[test]
fn a_claim_opens_the_mailbox_for_the_side_without_subscribing() {
    let server = Server::start(&[]);
    let mut first = server.bind("app", "first");
    let mailbox = first.claim("4");
    let mut second = server.bind("app", "second");
    second.open(&mailbox);
    let message = second.one(json!({"type": "add", "phase": "p", "body": "b"}));
    assert_eq!(first.one(json!({"type": "ping", "ping": 1}))["pong"], 1);
    // It counts as open: the other side's close does not delete it.
    second.one(json!({"type": "close"}));
    assert_eq!(first.open(&mailbox), [message]);
}

#[test]
fn a_nameplate_goes_with_its_last_release_and_the_mailbox_stays() {
    let server = Server::start(&[]);
    let (mut first, mut second) = (server.bind("app", "first"), server.bind("app", "second"));
    let mailbox = first.claim("4");
    second.claim("4");
    first.open(&mailbox);
    let message = first.one(json!({"type": "add", "phase": "p", "body": "b"}));
    first.one(json!({"type": "release"}));
    assert_eq!(first.list(), ["4"]);
    second.one(json!({"type": "release"}));
    assert_eq!(first.list(), Vec::<String>::new());
    assert_eq!(second.open(&mailbox), [message]);
    // The number begins anew, for the same sides too.
    assert_ne!(server.bind("app", "first").claim("4"), mailbox);
}

#[test]
fn a_side_does_not_claim_again_what_it_released_while_the_nameplate_lives() {
    let server = Server::start(&[]);
    server.bind("app", "first").claim("4");
    let mailbox = server.bind("app", "second").claim("4");
    release(&mut server.bind("app", "first"), "4");
    let mut again = server.bind("app", "first");
    let claim = json!({"type": "claim", "nameplate": "4"});
    assert_eq!(again.error(claim.clone()), "reclaimed");
    // It has used up the one claim, and can be released.
    assert_eq!(again.error(claim), "only one claim per connection");
    assert_eq!(
        again.error(json!({"type": "release", "nameplate": "5"})),
        "release and claim must use same nameplate"
    );
    again.release();
    assert_eq!(server.bind("app", "second").claim("4"), mailbox);
}

#[test]
fn a_release_of_what_is_not_there_or_not_ones_own_answers_and_changes_nothing() {
    let server = Server::start(&[]);
    let mailbox = server.bind("app", "first").claim("4");
    release(&mut server.bind("app", "second"), "4");
    release(&mut server.bind("app", "second"), "5");
    release(&mut server.bind("other app", "first"), "4");
    // Python's client releases what it was not let claim, and waits for the answer.
    for never_there in ["", "4a", "\u{664}", &"4".repeat(300)] {
        release(&mut server.bind("app", "first"), never_there);
    }
    assert_eq!(server.bind("app", "first").claim("4"), mailbox);
    // Not a side of it so far, so not reclaimed either.
    assert_eq!(server.bind("app", "second").claim("4"), mailbox);
}

#[test]
fn a_release_can_be_repeated_on_a_new_connection() {
    let server = Server::start(&[]);
    server.bind("app", "second").claim("4");
    let mut client = server.bind("app", "first");
    client.claim("4");
    client.one(json!({"type": "release"}));
    for _ in 0..2 {
        release(&mut server.bind("app", "first"), "4");
    }
    assert_eq!(client.list(), ["4"]);
}

#[test]
fn a_refused_release_leaves_the_release_to_be_done() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    client.error(json!({"type": "release"}));
    client.claim("4");
    client.error(json!({"type": "release", "nameplate": "5"}));
    assert_eq!(client.list(), ["4"]);
    client.one(json!({"type": "release"}));
    assert_eq!(client.list(), Vec::<String>::new());
}

#[test]
fn nameplates_are_1_to_40_ascii_digits_and_others_use_nothing_up() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    let (longest, too_long) = ("9".repeat(40), "9".repeat(41));
    for invalid in ["", " ", "4a", "-4", "4\n", " 4", "4.0", "\u{664}", "\u{ff14}", &too_long] {
        assert_eq!(
            client.error(json!({"type": "claim", "nameplate": invalid})),
            "claim requires 'nameplate' to be 1 to 40 digits",
            "{invalid:?}"
        );
    }
    assert_eq!(client.list(), Vec::<String>::new());
    client.claim(&longest);
    assert_eq!(client.list(), [longest]);
}

#[test]
fn lists_are_sorted_as_strings() {
    let server = Server::start(&[]);
    for nameplate in ["9", "10", "100", "1", "2", "010"] {
        server.bind("app", "s").claim(nameplate);
    }
    assert_eq!(server.bind("app", "other").list(), ["010", "1", "10", "100", "2", "9"]);
}

#[test]
fn with_disallow_list_every_list_is_empty() {
    let server = Server::start(&["--disallow-list"]);
    let mut client = server.bind("app", "s");
    let nameplate = client.allocate();
    assert_eq!(client.list(), Vec::<String>::new());
    // What cannot be listed is still taken.
    for number in 0..8 {
        assert_ne!(server.bind("app", &number.to_string()).allocate(), nameplate);
    }
}

#[test]
fn apps_do_not_see_each_others_nameplates() {
    let server = Server::start(&[]);
    let mailbox = server.bind("app", "s").claim("4");
    let mut other = server.bind("other", "s");
    assert_eq!(other.list(), Vec::<String>::new());
    assert_ne!(other.claim("4"), mailbox);
    other.one(json!({"type": "release"}));
    assert_eq!(other.list(), Vec::<String>::new());
    assert_eq!(server.bind("app", "s").list(), ["4"]);
    assert_eq!(server.bind("app", "s").claim("4"), mailbox);
}

#[test]
fn claims_outlive_their_connections() {
    let server = Server::start(&[]);
    let mut first = server.bind("app", "first");
    let mailbox = first.claim("4");
    drop(first);
    let mut second = server.bind("app", "second");
    assert_eq!(second.claim("4"), mailbox);
    drop(second);
    let answer: Value = server.bind("app", "first").one(json!({"type": "list"}));
    assert_eq!(answer["nameplates"], json!([{"id": "4"}]));
}
