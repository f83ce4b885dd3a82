//! The rows of the status page's tables. All cells are HTML: texts of peers and paths are escaped.

use super::metrics::{Metric, Value};
use super::status::{Counts, Status};
use crate::engine::Engine;
use crate::engine::members::MemberCounts;
use crate::format::{bytes, escaped, fill, number, or_unknown};
use crate::limits;
use crate::message::Outcome;

/// How many mailboxes ended with each result; also the legend of the bars.
pub fn results(status: &Status<'_>) -> String {
    let [hour, day] = [&status.hour, &status.day].map(|it| Counts::sum(it).outcomes);
    let row = |name: &str, head: String, meaning: &str, hour: u64, day: u64| {
        let count = |span: &str, count| format!("<span id=\"{span}-{name}\">{}</span>", dim(count));
        row(&[head, optional(meaning), numeric(&count("hour", hour)), numeric(&count("day", day))])
    };
    let mut rows = String::new();
    for outcome in Outcome::all() {
        let name = outcome.name();
        let head = head(&format!("<i class=\"swatch {name}\"></i>{name}"));
        rows += &row(name, head, outcome.meaning(), hour.get(outcome), day.get(outcome));
    }
    rows + &row("all", head("all"), "mailboxes that ended", hour.total(), day.total())
}

/// The client programs that bound in the last day, by the names they send.
pub fn clients(status: &Status<'_>) -> String {
    let (programs, others) = status.client_programs();
    let name = |name: &Option<Box<str>>| match name {
        Some(name) => format!("<bdi>{}</bdi>", escaped(name)),
        None => "unnamed".to_owned(),
    };
    let mut rows = String::new();
    for (program, binds) in &programs {
        let (name, version) = (name(&program.implementation), name(&program.version));
        rows += &row(&[head(&name), cell(&version), numeric(&number(*binds))]);
    }
    if others > 0 {
        rows += &row(&[head("all others"), cell(""), numeric(&number(others))]);
    }
    if rows.is_empty() { row(&[head("No client has bound.")]) } else { rows }
}

/// The section about members; nothing if there is no file of them.
pub fn members(engine: &Engine) -> String {
    let Some(members) = engine.members() else { return String::new() };
    let rows = members.into_iter().map(|(name, counts)| {
        let MemberCounts { connected, connections, exchanges } = counts;
        let cells = [exchanges, connections, connected].map(|count| numeric(&dim(count)));
        row(&[&[head(&escaped(&name))][..], &cells].concat())
    });
    let rows: String = rows.collect();
    fill(include_str!("members.html"), &mut |_| rows.clone())
}

pub fn files(status: &Status<'_>) -> String {
    let size = |size: Option<u64>| numeric(&or_unknown(size, bytes));
    let rows = status.files.iter().map(|file| {
        let path = cell(&escaped(&file.path.to_string_lossy()));
        row(&[head(file.name), path, size(file.bytes), size(file.wal_bytes)])
    });
    rows.collect()
}

pub fn storage_state(engine: &Engine) -> String {
    let state = if engine.is_degraded() {
        "The channel database cannot be written; the server tries again every second."
    } else {
        "The channel database works."
    };
    match engine.metrics.commits_failed {
        0 => format!("{state} No commit has failed since the start."),
        failed => format!("{state} {} commits have failed since the start.", number(failed)),
    }
}

/// The limits in force, and how often they were met.
pub fn limits(status: &Status<'_>) -> String {
    let view = status.view;
    let rows = limits::TABLE.iter().map(|limit| {
        let value = (limit.get)(&view.config.limits);
        let met = limit.counter.map(|label| view.engine.limit_log.total(label));
        row(&[
            head(&in_short(limit.about)),
            optional(&format!("<code>{}</code>", limit.option)),
            numeric(&or_unknown(value, |it| with_unit(it, limit.unit))),
            numeric(&or_unknown(met, dim)),
        ])
    });
    rows.collect()
}

/// The first clause of what a limit bounds.
fn in_short(about: &str) -> String {
    let short = about.split(';').next().unwrap_or(about);
    short.trim_end_matches('.').replace('`', "")
}

fn with_unit(value: f64, unit: &str) -> String {
    match unit {
        "bytes" => bytes(value as u64),
        _ if value.fract() == 0.0 => format!("{} {unit}", number(value as u64)),
        _ => format!("{value} {unit}"),
    }
}

/// Whole tables: one of all single counts, and one for each metric with a label.
pub fn counts(metrics: &[Metric<'_>]) -> String {
    let (mut traffic, mut tables) = (String::new(), String::new());
    for metric in metrics.iter().filter(|metric| !metric.page.is_empty()) {
        if let Value::Labelled(_, counts) = &metric.value {
            let occurred = counts.iter().filter(|(_, count)| *count > 0);
            let rows = occurred.map(|(name, count)| {
                row(&[head(&name.replace('_', " ")), numeric(&number(*count))])
            });
            tables += &table(metric.page, &rows.collect::<String>());
        } else if let Some(count) = metric.shown() {
            traffic += &row(&[head(metric.page), numeric(&count)]);
        }
    }
    table("Traffic", &traffic) + &tables
}

fn table(caption: &str, rows: &str) -> String {
    if rows.is_empty() {
        return format!("<div class=\"table\"><h3>{caption}</h3><p>None yet.</p></div>");
    }
    format!(
        "<div class=\"table\"><table><caption>{caption}</caption><tbody>{rows}</tbody></table></div>"
    )
}

fn row(cells: &[String]) -> String {
    format!("<tr>{}</tr>", cells.concat())
}

fn head(html: &str) -> String {
    format!("<th scope=\"row\">{html}</th>")
}

fn cell(html: &str) -> String {
    format!("<td>{html}</td>")
}

/// A cell that is left out on narrow screens.
fn optional(html: &str) -> String {
    format!("<td class=\"optional\">{html}</td>")
}

fn numeric(html: &str) -> String {
    format!("<td class=\"number\">{html}</td>")
}

/// A count, dimmed if it is 0.
fn dim(count: u64) -> String {
    if count == 0 { "<span class=\"zero\">0</span>".to_owned() } else { number(count) }
}
