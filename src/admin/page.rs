//! The status page: one HTML document without scripts or other files, readable on a phone and in
//! the dark. The markup is in `page.html`, this fills it in; `tables` has the rows, `chart` the
//! drawings.

use super::chart::{self, Bar, Frame};
use super::status::{self, Bucket, Status};
use super::tables;
use crate::engine::metrics::Histogram;
use crate::format::{self, UNKNOWN, bytes, duration, number};
use crate::store::NAMEPLATE_CLASSES;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");

/// The whole document; with `refresh`, the browser loads it again after that many seconds.
pub fn render(status: &Status<'_>, refresh: Option<u32>) -> String {
    let view = status.view;
    let (store, limits, process) = (view.engine.store(), &view.config.limits, &status.process);
    let (counts, stored) = (store.counts(), store.stored_bytes());
    let (state, class, colour) = match status.health {
        Ok(()) => ("serving", "state", "12805c"),
        Err(why) => (why, "state bad", "b3261e"),
    };
    let (meta, switch) = match refresh {
        Some(seconds) => (
            format!("<meta http-equiv=\"refresh\" content=\"{seconds}\">"),
            "<a href=\".\">stop reloading</a>",
        ),
        None => (String::new(), "<a href=\"live\">reload every 10 seconds</a>"),
    };
    let percent = |part: usize, whole: usize| {
        format!("{:.1}", (100.0 * format::share(part as u64, whole as u64)).min(100.0))
    };
    let charts = |draw: &dyn Fn(&Span<'_>) -> String| spans(status).iter().map(draw).collect();
    format::fill(TEMPLATE, |name| match name {
        "refresh" => meta.clone(),
        "state" => state.to_owned(),
        "state-class" => class.to_owned(),
        "colour" => colour.to_owned(),
        "style" => STYLE.to_owned(),
        "version" => status.version.to_owned(),
        "uptime" => duration(status.uptime),
        "switch" => switch.to_owned(),
        "connections" => number(view.connections as u64),
        "connections-max" => number(limits.connections_max as u64),
        "connections-percent" => percent(view.connections, limits.connections_max),
        "bound" => number(store.bound_count() as u64),
        "subscribed" => number(store.subscriptions_count() as u64),
        "nameplates" => number(counts.nameplates as u64),
        "nameplates-by-digits" => by_digits(store.nameplates_by_digits()),
        "mailboxes" => number(counts.mailboxes as u64),
        "messages" => number(counts.messages as u64),
        "stored" => bytes(stored as u64),
        "stored-max" => bytes(limits.stored_bytes_max as u64),
        "stored-percent" => percent(stored, limits.stored_bytes_max),
        "memory" => process.resident_bytes.map_or_else(|| UNKNOWN.to_owned(), bytes),
        "cpu-time" => duration(process.cpu_seconds),
        "exchange-charts" => charts(&exchange_chart),
        "connection-charts" => charts(&connection_chart),
        "tick-charts" => charts(&|span| latency_chart(span, "tick", "Tick", |it| &it.tick)),
        "commit-charts" => charts(&|span| latency_chart(span, "commit", "Commit", |it| &it.commit)),
        "results" => tables::results(status),
        "clients" => tables::clients(status),
        "files" => tables::files(status),
        "storage-state" => tables::storage_state(view.engine),
        "limits" => tables::limits(status),
        "counts" => tables::counts(status),
        _ => UNKNOWN.to_owned(),
    })
}

fn by_digits(counts: [usize; NAMEPLATE_CLASSES]) -> String {
    const NAMES: [&str; NAMEPLATE_CLASSES] = ["1 digit", "2 digits", "3 digits", "4 and more"];
    let named = NAMES.into_iter().zip(counts).filter(|(_, count)| *count > 0);
    let parts: Vec<String> = named.map(|(name, count)| format!("{count} of {name}")).collect();
    if parts.is_empty() { "none alive".to_owned() } else { parts.join(", ") }
}

/// The time span of a chart; each chart is drawn for the last hour and the last day.
struct Span<'a> {
    name: &'static str,
    buckets: &'a [Bucket],
    caption: &'static str,
    bucket: &'static str,
    when: [&'static str; 2],
    bucket_minutes: usize,
}

fn spans<'a>(status: &'a Status<'_>) -> [Span<'a>; 2] {
    [
        Span {
            name: "hour",
            buckets: &status.hour,
            caption: "Last hour",
            bucket: "per minute",
            when: ["1 h ago", "30 min"],
            bucket_minutes: 1,
        },
        Span {
            name: "day",
            buckets: &status.day,
            caption: "Last day",
            bucket: "per 15 minutes",
            when: ["24 h ago", "12 h"],
            bucket_minutes: 15,
        },
    ]
}

