//! The house style as a test: what a reviewer would otherwise have to look for in every change.
//! Reads the sources, the manual and the help as text; knows no more Rust than that.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use wormhole_mailbox::limits;

const COLUMNS_MAX: usize = 100;

/// A file that is longer should be two.
const LINES_MAX: usize = 600;

/// The files that have longer lines, and how many: the formatter leaves alone what holds a long
/// string, and macros.
const LONG_LINES: [(&str, usize); 4] = [
    ("src/storage/db/channel.rs", 1),
    ("src/storage/db/usage.rs", 1),
    ("tests/simulation/main.rs", 1),
    ("tests/simulation/world.rs", 1),
];

/// What is written to be taken out again. In pieces, so that this file does not match.
const LEFTOVERS: [&str; 6] = [
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("TO", "DO"),
    concat!("db", "g!"),
];

/// Words of riddles: a comment names the peer, the operator or the connection, and a number.
const RIDDLES: [&str; 8] =
    ["who", "whom", "nobody", "somebody", "everybody", "is told", "so many", "in words"];

/// Where the comments are in plain English.
const PLAIN: [&str; 1] = ["src"];

/// A source file of this repository.
pub struct Source {
    /// From the root, with `/`.
    pub name: String,
    pub text: String,
}

impl Source {
    /// Lines that are not comments, numbered from 1.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The same, without the unit tests at its end.
    pub fn shipped_code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code().take_while(|(_, line)| line.trim() != "#[cfg(test)]")
    }
}

/// The text of a comment on a line: all of the line, or what follows the code.
fn comment(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let (_, text) = match line.strip_prefix("//") {
        Some(text) => ("", text),
        None => line.split_once(" // ")?,
    };
    Some(text.trim_start_matches(['/', '!']).trim())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All Rust files below these directories.
pub fn sources(directories: &[&str]) -> Vec<Source> {
    let mut waiting: Vec<PathBuf> = directories.iter().map(|it| root().join(it)).collect();
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory");
            waiting.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|it| it == "rs") {
            let name = path.strip_prefix(root()).expect("below the root").to_string_lossy();
            found.push(Source { text: read(&name), name: name.into_owned() });
        }
    }
    assert!(!found.is_empty());
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

fn all_sources() -> Vec<Source> {
    sources(&["src", "tests", "benches"])
}

/// Fails with all complaints at once.
pub fn assert_none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn is_word_char(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// Whether `word` stands in `line` with no letter, digit or underscore around it.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_word_char) && !line[at + word.len()..].starts_with(is_word_char)
    })
}

/// The names that follow `prefix` in a text: `net` and `sys` in `crate::net::x` and
/// `crate::{net, sys::y}`, but nothing in `my_crate::net`.
pub fn names_after(text: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices(prefix) {
        let before = &text[..at];
        if before.ends_with(is_word_char) || before.ends_with("::") && !before.ends_with(" ::") {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        let group = rest.strip_prefix('{').and_then(|rest| rest.split("};").next());
        for path in group.unwrap_or(rest).split(',').take(group.map_or(1, |_| usize::MAX)) {
            let path = path.trim_start();
            let name: String = path.chars().take_while(|char| is_word_char(*char)).collect();
            names.extend(Some(name).filter(|name| !name.is_empty()));
        }
    }
    names
}

#[test]
fn every_file_is_a_module() {
    let mut complaints = Vec::new();
    for source in sources(&["src"]) {
        let path = source.name.trim_start_matches("src/").trim_end_matches(".rs");
        let path = path.trim_end_matches("/mod");
        let (parent, stem) = match path.rsplit_once('/') {
            Some((directory, stem)) => (format!("src/{directory}/mod.rs"), stem),
            None if ["lib", "main"].contains(&path) => continue,
            None => ("src/lib.rs".to_owned(), path),
        };
        if !read(&parent).contains(&format!("mod {stem};")) {
            complaints.push(format!("{} is no module of {parent}", source.name));
        }
    }
    assert_none(complaints);
}

#[test]
fn every_file_begins_with_what_it_is_for() {
    let files = all_sources();
    let bare = files.iter().filter(|source| !source.text.starts_with("//! "));
    assert_none(bare.map(|source| format!("{}: no head comment", source.name)).collect());
}

#[test]
fn lines_and_files_are_short() {
    let mut complaints = Vec::new();
    for source in all_sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        if lines.len() >= LINES_MAX {
            complaints.push(format!("{}: {} lines", source.name, lines.len()));
        }
        // Texts are broken where they read well, not at a column, and rows of tables cannot be.
        let is_text =
            |line: &str| line.contains('"') || line.ends_with('\\') || line.starts_with("//! | ");
        let long = lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.chars().count() > COLUMNS_MAX && !is_text(line));
        let long: Vec<usize> = long.map(|(index, _)| index + 1).collect();
        let allowed = LONG_LINES.iter().find(|(name, _)| *name == source.name);
        let allowed = allowed.map_or(0, |(_, count)| *count);
        if long.len() != allowed {
            complaints.push(format!(
                "{}: more than {COLUMNS_MAX} columns: {long:?}; allowed: {allowed}",
                source.name
            ));
        }
    }
    assert_none(complaints);
}

