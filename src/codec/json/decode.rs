//! Message text → `Request`.
//!
//! One pass over the object keeps the raw JSON text of the known keys; a value is only parsed if
//! the command needs it. So `id` and `ping` keep every digit, and unknown keys cost nothing.

use std::borrow::Cow;
use std::fmt;

use serde_core::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::limits::{JSON_DEPTH_MAX, NAMEPLATE_DIGITS_MAX, ORIG_CHARS_MAX, STAMP_BYTES_MAX};
use crate::message::{ClientVersion, Command, CommandType, Field, Flag, Orig, Refusal, Rule};

/// A command, with the `id` that its `ack` repeats.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// JSON text; `None` if the command has no `id`.
    pub id: Option<&'a str>,
    pub command: Command<'a>,
}

/// Why a message is not a command. It is answered by an `error` without an `ack`.
#[derive(Debug, PartialEq, Eq)]
pub struct DecodeError {
    pub refusal: Refusal,
    pub orig: Orig,
}

/// Decodes the text of one message. Names longer than `name_bytes_max` bytes are invalid.
pub fn decode(text: &str, name_bytes_max: usize) -> Result<Request<'_>, DecodeError> {
    let failed = |refusal| DecodeError { refusal, orig: Orig::Text(beginning(text)) };
    match serde_json::from_str::<Keys<'_>>(text) {
        Ok(keys) if keys.depth_max > JSON_DEPTH_MAX => Err(failed(Refusal::TooDeep)),
        Ok(keys) => match keys.kind {
            Some(kind) => Ok(Request { id: keys.id, command: keys.command(kind, name_bytes_max) }),
            None => {
                Err(DecodeError { refusal: Refusal::MissingType, orig: Orig::Command(text.into()) })
            }
        },
        // A value of another type fails at its first character, so that the rest is not parsed yet.
        Err(error) if error.is_data() && serde_json::from_str::<&RawValue>(text).is_ok() => {
            Err(failed(Refusal::NotAnObject))
        }
        Err(_) => Err(failed(Refusal::NotJson)),
    }
}

/// Decodes the payload of a binary message, which must be UTF-8 as well.
pub fn decode_binary(payload: &[u8], name_bytes_max: usize) -> Result<Request<'_>, DecodeError> {
    let text = std::str::from_utf8(payload).map_err(|_| DecodeError {
        refusal: Refusal::NotUtf8,
        orig: Orig::Text(beginning(&String::from_utf8_lossy(payload))),
    })?;
    decode(text, name_bytes_max)
}

fn beginning(text: &str) -> Box<str> {
    text.chars().take(ORIG_CHARS_MAX).collect::<String>().into()
}

/// Declares the keys of commands: the field, and the name in JSON.
macro_rules! keys {
    ($($field:ident: $key:literal,)*) => {
        /// The raw JSON text of each known key; of duplicate keys the last.
        #[derive(Default)]
        struct Keys<'a> {
            $($field: Option<&'a str>,)*
            /// The nesting of the message, which itself is one level.
            depth_max: usize,
        }

        impl<'a> Keys<'a> {
            fn slot(&mut self, key: &str) -> Option<&mut Option<&'a str>> {
                match key {
                    $($key => Some(&mut self.$field),)*
                    _ => None,
                }
            }
        }
    };
}

keys! {
    kind: "type",
    id: "id",
    appid: "appid",
    side: "side",
    client_version: "client_version",
    nameplate: "nameplate",
    mailbox: "mailbox",
    phase: "phase",
    body: "body",
    mood: "mood",
    ping: "ping",
    method: "method",
    stamp: "stamp",
    allocate: "allocate",
    their_phase: "their-phase",
    their_side: "their-side",
}

