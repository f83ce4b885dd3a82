//! What an earlier process has handed over to this one, read and checked (manual: reloading 5
//! and 6).

use std::os::fd::OwnedFd;

use log::warn;

use crate::codec::handover::{self as codec, HandoverError};
use crate::message::ConnId;
use crate::message::handover::{AddressesRecord, ConnectionRecord, Head, StateRecord};
use crate::net::handover::{self, RecordReader};
use crate::net::listeners::{HandedOver, Listeners};

/// The listeners and connections of an earlier process.
#[derive(Debug, Default)]
pub struct Inheritance {
    first_conn: u64,
    next_conn: u64,
    listeners: HandedOver,
    addresses: AddressesRecord,
    connections: Vec<(ConnectionRecord, OwnedFd)>,
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

    /// Takes the listeners.
    pub fn take_listeners(&mut self) -> HandedOver {
        std::mem::take(&mut self.listeners)
    }

    /// Raises the numbers of connections above those of the listeners.
    pub fn renumber(&mut self, listeners: &Listeners) {
        let shift = super::first_conn(listeners).saturating_sub(self.first_conn);
        self.next_conn += shift;
        for (record, _) in &mut self.connections {
            record.conn.0 += shift;
        }
    }

    /// Takes a part of the engine.
    pub fn take_addresses(&mut self) -> AddressesRecord {
        std::mem::take(&mut self.addresses)
    }

    /// Takes the other part of the engine.
    pub fn take_states(&mut self) -> impl Iterator<Item = (ConnId, StateRecord)> {
        let connections = self.connections.iter_mut();
        connections.map(|(record, _)| (record.conn, std::mem::take(&mut record.state)))
    }

    /// The connections, and the number of the next.
    pub(super) fn into_connections(self) -> (Vec<(ConnectionRecord, OwnedFd)>, u64) {
        (self.connections, self.next_conn)
    }
}

fn read(mut records: RecordReader, descriptors: Vec<OwnedFd>) -> Result<Inheritance, String> {
    let mut record = || records.read().map_err(|error| error.to_string());
    let head = codec::decode_head(&record()?).map_err(describe)?;
    let Head { first_conn, next_conn, listeners, .. } = head;
    let (count, expected) = (descriptors.len() as u64, listeners.len() as u64 + head.connections);
    if count != expected {
        return Err(format!("{count} descriptors have come, not {expected}"));
    }
    let mut descriptors = descriptors.into_iter();
    let mut handed_over = HandedOver::default();
    for (record, descriptor) in listeners.into_iter().zip(descriptors.by_ref()) {
        handed_over.add(record, descriptor);
    }
    let addresses = codec::decode(&record()?).map_err(describe)?;
    let mut connections = Vec::with_capacity(descriptors.len());
    for descriptor in descriptors {
        connections.push((codec::decode(&record()?).map_err(describe)?, descriptor));
    }
    Ok(Inheritance { first_conn, next_conn, listeners: handed_over, addresses, connections })
}

fn describe(error: HandoverError) -> String {
    match error {
        HandoverError::UnknownVersion(version) => {
            format!("their format is version {version}, this program reads {}", codec::VERSION)
        }
        HandoverError::Malformed => "their records are malformed".to_owned(),
    }
}
