//! The conversation of one connection: what is answered, in which order, and every refusal of the
//! error table, word by word (manual: protocol 3.2). What a command does to nameplates and
//! mailboxes is in `nameplates.rs` and `mailboxes.rs`; how JSON is read is in `json.rs`.

use crate::common::{Server, now, sql};
use serde_json::{Value, json};

fn types(answers: &[Value]) -> Vec<&str> {
    answers.iter().map(|answer| answer["type"].as_str().expect("a type")).collect()
}

#[test]
fn every_command_with_a_type_is_acknowledged_before_anything_else_it_causes() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for (command, expected) in [
        (json!({"type": "ping", "ping": 1, "id": "a"}), vec!["ack", "pong"]),
        (json!({"type": "list", "id": "a"}), vec!["ack", "error"]),
        (json!({"type": "bind", "appid": "app", "side": "s", "id": "a"}), vec!["ack"]),
        (json!({"type": "list", "id": "a"}), vec!["ack", "nameplates"]),
        (json!({"type": "allocate", "id": "a"}), vec!["ack", "allocated"]),
        (json!({"type": "claim", "nameplate": "12", "id": "a"}), vec!["ack", "claimed"]),
        (json!({"type": "release", "id": "a"}), vec!["ack", "released"]),
        (json!({"type": "open", "mailbox": "m", "id": "a"}), vec!["ack"]),
        (json!({"type": "add", "phase": "p", "body": "b", "id": "a"}), vec!["ack", "message"]),
        (json!({"type": "close", "id": "a"}), vec!["ack", "closed"]),
        (json!({"type": "nonsense", "id": "a"}), vec!["ack", "error"]),
    ] {
        let answers = client.ask(command.clone());
        assert_eq!(types(&answers), expected, "{command}");
        assert_eq!(answers[0], json!({"type": "ack", "id": "a"}), "{command}");
    }
}

#[test]
fn a_replay_comes_after_the_ack_of_its_open() {
    let server = Server::start(&[]);
    let mut first = server.bind("app", "first");
    first.open("m");
    first.ask(json!({"type": "add", "phase": "p", "body": "b"}));
    let answers = server.bind("app", "second").ask(json!({"type": "open", "mailbox": "m"}));
    assert_eq!(types(&answers), ["ack", "message"]);
}

#[test]
fn an_ack_of_a_command_without_id_says_null() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send(json!({"type": "ping", "ping": 0}));
    assert_eq!(client.recv(), json!({"type": "ack", "id": null}));
}

#[test]
fn commands_sent_back_to_back_are_answered_in_order() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send(json!({"type": "bind", "appid": "app", "side": "s"}));
    client.send(json!({"type": "claim", "nameplate": "4"}));
    client.send(json!({"type": "open", "mailbox": "m"}));
    for count in 0..20 {
        client.send(json!({"type": "add", "phase": count.to_string(), "body": ""}));
    }
    client.send(json!({"type": "release"}));
    client.send(json!({"type": "close"}));
    let mut expected = vec!["ack", "ack", "claimed", "ack"];
    expected.extend(["ack", "message"].repeat(20));
    expected.extend(["ack", "released", "ack", "closed"]);
    let answers: Vec<Value> = expected.iter().map(|_| client.recv()).collect();
    assert_eq!(types(&answers), expected);
    let phases: Vec<&Value> =
        answers.iter().filter(|it| it["type"] == "message").map(|it| &it["phase"]).collect();
    let sent: Vec<Value> = (0..20).map(|count| json!(count.to_string())).collect();
    assert_eq!(phases, sent.iter().collect::<Vec<_>>());
}

#[test]
fn server_tx_is_the_time_at_which_a_message_leaves() {
    let server = Server::start(&[]);
    let before = now();
    let mut client = crate::common::Client::connect(server.address);
    let welcome = client.recv_raw()["server_tx"].as_f64().expect("a float");
    client.send(json!({"type": "ping", "ping": 0}));
    let ack = client.recv_raw()["server_tx"].as_f64().expect("a float");
    let pong = client.recv_raw()["server_tx"].as_f64().expect("a float");
    let after = now();
    let times = [before, welcome, ack, pong, after];
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn a_message_without_type_gets_an_error_and_no_ack() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for message in [json!({}), json!({"id": "a", "ping": 3})] {
        assert_eq!(
            client.ask(message.clone()),
            [json!({"type": "error", "error": "missing 'type'", "orig": message})]
        );
    }
}

#[test]
fn an_error_shows_the_whole_offending_command() {
    let server = Server::start(&[]);
    let command = json!({"type": "list", "id": [1, {"a": null}], "other": "\u{e9}\n\"", "x": 1.5});
    let answers = server.connect().ask(command.clone());
    assert_eq!(
        answers,
        [
            json!({"type": "ack", "id": [1, {"a": null}]}),
            json!({"type": "error", "error": "must bind first", "orig": command})
        ]
    );
}

