//! The order in which connections are read, and their shares of a tick.
//!
//! Connections that did not use up their share when they were last read come first, up to half of
//! the tick: one of each address, then the others. Then those that did, each in turn. Within a tick
//! an address has a share, too. What is left out keeps its place for the next tick. A network of
//! IPv6 counts as one address. Pure.

use std::collections::{HashMap, VecDeque};

use crate::limits::{SHARE_BYTES_PER_TICK_MAX, TICK_BYTES_MAX};
use crate::message::{ConnId, Prefix};

/// The expected cost of reading a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    Light,
    /// Light, and not through its handshake.
    Opening,
    /// It used up its share when it was last read, or will now.
    Heavy,
}

/// A connection that waits to be read.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    conn: ConnId,
    network: Option<Prefix>,
    weight: Weight,
}

/// Connections that wait to be read.
#[derive(Debug, Default)]
pub struct ReadQueue {
    light: VecDeque<Waiting>,
    /// They used up their share when they were last read.
    heavy: VecDeque<Waiting>,
    /// Entries of `light` that have not been through their handshake.
    opening: usize,
    /// Connections in the queues that this tick has not looked at.
    light_left: usize,
    heavy_left: usize,
    /// In the first round over `light`: entries that were passed over because another of their
    /// address had been read. None in the second round, which is theirs.
    passed_over: Option<usize>,
    /// Bytes that this tick has used: in all, and by address.
    used_bytes: usize,
    used_by: HashMap<Prefix, usize>,
}

impl ReadQueue {
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn len(&self) -> usize {
        self.light.len() + self.heavy.len()
    }

    /// Connections that wait and have not been through their handshake.
    pub fn opening(&self) -> usize {
        self.opening
    }

    /// Adds a connection that the poll reports, or of which something else is to be found out. One
    /// without a network has no share besides its own.
    pub fn push(&mut self, conn: ConnId, network: Option<Prefix>, weight: Weight) {
        self.opening += usize::from(weight == Weight::Opening);
        let queue = if weight == Weight::Heavy { &mut self.heavy } else { &mut self.light };
        queue.push_back(Waiting { conn, network, weight });
    }

    /// Gives each waiting connection, address and the tick their shares anew.
    pub fn begin_tick(&mut self) {
        (self.light_left, self.heavy_left) = (self.light.len(), self.heavy.len());
        self.passed_over = Some(0);
        self.used_bytes = 0;
        self.used_by.clear();
    }

    /// Goes on with connections that the poll has reported since the tick began. Those that have
    /// used up their share wait.
    pub fn resume_tick(&mut self) {
        (self.light_left, self.heavy_left) = (self.light.len(), 0);
        self.passed_over = Some(0);
    }

    /// Removes and returns the next connection to read in this tick.
    pub fn next(&mut self) -> Option<ConnId> {
        while self.used_bytes < TICK_BYTES_MAX {
            let is_lights_turn = self.heavy_left == 0 || self.used_bytes < TICK_BYTES_MAX / 2;
            if self.light_left == 0 && is_lights_turn {
                self.light_left = self.passed_over.take().unwrap_or(0);
            }
            let is_light = self.light_left > 0 && is_lights_turn;
            let (queue, left) = if is_light {
                (&mut self.light, &mut self.light_left)
            } else if self.heavy_left > 0 {
                (&mut self.heavy, &mut self.heavy_left)
            } else {
                return None;
            };
            *left -= 1;
            let waiting = queue.pop_front()?;
            let used = waiting.network.and_then(|network| self.used_by.get(&network));
            let is_next = match (used, &mut self.passed_over) {
                (None, _) => true,
                (Some(_), Some(passed_over)) if is_light => {
                    *passed_over += 1;
                    false
                }
                (Some(used), _) => *used < SHARE_BYTES_PER_TICK_MAX,
            };
            if is_next {
                self.opening -= usize::from(waiting.weight == Weight::Opening);
                return Some(waiting.conn);
            }
            queue.push_back(waiting);
        }
        None
    }

