//! The metrics in Prometheus' text format 0.0.4.

use std::fmt::{self, Write};

use super::metrics::{Metric, Value};

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Precedes all names but those of `process_` metrics, which are the same for all programs.
const PREFIX: &str = "wormhole_mailbox_";

pub fn render(metrics: &[Metric<'_>]) -> String {
    let mut out = String::new();
    for metric in metrics {
        // Writing to memory cannot fail.
        _ = family(&mut out, metric);
    }
    out
}

fn family(out: &mut String, metric: &Metric<'_>) -> fmt::Result {
    let prefix = if metric.name.starts_with("process_") { "" } else { PREFIX };
    let name = format!("{prefix}{}", metric.name);
    let kind = match metric.value {
        Value::Unknown => return Ok(()),
        Value::Histogram(..) => "histogram",
        _ if name.ends_with("_total") => "counter",
        _ => "gauge",
    };
    writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help)?;
    match &metric.value {
        Value::Unknown => {}
        Value::Count(count) => writeln!(out, "{name} {count}")?,
        Value::Seconds(seconds) => writeln!(out, "{name} {seconds}")?,
        Value::Labelled(label, counts) => {
            for (value, count) in counts {
                writeln!(out, "{name}{{{label}=\"{value}\"}} {count}")?;
            }
        }
        Value::Histogram(histogram, bounds) => {
            for (bound, count) in bounds.iter().zip(histogram.cumulative()) {
                writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {count}")?;
            }
            let (count, sum) = (histogram.count(), histogram.sum);
            writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}")?;
            writeln!(out, "{name}_sum {sum}\n{name}_count {count}")?;
        }
    }
    Ok(())
}
