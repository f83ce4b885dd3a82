//! Settings that can change while the server runs: read at the start, and again at each SIGHUP.
//!
//! Plain data, which the engine replaces as a whole, so that half of a change is never in force.
//! Must never read a file: `config` makes it, `reload` requests it.

use std::cmp::Reverse;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;

use super::members::Members;
use super::values;
use crate::codec::json::Welcome;
use crate::limits::DRAIN_SECONDS;
use crate::message::Network;
use crate::store::Listing;
use crate::sys::clock::Seconds;

/// All settings that SIGHUP can change.
#[derive(Clone, Debug, Default)]
pub struct Reloadable {
    /// Peers whose forwarding headers are trusted.
    pub trusted_proxies: Vec<Network>,
    /// Names by which the admin listener may be asked, besides those that it always has.
    pub admin_hosts: Vec<Box<str>>,
    /// Networks to which the limits on one address do not apply.
    pub exempt: Vec<Network>,
    /// Networks in which each address stands for a circuit of an onion service.
    pub onion_networks: Vec<Network>,
    /// Keys of the welcome that the operator sets.
    pub welcome: Welcome,
    /// What `list` is answered with.
    pub list: Listing,
    /// Networks whose clients get an error text and are disconnected.
    pub notices: Notices,
    /// How SIGQUIT stops the server.
    pub drain: Drain,
    /// The clients that may begin something; all may if there is no file of members.
    pub members: Option<Members>,
}

/// A stop that lets exchanges finish first.
#[derive(Clone, Debug)]
pub struct Drain {
    /// The error of commands that would begin something meanwhile.
    pub message: Rc<str>,
    /// The longest time that it takes.
    pub seconds: Seconds,
}

impl Default for Drain {
    fn default() -> Self {
        Drain { message: values::DRAIN_MESSAGE.into(), seconds: DRAIN_SECONDS }
    }
}

/// Networks and the texts for clients from there.
#[derive(Clone, Debug, Default)]
pub struct Notices(pub Vec<(Network, Box<str>)>);

impl Notices {
    /// The text for an address: that of the smallest network it lies in.
    pub fn find(&self, ip: Option<IpAddr>) -> Option<&str> {
        let ip = ip?;
        let found = self.0.iter().filter(|(network, _)| network.contains(ip));
        found.min_by_key(|(network, _)| Reverse(network.prefix_bits)).map(|(_, text)| &**text)
    }
}

impl Reloadable {
    /// A line for the log if `list` does not show the existing nameplates.
    pub fn list_note(&self) -> Option<&'static str> {
        match self.list {
            Listing::Real => None,
            Listing::Empty => Some("'list' is answered with an empty list"),
            Listing::Decoy => Some("'list' is answered with all short nameplates"),
        }
    }
}

/// A summary for the log, in numbers: the texts are for clients.
impl fmt::Display for Reloadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} keys in the welcome, {} notices, {} trusted networks, {} networks exempt from limits",
            self.welcome.keys_count(),
            self.notices.0.len(),
            self.trusted_proxies.len(),
            self.exempt.len()
        )?;
        if let Some(members) = &self.members {
            write!(f, ", {} lines of members", members.count())?;
        }
        self.list_note().map_or(Ok(()), |note| write!(f, ", {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_network_takes_precedence() {
        let notices = ["0.0.0.0/0", "192.0.2.128/25", "192.0.2.0/24", "2001:db8::/32"];
        let notices = notices.map(|text| (text.parse().expect("a network"), text.into()));
        let notices = Notices(notices.into());
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
