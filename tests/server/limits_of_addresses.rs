//! Limits on one peer address: connections, rates, live nameplates, and which addresses share one.
//! The peers come through a trusted proxy on loopback, as `X-Real-IP` says. All is done twice, to
//! see that what was taken comes back; where that is a matter of time, on `Quotas` with a given
//! clock.

use std::time::{Duration, Instant};

use crate::common::client::Refused;
use crate::common::raw::{Raw, upgrade};
use crate::common::{Client, Server, eventually};
use serde_json::json;
use wormhole_mailbox::engine::quotas::Quotas;
use wormhole_mailbox::limits::Limits;
use wormhole_mailbox::message::{ConnId, CountedAddress};

const ONE: &str = "192.0.2.1";
const OTHER: &str = "192.0.2.2";

fn refused(server: &Server, ip: &str) -> Refused {
    server.connect_from(Some(ip)).err().expect("refused")
}

#[test]
fn connections_at_once_from_one_address_are_limited_and_their_places_come_back() {
    let mut server = Server::start(&["--limit-address-connections=2", "--admin=0"]);
    for _ in 0..2 {
        let clients: Vec<Client> = (0..2)
            .map(|_| server.connect_from(Some(ONE)).expect("below and at the limit"))
            .collect();
        for _ in 0..5 {
            let refused = refused(&server, ONE);
            assert_eq!((refused.status, refused.retry_after), (429, Some(60)));
            assert!(refused.body.contains("too many connections from your address"));
        }
        drop(server.connect_from(Some(OTHER)).expect("another address"));
        drop(clients);
        server.wait_for_connections(0);
    }
    server.wait_for_log("connections of one address");
}

#[test]
fn peers_with_unreadable_addresses_count_as_one_that_is_not_exempt() {
    // The proxy itself is exempt, as loopback is by default.
    let mut server = Server::start(&["--limit-address-connections=2", "--admin=0"]);
    let unreadable = ["nonsense", "", "192.0.2.1\r\nX-Real-IP: 192.0.2.2", "127.0.0.1, 192.0.2.1"];
    for _ in 0..2 {
        let open = |value: &str| {
            let mut raw = Raw::connect(server.address);
            raw.send(upgrade("/v1", &format!("X-Real-IP: {value}\r\n")).as_bytes());
            (raw.head(), raw)
        };
        let kept = [open(unreadable[0]), open(unreadable[1])];
        assert!(kept.iter().all(|(head, _)| head.starts_with("HTTP/1.1 101 ")));
        for value in unreadable {
            let (head, _) = open(value);
            assert!(head.starts_with("HTTP/1.1 429 "), "{value:?}: {head}");
        }
        assert!(open("192.0.2.1").0.starts_with("HTTP/1.1 101 "));
        drop(kept);
        server.wait_for_connections(0);
    }
    server.wait_for_log("X-Real-IP or X-Real-Port headers that cannot be read");
}

#[test]
fn a_client_that_claims_before_the_receivers_is_stopped() {
    let server = Server::start(&["--limit-address-join-burst=2", "--limit-address-join-rate=4"]);
    for number in 1..=3 {
        let claim = |ip: &str, side: &str| {
            let mut client = server.bind_from(ip, "app", side);
            client.one(json!({"type": "claim", "nameplate": number.to_string()}))
        };
        assert_eq!(claim(OTHER, "sender")["type"], "claimed");
        let sniped = claim(ONE, "sniper");
        let received = claim("192.0.2.3", "receiver");
        if number < 3 {
            assert_eq!(
                (&sniped["type"], &received["error"]),
                (&json!("claimed"), &json!("crowded"))
            );
        } else {
            let error = sniped["error"].as_str().expect("a text");
            assert!(
                error.starts_with("too many 'claim' from your address, try again in 15 "),
                "{error}"
            );
            assert_eq!(received["type"], "claimed");
        }
        // Claiming again what it has is no join, nor is beginning one's own.
        assert_eq!(claim(OTHER, "sender")["type"], "claimed");
    }
    let mut own = server.bind_from(ONE, "app", "sniper");
    assert_eq!(own.one(json!({"type": "claim", "nameplate": "4"}))["type"], "claimed");
}

#[test]
fn a_client_that_ends_exchanges_before_the_receivers_come_is_stopped() {
    let server = Server::start(&["--limit-address-join-burst=2", "--limit-address-join-rate=4"]);
    for number in 1..=3 {
        let mut sender = server.bind_from(OTHER, "app", "sender");
        let mailbox = sender.claim(&number.to_string());
        sender.open(&mailbox);
        let mut sniper = server.bind_from(ONE, "app", "sniper");
        let sniped = sniper.one(json!({"type": "claim", "nameplate": number.to_string()}));
        if number == 3 {
            let error = sniped["error"].as_str().expect("a text");
            assert!(error.starts_with("too many 'claim' from your address"), "{error}");
            return;
        }
        // A first message that the sender cannot verify: it ends before its receiver comes.
        sniper.open(&mailbox);
        sniper.one(json!({"type": "add", "phase": "pake", "body": "00"}));
        assert_eq!(sender.recv()["phase"], "pake");
        assert_eq!(sender.one(json!({"type": "close", "mood": "scary"}))["type"], "closed");
        assert_eq!(sniper.one(json!({"type": "close", "mood": "happy"}))["type"], "closed");
    }
}

