//! `status`: how a server is, from its admin listener, and what its files contain.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::table::list;
use super::{Report, file_json, file_line, server};
use crate::format::{self, UNKNOWN};
use crate::limits::REPORT_STALE_SECONDS;
use crate::net::socket::Endpoint;
use crate::storage::db::{ChannelReader, Current, FileState, OpenError, StoredCounts, UsageReader};
use crate::sys::clock::{self, Timestamp};

#[derive(Debug)]
pub struct Status {
    now: Timestamp,
    /// The admin listener and the server's own status.
    server: Option<(String, Value)>,
    channel: Option<(PathBuf, FileState, StoredCounts)>,
    usage: Option<(PathBuf, FileState, Option<Current>)>,
}

/// Asks the server if `admin` is given, and reads the files that are named.
pub fn collect(
    admin: Option<&Endpoint>,
    channel_db: Option<&Path>,
    usage_db: Option<&Path>,
    now: Timestamp,
) -> Result<Status, String> {
    let fetch =
        |endpoint: &Endpoint| Ok::<_, String>((endpoint.to_string(), server::fetch(endpoint)?));
    Ok(Status {
        now,
        server: admin.map(fetch).transpose()?,
        channel: channel_db.map(channel).transpose().map_err(|error| error.to_string())?,
        usage: usage_db.map(usage).transpose().map_err(|error| error.to_string())?,
    })
}

fn channel(path: &Path) -> Result<(PathBuf, FileState, StoredCounts), OpenError> {
    let reader = ChannelReader::open(path)?;
    Ok((path.to_owned(), reader.state(), reader.counts()?))
}

fn usage(path: &Path) -> Result<(PathBuf, FileState, Option<Current>), OpenError> {
    let reader = UsageReader::open(path)?;
    Ok((path.to_owned(), reader.state(), reader.current()?))
}

impl Status {
    fn is_stale(&self, current: &Current) -> bool {
        self.now - current.updated > REPORT_STALE_SECONDS
    }

    fn channel_text(&self, counts: &StoredCounts) -> String {
        let stored = format!(
            "{} nameplates, {} mailboxes, {} messages",
            counts.nameplates, counts.mailboxes, counts.messages
        );
        let mut entries = vec![("stored", stored)];
        if let Some((oldest, newest)) = counts.activity {
            let activity = format!(
                "from {} to {} ({})",
                clock::utc(oldest),
                clock::utc(newest),
                format::ago(newest, self.now)
            );
            entries.push(("last use", activity));
        }
        list(entries)
    }

    fn usage_text(&self, current: Option<&Current>) -> String {
        let Some(current) = current else {
            return list(vec![("server", "none has written to it yet".to_owned())]);
        };
        let stale = if self.is_stale(current) {
            ": STALE, the server does not run, or not with this file"
        } else {
            ""
        };
        list(vec![
            ("server start", clock::utc(current.rebooted)),
            ("last update", format!("{}{stale}", format::ago(current.updated, self.now))),
            ("connections", format!("{} with a mailbox open", current.connections_websocket)),
            ("blurring", current.blur_time.map_or_else(|| "off".to_owned(), format::duration)),
        ])
    }
}

