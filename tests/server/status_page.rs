//! The status page, as a browser shows it: the values are those that the test caused, whatever
//! clients call themselves is only text, nothing is fetched or complained of, and it is not blank.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::common::Server;
use crate::common::admin::exchange_in_mood;
use crate::common::real_clients::{on_path, skip};
use serde_json::json;

const OPTIONS: [&str; 2] = ["--admin=0", "--usage-db=usage.sqlite"];

/// The text of the element with that id, without the elements within it.
fn text_of(page: &str, id: &str) -> String {
    let at = page.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no {id} in {page}"));
    let (_, rest) = page[at..].split_once('>').expect("the end of the tag");
    let mut text = String::new();
    let mut is_tag = false;
    let mut depth = 0;
    for (index, char) in rest.char_indices() {
        match char {
            '<' if rest[index..].starts_with("</") && depth == 0 => break,
            '<' => {
                is_tag = true;
                depth += if rest[index..].starts_with("</") { -1 } else { 1 };
            }
            '>' if is_tag => is_tag = false,
            char if !is_tag => text.push(char),
            _ => {}
        }
    }
    text
}

fn assert_shows(page: &str, values: &[(&str, &str)]) {
    for (id, value) in values {
        assert_eq!(text_of(page, id), *value, "{id} in {page}");
    }
}

#[test]
fn it_shows_what_is_and_what_was() {
    let server = Server::start(&OPTIONS);
    let page = server.ask_admin("/").body;
    assert!(page.contains("Nobody has bound"), "{page}");
    assert_shows(&page, &[("connections-now", "0"), ("hour-all", "0"), ("state", "serving")]);
    for mood in ["happy", "happy", "happy", "scary"] {
        exchange_in_mood(&server, mood);
    }
    let mut client = server.bind("app", "side");
    client.allocate();
    client.open("box");
    client.one(json!({"type": "add", "phase": "p", "body": "00"}));
    server.wait_for_status(|status| status["connections"]["now"] == 1);
    let page = server.ask_admin("/").body;
    assert_shows(&page, &EXPECTED);
}

/// What [`it_shows_what_is_and_what_was`] has caused.
const EXPECTED: [(&str, &str); 11] = [
    ("state", "serving"),
    ("version", env!("CARGO_PKG_VERSION")),
    ("connections-now", "1"),
    ("bound", "1"),
    ("nameplates", "1"),
    ("mailboxes", "2"),
    ("hour-happy", "3"),
    ("hour-scary", "1"),
    ("hour-all", "4"),
    ("day-happy", "3"),
    ("day-all", "4"),
];

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

/// A browser without a window, in a directory of its own.
fn browse(browser: &Path, server: &Server, options: &[&str]) -> Output {
    let profile = server.file("profile");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-dev-shm-usage", "--hide-scrollbars", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(options)
        .arg(format!("http://{}/", server.admin_address()))
        .stdin(Stdio::null())
        .output()
        .expect("the browser runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let log = String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    output
}

fn browser() -> Option<PathBuf> {
    let found = on_path("chromium");
    if found.is_none() {
        skip("chromium");
    }
    found
}

#[test]
fn a_browser_shows_the_same_values_and_complains_of_nothing() {
    let Some(browser) = browser() else { return };
    let server = Server::start(&OPTIONS);
    for mood in ["happy", "happy", "happy", "scary"] {
        exchange_in_mood(&server, mood);
    }
    let mut client = server.bind("app", "side");
    client.allocate();
    client.open("box");
    client.one(json!({"type": "add", "phase": "p", "body": "00"}));
    server.wait_for_status(|status| status["connections"]["now"] == 1);
    let output = browse(&browser, &server, &["--dump-dom"]);
    let dom = String::from_utf8(output.stdout).expect("UTF-8");
    assert_shows(&dom, &EXPECTED);
    // What the parser made of it: eight drawings, and nothing that had to be moved about.
    assert_eq!(dom.matches("<svg ").count(), 8, "{dom}");
    assert_eq!(dom.matches("<title id=").count(), 8);
    assert_eq!(dom.matches("<table>").count(), dom.matches("</table>").count());
}

#[test]
fn a_browser_draws_it_on_a_desk_and_a_phone_by_day_and_by_night() {
    let Some(browser) = browser() else { return };
    let server = Server::start(&OPTIONS);
    exchange_in_mood(&server, "happy");
    let mut pictures = Vec::new();
    for size in ["1280,900", "412,900"] {
        for scheme in ["1", "0"] {
            let path = server.file(&format!("{size}-{scheme}.png"));
            browse(
                &browser,
                &server,
                &[
                    &format!("--screenshot={}", path.display()),
                    &format!("--window-size={size}"),
                    &format!("--blink-settings=preferredColorScheme={scheme}"),
                ],
            );
            pictures.push(fs::read(&path).expect("a picture"));
        }
    }
    for picture in &pictures {
        assert!(picture.starts_with(b"\x89PNG"));
        // A blank page of that size is a few thousand bytes: one colour shrinks to next to nothing.
        assert!(picture.len() > 20_000, "{} bytes look blank", picture.len());
    }
    assert_ne!(pictures[0], pictures[1], "the night is dark");
    assert_ne!(pictures[2], pictures[3], "the night is dark");
}
