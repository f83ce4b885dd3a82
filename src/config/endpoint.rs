//! Endpoint strings: those of upstream's `--port` for TCP, unix and passed sockets and for PROXY
//! headers, and the short forms that people type (manual: command_line 3).

use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::values::DEFAULT_PORT;
use crate::message::is_private;
use crate::net::passed_sockets::Pick;
use crate::net::socket::{Endpoint, Role, interface_number};

/// File mode of a unix socket by default: all users may connect, as upstream.
const UNIX_MODE: u32 = 0o666;

/// The same for `--admin`: only the server's own user.
const ADMIN_UNIX_MODE: u32 = 0o600;

/// Defaults for the parts that an endpoint string leaves out.
#[derive(Clone, Copy)]
struct Defaults {
    /// The address of a bare port.
    bare: IpAddr,
    /// The addresses of `tcp:` and `tcp6:`.
    tcp: IpAddr,
    tcp6: IpAddr,
    unix_mode: u32,
    /// How an endpoint may be written.
    forms: &'static str,
}

/// Clients connect from anywhere.
const FOR_CLIENTS: Defaults = Defaults {
    bare: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    tcp: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    tcp6: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    unix_mode: UNIX_MODE,
    forms: "PORT, ADDRESS:PORT, tcp:PORT, tcp6:PORT, unix:PATH or systemd:",
};

/// Admin clients connect from the same machine.
const FOR_ADMIN: Defaults = Defaults {
    bare: IpAddr::V4(Ipv4Addr::LOCALHOST),
    tcp: IpAddr::V4(Ipv4Addr::LOCALHOST),
    tcp6: IpAddr::V6(Ipv6Addr::LOCALHOST),
    unix_mode: ADMIN_UNIX_MODE,
    forms: "PORT, ADDRESS:PORT, tcp:PORT, tcp6:PORT or unix:PATH",
};

/// The endpoint without `--port`: IPv6 and IPv4.
pub fn default() -> Endpoint {
    Endpoint::Tcp((FOR_CLIENTS.bare, DEFAULT_PORT).into())
}

/// The origin of a listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketSource {
    /// Bound by the server.
    Bind(Endpoint),
    /// Passed by a service manager.
    Passed(Pick),
}

/// Prefix of an endpoint whose connections begin with a PROXY header.
const PROXIED: &str = "haproxy:";

/// Reads an endpoint string for clients; the error completes "--port: …".
pub fn for_clients(text: &str) -> Result<(SocketSource, Role), String> {
    let (text, role) = match text.strip_prefix(PROXIED) {
        Some(text) => (text, Role::ProxiedClient),
        None => (text, Role::Client),
    };
    if text.split(':').next() == Some("systemd") {
        return Ok((SocketSource::Passed(passed(text)?), role));
    }
    Ok((SocketSource::Bind(parse(text, FOR_CLIENTS)?), role))
}

/// Reads an endpoint string for the admin listener; the error completes "--admin: …".
pub fn for_admin(text: &str) -> Result<Endpoint, String> {
    parse(text, FOR_ADMIN)
}

/// As [`for_admin`], which only nearby networks may reach.
pub fn for_private_admin(text: &str) -> Result<Endpoint, String> {
    match for_admin(text)? {
        Endpoint::Tcp(address) if !is_private(address.ip()) => Err(format!(
            "'{text}' is open to the public: give a private address, or --admin-public as well"
        )),
        endpoint => Ok(endpoint),
    }
}

fn parse(text: &str, defaults: Defaults) -> Result<Endpoint, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok(Endpoint::Tcp((defaults.bare, port).into()));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Endpoint::Tcp(address));
    }
    if let Some((ip, port)) = text.strip_prefix('[').and_then(|text| text.split_once("]:"))
        && let (true, Ok(port)) = (ip.contains('%'), port.parse())
    {
        return Ok(Endpoint::Tcp(address(ip, port)?));
    }
    match text.split(':').next() {
        Some("tcp") => tcp(text, defaults.tcp),
        Some("tcp6") => tcp(text, defaults.tcp6),
        Some("unix") => unix(text, defaults.unix_mode),
        kind => Err(problem(text, kind.unwrap_or_default(), defaults.forms)),
    }
}

