//! Completions for zsh.

use super::{Arity, CommandSpec, OptionSpec, Values, options, subcommands, summary, values};

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
    for CommandSpec { name, about, options } in subcommands::all() {
        text += &format!("            {name})\n                local -a arguments=(\n");
        text +=
            &options.iter().map(|option| line("                    ", option)).collect::<String>();
        text += "                )\n                shift words\n                (( CURRENT-- ))\n";
        text += "                _arguments -s $arguments\n                return\n                ;;\n";
        described += &format!(" {name}\\:\"{}\"", about.trim_end_matches('.').replace(':', "\\:"));
    }
    text += "        esac\n    fi\n    local -a arguments=(\n";
    text += &options::all().map(|option| line("        ", &option)).collect::<String>();
    text += &format!("        '1:command:(({}))'\n", described.trim_start());
    text + TAIL
}

/// One argument of `_arguments`: which option, how often, what it is, what comes after it.
fn line(indent: &str, option: &OptionSpec) -> String {
    let OptionSpec { name, short, arity, value, help } = option;
    let takes = match values(option) {
        Values::None => String::new(),
        Values::Files => format!(":{value}:_files"),
        Values::Free => format!(":{value}: "),
        Values::Choices(words) => format!(":value:({})", words.join(" ")),
    };
    let summary = summary(help).replace('\'', "'\\''");
    let summary = summary.replace('[', "\\[").replace(']', "\\]").replace(':', "\\:");
    let (glue, short_glue) = if *arity == Arity::Flag { ("", "") } else { ("=", "+") };
    let often = if *arity == Arity::Many { "*" } else { "" };
    match short {
        None => format!("{indent}'{often}{name}{glue}[{summary}]{takes}'\n"),
        Some(short) if *arity == Arity::Many => {
            format!("{indent}'*'{{{short}{short_glue},{name}{glue}}}'[{summary}]{takes}'\n")
        }
        Some(short) => format!(
            "{indent}'({short} {name})'{{{short}{short_glue},{name}{glue}}}'[{summary}]{takes}'\n"
        ),
    }
}