#[test]
fn a_ping_is_answered_before_and_after_bind_but_not_without_a_value() {
    let server = Server::start(&[]);
    for mut client in [server.connect(), server.bind("app", "s")] {
        let answer = client.one(json!({"type": "ping", "ping": {"n": [1]}}));
        assert_eq!(answer, json!({"type": "pong", "pong": {"n": [1]}}));
        let answer = client.one(json!({"type": "ping", "ping": null}));
        assert_eq!(answer, json!({"type": "pong", "pong": null}));
        assert_eq!(client.error(json!({"type": "ping"})), "ping requires 'ping'");
    }
}

#[test]
fn bind_needs_appid_and_side() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    assert_eq!(client.error(json!({"type": "bind", "side": "s"})), "bind requires 'appid'");
    assert_eq!(client.error(json!({"type": "bind", "appid": "a"})), "bind requires 'side'");
    assert_eq!(client.error(json!({"type": "bind"})), "bind requires 'appid'");
    assert_eq!(client.error(json!({"type": "list"})), "must bind first");
    client.quiet(json!({"type": "bind", "appid": "a", "side": "s"}));
    assert_eq!(client.one(json!({"type": "list"}))["type"], "nameplates");
}

#[test]
fn a_connection_binds_once() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    for again in [
        json!({"type": "bind", "appid": "app", "side": "s"}),
        json!({"type": "bind", "appid": "other", "side": "other"}),
        json!({"type": "bind"}),
    ] {
        assert_eq!(client.error(again), "already bound");
    }
    client.open("m");
    client.send(json!({"type": "add", "phase": "p", "body": "b"}));
    client.recv();
    assert_eq!(client.recv()["side"], "s");
}

#[test]
fn client_versions_are_recorded_as_text_or_as_unknown() {
    let server = Server::start(&["--usage-db=usage.sqlite"]);
    let cases = [
        (json!(["python", "0.1"]), [Some("python"), Some("0.1")]),
        (json!(["go", "1", "more"]), [Some("go"), Some("1")]),
        (json!([5, {"a": [1]}]), [Some("5"), Some("{\"a\":[1]}")]),
        (json!([null, "0.1"]), [None, Some("0.1")]),
        (json!(["alone"]), [None, None]),
        (json!([]), [None, None]),
        (json!("ab"), [None, None]),
        (json!({"0": "a", "1": "b"}), [None, None]),
        (json!(null), [None, None]),
    ];
    for (version, _) in &cases {
        server
            .connect()
            .quiet(json!({"type": "bind", "appid": "app", "side": "s", "client_version": version}));
    }
    server.bind("app", "without");
    let (_, directory) = server.stop();
    let sql = "SELECT implementation, version FROM client_versions ORDER BY rowid";
    let none = [(json!(null), [None, None])];
    let expected: Vec<[Option<&str>; 2]> = cases.iter().chain(&none).map(|(_, row)| *row).collect();
    assert_eq!(sql::rows(&directory.file("usage.sqlite"), sql), json!(expected));
}

#[test]
fn nothing_but_ping_bind_and_submit_permissions_works_before_bind() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for command in [
        json!({"type": "list"}),
        json!({"type": "allocate"}),
        json!({"type": "claim", "nameplate": "1"}),
        json!({"type": "claim"}),
        json!({"type": "release"}),
        json!({"type": "release", "nameplate": "1"}),
        json!({"type": "open", "mailbox": "m"}),
        json!({"type": "open"}),
        json!({"type": "add", "phase": "p", "body": "b"}),
        json!({"type": "close"}),
        json!({"type": "close", "mailbox": "m"}),
        json!({"type": "nonsense"}),
        json!({"type": 5}),
    ] {
        assert_eq!(client.error(command), "must bind first");
    }
    assert_eq!(
        server.bind("app", "s").one(json!({"type": "list"})),
        json!({"type": "nameplates", "nameplates": []})
    );
}

#[test]
fn submit_permissions_is_acknowledged_without_effect() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.quiet(json!({"type": "submit-permissions", "method": "none"}));
    client.quiet(json!({"type": "submit-permissions", "method": "hashcash", "stamp": 5}));
    client.quiet(json!({"type": "submit-permissions"}));
    assert_eq!(client.error(json!({"type": "list"})), "must bind first");
    client.quiet(json!({"type": "bind", "appid": "app", "side": "s"}));
    client.quiet(json!({"type": "submit-permissions", "method": "none"}));
    assert_eq!(client.one(json!({"type": "list"}))["type"], "nameplates");
}