impl Span<'_> {
    fn ago(&self, bucket: usize) -> String {
        match (self.buckets.len() - 1 - bucket) * self.bucket_minutes {
            0 => "now".to_owned(),
            minutes => format!("{} ago", duration(minutes as f64 * 60.0)),
        }
    }

    fn frame<'b>(&'b self, id: &'b str, caption: &'b str, description: &'b str) -> Frame<'b> {
        Frame { id, caption, bucket: self.bucket, description, when: self.when }
    }
}

fn exchange_chart(span: &Span<'_>) -> String {
    let counts = status::outcomes(span.buckets);
    let named: Vec<String> =
        counts.iter().map(|(it, count)| format!("{count} {}", it.name())).collect();
    let description = format!("{} mailboxes ended: {}.", counts.total(), named.join(", "));
    let bars: Vec<Bar> = span.buckets.iter().enumerate().map(|it| bar(span, it)).collect();
    let id = format!("exchanges-{}", span.name);
    chart::bars(span.frame(&id, span.caption, &description), &bars)
}

fn bar(span: &Span<'_>, (index, bucket): (usize, &Bucket)) -> Bar {
    let outcomes = bucket.outcomes.iter().filter(|(_, count)| *count > 0);
    let parts: Vec<_> = outcomes.map(|(outcome, count)| (outcome.name(), count)).collect();
    let named: Vec<String> = parts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    Bar { hint: format!("{}: {}", span.ago(index), named.join(", ")), parts }
}

fn connection_chart(span: &Span<'_>) -> String {
    let values: Vec<Option<u64>> =
        span.buckets.iter().map(|it| it.connections.map(|count| count as u64)).collect();
    let most = values.iter().flatten().max().copied().unwrap_or(0);
    let id = format!("connections-{}", span.name);
    let description = format!("At most {most} connections at once.");
    chart::curve(span.frame(&id, span.caption, &description), &values, |bucket, value| {
        format!("{}: at most {value}", span.ago(bucket))
    })
}

fn latency_chart(
    span: &Span<'_>,
    id: &str,
    name: &str,
    durations: fn(&Bucket) -> &Histogram,
) -> String {
    let values: Vec<_> = span.buckets.iter().map(|it| status::quantiles(durations(it))).collect();
    let all = status::quantiles(&status::merged(span.buckets, durations));
    let text = |(median, slow): (f64, f64)| {
        format!("half within {}, 99 % within {}", duration(median), duration(slow))
    };
    let id = format!("{id}-{}", span.name);
    let caption = format!("{name}, {}", span.caption.to_lowercase());
    let description = all.map_or_else(|| "None.".to_owned(), text);
    chart::durations(span.frame(&id, &caption, &description), &values, |bucket, value| {
        format!("{}: {}", span.ago(bucket), text(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_the_template_has_a_value() {
        let source = include_str!("page.rs");
        _ = format::fill(TEMPLATE, |name| {
            assert!(source.contains(&format!("\"{name}\" =>")), "{name}");
            String::new()
        });
    }
}
