//! The tables of the status page: results, clients, files, limits, counts.
//!
//! A part of `page`, which has the rest of the document.

use super::status::{self, Status};
use crate::engine::Engine;
use crate::engine::limit_log::Limit;
use crate::format::{UNKNOWN, bytes, escaped, number};
use crate::limits::{self, CLIENTS_SHOWN_MAX};
use crate::message::COMMAND_NAMES;
use crate::message::close::{CloseReason, FrameError};
use crate::message::outcome::Outcome;

/// How many mailboxes ended how; also the legend of the bars.
pub fn results(status: &Status<'_>) -> String {
    let (hour, day) = (status::results(&status.hour), status::results(&status.day));
    let mut rows: Vec<Row> = Vec::new();
    for outcome in Outcome::all() {
        let name = outcome.name();
        rows.push(Row(vec![
            Cell::Head(format!("<i class=\"swatch {name}\"></i>{name}")),
            Cell::Optional(outcome.meaning().to_owned()),
            Cell::Number(count(&format!("hour-{name}"), hour.get(outcome))),
            Cell::Number(count(&format!("day-{name}"), day.get(outcome))),
        ]));
    }
    rows.push(Row(vec![
        Cell::Head("all".to_owned()),
        Cell::Optional("mailboxes that ended".to_owned()),
        Cell::Number(count("hour-all", hour.total())),
        Cell::Number(count("day-all", day.total())),
    ]));
    table("Mailboxes that ended", "", &["Result", "", "Last hour", "Last day"], &rows)
}

/// Which programs bound in the last day. Their names are what they say.
pub fn clients(status: &Status<'_>) -> String {
    let (programs, mut others) =
        status.present.engine.clients().map(|it| it.last_day(status.now)).unwrap_or_default();
    let (shown, rest) = programs.split_at(programs.len().min(CLIENTS_SHOWN_MAX));
    others += rest.iter().map(|(_, binds)| binds).sum::<u64>();
    let name = |name: &Option<Box<str>>| match name {
        Some(name) => format!("<bdi>{}</bdi>", escaped(name)),
        None => "not told".to_owned(),
    };
    let mut rows: Vec<Row> = shown
        .iter()
        .map(|(program, binds)| {
            Row(vec![
                Cell::Head(name(&program.implementation)),
                Cell::Text(name(&program.version)),
                Cell::Number(number(*binds)),
            ])
        })
        .collect();
    if others > 0 {
        rows.push(Row(vec![
            Cell::Head("all others".to_owned()),
            Cell::Text(String::new()),
            Cell::Number(number(others)),
        ]));
    }
    if rows.is_empty() {
        return "<p>Nobody has bound in the last day.</p>".to_owned();
    }
    table(
        "Who bound",
        "in the last day, as they call themselves",
        &["Client", "Version", "Times"],
        &rows,
    )
}

/// The database files, and whether they work.
pub fn storage(status: &Status<'_>) -> String {
    let engine = status.present.engine;
    let rows: Vec<Row> = status
        .files
        .iter()
        .map(|file| {
            let size =
                |size: Option<u64>| Cell::Number(size.map_or_else(|| UNKNOWN.to_owned(), bytes));
            Row(vec![
                Cell::Head(file.name.to_owned()),
                Cell::Text(escaped(&file.path.to_string_lossy())),
                size(file.bytes),
                size(file.wal_bytes),
            ])
        })
        .collect();
    let state = if engine.is_degraded() {
        "The channel database cannot be written; the server tries again every second."
    } else {
        "The channel database works."
    };
    let failed = match engine.metrics().commits_failed {
        0 => "No commit has failed since the start.".to_owned(),
        failed => format!("{} commits have failed since the start.", number(failed)),
    };
    let columns = ["Database", "File", "Size", "Write-ahead log"];
    format!("{}<p>{state} {failed}</p>", table("Files", "", &columns, &rows))
}

/// The limits in force, and how often they were met.
pub fn limits(status: &Status<'_>) -> String {
    let present = status.present;
    let rows: Vec<Row> = limits::TABLE
        .iter()
        .map(|limit| {
            let value = (limit.get)(&present.config.limits);
            let value =
                value.map_or_else(|| UNKNOWN.to_owned(), |value| in_force(value, limit.unit));
            Row(vec![
                Cell::Head(in_short(limit.about)),
                Cell::Optional(format!("<code>{}</code>", limit.option)),
                Cell::Number(value),
                Cell::Number(
                    times_met(limit.option, present.engine)
                        .map_or_else(|| UNKNOWN.to_owned(), shaded),
                ),
            ])
        })
        .collect();
    table(
        "In force",
        "and how often met since the start",
        &["What", "Option", "Limit", "Met"],
        &rows,
    )
}

