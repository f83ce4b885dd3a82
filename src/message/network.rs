//! Networks: an address and how many bits of it count.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address with a prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    pub prefix_bits: u32,
}

/// Trusted proxies by default.
pub const LOOPBACK: [Network; 2] = [
    Network { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix_bits: 8 },
    Network { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix_bits: 128 },
];

/// Loopback, RFC 1918, unique local, link-local.
const PRIVATE: [Network; 8] = [
    LOOPBACK[0],
    LOOPBACK[1],
    Network { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), prefix_bits: 8 },
    Network { address: IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), prefix_bits: 12 },
    Network { address: IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), prefix_bits: 16 },
    Network { address: IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), prefix_bits: 16 },
    Network { address: IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), prefix_bits: 7 },
    Network { address: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), prefix_bits: 10 },
];

/// Whether only nearby networks reach the address. An unspecified one stands for all interfaces.
pub fn is_private(ip: IpAddr) -> bool {
    PRIVATE.iter().any(|network| network.contains(ip))
}

impl Network {
    /// Whether the address is in the network; an IPv4-mapped one counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let differing = match (self.address, ip.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                (ours.to_bits() ^ theirs.to_bits()).leading_zeros()
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                (ours.to_bits() ^ theirs.to_bits()).leading_zeros()
            }
            _ => return false,
        };
        differing >= self.prefix_bits
    }

    pub fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Network, ()> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let bits_max = if address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
        let prefix_bits = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|bits| *bits <= bits_max).ok_or(())?,
            None => bits_max,
        };
        // A network of IPv4-mapped addresses counts as IPv4, as they do.
        let mapped_bits = Ipv6Addr::BITS - Ipv4Addr::BITS;
        let network = match (address.is_ipv6(), address.to_canonical()) {
            (true, IpAddr::V4(mapped)) if prefix_bits >= mapped_bits => {
                Network { address: mapped.into(), prefix_bits: prefix_bits - mapped_bits }
            }
            _ => Network { address, prefix_bits },
        };
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}
