//! Which connections are closed when all together buffer too much: those of the address that
//! buffers the most, its largest first. Pure.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter;

use crate::message::{ConnId, Prefix};
use crate::sorted::sorted;

/// The connections in the order in which to close them. Takes all that buffer anything, with their
/// bytes.
pub fn largest_first(
    connections: Vec<(ConnId, Option<Prefix>, usize)>,
) -> impl Iterator<Item = ConnId> {
    let connections = connections.into_iter();
    let connections = connections.map(|(conn, network, bytes)| (network, bytes, Reverse(conn)));
    let connections = sorted(connections);
    // Connections of exempt or unknown addresses stand for themselves.
    let owners = connections.chunk_by(|(one, ..), (next, ..)| one.is_some() && one == next);
    // Each with the sum of its bytes, and its connections, the largest last.
    let owners = owners.map(|own| {
        let bytes: usize = own.iter().map(|(_, bytes, _)| bytes).sum();
        (bytes, own.iter().map(|(_, bytes, conn)| (*bytes, *conn)).collect::<Vec<_>>())
    });
    let mut owners: BinaryHeap<_> = owners.collect();
    iter::from_fn(move || {
        let (owned_bytes, mut connections) = owners.pop()?;
        let (bytes, Reverse(conn)) = connections.pop()?;
        if !connections.is_empty() {
            owners.push((owned_bytes - bytes, connections));
        }
        Some(conn)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::CountedAddress;

    #[test]
    fn the_address_that_buffers_the_most_loses_its_largest_first() {
        let network = |last| Some(Prefix::alone(CountedAddress::Ip([192, 0, 2, last].into())));
        // An honest message of 150, many small ones of one address, two of exempt connections.
        let connections = [
            (1, network(1), 150),
            (2, network(2), 100),
            (3, network(2), 90),
            (4, network(2), 80),
            (5, None, 140),
            (6, None, 120),
        ];
        let connections = connections.map(|(conn, network, bytes)| (ConnId(conn), network, bytes));
        let order: Vec<u64> = largest_first(connections.into()).map(|conn| conn.0).collect();
        // 270 of the second address, then 170, then the rest in order.
        assert_eq!(order, [2, 3, 1, 5, 6, 4]);
    }
}
