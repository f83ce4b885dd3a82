//! Completions for bash 4 and newer; needs no other package.
//!
//! In bash `=` is a word of its own, so `--name=va` arrives as three words.

use super::subcommands::{self, Subcommand};
use super::{Completions, OptionSpec, options};

const HEAD: &str = "\
# Completions of wormhole-mailbox for bash.

_wormhole_mailbox() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} names
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    COMPREPLY=()
    case $before in
";

/// No space follows a name that ends in `=`.
const TAIL: &str = "    esac
    mapfile -t COMPREPLY < <(compgen -W \"$names\" -- \"$word\")
    if [[ ${COMPREPLY[0]} == *= ]]; then compopt -o nospace; fi
}

complete -F _wormhole_mailbox wormhole-mailbox
";

pub fn text() -> String {
    let mut all: Vec<&OptionSpec> = options::all().map(|row| &row.spec).collect();
    let served = names(&all);
    let mut by_command = String::new();
    let mut command_names = Vec::new();
    for Subcommand { name, rows, .. } in subcommands::TABLE {
        let specs: Vec<&OptionSpec> = rows.iter().map(|row| &row.spec).collect();
        by_command += &format!("        {name}) names='{}' ;;\n", names(&specs));
        command_names.push(*name);
        all.extend(specs);
    }
    let command_names = command_names.join(" ");
    let mut text = HEAD.to_owned() + &cases(&all);
    text += "    esac\n    case ${COMP_WORDS[1]} in\n";
    text += &by_command;
    text += &format!("        *)\n            names='{served}'\n");
    text += &format!(
        "            if [[ $COMP_CWORD == 1 ]]; then names+=' {command_names}'; fi\n            ;;\n"
    );
    text + TAIL
}

/// The values after each option that has one.
fn cases(options: &[&OptionSpec]) -> String {
    let mut files = Vec::new();
    let mut free = Vec::new();
    let mut choices = Vec::new();
    for option in options {
        let patterns = option.short.into_iter().chain([option.name]);
        match option.completions() {
            Completions::NoValue => {}
            Completions::Files => files.extend(patterns),
            Completions::Unknown => free.extend(patterns),
            Completions::Choices(words) => choices.push((option.name, words.join(" "))),
        }
    }
    let mut cases = String::new();
    for (name, words) in choices {
        cases += &format!(
            "        {name})\n            mapfile -t COMPREPLY < <(compgen -W '{words}' -- \"$word\")\n            \
             return\n            ;;\n"
        );
    }
    cases += &format!(
        "        {})\n            compopt -o filenames\n            \
         mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n            return\n            ;;\n",
        patterns(files)
    );
    cases + &format!("        {}) return ;;\n", patterns(free))
}

fn patterns(mut names: Vec<&'static str>) -> String {
    names.sort_unstable();
    names.dedup();
    names.join(" | ")
}

fn names(options: &[&OptionSpec]) -> String {
    let name = |option: &&OptionSpec| match option.value() {
        None => option.name.to_owned(),
        Some(_) => format!("{}=", option.name),
    };
    options.iter().map(name).collect::<Vec<_>>().join(" ")
}
