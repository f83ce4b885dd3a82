//! `--websocket-protocol-option NAME=JSON`: the options of upstream's WebSocket library that have a
//! meaning here, one row each; others are refused by name (manual: command_line 4).

use serde_json::Value;

use super::settings::{Config, Settings};
use super::spec::Arity::Many;
use super::spec::ShownDefault::{OfLimit, Text};
use super::spec::{Row, rows};
use super::values::seconds_or_never;
use crate::codec::origins::Origins;
use crate::limits;

/// All protocol options that have a meaning here. The setters get a value's JSON text.
pub static TABLE: &[Row] = rows! {
    "autoPingInterval": Many("JSON"),
        Set |s, json| s.config.pings.interval_seconds = seconds_or_never(json)?, Text("40 s"),
        "Seconds between pings to a client; 0 for never";
    "autoPingTimeout": Many("JSON"),
        Set |s, json| s.config.pings.timeout_seconds = seconds_or_never(json)?, Text("600 s"),
        "Seconds without an answer after which a client is dropped; 0 for never";
    "openHandshakeTimeout": Many("JSON"),
        Set |s, json| s.config.limits.handshake_seconds = timeout(json)?, OfLimit("--limit-handshake-seconds"),
        "As `--limit-handshake-seconds`; 0 for never";
    "closeHandshakeTimeout": Many("JSON"),
        Set |s, json| s.config.limits.close_seconds = timeout(json)?, OfLimit("--limit-close-seconds"),
        "As `--limit-close-seconds`; 0 for never";
    "maxMessagePayloadSize": Many("JSON"),
        Set |s, json| s.config.limits.message_bytes_max = message_bytes(&mut s.config, json)?,
        OfLimit("--limit-message-bytes"),
        "As `--limit-message-bytes`; 0 for 64 MiB";
    "maxFramePayloadSize": Many("JSON"),
        Set |s, json| s.config.limits.frame_bytes_max = bytes(json)?.unwrap_or(usize::MAX),
        OfLimit("--limit-frame-bytes"),
        "As `--limit-frame-bytes`; 0 for the default";
    "maxConnections": Many("JSON"),
        Set |s, json| s.config.limits.connections_max = connections(json)?,
        OfLimit("--limit-connections"),
        "As `--limit-connections`; 0 for the default";
    "allowedOrigins": Many("JSON"),
        Set |s, json| s.config.origins = origins(json)?, Text("[\"*\"]"),
        "List of `Origin`s that may connect; `*` stands for any text";
    "tcpNoDelay": Many("JSON"),
        Set |s, json| s.config.tcp_nodelay = json.parse().map_err(|_| "must be true or false")?,
        Text("true"),
        "Whether small answers are sent at once";
};

/// Further options of upstream's library, and what to do instead.
const LEFT_OVER: &[(&[&str], &str)] = &[
    (&["trustXForwardedFor"], "give --proxy-header=x-forwarded-for and --trusted-proxy=NETWORK"),
    (&["allowNullOrigin"], "list \"null\" in allowedOrigins instead"),
    (&["acceptMaskedServerFrames", "applyMask", "autoFragmentSize", "autoPingSize"], LEAVE_OUT),
    (&["autoPingRestartOnAnyTraffic", "echoCloseCodeReason", "failByDrop"], LEAVE_OUT),
    (&["flashSocketPolicy", "maskServerFrames", "perMessageCompressionAccept"], LEAVE_OUT),
    (&["requireMaskedClientFrames", "serveFlashSocketPolicy", "utf8validateIncoming"], LEAVE_OUT),
    (&["versions", "webStatus"], LEAVE_OUT),
];

const LEAVE_OUT: &str = "has no meaning here, leave it out";

/// Sets one option; the error completes "--websocket-protocol-option: …".
pub fn set(settings: &mut Settings, text: &str) -> Result<(), String> {
    let (name, json) =
        text.split_once('=').ok_or_else(|| format!("'{text}' must have the form NAME=JSON"))?;
    let value: Value =
        serde_json::from_str(json).map_err(|_| format!("{name}: '{json}' must be a JSON value"))?;
    let Some(row) = TABLE.iter().find(|row| row.name == name) else {
        if let Some((_, problem)) = LEFT_OVER.iter().find(|(names, _)| names.contains(&name)) {
            return Err(format!("{name}: {problem}"));
        }
        let names = TABLE.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
        return Err(format!("{name}: not an option of this server; known are {names}"));
    };
    row.set(settings, &value.to_string()).map_err(|problem| format!("{name}: {problem}"))
}

/// Seconds to wait; 0 means the longest time that an option takes.
fn timeout(json: &str) -> Result<f64, String> {
    let seconds = seconds_or_never(json)?;
    Ok(if seconds == 0.0 { limits::OPTION_SECONDS_MAX } else { seconds })
}

/// Bytes; none for 0, which means no limit in upstream's library.
fn bytes(json: &str) -> Result<Option<usize>, String> {
    let allowed = |bytes: &usize| *bytes as f64 <= limits::OPTION_NUMBER_MAX;
    let bytes = json.parse().ok().filter(allowed).ok_or_else(|| {
        format!("must be a whole number of bytes up to {}", limits::OPTION_NUMBER_MAX)
    })?;
    Ok(Some(bytes).filter(|bytes| *bytes > 0))
}

fn message_bytes(config: &mut Config, json: &str) -> Result<usize, String> {
    if let Some(bytes) = bytes(json)? {
        return Ok(bytes);
    }
    let bytes = limits::UNLIMITED_MESSAGE_BYTES;
    let mib = bytes >> 20;
    let warning = format!("maxMessagePayloadSize=0 is a limit of {mib} MiB here ({bytes} bytes)");
    config.warnings.push(warning);
    Ok(bytes)
}

/// Connections; 0 means no limit but that of open files, as upstream.
fn connections(json: &str) -> Result<usize, String> {
    let count = json.parse().map_err(|_| {
        "must be a whole number of connections above 0, or 0 for the default".to_owned()
    })?;
    Ok(if count == 0 { usize::MAX } else { count })
}

fn origins(json: &str) -> Result<Origins, String> {
    let one = |_| serde_json::from_str(json).map(|pattern: String| vec![pattern]);
    let wrong = |_| "must be a list of strings, as in [\"https://example.org\"]".to_owned();
    serde_json::from_str(json).or_else(one).map(Origins).map_err(wrong)
}
