//! One process hands over to another at the end of a tick (manual: reloading 5): what is in memory
//! goes through the records, the rest is read from the disk.

use wormhole_mailbox::codec::handover::{decode, encode};
use wormhole_mailbox::engine::Engine;
use wormhole_mailbox::message::handover::{
    AddressesRecord, ConnectionRecord, PhaseRecord, StateRecord,
};
use wormhole_mailbox::message::{ConnId, MailboxState};

use crate::check;
use crate::driver::Simulation;
use crate::faults::Fault;
use crate::world::peer;

/// What one process leaves for the next.
#[derive(Debug)]
pub struct Inheritance {
    pub addresses: AddressesRecord,
    pub connections: Vec<(ConnId, StateRecord)>,
}

impl Simulation {
    /// The process ends, and the next goes on with its connections.
    pub fn take_over(&mut self, mut engine: Engine) -> Result<(), String> {
        self.totals.takeovers += 1;
        let is_broken = std::mem::take(&mut self.disk.borrow_mut().broken);
        self.disk.borrow_mut().fail_once = false;
        engine.prepare_handover().expect("the disk works");
        self.disk.borrow_mut().broken = is_broken;
        self.model.write_activity(&self.disk.borrow().rows());
        if self.is_traced {
            eprintln!("a takeover");
        }
        if let Some(usage) = &self.usage {
            usage.stopped(&self.model.usage)?;
        }
        let mut addresses = through_bytes(engine.export_addresses());
        let mut connections: Vec<_> = self
            .peerings
            .iter()
            .map(|peering| connection_through_bytes(peering.conn, engine.export(peering.conn)))
            .collect();
        connections.sort_by_key(|(conn, _)| *conn);
        drop(engine);
        match self.fault {
            Some(Fault::TakeoverForgetsMailboxes) => {
                let sessions = connections.iter_mut().filter_map(|(_, it)| it.session.as_mut());
                sessions.for_each(|session| session.mailbox = MailboxState::Unopened);
            }
            Some(Fault::TakeoverForgetsCreators) => addresses.creators.clear(),
            _ => {}
        }
        self.start(Some(Inheritance { addresses, connections }));
        self.model.end_tick(); // what the first check has deleted counts for no address
        check::rows(&self.disk.borrow(), &mut self.model)
    }
}

fn through_bytes(record: AddressesRecord) -> AddressesRecord {
    decode(&encode(&record)).expect("what has just been encoded")
}

fn connection_through_bytes(conn: ConnId, state: StateRecord) -> (ConnId, StateRecord) {
    let record = ConnectionRecord {
        conn,
        is_unix: false,
        is_rejected: false,
        peer: peer(None),
        phase: PhaseRecord::Open { pinged: 0, unanswered: None },
        since: 0,
        unread: Vec::new(),
        unsent: Vec::new(),
        is_ended: false,
        state,
    };
    let record = decode::<ConnectionRecord>(&encode(&record));
    let record = record.expect("what has just been encoded");
    (record.conn, record.state)
}
