//! The answers of the admin listener: the status page, metrics, health, and the status as JSON.
//!
//! Shows the state of the server and the engine, and keeps what they do not: durations, and the
//! last hour and day. Read-only: it must never change what clients get, never walk over all
//! mailboxes, and never show an address, a side, an app id, a nameplate or a mailbox id.

mod chart;
mod histogram;
mod history;
mod json;
mod metrics;
mod page;
mod prometheus;
mod status;
mod tables;

use std::time::Instant;

use crate::codec::http::{self, Question, Status as HttpStatus};
use crate::config::Config;
use crate::engine::Engine;
use crate::format;
use crate::message::Outcome;
use crate::net::outbox::Delivered;
use crate::sys::clock::{Clock, Timestamp};
use histogram::Timings;
use history::{Counts, Series};
use status::Status;

/// The server's state at the moment of a request.
#[derive(Clone, Copy)]
pub struct ServerView<'a> {
    pub config: &'a Config,
    pub engine: &'a Engine,
    pub clock: Clock,
    /// Connections of clients.
    pub connections: usize,
    /// What has been sent to clients since the start.
    pub delivered: Delivered,
}

/// Timings and history, kept for the admin listener.
#[derive(Debug)]
pub struct Admin {
    started: Clock,
    /// Durations of ticks and commits since the start.
    pub timings: Timings,
    /// The last hour and the last day, by a time that is never set.
    history: [Series; 2],
}

impl Admin {
    /// Begins at the server's start, with the mailboxes that ended before.
    pub fn new(started: Clock, ended: &[(Timestamp, Option<Outcome>, u64)]) -> Admin {
        let mut history = [Series::hour(started.wall), Series::day(started.wall)];
        for (at, outcome, count) in ended {
            let Some(outcome) = outcome else { continue };
            for series in &mut history {
                series.restore(*at, *outcome, *count);
            }
        }
        Admin { started, timings: Timings::default(), history }
    }

    /// Records a tick, after which that many clients are connected.
    pub fn note_tick(&mut self, began: Clock, connections: usize, engine: &Engine) {
        self.timings.note_tick(began.instant.elapsed().as_secs_f64());
        let totals = || Counts::totals(&engine.metrics, &self.timings);
        for series in &mut self.history {
            series.advance(self.started.steady_time(began), &totals, connections);
        }
    }

    /// When a bucket of the history ends, which takes a tick.
    pub fn next_bucket(&self) -> Instant {
        let [hour, day] = self.history.each_ref().map(Series::next_bucket);
        self.started.after((hour.min(day) - self.started.wall).max(0.0))
    }

    /// The whole HTTP response, as to a GET.
    pub fn answer(&self, question: &Question, view: ServerView<'_>) -> Vec<u8> {
        let status = || Status::collect(self, view);
        let is_known = |name: &str| view.engine.is_admin_host(name);
        let is_misdirected = question.host.as_deref().is_some_and(|name| !is_known(name));
        match &*question.path {
            // These hold nothing but counts, and monitors ask by any name.
            path if is_misdirected && !matches!(path, "/metrics" | "/healthz") => {
                http::text_answer(HttpStatus::Misdirected, MISDIRECTED)
            }
            "/" => html(&page::render(&status(), None)),
            "/live" => html(&page::render(&status(), Some(LIVE_SECONDS))),
            "/status.json" => ok("application/json", "", &json::render(&status())),
            "/metrics" => {
                ok(prometheus::CONTENT_TYPE, "", &prometheus::render(&metrics::all(&status())))
            }
            "/healthz" => {
                let (status, health) = match view.engine.can_serve() {
                    Ok(()) => (HttpStatus::Ok, "ok".to_owned()),
                    Err(why) => (HttpStatus::Unavailable, format::harmless_error(&why)),
                };
                http::page_answer(status, http::TEXT, HEADERS, &format!("{health}\n"))
            }
            _ => http::text_answer(HttpStatus::NotFound, NOT_FOUND),
        }
    }
}

/// Seconds after which a browser loads `/live` again.
const LIVE_SECONDS: u32 = 10;

const MISDIRECTED: &str = "not known by this host name: start the server with --admin-host=NAME, \
                           or use its address";

const NOT_FOUND: &str = "not found: there are /, /live, /metrics, /healthz and /status.json";

/// Disables caching, MIME sniffing and referrers.
const HEADERS: &str = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
                       Referrer-Policy: no-referrer\r\n";

/// Allows the page's own style and icon, and nothing else.
const PAGE_HEADERS: &str = "Content-Security-Policy: default-src 'none'; \
                            style-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
                            form-action 'none'; frame-ancestors 'none'\r\n";

fn ok(content_type: &str, headers: &str, body: &str) -> Vec<u8> {
    http::page_answer(HttpStatus::Ok, content_type, &format!("{HEADERS}{headers}"), body)
}

fn html(body: &str) -> Vec<u8> {
    ok("text/html; charset=utf-8", PAGE_HEADERS, body)
}
