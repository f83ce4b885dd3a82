//! The address that a peer counts for, and the prefixes of it to which limits apply (manual:
//! limits 2).

use std::net::{IpAddr, Ipv6Addr};

use crate::limits::{IPV6_PREFIXES, ONION_NETWORK_FACTOR};

/// An address, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CountedAddress {
    Ip(IpAddr),
    /// A trusted proxy reports an address that cannot be read. Were the peer counted as the proxy,
    /// it could choose to be exempt.
    Unreadable,
}

/// The address of a peer, as limits and shares are counted for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// An IPv6 address stands for its /64, of which this is the first, but in the network of an
    /// onion service for itself.
    pub address: CountedAddress,
    /// Length of the onion service's network that has it (`--onion-network`).
    pub onion_bits: Option<u8>,
}

/// The unit to which limits apply: an address, or a prefix of an IPv6 address, which has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The first one of the prefix.
    pub address: CountedAddress,
    /// 0 where the address is not of IPv6.
    pub bits: u8,
}

impl Prefix {
    /// The prefix of an address that has no shorter ones: that of IPv4, or one that is unreadable.
    pub fn alone(address: CountedAddress) -> Prefix {
        Prefix { address, bits: 0 }
    }

    fn of(ip: Ipv6Addr, bits: u8) -> Prefix {
        let mask = u128::MAX.checked_shl(Ipv6Addr::BITS - u32::from(bits)).unwrap_or(0);
        let first = Ipv6Addr::from_bits(ip.to_bits() & mask);
        Prefix { address: CountedAddress::Ip(first.into()), bits }
    }
}

impl Holder {
    /// The holder for an address. `onion_bits`: length of the onion service's network that has it.
    pub fn new(address: CountedAddress, onion_bits: Option<u8>) -> Holder {
        match (address, onion_bits) {
            (CountedAddress::Ip(IpAddr::V6(ip)), None) => {
                Holder { address: Prefix::of(ip, IPV6_PREFIXES[0].0).address, onion_bits }
            }
            _ => Holder { address, onion_bits },
        }
    }

    /// The prefixes, the longest first, each with the multiple of the limits that it has.
    pub fn prefixes(self) -> impl Iterator<Item = (Prefix, usize)> {
        let prefixes = match (self.address, self.onion_bits) {
            (CountedAddress::Ip(IpAddr::V6(ip)), None) => {
                IPV6_PREFIXES.map(|(bits, factor)| Some((Prefix::of(ip, bits), factor)))
            }
            (CountedAddress::Ip(IpAddr::V6(ip)), Some(network_bits)) => {
                let alone = Prefix::of(ip, Ipv6Addr::BITS as u8);
                let network = Prefix::of(ip, network_bits);
                // A network of one address is no second prefix.
                let network = (network != alone).then_some((network, ONION_NETWORK_FACTOR));
                [Some((alone, 1)), network, None]
            }
            (address, _) => [Some((Prefix::alone(address), 1)), None, None],
        };
        prefixes.into_iter().flatten()
    }

    /// The shortest prefix: addresses that one customer may have at once have the same.
    pub fn network(self) -> Prefix {
        let shortest = self.prefixes().last();
        shortest.map_or(Prefix::alone(self.address), |(prefix, _)| prefix)
    }
}
