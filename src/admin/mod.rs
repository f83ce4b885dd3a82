//! What operators see: a status page, metrics, health, and the same as JSON.
//!
//! Answers one GET at a time from what the server and the engine know, and remembers what they do
//! not: how long things took, and the last hour and day. Only looks: must never change what
//! clients get, never walk over all mailboxes, and never tell an address, a side, an app id, a
//! nameplate or a mailbox id.

mod chart;
mod history;
mod json;
mod page;
mod prometheus;
mod status;
mod tables;

use std::time::Instant;

use crate::codec::http::{self, Question, Status as HttpStatus};
use crate::config::Config;
use crate::engine::Engine;
use crate::engine::client_programs::{Clients, Program};
use crate::engine::metrics::Timings;
use crate::net::outbox::Delivered;
use crate::storage::db::Past;
use crate::sys::clock::{Clock, Timestamp};
use history::{History, Step};
use status::Status;

/// What the server knows at the moment of a question.
#[derive(Clone, Copy, Debug)]
pub struct Present<'a> {
    pub config: &'a Config,
    pub engine: &'a Engine,
    pub clock: Clock,
    /// Clients' connections.
    pub connections: usize,
    /// What sockets have taken.
    pub delivered: Delivered,
}

/// The memory of those who watch.
#[derive(Debug)]
pub struct Admin {
    started: Clock,
    timings: Timings,
    history: History,
}

impl Admin {
    /// Begins to watch.
    pub fn new(started: Clock) -> Admin {
        let history = History::new(started.wall.0);
        Admin { started, timings: Timings::default(), history }
    }

    /// Takes over what is on record of the time before the start; gives who bound then.
    pub fn remember(&mut self, past: Past) -> Clients {
        for (at, outcome, count) in past.mailboxes {
            if let Some(outcome) = outcome {
                self.history.remember(at.0, outcome, count);
            }
        }
        let mut clients = Clients::default();
        for (at, implementation, version, binds) in past.clients {
            let program = Program::new(implementation.as_deref(), version.as_deref());
            clients.count(program, at, binds);
        }
        clients
    }

    /// A commit of so many changes took this long.
    pub fn note_commit(&mut self, seconds: f64, changes: usize) {
        self.timings.note_commit(seconds, changes);
    }

    /// A tick took this long, and left so many clients connected.
    pub fn note_tick(&mut self, began: Clock, connections: usize, engine: &Engine) {
        self.timings.note_tick(began.instant.elapsed().as_secs_f64());
        self.history.note_connections(connections);
        let totals = || Step::totals(engine.metrics(), &self.timings);
        self.history.advance(self.wall(began.instant).0, totals, connections);
    }

    /// When a tick is wanted, so that a step of the history ends in time.
    pub fn next_step(&self) -> Instant {
        self.started.after((self.history.next_step() - self.started.wall.0).max(0.0))
    }

    /// The time, as it would be if nobody had set the clock since the start.
    fn wall(&self, now: Instant) -> Timestamp {
        self.started.wall + now.saturating_duration_since(self.started.instant).as_secs_f64()
    }

    /// The whole answer to a question.
    pub fn answer(&self, question: &Question, present: Present<'_>) -> Vec<u8> {
        let status = || Status::gather(self, present);
        let answer = match &*question.path {
            "/" => html(&page::render(&status(), None)),
            "/live" => html(&page::render(&status(), Some(LIVE_SECONDS))),
            "/status.json" => ok("application/json", "", &json::render(&status())),
            "/metrics" => ok(prometheus::CONTENT_TYPE, "", &prometheus::render(&status())),
            "/healthz" => match present.engine.can_serve() {
                Ok(()) => ok(http::TEXT, "", "ok\n"),
                Err(why) => http::page_answer(
                    HttpStatus::Unavailable,
                    http::TEXT,
                    HEADERS,
                    &format!("{why}\n"),
                ),
            },
            _ => http::text_answer(HttpStatus::NotFound, NOT_FOUND),
        };
        if question.is_head { http::without_body(answer) } else { answer }
    }
}

/// Seconds after which a page that refreshes itself is asked for again.
const LIVE_SECONDS: u32 = 10;

const NOT_FOUND: &str = "not found: there are /, /live, /metrics, /healthz and /status.json";

/// Nothing here is to be kept, guessed at or told on.
const HEADERS: &str = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
                       Referrer-Policy: no-referrer\r\n";

/// The page brings its own style and icon, and needs nothing else.
const PAGE_HEADERS: &str = "Content-Security-Policy: default-src 'none'; \
                            style-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
                            form-action 'none'; frame-ancestors 'none'\r\n";

fn ok(content_type: &str, headers: &str, body: &str) -> Vec<u8> {
    http::page_answer(HttpStatus::Ok, content_type, &format!("{HEADERS}{headers}"), body)
}

fn html(body: &str) -> Vec<u8> {
    ok("text/html; charset=utf-8", PAGE_HEADERS, body)
}
