//! Requests to the admin listener of a server.

use std::net::SocketAddr;

use serde_json::Value;

use super::raw::answer_to;
use super::{Server, retry};

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
    /// The address of the admin listener, from the log.
    pub fn admin_address(&self) -> SocketAddr {
        let log = self.log();
        let told = log.iter().find_map(|line| line.split_once("admin page on http://"));
        let (_, rest) = told.expect("an admin page in the log");
        rest.trim_end_matches('/').parse().expect("an address")
    }

    /// The answer of the admin listener to a GET.
    pub fn ask_admin(&self, path: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        Answer::of(&answer_to(self.admin_address(), &request))
    }

    /// The status as an object.
    pub fn status(&self) -> Value {
        let answer = self.ask_admin("/status.json");
        assert_eq!(answer.status, 200, "{}", answer.head);
        serde_json::from_str(&answer.body).expect("JSON")
    }

    /// Waits until that many clients are connected.
    pub fn wait_for_connections(&self, count: usize) {
        self.wait_for_status(|status| status["connections"]["now"] == count);
    }

    /// Waits until the status is as it should be; returns it.
    pub fn wait_for_status(&self, is_right: impl Fn(&Value) -> bool) -> Value {
        retry(|| {
            let status = self.status();
            if is_right(&status) { Ok(status) } else { Err(format!("{status:#}")) }
        })
    }
}
