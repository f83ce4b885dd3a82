//! All metrics, one row each. `/metrics`, `/status.json` and the page's counts since the start are
//! made from these rows. Existing names, keys and labels must not change.
//!
//! Labels are fixed names of this program; nothing that a peer sent is among them.

use super::histogram::{Bounds, Histogram};
use super::status::{self, Status};
use crate::engine::metrics::Tally;
use crate::format;
use crate::limits::{BATCH_CHANGES_BOUNDS, DURATION_BOUNDS};
use crate::message::{COMMAND_NAMES, OutcomeCounts};
use crate::sys::logging;

#[derive(Debug)]
pub struct Metric<'a> {
    /// The name in `/metrics`, without the program's prefix. Counters end in `_total`, as
    /// Prometheus wants it.
    pub name: &'static str,
    /// Object and key in `/status.json`; empty if it is not there.
    pub json: &'static str,
    /// What the page calls it under "Since the start"; empty if it is not there.
    pub page: &'static str,
    pub help: &'static str,
    pub value: Value<'a>,
}

impl Metric<'_> {
    /// A single value as people read it, if it is known.
    pub fn shown(&self) -> Option<String> {
        match self.value {
            Value::Count(size) if self.name.contains("bytes") => Some(format::bytes(size)),
            Value::Count(count) => Some(format::number(count)),
            Value::Seconds(seconds) => Some(format::duration(seconds)),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub enum Value<'a> {
    Count(u64),
    Seconds(f64),
    /// The system does not provide it.
    Unknown,
    /// Counts by the values of a label.
    Labelled(&'static str, Vec<(&'static str, u64)>),
    Histogram(&'a Histogram, &'static Bounds),
}

/// A row is: name, key in JSON, name on the page, help, value.
macro_rules! metrics {
    ($($name:literal, $json:literal, $page:literal, $help:literal, $value:expr;)*) => {
        vec![$(Metric { name: $name, json: $json, page: $page, help: $help, value: $value },)*]
    };
}

