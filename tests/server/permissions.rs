//! Permissions: what the welcome says of proof of work, which stamps are good, what becomes of a
//! `bind` without one, and when `auto` demands it. Real clients are in `permissions_interop.rs`.

use crate::common::raw::{Raw, upgrade};
use crate::common::{Client, Server, Signal, eventually};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

const BITS: u32 = 5;

fn required() -> Server {
    Server::start(&["--permission=require", "--hashcash-bits=5"])
}

/// A connection, and the resource that its welcome asks a stamp for.
fn connect(server: &Server) -> (Client, String) {
    let mut client = Client::connect(server.address);
    let welcome = client.recv();
    let resource = &welcome["welcome"]["permission-required"]["hashcash"]["resource"];
    (client, resource.as_str().unwrap_or_else(|| panic!("{welcome}")).to_owned())
}

fn leading_zero_bits(stamp: &str) -> u32 {
    let hash: [u8; 20] = Sha1::digest(stamp).into();
    let first = u128::from_be_bytes(hash[..16].try_into().expect("16 bytes"));
    first.leading_zeros()
}

/// A stamp that claims `bits`, whose hash has as many as `proven` wants.
fn mint(bits: u32, resource: &str, proven: impl Fn(u32) -> bool) -> String {
    let mut stamps = (0_u64..).map(|it| format!("1:{bits}:261124:{resource}:ext:rand:{it:x}"));
    stamps.find(|stamp| proven(leading_zero_bits(stamp))).expect("there are enough numbers")
}

fn good(resource: &str) -> String {
    mint(BITS, resource, |found| found >= BITS)
}

fn submit(stamp: &str) -> Value {
    json!({"type": "submit-permissions", "method": "hashcash", "stamp": stamp})
}

fn bind() -> Value {
    json!({"type": "bind", "appid": "app", "side": "side", "id": 7})
}

/// Sends a command that costs the connection; gives the error's text.
fn fatal(client: &mut Client, command: &Value) -> String {
    client.send(command.clone());
    assert_eq!(client.recv()["type"], "ack", "{command}");
    let answer = client.recv();
    assert_eq!((&answer["type"], &answer["orig"]), (&json!("error"), command));
    assert_eq!(client.close_code(), 1008);
    answer["error"].as_str().expect("a text").to_owned()
}

#[test]
fn a_demand_and_a_proof_go_on_when_another_process_takes_over() {
    let mut server = required();
    let (mut proven, resource) = connect(&server);
    proven.send(submit(&good(&resource)));
    assert_eq!(proven.recv()["type"], "ack");
    let (mut late, resource) = connect(&server);
    let (mut never, _) = connect(&server);
    server.signal(Signal::USR2);
    server.wait_for_log("took over 3 connections");
    proven.quiet(bind());
    late.send(submit(&good(&resource)));
    assert_eq!(late.recv()["type"], "ack");
    late.quiet(bind());
    assert!(fatal(&mut never, &bind()).starts_with("permission required"));
}

#[test]
fn by_default_the_welcome_says_nothing_and_nothing_is_judged() {
    let server = Server::start(&[]);
    let mut client = Client::connect(server.address);
    let welcome = client.recv();
    let keys: Vec<_> = welcome["welcome"].as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["your-address"]);
    client.quiet(json!({"type": "submit-permissions", "method": 3}));
    client.quiet(submit("nonsense"));
    let singular = json!({"type": "submit-permission", "method": "hashcash", "stamp": "nonsense"});
    assert_eq!(client.error(singular.clone()), "must bind first");
    client.quiet(bind());
    assert_eq!(client.error(singular), "unknown type");
    client.quiet(submit("nonsense"));
}

/// The welcome as it comes, up to the peer's address.
fn welcome_text(server: &Server) -> String {
    let mut raw = Raw::connect(server.address);
    raw.send(upgrade("/v1", "").as_bytes());
    raw.head();
    let welcome = String::from_utf8(raw.frame().1).expect("UTF-8");
    welcome.split("\"your-address\"").next().expect("a beginning").to_owned()
}

