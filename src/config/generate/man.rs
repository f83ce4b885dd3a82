//! The manual page, for `man -l` and `/usr/share/man/man8`.

use super::options::GROUPS;
use super::subcommands::{self, Subcommand};
use super::{Group, Row, entries, plain};
use crate::format;

/// The date is that of the last change of the page's text, so that builds are reproducible.
const TITLE: &str = concat!(
    r#".TH WORMHOLE\-MAILBOX 8 2026-11-26 "wormhole\-mailbox "#,
    env!("CARGO_PKG_VERSION"),
    r#"" "System Administration""#
);

pub fn text() -> String {
    format::fill(include_str!("template.man"), &mut |name| match name {
        "title" => TITLE.to_owned(),
        "options" => GROUPS.iter().map(section).collect(),
        _ => subcommands::TABLE.iter().map(command).collect(),
    })
}

fn section(group: &Group) -> String {
    format!(".SS {}\n{}", escaped(group.title), entries(group.rows, entry))
}

fn command(Subcommand { name, about, rows, .. }: &Subcommand) -> String {
    format!(".SS {name}\n{}\n{}", escaped(&plain(about)), entries(rows, entry))
}

fn entry(row: &Row) -> String {
    let short = row.short.map(|short| format!("{}\\fR, \\fB", escaped(short)));
    let value = row.value().map(|value| format!("\\fR=\\fI{}", escaped(value)));
    let (short, value) = (short.unwrap_or_default(), value.unwrap_or_default());
    let (name, help) = (escaped(row.name), escaped(&row.help_with_default()));
    format!(".TP\n\\fB{short}{name}{value}\\fR\n{help}\n")
}

/// Literal text: dashes and backslashes as typed, and no line that begins as a request would.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
