//! Many clients that connect in the same instant: time from the connect to the welcome.

use std::time::Instant;

use super::Load;
use crate::common::histogram::Histogram;
use crate::common::json;
use crate::common::net::{Driver, Net, PeerId};

/// The load.
#[derive(Debug)]
pub struct Storm {
    clients: usize,
    begun: Option<Instant>,
    welcomed: usize,
    latency: Histogram,
}

impl Storm {
    pub fn new(clients: usize) -> Storm {
        Storm { clients, begun: None, welcomed: 0, latency: Histogram::default() }
    }
}

impl Driver for Storm {
    fn text(&mut self, net: &mut Net, _peer: PeerId, text: &str) {
        if json::value(text, "type") != Some("welcome") {
            return net.fail(format!("not a welcome: {text}"));
        }
        self.welcomed += 1;
        if let Some(begun) = self.begun {
            self.latency.record_since(begun);
        }
    }

    /// The first sleep begins the storm, so that a warm-up of no length does not swallow it.
    fn before_sleep(&mut self, net: &mut Net) -> Option<std::time::Duration> {
        if self.begun.is_none() {
            self.begun = Some(Instant::now());
            for _ in 0..self.clients {
                net.connect();
            }
        }
        None
    }
}

impl Load for Storm {
    fn unit(&self) -> &'static str {
        "connects"
    }

    fn start(&mut self, _net: &mut Net) {}

    fn latency(&mut self) -> &mut Histogram {
        &mut self.latency
    }

    fn is_done(&self) -> bool {
        self.welcomed == self.clients
    }

    fn outstanding(&self) -> usize {
        self.clients - self.welcomed
    }
}
