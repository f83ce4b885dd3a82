//! Completions for bash (4 and newer), fish and zsh. They need no other package.
//!
//! In bash `=` is a word of its own, so `--name=va` arrives as three words. No space follows a name
//! that ends in `=`.

use super::subcommands::{Subcommand, TABLE};
use super::{Arity, Row, options, plain};
use crate::format;
use crate::sorted::sorted;

/// Values of an option that a shell can offer.
enum Completions {
    /// The option is a flag.
    NoValue,
    Choices(Vec<&'static str>),
    Files,
    Unknown,
}

impl Row {
    fn completions(&self) -> Completions {
        match self.value() {
            None => Completions::NoValue,
            Some("FILE") => Completions::Files,
            Some(value) if value.contains('|') => Completions::Choices(value.split('|').collect()),
            Some(_) => Completions::Unknown,
        }
    }

    /// The first sentence of the help.
    fn summary(&self) -> String {
        let first = self.help.split(". ").next().unwrap_or(self.help);
        plain(first.trim_end_matches('.'))
    }
}

pub fn bash() -> String {
    format::fill(include_str!("template.bash"), &mut |name| match name {
        "values" => bash_values(),
        "commands" => TABLE.iter().map(bash_command).collect(),
        "options" => bash_options(&options::all()),
        _ => TABLE.iter().map(|it| it.name).collect::<Vec<_>>().join(" "),
    })
}

/// The values after each option that has one.
fn bash_values() -> String {
    let of_commands = TABLE.iter().flat_map(|it| it.rows);
    let (mut files, mut free, mut cases) = (Vec::new(), Vec::new(), String::new());
    for row in options::all().into_iter().chain(of_commands) {
        let patterns = row.short.into_iter().chain([row.name]);
        match row.completions() {
            Completions::NoValue => {}
            Completions::Files => files.extend(patterns),
            Completions::Unknown => free.extend(patterns),
            Completions::Choices(words) => {
                let generator = format!("-W '{}'", words.join(" "));
                cases += &bash_case(row.name, "", &generator);
            }
        }
    }
    cases += &bash_case(&bash_patterns(files), "            compopt -o filenames\n", "-f");
    cases + &format!("        {}) return ;;\n", bash_patterns(free))
}

fn bash_case(pattern: &str, options: &str, generator: &str) -> String {
    format!(
        "        {pattern})
{options}            mapfile -t COMPREPLY < <(compgen {generator} -- \"$word\")
            return
            ;;
"
    )
}

fn bash_patterns(names: Vec<&'static str>) -> String {
    let mut names = sorted(names);
    names.dedup();
    names.join(" | ")
}

fn bash_command(Subcommand { name, rows, .. }: &Subcommand) -> String {
    format!("        {name}) names='{}' ;;\n", bash_options(&rows.iter().collect::<Vec<_>>()))
}

fn bash_options(rows: &[&Row]) -> String {
    let word = |row: &&Row| row.name.to_owned() + if row.value().is_some() { "=" } else { "" };
    rows.iter().map(word).collect::<Vec<_>>().join(" ")
}

pub fn fish() -> String {
    format::fill(include_str!("template.fish"), &mut |name| match name {
        "commands" => TABLE.iter().map(fish_command).collect(),
        "options" => options::all().into_iter().map(|row| fish_option("", row)).collect(),
        _ => {
            let lines =
                |it: &'static Subcommand| it.rows.iter().map(|row| fish_option(it.name, row));
            TABLE.iter().flat_map(lines).collect()
        }
    })
}

fn fish_command(Subcommand { name, about, .. }: &Subcommand) -> String {
    let about = fish_quoted(plain(about).trim_end_matches('.'));
    format!("complete -c wormhole-mailbox -n __wormhole_mailbox_no_words -a {name} -d {about}\n")
}

fn fish_option(command: &str, row: &Row) -> String {
    let name = row.name.trim_start_matches('-');
    let short = row.short.map(|short| format!(" -s {}", short.trim_start_matches('-')));
    let short = short.unwrap_or_default();
    let values = match row.completions() {
        Completions::NoValue => String::new(),
        Completions::Files => " -r -F".to_owned(),
        Completions::Unknown => " -x".to_owned(),
        Completions::Choices(words) => format!(" -x -a '{}'", words.join(" ")),
    };
    let condition = format!("\"__wormhole_mailbox_command '{command}'\"");
    let summary = fish_quoted(&row.summary());
    format!("complete -c wormhole-mailbox -n {condition} -l {name}{short}{values} -d {summary}\n")
}

fn fish_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

pub fn zsh() -> String {
    format::fill(include_str!("template.zsh"), &mut |name| match name {
        "commands" => TABLE.iter().map(zsh_case).collect(),
        "options" => options::all().into_iter().map(|row| zsh_argument("        ", row)).collect(),
        _ => TABLE.iter().map(zsh_command).collect::<Vec<_>>().join(" "),
    })
}

fn zsh_case(Subcommand { name, rows, .. }: &Subcommand) -> String {
    let lines: String = rows.iter().map(|row| zsh_argument("                    ", row)).collect();
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

fn zsh_command(Subcommand { name, about, .. }: &Subcommand) -> String {
    let about = plain(about).trim_end_matches('.').replace(':', "\\:");
    format!("{name}\\:\"{about}\"")
}

/// One argument of `_arguments`: repetition, names, summary, values.
fn zsh_argument(indent: &str, row: &Row) -> String {
    let (name, value) = (row.name, row.value().unwrap_or_default());
    let values = match row.completions() {
        Completions::NoValue => String::new(),
        Completions::Files => format!(":{value}:_files"),
        Completions::Unknown => format!(":{value}: "),
        Completions::Choices(words) => format!(":value:({})", words.join(" ")),
    };
    let summary = row.summary().replace('\'', "'\\''");
    let summary = summary.replace('[', "\\[").replace(']', "\\]").replace(':', "\\:");
    let (glue, short_glue) = if row.arity == Arity::Flag { ("", "") } else { ("=", "+") };
    let repetition = match (row.arity, row.short) {
        (Arity::Many(_), _) => "*".to_owned(),
        (_, Some(short)) => format!("({short} {name})"),
        (_, None) => String::new(),
    };
    let names = match row.short {
        None => format!("'{repetition}{name}{glue}"),
        Some(short) => format!("'{repetition}'{{{short}{short_glue},{name}{glue}}}'"),
    };
    format!("{indent}{names}[{summary}]{values}'\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Settings;
    use crate::config::spec::Action;

    #[test]
    fn a_summary_is_the_first_sentence() {
        for (help, summary) in [
            ("Where to listen; repeatable. PORT, unix:PATH.", "Where to listen; repeatable"),
            ("`claim` from `ADDRESS`.", "'claim' from ADDRESS"),
        ] {
            let all = options::all();
            let row = Row { help, ..*all[0] };
            assert_eq!(row.summary(), summary);
        }
    }

    #[test]
    fn the_choices_that_are_offered_are_those_that_are_taken() {
        let of_commands = TABLE.iter().flat_map(|it| it.rows);
        let mut count = 0;
        for row in options::all().into_iter().chain(of_commands) {
            let Completions::Choices(choices) = row.completions() else { continue };
            let problem = match row.action {
                Action::Generate => super::super::text("?").map(drop),
                _ => row.set(&mut Settings::default(), "?"),
            };
            let (last, others) = choices.split_last().expect("several");
            let expected = format!("'?' must be {} or {last}", others.join(", "));
            assert_eq!(problem, Err(expected), "{}", row.name);
            count += 1;
        }
        assert!(count > 0);
    }
}