/// What a limit bounds, without what is said besides.
fn in_short(about: &str) -> String {
    let short = about.split(';').next().unwrap_or(about);
    short.trim_end_matches('.').replace('`', "")
}

fn in_force(value: f64, unit: &str) -> String {
    match unit {
        "bytes" => bytes(value as u64),
        _ if value.fract() == 0.0 => format!("{} {unit}", number(value as u64)),
        _ => format!("{value} {unit}"),
    }
}

/// How often the limit of an option was met, if that is counted.
fn times_met(option: &str, engine: &Engine) -> Option<u64> {
    const TOO_LONG: CloseReason = CloseReason::Violation(FrameError::TooLong);
    match (option, Limit::of_option(option)) {
        ("--limit-message-bytes" | "--limit-frame-bytes", _) => {
            Some(engine.metrics().ended.get(TOO_LONG.name()))
        }
        (_, limit) => Some(engine.limits_met().get(limit?.label())),
    }
}

/// Counts of all that came, and of what became of it.
pub fn counts(status: &Status<'_>) -> String {
    let metrics = status.present.engine.metrics();
    let delivered = status.present.delivered;
    let traffic = [
        ("connections accepted", number(metrics.accepted)),
        ("messages stored", number(metrics.messages_stored)),
        ("messages delivered", number(delivered.messages)),
        ("received", bytes(metrics.received_bytes)),
        ("sent", bytes(delivered.bytes)),
    ];
    let traffic = traffic.map(|(name, count)| (name.to_owned(), count));
    let commands = COMMAND_NAMES.into_iter().zip(metrics.commands).filter(|(_, count)| *count > 0);
    let told = |(name, count): (&str, u64)| (escaped(name).replace('_', " "), number(count));
    let lists = [
        list("Traffic", "Nothing yet.", traffic),
        list("Commands", "None yet.", commands.map(told)),
        list("Errors answered", "None yet.", metrics.errors.iter().map(told)),
        list("Connections ended", "None yet.", metrics.ended.iter().map(told)),
    ];
    format!("<div class=\"pair\">{}</div>", lists.concat())
}

fn list(caption: &str, nothing: &str, rows: impl IntoIterator<Item = (String, String)>) -> String {
    let rows: Vec<Row> = rows
        .into_iter()
        .map(|(name, count)| Row(vec![Cell::Head(name), Cell::Number(count)]))
        .collect();
    if rows.is_empty() {
        return format!("<div class=\"table\"><h3>{caption}</h3><p>{nothing}</p></div>");
    }
    table(caption, "", &[], &rows)
}

/// One field of a table; all are HTML.
enum Cell {
    /// What the row is about.
    Head(String),
    Text(String),
    /// Left out where there is little room.
    Optional(String),
    Number(String),
}

struct Row(Vec<Cell>);

impl Row {
    fn html(&self) -> String {
        let cells = self.0.iter().map(|cell| match cell {
            Cell::Head(text) => format!("<th scope=\"row\">{text}</th>"),
            Cell::Text(text) => format!("<td>{text}</td>"),
            Cell::Optional(text) => format!("<td class=\"optional\">{text}</td>"),
            Cell::Number(text) => format!("<td class=\"number\">{text}</td>"),
        });
        format!("<tr>{}</tr>", cells.collect::<String>())
    }
}

/// A table; its columns are laid out as in the first row, and may go without names.
fn table(caption: &str, remark: &str, columns: &[&str], rows: &[Row]) -> String {
    let first = rows.first().map(|row| row.0.as_slice()).unwrap_or_default();
    let heads = columns.iter().zip(first).map(|(name, cell)| match cell {
        Cell::Number(_) => format!("<th scope=\"col\" class=\"number\">{name}</th>"),
        Cell::Optional(_) => format!("<th scope=\"col\" class=\"optional\">{name}</th>"),
        _ => format!("<th scope=\"col\">{name}</th>"),
    });
    let heads: String = heads.collect();
    let head = if heads.is_empty() { heads } else { format!("<thead><tr>{heads}</tr></thead>") };
    let body: String = rows.iter().map(Row::html).collect();
    format!(
        "<div class=\"table\"><table><caption>{caption} <span>{remark}</span></caption>{head}\
         <tbody>{body}</tbody></table></div>"
    )
}

/// A count that the page's address can point to.
fn count(id: &str, count: u64) -> String {
    format!("<span id=\"{id}\">{}</span>", shaded(count))
}

/// A count, less strong if there is nothing.
fn shaded(count: u64) -> String {
    if count == 0 { "<span class=\"zero\">0</span>".to_owned() } else { number(count) }
}
