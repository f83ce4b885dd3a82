//! Completions for fish.

use super::subcommands::{self, Subcommand};
use super::{Completions, OptionSpec, entries, options, plain};
use crate::format;

pub fn text() -> String {
    format::fill(include_str!("template.fish"), &mut |name| match name {
        "commands" => subcommands::TABLE.iter().map(command).collect(),
        "options" => options::all().map(|row| line("", &row.spec)).collect(),
        _ => {
            let lines = |it: &Subcommand| entries(it.rows, &|option| line(it.name, option));
            subcommands::TABLE.iter().map(lines).collect()
        }
    })
}

fn command(Subcommand { name, about, .. }: &Subcommand) -> String {
    let about = quoted(plain(about).trim_end_matches('.'));
    format!("complete -c wormhole-mailbox -n __wormhole_mailbox_no_words -a {name} -d {about}\n")
}

fn line(command: &str, option: &OptionSpec) -> String {
    let name = option.name.trim_start_matches('-');
    let short = option.short.map(|short| format!(" -s {}", short.trim_start_matches('-')));
    let short = short.unwrap_or_default();
    let values = match option.completions() {
        Completions::NoValue => String::new(),
        Completions::Files => " -r -F".to_owned(),
        Completions::Unknown => " -x".to_owned(),
        Completions::Choices(words) => format!(" -x -a '{}'", words.join(" ")),
    };
    let condition = format!("\"__wormhole_mailbox_command '{command}'\"");
    let summary = quoted(&option.summary());
    format!("complete -c wormhole-mailbox -n {condition} -l {name}{short}{values} -d {summary}\n")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
