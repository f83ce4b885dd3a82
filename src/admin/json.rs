//! The status as one JSON object, for programs. Names that are there stay.

use serde_json::{Map, Value, json};

use super::status::{self, DatabaseFile, Status};
use crate::engine::metrics::{Histogram, Tally};
use crate::limits::CLIENTS_SHOWN_MAX;
use crate::message::COMMAND_NAMES;
use crate::message::outcome::OutcomeCounts;

/// The object, and a line end.
pub fn render(status: &Status<'_>) -> String {
    let engine = status.present.engine;
    let object = json!({
        "version": status.version,
        "started": status.started.0,
        "now": status.now.0,
        "uptime_seconds": status.uptime,
        "health": status.health.err().unwrap_or("ok"),
        "connections": connections(status),
        "store": store(status),
        "storage": {
            "degraded": engine.is_degraded(),
            "files": status.files.iter().map(file).collect::<Vec<_>>(),
        },
        "traffic": traffic(status),
        "process": {
            "resident_memory_bytes": status.process.resident_bytes,
            "cpu_seconds": status.process.cpu_seconds,
            "open_fds": status.process.open_fds,
            "max_fds": status.process.max_fds,
        },
        "results_last_hour": results(status::results(&status.hour)),
        "results_last_day": results(status::results(&status.day)),
        "latency_last_hour": {
            "tick": latency(&status::merged(&status.hour, |step| &step.tick)),
            "commit": latency(&status::merged(&status.hour, |step| &step.commit)),
        },
        "clients_last_day": clients(status),
        "limits_hit": tally(engine.limits_met()),
    });
    format!("{object}\n")
}

fn connections(status: &Status<'_>) -> Value {
    let engine = status.present.engine;
    json!({
        "now": status.present.connections,
        "bound": engine.store().bound_count(),
        "subscribed": engine.store().subscriptions_count(),
        "max": status.present.config.limits.connections_max,
        "accepted": engine.metrics().accepted,
        "ended": tally(&engine.metrics().ended),
    })
}

fn store(status: &Status<'_>) -> Value {
    let store = status.present.engine.store();
    let counts = store.counts();
    let [one, two, three, more] = store.nameplates_by_digits();
    json!({
        "apps": store.apps_count(),
        "nameplates": counts.nameplates,
        "nameplates_by_digits": {"1": one, "2": two, "3": three, "4+": more},
        "mailboxes": counts.mailboxes,
        "messages": counts.messages,
        "bytes": store.stored_bytes(),
        "bytes_max": status.present.config.limits.stored_bytes_max,
    })
}

fn file(file: &DatabaseFile) -> Value {
    json!({
        "name": file.name,
        "path": file.path.to_string_lossy(),
        "bytes": file.bytes,
        "wal_bytes": file.wal_bytes,
    })
}

fn traffic(status: &Status<'_>) -> Value {
    let metrics = status.present.engine.metrics();
    json!({
        "received_bytes": metrics.received_bytes,
        "sent_bytes": status.present.delivered.bytes,
        "messages_stored": metrics.messages_stored,
        "messages_delivered": status.present.delivered.messages,
        "commands": object(COMMAND_NAMES.into_iter().zip(metrics.commands)),
        "errors": tally(&metrics.errors),
    })
}

fn results(counts: OutcomeCounts) -> Value {
    object(counts.iter().map(|(outcome, count)| (outcome.name(), count)))
}

fn latency(durations: &Histogram) -> Value {
    let quantiles = status::quantiles(durations).unzip();
    json!({"p50_seconds": quantiles.0, "p99_seconds": quantiles.1})
}

fn clients(status: &Status<'_>) -> Vec<Value> {
    let Some(clients) = status.present.engine.clients() else { return Vec::new() };
    let (programs, mut others) = clients.last_day(status.now);
    let (shown, rest) = programs.split_at(programs.len().min(CLIENTS_SHOWN_MAX));
    let mut rows: Vec<Value> = shown
        .iter()
        .map(|(program, binds)| {
            json!({
                "implementation": program.implementation,
                "version": program.version,
                "binds": binds,
            })
        })
        .collect();
    others += rest.iter().map(|(_, binds)| binds).sum::<u64>();
    if others > 0 {
        let (implementation, version) = (Value::Null, Value::Null);
        rows.push(json!({
            "implementation": implementation, "version": version, "binds": others, "others": true,
        }));
    }
    rows
}

fn tally(tally: &Tally) -> Value {
    object(tally.iter())
}

fn object(pairs: impl Iterator<Item = (&'static str, u64)>) -> Value {
    Value::Object(pairs.map(|(name, count)| (name.to_owned(), count.into())).collect::<Map<_, _>>())
}
