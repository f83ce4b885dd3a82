//! The texts of `--help`.

use super::options::GROUPS;
use super::subcommands::{self, Subcommand};
use super::{OptionSpec, entries, plain};

/// Column at which help texts begin, and the width they are wrapped to.
const INDENT: usize = 8;
const WIDTH: usize = 92;

const HEAD: &str = "\
A Magic Wormhole mailbox server.

Usage: wormhole-mailbox [options]
       wormhole-mailbox COMMAND [options]

--name=VALUE and --name VALUE both work.

Commands, each with its own --help:
";

/// The help of the server.
pub fn server() -> String {
    let mut text = HEAD.to_owned();
    for Subcommand { name, about, .. } in subcommands::TABLE {
        text += &format!("  {name}\n{}", wrapped(&plain(about)));
    }
    for group in GROUPS {
        text += &format!("\n{}:\n", group.title);
        text += &entries(group.rows, entry);
    }
    text
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