pub fn all<'a>(status: &'a Status<'_>) -> Vec<Metric<'a>> {
    let view = status.view;
    let (engine, stored, limits) = (view.engine, view.engine.stored(), &view.config.limits);
    let (metrics, process) = (&engine.metrics, &status.process);
    let commands = COMMAND_NAMES.into_iter().zip(metrics.commands).collect();
    let digits = ["1", "2", "3", "4+"].into_iter().zip(stored.nameplates_by_digits);
    let digits = digits.map(|(digits, nameplates)| (digits, nameplates as u64)).collect();
    let files = status.files.iter();
    let file_bytes = files.clone().filter_map(|it| Some((it.name, it.bytes?))).collect();
    let wal_bytes = files.filter_map(|it| Some((it.name, it.wal_bytes?))).collect();
    metrics! {
        "build_info", "", "",
            "The version that runs.", Value::Labelled("version", vec![(status::VERSION, 1)]);
        "connections", "connections/now", "",
            "Connections of clients.", count(view.connections);
        "connections_max", "connections/max", "",
            "Connections of clients that are allowed.", count(limits.connections_max);
        "connections_bound", "connections/bound", "",
            "Connections that have bound.", count(stored.bound);
        "subscriptions", "connections/subscribed", "",
            "Connections that listen to a mailbox.", count(stored.subscriptions);
        "connections_accepted_total", "connections/accepted", "connections accepted",
            "Connections of clients accepted.", Value::Count(metrics.accepted);
        "connections_ended_total", "connections/ended", "Connections ended",
            "Connections of clients that ended, by reason.", tally("reason", &metrics.ended);
        "received_bytes_total", "traffic/received_bytes", "received",
            "Bytes that came from clients.", Value::Count(metrics.received_bytes);
        "sent_bytes_total", "traffic/sent_bytes", "sent",
            "Bytes that went to clients.", Value::Count(view.delivered.bytes);
        "commands_total", "traffic/commands", "Commands",
            "Commands received, by type.", Value::Labelled("command", commands);
        "errors_total", "traffic/errors", "Errors answered",
            "Errors answered, by kind.", tally("error", &metrics.errors);
        "messages_stored_total", "traffic/messages_stored", "messages stored",
            "Messages that clients added to mailboxes.", Value::Count(metrics.messages_stored);
        "messages_delivered_total", "traffic/messages_delivered", "messages delivered",
            "Messages sent to subscribers, old and new.", Value::Count(view.delivered.messages);
        "nameplates", "store/nameplates_by_digits", "",
            "Nameplates alive, by the number of their digits.", Value::Labelled("digits", digits);
        "mailboxes", "store/mailboxes", "",
            "Mailboxes alive.", count(stored.mailboxes);
        "messages", "store/messages", "",
            "Messages stored.", count(stored.messages);
        "stored_bytes", "store/bytes", "",
            "Bytes that count towards --limit-stored-bytes.", count(stored.bytes);
        "stored_bytes_max", "store/bytes_max", "",
            "--limit-stored-bytes.", count(limits.stored_bytes_max);
        "apps", "store/apps", "",
            "Application ids in use.", count(stored.apps);
        "nameplates_ended_total", "", "",
            "Nameplates that ended, by result.", outcomes(&metrics.nameplate_outcomes);
        "mailboxes_ended_total", "", "",
            "Mailboxes that ended, by result.", outcomes(&metrics.mailbox_outcomes);
        "closes_total", "", "",
            "Mailboxes closed by a side, by its mood.", tally("mood", &metrics.moods);
        "storage_degraded", "", "",
            "1 while the channel database cannot be written.", count(engine.is_degraded().into());
        "commits_failed_total", "", "",
            "Commits that failed.", Value::Count(metrics.commits_failed);
        "commit_duration_seconds", "", "",
            "Durations of commits to the channel database.",
            Value::Histogram(&status.admin.timings.commit, &DURATION_BOUNDS);
        "commit_changes", "", "",
            "Row changes in a commit.",
            Value::Histogram(&status.admin.timings.batch, &BATCH_CHANGES_BOUNDS);
        "wal_pages", "", "",
            "Pages in the channel database's write-ahead log, about.",
            Value::Count(engine.wal_pages().into());
        "wal_held_seconds", "", "",
            "Seconds for which a reader has kept that log from being copied into the file.",
            Value::Count(engine.wal_blocked_seconds());
        "database_file_bytes", "", "",
            "Sizes of the database files.", Value::Labelled("file", file_bytes);
        "database_wal_bytes", "", "",
            "Sizes of their write-ahead logs.", Value::Labelled("file", wal_bytes);
        "tick_duration_seconds", "", "",
            "Durations of ticks, from waking up to going back to sleep.",
            Value::Histogram(&status.admin.timings.tick, &DURATION_BOUNDS);
        "limit_hits_total", "limits_hit", "",
            "How often limits were met.",
            Value::Labelled("limit", engine.limit_log.totals());
        "log_lines_lost_total", "", "",
            "Log lines that could not be written.", Value::Count(logging::lines_lost());
        "process_resident_memory_bytes", "process/resident_memory_bytes", "",
            "Memory in RAM.", known(process.resident_bytes);
        "process_open_fds", "process/open_fds", "",
            "Open file descriptors.", known(process.open_fds);
        "process_max_fds", "process/max_fds", "",
            "File descriptors allowed.", known(process.max_fds);
        "process_cpu_seconds_total", "process/cpu_seconds", "",
            "CPU time, user and system.", Value::Seconds(process.cpu_seconds);
        "process_start_time_seconds", "started", "",
            "When it started, since the epoch.", Value::Seconds(engine.rebooted.0);
    }
}

fn count(count: usize) -> Value<'static> {
    Value::Count(count as u64)
}

fn known(count: Option<u64>) -> Value<'static> {
    count.map_or(Value::Unknown, Value::Count)
}

fn tally(label: &'static str, tally: &Tally) -> Value<'static> {
    Value::Labelled(label, tally.iter().collect())
}

fn outcomes(counts: &OutcomeCounts) -> Value<'static> {
    Value::Labelled("result", counts.iter().map(|(it, count)| (it.name(), count)).collect())
}
