//! Completions for fish.

use super::subcommands::{self, Subcommand};
use super::{Completions, OptionSpec, options, plain};

/// With a function that tests which command the line names, if any.
const HEAD: &str = "\
# Completions of wormhole-mailbox for fish.

function __wormhole_mailbox_command -a wanted
    set -l words (commandline -opc)
    set -l found ''
    if set -q words[2]; and not string match -q -- '-*' $words[2]
        set found $words[2]
    end
    test \"$found\" = \"$wanted\"
end

function __wormhole_mailbox_no_words
    test (count (commandline -opc)) -eq 1
end

complete -c wormhole-mailbox -f
";

pub fn text() -> String {
    let mut text = HEAD.to_owned();
    for Subcommand { name, about, .. } in subcommands::TABLE {
        text += &format!(
            "complete -c wormhole-mailbox -n __wormhole_mailbox_no_words -a {name} -d {}\n",
            quoted(plain(about).trim_end_matches('.'))
        );
    }
    text += &options::all().map(|row| line("", &row.spec)).collect::<String>();
    for Subcommand { name, rows, .. } in subcommands::TABLE {
        text += &rows.iter().map(|row| line(name, &row.spec)).collect::<String>();
    }
    text
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
