//! Completions for fish.

use super::subcommands::{self, Subcommand};
use super::{Completions, Row, options, plain};
use crate::format;

pub fn text() -> String {
    format::fill(include_str!("template.fish"), &mut |name| match name {
        "commands" => subcommands::TABLE.iter().map(command).collect(),
        "options" => options::all().into_iter().map(|row| line("", row)).collect(),
        _ => {
            let lines = |it: &'static Subcommand| it.rows.iter().map(|row| line(it.name, row));
            subcommands::TABLE.iter().flat_map(lines).collect()
        }
    })
}

fn command(Subcommand { name, about, .. }: &Subcommand) -> String {
    let about = quoted(plain(about).trim_end_matches('.'));
    format!("complete -c wormhole-mailbox -n __wormhole_mailbox_no_words -a {name} -d {about}\n")
}

fn line(command: &str, row: &Row) -> String {
    let name = row.name.trim_start_matches('-');
    let short = row.short.map(|short| format!(" -s {}", short.trim_start_matches('-')));
    let short = short.unwrap_or_default();
    let values = match row.completions() {
        Completions::NoValue => String::new(),
        Completions::Files => " -r -F".to_owned(),
        Completions::Unknown => " -x".to_owned(),
        Completions::Choices(words) => format!(" -x -a '{}'", words.join(" ")),
    };
    let condition = format!("\"__wormhole_mailbox_command '{command}'\"");
    let summary = quoted(&row.summary());
    format!("complete -c wormhole-mailbox -n {condition} -l {name}{short}{values} -d {summary}\n")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