#[test]
fn new_connections_from_one_address_have_a_burst_and_then_a_rate() {
    let server =
        Server::start(&["--limit-address-connect-burst=3", "--limit-address-connect-rate=0.5"]);
    for _ in 0..3 {
        server.connect_from(Some(ONE)).expect("within the burst");
    }
    for _ in 0..2 {
        let refused = refused(&server, ONE);
        assert_eq!(refused.status, 429);
        assert!(refused.body.contains("too many new connections from your address"));
        let wait = refused.retry_after.expect("when to come back");
        assert!((1..=2).contains(&wait), "{wait}");
        server.connect_from(Some(OTHER)).expect("another address");
    }
}

#[test]
fn what_a_burst_has_used_up_comes_back_at_the_rate() {
    const BURST: usize = 3;
    const PER_SECOND: f64 = 0.5;
    let limits = Limits {
        address_connect_burst: BURST,
        address_connect_per_second: PER_SECOND,
        address_allocate_burst: BURST,
        address_allocate_per_second: PER_SECOND,
        address_claim_burst: BURST,
        address_claim_per_second: PER_SECOND,
        ..Limits::default()
    };
    let take = |quotas: &mut Quotas, kind: &str, now: Instant| match kind {
        "connect" => {
            quotas.connect(ConnId(1), ONE.parse().ok().map(CountedAddress::Ip), now).is_ok()
        }
        "allocate" => quotas.allocate(ConnId(1), now).is_ok(),
        _ => quotas.claim(ConnId(1), false, now).is_ok(),
    };
    for kind in ["connect", "allocate", "claim"] {
        let mut quotas = Quotas::new(limits.clone());
        let mut now = Instant::now();
        assert!(kind == "connect" || take(&mut quotas, "connect", now));
        let mut expected = BURST;
        for _ in 0..2 {
            for _ in 0..expected {
                assert!(take(&mut quotas, kind, now), "{kind}");
            }
            assert!(!take(&mut quotas, kind, now), "{kind}");
            now += Duration::from_millis(1_990);
            assert!(!take(&mut quotas, kind, now), "{kind}: a little too early");
            now += Duration::from_millis(10);
            expected = 1;
        }
        now += Duration::from_secs(3600);
        let taken = (0..10).take_while(|_| take(&mut quotas, kind, now)).count();
        assert_eq!(taken, BURST, "{kind}: never more than the burst");
    }
}

/// Has connections from one address send a command each, until one is told to wait.
fn until_refused(server: &Server, command: &str) -> (usize, u64) {
    for count in 0..20 {
        let mut client = server.bind_from(ONE, "app", "side");
        let answer = client.one(json!({"type": command, "nameplate": "1"}));
        if answer["type"] == "error" {
            let error = answer["error"].as_str().expect("a text");
            let start = format!("too many '{command}' from your address, try again in ");
            let rest = error.strip_prefix(&start).unwrap_or_else(|| panic!("{error}"));
            return (count, rest.split(' ').next().expect("a number").parse().expect("a number"));
        }
    }
    panic!("never refused");
}

fn commands_have_a_burst_and_then_a_rate(command: &str, options: &[&str], log: &str) {
    let mut server = Server::start(options);
    let (count, wait) = until_refused(&server, command);
    assert_eq!((count, wait), (3, 3));
    let mut other = server.bind_from(OTHER, "app", "other");
    let answer = other.one(json!({"type": command, "nameplate": "1"}));
    assert_ne!(answer["type"], "error", "another address: {answer}");
    server.wait_for_log(log);
}

#[test]
fn allocating_has_a_burst_and_then_a_rate() {
    commands_have_a_burst_and_then_a_rate(
        "allocate",
        &["--limit-address-allocate-burst=3", "--limit-address-allocate-rate=0.334"],
        "allocations of one address",
    );
}

#[test]
fn claiming_has_a_burst_and_then_a_rate() {
    commands_have_a_burst_and_then_a_rate(
        "claim",
        &["--limit-address-claim-burst=3", "--limit-address-claim-rate=0.334"],
        "claims of one address",
    );
}

