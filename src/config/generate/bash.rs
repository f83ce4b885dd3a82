//! Completions for bash 4 and newer; needs no other package.
//!
//! In bash `=` is a word of its own, so `--name=va` arrives as three words. No space follows a name
//! that ends in `=`.

use super::subcommands::{self, Subcommand};
use super::{Completions, OptionSpec, options};
use crate::format;

pub fn text() -> String {
    format::fill(include_str!("template.bash"), &mut |name| match name {
        "values" => cases(),
        "commands" => subcommands::TABLE.iter().map(case).collect(),
        "options" => options::all().map(|row| word(&row.spec)).collect::<Vec<_>>().join(" "),
        _ => subcommands::TABLE.iter().map(|it| it.name).collect::<Vec<_>>().join(" "),
    })
}

/// The values after each option that has one.
fn cases() -> String {
    let of_commands = subcommands::TABLE.iter().flat_map(|it| it.rows).map(|row| &row.spec);
    let (mut files, mut free, mut cases) = (Vec::new(), Vec::new(), String::new());
    for option in options::all().map(|row| &row.spec).chain(of_commands) {
        let patterns = option.short.into_iter().chain([option.name]);
        match option.completions() {
            Completions::NoValue => {}
            Completions::Files => files.extend(patterns),
            Completions::Unknown => free.extend(patterns),
            Completions::Choices(words) => {
                let generator = format!("-W '{}'", words.join(" "));
                cases += &case_of_values(option.name, "", &generator);
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

fn patterns(mut names: Vec<&'static str>) -> String {
    names.sort_unstable();
    names.dedup();
    names.join(" | ")
}

/// The names of a command's options.
fn case(Subcommand { name, rows, .. }: &Subcommand) -> String {
    let names = rows.iter().map(|row| word(&row.spec)).collect::<Vec<_>>().join(" ");
    format!("        {name}) names='{names}' ;;\n")
}

fn word(option: &OptionSpec) -> String {
    let glue = if option.value().is_some() { "=" } else { "" };
    format!("{}{glue}", option.name)
}
