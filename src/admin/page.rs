//! The status page: one HTML document that needs nothing else, readable without scripts, on a phone
//! and in the dark.
//!
//! `tables` has what is told in rows, `chart` draws. Text from outside must pass [`escaped`].

use super::chart::{self, Bar, Frame};
use super::history::Step;
use super::status::{self, Status};
use super::tables;
use crate::metrics::{Histogram, RESULTS};

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
         <title>Mailbox server: {state}</title><link rel=\"icon\" href=\"data:,\">\
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
    let [one, two, three, more] = store.nameplates_by_digits();
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
            &format!("{one} of 1 digit, {two} of 2, {three} of 3, {more} of more"),
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
            &process.resident_bytes.map_or_else(unknown, bytes),
            &format!("{} of CPU time", duration(process.cpu_seconds)),
            None,
        ),
    ];
    format!("<dl class=\"tiles\">{}</dl>", tiles.concat())
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
            let total: u64 = counts.iter().sum();
            let named: Vec<String> =
                RESULTS.iter().zip(counts).map(|(name, count)| format!("{count} {name}")).collect();
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
    let parts: Vec<_> = RESULTS.into_iter().zip(step.results).collect();
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
            let values: Vec<u64> = span.steps.iter().map(|it| it.connections as u64).collect();
            let most = values.iter().max().copied().unwrap_or(0);
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
        format!("half within {}, 99 % within {}", short_time(half), short_time(most))
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

/// What stands where a number is not known.
pub fn unknown() -> String {
    "–".to_owned()
}

/// A number with its thousands apart.
pub fn number(number: u64) -> String {
    const GROUP: usize = 3;
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(GROUP) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes in the unit that suits it.
pub fn bytes(bytes: u64) -> String {
    const STEP: f64 = 1024.0;
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if (bytes as f64) < STEP {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / STEP;
    let mut unit = units[0];
    for next in &units[1..] {
        if value < STEP {
            break;
        }
        (value, unit) = (value / STEP, next);
    }
    let decimals = if value < 10.0 && value.fract() >= 0.05 { 1 } else { 0 };
    format!("{value:.decimals$} {unit}")
}

/// A time of seconds and more, in its two largest units.
pub fn duration(seconds: f64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut left = seconds as u64;
    let mut parts = Vec::new();
    for (size, unit) in UNITS {
        if left >= size {
            parts.push(format!("{} {unit}", left / size));
        } else if !parts.is_empty() {
            break; // "2 d 5 min" would be read as something else
        }
        left %= size;
    }
    parts.truncate(2);
    if parts.is_empty() { "0 s".to_owned() } else { parts.join(" ") }
}

/// A time of seconds and less, to two digits.
fn short_time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        ..0.001 => (seconds * 1e6, "µs"),
        ..1.0 => (seconds * 1e3, "ms"),
        _ => (seconds, "s"),
    };
    let decimals = if value < 10.0 { 1 } else { 0 };
    format!("{value:.decimals$} {unit}")
}

/// Text from outside as HTML text: no markup, and nothing that cannot be seen.
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Also what turns the direction of writing around.
            char if char.is_control()
                || matches!(char, '\u{200e}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                out.push(char::REPLACEMENT_CHARACTER);
            }
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_as_people_read_them() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0, 1023, 1024, 1_600_000, 128 << 20, 5 << 40].map(bytes),
            ["0 B", "1023 B", "1 KiB", "1.5 MiB", "128 MiB", "5 TiB"]
        );
        assert_eq!(
            [0.4, 61.0, 3_600.0, 86_400.0 * 2.0 + 300.0, 90_061.0].map(duration),
            ["0 s", "1 min 1 s", "1 h", "2 d", "1 d 1 h"]
        );
        assert_eq!(
            [0.000012, 0.0034, 0.25, 2.0].map(short_time),
            ["12 µs", "3.4 ms", "250 ms", "2.0 s"]
        );
    }

    #[test]
    fn hostile_text_is_only_text() {
        assert_eq!(
            escaped("<a href='x'>&\"\u{202e}\u{1b}"),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;\u{fffd}\u{fffd}"
        );
    }
}
