//! The status page of a server that something has happened to.

use serde_json::json;

use super::client::exchange;
use super::{Client, Server};

/// The text of the element with that id, without the elements within it.
pub fn text_of(page: &str, id: &str) -> String {
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

pub fn assert_shows(page: &str, values: &[(&str, &str)]) {
    for (id, value) in values {
        assert_eq!(text_of(page, id), *value, "{id} in {page}");
    }
}

/// A server after four exchanges, with one client that stays.
pub fn busy_server() -> (Server, Client) {
    let server = Server::start(&["--admin=0", "--usage-db=usage.sqlite"]);
    for mood in ["happy", "happy", "happy", "scary"] {
        exchange(&server, mood);
    }
    let mut client = server.bind("app", "side");
    client.allocate();
    client.open("box");
    client.one(json!({"type": "add", "phase": "p", "body": "00"}));
    server.wait_for_connections(1);
    (server, client)
}

/// What the page then shows.
pub const BUSY: [(&str, &str); 11] = [
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