/// The problem with what is no endpoint, and the right form of what it seems to be.
fn problem(text: &str, kind: &str, forms: &str) -> String {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    let is_bare_ipv6 = |text: &str| {
        let (ip, _interface) = text.split_once('%').unwrap_or((text, ""));
        ip.parse::<Ipv6Addr>().is_ok()
    };
    let is_address = |text: &str| {
        let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        bracketed.is_some_and(is_bare_ipv6) || text.parse::<Ipv4Addr>().is_ok()
    };
    if ["ssl", "le", "tls"].iter().any(|tls| kind.eq_ignore_ascii_case(tls)) {
        return "TLS is not spoken here: listen on tcp: or unix: and put a TLS proxy in front"
            .to_owned();
    }
    if is_number(text) {
        return bad_port(text);
    }
    if is_address(text) {
        return format!("'{text}' needs a port, as in {text}:{DEFAULT_PORT}");
    }
    let not_an_endpoint = format!("'{text}' is not an endpoint: give {forms}");
    let Some((host, port)) = text.rsplit_once(':') else { return not_an_endpoint };
    if is_bare_ipv6(text) || is_bare_ipv6(host) {
        let rule = "an IPv6 address stands in brackets, followed by a port, as in [::1]:4000";
        return format!("'{text}': {rule}");
    }
    if is_address(host) {
        return bad_port(port);
    }
    if host == kind && host != "systemd" && is_number(port) {
        let rule = "names are not looked up, an ADDRESS is an IP address, as in 127.0.0.1:4000";
        return format!("{not_an_endpoint}; {rule}");
    }
    not_an_endpoint
}

fn bad_port(port: &str) -> String {
    format!("port '{port}' must be a number from 0 to 65535")
}

fn tcp(text: &str, default_address: IpAddr) -> Result<Endpoint, String> {
    let mut parts = Parts::split(text, &["port", "interface", "backlog"])?;
    let port = parts.take("port").ok_or("tcp: needs a port, as in tcp:4000")?;
    let port: u16 = port.parse().map_err(|_| bad_port(&port))?;
    let address = match parts.take("interface").as_deref() {
        None | Some("") => (default_address, port).into(),
        Some("localhost") => (Ipv4Addr::LOCALHOST, port).into(),
        Some(text) => address(text, port)?,
    };
    parts.ignore("backlog")?; // the queue is deep enough (`limits::LISTEN_BACKLOG`)
    parts.finish()?;
    Ok(Endpoint::Tcp(address))
}

/// An IP address; a link-local one, which every interface has, with the name or number of one.
fn address(text: &str, port: u16) -> Result<SocketAddr, String> {
    let Some((ip, interface)) = text.split_once('%') else {
        let ip = text.parse::<IpAddr>().map(|ip| (ip, port).into());
        return ip.map_err(|_| format!("interface '{text}' must be an IP address"));
    };
    let ip = ip.parse().map_err(|_| format!("'{ip}' before a '%' must be an IPv6 address"))?;
    let number = interface.parse().ok().or_else(|| interface_number(interface));
    let number = number.ok_or_else(|| format!("'{interface}' is no interface of this machine"))?;
    Ok(SocketAddrV6::new(ip, port, 0, number).into())
}

