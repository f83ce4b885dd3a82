//! The peer's address, and what proxies say of it (manual: protocol 1.4).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::message::Network;

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
    /// In the order of the enum: their names in requests and, in lower case, on the command line.
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
