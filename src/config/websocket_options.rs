//! `--websocket-protocol-option NAME=JSON`: the options of upstream's WebSocket library that have a
//! meaning here, one row each; others are refused by name (manual: command_line 4).

use serde_json::Value;

use super::origins::Origins;
use super::settings::Config;
use super::values;
use crate::limits;

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
    "autoPingInterval" ["40 s"]: |config, value| config.pings.interval_seconds = seconds(value)?,
        "Seconds between pings to a client; 0 for never";
    "autoPingTimeout" ["600 s"]: |config, value| config.pings.timeout_seconds = seconds(value)?,
        "Seconds without an answer after which a client is dropped; 0 for never";
    "openHandshakeTimeout" ["10 s"]: |config, value| config.limits.handshake_seconds = timeout(value)?,
        "As `--limit-handshake-seconds`; 0 for never";
    "closeHandshakeTimeout" ["3 s"]: |config, value| config.limits.close_seconds = timeout(value)?,
        "As `--limit-close-seconds`; 0 for never";
    "maxMessagePayloadSize" ["4194304 bytes"]:
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
    values::seconds_or_never(&value.to_string())
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
    let patterns = match value {
        Value::String(pattern) => Ok(vec![pattern.clone()]),
        list => serde_json::from_value(list.clone()),
    };
    let wrong = |_| "must be a list of strings, as in [\"https://example.org\"]".to_owned();
    patterns.map(Origins::new).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_of_limits_are_those_of_the_limits() {
        let limits = limits::Limits::default();
        for (name, default) in [
            ("maxMessagePayloadSize", format!("{} bytes", limits.message_bytes_max)),
            ("openHandshakeTimeout", format!("{} s", limits.handshake_seconds)),
            ("closeHandshakeTimeout", format!("{} s", limits.close_seconds)),
        ] {
            let option = TABLE.iter().find(|option| option.name == name).expect(name);
            assert_eq!(option.default, default, "{name}");
        }
    }
}
