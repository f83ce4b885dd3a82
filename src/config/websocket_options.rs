//! `--websocket-protocol-option NAME=JSON`: the options of upstream's WebSocket library that have a
//! meaning here, one row each; others are refused by name (manual: command_line 4).

use serde_json::Value;

use super::settings::Config;
use crate::limits;

/// Patterns of `Origin`s that may connect, with `*` for any text.
#[derive(Clone, Debug)]
pub struct Origins(Vec<String>);

impl Default for Origins {
    fn default() -> Self {
        Origins(vec!["*".to_owned()])
    }
}

impl Origins {
    /// Browsers leave out the scheme's own port, while upstream's library wants it in its patterns:
    /// a pattern may be written either way.
    pub fn allow(&self, origin: &str) -> bool {
        let with_port = with_default_port(origin);
        self.0.iter().any(|pattern| {
            matches(pattern, origin) || with_port.as_ref().is_some_and(|it| matches(pattern, it))
        })
    }
}

/// An origin without a port, with that of its scheme.
fn with_default_port(origin: &str) -> Option<String> {
    let (scheme, host) = origin.split_once("://")?;
    let port = match scheme.to_ascii_lowercase().as_str() {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    // The colons of an IPv6 address stand in brackets.
    let has_port = host.rsplit(']').next()?.contains(':');
    (!has_port).then(|| format!("{origin}:{port}"))
}

/// One protocol option.
pub struct ProtocolOption {
    pub name: &'static str,
    pub default: &'static str,
    pub about: &'static str,
    pub set: Setter,
}

type Setter = fn(&mut Config, &Value) -> Result<(), String>;

/// Makes the table and the text of `--help` from one row each.
macro_rules! protocol_options {
    ($($name:literal [$default:literal]: |$config:ident, $value:ident| $set:expr,
       $about:literal;)*) => {
        /// All protocol options that have a meaning here.
        pub const TABLE: &[ProtocolOption] = &[$(ProtocolOption {
            name: $name,
            default: $default,
            about: $about,
            set: |$config, $value| { $set; Ok(()) },
        },)*];

        /// Names and defaults, with which [`HELP`] ends.
        pub const LIST: &str = concat!("Known:", $(" ", $name, " [", $default, "]",)*);

        /// The help of `--websocket-protocol-option`.
        pub const HELP: &str = concat!(
            "An option of the Python server's WebSocket library; repeatable. ",
            "Known:", $(" ", $name, " [", $default, "]",)*
        );
    };
}

protocol_options! {
    "autoPingInterval" ["60 s"]: |config, value| config.pings.interval_seconds = seconds(value)?,
        "Seconds between pings to a client; 0 for never";
    "autoPingTimeout" ["600 s"]: |config, value| config.pings.timeout_seconds = seconds(value)?,
        "Seconds without an answer after which a client is dropped; 0 for never";
    "openHandshakeTimeout" ["10 s"]: |config, value| config.limits.handshake_seconds = timeout(value)?,
        "As `--limit-handshake-seconds`; 0 for never";
    "closeHandshakeTimeout" ["3 s"]: |config, value| config.limits.close_seconds = timeout(value)?,
        "As `--limit-close-seconds`; 0 for never";
    "maxMessagePayloadSize" ["1048576 bytes"]:
        |config, value| config.limits.message_bytes_max = message_bytes(config, value)?,
        "As `--limit-message-bytes`; 0 for 64 MiB";
    "maxFramePayloadSize" ["the limit of a message"]:
        |config, value| config.limits.frame_bytes_max = bytes(value)?.unwrap_or(usize::MAX),
        "As `--limit-frame-bytes`; 0 for the default";
    "maxConnections" ["descriptor limit less 64"]:
        |config, value| config.limits.connections_max = connections(value)?,
        "As `--limit-connections`; 0 for the default";
    "allowedOrigins" ["[\"*\"]"]: |config, value| config.origins = origins(value)?,
        "List of `Origin`s that may connect; `*` stands for any text";
    "tcpNoDelay" ["true"]: |config, value| config.tcp_nodelay = boolean(value)?,
        "Whether small answers are sent at once";
}

/// Further options of upstream's library, and the replacement.
const WITHOUT_EFFECT: [(&str, &str); 16] = [
    ("trustXForwardedFor", "give --trusted-proxy=NETWORK instead"),
    ("allowNullOrigin", "list \"null\" in allowedOrigins instead"),
    ("acceptMaskedServerFrames", LEAVE_OUT),
    ("applyMask", LEAVE_OUT),
    ("autoFragmentSize", LEAVE_OUT),
    ("autoPingSize", LEAVE_OUT),
    ("autoPingRestartOnAnyTraffic", LEAVE_OUT),
    ("echoCloseCodeReason", LEAVE_OUT),
    ("failByDrop", LEAVE_OUT),
    ("flashSocketPolicy", LEAVE_OUT),
    ("maskServerFrames", LEAVE_OUT),
    ("requireMaskedClientFrames", LEAVE_OUT),
    ("serveFlashSocketPolicy", LEAVE_OUT),
    ("utf8validateIncoming", LEAVE_OUT),
    ("versions", LEAVE_OUT),
    ("webStatus", LEAVE_OUT),
];

const LEAVE_OUT: &str = "has no meaning here, leave it out";

/// Sets one option; the error completes "--websocket-protocol-option: …".
pub fn set(config: &mut Config, text: &str) -> Result<(), String> {
    let (name, json) =
        text.split_once('=').ok_or_else(|| format!("'{text}' must have the form NAME=JSON"))?;
    let value: Value =
        serde_json::from_str(json).map_err(|_| format!("{name}: '{json}' must be a JSON value"))?;
    let Some(option) = TABLE.iter().find(|option| option.name == name) else {
        if let Some((_, problem)) = WITHOUT_EFFECT.iter().find(|(known, _)| *known == name) {
            return Err(format!("{name}: {problem}"));
        }
        let names: Vec<&str> = TABLE.iter().map(|option| option.name).collect();
        let names = names.join(", ");
        return Err(format!("{name}: not an option of this server; known are {names}"));
    };
    (option.set)(config, &value).map_err(|problem| format!("{name}: {problem}"))
}

fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "must be true or false".to_owned())
}

