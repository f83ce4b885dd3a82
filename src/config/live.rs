//! What can change while the server runs: read at the start, and again at each SIGHUP.
//!
//! Plain data, which the engine holds and replaces as a whole, so that half of a change is never in
//! force. Must never read a file: `config` makes it, `reload` brings it.

use std::cmp::Reverse;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;

use crate::codec::json::Welcome;
use crate::message::peer::Network;
use crate::store::Listing;
use crate::sys::clock::Seconds;

/// All that can change.
#[derive(Clone, Debug)]
pub struct Live {
    /// Whose word about the peer's address is taken.
    pub trusted_proxies: Vec<Network>,
    /// Networks that the limits on one address do not hold for.
    pub exempt: Vec<Network>,
    /// What clients are told.
    pub welcome: Welcome,
    /// What `list` answers.
    pub list: Listing,
    /// Who is sent away, and with which words.
    pub notices: Notices,
    /// How a drain goes.
    pub drain: Drain,
}

/// How the server lets those who are at work finish before it stops.
#[derive(Clone, Debug)]
pub struct Drain {
    /// What the others are told.
    pub message: Rc<str>,
    /// How long it may take.
    pub seconds: Seconds,
}

/// Texts for clients from certain networks.
#[derive(Clone, Debug, Default)]
pub struct Notices(Vec<(Network, Box<str>)>);

impl Notices {
    /// From networks and texts in any order.
    pub fn new(mut notices: Vec<(Network, Box<str>)>) -> Notices {
        notices.sort_by_key(|(network, _)| Reverse(network.prefix_bits()));
        Notices(notices)
    }

    /// The text for an address: that of the smallest network it lies in.
    pub fn find(&self, ip: Option<IpAddr>) -> Option<&str> {
        let ip = ip?;
        self.0.iter().find(|(network, _)| network.contains(ip)).map(|(_, text)| &**text)
    }
}

/// What is in force, in numbers: the texts are for clients, not for the log.
impl fmt::Display for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} keys in the welcome, {} notices, {} trusted networks, {} networks exempt from limits",
            self.welcome.keys_count(),
            self.notices.0.len(),
            self.trusted_proxies.len(),
            self.exempt.len()
        )?;
        match self.list {
            Listing::Real => Ok(()),
            Listing::Empty => f.write_str(", 'list' is answered with an empty list"),
            Listing::Decoy => f.write_str(", 'list' is answered with all short nameplates"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_network_has_the_word() {
        let notices = ["0.0.0.0/0", "192.0.2.128/25", "192.0.2.0/24", "2001:db8::/32"];
        let notices = notices.map(|text| (text.parse().expect("a network"), text.into()));
        let notices = Notices::new(notices.into());
        for (ip, expected) in [
            ("192.0.2.200", Some("192.0.2.128/25")),
            ("192.0.2.1", Some("192.0.2.0/24")),
            ("::ffff:192.0.2.1", Some("192.0.2.0/24")),
            ("198.51.100.1", Some("0.0.0.0/0")),
            ("2001:db8::1", Some("2001:db8::/32")),
            ("2001:db9::1", None),
        ] {
            assert_eq!(notices.find(Some(ip.parse().expect("an address"))), expected, "{ip}");
        }
        assert_eq!(notices.find(None), None);
    }
}