/// The lines on a running server; names in braces are JSON pointers into its `/status.json`.
const SERVER_LINES: [(&str, &str); 15] = [
    ("health", "{{/health}}"),
    ("up", "{{/uptime_seconds}}, version {{/version}}"),
    (
        "connections",
        "{{/connections/now}} of {{/connections/max}} ({{/connections/bound}} bound, \
         {{/connections/subscribed}} with a mailbox open), {{/connections/accepted}} since the start",
    ),
    ("ended", "{{/connections/ended}}"),
    (
        "stored",
        "{{/store/nameplates}} nameplates, {{/store/mailboxes}} mailboxes, {{/store/messages}} \
         messages, {{/store/bytes}} of {{/store/bytes_max}}",
    ),
    (
        "traffic",
        "{{/traffic/received_bytes}} received, {{/traffic/sent_bytes}} sent, \
         {{/traffic/messages_stored}} messages stored, {{/traffic/messages_delivered}} delivered",
    ),
    ("commands", "{{/traffic/commands}}"),
    ("errors", "{{/traffic/errors}}"),
    ("limits hit", "{{/limits_hit}}"),
    (
        "process",
        "{{/process/resident_memory_bytes}} of memory, {{/process/cpu_seconds}} of CPU time, \
         {{/process/open_fds}} of {{/process/max_fds}} descriptors",
    ),
    (
        "one tick",
        "half within {{/latency_last_hour/tick/p50_seconds}}, \
         99 % within {{/latency_last_hour/tick/p99_seconds}} (last hour)",
    ),
    (
        "one commit",
        "half within {{/latency_last_hour/commit/p50_seconds}}, \
         99 % within {{/latency_last_hour/commit/p99_seconds}} (last hour)",
    ),
    ("last hour", "{{/results_last_hour}}"),
    ("last day", "{{/results_last_day}}"),
    ("clients", "{{/clients_last_day}}"),
];

fn server_text(status: &Value) -> String {
    let mut entries: Vec<(&str, String)> = SERVER_LINES
        .iter()
        .map(|(name, template)| (*name, format::fill(template, |pointer| show(status, pointer))))
        .collect();
    for file in status["storage"]["files"].as_array().into_iter().flatten() {
        const FILE: &str = "{{/path}}: {{/bytes}}, {{/wal_bytes}} of write-ahead log";
        entries.push(("file", format::fill(FILE, |pointer| show(file, pointer))));
    }
    list(entries)
}

/// The value at a JSON pointer, in the unit that its key names.
fn show(status: &Value, pointer: &str) -> String {
    let key = pointer.rsplit('/').next().unwrap_or_default();
    match status.pointer(pointer) {
        Some(Value::String(text)) => format::harmless(text),
        Some(Value::Number(seconds)) if key.ends_with("seconds") => {
            seconds.as_f64().map_or_else(|| UNKNOWN.to_owned(), format::duration)
        }
        Some(Value::Number(size)) if key.contains("bytes") => {
            size.as_u64().map_or_else(|| UNKNOWN.to_owned(), format::bytes)
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
    format::fill(template, |pointer| show(client, pointer))
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

impl Report for Status {
    fn text(&self) -> String {
        let mut parts = Vec::new();
        if let Some((name, status)) = &self.server {
            parts.push(format!("Server at {name}\n{}", server_text(status)));
        }
        if let Some((path, state, counts)) = &self.channel {
            let line = file_line(path, *state);
            parts.push(format!("Channel database {line}\n{}", self.channel_text(counts)));
        }
        if let Some((path, state, current)) = &self.usage {
            let line = file_line(path, *state);
            parts.push(format!("Usage database {line}\n{}", self.usage_text(current.as_ref())));
        }
        parts.join("\n")
    }

    fn json(&self) -> Value {
        let channel = self.channel.as_ref().map(|(path, state, counts)| {
            let (oldest, newest) =
                counts.activity.map(|(oldest, newest)| (oldest.0, newest.0)).unzip();
            json!({
                "file": file_json(path, *state),
                "nameplates": counts.nameplates,
                "mailboxes": counts.mailboxes,
                "messages": counts.messages,
                "oldest_activity": oldest,
                "newest_activity": newest,
            })
        });
        let usage = self.usage.as_ref().map(|(path, state, current)| {
            let current = current.map(|current| {
                json!({
                    "rebooted": current.rebooted.0,
                    "updated": current.updated.0,
                    "stale": self.is_stale(&current),
                    "blur_seconds": current.blur_time,
                    "connections_websocket": current.connections_websocket,
                })
            });
            json!({"file": file_json(path, *state), "current": current})
        });
        json!({
            "now": self.now.0,
            "server": self.server.as_ref().map(|(_, status)| status),
            "channel": channel,
            "usage": usage,
        })
    }
}
