//! The peer's address, networks, and which proxies are trusted (manual: protocol 1.4).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The peer's address in the `welcome`, in logs and for limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// None for a unix socket, unless a proxy reports an address.
    pub ip: Option<IpAddr>,
    /// None if a proxy reports no port.
    pub port: Option<u16>,
}

impl Peer {
    /// A peer at an address; an IPv4-mapped one counts as IPv4.
    pub fn at(ip: IpAddr, port: Option<u16>) -> Peer {
        Peer { ip: Some(ip.to_canonical()), port }
    }

    /// A socket's remote address.
    pub fn of_socket(address: SocketAddr) -> Peer {
        Peer::at(address.ip(), Some(address.port()))
    }

    /// Whether forwarding headers from this peer are trusted. Unix sockets always are.
    pub fn is_trusted(&self, trusted: &[Network]) -> bool {
        self.ip.is_none_or(|ip| trusted.iter().any(|network| network.contains(ip)))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ip, self.port) {
            (Some(IpAddr::V6(ip)), Some(port)) => write!(f, "[{ip}]:{port}"),
            (Some(ip), Some(port)) => write!(f, "{ip}:{port}"),
            (Some(ip), None) => write!(f, "{ip}"),
            (None, _) => write!(f, "unix socket"),
        }
    }
}

/// The header in which trusted proxies name the client's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressHeader {
    /// `X-Real-IP`, with `X-Real-Port`.
    #[default]
    XRealIp,
    /// `X-Forwarded-For`, a list.
    XForwardedFor,
    /// `Forwarded` (RFC 7239), a list of elements with `for=`.
    Forwarded,
}

impl AddressHeader {
    /// Their names in requests and, in lower case, on the command line.
    pub const NAMES: [(&'static str, AddressHeader); 3] = [
        ("x-real-ip", AddressHeader::XRealIp),
        ("x-forwarded-for", AddressHeader::XForwardedFor),
        ("forwarded", AddressHeader::Forwarded),
    ];

    /// Its name in requests, in lower case.
    pub fn name(self) -> &'static str {
        AddressHeader::NAMES[self as usize].0
    }
}

/// Something else than an address in a proxy's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// The addresses in a request's proxy header, not yet trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// The addresses, the last one first: each proxy adds the one that it sees at the end. Ends
    /// with the first that cannot be read.
    pub hops: Vec<Result<Peer, Unreadable>>,
    /// A port is there, but it cannot be read.
    pub is_port_unreadable: bool,
    /// Another header that names an address, if the one that is looked at is missing.
    pub other: Option<AddressHeader>,
}

impl Forwarded {
    /// The client's address, if the header has one: the last that is no trusted proxy's. If all
    /// are, the first one, as the client is then at a proxy's address itself.
    pub fn client(&self, trusted: &[Network]) -> Result<Option<Peer>, Unreadable> {
        let mut client = None;
        for hop in &self.hops {
            let peer = (*hop)?;
            client = Some(peer);
            if !peer.is_trusted(trusted) {
                break;
            }
        }
        Ok(client)
    }
}

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
