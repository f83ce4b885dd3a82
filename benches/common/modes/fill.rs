//! Clients that each fill a mailbox, until the server refuses to store more.

use super::Load;
use crate::common::histogram::Histogram;
use crate::common::json;
use crate::common::net::{Driver, Net, PeerId};

/// The load.
#[derive(Debug)]
pub struct Fill {
    body: String,
    /// Clients that have met the limit, or whose mailbox has made room for others.
    ended: Vec<bool>,
    latency: Histogram,
}

impl Fill {
    pub fn new(clients: usize, body_bytes: usize) -> Fill {
        let body = "5a".repeat(body_bytes / 2);
        Fill { body, ended: vec![false; clients], latency: Histogram::default() }
    }

    fn add(&self, net: &mut Net, peer: PeerId) {
        net.send(peer, &format!(r#"{{"type":"add","phase":"0","body":"{}"}}"#, self.body));
    }
}

impl Driver for Fill {
    fn text(&mut self, net: &mut Net, peer: PeerId, text: &str) {
        match json::value(text, "type") {
            Some("welcome") => {
                let (app, size) = ("bench.example/fill", self.body.len());
                let side = format!("{peer:010}");
                net.send(peer, &format!(r#"{{"type":"bind","appid":"{app}","side":"{side}"}}"#));
                net.send(peer, &format!(r#"{{"type":"open","mailbox":"fill{size}x{peer:06}"}}"#));
                self.add(net, peer);
            }
            Some("message") => self.add(net, peer),
            Some("error") => self.ended[peer] = true,
            Some("ack") => {}
            _ => net.fail(format!("unexpected answer: {text:.200}")),
        }
    }

    fn gone(&mut self, _net: &mut Net, peer: PeerId) {
        self.ended[peer] = true;
    }
}

impl Load for Fill {
    fn unit(&self) -> &'static str {
        "refusals"
    }

    fn start(&mut self, net: &mut Net) {
        for _ in 0..self.ended.len() {
            net.connect();
        }
    }

    fn latency(&mut self) -> &mut Histogram {
        &mut self.latency
    }

    fn is_done(&self) -> bool {
        self.ended.iter().all(|ended| *ended)
    }

    fn outstanding(&self) -> usize {
        self.ended.iter().filter(|ended| !**ended).count()
    }
}
