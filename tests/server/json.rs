//! How messages are read as JSON: values that must come back to the digit, keys that are unknown
//! or come twice, fields of the wrong type, and what is no JSON object at all.

use crate::common::{Client, Server};
use serde_json::{Value, json};
use tungstenite::Message;

/// JSON texts that most parsers would change.
const DELICATE: &[&str] = &[
    "123456789012345678901234567890",
    "1e400",
    "-0.0",
    "1.10",
    "1E+2",
    "0.1000000000000000055511151231257827",
    "[ 1,  {\"b\": [null, true]} ]",
    "{\"z\": 1, \"a\": 2, \"z\": 3}",
    "\"\\u00e9\\/\"",
    "\"\"",
    "false",
    "null",
];

/// The text of the next message.
fn recv_text(client: &mut Client) -> String {
    match client.socket.read().expect("a message") {
        Message::Text(text) => text.to_string(),
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn ids_and_pings_of_any_type_come_back_unchanged() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for value in DELICATE {
        client.send_text(&format!(r#"{{"type": "ping", "id": {value}, "ping": {value}}}"#));
        let (ack, pong) = (recv_text(&mut client), recv_text(&mut client));
        assert!(ack.contains(&format!(r#""id":{value},"#)), "{value}: {ack}");
        assert!(pong.contains(&format!(r#""pong":{value},"#)), "{value}: {pong}");
    }
}

#[test]
fn nesting_comes_back_unchanged_up_to_128_levels() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    for _ in 0..2 {
        // The message itself is one level.
        for levels in [126, 127] {
            let value = nested(levels);
            client.send_text(&format!(r#"{{"type": "ping", "ping": {value}}}"#));
            assert_eq!(client.recv(), json!({"type": "ack", "id": null}));
            assert!(recv_text(&mut client).contains(&value));
        }
        for levels in [128, 100_000] {
            for key in ["ping", "id", "unknown"] {
                let text = format!(r#"{{"type": "ping", "{key}": {}}}"#, nested(levels));
                client.send_text(&text);
                let error = client.recv();
                let expected = "message must not be nested deeper than 128 levels";
                assert_eq!((&error["type"], &error["error"]), (&json!("error"), &json!(expected)));
                let beginning: String = text.chars().take(1_000).collect();
                assert_eq!(error["orig"], beginning);
            }
        }
    }
}

#[test]
fn the_orig_of_an_error_comes_back_unchanged() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for value in DELICATE {
        let command = format!(r#"{{"type": "list", "x": {value}}}"#);
        client.send_text(&command);
        client.recv();
        let error = recv_text(&mut client);
        assert!(error.contains(&format!(r#""orig":{command}"#)), "{value}: {error}");
    }
}

#[test]
fn a_message_id_of_any_type_is_delivered_as_a_string_or_null_live_and_replayed() {
    let server = Server::start(&[]);
    let mut sender = server.bind("app", "sender");
    let mut listener = server.bind("app", "listener");
    sender.open("m");
    listener.open("m");
    for value in DELICATE {
        sender
            .send_text(&format!(r#"{{"type": "add", "phase": "p", "body": "b", "id": {value}}}"#));
        recv_text(&mut sender); // the ack
        // A string may come with other escapes; what it says is the same.
        let expected = match serde_json::from_str(value) {
            Ok(Value::Null) => json!(null),
            Ok(Value::String(string)) => json!(string),
            _ => json!(value),
        };
        for client in [&mut sender, &mut listener] {
            let live = recv_text(client);
            assert!(live.contains(&format!(r#""id":{expected},"#)), "{value}: {live}");
        }
    }
    let replayed: Vec<Value> =
        server.bind("app", "sender").open("m").iter().map(|it| it["id"].clone()).collect();
    let expected: Vec<Value> = DELICATE
        .iter()
        .map(|text| match serde_json::from_str(text) {
            Ok(Value::Null) => Value::Null,
            Ok(Value::String(string)) => string.into(),
            _ => json!(text),
        })
        .collect();
    assert_eq!(replayed, expected);
}

#[test]
fn an_add_without_id_has_a_null_one() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    client.open("m");
    assert_eq!(client.one(json!({"type": "add", "phase": "p", "body": "b"}))["id"], json!(null));
}

#[test]
fn of_duplicate_keys_the_last_wins() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send_text(r#"{"type": "list", "id": 1, "ping": 1, "type": "ping", "id": 2, "ping": 3}"#);
    assert_eq!(client.recv(), json!({"type": "ack", "id": 2}));
    assert_eq!(client.recv(), json!({"type": "pong", "pong": 3}));
}

#[test]
fn unknown_keys_are_ignored() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.quiet(json!({"type": "bind", "appid": "app", "side": "s", "nameplate": 5, "x": {}}));
    let answer = client.one(json!({"type": "claim", "nameplate": "5", "mailbox": 7, "": null}));
    assert_eq!(answer["type"], "claimed");
    let answer = client.one(json!({"type": "list", "phase": {}, "body": [], "appid": 5}));
    assert_eq!(answer["nameplates"], json!([{"id": "5"}]));
}

#[test]
fn an_unknown_key_may_hold_or_be_anything_that_is_json() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let deep = format!("{}{}", "[".repeat(127), "]".repeat(127));
    for odd in [
        format!(r#""x": {deep}"#),
        r#""x": "\ud800""#.to_owned(),
        r#""\ud800": 1"#.to_owned(), // half a character, as JavaScript can send it
        r#""": 1e400"#.to_owned(),
    ] {
        client.send_text(&format!(r#"{{"type": "ping", {odd}, "ping": "p"}}"#));
        let start: String = odd.chars().take(20).collect();
        assert_eq!(client.recv(), json!({"type": "ack", "id": null}), "{start}");
        assert_eq!(client.recv(), json!({"type": "pong", "pong": "p"}), "{start}");
    }
}

#[test]
fn empty_strings_are_strings() {
    let server = Server::start(&[]);
    let mut client = server.bind("", "");
    assert_eq!(client.error(json!({"type": "bind", "appid": "", "side": ""})), "already bound");
    client.open("");
    let sent = client.one(json!({"type": "add", "phase": "", "body": "", "id": ""}));
    assert_eq!(server.bind("", "").open(""), [sent]);
    assert_eq!(client.one(json!({"type": "close", "mailbox": "", "mood": ""}))["type"], "closed");
}

#[test]
fn text_with_escapes_and_beyond_ascii_is_stored_as_it_means() {
    let server = Server::start(&[]);
    let mut client = server.bind("app \u{1f600}", "s\u{e9}");
    client.open("m\n");
    let add = json!({"type": "add", "phase": "\u{0}\"\\", "body": "\u{1f600}\u{e9}"});
    let live = client.one(add);
    assert_eq!(live["side"], "s\u{e9}");
    assert_eq!(live["phase"], "\u{0}\"\\");
    assert_eq!(live["body"], "\u{1f600}\u{e9}");
    assert_eq!(server.bind("app \u{1f600}", "t").open("m\n"), [live]);
}

#[test]
fn a_field_of_the_wrong_type_is_refused_by_name_and_changes_nothing() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let ready = json!({"type": "bind", "appid": "app", "side": "s"});
    for (good, fields) in [
        (ready, ["appid", "side"]),
        (json!({"type": "claim", "nameplate": "1"}), ["nameplate"; 2]),
        (json!({"type": "open", "mailbox": "m"}), ["mailbox"; 2]),
        (json!({"type": "add", "phase": "p", "body": "b"}), ["phase", "body"]),
        (json!({"type": "close", "mood": "happy"}), ["mood"; 2]),
    ] {
        for field in fields {
            for wrong in [json!(5), json!(null), json!(["x"]), json!({}), json!(true)] {
                if (field, &wrong) == ("mood", &Value::Null) {
                    continue; // no mood, as upstream has it
                }
                let mut bad = good.clone();
                bad[field] = wrong;
                let kind = good["type"].as_str().expect("a type");
                let start = format!("{kind} requires '{field}' to be ");
                let error = client.error(bad);
                assert!(error.starts_with(&start), "{error}");
            }
        }
        // The connection is as it was: the same command, done right, is carried out.
        assert_eq!(client.ask(good.clone())[0]["type"], "ack");
        assert!(client.ask(json!({"type": "ping", "ping": 0})).len() == 2);
    }
    let left = server.bind("app", "s").open("m");
    assert_eq!(left, Vec::<Value>::new(), "the one side closed, so the mailbox went");
}

#[test]
fn names_to_release_and_close_of_the_wrong_type_are_refused() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    for wrong in [json!(5), json!(null), json!([])] {
        let error = client.error(json!({"type": "release", "nameplate": wrong}));
        assert!(error.starts_with("release requires 'nameplate' to be "), "{error}");
        let error = client.error(json!({"type": "close", "mailbox": wrong}));
        assert!(error.starts_with("close requires 'mailbox' to be "), "{error}");
    }
    assert_eq!(client.one(json!({"type": "release", "nameplate": "5"}))["type"], "released");
    assert_eq!(client.one(json!({"type": "close", "mailbox": "m"}))["type"], "closed");
}

#[test]
fn a_name_of_the_wrong_type_is_not_the_one_that_was_claimed_or_opened() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    client.claim("5");
    client.open("m");
    assert_eq!(
        client.error(json!({"type": "release", "nameplate": 5})),
        "release and claim must use same nameplate"
    );
    assert_eq!(
        client.error(json!({"type": "close", "mailbox": null})),
        "open and close must use same mailbox"
    );
}

#[test]
fn names_have_a_length_limit_and_bodies_have_none_of_their_own() {
    let server = Server::start(&[]);
    let (longest, too_long) = ("x".repeat(256), "x".repeat(257));
    let error =
        server.connect().error(json!({"type": "bind", "appid": too_long.clone(), "side": "s"}));
    assert_eq!(error, "bind requires 'appid' to be a string of at most 256 bytes");
    let mut client = server.bind(&longest, &longest);
    let error = client.error(json!({"type": "open", "mailbox": too_long}));
    assert_eq!(error, "open requires 'mailbox' to be a string of at most 256 bytes");
    client.open(&longest);
    let body = "0".repeat(300_000);
    assert_eq!(client.one(json!({"type": "add", "phase": longest, "body": body}))["body"], body);
}

#[test]
fn what_is_not_json_gets_an_error_that_shows_it_and_no_ack() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for text in ["", "{", "nonsense", "{\"type\": \"ping\", \"ping\": 1} x", "{'type': 'ping'}"] {
        client.send_text(text);
        let error = client.recv();
        assert_eq!(error["type"], "error", "{text}");
        assert_eq!(error["orig"], text);
        assert!(error["error"].as_str().is_some_and(|it| it.contains("JSON")), "{error}");
    }
    assert_eq!(client.one(json!({"type": "ping", "ping": 1}))["pong"], 1);
}

#[test]
fn json_that_is_no_object_gets_an_error_that_shows_it_and_no_ack() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "s");
    for text in ["[]", "[{\"type\": \"ping\"}]", "\"text\"", "5", "null", " true "] {
        client.send_text(text);
        let error = client.recv();
        assert_eq!(error["type"], "error", "{text}");
        assert_eq!(error["orig"], text);
        assert!(error["error"].as_str().is_some_and(|it| it.contains("object")), "{error}");
    }
    assert_eq!(client.one(json!({"type": "list"}))["type"], "nameplates");
}

#[test]
fn the_orig_of_what_is_no_command_is_cut_to_1000_characters() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send_text(&"\u{e9}".repeat(1_500));
    assert_eq!(client.recv()["orig"], "\u{e9}".repeat(1_000));
    let list = format!("[{}]", "1,".repeat(600) + "1");
    client.send_text(&list);
    assert_eq!(client.recv()["orig"], list[..1_000]);
}
