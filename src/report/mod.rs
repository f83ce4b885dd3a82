//! The commands' work: tells of a server and its files, for people as a table and for programs as
//! JSON.
//!
//! Reads only: no file is created or changed, and a running server is not disturbed. Knows
//! nothing of the running server's inside, only what its files and its admin listener say.

mod connections;
mod server;
mod status;
mod table;
mod text;
mod usage;

use std::path::Path;

use serde_json::{Value, json};

use crate::config::{Report, Subject};
use crate::storage::db::FileState;
use crate::sys::clock::Clock;

/// What a report has found.
trait Findings {
    /// For people.
    fn text(&self) -> String;
    /// For programs.
    fn json(&self) -> Value;
}

/// Makes a report. The error is a line for the operator.
pub fn run(report: &Report) -> Result<String, String> {
    let now = Clock::read().wall;
    let findings: Box<dyn Findings> = match &report.subject {
        Subject::Status { admin, channel_db, usage_db } => {
            Box::new(status::find(admin.as_ref(), channel_db.as_deref(), usage_db.as_deref(), now)?)
        }
        Subject::Usage { usage_db, period } => Box::new(usage::find(usage_db, *period, now)?),
        Subject::Connections { channel_db, addrid_db } => {
            Box::new(connections::find(channel_db, addrid_db.as_deref(), now)?)
        }
    };
    Ok(if report.json { json_text(&findings.json()) } else { findings.text() })
}

/// JSON that can be looked at in a terminal, whatever texts are in it.
fn json_text(value: &Value) -> String {
    let mut text = String::new();
    for char in format!("{value:#}").chars() {
        // The line ends that the layout has are the only ones: those in texts are escaped.
        if char != '\n' && text::is_hostile(char) {
            text += &format!("\\u{:04x}", u32::from(char));
        } else {
            text.push(char);
        }
    }
    text + "\n"
}

/// A file's path, version and sizes, in words.
fn file_line(path: &Path, state: FileState) -> String {
    let size = text::bytes(state.bytes);
    let log = match state.log_bytes {
        Some(bytes) => format!("{} of write-ahead log", text::bytes(bytes)),
        None => "no write-ahead log".to_owned(),
    };
    format!("{}, version {}, {size}, {log}", path.display(), state.version)
}

/// The same for programs.
fn file_json(path: &Path, state: FileState) -> Value {
    json!({
        "path": path.to_string_lossy(),
        "version": state.version,
        "bytes": state.bytes,
        "wal_bytes": state.log_bytes,
    })
}
