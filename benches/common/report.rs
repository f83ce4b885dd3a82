//! Outcomes for people (a table) and for machines (JSON).

use std::time::Duration;

use serde_json::{Value, json};

use super::modes::Outcome;

/// The shares that are reported, with their names.
pub const QUANTILES: [(&str, f64); 4] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// A share of a core from which the tool may itself have been the bottleneck.
const OWN_CPU_SUSPECT: f64 = 0.9;

/// A duration with a fitting unit and three digits.
pub fn time(time: Duration) -> String {
    let nanos = time.as_nanos() as f64;
    match nanos {
        _ if nanos < 1e3 => format!("{nanos:.0} ns"),
        _ if nanos < 1e6 => digits(nanos / 1e3, "µs"),
        _ if nanos < 1e9 => digits(nanos / 1e6, "ms"),
        _ => digits(nanos / 1e9, "s"),
    }
}

/// A size with a fitting unit.
pub fn bytes(bytes: f64) -> String {
    match bytes {
        _ if bytes < 1024.0 => format!("{bytes:.0} B"),
        _ if bytes < 1024.0 * 1024.0 => digits(bytes / 1024.0, "KiB"),
        _ => digits(bytes / 1024.0 / 1024.0, "MiB"),
    }
}

fn digits(value: f64, unit: &str) -> String {
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    let text = format!("{value:.digits$}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}")
}

/// The table at the end of a run.
pub fn table(outcome: &Outcome, open_loop: bool) -> String {
    let mut rows = vec![
        (outcome.unit.to_owned(), outcome.operations().to_string()),
        ("per second".to_owned(), format!("{:.0}", outcome.per_second())),
    ];
    for (name, share) in QUANTILES {
        rows.push((format!("latency {name}"), time(outcome.latency.quantile(share))));
    }
    rows.push(("latency max".to_owned(), time(outcome.latency.max())));
    if outcome.unanswered > 0 {
        rows.push(("never answered".to_owned(), outcome.unanswered.to_string()));
    }
    if let Some(server) = outcome.server {
        let share = server.cpu.as_secs_f64() / outcome.elapsed.as_secs_f64();
        rows.push(("server CPU".to_owned(), format!("{:.0} % of a core", share * 100.0)));
        if let Some(cpu) = outcome.cpu_per_operation() {
            rows.push(("  per operation".to_owned(), time(Duration::from_secs_f64(cpu))));
        }
        rows.push(("server memory".to_owned(), bytes(server.resident_bytes as f64)));
        match outcome.written_per_operation() {
            Some(written) => {
                rows.push(("written per operation".to_owned(), bytes(written)));
            }
            None => rows.push(("written".to_owned(), "not readable for this user".to_owned())),
        }
        if let Some(syncs) = outcome.syncs_per_operation() {
            rows.push(("fsyncs per operation".to_owned(), format!("{syncs:.2}")));
        }
    }
    let own = format!("{:.0} % of a core", outcome.own_cpu_share * 100.0);
    let remark = match outcome.own_cpu_share > OWN_CPU_SUSPECT {
        true if open_loop => " (it spins between messages, to be on time)",
        true => ": it may be the bottleneck, not the server",
        false => "",
    };
    rows.push(("this tool's CPU".to_owned(), own + remark));
    rows.iter().map(|(name, value)| format!("  {name:<24}{value}\n")).collect()
}

/// The same for machines; times are in microseconds.
pub fn json(outcome: &Outcome) -> Value {
    let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
    let latency: serde_json::Map<String, Value> = QUANTILES
        .iter()
        .map(|(name, share)| ((*name).to_owned(), json!(micros(outcome.latency.quantile(*share)))))
        .chain([
            ("mean".to_owned(), json!(micros(outcome.latency.mean()))),
            ("max".to_owned(), json!(micros(outcome.latency.max()))),
        ])
        .collect();
    json!({
        "unit": outcome.unit,
        "seconds": outcome.elapsed.as_secs_f64(),
        "operations": outcome.operations(),
        "per_second": outcome.per_second(),
        "latency_us": latency,
        "never_answered": outcome.unanswered,
        "server": outcome.server.map(|server| json!({
            "cpu_seconds": server.cpu.as_secs_f64(),
            "cpu_us_per_operation": outcome.cpu_per_operation().map(|cpu| cpu * 1e6),
            "resident_bytes": server.resident_bytes,
            "written_bytes": server.written_bytes,
            "written_bytes_per_operation": outcome.written_per_operation(),
            "fsyncs_per_operation": outcome.syncs_per_operation(),
        })),
        "tool_cpu_share": outcome.own_cpu_share,
    })
}