#[test]
fn nothing_is_left_over() {
    let mut complaints = Vec::new();
    let mut files = all_sources();
    for name in ["README.md", "Cargo.toml", ".ci/run", "tests/peers/client_repairs.c"] {
        files.push(Source { name: name.to_owned(), text: read(name) });
    }
    for Source { name, text } in files {
        for (index, line) in text.lines().enumerate() {
            let found = LEFTOVERS.iter().filter(|leftover| {
                line.match_indices(**leftover).any(|(at, _)| !line[..at].ends_with(is_word_char))
            });
            complaints.extend(found.map(|leftover| format!("{name}:{}: {leftover}", index + 1)));
        }
    }
    assert_none(complaints);
}

#[test]
fn comments_are_in_plain_english() {
    let mut complaints = Vec::new();
    for Source { name, text } in sources(&PLAIN) {
        // Each with the next, since a phrase may be broken.
        let comments: Vec<&str> = text.lines().map(|line| comment(line).unwrap_or("")).collect();
        for (index, comment) in comments.iter().enumerate() {
            let next = comments.get(index + 1).unwrap_or(&"");
            let both = format!("{comment} {next}").to_lowercase();
            let found = RIDDLES.iter().filter(|riddle| {
                has_word(&both, riddle) && !has_word(&next.to_lowercase(), riddle)
            });
            complaints.extend(found.map(|riddle| format!("{name}:{}: {riddle}", index + 1)));
        }
    }
    assert_none(complaints);
}

#[test]
fn nothing_that_ships_unwraps() {
    let mut complaints = Vec::new();
    for source in sources(&["src"]) {
        let unwrapping = source
            .shipped_code()
            .filter(|(_, line)| [".unwrap()", ".expect("].iter().any(|call| line.contains(call)));
        complaints.extend(unwrapping.map(|(number, _)| format!("{}:{number}", source.name)));
    }
    assert_none(complaints);
}

#[test]
fn nothing_is_unsafe() {
    let word = concat!("un", "safe");
    // What browsers call a style that a page brings along.
    let keyword = format!("'{word}-inline'");
    let mut complaints = Vec::new();
    for source in all_sources() {
        let mut code = source.code();
        if let Some((number, _)) =
            code.find(|(_, line)| has_word(&line.replace(&keyword, ""), word))
        {
            complaints.push(format!("{}:{number}", source.name));
        }
        let is_root = ["src/lib.rs", "src/main.rs"].contains(&source.name.as_str())
            || source.name.starts_with("benches/") && source.text.contains("\nfn main()");
        if is_root && !source.text.contains("#![forbid(unsafe_code)]") {
            complaints.push(format!("{}: not forbidden", source.name));
        }
    }
    assert_none(complaints);
}

#[test]
fn every_limit_is_tried_in_a_test() {
    let mut files = sources(&["tests"]);
    files.retain(|source| source.name != "tests/server/tidy.rs");
    let untried = limits::TABLE
        .iter()
        .filter(|limit| !files.iter().any(|source| source.text.contains(limit.option)));
    assert_none(untried.map(|limit| format!("no test names {}", limit.option)).collect());
}

#[test]
fn every_variable_that_a_test_reads_is_in_the_manual() {
    let manual = read("src/manual/developing.md");
    let mut complaints = Vec::new();
    for source in sources(&["tests"]) {
        // Read at run time, by the test's own name for it: `env::var("…")`, `number("…")`.
        for (number, line) in source.code() {
            for call in ["env::var(\"", "env::var_os(\"", "number(\"", "variable(\""] {
                let rest = line.split(call).nth(1).and_then(|rest| rest.split('"').next());
                let Some(name) =
                    rest.filter(|name| name.chars().all(|it| matches!(it, 'A'..='Z' | '_')))
                else {
                    continue;
                };
                if name != "PATH" && !manual.contains(name) {
                    complaints.push(format!("{}:{number}: {name}", source.name));
                }
            }
        }
    }
    assert_none(complaints);
}
