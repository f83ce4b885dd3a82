//! The PROXY protocol: a text (v1) or binary (v2) header before the request, with the address of
//! the proxy's client (manual: protocol 1.5).
//!
//! Pure: bytes → incomplete, malformed, or parsed. The caller checks whether it trusts the proxy.
//! The extensions (TLVs) of a v2 header are skipped and its checksum is not verified: the header
//! comes from a trusted proxy, over TCP.

use std::net::{IpAddr, SocketAddr};

use crate::limits::PROXY_HEADER_BYTES_MAX;

/// The result of parsing the bytes received so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    Incomplete,
    /// With one line for the peer.
    Malformed(&'static str),
    Parsed {
        /// The proxy's client; none if the proxy connects on its own behalf or does not know.
        source: Option<SocketAddr>,
        header_bytes: usize,
    },
}

use ProxyHeader::{Incomplete, Malformed, Parsed};

const TEXT_BEGIN: &[u8] = b"PROXY ";

/// Longest text header with its line end (PROXY protocol, 2.1).
const TEXT_BYTES_MAX: usize = 107;

const BINARY_BEGIN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length of the rest.
const BINARY_FIXED_BYTES: usize = BINARY_BEGIN.len() + 4;

/// Parses the bytes received so far. Never asks for more than [`PROXY_HEADER_BYTES_MAX`].
pub fn parse(bytes: &[u8]) -> ProxyHeader {
    if bytes.starts_with(TEXT_BEGIN) {
        text(bytes)
    } else if bytes.starts_with(BINARY_BEGIN) {
        binary(bytes)
    } else if TEXT_BEGIN.starts_with(bytes) || BINARY_BEGIN.starts_with(bytes) {
        Incomplete
    } else {
        Malformed("a PROXY header must come first here")
    }
}

fn text(bytes: &[u8]) -> ProxyHeader {
    let bounded = &bytes[..bytes.len().min(TEXT_BYTES_MAX)];
    let Some(end) = bounded.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() < TEXT_BYTES_MAX {
            Incomplete
        } else {
            Malformed("PROXY header: a line must have at most 107 bytes")
        };
    };
    let Some(line) = bounded[TEXT_BEGIN.len()..end].strip_suffix(b"\r") else {
        return Malformed("PROXY header: the line must end with CR LF");
    };
    match text_source(line) {
        Some(source) => Parsed { source, header_bytes: end + 1 },
        None => Malformed(
            "PROXY header: the line must be UNKNOWN, or TCP4 or TCP6 with the addresses and ports",
        ),
    }
}

/// The part of the line after "PROXY ". Only the source is read: nginx, for one, sends the address
/// of an IPv4 server after TCP6.
fn text_source(line: &[u8]) -> Option<Option<SocketAddr>> {
    let mut words = line.split(|byte| *byte == b' ').map(|word| std::str::from_utf8(word).ok());
    let parse_ip: fn(&str) -> Option<IpAddr> = match words.next()?? {
        "UNKNOWN" => return Some(None),
        "TCP4" => |word| word.parse().ok().map(IpAddr::V4),
        "TCP6" => |word| word.parse().ok().map(IpAddr::V6),
        _ => return None,
    };
    let source = parse_ip(words.next()??)?;
    let _destination = words.next()?;
    let port: u16 = super::digits(words.next()??)?;
    Some(Some((source, port).into()))
}

fn binary(bytes: &[u8]) -> ProxyHeader {
    let Some((fixed, rest)) = bytes.split_at_checked(BINARY_FIXED_BYTES) else {
        return Incomplete;
    };
    let &[.., version_command, family_transport, length_high, length_low] = fixed else {
        return Incomplete;
    };
    let rest_bytes = usize::from(u16::from_be_bytes([length_high, length_low]));
    let header_bytes = BINARY_FIXED_BYTES + rest_bytes;
    if header_bytes > PROXY_HEADER_BYTES_MAX {
        return Malformed("PROXY header: too long");
    }
    let is_local = match version_command {
        0x20 => true,
        0x21 => false,
        _ => return Malformed("PROXY header: version must be 2, command LOCAL or PROXY"),
    };
    // Checked before the rest has come: a wrong header is refused at once.
    let ip_bytes = match (is_local, family_transport) {
        // No addresses, or paths of unix sockets.
        (true, _) | (false, 0x00 | 0x31) => None,
        (false, 0x11) => Some(4),
        (false, 0x21) => Some(16),
        (false, 0x12 | 0x22 | 0x32) => {
            return Malformed("PROXY header: datagrams are not served here");
        }
        _ => return Malformed("PROXY header: unknown address family or transport"),
    };
    if ip_bytes.is_some_and(|ip_bytes| rest_bytes < 2 * (ip_bytes + size_of::<u16>())) {
        return Malformed("PROXY header: too short for its addresses");
    }
    let Some(rest) = rest.get(..rest_bytes) else { return Incomplete };
    let source = match ip_bytes {
        None => None,
        Some(4) => inet_source::<4>(rest),
        Some(_) => inet_source::<16>(rest),
    };
    Parsed { source, header_bytes }
}

