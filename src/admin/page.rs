//! The status page: one HTML document that needs nothing else, readable without scripts, on a phone
//! and in the dark.
//!
//! `tables` has what is told in rows, `chart` draws.

use super::chart::{self, Bar, Frame};
use super::history::Step;
use super::status::{self, Status};
use super::tables;
use crate::engine::metrics::Histogram;
use crate::format::{UNKNOWN, bytes, duration, number};
use crate::store::NAMEPLATE_CLASSES;

/// The whole document; `refresh` makes it ask for itself again after so many seconds.
pub fn render(status: &Status<'_>, refresh: Option<u32>) -> String {
    let (state, class) = match status.health {
        Ok(()) => ("serving".to_owned(), "state"),
        Err(why) => (why.to_owned(), "state bad"),
    };
    let (meta, switch) = match refresh {
        Some(seconds) => (
            format!("<meta http-equiv=\"refresh\" content=\"{seconds}\">"),
            "<a href=\".\">stop refreshing</a>".to_owned(),
        ),
        None => (String::new(), "<a href=\"live\">keep it fresh</a>".to_owned()),
    };
    let style = include_str!("style.css");
    let icon = icon(status.health.is_ok());
    let (version, uptime) = (status.version, duration(status.uptime));
    let sections = [
        section("now", "Now", &now(status)),
        section("exchanges", "Exchanges", &exchanges(status)),
        section("connections", "Connections", &connections(status)),
        section("latency", "Latency", &latency(status)),
        section("clients", "Clients", &tables::clients(status)),
        section("storage", "Storage", &tables::storage(status)),
        section("limits", "Limits", &tables::limits(status)),
        section("counts", "Since the start", &tables::counts(status)),
    ]
    .concat();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">{meta}\
         <title>Mailbox server: {state}</title><link rel=\"icon\" href=\"{icon}\">\
         <style>{style}</style></head><body>\
         <header><h1>Mailbox server</h1><p class=\"{class}\" id=\"state\">{state}</p>\
         <p>wormhole-mailbox <span id=\"version\">{version}</span>, up \
         <span id=\"uptime\">{uptime}</span> · {switch}</p></header>\
         <main>{sections}</main>\
         <footer>The same for programs: <a href=\"metrics\">metrics</a>, \
         <a href=\"status.json\">status.json</a>, <a href=\"healthz\">healthz</a>.</footer>\
         </body></html>\n"
    )
}

/// A dot for the browser's tab, green or red.
fn icon(is_well: bool) -> String {
    let colour = if is_well { "12805c" } else { "b3261e" };
    format!(
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E\
         %3Ccircle cx='4' cy='4' r='3.5' fill='%23{colour}'/%3E%3C/svg%3E"
    )
}

fn section(id: &str, title: &str, content: &str) -> String {
    format!(
        "<section aria-labelledby=\"{id}-heading\"><h2 id=\"{id}-heading\">{title}</h2>{content}\
         </section>"
    )
}

fn now(status: &Status<'_>) -> String {
    let present = status.present;
    let (store, limits) = (present.engine.store(), &present.config.limits);
    let (counts, stored) = (store.counts(), store.stored_bytes());
    let process = &status.process;
    let tiles = [
        tile(
            "connections-now",
            "Connections",
            &number(present.connections as u64),
            &format!("of {} allowed", number(limits.connections_max as u64)),
            Some(present.connections as f64 / limits.connections_max as f64),
        ),
        tile(
            "bound",
            "Bound",
            &number(store.bound_count() as u64),
            &format!("{} listening to a mailbox", number(store.subscriptions_count() as u64)),
            None,
        ),
        tile(
            "nameplates",
            "Nameplates",
            &number(counts.nameplates as u64),
            &digits(store.nameplates_by_digits()),
            None,
        ),
        tile(
            "mailboxes",
            "Mailboxes",
            &number(counts.mailboxes as u64),
            &format!("{} messages", number(counts.messages as u64)),
            None,
        ),
        tile(
            "stored",
            "Stored",
            &bytes(stored as u64),
            &format!("of {} allowed", bytes(limits.stored_bytes_max as u64)),
            Some(stored as f64 / limits.stored_bytes_max as f64),
        ),
        tile(
            "memory",
            "Memory",
            &process.resident_bytes.map_or_else(|| UNKNOWN.to_owned(), bytes),
            &format!("{} of CPU time", duration(process.cpu_seconds)),
            None,
        ),
    ];
    format!("<dl class=\"tiles\">{}</dl>", tiles.concat())
}

/// How many digits nameplates have, in words.
fn digits(counts: [usize; NAMEPLATE_CLASSES]) -> String {
    const NAMES: [&str; NAMEPLATE_CLASSES] = ["1 digit", "2 digits", "3 digits", "4 and more"];
    let named = NAMES.into_iter().zip(counts).filter(|(_, count)| *count > 0);
    let parts: Vec<String> = named.map(|(name, count)| format!("{count} of {name}")).collect();
    if parts.is_empty() { "none alive".to_owned() } else { parts.join(", ") }
}