#[test]
fn a_command_out_of_order_is_told_so_and_uses_up_nothing() {
    let burst = |command| format!("--limit-address-{command}-burst=1");
    let server = Server::start(&[&burst("allocate"), &burst("claim")]);
    let mut client = server.connect_from(Some("192.0.2.1")).expect("accepted");
    let (allocate, claim) =
        (json!({"type": "allocate"}), json!({"type": "claim", "nameplate": "4"}));
    for command in [&allocate, &claim, &allocate, &claim] {
        assert_eq!(client.error(command.clone()), "must bind first");
    }
    let mut client = client.bound("app", "side");
    client.allocate();
    let greedy = "you already allocated one, don't be greedy";
    assert_eq!(client.error(allocate.clone()), greedy);
    client.one(claim.clone());
    assert_eq!(client.error(claim), "only one claim per connection");
    let mut second = server.bind_from("192.0.2.1", "app", "second");
    assert!(second.error(allocate).starts_with("too many 'allocate' from your address"));
}

#[test]
fn live_nameplates_of_one_address_are_limited_and_count_until_they_end() {
    let mut server = Server::start(&["--limit-address-nameplates=2"]);
    let too_many = "too many nameplates from your address, release some or wait until they expire";
    for _ in 0..2 {
        let mut claimer = server.bind_from(ONE, "app", "side");
        claimer.claim("104");
        let mut allocator = server.bind_from(ONE, "app", "side");
        let allocated = allocator.allocate();
        let mut third = server.bind_from(ONE, "app", "side");
        assert_eq!(third.error(json!({"type": "allocate"})), too_many);
        assert_eq!(third.error(json!({"type": "claim", "nameplate": "105"})), too_many);
        // One that is there already is not one more, and another address has its own count.
        assert_ne!(third.claim("104"), "");
        let mut other = server.bind_from(OTHER, "app", "other");
        other.claim("105");
        other.release();

        claimer.release();
        let mut again = server.bind_from(ONE, "app", "side");
        again.claim("106");
        for nameplate in ["106", &allocated] {
            let release = json!({"type": "release", "nameplate": nameplate});
            let mut client = server.bind_from(ONE, "app", "side");
            assert_eq!(client.one(release)["type"], "released");
        }
    }
    server.wait_for_log("nameplates of one address");
}

#[test]
fn nameplates_that_expire_or_go_with_their_mailbox_are_given_back() {
    let server = Server::start(&[
        "--limit-address-nameplates=1",
        "--expire-after=0.2",
        "--expire-check=0.2",
    ]);
    for _ in 0..2 {
        server.bind_from(ONE, "app", "side").claim("4");
        eventually("it expires", || {
            let mut client = server.bind_from(ONE, "app", "side");
            let answer = client.one(json!({"type": "claim", "nameplate": "5"}));
            answer["type"] == "claimed"
        });
        eventually("that one as well", || {
            let mut client = server.bind_from(ONE, "app", "side");
            let answer = client.one(json!({"type": "claim", "nameplate": "6"}));
            if answer["type"] == "claimed" {
                client.open(answer["mailbox"].as_str().expect("a mailbox"));
                client.close();
            }
            answer["type"] == "claimed"
        });
    }
}

#[test]
fn an_ipv6_network_of_64_bits_counts_as_one_address() {
    let server = Server::start(&["--limit-address-connections=1", "--admin=0"]);
    for _ in 0..2 {
        let one = server.connect_from(Some("2001:db8:1:2::1")).expect("the first");
        assert_eq!(refused(&server, "2001:db8:1:2:ffff::9").status, 429);
        let other = server.connect_from(Some("2001:db8:1:3::1")).expect("another network");
        let mapped = server.connect_from(Some("::ffff:192.0.2.1")).expect("an IPv4 address");
        assert_eq!(refused(&server, ONE).status, 429);
        let ipv4 = server.connect_from(Some(OTHER)).expect("another IPv4 address");
        drop((one, other, mapped, ipv4));
        server.wait_for_connections(0);
    }
}

#[test]
fn exempt_networks_are_not_limited_and_loopback_is_exempt_only_by_default() {
    let limited = ["--limit-address-connections=1", "--limit-address-connect-burst=2"];
    let server = Server::start(&limited);
    let _many: Vec<Client> = (0..10).map(|_| server.connect()).collect();

    let server = Server::start(&[&limited[..], &["--limit-exempt=192.0.2.0/30"]].concat());
    let _many: Vec<Client> =
        (0..10).map(|_| server.connect_from(Some(ONE)).expect("exempt")).collect();
    let _one = server.connect_from(Some("192.0.2.4")).expect("the first beyond the network");
    assert_eq!(refused(&server, "192.0.2.4").status, 429);
    let _direct = server.connect();
    assert_eq!(server.connect_from(None).err().expect("refused").status, 429);
}

#[test]
fn a_header_from_a_peer_that_is_not_trusted_counts_for_nothing() {
    let server = Server::start(&[
        "--limit-address-connections=1",
        "--limit-exempt=192.0.2.1/32",
        "--trusted-proxy=192.0.2.1",
        "--admin=0",
    ]);
    for _ in 0..2 {
        let one = server.connect_from(Some(ONE)).expect("the first");
        assert_eq!(refused(&server, ONE).status, 429);
        assert_eq!(refused(&server, OTHER).status, 429);
        drop(one);
        server.wait_for_connections(0);
    }
}