fn unix(text: &str, default_mode: u32) -> Result<Endpoint, String> {
    let mut parts = Parts::split(text, &["address", "mode", "backlog", "lockfile"])?;
    let path = parts.take("address").filter(|path| !path.is_empty());
    let path = path.ok_or("unix: needs a path, as in unix:/run/wormhole.sock")?;
    let mode = match parts.take("mode") {
        None => default_mode,
        Some(text) => u32::from_str_radix(&text, 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .ok_or_else(|| format!("mode '{text}' must be octal, as in 660"))?,
    };
    parts.ignore("backlog")?;
    parts.ignore("lockfile")?; // a stale socket is replaced without one
    parts.finish()?;
    Ok(Endpoint::Unix { path: path.into(), mode })
}

fn passed(text: &str) -> Result<Pick, String> {
    let mut parts = Parts::split(text, &["socket"])?;
    let mut first = parts.take("socket").filter(|word| !word.is_empty());
    let (index, name) = (parts.take("index"), parts.take("name"));
    // Upstream wants the family first; a passed socket knows its own.
    let is_upstreams = index.is_some() || name.is_some();
    let domain = parts.take("domain").or_else(|| first.take_if(|_| is_upstreams));
    if let Some(domain) = domain.filter(|it| !["INET", "INET6", "UNIX"].contains(&it.as_str())) {
        return Err(format!("domain '{domain}' must be INET, INET6 or UNIX"));
    }
    parts.finish()?;
    match (first, index, name) {
        (None, None, None) => Ok(Pick::All),
        (Some(word), None, None) => Ok(word.parse().map_or(Pick::Name(word), Pick::Index)),
        (None, None, Some(name)) => Ok(Pick::Name(name)),
        (None, Some(index), None) => index
            .parse()
            .map(Pick::Index)
            .map_err(|_| format!("index '{index}' must be a number, from 0")),
        _ => Err("systemd: takes either a number or a name".to_owned()),
    }
}

/// An endpoint string taken apart: `kind:value:name=value`, with `\` before a literal `:`, `=` or
/// `\`.
struct Parts {
    kind: String,
    /// In order; values without a name have that of their place.
    fields: Vec<(String, String)>,
}

impl Parts {
    /// `places`: the names of values that have none.
    fn split(text: &str, places: &[&str]) -> Result<Parts, String> {
        let (mut words, mut name, mut value) = (Vec::new(), None, String::new());
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            match char {
                ':' => words.push((name.take(), mem::take(&mut value))),
                '=' if name.is_none() => name = Some(mem::take(&mut value)),
                '\\' => value.push(chars.next().ok_or("a '\\' must stand before a character")?),
                char => value.push(char),
            }
        }
        words.push((name, value));
        let (_, kind) = words.remove(0);
        let mut places = places.iter();
        let mut fields: Vec<(String, String)> = Vec::new();
        for (name, value) in words {
            let Some(name) = name.or_else(|| places.next().map(|name| (*name).to_owned())) else {
                return Err(format!("'{value}' must have the form name=value"));
            };
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(format!("'{name}' is given twice; ':' in a value is written '\\:'"));
            }
            fields.push((name, value));
        }
        Ok(Parts { kind, fields })
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let position = self.fields.iter().position(|(known, _)| known == name)?;
        Some(self.fields.remove(position).1)
    }

    /// Takes a number that has no effect here.
    fn ignore(&mut self, name: &str) -> Result<(), String> {
        match self.take(name).filter(|value| value.parse::<u32>().is_err()) {
            Some(value) => Err(format!("{name} '{value}' must be a number")),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<(), String> {
        match self.fields.first() {
            Some((name, _)) => Err(format!("'{name}' is not known for {}:", self.kind)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Endpoint, String> {
        super::parse(text, FOR_CLIENTS)
    }

    fn tcp(address: &str) -> Result<Endpoint, String> {
        Ok(Endpoint::Tcp(address.parse().expect("an address")))
    }

    #[test]
    fn upstream_and_everyday_forms_are_understood() {
        for (text, address) in [
            ("tcp:4000:interface=\\:\\:", "[::]:4000"),
            ("tcp:4000", "0.0.0.0:4000"),
            ("tcp:port=4000", "0.0.0.0:4000"),
            ("tcp:4000:interface=127.0.0.1", "127.0.0.1:4000"),
            ("tcp:interface=\\:\\:1:port=4000", "[::1]:4000"),
            ("tcp:4000:backlog=50", "0.0.0.0:4000"),
            ("tcp:4000:127.0.0.1", "127.0.0.1:4000"),
            ("tcp:4000:127.0.0.1:50", "127.0.0.1:4000"),
            ("tcp6:4000", "[::]:4000"),
            ("4000", "[::]:4000"),
            ("0", "[::]:0"),
            ("127.0.0.1:4000", "127.0.0.1:4000"),
            ("[::1]:4000", "[::1]:4000"),
            ("[fe80::1%2]:4000", "[fe80::1%2]:4000"),
            ("tcp:4000:interface=fe80\\:\\:1%2", "[fe80::1%2]:4000"),
        ] {
            assert_eq!(parse(text), tcp(address), "{text}");
        }
        assert_eq!(
            parse("unix:/run/x.sock:mode=660"),
            Ok(Endpoint::Unix { path: "/run/x.sock".into(), mode: 0o660 })
        );
        assert_eq!(parse("unix:/run/x.sock:660:50:0"), parse("unix:/run/x.sock:mode=660"));
        assert_eq!(
            parse("unix:/run/a\\:b:lockfile=0"),
            Ok(Endpoint::Unix { path: "/run/a:b".into(), mode: 0o666 })
        );
    }

    #[test]
    fn passed_sockets_are_picked_by_number_or_name() {
        for (text, pick) in [
            ("systemd:", Pick::All),
            ("systemd", Pick::All),
            ("systemd:0", Pick::Index(0)),
            ("systemd:17", Pick::Index(17)),
            ("systemd:mailbox.socket", Pick::Name("mailbox.socket".to_owned())),
            ("systemd:name=7", Pick::Name("7".to_owned())),
            ("systemd:index=1", Pick::Index(1)),
            ("systemd:domain=INET:index=0", Pick::Index(0)),
            ("systemd:domain=UNIX:name=web", Pick::Name("web".to_owned())),
            ("systemd:INET6:index=2", Pick::Index(2)),
        ] {
            let expected = Ok((SocketSource::Passed(pick), Role::Client));
            assert_eq!(for_clients(text), expected, "{text}");
        }
    }

    #[test]
    fn a_prefix_makes_any_endpoint_that_of_a_proxy() {
        for text in ["tcp:4000", "4000", "127.0.0.1:4000", "unix:/run/x.sock:mode=660", "systemd:0"]
        {
            let (source, role) = for_clients(text).expect(text);
            assert_eq!(role, Role::Client);
            let proxied = for_clients(&format!("haproxy:{text}"));
            assert_eq!(proxied, Ok((source, Role::ProxiedClient)), "{text}");
        }
    }

    #[test]
    fn admin_endpoints_are_private_unless_allowed_otherwise() {
        for (text, address) in [
            ("9000", "127.0.0.1:9000"),
            ("tcp:9000", "127.0.0.1:9000"),
            ("tcp6:9000", "[::1]:9000"),
            ("192.168.1.1:9000", "192.168.1.1:9000"),
            ("[fd00::1]:9000", "[fd00::1]:9000"),
            ("unix:/run/admin.sock", "unix:/run/admin.sock"),
        ] {
            let read = for_private_admin(text).map(|it| it.to_string());
            assert_eq!(read, Ok(address.to_owned()), "{text}");
        }
        for text in ["0.0.0.0:9000", "[::]:9000", "192.0.2.1:9000", "[::ffff:192.0.2.1]:9000"] {
            assert!(for_private_admin(text).is_err_and(|error| error.contains("--admin-public")));
            assert!(for_admin(text).is_ok(), "{text}");
        }
        for text in ["systemd:", "haproxy:9000", "here:9000"] {
            let error = for_private_admin(text).expect_err(text);
            assert!(error.contains("give PORT, ADDRESS:PORT, tcp:PORT, tcp6:PORT or unix:PATH"));
        }
        let unix = for_private_admin("unix:/x");
        assert_eq!(unix, Ok(Endpoint::Unix { path: "/x".into(), mode: 0o600 }));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("ssl:443:privateKey=x", "TLS proxy"),
            ("le:/etc/x:tcp\\:443", "TLS proxy"),
            ("SSL:443", "TLS proxy"),
            ("ssl", "TLS proxy"),
            ("tcp:", "port ''"),
            ("tcp", "needs a port"),
            ("tcp:99999", "99999"),
            ("tcp:4000:interface=eth0", "eth0"),
            ("tcp:4000:interface=fe80\\:\\:1%nowhere", "'nowhere' is no interface"),
            ("tcp:4000:interface=127.0.0.1%2", "'127.0.0.1' before a '%'"),
            ("[fe80::1%nowhere]:4000", "'nowhere' is no interface"),
            ("[fe80::1%2]", "needs a port, as in [fe80::1%2]:4000"),
            ("fe80::1%2", "in brackets"),
            ("tcp:4000:tls=1", "'tls' is not known"),
            ("tcp:4000:5000", "interface '5000'"),
            ("tcp:4000:interface=::1", "written '\\:'"),
            ("tcp:4000:127.0.0.1:5:6", "name=value"),
            ("tcp:4000:backlog=x", "backlog 'x' must be a number"),
            ("unix:/x:lockfile=", "lockfile ''"),
            ("tcp:port=1:port=2", "twice"),
            ("unix:/x:mode=999", "octal"),
            ("unix:", "needs a path"),
            ("example.org:4000", "not an endpoint"),
            ("example.org:4000", "names are not looked up"),
            ("localhost:4000", "as in 127.0.0.1:4000"),
            ("localhost:99999", "names are not looked up"),
            ("udp:4000", "give PORT, ADDRESS:PORT, tcp:PORT, tcp6:PORT, unix:PATH or systemd:;"),
            ("99999", "from 0 to 65535"),
            ("127.0.0.1:99999", "port '99999' must be a number from 0 to 65535"),
            ("[::1]:http", "port 'http' must be"),
            ("127.0.0.1", "needs a port, as in 127.0.0.1:4000"),
            ("[::1]", "needs a port, as in [::1]:4000"),
            ("::1", "in brackets"),
            ("::1:4000", "as in [::1]:4000"),
            ("2001:db8::1:40000", "in brackets"),
            ("", "not an endpoint"),
            ("haproxy:", "not an endpoint"),
            ("haproxy:haproxy:4000", "not an endpoint"),
            ("haproxy:ssl:443", "TLS proxy"),
            ("systemd:domain=IPX:index=0", "IPX"),
            ("systemd:web:index=0", "web"),
            ("systemd:index=first", "first"),
            ("systemd:index=0:name=web", "either"),
            ("systemd:1:domain=INET:index=0", "either"),
            ("systemd:0:mode=660", "'mode' is not known"),
        ] {
            let error = for_clients(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