#[test]
fn the_welcome_tells_the_bits_and_a_resource_of_its_own() {
    for (mode, none) in [("offer", "{}"), ("require", "null")] {
        let mode = format!("--permission={mode}");
        let server = Server::start(&[&mode, "--hashcash-bits=7", "--motd=hello"]);
        let texts = [(); 2].map(|()| welcome_text(&server));
        let resources = texts.map(|text| {
            let beginning = format!(
                r#"{{"type":"welcome","welcome":{{"motd":"hello","permission-required":{{"none":{none},"hashcash":{{"bits":7,"resource":""#
            );
            let rest = text.strip_prefix(&beginning).unwrap_or_else(|| panic!("{text}"));
            rest.strip_suffix(r#""}},"#).unwrap_or_else(|| panic!("{text}")).to_owned()
        });
        assert_ne!(resources[0], resources[1]);
        for resource in resources {
            assert_eq!(resource.len(), 16, "64 bits in hex: {resource}");
            assert!(resource.bytes().all(|byte| byte.is_ascii_hexdigit()), "{resource}");
        }
    }
}

#[test]
fn what_is_offered_need_not_be_taken() {
    let server = Server::start(&["--permission=offer", "--hashcash-bits=5"]);
    let (mut without, _) = connect(&server);
    without.quiet(bind());
    without.allocate();
    let (mut with, resource) = connect(&server);
    with.quiet(submit(&good(&resource)));
    with.quiet(bind());
    let (mut denied, _) = connect(&server);
    assert!(fatal(&mut denied, &submit("")).starts_with("permission denied: "));
}

#[test]
fn a_good_stamp_is_acknowledged_under_both_names_and_opens_the_door() {
    let server = required();
    for name in ["submit-permissions", "submit-permission"] {
        for bits in [BITS, BITS + 3] {
            let (mut client, resource) = connect(&server);
            let stamp = mint(bits, &resource, |found| found >= bits);
            client.quiet(json!({"type": name, "method": "hashcash", "stamp": stamp, "id": "x"}));
            client.quiet(bind());
            client.allocate();
        }
    }
}

#[test]
fn a_stamp_and_a_bind_may_come_in_one_write() {
    let server = required();
    let (mut client, resource) = connect(&server);
    for command in [submit(&good(&resource)), bind(), json!({"type": "allocate"})] {
        client.socket.write(tungstenite::Message::text(command.to_string())).expect("write");
    }
    client.socket.flush().expect("flush");
    assert_eq!(client.recv(), json!({"type": "ack", "id": null}));
    assert_eq!(client.recv(), json!({"type": "ack", "id": 7}));
    assert_eq!(client.recv(), json!({"type": "ack", "id": null}));
    assert_eq!(client.recv()["type"], "allocated");
}

#[test]
fn a_bind_without_the_demanded_proof_is_told_so_and_closed() {
    let mut server = required();
    for appid in [Some("app"), None] {
        let (mut client, _) = connect(&server);
        let error = fatal(&mut client, &json!({"type": "bind", "appid": appid, "side": "side"}));
        assert!(error.starts_with("permission required: "), "{error}");
        assert!(error.contains("proof of work (hashcash)"), "{error}");
    }
    server.wait_for_log("binds without proof of work");
    // Those who are in are not disturbed.
    let (mut client, resource) = connect(&server);
    client.quiet(submit(&good(&resource)));
    client.quiet(bind());
}

#[test]
fn before_the_bind_all_else_is_as_ever() {
    let server = required();
    let (mut client, resource) = connect(&server);
    assert_eq!(client.one(json!({"type": "ping", "ping": 1})), json!({"type": "pong", "pong": 1}));
    for command in ["list", "allocate", "claim", "frobnicate"] {
        assert_eq!(client.error(json!({"type": command})), "must bind first");
    }
    client.quiet(submit(&good(&resource)));
    assert_eq!(client.error(json!({"type": "bind"})), "bind requires 'appid'");
    client.quiet(bind());
    assert_eq!(client.error(bind()), "already bound");
}

#[test]
fn after_the_bind_a_submission_has_no_effect() {
    let server = required();
    let (mut client, resource) = connect(&server);
    client.quiet(submit(&good(&resource)));
    client.quiet(bind());
    for name in ["submit-permissions", "submit-permission"] {
        client.quiet(json!({"type": name, "method": "dark-ritual"}));
        client.quiet(json!({"type": name, "method": "hashcash", "stamp": "nonsense"}));
    }
    client.allocate();
}

#[test]
fn each_bad_proof_is_denied_with_its_reason_and_closed() {
    let mut server = required();
    let method = "'method' must be \"hashcash\"";
    let stamp = "'stamp' must be a string of at most 1024 bytes";
    for (proof, reason) in [
        (json!({}), method),
        (json!({"method": null, "stamp": ""}), method),
        (json!({"method": "Hashcash", "stamp": ""}), method),
        (json!({"method": "hashcash"}), stamp),
        (json!({"method": "hashcash", "stamp": 20}), stamp),
        (json!({"method": "hashcash", "stamp": ":".repeat(1025)}), stamp),
    ] {
        let (mut client, _) = connect(&server);
        let mut command = proof;
        command["type"] = "submit-permissions".into();
        assert_eq!(fatal(&mut client, &command), format!("permission denied: {reason}"));
    }
    type Spoil = fn(&str) -> String;
    let spoilt: [(Spoil, &str); 8] = [
        (|_| String::new(), "'stamp' must have 7 fields with ':' between them"),
        (|resource| good(resource) + ":", "'stamp' must have 7 fields with ':' between them"),
        (|resource| good(resource).replacen('1', "2", 1), "'stamp' must begin with version 1"),
        (
            |resource| good(resource).replacen(":5:", ":five:", 1),
            "'stamp' must claim a number of bits in its second field",
        ),
        (
            |resource| mint(4, resource, |found| found >= BITS),
            "'stamp' claims 4 bits, and 5 are demanded",
        ),
        (
            |_| good("0123456789abcdef"),
            "'stamp' must be for the resource in this connection's welcome",
        ),
        (
            |resource| mint(BITS, resource, |found| found == 4),
            "'stamp' claims 5 bits, and its SHA-1 has 4",
        ),
        (
            |resource| mint(9, resource, |found| found == 7),
            "'stamp' claims 9 bits, and its SHA-1 has 7",
        ),
    ];
    for (spoil, reason) in spoilt {
        let (mut client, resource) = connect(&server);
        let error = fatal(&mut client, &submit(&spoil(&resource)));
        assert_eq!(error, format!("permission denied: {reason}"));
    }
    server.wait_for_log("proofs of work denied");
}

#[test]
fn a_stamp_is_good_for_one_connection() {
    let server = required();
    let (mut first, resource) = connect(&server);
    let stamp = good(&resource);
    first.quiet(submit(&stamp));
    first.quiet(bind());
    let (mut second, _) = connect(&server);
    assert!(fatal(&mut second, &submit(&stamp)).contains("resource"));
}

#[test]
fn what_comes_with_a_refused_bind_is_seen_off_and_changes_nothing() {
    let server = required();
    let (mut client, resource) = connect(&server);
    for command in [
        bind(),
        json!({"type": "claim", "nameplate": "4"}),
        json!({"type": "release", "nameplate": "4", "id": 1}),
        submit(&good(&resource)),
        bind(),
        json!({"type": "close", "mailbox": "m", "mood": "errory", "id": 2}),
    ] {
        client.socket.write(tungstenite::Message::text(command.to_string())).expect("write");
    }
    client.socket.flush().expect("flush");
    let kinds = [(); 6].map(|()| {
        let answer = client.recv();
        (answer["type"].as_str().unwrap_or_default().to_owned(), answer["id"].clone())
    });
    let expected = [
        ("ack", json!(7)),
        ("error", Value::Null),
        ("ack", json!(1)),
        ("released", Value::Null),
        ("ack", json!(2)),
        ("closed", Value::Null),
    ];
    assert_eq!(kinds, expected.map(|(kind, id)| (kind.to_owned(), id)));
    assert_eq!(client.close_code(), 1008);
    let (mut other, resource) = connect(&server);
    other.quiet(submit(&good(&resource)));
    other.quiet(bind());
    assert_eq!(other.one(json!({"type": "list"}))["nameplates"], json!([]));
}

#[test]
fn who_may_not_bind_still_has_time_to_leave() {
    let server = required();
    let (mut client, _) = connect(&server);
    client.send(bind());
    assert_eq!(client.recv(), json!({"type": "ack", "id": 7}));
    assert_eq!(client.recv()["type"], "error");
    // Once it has read the error, as Python's does.
    for (command, answer) in [("release", "released"), ("close", "closed")] {
        client.send(json!({"type": command, "id": command}));
        assert_eq!(client.recv(), json!({"type": "ack", "id": command}));
        assert_eq!(client.recv(), json!({"type": answer}));
    }
    assert_eq!(client.close_code(), 1008);
    // Go's shows the close only if nothing comes before it.
    let (mut client, _) = connect(&server);
    let mut bind = bind();
    bind["client_version"] = json!(["go-william", "v1.0.6"]);
    for command in [bind, json!({"type": "release"})] {
        client.socket.write(tungstenite::Message::text(command.to_string())).expect("write");
    }
    client.socket.flush().expect("flush");
    assert_eq!(client.recv(), json!({"type": "ack", "id": 7}));
    assert_eq!(client.recv()["type"], "error");
    assert!(client.socket.read().expect("a frame").is_close());
}

/// Crowds a mailbox and has everybody leave it.
fn crowd(members: &mut [Client], mailbox: &str) {
    for member in &mut *members {
        member.ask(json!({"type": "open", "mailbox": mailbox}));
    }
    for member in members {
        member.one(json!({"type": "close", "mailbox": mailbox, "mood": "happy"}));
    }
}

fn is_demanding(server: &Server) -> bool {
    let welcome = Client::connect(server.address).recv();
    let asked = welcome["welcome"].get("permission-required").cloned();
    if let Some(asked) = &asked {
        assert_eq!(asked["none"], Value::Null);
        let bits = asked["hashcash"]["bits"].as_u64().expect("a number");
        assert!((5..=11).contains(&bits), "{bits}");
    }
    asked.is_some()
}

/// Waits until the log has a text that often.
fn wait_for_lines(server: &Server, part: &str, count: usize) {
    eventually(part, || server.count_log(part) >= count);
}

const BEGUN: &str = "under attack: proof of work is demanded";
const OVER: &str = "the attack is over: proof of work is not demanded";

#[test]
fn auto_demands_a_proof_while_exchanges_are_attacked_and_no_longer() {
    let server = Server::start(&[
        "--permission=auto",
        "--hashcash-bits=5",
        "--attack-events=3",
        "--attack-half-life=1",
    ]);
    assert!(!is_demanding(&server));
    let (mut early, mut count) = (server.connect(), 0);
    let mut members: Vec<[Client; 3]> =
        (0..50).map(|_| ["a", "b", "c"].map(|side| server.bind("app", side))).collect();
    while !is_demanding(&server) {
        let mut members = members.pop().expect("fifty are an attack");
        count += 1;
        crowd(&mut members, &format!("m{count}"));
    }
    wait_for_lines(&server, BEGUN, 1);
    assert!(count >= 3, "{count} are no attack yet");
    // Who was here before was not asked; who comes now is, and is held to it.
    early.quiet(bind());
    let (mut late, _) = connect(&server);
    let (mut able, resource) = connect(&server);
    able.quiet(submit(&mint(11, &resource, |found| found >= 11)));
    able.quiet(bind());

    wait_for_lines(&server, OVER, 1);
    assert!(!is_demanding(&server));
    assert!(fatal(&mut late, &bind()).starts_with("permission required: "));
    server.bind("app", "side").allocate();
    wait_for_lines(&server, BEGUN, 1);
}

#[test]
fn auto_takes_refused_allocations_for_an_attack_however_often_it_comes() {
    let server = Server::start(&[
        "--permission=auto",
        "--hashcash-bits=5",
        "--attack-events=3",
        "--attack-half-life=0.1",
        "--limit-address-allocate-burst=1",
        "--limit-address-allocate-rate=0.001",
    ]);
    let addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
    for ip in addresses {
        server.bind_from(ip, "app", "side").allocate();
    }
    let mut greedy = addresses.map(|ip| server.bind_from(ip, "app", "side"));
    for round in 1..=2 {
        for _ in 0..50 {
            let allocate = tungstenite::Message::text(r#"{"type":"allocate"}"#);
            for client in &mut greedy {
                client.socket.write(allocate.clone()).expect("write");
            }
        }
        greedy.iter_mut().for_each(|client| client.socket.flush().expect("flush"));
        wait_for_lines(&server, BEGUN, round);
        wait_for_lines(&server, OVER, round);
        assert!(!is_demanding(&server));
    }
    assert_eq!(server.count_log(BEGUN), 2, "a line each");
}