/// The first of two addresses: source, destination, source port, destination port.
fn inet_source<const IP_BYTES: usize>(addresses: &[u8]) -> Option<SocketAddr>
where
    IpAddr: From<[u8; IP_BYTES]>,
{
    let (ip, rest) = addresses.split_first_chunk::<IP_BYTES>()?;
    let port = rest.get(IP_BYTES..)?.first_chunk()?;
    Some((IpAddr::from(*ip), u16::from_be_bytes(*port)).into())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn v2(version_command: u8, family_transport: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = BINARY_BEGIN.to_vec();
        header.extend([version_command, family_transport]);
        header.extend((rest.len() as u16).to_be_bytes());
        header.extend(rest);
        header
    }

    const INET: [u8; 12] = [192, 0, 2, 1, 127, 0, 0, 1, 0x12, 0x34, 0x0f, 0xa0];

    fn parsed(bytes: &[u8]) -> (Option<String>, usize) {
        match parse(bytes) {
            Parsed { source, header_bytes } => {
                (source.map(|source| source.to_string()), header_bytes)
            }
            other => panic!("{}: {other:?}", bytes.escape_ascii()),
        }
    }

    fn source(bytes: &[u8]) -> Option<String> {
        let (source, header_bytes) = parsed(bytes);
        assert_eq!(header_bytes, bytes.len());
        // Complete with its last byte, and not before; what follows makes no difference.
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Incomplete, "{end}");
        }
        let followed = [bytes, b"GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(parsed(&followed), (source.clone(), header_bytes));
        source
    }

    #[test]
    fn text_headers_tell_the_source() {
        for (line, expected) in [
            ("TCP4 192.0.2.1 127.0.0.1 56324 443", Some("192.0.2.1:56324")),
            ("TCP4 255.255.255.255 255.255.255.255 65535 65535", Some("255.255.255.255:65535")),
            ("TCP6 2001:db8::1 ::1 1 2", Some("[2001:db8::1]:1")),
            ("TCP6 ::ffff:192.0.2.1 ::1 1 2", Some("[::ffff:192.0.2.1]:1")),
            ("TCP6 2001:db8::9 192.0.2.1 51512 443", Some("[2001:db8::9]:51512")),
            ("TCP4 192.0.2.1 nonsense 1 65536", Some("192.0.2.1:1")),
            ("TCP4 192.0.2.1  1 2", Some("192.0.2.1:1")),
            ("TCP4 192.0.2.1 127.0.0.1 1", Some("192.0.2.1:1")),
            ("TCP4 192.0.2.1 127.0.0.1 1 2 3", Some("192.0.2.1:1")),
            ("UNKNOWN", None),
            ("UNKNOWN ffff::1 ffff::2 65535 65535", None),
        ] {
            let header = format!("PROXY {line}\r\n");
            assert_eq!(source(header.as_bytes()).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn binary_headers_tell_the_source() {
        let inet6: Vec<u8> =
            [&Ipv6Addr::LOCALHOST.octets()[..], &[0; 16], &[0, 80, 1, 0xbb]].concat();
        let extended = [&INET[..], &[0x01, 0, 2, b'h', b'2', 0x04, 0xff]].concat();
        for (header, expected) in [
            (v2(0x21, 0x11, &INET), Some("192.0.2.1:4660")),
            (v2(0x21, 0x11, &extended), Some("192.0.2.1:4660")),
            (v2(0x21, 0x21, &inet6), Some("[::1]:80")),
            (v2(0x21, 0x31, &[b'x'; 216]), None),
            (v2(0x21, 0x31, b"short"), None),
            (v2(0x21, 0x00, b""), None),
            (v2(0x21, 0x00, b"extensions"), None),
            (v2(0x20, 0x00, b""), None),
            (v2(0x20, 0x11, &INET), None),
            (v2(0x20, 0xff, b"x"), None),
        ] {
            assert_eq!(source(&header).as_deref(), expected, "{}", header.escape_ascii());
        }
        assert_eq!(source(b"PROXY UNKNOWN \xff\r\n"), None);
        let longest = vec![0; PROXY_HEADER_BYTES_MAX - BINARY_FIXED_BYTES];
        assert_eq!(source(&v2(0x20, 0x00, &longest)), None);
    }

    #[test]
    fn anything_else_is_malformed() {
        let too_long = [&b"PROXY UNKNOWN "[..], &[b'x'; TEXT_BYTES_MAX]].concat();
        let mut cases: Vec<Vec<u8>> = [
            "GET / HTTP/1.1\r\n\r\n",
            "\u{16}\u{3}\u{1}",
            "proxy UNKNOWN\r\n",
            "PROXY\r\n",
            "PROXY \r\n",
            "PROXY UNKNOWN\n",
            "PROXY UDP4 192.0.2.1 127.0.0.1 1 2\r\n",
            "PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 127.0.0.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 127.0.0.1\r\n",
            "PROXY TCP4 192.0.2.1  127.0.0.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 127.0.0.1 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 127.0.0.1 65536 2\r\n",
            "PROXY TCP4 192.0.2.256 127.0.0.1 1 2\r\n",
            "\r\n\r\n\0\r\nQUIT\r",
        ]
        .map(|text| text.as_bytes().to_vec())
        .into();
        cases.extend([
            too_long,
            b"PROXY TCP4 192.0.2.\xff 127.0.0.1 1 2\r\n".to_vec(),
            v2(0x11, 0x11, &INET),
            v2(0x31, 0x11, &INET),
            v2(0x22, 0x11, &INET),
            v2(0x21, 0x12, &INET),
            v2(0x21, 0x10, &INET),
            v2(0x21, 0x41, &INET),
            v2(0x21, 0x11, &INET[1..]),
            v2(0x21, 0x21, &INET),
            v2(0x20, 0x00, &vec![0; PROXY_HEADER_BYTES_MAX]),
        ]);
        for case in cases {
            assert!(matches!(parse(&case), Malformed(_)), "{}", case.escape_ascii());
        }
    }
}
