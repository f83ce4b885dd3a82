//! The status in Prometheus' text format 0.0.4, for monitoring. Names that are there stay.
//!
//! All label values are the program's own words; nothing that a peer sent can be among them.

use std::fmt::{Display, Write};

use super::status::Status;
use crate::engine::metrics::{Bounds, Histogram, Tally};
use crate::limits::{BATCH_CHANGES_BOUNDS, DURATION_BOUNDS};
use crate::message::COMMAND_NAMES;
use crate::message::outcome::OutcomeCounts;

/// What the format calls itself.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics.
pub fn render(status: &Status<'_>) -> String {
    let mut text = Text::default();
    text.gauge("build_info", "The version that runs.").labelled("version", status.version, 1);
    connections(&mut text, status);
    commands(&mut text, status);
    store(&mut text, status);
    endings(&mut text, status);
    storage(&mut text, status);
    let timings = status.timings;
    text.histogram(
        "tick_duration_seconds",
        "What turns of the loop took, from waking up to going back to sleep.",
        &timings.tick,
        &DURATION_BOUNDS,
    );
    let limits = "How often limits were met, named as in the log.";
    text.counter("limit_hits_total", limits).tally("limit", status.present.engine.limits_met());
    process(&mut text, status);
    text.out
}

fn connections(text: &mut Text, status: &Status<'_>) {
    let (engine, store) = (status.present.engine, status.present.engine.store());
    let metrics = engine.metrics();
    text.gauge("connections", "Connections of clients.").value(status.present.connections);
    text.gauge("connections_max", "Connections of clients that are allowed.")
        .value(status.present.config.limits.connections_max);
    text.gauge("connections_bound", "Connections that have bound.").value(store.bound_count());
    text.gauge("subscriptions", "Connections that listen to a mailbox.")
        .value(store.subscriptions_count());
    text.counter("connections_accepted_total", "Connections of clients accepted.")
        .value(metrics.accepted);
    text.counter("connections_ended_total", "Connections of clients that ended, by reason.")
        .tally("reason", &metrics.ended);
    text.counter("received_bytes_total", "Bytes that came from clients.")
        .value(metrics.received_bytes);
    text.counter("sent_bytes_total", "Bytes that went to clients.")
        .value(status.present.delivered.bytes);
}

fn commands(text: &mut Text, status: &Status<'_>) {
    let metrics = status.present.engine.metrics();
    let family = text.counter("commands_total", "Commands received, by type.");
    for (name, count) in COMMAND_NAMES.into_iter().zip(metrics.commands) {
        family.labelled("command", name, count);
    }
    text.counter("errors_total", "Errors answered, by text.").tally("error", &metrics.errors);
    text.counter("messages_stored_total", "Messages that clients added to mailboxes.")
        .value(metrics.messages_stored);
    text.counter("messages_delivered_total", "Messages sent to subscribers, old and new.")
        .value(status.present.delivered.messages);
}

fn store(text: &mut Text, status: &Status<'_>) {
    let store = status.present.engine.store();
    let counts = store.counts();
    let family = text.gauge("nameplates", "Nameplates alive, by the number of their digits.");
    for (digits, count) in ["1", "2", "3", "4+"].into_iter().zip(store.nameplates_by_digits()) {
        family.labelled("digits", digits, count);
    }
    text.gauge("mailboxes", "Mailboxes alive.").value(counts.mailboxes);
    text.gauge("messages", "Messages stored.").value(counts.messages);
    text.gauge("stored_bytes", "Bytes that count towards the limit of all that is stored.")
        .value(store.stored_bytes());
    text.gauge("stored_bytes_max", "That limit.")
        .value(status.present.config.limits.stored_bytes_max);
    text.gauge("apps", "Application ids in use.").value(store.apps_count());
}

fn endings(text: &mut Text, status: &Status<'_>) {
    let metrics = status.present.engine.metrics();
    text.counter("nameplates_ended_total", "Nameplates that ended, by result.")
        .outcomes(&metrics.nameplate_outcomes);
    text.counter("mailboxes_ended_total", "Mailboxes that ended, by result.")
        .outcomes(&metrics.mailbox_outcomes);
    text.counter("closes_total", "Mailboxes closed by a side, by its mood.")
        .tally("mood", &metrics.moods);
}

