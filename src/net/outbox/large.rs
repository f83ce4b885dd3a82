//! Large messages on their way: kept and encoded once, however many connections wait for them.

use std::cell::{Cell, OnceCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use crate::codec::json::{self, ServerTx};
use crate::limits::LARGE_MESSAGE_BYTES;
use crate::message::{Message, Output, Response};
use crate::sys::mmap::MmapBuffer;

/// Output that waits for one connection.
#[derive(Debug)]
pub enum Queued {
    Output(Output),
    Large(Rc<LargeMessage>),
}

impl Queued {
    /// Bytes that count towards the outbox limit.
    pub fn queued_bytes(&self) -> usize {
        match self {
            Queued::Output(output) => output.queued_bytes(),
            Queued::Large(large) => large.message.bytes(),
        }
    }

    /// The part of them that is in memory once for all connections.
    pub fn shared_bytes(&self) -> usize {
        match self {
            Queued::Output(_) => 0,
            Queued::Large(_) => self.queued_bytes(),
        }
    }
}

/// A large message that waits for one connection or several.
#[derive(Debug)]
pub struct LargeMessage {
    message: Rc<Message>,
    /// Its JSON without the end, from the time at which the first connection needs it.
    json: OnceCell<MmapBuffer>,
    /// Its part of [`LargeMessages::bytes`].
    counted: Cell<usize>,
    total: Rc<Cell<usize>>,
}

impl LargeMessage {
    fn count(&self, bytes: usize) {
        self.counted.set(self.counted.get() + bytes);
        self.total.set(self.total.get() + bytes);
    }

    fn json(&self, scratch: &mut Vec<u8>) -> &[u8] {
        let encode = || {
            scratch.clear();
            json::message_beginning(&self.message, scratch);
            let mut json = MmapBuffer::default();
            json.push(scratch, scratch.len());
            self.count(json.held_bytes());
            json
        };
        self.json.get_or_init(encode).bytes()
    }
}

impl Drop for LargeMessage {
    fn drop(&mut self) {
        self.total.set(self.total.get() - self.counted.get());
    }
}

/// All large messages that wait.
#[derive(Debug, Default)]
pub struct LargeMessages {
    /// By the address of the message, which is valid as long as the entry is alive.
    waiting: HashMap<*const Message, Weak<LargeMessage>>,
    /// Entries from which on dead ones are looked for.
    trim_at: usize,
    bytes: Rc<Cell<usize>>,
}

impl LargeMessages {
    /// Memory of all of them. Of a message that is in a mailbox as well this counts too much.
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Makes output wait; a large message only once for all connections.
    pub fn queued(&mut self, output: Output) -> Queued {
        match output {
            Output::Response(Response::Message(message))
                if message.bytes() >= LARGE_MESSAGE_BYTES =>
            {
                Queued::Large(self.share(message))
            }
            output => Queued::Output(output),
        }
    }

    fn share(&mut self, message: Rc<Message>) -> Rc<LargeMessage> {
        let entry = self.waiting.entry(Rc::as_ptr(&message)).or_default();
        if let Some(large) = entry.upgrade() {
            return large;
        }
        let bytes = message.bytes();
        let large = Rc::new(LargeMessage {
            message,
            json: OnceCell::new(),
            counted: Cell::default(),
            total: Rc::clone(&self.bytes),
        });
        large.count(bytes);
        *entry = Rc::downgrade(&large);
        large
    }

    /// Forgets those that have left.
    pub fn trim(&mut self) {
        if self.waiting.len() > self.trim_at {
            self.waiting.retain(|_, large| large.strong_count() > 0);
            self.trim_at = 2 * self.waiting.len();
        }
    }
}

/// A large message that is being sent to one connection: the header has been written already.
#[derive(Debug)]
pub struct Begun {
    large: Rc<LargeMessage>,
    /// Length of the JSON that is shared; `end` comes after it.
    json_bytes: usize,
    /// The end, with the time of release to this connection.
    end: Box<[u8]>,
    sent: usize,
}

impl Begun {
    pub fn new(large: Rc<LargeMessage>, server_tx: &ServerTx, scratch: &mut Vec<u8>) -> Begun {
        let json_bytes = large.json(scratch).len();
        Begun { large, json_bytes, end: server_tx.as_bytes().into(), sent: 0 }
    }

    pub fn rest_bytes(&self) -> usize {
        self.json_bytes + self.end.len() - self.sent
    }

    /// What is still to be sent.
    pub fn rest(&self) -> [&[u8]; 2] {
        let json = self.large.json.get().map_or(&[][..], MmapBuffer::bytes);
        let of_end = self.sent.saturating_sub(self.json_bytes);
        [&json[self.sent.min(self.json_bytes)..], &self.end[of_end..]]
    }

    /// Notes that bytes have been sent; none if those were the last.
    pub fn advance(mut self, bytes: usize) -> Option<Begun> {
        self.sent += bytes;
        (self.rest_bytes() > 0).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::Timestamp;

    #[test]
    fn a_large_message_is_in_memory_once_and_leaves_with_its_last_reader() {
        let body = "x".repeat(900_000);
        let message = Rc::new(Message::new("s".into(), "p", &body, Timestamp(1.0), None));
        let (mut messages, mut scratch) = (LargeMessages::default(), Vec::new());
        let mut server_tx = ServerTx::default();
        server_tx.set(Timestamp(2.0));
        let mut all: Vec<Begun> = (0..1000)
            .map(|_| {
                match messages.queued(Output::Response(Response::Message(Rc::clone(&message)))) {
                    Queued::Large(large) => Begun::new(large, &server_tx, &mut scratch),
                    queued => panic!("{queued:?}"),
                }
            })
            .collect();
        assert!((1_800_000..1_900_000).contains(&messages.bytes()), "{}", messages.bytes());
        // Each reader gets all of it, in pieces of any size.
        for (index, begun) in all.iter_mut().enumerate().take(10) {
            let mut received = Vec::new();
            let mut rest = Some(std::mem::replace(
                begun,
                Begun::new(Rc::clone(&begun.large), &server_tx, &mut scratch),
            ));
            while let Some(begun) = rest {
                let bytes = begun.rest().concat();
                let count = bytes.len().min(100_003 * (index + 1));
                received.extend_from_slice(&bytes[..count]);
                rest = begun.advance(count);
            }
            let mut expected = Vec::new();
            json::encode(&Response::Message(Rc::clone(&message)), &mut expected);
            expected.extend_from_slice(server_tx.as_bytes());
            assert!(received == expected);
        }
        all.clear();
        assert_eq!(messages.bytes(), 0);
        messages.trim();
        assert!(messages.waiting.is_empty());
    }
}