#[test]
fn a_type_nobody_knows_is_refused() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    for kind in
        [json!("nonsense"), json!(""), json!("Ping"), json!(null), json!(7), json!(["list"])]
    {
        assert_eq!(client.error(json!({"type": kind})), "unknown type");
    }
}

#[test]
fn a_connection_allocates_once() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    client.allocate();
    let greedy = json!({"type": "allocate"});
    assert_eq!(client.error(greedy), "you already allocated one, don't be greedy");
    let answer = client.one(json!({"type": "list"}));
    assert_eq!(answer["nameplates"].as_array().map(Vec::len), Some(1));
}

#[test]
fn claim_needs_a_nameplate() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    assert_eq!(client.error(json!({"type": "claim"})), "claim requires 'nameplate'");
    client.claim("1");
    assert_eq!(client.error(json!({"type": "claim"})), "claim requires 'nameplate'");
}

#[test]
fn a_connection_claims_once() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    client.claim("1");
    for nameplate in ["1", "2"] {
        let again = json!({"type": "claim", "nameplate": nameplate});
        assert_eq!(client.error(again), "only one claim per connection");
    }
    let answer = client.one(json!({"type": "list"}));
    assert_eq!(answer["nameplates"], json!([{"id": "1"}]));
}

#[test]
fn a_connection_releases_once() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    client.claim("1");
    client.one(json!({"type": "release"}));
    for again in [
        json!({"type": "release"}),
        json!({"type": "release", "nameplate": "1"}),
        json!({"type": "release", "nameplate": "2"}),
    ] {
        assert_eq!(client.error(again), "only one release per connection");
    }
}

#[test]
fn release_must_name_what_was_claimed() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    client.claim("1");
    assert_eq!(
        client.error(json!({"type": "release", "nameplate": "2"})),
        "release and claim must use same nameplate"
    );
    let answer = client.one(json!({"type": "release", "nameplate": "1"}));
    assert_eq!(answer, json!({"type": "released"}));
}

#[test]
fn release_without_nameplate_needs_a_claim_and_allocate_is_none() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    let release = json!({"type": "release"});
    assert_eq!(client.error(release.clone()), "release without nameplate must follow claim");
    let nameplate = client.allocate();
    assert_eq!(client.error(release.clone()), "release without nameplate must follow claim");
    client.claim(&nameplate);
    assert_eq!(client.one(release), json!({"type": "released"}));
}

#[test]
fn open_needs_a_mailbox_and_one_at_a_time() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    assert_eq!(client.error(json!({"type": "open"})), "open requires 'mailbox'");
    client.open("m");
    for again in [json!({"type": "open", "mailbox": "m"}), json!({"type": "open", "mailbox": "n"})]
    {
        assert_eq!(client.error(again), "only one open per connection");
    }
}

#[test]
fn add_needs_an_open_mailbox_a_phase_and_a_body() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    let add = json!({"type": "add", "phase": "p", "body": "b"});
    assert_eq!(client.error(add.clone()), "must open mailbox before adding");
    assert_eq!(client.error(json!({"type": "add"})), "must open mailbox before adding");
    client.open("m");
    assert_eq!(client.error(json!({"type": "add", "body": "b"})), "missing 'phase'");
    assert_eq!(client.error(json!({"type": "add", "phase": "p"})), "missing 'body'");
    assert_eq!(client.error(json!({"type": "add"})), "missing 'phase'");
    assert_eq!(client.one(add.clone())["type"], "message");
    client.one(json!({"type": "close"}));
    assert_eq!(client.error(add), "must open mailbox before adding");
    // Of the refused ones nothing was stored.
    assert_eq!(server.bind("app", "s").open("m"), Vec::<Value>::new());
}

#[test]
fn a_connection_closes_once() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    client.open("m");
    client.one(json!({"type": "close"}));
    for again in [
        json!({"type": "close"}),
        json!({"type": "close", "mailbox": "m"}),
        json!({"type": "close", "mailbox": "n"}),
    ] {
        assert_eq!(client.error(again), "only one close per connection");
    }
}

#[test]
fn close_must_name_what_was_opened() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    client.open("m");
    assert_eq!(
        client.error(json!({"type": "close", "mailbox": "n"})),
        "open and close must use same mailbox"
    );
    client.one(json!({"type": "add", "phase": "p", "body": "b"}));
    let answer = client.one(json!({"type": "close", "mailbox": "m"}));
    assert_eq!(answer, json!({"type": "closed"}));
}

#[test]
fn close_without_mailbox_needs_an_open() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    assert_eq!(client.error(json!({"type": "close"})), "close without mailbox must follow open");
    client.claim("1");
    assert_eq!(client.error(json!({"type": "close"})), "close without mailbox must follow open");
    client.open("m");
    client.close();
}