/// Seconds where 0 means never.
fn seconds(value: &Value) -> Result<f64, String> {
    value
        .as_f64()
        .filter(|seconds| *seconds == 0.0 || limits::is_duration(*seconds))
        .ok_or_else(|| "must be a number of seconds, 0 for never".to_owned())
}

/// Seconds to wait; 0 means the longest time that an option takes.
fn timeout(value: &Value) -> Result<f64, String> {
    let seconds = seconds(value)?;
    Ok(if seconds == 0.0 { limits::OPTION_SECONDS_MAX } else { seconds })
}

/// Bytes; none for 0, which means no limit in upstream's library.
fn bytes(value: &Value) -> Result<Option<usize>, String> {
    let bytes = value
        .as_u64()
        .filter(|bytes| *bytes as f64 <= limits::OPTION_NUMBER_MAX)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| format!("must be a number of bytes up to {}", limits::OPTION_NUMBER_MAX))?;
    Ok(Some(bytes).filter(|bytes| *bytes > 0))
}

fn message_bytes(config: &mut Config, value: &Value) -> Result<usize, String> {
    if let Some(bytes) = bytes(value)? {
        return Ok(bytes);
    }
    let bytes = limits::UNLIMITED_MESSAGE_BYTES;
    config.warnings.push(format!("maxMessagePayloadSize=0 is a limit of {bytes} bytes here"));
    Ok(bytes)
}

/// Connections; 0 means no limit but that of open files, as upstream.
fn connections(value: &Value) -> Result<usize, String> {
    let count = value
        .as_u64()
        .and_then(|count| usize::try_from(count).ok())
        .ok_or_else(|| "must be a whole number".to_owned())?;
    Ok(if count == 0 { usize::MAX } else { count })
}

fn origins(value: &Value) -> Result<Origins, String> {
    let wrong = || "must be a list of strings, as in [\"https://example.org\"]".to_owned();
    let patterns = match value {
        Value::String(pattern) => vec![pattern.clone()],
        Value::Array(patterns) => patterns
            .iter()
            .map(|pattern| pattern.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    Ok(Origins(patterns))
}

/// Matches a text against a pattern in which `*` stands for any text. Each part between stars is
/// searched once, from the left: the time is at most the product of the lengths.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_ascii_lowercase(), text.to_ascii_lowercase());
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("*", "null", true),
            ("https://example.org", "https://example.org", true),
            ("https://example.org", "https://example.org.evil", false),
            ("https://*.example.org", "https://a.example.org", true),
            ("http://localhost:*", "http://localhost:8080", true),
            ("http://localhost:*", "http://localhost", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn an_origin_matches_with_and_without_the_port_of_its_scheme() {
        for (pattern, origin, expected) in [
            ("https://winden.app:443", "https://winden.app", true),
            ("https://winden.app", "https://winden.app", true),
            ("http://winden.app:80", "http://winden.app", true),
            ("http://localhost:*", "http://localhost", true),
            ("https://[2001:db8::1]:443", "https://[2001:db8::1]", true),
            ("*://winden.app:443", "https://winden.app", true),
            ("https://winden.app:443", "http://winden.app", false),
            ("https://winden.app:443", "https://winden.app:8443", false),
            ("https://winden.app:443", "https://winden.app.evil", false),
            ("https://winden.app:80", "https://winden.app", false),
            ("https://*:443", "null", false),
        ] {
            let origins = Origins(vec![pattern.to_owned()]);
            assert_eq!(origins.allow(origin), expected, "{pattern} {origin}");
        }
    }
}