impl<'a> Keys<'a> {
    fn command(&self, kind: &str, name_bytes_max: usize) -> Command<'a> {
        let name = |json| name(json, name_bytes_max);
        let kind = string(kind).unwrap_or_default();
        match CommandType::from_name(&kind) {
            CommandType::Ping => Command::Ping { value: self.ping },
            CommandType::SubmitPermissions => self.submit_permissions(false),
            CommandType::Bind => Command::Bind {
                appid: name(self.appid),
                side: name(self.side),
                client_version: client_version(self.client_version, name_bytes_max),
            },
            CommandType::List => Command::List,
            CommandType::Allocate => Command::Allocate,
            CommandType::Claim => Command::Claim {
                nameplate: nameplate(self.nameplate),
                allocate: flag(self.allocate),
            },
            // One that cannot be claimed is not there, and released like any that is not.
            CommandType::Release => {
                Command::Release { nameplate: field(self.nameplate, Rule::Text, |_| true) }
            }
            CommandType::Open => Command::Open { mailbox: name(self.mailbox) },
            CommandType::Add => Command::Add {
                phase: name(self.phase),
                body: field(self.body, Rule::Text, |_| true),
                id: message_id(self.id),
            },
            CommandType::Delete => Command::Delete {
                their_phase: name(self.their_phase),
                their_side: name(self.their_side),
            },
            CommandType::Close => Command::Close {
                mailbox: name(self.mailbox),
                mood: name(self.mood.filter(|mood| *mood != "null")),
            },
            CommandType::Unknown if kind == "submit-permission" => self.submit_permissions(true),
            CommandType::Unknown => Command::Unknown,
        }
    }

    fn submit_permissions(&self, is_singular: bool) -> Command<'a> {
        let [method, stamp] = [self.method, self.stamp].map(|json| name(json, STAMP_BYTES_MAX));
        Command::SubmitPermissions { method, stamp, is_singular }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Keys<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(KeysVisitor)
    }
}

struct KeysVisitor;

impl<'de> Visitor<'de> for KeysVisitor {
    type Value = Keys<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys<'de>, A::Error> {
        let mut keys = Keys::default();
        while let Some(key) = map.next_key::<&'de RawValue>()? {
            // A key with a lone surrogate is no text: an unknown key.
            let key = string(key.get()).unwrap_or_default();
            let value = map.next_value::<&'de RawValue>()?.get();
            keys.depth_max = keys.depth_max.max(1 + depth(value));
            if let Some(slot) = keys.slot(&key) {
                *slot = Some(value);
            }
        }
        Ok(keys)
    }
}

/// The number of arrays and objects around the innermost value of a valid JSON text.
fn depth(json: &str) -> usize {
    if !json.starts_with(['[', '{']) {
        return 0;
    }
    let (mut depth, mut depth_max, mut in_string) = (0_usize, 0, false);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' => _ = bytes.next(), // only strings have any
            b'[' | b'{' if !in_string => {
                depth += 1;
                depth_max = depth_max.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    depth_max
}

/// The value of a JSON string, borrowed unless it has escapes; `None` if it is not a string or has
/// a lone surrogate.
fn string(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(json).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

fn field<'a>(json: Option<&'a str>, rule: Rule, valid: impl Fn(&str) -> bool) -> Field<'a> {
    match json {
        None => Field::Absent,
        Some(json) => match string(json) {
            Some(text) if valid(&text) => Field::Text(text),
            _ => Field::Invalid(rule),
        },
    }
}

fn name(json: Option<&str>, bytes_max: usize) -> Field<'_> {
    field(json, Rule::Name { bytes_max }, |text| text.len() <= bytes_max)
}

fn nameplate(json: Option<&str>) -> Field<'_> {
    field(json, Rule::Digits, |text| {
        (1..=NAMEPLATE_DIGITS_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn flag(json: Option<&str>) -> Flag {
    match json {
        None => Flag::Absent,
        Some("true") => Flag::Set(true),
        Some("false") => Flag::Set(false),
        Some(_) => Flag::Invalid,
    }
}

/// Another value than a string is passed on as its text, so that one side cannot send the other
/// what its parser fails on.
fn message_id(json: Option<&str>) -> Option<Cow<'_, str>> {
    let json = json.filter(|json| *json != "null")?;
    Some(string(json).unwrap_or(Cow::Borrowed(json)))
}

/// `[implementation, version, …]`; anything else counts as absent (manual: protocol 2.3).
fn client_version(json: Option<&str>, bytes_max: usize) -> ClientVersion {
    match json.map(serde_json::from_str::<FirstTwo<'_>>) {
        Some(Ok(FirstTwo(Some(implementation), Some(version)))) => ClientVersion {
            implementation: version_element(implementation.get(), bytes_max),
            version: version_element(version.get(), bytes_max),
        },
        _ => ClientVersion::default(),
    }
}

/// The first elements of a list; a list of all would take eight times the memory of the message.
struct FirstTwo<'a>(Option<&'a RawValue>, Option<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for FirstTwo<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FirstTwoVisitor)
    }
}

struct FirstTwoVisitor;

impl<'de> Visitor<'de> for FirstTwoVisitor {
    type Value = FirstTwo<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<FirstTwo<'de>, A::Error> {
        let first_two = FirstTwo(list.next_element()?, list.next_element()?);
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(first_two)
    }
}

