//! The status page: one HTML document without scripts or other files, readable on a phone and in
//! the dark. The markup is in `page.html`, this fills it in: names with a slash are keys of metrics
//! in `/status.json`. `tables` has the rows, `chart` the drawings.

use super::chart::{self, Bar, Frame, Scale, Span};
use super::metrics::{self, Metric};
use super::status::{self, Bucket, Counts, Status};
use super::tables;
use crate::engine::metrics::Histogram;
use crate::format::{self, UNKNOWN, duration, number};
use crate::limits::{DAY_BUCKET_SECONDS, HOUR_BUCKET_SECONDS};
use crate::store::NAMEPLATE_CLASSES;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");

/// The whole document; with `refresh`, the browser loads it again after that many seconds.
pub fn render(status: &Status<'_>, refresh: Option<u32>) -> String {
    let view = status.view;
    let (stored, limits) = (view.engine.stored(), &view.config.limits);
    let metrics = metrics::all(status);
    let (state, class, colour) = match view.engine.can_serve() {
        Ok(()) => ("serving".to_owned(), "state", "12805c"),
        Err(why) => (format::escaped(&why), "state bad", "b3261e"),
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
    format::fill(TEMPLATE, &mut |name| match name {
        "refresh" => meta.clone(),
        "state" => state.clone(),
        "state-class" => class.to_owned(),
        "colour" => colour.to_owned(),
        "style" => STYLE.to_owned(),
        "version" => status::VERSION.to_owned(),
        "uptime" => duration(status.uptime),
        "switch" => switch.to_owned(),
        "connections-percent" => percent(view.connections, limits.connections_max),
        "nameplates" => number(stored.nameplates as u64),
        "nameplates-by-digits" => by_digits(stored.nameplates_by_digits),
        "stored-percent" => percent(stored.bytes, limits.stored_bytes_max),
        "exchange-charts" => charts(status, exchange_chart),
        "connection-charts" => charts(status, connection_chart),
        "tick-charts" => {
            charts(status, |span, buckets| latency_chart(span, buckets, "Tick", |it| &it.tick))
        }
        "commit-charts" => {
            charts(status, |span, buckets| latency_chart(span, buckets, "Commit", |it| &it.commit))
        }
        "results" => tables::results(status),
        "members" => tables::members(view.engine),
        "clients" => tables::clients(status),
        "files" => tables::files(status),
        "storage-state" => tables::storage_state(view.engine),
        "limits" => tables::limits(status),
        "counts" => tables::counts(&metrics),
        key => {
            let metric = metrics.iter().find(|metric| metric.json == key);
            metric.and_then(Metric::shown).unwrap_or_else(|| UNKNOWN.to_owned())
        }
    })
}

fn by_digits(counts: [usize; NAMEPLATE_CLASSES]) -> String {
    const NAMES: [&str; NAMEPLATE_CLASSES] = ["1 digit", "2 digits", "3 digits", "4 and more"];
    let counts = NAMES.into_iter().zip(counts).filter(|(_, count)| *count > 0);
    let parts: Vec<String> = counts.map(|(name, count)| format!("{count} of {name}")).collect();
    if parts.is_empty() { "none alive".to_owned() } else { parts.join(", ") }
}

/// Draws a chart of the last hour and one of the last day.
fn charts(status: &Status<'_>, draw: impl Fn(&Span, &[Bucket]) -> String) -> String {
    draw(&HOUR, &status.hour) + &draw(&DAY, &status.day)
}

const HOUR: Span = Span {
    name: "hour",
    caption: "Last hour",
    bucket: "per minute",
    when: ["1 h ago", "30 min"],
    bucket_seconds: HOUR_BUCKET_SECONDS,
};

const DAY: Span = Span {
    name: "day",
    caption: "Last day",
    bucket: "per 15 minutes",
    when: ["24 h ago", "12 h"],
    bucket_seconds: DAY_BUCKET_SECONDS,
};

fn ago(span: &Span, buckets: usize, bucket: usize) -> String {
    match buckets - 1 - bucket {
        0 => "now".to_owned(),
        since => format!("{} ago", duration(since as f64 * span.bucket_seconds)),
    }
}

fn named(counts: impl Iterator<Item = (&'static str, u64)>) -> String {
    counts.map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}

fn exchange_chart(span: &Span, buckets: &[Bucket]) -> String {
    let counts = Counts::sum(buckets).outcomes;
    let all = named(counts.iter().map(|(outcome, count)| (outcome.name(), count)));
    let description = format!("{} mailboxes ended: {all}.", counts.total());
    let bars = buckets.iter().enumerate().map(|(index, bucket)| {
        let outcomes = bucket.counts.outcomes.iter().filter(|(_, count)| *count > 0);
        let parts: Vec<_> = outcomes.map(|(outcome, count)| (outcome.name(), count)).collect();
        let ago = ago(span, buckets.len(), index);
        Bar { hint: format!("{ago}: {}", named(parts.iter().copied())), parts }
    });
    let bars: Vec<Bar> = bars.collect();
    chart::bars(Frame { span, id: "exchanges", caption: span.caption, description }, &bars)
}

fn connection_chart(span: &Span, buckets: &[Bucket]) -> String {
    let most = buckets.iter().filter_map(|it| it.connections).max().unwrap_or(0);
    let description = format!("At most {most} connections at once.");
    let frame = Frame { span, id: "connections", caption: span.caption, description };
    let values: Vec<_> =
        buckets.iter().map(|it| it.connections.map(|count| (count as f64, 0.0))).collect();
    chart::curve(frame, &Scale::linear(most as u64), &values, &|bucket, (count, _)| {
        format!("{}: at most {count}", ago(span, buckets.len(), bucket))
    })
}

fn latency_chart(
    span: &Span,
    buckets: &[Bucket],
    name: &str,
    durations: fn(&Counts) -> &Histogram,
) -> String {
    let values: Vec<_> =
        buckets.iter().map(|it| status::quantiles(durations(&it.counts))).collect();
    let all = status::quantiles(durations(&Counts::sum(buckets)));
    let text = |(median, slow): (f64, f64)| {
        format!("half within {}, 99 % within {}", duration(median), duration(slow))
    };
    let caption = format!("{name}, {}", span.caption.to_ascii_lowercase());
    let description = all.map_or_else(|| "None.".to_owned(), text);
    let frame = Frame { span, id: &name.to_ascii_lowercase(), caption: &caption, description };
    let known = || values.iter().flatten();
    let least = known().map(|(median, _)| *median).fold(f64::INFINITY, f64::min);
    let most = known().map(|(_, slow)| *slow).fold(0.0, f64::max);
    chart::curve(frame, &Scale::logarithmic(least, most), &values, &|bucket, value| {
        format!("{}: {}", ago(span, buckets.len(), bucket), text(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_the_template_has_a_value() {
        _ = format::fill(TEMPLATE, &mut |name| {
            let (file, row) = match name.contains('/') {
                true => (include_str!("metrics.rs"), format!("\"{name}\", ")),
                false => (include_str!("page.rs"), format!("\"{name}\" =>")),
            };
            assert!(file.contains(&row), "{name}");
            String::new()
        });
    }
}
