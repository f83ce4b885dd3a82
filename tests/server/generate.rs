//! The manual page and the completions, as texts; the programs that read them are in
//! `tests/peers/generated.rs`.

use std::process::Command;

use crate::common::{Directory, PROGRAM, assert_mistake, stdout_of};
use crate::tidy::sources;

fn generated(kind: &str) -> String {
    stdout_of(&[&format!("--generate={kind}")])
}

/// Long options that the help of the server, or of a command, lists.
fn options(command: &[&str]) -> Vec<String> {
    let flag = if command.is_empty() { "--help=all" } else { "--help" };
    let help = stdout_of(&[command, &[flag]].concat());
    let words = help.lines().filter(|line| line.starts_with("  -")).flat_map(str::split_whitespace);
    let names = words.filter_map(|word| word.split('=').next()).filter(|it| it.starts_with("--"));
    names.map(|name| name.trim_end_matches(',').to_owned()).collect()
}

const COMMANDS: [&str; 5] = ["status", "usage", "connections", "check", "test-server"];

#[test]
fn every_kind_knows_every_option_and_command() {
    for kind in ["man", "bash", "fish", "zsh", "markdown"] {
        let text = generated(kind).replace('\\', "");
        let lists = COMMANDS.map(|command| options(&[command]));
        let all = options(&[]);
        assert!(all.len() > 30, "{all:?}");
        for option in all.iter().chain(lists.iter().flatten()) {
            // fish has names without their dashes.
            let name = if kind == "fish" { option.replace("--", "-l ") } else { option.clone() };
            assert!(text.contains(&name), "{kind}: no {name}");
        }
        for command in COMMANDS {
            assert!(text.contains(command), "{kind}: no {command}");
        }
    }
}

#[test]
fn what_is_generated_does_not_depend_on_the_day() {
    let years = |text: &str| (2000..2100).any(|year| text.contains(&year.to_string()));
    for kind in ["bash", "fish", "zsh"] {
        assert!(!years(&generated(kind)), "{kind}");
    }
    // The page has a date, which the source must have as well.
    let page = generated("man");
    let (title, rest) = page.split_once('\n').expect("lines");
    let date = title.split(' ').find(|word| years(word)).expect("a date").to_owned();
    assert!(!years(&rest.replace(&date, "")), "{page}");
    assert!(sources(&["src"]).iter().any(|source| source.text.contains(&date)), "{date}");
}

#[test]
fn the_option_reference_of_the_manual_is_what_is_generated() {
    let page = include_str!("../../src/manual/options.md");
    assert_eq!(page, generated("markdown"), "run --generate=markdown > src/manual/options.md");
}

#[test]
fn another_kind_is_a_mistake() {
    let named = ["--generate", "man, bash, fish, zsh or markdown"];
    assert_mistake(Command::new(PROGRAM).arg("--generate=html"), &Directory::new(), &named);
}
