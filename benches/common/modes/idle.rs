//! Idle bound connections: the memory of each. Then optionally a burst of large messages on all of
//! them, and the memory after it.

use std::time::{Duration, Instant};

use super::TURN;
use crate::common::json;
use crate::common::net::{Driver, Net, PeerId, Target};
use crate::common::process::Usage;

/// Connects under way at a time: fewer than any server's listen backlog.
const CONNECTING_MAX: usize = 100;

/// Large messages under way at a time: together fewer bytes than a server with limits stores and
/// buffers for all its clients.
const BURSTING_MAX: usize = 100;

/// How long connecting or bursting may take: a server under valgrind is slow.
const PATIENCE: Duration = Duration::from_secs(300);

/// Time for buffers to be freed before memory is read.
const SETTLE: Duration = Duration::from_secs(1);

/// The load.
#[derive(Debug)]
pub struct Idle {
    clients: usize,
    /// Each client opens a mailbox of its own.
    mailboxes: bool,
    connecting: usize,
    bound: usize,
    burst: Option<String>,
    burst_begun: usize,
    burst_done: usize,
    is_burst: bool,
}

/// Memory of the server's process, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct IdleReport {
    pub clients: usize,
    pub before: u64,
    pub connected: u64,
    pub after_burst: Option<u64>,
}

impl IdleReport {
    /// Bytes per connection.
    pub fn per_connection(&self) -> f64 {
        self.connected.saturating_sub(self.before) as f64 / self.clients as f64
    }

    /// Bytes per connection after the burst.
    pub fn per_connection_after_burst(&self) -> Option<f64> {
        let after = self.after_burst?.saturating_sub(self.before);
        Some(after as f64 / self.clients as f64)
    }
}

impl Idle {
    /// `burst_bytes` is the size of the large messages; none means no burst.
    pub fn new(clients: usize, burst_bytes: Option<usize>) -> Idle {
        Idle {
            clients,
            mailboxes: false,
            connecting: 0,
            bound: 0,
            burst: burst_bytes.map(|bytes| "5a".repeat(bytes / 2)),
            burst_begun: 0,
            burst_done: 0,
            is_burst: false,
        }
    }

    fn bind(&self, net: &mut Net, peer: PeerId) {
        let appid = "bench.example/idle";
        net.send(peer, &format!(r#"{{"type":"bind","appid":"{appid}","side":"{peer:010}"}}"#));
        if self.mailboxes {
            net.send(peer, &format!(r#"{{"type":"open","mailbox":"idle{peer:06}"}}"#));
        }
        // Once it is answered, everything before it is done.
        net.send(peer, r#"{"type":"ping","ping":0}"#);
    }

    /// Stores one large message in the client's own mailbox, receives it, and closes the mailbox.
    fn burst(&mut self, net: &mut Net, peer: PeerId) {
        let body = self.burst.as_deref().unwrap_or_default();
        net.send(peer, &format!(r#"{{"type":"open","mailbox":"burst{peer:06}"}}"#));
        net.send(peer, &format!(r#"{{"type":"add","phase":"0","body":"{body}"}}"#));
    }
}

impl Driver for Idle {
    fn text(&mut self, net: &mut Net, peer: PeerId, text: &str) {
        match json::value(text, "type") {
            Some("welcome") => self.bind(net, peer),
            Some("pong") => {
                self.connecting -= 1;
                self.bound += 1;
            }
            Some("ack") => {}
            Some("message") => net.send(peer, r#"{"type":"close","mood":"happy"}"#),
            Some("closed") => self.burst_done += 1,
            _ => net.fail(format!("unexpected answer: {:.200}", text)),
        }
    }

    fn before_sleep(&mut self, net: &mut Net) -> Option<Duration> {
        while self.connecting < CONNECTING_MAX && self.bound + self.connecting < self.clients {
            self.connecting += 1;
            net.connect();
        }
        while self.is_burst
            && self.burst_begun < self.clients
            && self.burst_begun - self.burst_done < BURSTING_MAX
        {
            self.burst(net, self.burst_begun);
            self.burst_begun += 1;
        }
        None
    }
}

/// Clients that stay connected as long as this lives. Nobody answers the server's pings meanwhile,
/// which no server minds for some minutes.
#[derive(Debug)]
pub struct Crowd(#[allow(dead_code)] Net);

/// Connects clients that each open a mailbox.
pub fn gather(target: &Target, clients: usize) -> Result<Crowd, String> {
    let mut net = Net::new(target.clone()).map_err(|error| format!("poll: {error}"))?;
    let mut idle = Idle { mailboxes: true, ..Idle::new(clients, None) };
    run_until(&mut idle, &mut net, |idle| idle.bound == clients)?;
    Ok(Crowd(net))
}

/// Connects the clients, reads the memory of the process, bursts, reads it again; `hold` is how
/// long the connections idle before.
pub fn run_idle(
    mut idle: Idle,
    target: &Target,
    pid: u32,
    hold: Duration,
) -> Result<IdleReport, String> {
    let before = Usage::of(pid)?.resident_bytes;
    let mut net = Net::new(target.clone()).map_err(|error| format!("poll: {error}"))?;
    let clients = idle.clients;
    run_until(&mut idle, &mut net, |idle| idle.bound == clients)?;
    rest(&mut idle, &mut net, hold)?;
    let connected = Usage::of(pid)?.resident_bytes;
    let mut after_burst = None;
    if idle.burst.is_some() {
        idle.is_burst = true;
        run_until(&mut idle, &mut net, |idle| idle.burst_done == clients)?;
        rest(&mut idle, &mut net, hold + SETTLE)?;
        after_burst = Some(Usage::of(pid)?.resident_bytes);
    }
    Ok(IdleReport { clients, before, connected, after_burst })
}

fn run_until(
    idle: &mut Idle,
    net: &mut Net,
    reached: impl Fn(&Idle) -> bool,
) -> Result<(), String> {
    let limit = Instant::now() + PATIENCE;
    net.run(idle, |idle, net| {
        if reached(idle) {
            return None;
        }
        if Instant::now() > limit {
            net.fail(format!(
                "stuck: {} of {} bound, {} bursts done",
                idle.bound, idle.clients, idle.burst_done
            ));
        }
        Some(TURN)
    })
}

fn rest(idle: &mut Idle, net: &mut Net, time: Duration) -> Result<(), String> {
    let until = Instant::now() + time;
    net.run(idle, |_, _| (Instant::now() < until).then_some(TURN))
}
