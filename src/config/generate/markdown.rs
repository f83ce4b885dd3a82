//! The option reference of the manual, `src/manual/options.md`, as a whole page.

use super::options::GROUPS;
use super::subcommands::{self, Subcommand};
use super::{Group, Row, ShownDefault, entries};
use crate::config::spec::Action;
use crate::config::websocket_options;
use crate::format;

pub fn text() -> String {
    format::fill(include_str!("template.md"), &mut |name| match name {
        "options" => GROUPS.iter().map(section).collect(),
        "protocol-options" => websocket_options::TABLE.iter().map(protocol_option).collect(),
        _ => subcommands::TABLE.iter().map(command).collect(),
    })
}

fn section(group: &Group) -> String {
    let has_effects = group.rows.iter().any(|row| effect(row).is_some());
    let (head, columns) = if has_effects { (LIMITS, LIMIT_COLUMNS) } else { ("", COLUMNS) };
    let row = |row: &Row| {
        let reload = if row.action.is_reloadable() { "yes" } else { "" };
        let effect = has_effects.then(|| format!(" {} |", effect(row).unwrap_or_default()));
        format!("{}{} {reload} |\n", entry(row), effect.unwrap_or_default())
    };
    let rows: String = group.rows.iter().map(row).collect();
    format!("\n## {}\n{head}\n{columns}{rows}", group.title)
}

const LIMITS: &str = "
No honest client meets one of the defaults. [Limits][limits] has the texts that clients see, and the
memory that follows from them.
";

const LIMIT_COLUMNS: &str =
    "| Option | Bounds | Default | At the limit | Reload |\n|---|---|---|---|---|\n";

const COLUMNS: &str = "| Option | Meaning | Default | Reload |\n|---|---|---|---|\n";

/// The effect on a client that meets the limit.
fn effect(row: &Row) -> Option<&'static str> {
    match row.action {
        Action::Limit(limit) => Some(limit.effect),
        _ => None,
    }
}

fn protocol_option(row: &Row) -> String {
    format!("| `{}` | {} | `{}` |\n", row.name, row.help, row.default().unwrap_or_default())
}

fn command(Subcommand { name, about, rows, .. }: &Subcommand) -> String {
    let rows = entries(rows, |row| entry(row) + "\n");
    format!(
        "\n## Subcommand `{name}`\n\n{about}\n\n| Option | Meaning | Default |\n|---|---|---|\n{rows}"
    )
}

/// The first three columns of a row.
fn entry(row: &Row) -> String {
    let short = row.short.map(|short| format!(", `{short}`")).unwrap_or_default();
    let value = row.value().map(alternatives).unwrap_or_default();
    let default = row.default().unwrap_or_default().replace('|', "\\|");
    let help = row.help.replace('|', "\\|");
    let more = match row.default {
        ShownDefault::Each(_) => " See [below](#protocol-options).",
        _ => "",
    };
    format!("| `{}`{short}{value} | {help}{more} | {default} |", row.name)
}

/// The name of a value, or its alternatives: `a`, `b` or `c`.
fn alternatives(value: &str) -> String {
    match value.rsplit_once('|') {
        None => format!(" `{value}`"),
        Some((others, last)) => format!(" `{}` or `{last}`", others.replace('|', "`, `")),
    }
}