fn storage(text: &mut Text, status: &Status<'_>) {
    let engine = status.present.engine;
    text.gauge("storage_degraded", "1 while the channel database cannot be written.")
        .value(u8::from(engine.is_degraded()));
    text.counter("commits_failed_total", "Commits that failed.")
        .value(engine.metrics().commits_failed);
    text.histogram(
        "commit_duration_seconds",
        "What commits to the channel database took, with records that were due.",
        &status.timings.commit,
        &DURATION_BOUNDS,
    );
    text.histogram(
        "commit_changes",
        "Row changes in a commit.",
        &status.timings.batch,
        &BATCH_CHANGES_BOUNDS,
    );
    text.gauge("wal_pages", "Pages in the channel database's write-ahead log, about.")
        .value(engine.wal_pages());
    let family = text.gauge("database_file_bytes", "Sizes of the database files.");
    for file in &status.files {
        file.bytes.iter().for_each(|bytes| family.labelled("file", file.name, *bytes));
    }
    let family = text.gauge("database_wal_bytes", "Sizes of their write-ahead logs.");
    for file in &status.files {
        file.wal_bytes.iter().for_each(|bytes| family.labelled("file", file.name, *bytes));
    }
}

/// Under the names that all programs have in common.
fn process(text: &mut Text, status: &Status<'_>) {
    let process = &status.process;
    let gauges = [
        ("process_resident_memory_bytes", "Memory in RAM.", process.resident_bytes),
        ("process_open_fds", "Open file descriptors.", process.open_fds),
        ("process_max_fds", "File descriptors allowed.", process.max_fds),
    ];
    for (name, help, value) in gauges {
        value.iter().for_each(|value| text.family(name, "gauge", help).value(value));
    }
    text.family("process_cpu_seconds_total", "counter", "CPU time, user and system.")
        .value(process.cpu_seconds);
    text.family("process_start_time_seconds", "gauge", "When it started, since the epoch.")
        .value(status.started.0);
}

/// The beginning of all names that are this program's alone.
const PREFIX: &str = "wormhole_mailbox_";

/// The text, and the name of the family that samples belong to.
#[derive(Debug, Default)]
struct Text {
    out: String,
    name: String,
}

impl Text {
    fn gauge(&mut self, name: &str, help: &str) -> &mut Text {
        self.family(&format!("{PREFIX}{name}"), "gauge", help)
    }

    fn counter(&mut self, name: &str, help: &str) -> &mut Text {
        self.family(&format!("{PREFIX}{name}"), "counter", help)
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) -> &mut Text {
        name.clone_into(&mut self.name);
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        self
    }

    fn value(&mut self, value: impl Display) {
        self.sample("", "", value);
    }

    fn labelled(&mut self, label: &str, of: &str, value: impl Display) {
        self.sample("", &format!("{{{label}=\"{of}\"}}"), value);
    }

    /// Names that occurred.
    fn tally(&mut self, label: &str, tally: &Tally) {
        tally.iter().for_each(|(name, count)| self.labelled(label, name, count));
    }

    fn outcomes(&mut self, counts: &OutcomeCounts) {
        counts.iter().for_each(|(outcome, count)| self.labelled("result", outcome.name(), count));
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram, bounds: &Bounds) {
        self.family(&format!("{PREFIX}{name}"), "histogram", help);
        for (bound, count) in bounds.iter().zip(histogram.cumulative()) {
            self.sample("_bucket", &format!("{{le=\"{bound}\"}}"), count);
        }
        self.sample("_bucket", "{le=\"+Inf\"}", histogram.count());
        self.sample("_sum", "", histogram.sum());
        self.sample("_count", "", histogram.count());
    }

    fn sample(&mut self, suffix: &str, labels: &str, value: impl Display) {
        let name = std::mem::take(&mut self.name);
        self.line(format_args!("{name}{suffix}{labels} {value}"));
        self.name = name;
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to memory cannot fail.
        _ = writeln!(self.out, "{line}");
    }
}
