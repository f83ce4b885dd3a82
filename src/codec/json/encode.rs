//! `Response` → JSON text.
//!
//! Keys and punctuation are literals; the JSON library writes strings and floats. `server_tx` comes
//! from the caller, at the time of release.

use std::rc::Rc;

use crate::message::{Demand, Message, Orig, Peer, Response};
use crate::sys::clock::Timestamp;

/// The operator's part of the `welcome` (manual: protocol 2.4).
#[derive(Clone, Debug, Default)]
pub struct Welcome {
    /// `--motd`; may be empty.
    pub motd: Option<String>,
    /// `--advertise-version`.
    pub current_cli_version: Option<String>,
    /// `--signal-error`: clients show it and disconnect.
    pub error: Option<String>,
    /// Further keys, with the JSON text of their values.
    pub more: Vec<(Box<str>, Box<str>)>,
}

impl Welcome {
    /// Number of keys that are set.
    pub fn keys_count(&self) -> usize {
        let texts = [&self.motd, &self.current_cli_version, &self.error];
        texts.into_iter().flatten().count() + self.more.len()
    }
}

/// The `welcome` object for one connection. `error`: instead of the operator's.
pub fn welcome(
    welcome: &Welcome,
    error: Option<&str>,
    demand: Option<&Demand>,
    peer: Peer,
) -> Box<str> {
    let mut out = vec![b'{'];
    let texts = [
        ("\"motd\":", welcome.motd.as_deref()),
        ("\"current_cli_version\":", welcome.current_cli_version.as_deref()),
        ("\"error\":", error.or(welcome.error.as_deref())),
    ];
    for (key, value) in texts.into_iter().filter_map(|(key, value)| Some((key, value?))) {
        raw(&mut out, key);
        string(&mut out, value);
        out.push(b',');
    }
    for (key, json) in &welcome.more {
        string(&mut out, key);
        out.push(b':');
        raw(&mut out, json);
        out.push(b',');
    }
    if let Some(demand) = demand {
        permission_required(&mut out, demand);
    }
    out.extend_from_slice(b"\"your-address\":{");
    if let Some(ip) = peer.ip {
        let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
        out.extend_from_slice(format!("\"{family}\":\"{ip}\"").as_bytes());
    }
    if let Some(port) = peer.port {
        let comma = if peer.ip.is_some() { "," } else { "" };
        out.extend_from_slice(format!("{comma}\"port\":{port}").as_bytes());
    }
    out.extend_from_slice(b"}}");
    String::from_utf8(out).unwrap_or_default().into()
}

/// The Rust client fails on a welcome without the key `none`: null if the proof is required, an
/// empty object if not. It also fails on further keys of `hashcash`.
fn permission_required(out: &mut Vec<u8>, demand: &Demand) {
    let none = if demand.is_required { "null" } else { "{}" };
    let (bits, resource) = (demand.bits, demand.resource());
    raw(out, &format!("\"permission-required\":{{\"none\":{none},\"hashcash\":"));
    raw(out, &format!("{{\"bits\":{bits},\"resource\":\"{resource}\"}}}},"));
}

/// The end of a message, with its time of release; encoded once for all messages of one time.
#[derive(Debug, Default)]
pub struct ServerTx {
    time: Timestamp,
    text: Vec<u8>,
}

impl ServerTx {
    /// The JSON text from the comma before `server_tx` to the end of the message.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// Keeps the buffer: each turn of the loop has a time of its own.
    pub fn set(&mut self, time: Timestamp) {
        if self.time != time || self.text.is_empty() {
            self.time = time;
            self.text.clear();
            raw(&mut self.text, ",\"server_tx\":");
            float(&mut self.text, time);
            self.text.push(b'}');
        }
    }
}

