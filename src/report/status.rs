//! `status`: how a server is, from its admin listener, and what its files contain.

use std::error::Error;
use std::path::Path;

use serde_json::{Value, json};

use super::table::list;
use super::{Report, file_json, file_line, status_json};
use crate::format::{self, UNKNOWN};
use crate::limits::REPORT_STALE_SECONDS;
use crate::net::socket::Endpoint;
use crate::storage::db::{self, OpenError, StoredCounts};
use crate::sys::clock::{self, Timestamp};

/// Asks the server if `admin` is given, and reads the files that are named.
pub fn report(
    admin: Option<&Endpoint>,
    channel_db: Option<&Path>,
    usage_db: Option<&Path>,
    now: Timestamp,
) -> Result<Report, Box<dyn Error>> {
    let server = admin.map(server).transpose()?;
    let channel = channel_db.map(|path| channel(path, now)).transpose()?;
    let usage = usage_db.map(|path| usage(path, now)).transpose()?;
    let parts = [&server, &channel, &usage].into_iter().flatten();
    let text = parts.map(|part| part.text.as_str()).collect::<Vec<_>>().join("\n");
    let [server, channel, usage] = [server, channel, usage].map(|part| part.map(|it| it.json));
    let json = json!({"now": now.0, "server": server, "channel": channel, "usage": usage});
    Ok(Report { text, json })
}

fn server(endpoint: &Endpoint) -> Result<Report, String> {
    let json = status_json::fetch(endpoint)?;
    Ok(Report { text: format!("Server at {endpoint}\n{}", server_text(&json)), json })
}

fn channel(path: &Path, now: Timestamp) -> Result<Report, OpenError> {
    let (state, counts) = db::stored_counts(path)?;
    let StoredCounts { nameplates, mailboxes, messages, activity } = counts;
    let stored = format!("{nameplates} nameplates, {mailboxes} mailboxes, {messages} messages");
    let mut entries = vec![("stored", stored)];
    if let Some((oldest, newest)) = activity {
        let ago = format::ago(newest, now);
        let (oldest, newest) = (clock::utc(oldest), clock::utc(newest));
        entries.push(("last use", format!("from {oldest} to {newest} ({ago})")));
    }
    let line = file_line(path, state);
    let json = json!({
        "file": file_json(path, state),
        "nameplates": nameplates,
        "mailboxes": mailboxes,
        "messages": messages,
        "oldest_activity": activity.map(|(oldest, _)| oldest.0),
        "newest_activity": activity.map(|(_, newest)| newest.0),
    });
    Ok(Report { text: format!("Channel database {line}\n{}", list(&entries)), json })
}

fn usage(path: &Path, now: Timestamp) -> Result<Report, OpenError> {
    let (state, current) = db::read_current(path)?;
    let (entries, current) = match current {
        None => (vec![("server", "none has written to it yet".to_owned())], Value::Null),
        Some(current) => {
            let is_stale = now - current.updated > REPORT_STALE_SECONDS;
            let stale = if is_stale {
                ": STALE, the server does not run, or not with this file"
            } else {
                ""
            };
            let connections = current.connections_websocket;
            let blurring = current.blur_time.map_or_else(|| "off".to_owned(), format::duration);
            let entries = vec![
                ("server start", clock::utc(current.rebooted)),
                ("last update", format!("{}{stale}", format::ago(current.updated, now))),
                ("connections", format!("{connections} with a mailbox open")),
                ("blurring", blurring),
            ];
            let json = json!({
                "rebooted": current.rebooted.0,
                "updated": current.updated.0,
                "stale": is_stale,
                "blur_seconds": current.blur_time,
                "connections_websocket": connections,
            });
            (entries, json)
        }
    };
    let line = file_line(path, state);
    let json = json!({"file": file_json(path, state), "current": current});
    Ok(Report { text: format!("Usage database {line}\n{}", list(&entries)), json })
}

/// The names in braces are JSON pointers into the server's `/status.json`.
fn server_text(status: &Value) -> String {
    const FILE: &str = "  file         {{/path}}: {{/bytes}}, {{/wal_bytes}} of write-ahead log\n";
    let files = status["storage"]["files"].as_array().into_iter().flatten();
    let files = files.map(|file| filled(FILE, file));
    const MEMBER: &str = "  member       {{/name}}: {{/exchanges}} exchanges begun, {{/connections}} \
                          connections since the start, {{/connected}} now\n";
    let members = status["members"].as_array().into_iter().flatten();
    let members = members.map(|member| filled(MEMBER, member));
    filled(include_str!("status.txt"), status) + &files.chain(members).collect::<String>()
}

fn filled(template: &str, values: &Value) -> String {
    format::fill(template, &mut |pointer| show(values, pointer))
}

/// The value at a JSON pointer, in the unit that its key names.
fn show(status: &Value, pointer: &str) -> String {
    let key = pointer.rsplit('/').next().unwrap_or_default();
    match status.pointer(pointer) {
        // Clients chose these two.
        Some(Value::String(text)) if ["implementation", "version"].contains(&key) => {
            format::harmless(text)
        }
        Some(Value::String(text)) => format::harmless_error(text),
        Some(Value::Number(seconds)) if key.ends_with("seconds") => {
            format::or_unknown(seconds.as_f64(), format::duration)
        }
        Some(Value::Number(size)) if key.contains("bytes") => {
            format::or_unknown(size.as_u64(), format::bytes)
        }
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Object(counts)) => {
            let counts = counts.iter().map(|(name, count)| (name, count.as_u64().unwrap_or(0)));
            let occurred = counts.filter(|(_, count)| *count > 0);
            joined(occurred.map(|(name, count)| format!("{count} {}", format::harmless(name))))
        }
        Some(Value::Array(clients)) => joined(clients.iter().map(client)),
        _ => UNKNOWN.to_owned(),
    }
}

fn client(client: &Value) -> String {
    const CLIENT: &str = "{{/binds}} {{/implementation}} {{/version}}";
    let template = if client["others"] == true { "{{/binds}} others" } else { CLIENT };
    filled(template, client)
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}
