//! `member add`: a secret for a new member, as a line of the file of members (manual: members 5).

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde_json::Value;

use super::Report;
use crate::config::members::Members;
use crate::config::reload;
use crate::sys::entropy::{BASE32, Entropy, SystemEntropy};

/// Mode of a new file, and bits of an old one's that let others read it.
const MODE: u32 = 0o600;
const READABLE_BY_OTHERS: u32 = 0o044;

/// Base32 digits of a secret: 130 bits.
const SECRET_DIGITS: usize = 26;

/// Stands for the server's URL if that is not known.
const UNKNOWN_URL: &str = "wss://HOST/v1";

/// Adds the line and returns what to type.
pub fn add(file: &Path, name: &str, url: Option<&str>) -> Result<Report, String> {
    let failed = |problem: String| format!("--members: {}: {problem}", file.display());
    let content = match fs::metadata(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        _ => reload::read_file(file).map_err(failed)?,
    };
    let members = Members::parse(&content).map_err(failed)?;
    if members.names().any(|known| **known == *name) {
        return Err(failed(format!("has {name} already; delete that line for a new secret")));
    }
    let secret = secret().map_err(|error| format!("no secure randomness: {error}"))?;
    let line_end = if content.is_empty() || content.ends_with('\n') { "" } else { "\n" };
    let mode = append(file, &format!("{line_end}{name} {secret}\n"));
    let mode = mode.map_err(|error| failed(format!("cannot be written: {error}")))?;
    let url = format!("{}/{secret}", url.unwrap_or(UNKNOWN_URL));
    let mut text = format!(
        "{name} is a member once the server has read {} again (SIGHUP). The URL is the secret:\n\n  \
         {url}\n\nPython:  wormhole --relay-url={url} send FILE\n\
         Go:      wormhole-william --relay-url={url} send FILE\n\
         Rust:    wormhole-rs send --rendezvous-server {url} FILE\n",
        file.display()
    );
    if mode & READABLE_BY_OTHERS != 0 {
        text += &format!("\nOthers can read {0}: chmod 600 {0}\n", file.display());
    }
    Ok(Report { text, json: Value::Null })
}

/// Appends to the file in one write, so that two of these cannot mix; returns its mode.
fn append(file: &Path, line: &str) -> std::io::Result<u32> {
    let mut file = OpenOptions::new().append(true).create(true).mode(MODE).open(file)?;
    file.write_all(line.as_bytes())?;
    file.sync_all()?;
    Ok(file.metadata()?.mode())
}

fn secret() -> std::io::Result<String> {
    let mut entropy = SystemEntropy::new()?;
    let digits = (0..SECRET_DIGITS).map(|_| BASE32[entropy.next_u64() as usize % BASE32.len()]);
    Ok(digits.map(char::from).collect())
}
