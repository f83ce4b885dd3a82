//! The texts of `--help`.

use super::options::GROUPS;
use super::subcommands::{self, Subcommand};
use super::{Group, OptionSpec, Settings, entries, plain};
use crate::format;

/// Column at which help texts begin, and the width they are wrapped to.
const INDENT: usize = 8;
const WIDTH: usize = 92;

/// The help of the server.
pub fn server() -> String {
    format::fill(include_str!("template.txt"), |name| match name {
        "commands" => subcommands::TABLE.iter().map(command).collect(),
        _ => GROUPS.iter().map(group).collect(),
    })
}

fn command(Subcommand { name, about, .. }: &Subcommand) -> String {
    format!("  {name}\n{}", wrapped(&plain(about)))
}

fn group(Group { title, rows }: &Group<Settings>) -> String {
    format!("\n{title}:\n{}", entries(rows, entry))
}

/// The help of a subcommand.
pub fn subcommand(Subcommand { name, about, rows, .. }: &Subcommand) -> String {
    let (about, options) = (plain(about), entries(rows, entry));
    format!("{about}\n\nUsage: wormhole-mailbox {name} [options]\n\nOptions:\n{options}")
}

fn entry(spec: &OptionSpec) -> String {
    let short = spec.short.map(|short| format!("{short}, ")).unwrap_or_default();
    let value = spec.value().map(|value| format!("={value}")).unwrap_or_default();
    format!("  {short}{}{value}\n{}", spec.name, wrapped(&spec.help_with_default()))
}

fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && INDENT + line.len() + 1 + word.len() > WIDTH {
            lines += &format!("{:INDENT$}{line}\n", "");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    lines + &format!("{:INDENT$}{line}\n", "")
}