fn version_element(json: &str, bytes_max: usize) -> Option<Box<str>> {
    if json == "null" {
        return None;
    }
    let text = string(json).unwrap_or(Cow::Borrowed(json));
    let end = (0..=text.len().min(bytes_max)).rev().find(|end| text.is_char_boundary(*end));
    Some(text[..end.unwrap_or(0)].into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME_BYTES_MAX: usize = 256;

    fn command(text: &str) -> Command<'_> {
        decode(text, NAME_BYTES_MAX).expect("decodes").command
    }

    #[test]
    fn of_duplicate_keys_the_last_wins() {
        assert_eq!(
            command(r#"{"type":"ping","ping":1,"ping":2}"#),
            Command::Ping { value: Some("2") }
        );
    }

    #[test]
    fn numbers_keep_every_digit() {
        let text = r#"{"type":"ping","id":1e400,"ping":-0.10000000000000000000000001}"#;
        let request = decode(text, NAME_BYTES_MAX).expect("decodes");
        assert_eq!(request.id, Some("1e400"));
        assert_eq!(request.command, Command::Ping { value: Some("-0.10000000000000000000000001") });
    }

    #[test]
    fn keys_and_values_may_be_written_with_escapes() {
        assert_eq!(
            command(r#"{"\u0074ype":"cl\u0061im","nameplate":"\u0034"}"#),
            Command::Claim { nameplate: Field::Text("4".into()), allocate: Flag::Absent }
        );
    }

    #[test]
    fn a_lone_surrogate_makes_a_key_unknown_not_the_message() {
        assert_eq!(
            command(r#"{"\ud800":0,"type":"ping","ping":1}"#),
            Command::Ping { value: Some("1") }
        );
    }

    #[test]
    fn a_lone_surrogate_makes_a_field_invalid_not_the_message() {
        assert_eq!(
            command(r#"{"type":"open","mailbox":"\ud800"}"#),
            Command::Open { mailbox: Field::Invalid(Rule::Name { bytes_max: NAME_BYTES_MAX }) }
        );
    }

    #[test]
    fn other_json_than_an_object_and_other_text_than_json_are_different_errors() {
        for (text, refusal) in [
            ("[]", Refusal::NotAnObject),
            ("3", Refusal::NotAnObject),
            ("\"text\"", Refusal::NotAnObject),
            ("[1", Refusal::NotJson),
            ("3 4", Refusal::NotJson),
            ("\"type\": \"list\"}", Refusal::NotJson),
            ("", Refusal::NotJson),
            ("{", Refusal::NotJson),
            ("{} {}", Refusal::NotJson),
            ("{\"type\":NaN}", Refusal::NotJson),
            ("{\"ty\npe\":0}", Refusal::NotJson),
            ("{5:0}", Refusal::NotJson),
        ] {
            assert_eq!(
                decode(text, NAME_BYTES_MAX).map_err(|it| it.refusal),
                Err(refusal),
                "{text}"
            );
        }
    }

    #[test]
    fn depth_is_bounded_and_costs_no_stack() {
        // The message itself is one level.
        for (levels, is_too_deep) in [(127, false), (128, true), (400_000, true)] {
            for (open, close) in [("[", "]"), (r#"{"\"]\\":"#, "}")] {
                let value = format!("{}{}{}", open.repeat(levels), "0", close.repeat(levels));
                for key in ["ping", "id", "x"] {
                    let text = format!(r#"{{"type":"ping","ping":1,"{key}":{value}}}"#);
                    let refusal = decode(&text, NAME_BYTES_MAX).err().map(|it| it.refusal);
                    assert_eq!(refusal, is_too_deep.then_some(Refusal::TooDeep), "{levels} {key}");
                }
            }
        }
        // Brackets in strings are no nesting, nor are those of values one after the other.
        let brackets = "[{".repeat(1_000);
        let text = format!(r#"{{"type":"ping","ping":["\"{brackets}",{}0]}}"#, "[],".repeat(1_000));
        assert!(matches!(command(&text), Command::Ping { value: Some(_) }));
    }

    #[test]
    fn client_versions_that_are_no_pair_are_unknown() {
        for (json, implementation, version) in [
            ("null", None, None),
            ("\"ab\"", None, None),
            ("[\"a\"]", None, None),
            ("[\"a\", 3]", Some("a"), Some("3")),
            ("[null, [1, 2], \"c\"]", None, Some("[1, 2]")),
        ] {
            let found = client_version(Some(json), NAME_BYTES_MAX);
            assert_eq!(found.implementation.as_deref(), implementation, "{json}");
            assert_eq!(found.version.as_deref(), version, "{json}");
        }
    }
}
