//! Asking a server what it tells its operators, and a whole exchange for it to tell of.

use std::net::SocketAddr;
use std::time::Instant;

use serde_json::{Value, json};

use super::raw::exchange;
use super::{Client, PATIENCE, Server};

/// An answer taken apart.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn of(text: &str) -> Answer {
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(value))
    }
}

impl Server {
    /// Where operators are served, as the log tells.
    pub fn admin_address(&self) -> SocketAddr {
        let log = self.log();
        let told = log.iter().find_map(|line| line.split_once("admin page on http://"));
        let (_, rest) = told.expect("an admin page in the log");
        rest.trim_end_matches('/').parse().expect("an address")
    }

    /// What operators are answered.
    pub fn ask_admin(&self, path: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        Answer::of(&exchange(self.admin_address(), &request))
    }

    /// The status as an object.
    pub fn status(&self) -> Value {
        let answer = self.ask_admin("/status.json");
        assert_eq!(answer.status, 200, "{}", answer.head);
        serde_json::from_str(&answer.body).expect("JSON")
    }

    /// Waits until the status is as it should be; gives it.
    pub fn wait_for_status(&self, is_right: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if is_right(&status) {
                return status;
            }
            assert!(Instant::now() < until, "{status:#}");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

/// Messages that each of the two sides of [`exchange_in_mood`] adds.
pub const MESSAGES_EACH: u64 = 2;

/// What two clients do with each other: a nameplate, a mailbox, messages, and goodbye.
pub fn exchange_in_mood(server: &Server, mood: &str) {
    let join = |side: &str| {
        let mut client = server.connect();
        client.quiet(json!({
            "type": "bind", "appid": "secret-app", "side": side,
            "client_version": ["tester", "1.2"],
        }));
        client
    };
    let (mut one, mut two) = (join("secret-side-1"), join("secret-side-2"));
    let nameplate = one.allocate();
    let mailbox = one.claim(&nameplate);
    one.open(&mailbox);
    assert_eq!(two.claim(&nameplate), mailbox);
    two.open(&mailbox);
    for client in [&mut one, &mut two] {
        client.one(json!({"type": "release", "nameplate": nameplate}));
    }
    for client in [&mut one, &mut two] {
        for number in 0..MESSAGES_EACH {
            client.send(json!({"type": "add", "phase": number.to_string(), "body": "00ff"}));
        }
    }
    for client in [&mut one, &mut two] {
        for _ in 0..2 * MESSAGES_EACH {
            wait_for(client, "message");
        }
        client.send(json!({"type": "close", "mood": mood}));
        wait_for(client, "closed");
    }
}

fn wait_for(client: &mut Client, kind: &str) {
    while client.recv()["type"] != kind {}
}
