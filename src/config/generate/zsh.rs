//! Completions for zsh.

use super::subcommands::{self, Subcommand};
use super::{Arity, Completions, Row, options, plain};
use crate::format;

pub fn text() -> String {
    format::fill(include_str!("template.zsh"), &mut |name| match name {
        "commands" => subcommands::TABLE.iter().map(case).collect(),
        "options" => options::all().into_iter().map(|row| line("        ", row)).collect(),
        _ => subcommands::TABLE.iter().map(described).collect::<Vec<_>>().join(" "),
    })
}

fn case(Subcommand { name, rows, .. }: &Subcommand) -> String {
    let lines: String = rows.iter().map(|row| line("                    ", row)).collect();
    format!(
        "            {name})
                local -a arguments=(
{lines}                )
                shift words
                (( CURRENT-- ))
                _arguments -s $arguments
                return
                ;;
"
    )
}

fn described(Subcommand { name, about, .. }: &Subcommand) -> String {
    let about = plain(about).trim_end_matches('.').replace(':', "\\:");
    format!("{name}\\:\"{about}\"")
}

/// One argument of `_arguments`: option, repetition, summary, values.
fn line(indent: &str, row: &Row) -> String {
    let (name, value) = (row.name, row.value().unwrap_or_default());
    let takes = match row.completions() {
        Completions::NoValue => String::new(),
        Completions::Files => format!(":{value}:_files"),
        Completions::Unknown => format!(":{value}: "),
        Completions::Choices(words) => format!(":value:({})", words.join(" ")),
    };
    let summary = row.summary().replace('\'', "'\\''");
    let summary = summary.replace('[', "\\[").replace(']', "\\]").replace(':', "\\:");
    let (glue, short_glue) = if row.arity == Arity::Flag { ("", "") } else { ("=", "+") };
    let is_repeatable = matches!(row.arity, Arity::Many(_));
    let names = match row.short {
        None if is_repeatable => format!("'*{name}{glue}"),
        None => format!("'{name}{glue}"),
        Some(short) => {
            let repetition =
                if is_repeatable { "*".to_owned() } else { format!("({short} {name})") };
            format!("'{repetition}'{{{short}{short_glue},{name}{glue}}}'")
        }
    };
    format!("{indent}{names}[{summary}]{takes}'\n")
}
