//! Completions for zsh.

use super::subcommands::{self, Subcommand};
use super::{Arity, Completions, OptionSpec, options, plain};

const HEAD: &str = "\
#compdef wormhole-mailbox
# Completions of wormhole-mailbox for zsh.

_wormhole-mailbox() {
    if (( CURRENT > 2 )); then
        case $words[2] in
";

const TAIL: &str = "    )
    _arguments -s $arguments
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _wormhole-mailbox \"$@\"
else
    compdef _wormhole-mailbox wormhole-mailbox
fi
";

pub fn text() -> String {
    let mut text = HEAD.to_owned();
    let mut described = String::new();
    for Subcommand { name, about, rows, .. } in subcommands::TABLE {
        text += &format!("            {name})\n                local -a arguments=(\n");
        let lines = rows.iter().map(|row| line("                    ", &row.spec));
        text += &lines.collect::<String>();
        text += "                )\n                shift words\n                (( CURRENT-- ))\n";
        text += "                _arguments -s $arguments\n                return\n                ;;\n";
        described +=
            &format!(" {name}\\:\"{}\"", plain(about).trim_end_matches('.').replace(':', "\\:"));
    }
    text += "        esac\n    fi\n    local -a arguments=(\n";
    text += &options::all().map(|row| line("        ", &row.spec)).collect::<String>();
    text += &format!("        '1:command:(({}))'\n", described.trim_start());
    text + TAIL
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
    let repeated = if is_repeatable { "*" } else { "" };
    match option.short {
        None => format!("{indent}'{repeated}{name}{glue}[{summary}]{takes}'\n"),
        Some(short) if is_repeatable => {
            format!("{indent}'*'{{{short}{short_glue},{name}{glue}}}'[{summary}]{takes}'\n")
        }
        Some(short) => format!(
            "{indent}'({short} {name})'{{{short}{short_glue},{name}{glue}}}'[{summary}]{takes}'\n"
        ),
    }
}
