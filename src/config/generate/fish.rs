//! Completions for fish.

use super::{CommandSpec, OptionSpec, Values, options, subcommands, summary, values};

/// The condition: which command, if any, the line names.
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
    let commands = subcommands::all();
    for CommandSpec { name, about, .. } in &commands {
        text += &format!(
            "complete -c wormhole-mailbox -n __wormhole_mailbox_no_words -a {name} -d {}\n",
            quoted(about.trim_end_matches('.'))
        );
    }
    for option in options::all() {
        text += &line("", &option);
    }
    for CommandSpec { name, options, .. } in &commands {
        for option in options {
            text += &line(name, option);
        }
    }
    text
}

fn line(command: &str, option: &OptionSpec) -> String {
    let name = option.name.trim_start_matches('-');
    let short = option.short.map(|short| format!(" -s {}", short.trim_start_matches('-')));
    let short = short.unwrap_or_default();
    let values = match values(option) {
        Values::None => String::new(),
        Values::Files => " -r -F".to_owned(),
        Values::Free => " -x".to_owned(),
        Values::Choices(words) => format!(" -x -a '{}'", words.join(" ")),
    };
    let condition = format!("\"__wormhole_mailbox_command '{command}'\"");
    let summary = quoted(&summary(&option.help));
    format!("complete -c wormhole-mailbox -n {condition} -l {name}{short}{values} -d {summary}\n")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
