//! How a server is: by its own word, if it is asked, and by what its files say.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::table::list;
use super::{Findings, file_json, file_line, server, text};
use crate::limits::REPORT_STALE_SECONDS;
use crate::net::socket::Endpoint;
use crate::storage::db::{ChannelReader, Current, FileState, StoredCounts, UsageReader};
use crate::sys::clock::Timestamp;

/// All that was found.
#[derive(Debug)]
pub struct Status {
    now: Timestamp,
    /// Where the server was asked, and its answer.
    server: Option<(String, Value)>,
    channel: Option<(PathBuf, FileState, StoredCounts)>,
    usage: Option<(PathBuf, FileState, Option<Current>)>,
}

/// Asks the server, if it can be asked, and reads the files that are named.
pub fn find(
    admin: Option<&Endpoint>,
    channel_db: Option<&Path>,
    usage_db: Option<&Path>,
    now: Timestamp,
) -> Result<Status, String> {
    let ask = |endpoint: &Endpoint| Ok::<_, String>((endpoint.to_string(), server::ask(endpoint)?));
    Ok(Status {
        now,
        server: admin.map(ask).transpose()?,
        channel: channel_db.map(channel).transpose().map_err(|error| error.to_string())?,
        usage: usage_db.map(usage).transpose().map_err(|error| error.to_string())?,
    })
}

fn channel(
    path: &Path,
) -> Result<(PathBuf, FileState, StoredCounts), crate::storage::db::OpenError> {
    let reader = ChannelReader::open(path)?;
    Ok((path.to_owned(), reader.state(), reader.counts()?))
}

fn usage(
    path: &Path,
) -> Result<(PathBuf, FileState, Option<Current>), crate::storage::db::OpenError> {
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
                "from {} to {} UTC ({})",
                text::time(oldest),
                text::time(newest),
                text::ago(newest, self.now)
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
            ("server start", format!("{} UTC", text::time(current.rebooted))),
            ("last sign", format!("{}{stale}", text::ago(current.updated, self.now))),
            ("connections", format!("{} with a mailbox open", current.connections_websocket)),
            ("blurring", current.blur_time.map_or_else(|| "off".to_owned(), text::duration)),
        ])
    }
}

/// What a server's answer says, line by line. What it does not say is a dash.
fn server_text(told: &Value) -> String {
    let connections = &told["connections"];
    let store = &told["store"];
    let traffic = &told["traffic"];
    let process = &told["process"];
    let mut entries = vec![
        ("health", word(&told["health"])),
        ("up", format!("{}, version {}", seconds(&told["uptime_seconds"]), word(&told["version"]))),
        (
            "connections",
            format!(
                "{} of {} ({} bound, {} with a mailbox open), {} since the start",
                number(&connections["now"]),
                number(&connections["max"]),
                number(&connections["bound"]),
                number(&connections["subscribed"]),
                number(&connections["accepted"])
            ),
        ),
        ("ended", counts(&connections["ended"])),
        (
            "stored",
            format!(
                "{} nameplates, {} mailboxes, {} messages, {} of {}",
                number(&store["nameplates"]),
                number(&store["mailboxes"]),
                number(&store["messages"]),
                size(&store["bytes"]),
                size(&store["bytes_max"])
            ),
        ),
        (
            "traffic",
            format!(
                "{} received, {} sent, {} messages stored, {} delivered",
                size(&traffic["received_bytes"]),
                size(&traffic["sent_bytes"]),
                number(&traffic["messages_stored"]),
                number(&traffic["messages_delivered"])
            ),
        ),
        ("commands", counts(&traffic["commands"])),
        ("errors", counts(&traffic["errors"])),
        ("limits hit", counts(&told["limits_hit"])),
        (
            "process",
            format!(
                "{} of memory, {} of CPU time, {} of {} descriptors",
                size(&process["resident_memory_bytes"]),
                seconds(&process["cpu_seconds"]),
                number(&process["open_fds"]),
                number(&process["max_fds"])
            ),
        ),
    ];
    for (name, key) in [("one turn", "tick"), ("one commit", "commit")] {
        let latency = &told["latency_last_hour"][key];
        let (median, slow) = (seconds(&latency["p50_seconds"]), seconds(&latency["p99_seconds"]));
        entries.push((name, format!("half within {median}, 99 % within {slow} (last hour)")));
    }
    for (name, key) in [("last hour", "results_last_hour"), ("last day", "results_last_day")] {
        entries.push((name, counts(&told[key])));
    }
    entries.push(("clients", clients(&told["clients_last_day"])));
    for file in told["storage"]["files"].as_array().into_iter().flatten() {
        let (bytes, log) = (size(&file["bytes"]), size(&file["wal_bytes"]));
        let line = format!("{}: {bytes}, {log} of write-ahead log", word(&file["path"]));
        entries.push(("file", line));
    }
    list(entries)
}

const UNTOLD: &str = "-";

fn word(value: &Value) -> String {
    text::harmless_or_dash(value.as_str())
}

fn number(value: &Value) -> String {
    value.as_u64().map_or_else(|| UNTOLD.to_owned(), |number| number.to_string())
}

fn size(value: &Value) -> String {
    value.as_u64().map_or_else(|| UNTOLD.to_owned(), text::bytes)
}

fn seconds(value: &Value) -> String {
    value.as_f64().map_or_else(|| UNTOLD.to_owned(), text::duration)
}

/// Names with how often each occurred; those that did not are left out.
fn counts(value: &Value) -> String {
    let entries = value.as_object().into_iter().flatten();
    let entries = entries.filter(|(_, count)| count.as_u64() != Some(0));
    let shown: Vec<String> = entries
        .map(|(name, count)| format!("{} {}", number(count), text::harmless(name)))
        .collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}

fn clients(value: &Value) -> String {
    let shown: Vec<String> = value
        .as_array()
        .into_iter()
        .flatten()
        .map(|client| {
            let name = if client["others"] == true {
                "others".to_owned()
            } else {
                format!("{} {}", word(&client["implementation"]), word(&client["version"]))
            };
            format!("{} {name}", number(&client["binds"]))
        })
        .collect();
    if shown.is_empty() { "none in the last day".to_owned() } else { shown.join(", ") }
}

impl Findings for Status {
    fn text(&self) -> String {
        let mut parts = Vec::new();
        if let Some((name, told)) = &self.server {
            parts.push(format!("Server at {name}\n{}", server_text(told)));
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
            "server": self.server.as_ref().map(|(_, told)| told),
            "channel": channel,
            "usage": usage,
        })
    }
}
