//! The status page: its values are those that the test caused, and whatever clients call themselves
//! is only text. A real browser is in `tests/peers/browser.rs`.

use crate::common::Server;
use crate::common::page::{BUSY, assert_shows, busy_server};
use serde_json::json;

const OPTIONS: [&str; 2] = ["--admin=0", "--usage-db=usage.sqlite"];

#[test]
fn it_shows_what_is_and_what_was() {
    let server = Server::start(&OPTIONS);
    let page = server.ask_admin("/").body;
    assert!(page.contains("No client has bound"), "{page}");
    assert_shows(&page, &[("connections-now", "0"), ("hour-all", "0"), ("state", "serving")]);
    drop(server);
    let (server, _client) = busy_server();
    let page = server.ask_admin("/").body;
    assert_shows(&page, &BUSY);
}

#[test]
fn what_clients_call_themselves_is_only_text() {
    let server = Server::start(&OPTIONS);
    let long = "\u{1f30c}".repeat(100);
    for (implementation, version) in [
        ("<script>alert(1)</script>", "\"><img src=x onerror=alert(2)>"),
        ("\u{202e}evil\u{0}\u{1b}[31m", "'&amp;"),
        (long.as_str(), ""),
    ] {
        let mut client = server.connect();
        client.quiet(json!({
            "type": "bind", "appid": "a", "side": "s", "client_version": [implementation, version],
        }));
    }
    let page = server.ask_admin("/").body;
    assert!(page.contains("<bdi>&lt;script&gt;alert(1)&lt;/script&gt;</bdi>"), "{page}");
    assert!(page.contains("<bdi>&quot;&gt;&lt;img src=x onerror=alert(2)&gt;</bdi>"), "{page}");
    assert!(page.contains("<bdi>\u{fffd}evil\u{fffd}\u{fffd}[31m</bdi>"), "{page}");
    assert!(page.contains("<bdi>&#39;&amp;amp;</bdi>"), "{page}");
    assert_eq!(page.matches('\u{1f30c}').count(), 40, "long names are cut");
    assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
}

#[test]
fn many_clients_with_names_of_their_own_do_not_make_it_grow() {
    let server = Server::start(&OPTIONS);
    for number in 0..100 {
        let mut client = server.connect();
        client.quiet(json!({
            "type": "bind", "appid": "a", "side": "s", "client_version": [number.to_string(), "1"],
        }));
    }
    let page = server.ask_admin("/").body;
    assert_eq!(page.matches("<bdi>1</bdi></td>").count(), 20);
    let others = page.split("all others").nth(1).expect("the others");
    assert!(others.contains(">80<"), "{others}");
    let clients = server.status()["clients_last_day"].clone();
    assert_eq!(clients.as_array().map(Vec::len), Some(21));
    assert_eq!(
        clients[20],
        json!({
            "implementation": null, "version": null, "binds": 80, "others": true,
        })
    );
}

#[test]
fn limits_are_shown_as_they_are_in_force_and_met() {
    let server = Server::start(&["--admin=0", "--limit-connections=1", "--limit-bind-seconds=77"]);
    let _client = server.connect();
    let mut raw = crate::common::raw::Raw::connect(server.address);
    raw.rest();
    let page = server.ask_admin("/").body;
    let row = |option: &str| {
        let rows = page.split("<tr>").find(|row| row.contains(&format!("<code>{option}</code>")));
        rows.unwrap_or_else(|| panic!("no {option} in {page}")).to_owned()
    };
    assert!(row("--limit-connections").contains(">1 connections</td><td class=\"number\">1<"));
    assert!(
        row("--limit-bind-seconds").contains(">77 seconds<"),
        "{}",
        row("--limit-bind-seconds")
    );
    for limit in wormhole_mailbox::limits::TABLE {
        row(limit.option);
    }
}
