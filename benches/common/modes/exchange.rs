//! Whole exchanges, as two wormhole clients have them: connect, bind, allocate or claim, open,
//! three messages each way (pake, version, data), release, close. Pairs start again when done.

use std::time::Instant;

use super::Load;
use crate::common::histogram::Histogram;
use crate::common::json;
use crate::common::net::{Driver, Net, PeerId};

/// Hex digits in the bodies of the messages, as magic-wormhole 0.24 sends them for a short text.
const BODY_BYTES: usize = 180;

const APPID: &str = "bench.example/exchange";
const VERSION: &str = r#"["load","1"]"#;

/// The messages of each side, in order.
const PHASES: [&str; 3] = ["pake", "version", "0"];

/// One client of a pair.
#[derive(Clone, Debug, Default)]
struct Client {
    pair: usize,
    first: bool,
    /// Its own, as every real client's is: the Python server mixes up mailboxes of sides that
    /// share a name.
    side: String,
    /// Messages received from the other side.
    received: usize,
}

/// Two clients and how far they are.
#[derive(Clone, Debug)]
struct Pair {
    started: Instant,
    clients: [PeerId; 2],
    nameplate: Option<String>,
    /// The second client has its welcome and waits for the nameplate.
    second_waits: bool,
    closed: usize,
    gone: usize,
}

impl Pair {
    fn started(started: Instant, clients: [PeerId; 2]) -> Pair {
        Pair { started, clients, nameplate: None, second_waits: false, closed: 0, gone: 0 }
    }
}

/// The load.
#[derive(Debug)]
pub struct Exchange {
    pairs: Vec<Pair>,
    clients: Vec<Client>,
    body: String,
    /// How many clients there have been.
    clients_count: u64,
    running: usize,
    stopping: bool,
    latency: Histogram,
}

impl Exchange {
    pub fn new(pairs: usize) -> Exchange {
        Exchange {
            pairs: vec![Pair::started(Instant::now(), [0; 2]); pairs],
            clients: Vec::new(),
            body: "7b".repeat(BODY_BYTES / 2),
            clients_count: 0,
            running: 0,
            stopping: false,
            latency: Histogram::default(),
        }
    }

    fn restart(&mut self, net: &mut Net, pair: usize) {
        self.running += 1;
        let started = Instant::now();
        let clients = [true, false].map(|first| {
            let peer = net.connect();
            if self.clients.len() <= peer {
                self.clients.resize(peer + 1, Client::default());
            }
            self.clients_count += 1;
            let side = format!("{:010x}", self.clients_count);
            self.clients[peer] = Client { pair, first, side, received: 0 };
            peer
        });
        self.pairs[pair] = Pair::started(started, clients);
    }

    fn welcome(&mut self, net: &mut Net, peer: PeerId) {
        let client = &self.clients[peer];
        let side = &client.side;
        net.send(
            peer,
            &format!(
                r#"{{"type":"bind","appid":"{APPID}","side":"{side}","client_version":{VERSION}}}"#
            ),
        );
        if client.first {
            return net.send(peer, r#"{"type":"allocate"}"#);
        }
        match self.pairs[client.pair].nameplate.clone() {
            Some(nameplate) => claim(net, peer, &nameplate),
            None => self.pairs[client.pair].second_waits = true,
        }
    }

    fn allocated(&mut self, net: &mut Net, peer: PeerId, nameplate: &str) {
        claim(net, peer, nameplate);
        let pair = &mut self.pairs[self.clients[peer].pair];
        pair.nameplate = Some(nameplate.to_owned());
        if pair.second_waits {
            claim(net, pair.clients[1], nameplate);
        }
    }

    fn add(&self, net: &mut Net, peer: PeerId, phase: &str) {
        let body = &self.body;
        net.send(peer, &format!(r#"{{"type":"add","phase":"{phase}","body":"{body}"}}"#));
    }

    fn message(&mut self, net: &mut Net, peer: PeerId, text: &str) {
        let client = &mut self.clients[peer];
        if json::value(text, "side") == Some(&*client.side) {
            return; // one's own message, echoed
        }
        client.received += 1;
        let received = client.received;
        if received == 1 {
            net.send(peer, r#"{"type":"release"}"#);
        }
        match PHASES.get(received) {
            Some(phase) => self.add(net, peer, phase),
            None => net.send(peer, r#"{"type":"close","mood":"happy"}"#),
        }
    }
}

fn claim(net: &mut Net, peer: PeerId, nameplate: &str) {
    net.send(peer, &format!(r#"{{"type":"claim","nameplate":"{nameplate}"}}"#));
}

impl Driver for Exchange {
    fn text(&mut self, net: &mut Net, peer: PeerId, text: &str) {
        match json::value(text, "type") {
            Some("ack" | "released") => {}
            Some("message") => self.message(net, peer, text),
            Some("welcome") => self.welcome(net, peer),
            Some("allocated") => match json::value(text, "nameplate") {
                Some(nameplate) => self.allocated(net, peer, nameplate),
                None => net.fail(format!("no nameplate: {text}")),
            },
            Some("claimed") => match json::value(text, "mailbox") {
                Some(mailbox) => {
                    net.send(peer, &format!(r#"{{"type":"open","mailbox":"{mailbox}"}}"#));
                    self.add(net, peer, PHASES[0]);
                }
                None => net.fail(format!("no mailbox: {text}")),
            },
            Some("closed") => {
                let pair = &mut self.pairs[self.clients[peer].pair];
                pair.closed += 1;
                if pair.closed == 2 {
                    self.latency.record_since(pair.started);
                }
                net.close(peer);
            }
            _ => net.fail(format!("unexpected answer: {text}")),
        }
    }

    fn gone(&mut self, net: &mut Net, peer: PeerId) {
        let number = self.clients[peer].pair;
        let pair = &mut self.pairs[number];
        pair.gone += 1;
        if pair.gone > pair.closed {
            return net.fail("the server closed a connection in the middle".to_owned());
        }
        if pair.gone == 2 {
            self.running -= 1;
            if !self.stopping {
                self.restart(net, number);
            }
        }
    }
}

impl Load for Exchange {
    fn unit(&self) -> &'static str {
        "exchanges"
    }

    fn start(&mut self, _net: &mut Net) {}

    fn begin(&mut self, net: &mut Net) {
        for pair in 0..self.pairs.len() {
            self.restart(net, pair);
        }
    }

    fn latency(&mut self) -> &mut Histogram {
        &mut self.latency
    }

    fn stop(&mut self) {
        self.stopping = true;
    }

    /// Those that are in the middle at the beginning and at the end must not weigh much.
    fn operations_min(&self) -> u64 {
        2 * self.pairs.len() as u64
    }

    fn outstanding(&self) -> usize {
        self.running
    }
}
