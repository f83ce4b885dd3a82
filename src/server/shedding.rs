//! Which connections are closed when all together buffer too much: those of the address that
//! buffers the most, its largest first. Pure.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::read_queue::Address;
use crate::message::ConnId;
use crate::sorted::sorted;

/// What the connections of one address buffer.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Buffered {
    bytes: usize,
    /// The largest last.
    connections: Vec<(usize, Reverse<ConnId>)>,
}

/// Connections in the order in which to close them.
#[derive(Debug)]
pub struct Shedding(BinaryHeap<Buffered>);

impl Shedding {
    /// Takes all connections that buffer anything, with their bytes.
    pub fn new(connections: impl Iterator<Item = (ConnId, Address, usize)>) -> Shedding {
        let connections = connections.map(|(conn, address, bytes)| (address, bytes, Reverse(conn)));
        let connections = sorted(connections);
        // Those of exempt or unknown addresses stand for themselves.
        let owners = connections.chunk_by(|(one, ..), (next, ..)| one.is_some() && one == next);
        let owners = owners.map(|own| Buffered {
            bytes: own.iter().map(|(_, bytes, _)| bytes).sum(),
            connections: own.iter().map(|(_, bytes, conn)| (*bytes, *conn)).collect(),
        });
        Shedding(owners.collect())
    }
}

impl Iterator for Shedding {
    type Item = ConnId;

    fn next(&mut self) -> Option<ConnId> {
        let mut owner = self.0.pop()?;
        let (bytes, Reverse(conn)) = owner.connections.pop()?;
        owner.bytes -= bytes;
        if !owner.connections.is_empty() {
            self.0.push(owner);
        }
        Some(conn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{CountedAddress, Prefix};

    #[test]
    fn the_address_that_buffers_the_most_loses_its_largest_first() {
        let holder = |last| Some(Prefix::alone(CountedAddress::Ip([192, 0, 2, last].into())));
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
