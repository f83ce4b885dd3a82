//! Which connections are closed when all together buffer too much: those of the address that
//! buffers the most, its largest first. Pure.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::read_queue::Address;
use crate::engine::quotas::Holder;
use crate::message::ConnId;

/// What may be shed together: a known address, or a connection of an exempt or unknown one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Owner {
    Address(Holder),
    Connection(ConnId),
}

/// What one owner's connections buffer.
#[derive(Debug, Default)]
struct Buffered {
    bytes: usize,
    /// The largest last.
    connections: Vec<(usize, Reverse<ConnId>)>,
}

/// Connections in the order in which to close them.
#[derive(Debug)]
pub struct Shedding {
    owners: Vec<Buffered>,
    /// Each owner's bytes, and its index.
    largest: BinaryHeap<(usize, usize)>,
}

impl Shedding {
    /// Takes all connections that buffer anything, with their bytes.
    pub fn new(connections: impl Iterator<Item = (ConnId, Address, usize)>) -> Shedding {
        let mut owners: Vec<Buffered> = Vec::new();
        let mut indexes = HashMap::new();
        for (conn, address, bytes) in connections {
            let owner = address.map_or(Owner::Connection(conn), Owner::Address);
            let index = *indexes.entry(owner).or_insert(owners.len());
            if index == owners.len() {
                owners.push(Buffered::default());
            }
            owners[index].bytes += bytes;
            owners[index].connections.push((bytes, Reverse(conn)));
        }
        for owner in &mut owners {
            owner.connections.sort_unstable();
        }
        let largest = owners.iter().enumerate().map(|(index, owner)| (owner.bytes, index));
        Shedding { largest: largest.collect(), owners }
    }
}

impl Iterator for Shedding {
    type Item = ConnId;

    fn next(&mut self) -> Option<ConnId> {
        let (_, index) = self.largest.pop()?;
        let owner = &mut self.owners[index];
        let (bytes, Reverse(conn)) = owner.connections.pop()?;
        owner.bytes -= bytes;
        if !owner.connections.is_empty() {
            self.largest.push((owner.bytes, index));
        }
        Some(conn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_that_buffers_the_most_loses_its_largest_first() {
        let holder = |last| Some(Holder::V4([192, 0, 2, last].into()));
        // An honest message of 150, many small ones of one address, two of exempt connections.
        let connections = [
            (1, holder(1), 150),
            (2, holder(2), 100),
            (3, holder(2), 90),
            (4, holder(2), 80),
            (5, None, 140),
            (6, None, 120),
        ];
        let connections = connections.map(|(conn, address, bytes)| (ConnId(conn), address, bytes));
        let order: Vec<u64> = Shedding::new(connections.into_iter()).map(|conn| conn.0).collect();
        // 270 of the second address, then 170, then the rest in order.
        assert_eq!(order, [2, 3, 1, 5, 6, 4]);
    }
}
