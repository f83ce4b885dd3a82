//! What is to be sent: one output, and the list of a tick's outputs in the order of their causes.

use std::mem;

use crate::limits::BATCH_ENTRIES_KEPT;
use crate::message::{ConnId, Response};

/// Something for one connection.
#[derive(Debug)]
pub enum Output {
    /// A message of the protocol, to be encoded when it leaves.
    Response(Response),
    /// Bytes as they are: HTTP answers, pings, pongs, close frames.
    Bytes(Vec<u8>),
    /// Nothing comes after this: the connection's writing side is shut down.
    End,
}

impl Output {
    /// Bytes that count towards the outbox limit.
    pub fn queued_bytes(&self) -> usize {
        match self {
            Output::Response(response) => response.queued_bytes(),
            Output::Bytes(bytes) => bytes.len() + size_of::<Output>(),
            Output::End => 0,
        }
    }
}

/// Outputs of one tick, in the order of their causes.
#[derive(Debug, Default)]
pub struct Outputs {
    list: Vec<Output>,
    /// (connection, index into `list`). This is sorted in the end, so that outputs do not move.
    places: Vec<(ConnId, usize)>,
    bytes: usize,
}

impl Outputs {
    /// Adds an output after all that were caused before it.
    pub fn push(&mut self, conn: ConnId, output: Output) {
        self.bytes += output.queued_bytes();
        self.places.push((conn, self.list.len()));
        self.list.push(output);
    }

    /// Adds a message of the protocol.
    pub fn reply(&mut self, conn: ConnId, response: Response) {
        self.push(conn, Output::Response(response));
    }

    /// Sum of [`Output::queued_bytes`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// All outputs in the order of their causes.
    pub fn iter(&self) -> impl Iterator<Item = (ConnId, &Output)> {
        self.places.iter().map(|(conn, place)| (*conn, &self.list[*place]))
    }

    /// Throws away all protocol messages. Bytes and ends stay: they carry no state.
    pub fn discard_responses(&mut self) {
        let list = &self.list;
        self.places.retain(|(_, place)| !matches!(list[*place], Output::Response(_)));
    }

    /// Empties the list, one connection after the other; the order within each stays.
    pub fn drain_by_connection(
        &mut self,
        mut deliver: impl FnMut(ConnId, &mut dyn Iterator<Item = Output>),
    ) {
        self.places.sort_unstable();
        for places in self.places.chunk_by(|(one, _), (next, _)| one == next) {
            let list = &mut self.list;
            let take = |(_, place): &(ConnId, usize)| mem::replace(&mut list[*place], Output::End);
            deliver(places[0].0, &mut places.iter().map(take));
        }
        self.clear();
    }

    /// Empties the list, and gives back the memory of a large one.
    pub fn clear(&mut self) {
        if self.list.capacity() > BATCH_ENTRIES_KEPT {
            *self = Outputs::default();
        } else {
            self.list.clear();
            self.places.clear();
            self.bytes = 0;
        }
    }
}
