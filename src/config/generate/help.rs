//! The texts of `--help`.

use super::options::{self, GROUPS};
use super::subcommands::{self, Subcommand};
use super::{Group, Row, entries, plain};
use crate::format;

/// Column at which help texts begin, and the width they are wrapped to.
const INDENT: usize = 8;
const WIDTH: usize = 80;

/// The options of `--help` alone.
const MOST_USED: [&str; 12] = [
    "--port",
    "--admin",
    "--channel-db",
    "--usage-db",
    "--synchronous",
    "--config",
    "--motd",
    "--trusted-proxy",
    "--limit-connections",
    "--blur-usage",
    "--permission",
    "--log-level",
];

/// The help of the server: the most used options, or all; or of a command.
pub fn server(which: &str) -> Result<String, String> {
    match which {
        "" => Ok(most_used()),
        "all" => Ok(page(GROUPS.iter().map(group).collect())),
        _ => {
            let found = subcommands::TABLE.iter().find(|command| command.name == which);
            found.map(subcommand).ok_or_else(|| format!("'{which}' must be all or a command"))
        }
    }
}

/// The help of the server with the most used options.
pub fn most_used() -> String {
    let all = options::all();
    let found = MOST_USED.into_iter().filter_map(|name| all.iter().find(|row| row.name == name));
    let entries: String = found.map(|row| entry(row)).collect();
    page(format!("\nThe most used options; --help=all shows the others too:\n{entries}"))
}

fn page(options: String) -> String {
    format::fill(include_str!("template.txt"), &mut |name| match name {
        "commands" => subcommands::TABLE.iter().map(command).collect(),
        _ => options.clone(),
    })
}

fn command(Subcommand { name, about, .. }: &Subcommand) -> String {
    format!("  {name}\n{}", wrapped(INDENT, &plain(about)))
}

fn group(Group { title, rows }: &Group) -> String {
    format!("\n{title}:\n{}", entries(rows, entry))
}

/// The help of a subcommand.
pub fn subcommand(Subcommand { name, about, operand, rows, .. }: &Subcommand) -> String {
    let operand = operand.map(|(operand, _)| format!(" [{operand}]")).unwrap_or_default();
    let (about, options) = (wrapped(0, &plain(about)), entries(rows, entry));
    format!("{about}\nUsage: wormhole-mailbox {name}{operand} [options]\n\nOptions:\n{options}")
}

fn entry(row: &Row) -> String {
    let short = row.short.map(|short| format!("{short}, ")).unwrap_or_default();
    let value = row.value().map(|value| format!("={value}")).unwrap_or_default();
    format!("  {short}{}{value}\n{}", row.name, wrapped(INDENT, &row.help_with_default()))
}

fn wrapped(indent: usize, text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if indent + line.len() + 1 + word.len() <= WIDTH => {
                *line += " ";
                *line += word;
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.iter().map(|line| format!("{:indent$}{line}\n", "")).collect()
}
