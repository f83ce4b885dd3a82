//! `/status.json`: the metrics that have a key there, and what is not a number. Existing keys must
//! not change.

use serde_json::{Value as Json, json};

use super::histogram::Histogram;
use super::metrics::{self, Value};
use super::status::{self, Counts, FileSizes, Status};
use crate::engine::members::MemberCounts;

pub fn render(status: &Status<'_>) -> String {
    let engine = status.view.engine;
    let (hour, day) = (Counts::sum(&status.hour), Counts::sum(&status.day));
    let mut object = json!({
        "version": status::VERSION,
        "now": status.view.clock.wall.0,
        "uptime_seconds": status.uptime,
        "health": status.view.engine.can_serve().err().as_deref().unwrap_or("ok"),
        "store": { "nameplates": engine.stored().nameplates },
        "storage": {
            "degraded": engine.is_degraded(),
            "files": status.files.iter().map(file).collect::<Vec<_>>(),
        },
        "results_last_hour": results(&hour),
        "results_last_day": results(&day),
        "latency_last_hour": { "tick": latency(&hour.tick), "commit": latency(&hour.commit) },
        "clients_last_day": clients(status),
    });
    if let Some(members) = engine.members() {
        object["members"] = members.iter().map(|(name, counts)| member(name, counts)).collect();
    }
    for metric in metrics::all(status).iter().filter(|metric| !metric.json.is_empty()) {
        let value = match &metric.value {
            Value::Count(count) => json!(count),
            Value::Seconds(seconds) => json!(seconds),
            Value::Labelled(_, counts) => self::counts(counts.iter().copied()),
            Value::Unknown | Value::Histogram(..) => Json::Null,
        };
        match metric.json.split_once('/') {
            Some((group, key)) => object[group][key] = value,
            None => object[metric.json] = value,
        }
    }
    format!("{object}\n")
}

fn member(name: &str, counts: &MemberCounts) -> Json {
    let MemberCounts { connected, connections, exchanges } = counts;
    json!({
        "name": name,
        "connected": connected,
        "connections": connections,
        "exchanges": exchanges,
    })
}

fn counts(counts: impl Iterator<Item = (&'static str, u64)>) -> Json {
    let mut object = json!({});
    counts.for_each(|(name, count)| object[name] = count.into());
    object
}

fn file(file: &FileSizes) -> Json {
    json!({
        "name": file.name,
        "path": file.path.to_string_lossy(),
        "bytes": file.bytes,
        "wal_bytes": file.wal_bytes,
    })
}

fn results(of: &Counts) -> Json {
    counts(of.outcomes.iter().map(|(outcome, count)| (outcome.name(), count)))
}

fn latency(durations: &Histogram) -> Json {
    let (median, slow) = status::quantiles(durations).unzip();
    json!({"p50_seconds": median, "p99_seconds": slow})
}

fn clients(status: &Status<'_>) -> Vec<Json> {
    let (programs, others) = status.client_programs();
    let rows = programs.iter().map(|(program, binds)| {
        json!({
            "implementation": program.implementation,
            "version": program.version,
            "binds": binds,
        })
    });
    let others = (others > 0).then(|| {
        json!({
            "implementation": null, "version": null, "binds": others, "others": true,
        })
    });
    rows.chain(others).collect()
}
