//! Endpoint strings: what upstream's `--port` takes for TCP and unix sockets, and what people type
//! (contract section 6).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::socket::{Endpoint, Role};

/// The endpoint when none is given.
pub const DEFAULT: &str = "tcp:4000:interface=\\:\\:";

/// File mode of a unix socket when none is given: anyone may connect, as upstream.
const UNIX_MODE: u32 = 0o666;

/// Reads an endpoint string for clients; the error completes "--port: …".
pub fn for_clients(text: &str) -> Result<(Endpoint, Role), String> {
    Ok((parse(text)?, Role::Client))
}

fn parse(text: &str) -> Result<Endpoint, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok(Endpoint::Tcp((Ipv6Addr::UNSPECIFIED, port).into()));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Endpoint::Tcp(address));
    }
    if ["ssl:", "le:", "tls:"].iter().any(|kind| text.starts_with(kind)) {
        return Err("TLS is not spoken here: listen on tcp: or unix: and put a TLS proxy in front"
            .to_owned());
    }
    let parts = Parts::split(text)?;
    match parts.kind.as_str() {
        "tcp" => tcp(parts, Ipv4Addr::UNSPECIFIED.into()),
        "tcp6" => tcp(parts, Ipv6Addr::UNSPECIFIED.into()),
        "unix" => unix(parts),
        _ => Err(format!(
            "'{text}' is not an endpoint: give PORT, ADDRESS:PORT, tcp:PORT, tcp6:PORT or unix:PATH"
        )),
    }
}

fn tcp(mut parts: Parts, any: IpAddr) -> Result<Endpoint, String> {
    let port = parts.take("port").ok_or("tcp: needs a port, as in tcp:4000")?;
    let port: u16 =
        port.parse().map_err(|_| format!("port '{port}' must be a number from 0 to 65535"))?;
    let address = match parts.take("interface") {
        None => any,
        Some(text) if text.is_empty() => any,
        Some(text) if text == "localhost" => Ipv4Addr::LOCALHOST.into(),
        Some(text) => {
            text.parse().map_err(|_| format!("interface '{text}' must be an IP address"))?
        }
    };
    parts.ignore("backlog"); // ours is deep enough for everyone
    parts.finish()?;
    Ok(Endpoint::Tcp((address, port).into()))
}

fn unix(mut parts: Parts) -> Result<Endpoint, String> {
    let path = parts.take("address").filter(|path| !path.is_empty());
    let path = path.ok_or("unix: needs a path, as in unix:/run/wormhole.sock")?;
    let mode = match parts.take("mode") {
        None => UNIX_MODE,
        Some(text) => u32::from_str_radix(&text, 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .ok_or_else(|| format!("mode '{text}' must be octal, as in 660"))?,
    };
    parts.ignore("backlog");
    parts.ignore("lockfile"); // a socket that nobody listens on is replaced without one
    parts.finish()?;
    Ok(Endpoint::Unix { path: path.into(), mode })
}

/// An endpoint string taken apart: `kind:value:name=value`, with `\` before a literal `:`, `=` or
/// `\`.
struct Parts {
    kind: String,
    /// In order; the first may come without its name.
    fields: Vec<(String, String)>,
}

impl Parts {
    fn split(text: &str) -> Result<Parts, String> {
        let mut words = vec![Word::default()];
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            let at = words.len() - 1;
            match char {
                ':' => words.push(Word::default()),
                '=' if words[at].name.is_none() => {
                    words[at].name = Some(std::mem::take(&mut words[at].value));
                }
                '\\' => words[at]
                    .value
                    .push(chars.next().ok_or("a '\\' must stand before a character")?),
                char => words[at].value.push(char),
            }
        }
        let mut words = words.into_iter();
        let kind = words.next().map(|word| word.value).unwrap_or_default();
        let unnamed = if kind == "unix" { "address" } else { "port" };
        let mut fields: Vec<(String, String)> = Vec::new();
        for (index, word) in words.enumerate() {
            let name = match word.name {
                Some(name) => name,
                None if index == 0 => unnamed.to_owned(),
                None => return Err(format!("'{}' must have the form name=value", word.value)),
            };
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(format!("'{name}' is given twice"));
            }
            fields.push((name, word.value));
        }
        Ok(Parts { kind, fields })
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let position = self.fields.iter().position(|(known, _)| known == name)?;
        Some(self.fields.remove(position).1)
    }

    fn ignore(&mut self, name: &str) {
        _ = self.take(name);
    }

    fn finish(self) -> Result<(), String> {
        match self.fields.first() {
            Some((name, _)) => Err(format!("'{name}' is not known for {}:", self.kind)),
            None => Ok(()),
        }
    }
}

#[derive(Default)]
struct Word {
    name: Option<String>,
    value: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(address: &str) -> Result<Endpoint, String> {
        Ok(Endpoint::Tcp(address.parse().expect("an address")))
    }

    #[test]
    fn upstream_and_everyday_forms_are_understood() {
        for (text, address) in [
            (DEFAULT, "[::]:4000"),
            ("tcp:4000", "0.0.0.0:4000"),
            ("tcp:port=4000", "0.0.0.0:4000"),
            ("tcp:4000:interface=127.0.0.1", "127.0.0.1:4000"),
            ("tcp:interface=\\:\\:1:port=4000", "[::1]:4000"),
            ("tcp:4000:backlog=50", "0.0.0.0:4000"),
            ("tcp6:4000", "[::]:4000"),
            ("4000", "[::]:4000"),
            ("0", "[::]:0"),
            ("127.0.0.1:4000", "127.0.0.1:4000"),
            ("[::1]:4000", "[::1]:4000"),
        ] {
            assert_eq!(parse(text), tcp(address), "{text}");
        }
        assert_eq!(
            parse("unix:/run/x.sock:mode=660"),
            Ok(Endpoint::Unix { path: "/run/x.sock".into(), mode: 0o660 })
        );
        assert_eq!(
            parse("unix:/run/a\\:b:lockfile=0"),
            Ok(Endpoint::Unix { path: "/run/a:b".into(), mode: 0o666 })
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("ssl:443:privateKey=x", "TLS proxy"),
            ("le:/etc/x:tcp\\:443", "TLS proxy"),
            ("tcp:", "port ''"),
            ("tcp", "needs a port"),
            ("tcp:99999", "99999"),
            ("tcp:4000:interface=eth0", "eth0"),
            ("tcp:4000:tls=1", "'tls' is not known"),
            ("tcp:4000:5000", "name=value"),
            ("tcp:port=1:port=2", "twice"),
            ("unix:/x:mode=999", "octal"),
            ("unix:", "needs a path"),
            ("example.org:4000", "not an endpoint"),
            ("", "not an endpoint"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
