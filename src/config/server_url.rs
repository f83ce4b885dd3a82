//! The URL of a mailbox server: `ws://HOST:PORT/v1`, `wss://HOST:PORT/v1`, or `unix:PATH`.
//!
//! Resolves no names.

use std::fmt;
use std::path::PathBuf;

use super::values;

/// Where a mailbox server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerUrl {
    /// A name or an IP address, that of IPv6 without brackets; the path begins with a slash.
    Tcp { scheme: Scheme, host: String, port: u16, path: String },
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// The path of the service.
const SERVICE: &str = "/v1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    prefix: &'static str,
    /// The port of a URL without one.
    default_port: u16,
}

impl Scheme {
    const WS: Scheme = Scheme { prefix: "ws://", default_port: 80 };
    pub const WSS: Scheme = Scheme { prefix: "wss://", default_port: 443 };
}

impl ServerUrl {
    /// Reads a URL. The error names it without a member's secret.
    pub fn parse(text: &str) -> Result<ServerUrl, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(ServerUrl::Unix(values::path(path)?));
        }
        let shown = values::without_secret(text);
        let wrong = || format!("'{shown}' must have the form ws://HOST:PORT{SERVICE} or unix:PATH");
        let with_scheme = |it: Scheme| text.strip_prefix(it.prefix).map(|rest| (it, rest));
        let (scheme, rest) =
            [Scheme::WS, Scheme::WSS].into_iter().find_map(with_scheme).ok_or_else(wrong)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong())?)
            }
            _ => (authority, scheme.default_port),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let lacks_brackets = bare.len() == host.len() && host.contains(':');
        if bare.is_empty() || lacks_brackets || text.contains([' ', '@', '#']) {
            return Err(wrong());
        }
        let path = if path.len() > 1 { path } else { SERVICE };
        Ok(ServerUrl::Tcp { scheme, host: bare.to_owned(), port, path: path.to_owned() })
    }

    /// For a request; the host of a unix socket means nothing.
    pub fn host_and_path(&self) -> (String, &str) {
        match self {
            ServerUrl::Tcp { scheme, host, port, path } => {
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                let is_default = *port == scheme.default_port;
                (if is_default { host } else { format!("{host}:{port}") }, path)
            }
            ServerUrl::Unix(_) => ("localhost".to_owned(), SERVICE),
        }
    }
}

/// A server on this machine with the default port.
impl Default for ServerUrl {
    fn default() -> ServerUrl {
        let (host, path) = ("127.0.0.1".to_owned(), SERVICE.to_owned());
        ServerUrl::Tcp { scheme: Scheme::WS, host, port: values::DEFAULT_PORT, path }
    }
}

/// Without what follows the path of the service: it may be a member's secret.
impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerUrl::Tcp { scheme, .. } => {
                let (host, path) = self.host_and_path();
                let path = if path.starts_with("/v1/") { "/v1/…" } else { path };
                write!(f, "{}{host}{path}", scheme.prefix)
            }
            ServerUrl::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_may_have_port_and_path() {
        for (text, shown) in [
            ("ws://127.0.0.1:4000/v1", "ws://127.0.0.1:4000/v1"),
            ("ws://localhost", "ws://localhost/v1"),
            ("ws://[::1]:4000/", "ws://[::1]:4000/v1"),
            ("ws://[::1]", "ws://[::1]/v1"),
            ("wss://host", "wss://host/v1"),
            ("wss://host:80/", "wss://host:80/v1"),
            ("ws://host:1/relay/v1?x", "ws://host:1/relay/v1?x"),
            ("ws://host:1/v1/secret", "ws://host:1/v1/…"),
            ("unix:/run/x:y.sock", "unix:/run/x:y.sock"),
        ] {
            assert_eq!(ServerUrl::parse(text).map(|url| url.to_string()), Ok(shown.to_owned()));
        }
        for text in [
            "",
            "127.0.0.1:4000",
            "ws://",
            "ws://:4000",
            "ws://a:b",
            "ws://::1:4000/",
            "ws://user@host",
            "http://host",
            "ws://host:99999",
            "unix:",
        ] {
            assert!(ServerUrl::parse(text).is_err(), "{text}");
        }
    }
}
