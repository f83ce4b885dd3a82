//! `--websocket-protocol-option NAME=JSON`: those of upstream's library options that mean
//! something here (contract section 6); others are refused by name.

use serde_json::Value;

use super::Config;
use crate::limits::{self, Limits};

/// Which `Origin`s may connect: patterns with `*` for anything.
#[derive(Clone, Debug)]
pub struct Origins(Vec<String>);

impl Default for Origins {
    fn default() -> Self {
        Origins(vec!["*".to_owned()])
    }
}

impl Origins {
    /// Whether a browser page from there may connect.
    pub fn allow(&self, origin: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, origin))
    }
}

/// Sets one option; the error says what is wrong.
pub(super) fn set(config: &mut Config, text: &str) -> Result<(), String> {
    let (name, json) =
        text.split_once('=').ok_or_else(|| format!("'{text}' must have the form NAME=JSON"))?;
    let value: Value =
        serde_json::from_str(json).map_err(|_| format!("{name}: '{json}' must be a JSON value"))?;
    let limits = &mut config.limits;
    match name {
        "autoPingInterval" => config.pings.interval_seconds = seconds(name, &value)?,
        "autoPingTimeout" => config.pings.timeout_seconds = seconds(name, &value)?,
        "openHandshakeTimeout" => limits.handshake_seconds = timeout(name, &value)?,
        "closeHandshakeTimeout" => limits.close_seconds = timeout(name, &value)?,
        "maxMessagePayloadSize" => limits.message_bytes_max = size(name, &value)?,
        "maxFramePayloadSize" => limits.frame_bytes_max = size(name, &value)?,
        "maxConnections" => limits.connections_max = connections(name, &value)?,
        "allowedOrigins" => config.origins = origins(name, &value)?,
        "tcpNoDelay" => {
            config.tcp_nodelay =
                value.as_bool().ok_or_else(|| format!("{name}: must be true or false"))?;
        }
        _ => {
            return Err(format!(
                "{name}: not an option of this server; known are autoPingInterval, autoPingTimeout, \
                 openHandshakeTimeout, closeHandshakeTimeout, maxMessagePayloadSize, maxFramePayloadSize, \
                 maxConnections, allowedOrigins, tcpNoDelay"
            ));
        }
    }
    Ok(())
}

/// Seconds where 0 means never.
fn seconds(name: &str, value: &Value) -> Result<f64, String> {
    value
        .as_f64()
        .filter(|seconds| *seconds == 0.0 || limits::is_duration(*seconds))
        .ok_or_else(|| format!("{name}: must be a number of seconds, 0 for never"))
}

/// Seconds to wait, where never means longer than anybody waits.
fn timeout(name: &str, value: &Value) -> Result<f64, String> {
    let seconds = seconds(name, value)?;
    Ok(if seconds == 0.0 { limits::OPTION_SECONDS_MAX } else { seconds })
}

/// Bytes; 0 means what upstream means by it, no limit of its own, which here is our default.
fn size(name: &str, value: &Value) -> Result<usize, String> {
    let bytes = value
        .as_u64()
        .filter(|bytes| *bytes as f64 <= limits::OPTION_NUMBER_MAX)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| {
            format!("{name}: must be a number of bytes up to {}", limits::OPTION_NUMBER_MAX)
        })?;
    Ok(if bytes == 0 { Limits::default().message_bytes_max } else { bytes })
}

/// Connections; 0 means what upstream means by it, no limit but the descriptors'.
fn connections(name: &str, value: &Value) -> Result<usize, String> {
    let count = value
        .as_u64()
        .and_then(|count| usize::try_from(count).ok())
        .ok_or_else(|| format!("{name}: must be a whole number"))?;
    Ok(if count == 0 { usize::MAX } else { count })
}

fn origins(name: &str, value: &Value) -> Result<Origins, String> {
    let wrong = || format!("{name}: must be a list of strings, as in [\"https://example.org\"]");
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

/// Matches a text against a pattern in which `*` stands for anything. Each part between stars is
/// looked for once, from the left: the time is at most the product of the lengths.
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
}