/// A number that counts, with a note, and a bar for its share of what is allowed.
fn tile(id: &str, name: &str, value: &str, note: &str, share: Option<f64>) -> String {
    let bar = share.map_or_else(String::new, |share| {
        let percent = (share * 100.0).clamp(0.0, 100.0);
        format!("<dd class=\"bar\"><i style=\"width:{percent:.1}%\"></i></dd>")
    });
    format!(
        "<div><dt>{name}</dt><dd class=\"value\" id=\"{id}\">{value}</dd>\
         <dd class=\"note\">{note}</dd>{bar}</div>"
    )
}

/// The two spans of time that each chart is drawn for.
struct Span<'a> {
    name: &'static str,
    steps: &'a [Step],
    caption: &'static str,
    step: &'static str,
    when: [&'static str; 2],
    /// Minutes of a step.
    minutes: usize,
}

fn spans<'a>(status: &'a Status<'_>) -> [Span<'a>; 2] {
    [
        Span {
            name: "hour",
            steps: &status.hour,
            caption: "Last hour",
            step: "per minute",
            when: ["1 h ago", "30 min"],
            minutes: 1,
        },
        Span {
            name: "day",
            steps: &status.day,
            caption: "Last day",
            step: "per 15 minutes",
            when: ["24 h ago", "12 h"],
            minutes: 15,
        },
    ]
}

impl Span<'_> {
    /// How long ago a step was, in words.
    fn ago(&self, step: usize) -> String {
        match (self.steps.len() - 1 - step) * self.minutes {
            0 => "now".to_owned(),
            minutes => format!("{} ago", duration(minutes as f64 * 60.0)),
        }
    }

    fn frame<'b>(&'b self, id: &'b str, caption: &'b str, description: &'b str) -> Frame<'b> {
        Frame { id, caption, step: self.step, description, when: self.when }
    }
}

fn exchanges(status: &Status<'_>) -> String {
    let charts: String = spans(status)
        .iter()
        .map(|span| {
            let counts = status::results(span.steps);
            let total = counts.total();
            let named: Vec<String> =
                counts.iter().map(|(it, count)| format!("{count} {}", it.name())).collect();
            let description = format!("{total} mailboxes ended: {}.", named.join(", "));
            let bars: Vec<Bar> = span.steps.iter().enumerate().map(|it| bar(span, it)).collect();
            chart::bars(
                span.frame(&format!("exchanges-{}", span.name), span.caption, &description),
                &bars,
            )
        })
        .collect();
    format!("<div class=\"pair\">{charts}</div>{}", tables::results(status))
}

fn bar(span: &Span<'_>, (index, step): (usize, &Step)) -> Bar {
    let parts: Vec<_> = step.outcomes.iter().map(|(it, count)| (it.name(), count)).collect();
    let named: Vec<String> = parts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    Bar { words: format!("{}: {}", span.ago(index), named.join(", ")), parts }
}

fn connections(status: &Status<'_>) -> String {
    let charts: String = spans(status)
        .iter()
        .map(|span| {
            let values: Vec<Option<u64>> =
                span.steps.iter().map(|it| it.connections.map(|count| count as u64)).collect();
            let most = values.iter().flatten().max().copied().unwrap_or(0);
            chart::curve(
                span.frame(
                    &format!("connections-{}", span.name),
                    span.caption,
                    &format!("At most {most} connections at once."),
                ),
                &values,
                |step, value| format!("{}: at most {value}", span.ago(step)),
            )
        })
        .collect();
    format!("<div class=\"pair\">{charts}</div>")
}

fn latency(status: &Status<'_>) -> String {
    type Durations = fn(&Step) -> &Histogram;
    let kinds: [(&str, &str, Durations); 2] = [
        ("tick", "Turn of the loop", |step| &step.tick),
        ("commit", "Commit", |step| &step.commit),
    ];
    let mut pairs = String::new();
    for (id, name, durations) in kinds {
        let charts: String =
            spans(status).iter().map(|span| latency_chart(span, id, name, durations)).collect();
        pairs += &format!("<div class=\"pair\">{charts}</div>");
    }
    format!(
        "<p>The line is what half of them took at most, the band reaches up to what 99 % took.</p>\
         {pairs}"
    )
}

fn latency_chart(
    span: &Span<'_>,
    id: &str,
    name: &str,
    durations: fn(&Step) -> &Histogram,
) -> String {
    let values: Vec<_> = span.steps.iter().map(|it| status::quantiles(durations(it))).collect();
    let all = status::quantiles(&status::merged(span.steps, durations));
    let told = |(half, most): (f64, f64)| {
        format!("half within {}, 99 % within {}", duration(half), duration(most))
    };
    let caption = format!("{name}, {}", span.caption.to_lowercase());
    chart::durations(
        span.frame(
            &format!("{id}-{}", span.name),
            &caption,
            &all.map_or_else(|| "None.".to_owned(), told),
        ),
        &values,
        |step, value| format!("{}: {}", span.ago(step), told(value)),
    )
}
