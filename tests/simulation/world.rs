//! The world around the engine: who connects, speaks and leaves, how time passes, when the disk
//! fails.

use std::net::{IpAddr, Ipv6Addr};

use wormhole_mailbox::engine::Engine;
use wormhole_mailbox::message::{CloseReason, ConnId, Peer};

use crate::commands::{Arg, Ask, Reply, Sent};
use crate::driver::{Event, Peering, SECONDS_PER_UNIT, Simulation};
use crate::faults::Fault;

/// Addresses of clients; from this one on they are IPv6, each in a /64 of its own, all in one /56.
pub const ADDRESSES_MAX: usize = 9;
pub const FIRST_IPV6: u8 = 3;

/// Clients of a flood.
const FLOOD_CLIENTS: usize = 150;

impl Simulation {
    /// What comes in with this tick.
    pub fn events(&mut self) -> Vec<(ConnId, Event)> {
        let mut events = Vec::new();
        for peering in &mut self.peerings {
            if !peering.is_open && peering.reap_in.is_none() && self.random.chance(800) {
                peering.is_open = true;
                events.push((peering.conn, Event::Open { address: peering.address }));
            }
        }
        let talkers: Vec<ConnId> = self
            .peerings
            .iter()
            .filter(|peering| peering.is_open && peering.reap_in.is_none())
            .map(|peering| peering.conn)
            .collect();
        if talkers.is_empty() {
            return events;
        }
        for _ in 0..self.random.below(self.swarm.events_per_tick + 1) {
            let conn = self.random.pick(&talkers);
            if self.random.chance(20) {
                events.push((conn, Event::Ping));
            }
            // One that has only just opened is not known to the model yet.
            let command = self.swarm.command(&self.model, conn, &mut self.random);
            events.extend(command.map(|sent| (conn, Event::Text(sent))));
        }
        let has_close = |(_, event): &(ConnId, Event)| matches!(event, Event::Text(sent) if matches!(sent.ask, Ask::Close { .. }));
        if self.swarm.failures > 0 && events.iter().any(has_close) && self.random.chance(60) {
            self.disk.borrow_mut().fail_once = true; // what is deleted comes back
        }
        events
    }

    /// Many clients at once, each of which opens a mailbox of its own and leaves: more mailboxes
    /// expire together then than one tick of a check looks at.
    pub fn flood(&mut self, engine: &mut Engine, events: &mut Vec<(ConnId, Event)>) {
        if !self.random.chance(self.swarm.floods) {
            return;
        }
        for _ in 0..FLOOD_CLIENTS {
            let conn = self.connect(engine, None);
            let app = Arg::Text(format!("app-{}", self.random.below(self.swarm.apps)).into());
            let mailbox = Arg::Text(format!("flood-{:x}", self.random.next()).into());
            let bind = Ask::Bind { app, side: Arg::text("side-0") };
            events.push((conn, Event::Open { address: None }));
            events.push((conn, Event::Text(Sent::new(None, bind))));
            events.push((conn, Event::Text(Sent::new(None, Ask::Open(mailbox)))));
            if let Some(peering) = self.peerings.last_mut() {
                (peering.is_open, peering.reap_in) = (true, Some(2));
            }
        }
    }

    pub fn accept(&mut self, engine: &mut Engine) {
        let has_room = self.peerings.len() < self.swarm.clients_max;
        if !has_room || !self.random.chance(self.swarm.connects * 3) {
            return;
        }
        let address =
            self.random.chance(700).then(|| self.random.below(self.swarm.addresses) as u8);
        self.connect(engine, address);
    }

    fn connect(&mut self, engine: &mut Engine, address: Option<u8>) -> ConnId {
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        self.totals.clients += 1;
        assert!(engine.admit(conn, peer(address)).is_ok(), "connections are not limited here");
        self.peerings.push(Peering { conn, address, is_open: false, reap_in: None });
        conn
    }

