//! Clients that ping in a closed loop: the cost of the server's path without its storage.

use std::time::Instant;

use super::Load;
use crate::common::histogram::Histogram;
use crate::common::json;
use crate::common::net::{Driver, Net, PeerId};

const PING: &str = r#"{"type":"ping","ping":1}"#;

/// The load.
#[derive(Debug)]
pub struct Ping {
    clients: usize,
    welcomed: usize,
    sent: Vec<Option<Instant>>,
    stopping: bool,
    latency: Histogram,
}

impl Ping {
    pub fn new(clients: usize) -> Ping {
        Ping {
            clients,
            welcomed: 0,
            sent: vec![None; clients],
            stopping: false,
            latency: Histogram::default(),
        }
    }

    fn send(&mut self, net: &mut Net, peer: PeerId) {
        self.sent[peer] = Some(Instant::now());
        net.send(peer, PING);
    }
}

impl Driver for Ping {
    fn text(&mut self, net: &mut Net, peer: PeerId, text: &str) {
        match json::value(text, "type") {
            Some("welcome") => self.welcomed += 1,
            Some("pong") => {
                if let Some(sent) = self.sent[peer].take() {
                    self.latency.record_since(sent);
                }
                if !self.stopping {
                    self.send(net, peer);
                }
            }
            Some("ack") => {}
            _ => net.fail(format!("unexpected answer to a ping: {text}")),
        }
    }
}

impl Load for Ping {
    fn unit(&self) -> &'static str {
        "pings"
    }

    fn start(&mut self, net: &mut Net) {
        for _ in 0..self.clients {
            net.connect();
        }
    }

    fn is_ready(&self) -> bool {
        self.welcomed == self.clients
    }

    fn begin(&mut self, net: &mut Net) {
        for peer in 0..self.clients {
            self.send(net, peer);
        }
    }

    fn latency(&mut self) -> &mut Histogram {
        &mut self.latency
    }

    fn stop(&mut self) {
        self.stopping = true;
    }

    fn outstanding(&self) -> usize {
        self.sent.iter().flatten().count()
    }
}