/// Appends the JSON text of `response` to `out`, without its end, which is [`ServerTx::as_bytes`].
/// A replay must have been taken apart into its messages.
pub fn encode(response: &Response, out: &mut Vec<u8>) {
    match response {
        Response::Welcome(welcome) => {
            raw(out, "{\"type\":\"welcome\",\"welcome\":");
            raw(out, welcome);
        }
        Response::Ack { id } => {
            raw(out, "{\"type\":\"ack\",\"id\":");
            raw(out, id.as_deref().unwrap_or("null"));
        }
        Response::Nameplates(names) => nameplates(out, names),
        Response::Allocated(nameplate) => {
            raw(out, "{\"type\":\"allocated\",\"nameplate\":");
            string(out, nameplate);
        }
        Response::Claimed(mailbox) => {
            raw(out, "{\"type\":\"claimed\",\"mailbox\":");
            string(out, mailbox);
        }
        Response::Released => raw(out, "{\"type\":\"released\""),
        Response::Message(message) => message_beginning(message, out),
        Response::Replay(_) => unreachable!("the outbox takes replays apart"),
        Response::Closed => raw(out, "{\"type\":\"closed\""),
        Response::Pong(value) => {
            raw(out, "{\"type\":\"pong\",\"pong\":");
            raw(out, value);
        }
        Response::Error { refusal, orig } => {
            raw(out, "{\"type\":\"error\",\"error\":");
            string(out, &refusal.to_string());
            raw(out, ",\"orig\":");
            match orig {
                Orig::Command(json) => raw(out, json),
                Orig::Text(text) => string(out, text),
            }
        }
    }
}

fn nameplates(out: &mut Vec<u8>, names: &[Rc<str>]) {
    raw(out, "{\"type\":\"nameplates\",\"nameplates\":[");
    for (index, name) in names.iter().enumerate() {
        raw(out, if index == 0 { "{\"id\":" } else { ",{\"id\":" });
        string(out, name);
        out.push(b'}');
    }
    out.push(b']');
}

/// Appends a message without its end, which is [`ServerTx::as_bytes`].
pub fn message_beginning(message: &Message, out: &mut Vec<u8>) {
    raw(out, "{\"type\":\"message\",\"side\":");
    string(out, &message.side);
    raw(out, ",\"phase\":");
    string(out, &message.phase());
    raw(out, ",\"body\":");
    string(out, &message.body());
    raw(out, ",\"server_rx\":");
    float(out, message.server_rx);
    raw(out, ",\"id\":");
    match message.id() {
        Some(id) => string(out, &id),
        None => raw(out, "null"),
    }
}

fn raw(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn string(out: &mut Vec<u8>, text: &str) {
    if is_plain(text.as_bytes()) {
        out.push(b'"');
        raw(out, text);
        return out.push(b'"');
    }
    // Neither writing to memory nor encoding a string can fail.
    let written = serde_json::to_writer(out, text);
    debug_assert!(written.is_ok());
}

/// Whether none of the bytes is escaped in a JSON string, as in nearly all bodies. Looks at eight
/// at a time, where the JSON library looks each one up: these are most of what is encoded.
fn is_plain(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    /// Sets the high bit of a byte at least, if any is below `limit`, which is 128 at most.
    fn below(word: u64, limit: u8) -> u64 {
        word.wrapping_sub(ONES * u64::from(limit)) & !word
    }
    fn escaped(word: [u8; 8]) -> u64 {
        let word = u64::from_ne_bytes(word);
        let quotes = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslashes = below(word ^ (ONES * u64::from(b'\\')), 1);
        below(word, b' ') | quotes | backslashes
    }
    let (words, rest) = bytes.as_chunks();
    let mut last = [b' '; 8];
    last[..rest.len()].copy_from_slice(rest);
    let found = words.iter().fold(escaped(last), |found, word| found | escaped(*word));
    found & (ONES << 7) == 0
}

fn float(out: &mut Vec<u8>, time: Timestamp) {
    let written = serde_json::to_writer(out, &time.0);
    debug_assert!(written.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_plain_if_the_json_library_escapes_nothing_in_it() {
        for byte in 0..=0x7F_u8 {
            for (before, after) in [(0, 0), (7, 0), (0, 7), (3, 9), (8, 3), (16, 16)] {
                let text = [vec![b'~'; before], vec![byte], vec![b' '; after]].concat();
                let text = String::from_utf8(text).expect("ASCII");
                let json = serde_json::to_string(&text).expect("a string");
                assert_eq!(is_plain(text.as_bytes()), json.len() == text.len() + 2, "{text:?}");
            }
        }
        assert!(is_plain("".as_bytes()) && is_plain("ünïcödé 字 \u{10FFFF}\u{7F}".as_bytes()));
    }
}