    /// Notes what reading a connection has cost.
    pub fn note_used(&mut self, network: Option<Prefix>, bytes: usize) {
        self.used_bytes += bytes;
        // If nothing else waits, the shares of addresses decide nothing.
        let waiting = self.light_left + self.heavy_left + self.passed_over.unwrap_or(0);
        if let Some(network) = network
            && waiting > 0
        {
            *self.used_by.entry(network).or_default() += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::CountedAddress;

    /// Reads connections at that cost until the tick ends; returns their numbers.
    fn tick(queue: &mut ReadQueue, network: Option<Prefix>, bytes: usize, stays: bool) -> Vec<u64> {
        queue.begin_tick();
        let mut order = Vec::new();
        while let Some(conn) = queue.next() {
            order.push(conn.0);
            queue.note_used(network, bytes);
            if stays {
                queue.push(conn, network, Weight::Heavy);
            }
        }
        order
    }

    fn network(last: u8) -> Option<Prefix> {
        Some(Prefix::alone(CountedAddress::Ip([192, 0, 2, last].into())))
    }

    fn numbers(range: std::ops::Range<u64>) -> Vec<u64> {
        range.collect()
    }

    #[test]
    fn who_was_left_out_is_first_in_the_next_tick() {
        let mut queue = ReadQueue::default();
        (0..10).for_each(|number| queue.push(ConnId(number), None, Weight::Light));
        assert_eq!(tick(&mut queue, None, TICK_BYTES_MAX / 4, true), numbers(0..4));
        queue.push(ConnId(10), None, Weight::Light);
        assert_eq!(tick(&mut queue, None, TICK_BYTES_MAX / 4, true), [4, 5, 0, 1]);
        assert_eq!(tick(&mut queue, None, TICK_BYTES_MAX / 4, true), [6, 7, 2, 3]);
        assert_eq!(tick(&mut queue, None, TICK_BYTES_MAX / 4, true), [8, 9, 4, 5]);
        assert_eq!(tick(&mut queue, None, TICK_BYTES_MAX / 4, true), [10, 0, 1, 6]);
    }

    #[test]
    fn who_sends_little_is_read_at_once_however_many_send_much() {
        let mut queue = ReadQueue::default();
        (0..1000).for_each(|number| queue.push(ConnId(number), None, Weight::Heavy));
        for newcomer in 1000..1010 {
            queue.push(ConnId(newcomer), None, Weight::Light);
            queue.begin_tick();
            assert_eq!(queue.next(), Some(ConnId(newcomer)));
            while let Some(conn) = queue.next() {
                queue.note_used(None, SHARE_BYTES_PER_TICK_MAX);
                queue.push(conn, None, Weight::Heavy);
            }
        }
    }

    #[test]
    fn who_sends_much_is_read_however_many_send_little() {
        let mut queue = ReadQueue::default();
        queue.push(ConnId(0), None, Weight::Heavy);
        (1..1000).for_each(|number| queue.push(ConnId(number), None, Weight::Light));
        assert!(tick(&mut queue, None, SHARE_BYTES_PER_TICK_MAX, false).contains(&0));
    }

    #[test]
    fn who_is_reported_while_the_tick_goes_on_is_read_and_who_used_up_its_share_waits() {
        let mut queue = ReadQueue::default();
        queue.push(ConnId(0), None, Weight::Light);
        assert_eq!(tick(&mut queue, None, SHARE_BYTES_PER_TICK_MAX, true), [0]);
        queue.push(ConnId(1), None, Weight::Light);
        queue.resume_tick();
        assert_eq!((queue.next(), queue.next()), (Some(ConnId(1)), None));
        queue.note_used(None, TICK_BYTES_MAX);
        queue.push(ConnId(2), None, Weight::Light);
        queue.resume_tick();
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn those_that_open_are_counted_until_they_are_read() {
        let mut queue = ReadQueue::default();
        (0..3).for_each(|number| queue.push(ConnId(number), network(1), Weight::Opening));
        queue.push(ConnId(3), None, Weight::Light);
        assert_eq!(queue.opening(), 3);
        queue.begin_tick();
        assert_eq!((queue.next(), queue.opening()), (Some(ConnId(0)), 2));
        queue.note_used(network(1), 1);
        // Passed over, not read.
        assert_eq!((queue.next(), queue.opening()), (Some(ConnId(3)), 2));
        while queue.next().is_some() {}
        assert_eq!(queue.opening(), 0);
    }

    #[test]
    fn one_connection_of_each_address_is_read_before_a_second_of_any() {
        let mut queue = ReadQueue::default();
        for (number, last) in [(0, 1), (1, 1), (2, 1), (3, 2), (4, 3), (5, 3)] {
            queue.push(ConnId(number), network(last), Weight::Light);
        }
        queue.begin_tick();
        let mut order = Vec::new();
        while let Some(conn) = queue.next() {
            let last = [1, 1, 1, 2, 3, 3][conn.0 as usize];
            queue.note_used(network(last), 1);
            order.push(conn.0);
        }
        assert_eq!(order, [0, 3, 4, 1, 2, 5]);
    }

    #[test]
    fn an_address_has_its_share_of_a_tick_and_the_others_theirs() {
        let mut queue = ReadQueue::default();
        (0..100).for_each(|number| queue.push(ConnId(number), network(1), Weight::Light));
        queue.push(ConnId(100), network(2), Weight::Light);
        queue.begin_tick();
        for (expected, last) in [(0, 1), (100, 2), (1, 1)] {
            assert_eq!(queue.next(), Some(ConnId(expected)));
            queue.note_used(network(last), SHARE_BYTES_PER_TICK_MAX / 2);
        }
        assert_eq!(queue.next(), None);
        queue.begin_tick();
        assert_eq!(queue.next(), Some(ConnId(2)));
    }
}
