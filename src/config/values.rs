//! Parsers of option values: text → value. Each error completes "--option: …" and says what is
//! right.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use log::LevelFilter;

use crate::limits::{self, LimitRow};
use crate::message::Network;
use crate::sys::clock::{SECONDS_PER_DAY, Seconds};

/// The server's port by default, as upstream's.
pub const DEFAULT_PORT: u16 = 4000;

/// The state database by default, as upstream's.
pub const CHANNEL_DB: &str = "relay.sqlite";

/// The error of commands that would begin something during a drain, by default.
pub const DRAIN_MESSAGE: &str =
    "The server is about to restart, please try again in a few minutes.";

/// The lines of a settings file with their numbers, from 1; without empty ones and comments.
pub fn lines(content: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = content.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

pub fn network(text: &str) -> Result<Network, String> {
    Network::from_str(text).map_err(|()| format!("'{text}' must be a network, as in 10.0.0.0/8"))
}

pub fn onion_network(text: &str) -> Result<Network, String> {
    let network = Network::from_str(text).ok().filter(Network::is_ipv6);
    let rule = "must be an IPv6 network, as in fc00:dead:beef:4dad::/64";
    network.ok_or_else(|| format!("'{text}' {rule}"))
}

/// A host's name, as it comes in a `Host` header, without the port.
pub fn host(text: &str) -> Result<Box<str>, String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if !text.is_empty() && text.bytes().all(is_name) {
        Ok(text.into())
    } else {
        Err(format!("'{text}' must be the name of a host, without a port, as in wormhole.lan"))
    }
}

pub fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.ends_with('/') {
        Err("needs a file name".to_owned())
    } else {
        Ok(text.into())
    }
}

/// A command for the shell.
pub fn shell_line(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("needs a command".to_owned()) } else { Ok(text.to_owned()) }
}

/// The URL of a server, without a secret, as its clients use it.
pub fn member_url(text: &str) -> Result<String, String> {
    let url = text.trim_end_matches('/');
    let is_url = ["ws://", "wss://"].iter().any(|scheme| url.starts_with(scheme));
    let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\'');
    if is_url && is_plain && url.ends_with("/v1") {
        Ok(url.to_owned())
    } else {
        Err(format!("'{}' must have the form wss://HOST/v1", without_secret(text)))
    }
}

/// A URL up to where a member's secret may follow.
pub fn without_secret(url: &str) -> &str {
    const BEFORE_SECRET: &str = "/v1/";
    url.find(BEFORE_SECRET).map_or(url, |at| &url[..at + BEFORE_SECRET.len()])
}

/// A text that counts as not given when it is empty.
pub fn unless_empty(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// A number without an exponent. The library's parser has tables of 12 KiB.
fn number(text: &str) -> Option<f64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: u64 = format!("{whole}{fraction}").parse().ok()?;
    Some(digits as f64 / 10f64.powi(fraction.len() as i32))
}

pub fn positive_seconds(text: &str) -> Result<Seconds, String> {
    let (min, max) = (limits::OPTION_SECONDS_MIN, limits::OPTION_SECONDS_MAX);
    let seconds = number(text).filter(|seconds| (min..=max).contains(seconds));
    seconds.ok_or_else(|| format!("'{text}' must be a number of seconds from {min} to {max}"))
}

/// As [`positive_seconds`], or zero for never.
pub fn seconds_or_never(text: &str) -> Result<Seconds, String> {
    match number(text) {
        Some(0.0) => Ok(0.0),
        _ => positive_seconds(text).map_err(|problem| format!("{problem}, or 0 for never")),
    }
}

/// A number of days, in seconds.
pub fn days(text: &str) -> Result<Seconds, String> {
    whole(text, 1..=u32::MAX, "days").map(|days| Seconds::from(days) * SECONDS_PER_DAY)
}

pub fn descriptor(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number <= i32::MAX as u32);
    number.ok_or_else(|| format!("'{text}' must be a file descriptor number"))
}

pub fn whole(text: &str, allowed: RangeInclusive<u32>, unit: &str) -> Result<u32, String> {
    let (min, max) = (allowed.start(), allowed.end());
    let number = text.parse().ok().filter(|number| allowed.contains(number));
    number.ok_or_else(|| format!("'{text}' must be a whole number of {unit} from {min} to {max}"))
}

/// A limit is above 0: one of 0 would shut out all clients.
pub fn limit(text: &str, limit: &LimitRow) -> Result<f64, String> {
    let LimitRow { whole, unit, .. } = limit;
    let number: Option<f64> =
        if *whole { text.parse::<u32>().ok().map(f64::from) } else { number(text) };
    let allowed = limits::OPTION_SECONDS_MIN..=limits::OPTION_NUMBER_MAX;
    number.filter(|number| allowed.contains(number)).ok_or_else(|| {
        let kind = if *whole { "a whole number" } else { "a number" };
        format!("'{text}' must be {kind} ({unit}) above 0, at most {}", allowed.end())
    })
}

/// Lower-case names and upper-case ones, as the log has them.
pub fn log_level(text: &str) -> Result<LevelFilter, String> {
    use LevelFilter::{Debug, Error, Info, Warn};
    let levels = [("error", Error), ("warn", Warn), ("info", Info), ("debug", Debug)];
    one_of(&text.to_ascii_lowercase(), &levels)
}

pub const YES_OR_NO: [(&str, bool); 2] = [("yes", true), ("no", false)];

/// The value with that name.
pub fn one_of<T: Copy>(text: &str, all: &[(&str, T)]) -> Result<T, String> {
    let found = all.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| must_be(text, &all.iter().map(|(name, _)| *name).collect::<Vec<_>>()))
}

fn must_be(text: &str, names: &[&str]) -> String {
    let (last, others) = names.split_last().unwrap_or((&"", &[]));
    format!("'{text}' must be {} or {last}", others.join(", "))
}
