//! Completions for zsh.

use super::subcommands::{self, Subcommand};
use super::{Arity, Completions, OptionSpec, entries, options, plain};
use crate::format;

pub fn text() -> String {
    format::fill(include_str!("template.zsh"), &mut |name| match name {
        "commands" => subcommands::TABLE.iter().map(case).collect(),
        "options" => options::all().map(|row| line("        ", &row.spec)).collect(),
        _ => subcommands::TABLE.iter().map(described).collect::<Vec<_>>().join(" "),
    })
}

fn case(Subcommand { name, rows, .. }: &Subcommand) -> String {
    let lines = entries(rows, &|option| line("                    ", option));
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
fn line(indent: &str, option: &OptionSpec) -> String {
    let (name, value) = (option.name, option.value().unwrap_or_default());
    let takes = match option.completions() {
        Completions::NoValue => String::new(),
        Completions::Files => format!(":{value}:_files"),
        Completions::Unknown => format!(":{value}: "),
        Completions::Choices(words) => format!(":value:({})", words.join(" ")),
    };
    let summary = option.summary().replace('\'', "'\\''");
    let summary = summary.replace('[', "\\[").replace(']', "\\]").replace(':', "\\:");
    let (glue, short_glue) = if option.arity == Arity::Flag { ("", "") } else { ("=", "+") };
    let is_repeatable = matches!(option.arity, Arity::Many(_));
    let names = match option.short {
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