    /// Connections leave in every way: they are gone at once, or fall silent and are reaped later.
    pub fn reap(&mut self, engine: &mut Engine, affected: &[ConnId]) {
        let (random, leaves) = (&mut self.random, self.swarm.leaves);
        for peering in &mut self.peerings {
            match &mut peering.reap_in {
                Some(ticks) => *ticks = ticks.saturating_sub(1),
                None if affected.contains(&peering.conn) || random.chance(leaves) => {
                    peering.reap_in = Some(random.below(4));
                }
                None => {}
            }
        }
        for gone in self.peerings.extract_if(.., |peering| peering.reap_in == Some(0)) {
            engine.disconnect(gone.conn, CloseReason::PeerClosed);
            self.model.disconnect(gone.conn);
        }
    }

    pub fn pass_time(&mut self) {
        let random = &mut self.random;
        let units = match random.below(100) {
            0..15 => 0,
            15..80 => 1 + random.below(8),
            80..97 => random.below(40 * 8),
            _ => random.below(400 * 8),
        } as i64;
        self.elapsed += units;
        self.wall += units;
        if random.chance(self.swarm.jumps) {
            let units = random.below(900 * 8) as i64;
            self.elapsed += units;
            self.wall += units;
        }
        if random.chance(self.swarm.steps) {
            self.wall += random.pick(&[-1, -16, -400 * 8, 400 * 8, 800 * 8]);
        }
        if random.chance(self.swarm.boundaries) {
            self.meet_boundary();
        }
    }

    /// An expiry check at the very moment at which some mailbox has been idle for long enough, or
    /// just before or after it.
    fn meet_boundary(&mut self) {
        let until_check = self.model.times.next_check - self.model.times.instant;
        let until_check = until_check.as_secs_f64() / SECONDS_PER_UNIT;
        let left = |updated| {
            let expiry = updated + self.swarm.settings.expire_after;
            (expiry - self.model.now()) / SECONDS_PER_UNIT
        };
        let activity = &self.model.activity;
        let mailboxes = self.model.rows.mailboxes.iter();
        let mailboxes = mailboxes.map(|mailbox| left(activity[&mailbox.id].0));
        // A check must be due by then.
        let met: Vec<f64> = mailboxes.filter(|left| *left > until_check).collect();
        if !met.is_empty() {
            let units = self.random.pick(&met) as i64 + self.random.pick(&[-1, 0, 0, 1]);
            self.elapsed += units;
            self.wall += units;
        }
    }

    pub fn break_or_mend(&mut self) {
        let mut disk = self.disk.borrow_mut();
        let is_failing = disk.broken || disk.unreadable;
        if is_failing && self.mends_in == 0 {
            (disk.broken, disk.unreadable) = (false, false);
        } else if !is_failing && self.random.chance(self.swarm.failures) {
            self.mends_in = self.random.below(12);
            match self.random.below(3) {
                0 => disk.fail_once = true,
                1 => disk.broken = true,
                _ => (disk.fail_once, disk.unreadable) = (true, true),
            }
        }
        self.mends_in = self.mends_in.saturating_sub(1);
    }

    /// Planted faults on the way of the answers.
    pub fn tamper(&mut self, replies: &mut Vec<(ConnId, Reply)>) {
        match self.fault {
            Some(Fault::LosesReply) if !replies.is_empty() && self.random.chance(20) => {
                replies.remove(self.random.below(replies.len()));
            }
            Some(Fault::RepliesToWrongConnection) if self.random.chance(100) => {
                let other = self.peerings.iter().map(|peering| peering.conn).next();
                if let (Some(reply), Some(other)) = (replies.last_mut(), other) {
                    reply.0 = other;
                }
            }
            _ => {}
        }
    }
}

/// A peer whose address is limited, or one on a unix socket, whose is not.
pub fn peer(address: Option<u8>) -> Peer {
    let ip = address.map(|number| match number {
        FIRST_IPV6.. => Ipv6Addr::new(0x2001, 0xdb8, 0, number.into(), 0, 0, 0, 1).into(),
        _ => IpAddr::from([192, 0, 2, number]),
    });
    Peer { ip, port: ip.map(|_| 1234) }
}
