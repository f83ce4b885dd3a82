//! The lists in which proxies name addresses: `X-Forwarded-For`, and `Forwarded` of RFC 7239
//! (manual: protocol 1.4). Pure.
//!
//! Read from the end: that is where a trusted proxy has written, and what a client has sent before
//! it must not be able to change how it is read, not even by a quote that it leaves open.

use std::net::{IpAddr, Ipv6Addr};

use crate::limits::PROXY_HOPS_MAX;
use crate::message::{Peer, Unreadable};

/// The last addresses of a list, the very last one first. Several lines are one list (RFC 9110,
/// section 5.3). A list without any element counts as unreadable: a proxy always names an address.
pub fn hops<'a>(
    lines: impl DoubleEndedIterator<Item = &'a [u8]>,
    parse: fn(&str) -> Result<Peer, Unreadable>,
) -> Vec<Result<Peer, Unreadable>> {
    let mut hops = Vec::new();
    let mut is_there = false;
    for line in lines.rev() {
        is_there = true;
        let line = String::from_utf8_lossy(line);
        for piece in pieces(&line, b',').filter(|piece| !piece.is_empty()) {
            let hop = parse(piece);
            hops.push(hop);
            if hop.is_err() || hops.len() == PROXY_HOPS_MAX {
                return hops;
            }
        }
    }
    if is_there && hops.is_empty() {
        hops.push(Err(Unreadable));
    }
    hops
}

/// An element of `Forwarded`: `for=192.0.2.1;proto=https`.
pub fn element(text: &str) -> Result<Peer, Unreadable> {
    let pairs = pieces(text, b';').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(name, _)| name.eq_ignore_ascii_case("for"));
    match (values.next(), values.next()) {
        (Some((_, value)), None) => match value.strip_prefix('"') {
            Some(value) => address(value.strip_suffix('"').ok_or(Unreadable)?),
            None => address(value),
        },
        _ => Err(Unreadable),
    }
}

/// An element of `X-Forwarded-For`: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or
/// `[2001:db8::1]:80`. A port that cannot be read is none: RFC 7239 allows names in its place.
pub fn address(text: &str) -> Result<Peer, Unreadable> {
    if let Ok(ip) = text.parse() {
        return Ok(Peer::at(ip, None));
    }
    let (ip, port) = match text.strip_prefix('[') {
        Some(text) => {
            let (ip, rest) = text.split_once(']').ok_or(Unreadable)?;
            let port = rest.strip_prefix(':');
            if port.is_none() && !rest.is_empty() {
                return Err(Unreadable);
            }
            (ip.parse::<Ipv6Addr>().map(IpAddr::V6), port)
        }
        None => {
            let (ip, port) = text.split_once(':').ok_or(Unreadable)?;
            (ip.parse(), Some(port))
        }
    };
    let port = port.and_then(|port| port.parse().ok());
    Ok(Peer::at(ip.map_err(|_| Unreadable)?, port))
}

/// The trimmed pieces of a text between separators outside of quotes, the last one first.
fn pieces(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let mut is_quoted = false;
        for (at, byte) in text.bytes().enumerate().rev() {
            if byte == b'"' && !(is_quoted && is_escaped(&text.as_bytes()[..at])) {
                is_quoted = !is_quoted;
            } else if byte == separator && !is_quoted {
                rest = Some(&text[..at]);
                return Some(text[at + 1..].trim_matches([' ', '\t']));
            }
        }
        Some(text.trim_matches([' ', '\t']))
    })
}

