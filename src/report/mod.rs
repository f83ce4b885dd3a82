//! The subcommands `status`, `usage`, `connections` and `check`: reports on a server and its files,
//! as tables for people and as JSON for programs; and `member add`, which makes a new member.
//!
//! Creates and changes no file but that of members, and does not disturb a running server, of which
//! it sees only the files and the admin listener; `check` is two clients like others.

mod check;
mod connections;
mod member;
mod status;
mod status_json;
mod stream;
mod table;
mod usage;

use std::error::Error;
use std::path::Path;

use serde_json::{Value, json};

use crate::config::{Format, Subject};
use crate::format;
use crate::storage::db::FileState;
use crate::sys::clock::Clock;

/// A report in both formats.
struct Report {
    text: String,
    json: Value,
}

/// Returns the report on that subject, and what is wrong with a server that is not healthy.
pub fn run(subject: &Subject, format: Format) -> Result<(String, Option<String>), Box<dyn Error>> {
    let now = Clock::read().wall;
    let report = match subject {
        Subject::Status { admin, channel_db, usage_db } => {
            status::report(admin.as_ref(), channel_db.as_deref(), usage_db.as_deref(), now)?
        }
        Subject::Usage { usage_db, period } => usage::report(usage_db, *period, now)?,
        Subject::Connections { channel_db, addrid_db } => {
            connections::report(channel_db, addrid_db.as_deref(), now)?
        }
        Subject::Check { server, via } => check::report(server, via.as_deref())?,
        Subject::AddMember { members, name, url } => member::add(members, name, url.as_deref())?,
    };
    let health = report.json["server"]["health"].as_str().filter(|health| *health != HEALTHY);
    let problem = health.map(|it| format!("not healthy: {}", format::harmless_error(it)));
    let text = match format {
        Format::Table => report.text,
        Format::Json => json_text(&report.json),
    };
    Ok((text, problem))
}

/// What a healthy server says of its health.
const HEALTHY: &str = "ok";

/// JSON that is safe to show in a terminal: hostile characters in texts are escaped.
fn json_text(value: &Value) -> String {
    let mut text = String::new();
    for char in format!("{value:#}").chars() {
        // Line ends belong to the layout; those in texts are escaped already.
        if char != '\n' && format::is_hostile(char) {
            text += &format!("\\u{:04x}", u32::from(char));
        } else {
            text.push(char);
        }
    }
    text + "\n"
}

fn file_line(path: &Path, state: FileState) -> String {
    let size = format::bytes(state.bytes);
    let log = match state.log_bytes {
        Some(bytes) => format!("{} of write-ahead log", format::bytes(bytes)),
        None => "no write-ahead log".to_owned(),
    };
    format!("{}, version {}, {size}, {log}", path.display(), state.version)
}

fn file_json(path: &Path, state: FileState) -> Value {
    json!({
        "path": path.to_string_lossy(),
        "version": state.version,
        "bytes": state.bytes,
        "wal_bytes": state.log_bytes,
    })
}
