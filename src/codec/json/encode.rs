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
        raw(key, &mut out);
        string(value, &mut out);
        out.push(b',');
    }
    for (key, json) in &welcome.more {
        string(key, &mut out);
        out.push(b':');
        raw(json, &mut out);
        out.push(b',');
    }
    if let Some(demand) = demand {
        permission_required(demand, &mut out);
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
fn permission_required(demand: &Demand, out: &mut Vec<u8>) {
    let none = if demand.is_required { "null" } else { "{}" };
    let (bits, resource) = (demand.bits, demand.resource());
    raw(&format!("\"permission-required\":{{\"none\":{none},\"hashcash\":"), out);
    raw(&format!("{{\"bits\":{bits},\"resource\":\"{resource}\"}}}},"), out);
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
            raw(",\"server_tx\":", &mut self.text);
            float(time, &mut self.text);
            self.text.push(b'}');
        }
    }
}

/// Appends the JSON text of `response` to `out`, without its end, which is [`ServerTx::as_bytes`].
/// A replay must have been taken apart into its messages.
pub fn encode(response: &Response, out: &mut Vec<u8>) {
    match response {
        Response::Welcome(welcome) => {
            raw("{\"type\":\"welcome\",\"welcome\":", out);
            raw(welcome, out);
        }
        Response::Ack { id } => {
            raw("{\"type\":\"ack\",\"id\":", out);
            raw(id.as_deref().unwrap_or("null"), out);
        }
        Response::Nameplates(names) => nameplates(names, out),
        Response::Allocated(nameplate) => {
            raw("{\"type\":\"allocated\",\"nameplate\":", out);
            string(nameplate, out);
        }
        Response::Claimed(mailbox) => {
            raw("{\"type\":\"claimed\",\"mailbox\":", out);
            string(mailbox, out);
        }
        Response::Released => raw("{\"type\":\"released\"", out),
        Response::Message(message) => message_beginning(message, out),
        Response::Replay(_) => unreachable!("the outbox takes replays apart"),
        Response::Closed => raw("{\"type\":\"closed\"", out),
        Response::Pong(value) => {
            raw("{\"type\":\"pong\",\"pong\":", out);
            raw(value, out);
        }
        Response::Error { refusal, orig } => {
            raw("{\"type\":\"error\",\"error\":", out);
            string(&refusal.to_string(), out);
            raw(",\"orig\":", out);
            match orig {
                Orig::Command(json) => raw(json, out),
                Orig::Text(text) => string(text, out),
            }
        }
    }
}

fn nameplates(names: &[Rc<str>], out: &mut Vec<u8>) {
    raw("{\"type\":\"nameplates\",\"nameplates\":[", out);
    for (index, name) in names.iter().enumerate() {
        raw(if index == 0 { "{\"id\":" } else { ",{\"id\":" }, out);
        string(name, out);
        out.push(b'}');
    }
    out.push(b']');
}

/// Appends a message without its end, which is [`ServerTx::as_bytes`].
pub fn message_beginning(message: &Message, out: &mut Vec<u8>) {
    raw("{\"type\":\"message\",\"side\":", out);
    string(&message.side, out);
    raw(",\"phase\":", out);
    string(&message.phase(), out);
    raw(",\"body\":", out);
    string(&message.body(), out);
    raw(",\"server_rx\":", out);
    float(message.server_rx, out);
    raw(",\"id\":", out);
    match message.id() {
        Some(id) => string(&id, out),
        None => raw("null", out),
    }
}

fn raw(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(text.as_bytes());
}

fn string(text: &str, out: &mut Vec<u8>) {
    if is_plain(text.as_bytes()) {
        out.push(b'"');
        raw(text, out);
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

fn float(time: Timestamp, out: &mut Vec<u8>) {
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
