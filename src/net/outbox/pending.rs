//! Output that waits to be encoded, in order, with its bytes counted.

use std::collections::VecDeque;

use super::large::Queued;
use crate::message::{Output, Response};

#[derive(Debug, Default)]
pub struct Pending {
    queue: VecDeque<Queued>,
    bytes: usize,
    /// The part of `bytes` that is in memory once for all connections.
    shared_bytes: usize,
}

impl Pending {
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Sum of [`Queued::queued_bytes`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn shared_bytes(&self) -> usize {
        self.shared_bytes
    }

    /// Bytes of the mailboxes whose replays wait: those still to be sent, and maybe more.
    pub fn replay_bytes(&self) -> usize {
        let bytes_of = |queued: &Queued| match queued {
            Queued::Output(Output::Response(Response::Replay(it))) => it.log.counted_bytes(),
            _ => 0,
        };
        self.queue.iter().map(bytes_of).sum()
    }

    /// Memory that is not shared.
    pub fn own_bytes(&self) -> usize {
        self.queue.capacity() * size_of::<Queued>() + self.bytes - self.shared_bytes
    }

    pub fn push_back(&mut self, queued: Queued) {
        self.bytes += queued.queued_bytes();
        self.shared_bytes += queued.shared_bytes();
        self.queue.push_back(queued);
    }

    /// The next to be encoded; its bytes must stay what they are.
    pub fn front_mut(&mut self) -> Option<&mut Queued> {
        self.queue.front_mut()
    }

    pub fn pop_front(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        self.bytes -= queued.queued_bytes();
        self.shared_bytes -= queued.shared_bytes();
        Some(queued)
    }
}
