//! Reads and checks the listeners and connections that an earlier process has handed over (manual:
//! reloading 5 and 6).

use std::fs::File;
use std::os::fd::OwnedFd;

use crate::codec::handover as codec;
use crate::message::ConnId;
use crate::message::handover::{AddressesRecord, ConnectionRecord, Head, StateRecord};
use crate::net::handover::{self, RecordReader};
use crate::net::listeners::HandedOver;
use crate::sys::logging::warn;

/// The listeners and connections of an earlier process.
#[derive(Debug)]
pub struct Inheritance {
    /// The number of the next connection.
    pub next_conn: u64,
    pub listeners: HandedOver,
    /// The locked files.
    pub locks: Vec<File>,
    /// The engine's state of addresses.
    pub addresses: AddressesRecord,
    pub connections: Vec<(ConnectionRecord, OwnedFd)>,
}

impl Inheritance {
    /// Takes what is there, at standard input or in what the service manager has kept; none if this
    /// process is not a successor. What cannot be read is closed, so that the start goes on as any
    /// other.
    pub fn receive(stored: Option<OwnedFd>) -> Option<Inheritance> {
        let received = handover::take_stdin().and_then(|socket| match socket.or(stored) {
            Some(socket) => handover::receive(socket),
            None => Ok(None),
        });
        let received = received.inspect_err(|error| warn!("nothing can be taken over: {error}"));
        let (records, descriptors) = received.ok()??;
        let inheritance = read(records, descriptors).inspect_err(|problem| {
            warn!("closing the connections that were handed over: {problem}");
        });
        inheritance.ok()
    }

    /// The numbers of the connections.
    pub fn numbers(&self) -> Vec<ConnId> {
        self.connections.iter().map(|(record, _)| record.conn).collect()
    }

    /// Takes the engine's part of each connection.
    pub fn take_states(&mut self) -> impl Iterator<Item = (ConnId, StateRecord)> {
        let connections = self.connections.iter_mut();
        connections.map(|(record, _)| (record.conn, std::mem::take(&mut record.state)))
    }
}

fn read(mut records: RecordReader, descriptors: Vec<OwnedFd>) -> Result<Inheritance, String> {
    let mut record = || records.read().map_err(|error| error.to_string());
    let head = codec::decode_head(&record()?)?;
    let Head { next_conn, listeners, connections } = head;
    let expected = connections.saturating_add(listeners.len() as u64);
    let count = descriptors.len();
    if count as u64 != expected {
        return Err(format!("{count} descriptors have come, not {expected}"));
    }
    let mut descriptors = descriptors.into_iter();
    let (locks, listeners): (Vec<_>, _) =
        listeners.into_iter().zip(descriptors.by_ref()).partition(|(record, _)| record.is_lock());
    let locks = locks.into_iter().map(|(_, descriptor)| File::from(descriptor)).collect();
    let addresses = codec::decode(&record()?)?;
    let mut connections = Vec::with_capacity(descriptors.len());
    for descriptor in descriptors {
        connections.push((codec::decode(&record()?)?, descriptor));
    }
    Ok(Inheritance { next_conn, listeners, locks, addresses, connections })
}