/// Whether the byte after these is escaped by a backslash.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Forwarded, LOOPBACK, Network};

    /// What a list comes to with loopback and 10.0.0.0/8 trusted: an address, `-` for none, `?` for
    /// one that cannot be read.
    fn client(hops: Vec<Result<Peer, Unreadable>>) -> String {
        let mut trusted: Vec<Network> = LOOPBACK.to_vec();
        trusted.push("10.0.0.0/8".parse().expect("a network"));
        match (Forwarded { hops, ..Forwarded::default() }).client(&trusted) {
            Ok(client) => client.map_or("-".to_owned(), |peer: Peer| peer.to_string()),
            Err(Unreadable) => "?".to_owned(),
        }
    }

    fn lines<'a>(lines: &[&'a str]) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        lines.iter().map(|line| line.as_bytes()).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn the_last_address_of_x_forwarded_for_that_is_no_trusted_proxy_counts() {
        for (list, expected) in [
            (&[][..], "-"),
            (&["192.0.2.1"], "192.0.2.1"),
            (&["203.0.113.9, 192.0.2.1"], "192.0.2.1"),
            (&["203.0.113.9", "192.0.2.1"], "192.0.2.1"),
            (&["192.0.2.1, 10.1.2.3, 127.0.0.1"], "192.0.2.1"),
            (&["192.0.2.1", "10.1.2.3,10.1.2.4"], "192.0.2.1"),
            (&["203.0.113.9,192.0.2.1:4711 , 10.1.2.3:1"], "192.0.2.1:4711"),
            (&["10.1.2.3, 127.0.0.1"], "10.1.2.3"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["[2001:db8::1]:80"], "[2001:db8::1]:80"),
            (&["::ffff:192.0.2.1"], "192.0.2.1"),
            (&["192.0.2.1, ::ffff:10.0.0.1"], "192.0.2.1"),
            (&["192.0.2.1,,\t, "], "192.0.2.1"),
            (&["192.0.2.1:http"], "192.0.2.1"),
            (&["192.0.2.1:99999"], "192.0.2.1"),
            // What stands before is not looked at.
            (&["nonsense", "\"", "192.0.2.1"], "192.0.2.1"),
            (&["\u{fffd}, 192.0.2.1"], "192.0.2.1"),
            // Nothing is looked for behind what cannot be read.
            (&["192.0.2.1, unknown"], "?"),
            (&["192.0.2.1, unknown, 127.0.0.1"], "?"),
            (&["192.0.2.1 203.0.113.9"], "?"),
            (&["192.0.2.1:1:2"], "192.0.2.1"),
            (&["[192.0.2.1]"], "?"),
            (&["[2001:db8::1]80"], "?"),
            (&["[2001:db8::1"], "?"),
            (&[""], "?"),
            (&[" , ,"], "?"),
        ] {
            assert_eq!(client(hops(lines(list), address)), expected, "{list:?}");
        }
    }

    #[test]
    fn the_last_element_of_forwarded_that_is_no_trusted_proxy_counts() {
        for (list, expected) in [
            (&[][..], "-"),
            (&["for=192.0.2.1"], "192.0.2.1"),
            (&["For=192.0.2.1;proto=https;by=203.0.113.9"], "192.0.2.1"),
            (&["proto=https ; FOR=\"192.0.2.1:4711\" ;host=\"a;for=b, c\""], "192.0.2.1:4711"),
            (&["for=\"[2001:db8:cafe::17]:4711\""], "[2001:db8:cafe::17]:4711"),
            (&["for=\"[2001:db8::1]\""], "2001:db8::1"),
            (&["for=203.0.113.9, for=192.0.2.1, for=10.0.0.7;by=10.0.0.8"], "192.0.2.1"),
            (&["for=203.0.113.9", "for=192.0.2.1", "for=\"127.0.0.1\""], "192.0.2.1"),
            (&["for=\"192.0.2.1:_hidden\""], "192.0.2.1"),
            (&["for=127.0.0.1"], "127.0.0.1"),
            // A client cannot hide what its proxy writes after it.
            (&["for=203.0.113.9;a=\", for=192.0.2.1"], "192.0.2.1"),
            (&["for=203.0.113.9;a=\", for=\"[2001:db8::1]:5\""], "[2001:db8::1]:5"),
            (&["for=203.0.113.9;a=\", for=192.0.2.1;host=\"x\""], "192.0.2.1"),
            (&["for=203.0.113.9;a=\"\\, for=192.0.2.1;host=\"\\\"x\\\\\""], "192.0.2.1"),
            (&["for=\"203.0.113.9, for=192.0.2.1", "for=10.0.0.1"], "192.0.2.1"),
            // No address: obfuscated, unknown, missing, or more than one.
            (&["for=unknown"], "?"),
            (&["for=192.0.2.1, for=_gazonk"], "?"),
            (&["for=192.0.2.1, proto=https"], "?"),
            (&["for=192.0.2.1;for=203.0.113.9"], "?"),
            (&["for=\"192.0.2.1"], "?"),
            (&["for=192.0.2.1\""], "?"),
            (&["for="], "?"),
            (&["192.0.2.1"], "?"),
            (&[""], "?"),
        ] {
            assert_eq!(client(hops(lines(list), element)), expected, "{list:?}");
        }
    }

    #[test]
    fn a_long_list_is_not_read_to_its_end() {
        let list = "10.0.0.1,".repeat(10_000);
        assert_eq!(hops(lines(&[&list]), address).len(), PROXY_HOPS_MAX);
    }
}
