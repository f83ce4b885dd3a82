//! Completions for bash 4 and newer; needs no other package.
//!
//! In bash `=` is a word of its own, so `--name=va` arrives as three words. No space follows a name
//! that ends in `=`.

use super::subcommands::{self, Subcommand};
use super::{Completions, Row, options};
use crate::format;
use crate::sorted::sorted;

pub fn text() -> String {
    format::fill(include_str!("template.bash"), &mut |name| match name {
        "values" => cases(),
        "commands" => subcommands::TABLE.iter().map(case).collect(),
        "options" => words(options::all()),
        _ => subcommands::TABLE.iter().map(|it| it.name).collect::<Vec<_>>().join(" "),
    })
}

/// The values after each option that has one.
fn cases() -> String {
    let of_commands = subcommands::TABLE.iter().flat_map(|it| it.rows);
    let (mut files, mut free, mut cases) = (Vec::new(), Vec::new(), String::new());
    for row in options::all().into_iter().chain(of_commands) {
        let patterns = row.short.into_iter().chain([row.name]);
        match row.completions() {
            Completions::NoValue => {}
            Completions::Files => files.extend(patterns),
            Completions::Unknown => free.extend(patterns),
            Completions::Choices(words) => {
                let generator = format!("-W '{}'", words.join(" "));
                cases += &case_of_values(row.name, "", &generator);
            }
        }
    }
    let options = "            compopt -o filenames\n";
    cases += &case_of_values(&patterns(files), options, "-f");
    cases + &format!("        {}) return ;;\n", patterns(free))
}

fn case_of_values(pattern: &str, options: &str, generator: &str) -> String {
    format!(
        "        {pattern})
{options}            mapfile -t COMPREPLY < <(compgen {generator} -- \"$word\")
            return
            ;;
"
    )
}

fn patterns(names: Vec<&'static str>) -> String {
    let mut names = sorted(names);
    names.dedup();
    names.join(" | ")
}

/// The names of a command's options.
fn case(Subcommand { name, rows, .. }: &Subcommand) -> String {
    format!("        {name}) names='{}' ;;\n", words(*rows))
}

fn words(rows: impl IntoIterator<Item = &'static Row>) -> String {
    let word = |row: &Row| row.name.to_owned() + if row.value().is_some() { "=" } else { "" };
    rows.into_iter().map(word).collect::<Vec<_>>().join(" ")
}
