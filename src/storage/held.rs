//! Output on its way out, in two types: what still waits for the tick's commit (`Held`), and what
//! may leave (`Released`). An outbox takes only the second, and only a commit's proof turns the
//! first into it. That is the server's promise in the type system (contract section 4).

use crate::limits::BATCH_ENTRIES_KEPT;
use crate::message::{ConnId, Response};
use crate::storage::Committed;

/// Something for one connection.
#[derive(Debug)]
pub enum Output {
    /// A message of the protocol, to be encoded when it leaves.
    Response(Response),
    /// Bytes as they are: HTTP answers, pings, pongs, closes.
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

/// Output that may leave.
#[derive(Debug)]
pub struct Released(Output);

impl Released {
    /// What it is.
    pub fn into_output(self) -> Output {
        self.0
    }
}

/// Output of one tick, in the order of its causes.
#[derive(Debug, Default)]
pub struct Held {
    outputs: Vec<Output>,
    /// For whom each is, and its place in the list: what is sorted is this, and not the outputs.
    places: Vec<(ConnId, usize)>,
    bytes: usize,
}

impl Held {
    /// Adds output that must wait for the commit.
    pub fn push(&mut self, conn: ConnId, output: Output) {
        self.bytes += output.queued_bytes();
        self.places.push((conn, self.outputs.len()));
        self.outputs.push(output);
    }

    /// Adds replies of the store.
    pub fn extend(&mut self, replies: impl Iterator<Item = (ConnId, Response)>) {
        for (conn, response) in replies {
            self.push(conn, Output::Response(response));
        }
    }

    /// Bytes that wait, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Lets everything go: grouped by connection, in order within each.
    pub fn release(&mut self, _proof: Committed) -> impl Iterator<Item = (ConnId, Released)> {
        self.bytes = 0;
        self.places.sort_unstable();
        let outputs = &mut self.outputs;
        let released = self.places.drain(..);
        released.map(|(conn, place)| (conn, Released(take(&mut outputs[place]))))
    }

    /// The tick is over. Gives back what a large one has made of the lists.
    pub fn trim(&mut self) {
        self.outputs.clear();
        if self.outputs.capacity() > BATCH_ENTRIES_KEPT {
            *self = Held::default();
        }
    }

    /// After a failed commit: throws away every message, for it may tell of what is not in the
    /// database. What carries no state stays: pings and pongs, closes, HTTP answers.
    pub fn discard_messages(&mut self) {
        let outputs = &self.outputs;
        self.places.retain(|(_, place)| !matches!(outputs[*place], Output::Response(_)));
    }
}

/// Takes an output out of the list, whose other places stay as they are.
fn take(output: &mut Output) -> Output {
    std::mem::replace(output, Output::End)
}
