//! Established pairs that pass messages: the latency is from one client to the other.
//!
//! Closed loop: each pair has one message under way, back and forth. Open loop: messages are due
//! at a fixed rate, whatever the server does, and each is timed from the moment it was due; a
//! server that stalls cannot hide it by slowing the clients down (coordinated omission).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Dialect, Load};
use crate::common::histogram::Histogram;
use crate::common::json;
use crate::common::net::{Driver, Net, PeerId};

/// Hex digits at a body's beginning that hold the message's number.
const NUMBER_DIGITS: usize = 16;

/// An open loop spins instead of sleeping when the next message is due within this time, because
/// the poll rounds its timeout up to a millisecond.
const SPIN: Duration = Duration::from_millis(2);

/// The load.
#[derive(Debug)]
pub struct Relay {
    dialect: Dialect,
    pairs: usize,
    padding: String,
    rate: Option<f64>,
    /// Distinguishes the mailboxes of this run from those of earlier ones.
    run: u32,
    ready: usize,
    began: Option<Instant>,
    stopping: bool,
    /// Open loop: messages sent. The n-th is due n intervals after the beginning.
    next: u64,
    outstanding: usize,
    sent: Vec<Instant>,
    /// Clients that have been sent their setup and not confirmed it.
    joining: Vec<bool>,
    latency: Histogram,
}

impl Relay {
    /// `rate` in messages per second makes it an open loop.
    pub fn new(pairs: usize, body_bytes: usize, rate: Option<f64>, dialect: Dialect) -> Relay {
        Relay {
            dialect,
            pairs,
            padding: "0".repeat(body_bytes.saturating_sub(NUMBER_DIGITS)),
            rate,
            run: run_number(),
            ready: 0,
            began: None,
            stopping: false,
            next: 0,
            outstanding: 0,
            sent: vec![Instant::now(); pairs],
            joining: vec![true; 2 * pairs],
            latency: Histogram::default(),
        }
    }

    fn join(&mut self, net: &mut Net, peer: PeerId) {
        let pair = peer / 2;
        if self.dialect == Dialect::Floor {
            return net.send(peer, &format!("pair {pair}"));
        }
        let appid = "bench.example/relay";
        net.send(peer, &format!(r#"{{"type":"bind","appid":"{appid}","side":"{}"}}"#, side(peer)));
        let run = self.run;
        net.send(peer, &format!(r#"{{"type":"open","mailbox":"{run:08x}{pair:05}"}}"#));
        // Once it is answered, the mailbox is open.
        net.send(peer, r#"{"type":"ping","ping":0}"#);
    }

    fn send(&mut self, net: &mut Net, peer: PeerId, number: u64) {
        self.outstanding += 1;
        let body = format!("{number:016x}{}", self.padding);
        let text = match self.dialect {
            Dialect::Mailbox => {
                format!(r#"{{"type":"add","phase":"{number}","body":"{body}"}}"#)
            }
            // What a mailbox server would make of it, as the floor only passes it on.
            Dialect::Floor => {
                let side = side(peer);
                format!(
                    r#"{{"type":"message","side":"{side}","phase":"{number}","body":"{body}"}}"#
                )
            }
        };
        net.send(peer, &text);
    }

    fn receive(&mut self, net: &mut Net, peer: PeerId, text: &str) {
        if json::value(text, "side") == Some(side(peer)) {
            return; // one's own message, echoed
        }
        let number = json::value(text, "body")
            .and_then(|body| u64::from_str_radix(body.get(..NUMBER_DIGITS)?, 16).ok());
        let Some(number) = number else {
            return net.fail(format!("a message without our number: {text}"));
        };
        self.outstanding -= 1;
        match (self.rate, self.began) {
            (Some(rate), Some(began)) => self.latency.record_since(began + due(number, rate)),
            _ => {
                self.latency.record_since(self.sent[peer / 2]);
                if !self.stopping {
                    self.sent[peer / 2] = Instant::now();
                    self.send(net, peer, number + 1);
                }
            }
        }
    }
}

/// The two sides of a pair.
fn side(peer: PeerId) -> &'static str {
    if peer.is_multiple_of(2) { "aaaaaaaaaa" } else { "bbbbbbbbbb" }
}

/// When a message is due, after the beginning.
fn due(number: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(number as f64 / rate)
}

impl Driver for Relay {
    fn text(&mut self, net: &mut Net, peer: PeerId, text: &str) {
        match json::value(text, "type") {
            Some("message") => self.receive(net, peer, text),
            Some("ack") => {}
            Some("welcome") => self.join(net, peer),
            Some("pong") if std::mem::take(&mut self.joining[peer]) => self.ready += 1,
            _ => net.fail(format!("unexpected answer: {text}")),
        }
    }

    fn before_sleep(&mut self, net: &mut Net) -> Option<Duration> {
        let (rate, began) = (self.rate?, self.began?);
        if self.stopping {
            return None;
        }
        loop {
            let wait = (began + due(self.next, rate)).saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                return Some(if wait < SPIN { Duration::ZERO } else { wait - SPIN });
            }
            // Round robin over all clients, so that both directions are used.
            let peer = (self.next % (2 * self.pairs as u64)) as PeerId;
            self.send(net, peer, self.next);
            self.next += 1;
        }
    }
}

impl Load for Relay {
    fn unit(&self) -> &'static str {
        "messages"
    }

    fn start(&mut self, net: &mut Net) {
        for _ in 0..2 * self.pairs {
            net.connect();
        }
    }

    fn is_ready(&self) -> bool {
        self.ready == 2 * self.pairs
    }

    fn begin(&mut self, net: &mut Net) {
        self.began = Some(Instant::now());
        if self.rate.is_none() {
            for pair in 0..self.pairs {
                self.sent[pair] = Instant::now();
                self.send(net, 2 * pair, 0);
            }
        }
    }

    fn latency(&mut self) -> &mut Histogram {
        &mut self.latency
    }

    fn stop(&mut self) {
        self.stopping = true;
    }

    fn outstanding(&self) -> usize {
        self.outstanding
    }

    fn counts_late_ends(&self) -> bool {
        self.rate.is_some()
    }
}

/// Differs from run to run, so that a server's old mailboxes are not met again.
fn run_number() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.subsec_nanos() ^ (since.as_secs() as u32)
}
