//! The two JSON files of texts for clients: `--welcome-file` and `--notices-file`.
//!
//! Text in, settings out; an error names the key and the rule. Must never open a file.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::reloadable::Notices;
use super::values::{network, unless_empty};
use crate::codec::json::Welcome;
use crate::limits::{NOTICE_BYTES_MAX, WELCOME_FILE_BYTES_MAX};

/// Keys that are the server's own.
const KEYS_RESERVED: [&str; 2] = ["your-address", "permission-required"];

/// Merges the object in `content` into the welcome; its keys win.
pub fn merge_welcome(welcome: &mut Welcome, content: &str) -> Result<(), String> {
    if content.len() > WELCOME_FILE_BYTES_MAX {
        return Err(format!("must have at most {WELCOME_FILE_BYTES_MAX} bytes"));
    }
    for (key, value) in object(content)? {
        let text = || string(&key, &value);
        match &*key {
            "motd" => welcome.motd = Some(text()?),
            // Empty counts as not given, as it does on the command line.
            "current_cli_version" => welcome.current_cli_version = unless_empty(&text()?),
            "error" => welcome.error = unless_empty(&text()?),
            _ if KEYS_RESERVED.contains(&&*key) => {
                return Err(format!("'{key}' is set by the server itself"));
            }
            _ => welcome.more.push((key.into(), value.get().into())),
        }
    }
    Ok(())
}

/// Reads networks and the texts for clients from there.
pub fn notices(content: &str) -> Result<Notices, String> {
    let mut notices = Vec::new();
    for (key, value) in object(content)? {
        let text = string(&key, &value)?;
        if text.is_empty() || text.len() > NOTICE_BYTES_MAX {
            return Err(format!("'{key}' must have a text of 1 to {NOTICE_BYTES_MAX} bytes"));
        }
        notices.push((network(&key)?, text.into()));
    }
    Ok(Notices(notices))
}

/// An object's keys and the JSON text of its values; of duplicates the last.
fn object(content: &str) -> Result<BTreeMap<String, Box<RawValue>>, String> {
    serde_json::from_str(content).map_err(|error| format!("must be one JSON object: {error}"))
}

fn string(key: &str, value: &RawValue) -> Result<String, String> {
    serde_json::from_str(value.get()).map_err(|_| format!("'{key}' must be a string"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(content: &str) -> Result<Welcome, String> {
        let mut welcome = Welcome { error: Some("given".to_owned()), ..Welcome::default() };
        merge_welcome(&mut welcome, content).map(|()| welcome)
    }

    #[test]
    fn known_keys_are_texts_and_win() {
        let welcome = merged(r#"{"motd": "a\u00e9", "error": ""}"#).expect("good");
        assert_eq!((welcome.motd.as_deref(), welcome.error), (Some("a\u{e9}"), None));
        let welcome = merged(r#"{"current_cli_version": "1.0"}"#).expect("good");
        assert_eq!(welcome.error.as_deref(), Some("given"));
        assert!(merged(r#"{"motd": 5}"#).is_err_and(|error| error.contains("'motd'")));
        assert!(merged(r#"{"error": null}"#).is_err_and(|error| error.contains("'error'")));
    }

    #[test]
    fn other_keys_keep_their_digits() {
        let welcome = merged(r#"{"n": 1.50e400, "list": [1, 2]}"#).expect("good");
        assert_eq!(*welcome.more[0].1, *"[1, 2]");
        assert_eq!(*welcome.more[1].1, *"1.50e400");
    }

    #[test]
    fn what_the_server_says_itself_is_refused_however_it_is_written() {
        for key in ["your-address", "permission-required", "your\\u002daddress"] {
            let refused = merged(&format!("{{\"{key}\": 1}}"));
            assert!(refused.is_err_and(|error| error.contains("server itself")), "{key}");
        }
    }

    #[test]
    fn other_json_and_long_files_are_refused() {
        for content in ["", "[]", "null", "{", "{} {}", "{\"a\": }"] {
            assert!(merged(content).is_err_and(|error| error.contains("JSON object")), "{content}");
        }
        let long = format!("{{\"a\": \"{}\"}}", "x".repeat(WELCOME_FILE_BYTES_MAX));
        assert!(merged(&long).is_err_and(|error| error.contains("at most")));
    }

    #[test]
    fn notices_need_networks_and_texts() {
        assert!(notices(r#"{"192.0.2.0/24": "a", "2001:db8::1": "b"}"#).is_ok());
        for (content, named) in [
            (r#"{"example.org": "a"}"#, "example.org"),
            (r#"{"192.0.2.0/33": "a"}"#, "192.0.2.0/33"),
            (r#"{"192.0.2.1": ""}"#, "192.0.2.1"),
            (r#"{"192.0.2.1": ["a"]}"#, "192.0.2.1"),
            ("[]", "JSON object"),
        ] {
            assert!(notices(content).is_err_and(|error| error.contains(named)), "{content}");
        }
        let long = format!("{{\"::1\": \"{}\"}}", "x".repeat(NOTICE_BYTES_MAX + 1));
        assert!(notices(&long).is_err_and(|error| error.contains("::1")));
    }
}
