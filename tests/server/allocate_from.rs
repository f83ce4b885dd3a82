//! Who may begin an exchange, and how long the nameplate is: `--allocate-from`,
//! `--nameplate-digits`.

use crate::common::Server;
use serde_json::json;

const REFUSED: &str = "from your address, exchanges on this server can be joined, not begun";

#[test]
fn a_client_from_elsewhere_can_join_and_not_begin() {
    let options = ["--allocate-from=192.0.2.0/24", "--allocate-from=2001:db8::/32"];
    let server = Server::start(&options);
    for (inside, outside) in [("192.0.2.7", "198.51.100.1"), ("2001:db8::7", "2001:db9::1")] {
        let mut stranger = server.bind_from(outside, "app", "stranger");
        assert_eq!(stranger.error(json!({"type": "allocate"})), REFUSED);
        assert_eq!(stranger.error(json!({"type": "claim", "nameplate": "77"})), REFUSED);
        assert_eq!(stranger.error(json!({"type": "open", "mailbox": "m"})), REFUSED);
        assert_eq!(stranger.list(), [""; 0]);

        let mut member = server.bind_from(inside, "app", "member");
        let nameplate = member.allocate();
        let mailbox = member.claim(&nameplate);
        member.open(&mailbox);
        assert_eq!(stranger.claim(&nameplate), mailbox);
        stranger.open(&mailbox);
        stranger.one(json!({"type": "add", "phase": "p", "body": "b"}));
        assert_eq!(member.recv()["body"], "b");
        for client in [&mut stranger, &mut member] {
            client.release();
            client.close();
        }
    }
    // The connection itself comes from an address that is no member's.
    assert_eq!(server.bind("app", "near").error(json!({"type": "allocate"})), REFUSED);
}

#[test]
fn without_the_option_exchanges_begin_everywhere() {
    let server = Server::start(&[]);
    server.bind_from("198.51.100.1", "app", "side").allocate();
}

#[test]
fn guesses_of_nameplates_from_elsewhere_are_bounded() {
    let server = Server::start(&[
        "--allocate-from=192.0.2.0/24",
        "--limit-address-claim-burst=3",
        "--limit-address-claim-rate=0.001",
    ]);
    let mut stranger = server.bind_from("198.51.100.1", "app", "side");
    for number in 1..=3 {
        let claim = json!({"type": "claim", "nameplate": number.to_string()});
        assert_eq!(stranger.error(claim), REFUSED);
    }
    let error = stranger.error(json!({"type": "claim", "nameplate": "4"}));
    assert_ne!(error, REFUSED);
}

#[test]
fn allocated_nameplates_have_at_least_so_many_digits() {
    for digits in 1..=6 {
        let server = Server::start(&[&format!("--nameplate-digits={digits}")]);
        for number in 0..20 {
            let nameplate = server.bind(&format!("app {number}"), "side").allocate();
            assert_eq!(nameplate.len(), digits, "{nameplate}");
        }
        server.bind("app", "side").claim("5");
    }
}

#[test]
fn when_all_of_the_fewest_digits_are_taken_longer_ones_follow() {
    let server = Server::start(&["--nameplate-digits=1"]);
    let lengths: Vec<usize> = (0..10)
        .map(|number| server.bind("app", &format!("side {number}")).allocate().len())
        .collect();
    assert_eq!(lengths, [1, 1, 1, 1, 1, 1, 1, 1, 1, 2]);
}
