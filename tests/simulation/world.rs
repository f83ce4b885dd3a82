//! The world around the engine: who connects, speaks and leaves, how time passes, when the disk
//! fails.

use wormhole_mailbox::conn::CloseReason;
use wormhole_mailbox::engine::Engine;
use wormhole_mailbox::message::ConnId;
use wormhole_mailbox::peer::Peer;

use crate::commands::{Arg, Ask, Reply, Sent};
use crate::driver::{Event, Peering, SECONDS_PER_UNIT, Simulation};
use crate::faults::Fault;

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
        if self.random.chance(self.swarm.floods) {
            self.flood(&talkers, &mut events);
        }
        events
    }

    /// Opens and abandons many mailboxes: more than one tick of an expiry check looks at.
    fn flood(&mut self, talkers: &[ConnId], events: &mut Vec<(ConnId, Event)>) {
        let conn = self.random.pick(talkers);
        if self.model.client(conn).is_none_or(|client| client.bound.is_none()) {
            return;
        }
        for _ in 0..200 {
            let mailbox = format!("flood-{:x}", self.random.next());
            let open = Ask::Open(Arg::Text(mailbox.into()));
            events.push((conn, Event::Text(Sent::new(None, open))));
            // `close` of a mailbox that another side holds would end it: leave by reconnecting.
        }
    }

    pub fn accept(&mut self, engine: &mut Engine) {
        let has_room = self.peerings.len() < self.swarm.clients_max;
        if !has_room || !self.random.chance(self.swarm.connects * 3) {
            return;
        }
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        self.totals.clients += 1;
        let address = self.random.chance(700).then(|| self.random.below(3) as u8);
        assert!(engine.admit(conn, peer(address)).is_ok(), "connections are not limited here");
        self.peerings.push(Peering { conn, address, is_open: false, reap_in: None });
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
        if random.chance(self.swarm.steps_back) {
            self.wall -= random.pick(&[1, 16, 400 * 8]);
        }
        if random.chance(self.swarm.boundaries) {
            self.meet_boundary();
        }
    }

    /// An expiry check at the very moment at which some mailbox has been idle for long enough, or
    /// just before or after it.
    fn meet_boundary(&mut self) {
        let mailboxes = &self.model.rows.mailboxes;
        if mailboxes.is_empty() {
            return;
        }
        let expiry = mailboxes[self.random.below(mailboxes.len())].updated
            + self.swarm.settings.expire_after;
        let target = (expiry / SECONDS_PER_UNIT) as i64 + self.random.pick(&[-1, 0, 0, 1]);
        if target > self.wall {
            let check = (self.swarm.settings.expire_check / SECONDS_PER_UNIT) as i64;
            self.elapsed += check.max(target - self.wall);
            self.wall = target;
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
    let ip = address.map(|last| std::net::Ipv4Addr::new(192, 0, 2, last).into());
    Peer { ip, port: ip.map(|_| 1234) }
}
