//! Words of the command line and lines of a file of options → options of a table, checked for
//! form but not for meaning.
//!
//! Names and values are put together here: pico-args strips quotes from a value, refuses an empty
//! one, takes one that looks like an option for that option, and knows no places.

use std::ffi::OsString;

use pico_args::Arguments;

use super::nearest::nearest;
use super::spec::{Arity, Row};
use super::values;

/// An option as it was given.
#[derive(Clone, Debug)]
pub struct RawOption {
    pub row: &'static Row,
    /// Empty for a flag.
    pub value: String,
    /// `FILE:LINE: `, `VARIABLE: `, or nothing for the command line.
    pub place: String,
}

impl RawOption {
    /// The line for a problem with this option.
    pub fn error(&self, problem: &str) -> String {
        format!("{}{}: {problem}", self.place, self.row.name)
    }
}

/// Takes the subcommand, if the first word is one.
pub fn take_subcommand(words: &mut Arguments) -> Option<String> {
    // Fails only for what is no text.
    words.subcommand().ok().flatten()
}

/// Reads words as options of a table, and collects those that are none; without `operands` such a
/// word is a mistake.
pub fn read(
    words: Arguments,
    table: &[&'static Row],
    mut operands: Option<&mut Vec<String>>,
) -> Result<Vec<RawOption>, String> {
    let mut options = Vec::new();
    let words = words.finish().into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        if is_operand(&word)
            && let Some(operands) = &mut operands
        {
            operands.push(word);
            continue;
        }
        let (name, attached) = split(&word);
        let shown = if word.is_empty() { "''" } else { &word };
        let row = find(table, name, shown)?;
        let value = match (attached, row.arity) {
            (None, Arity::Once(_) | Arity::Many(_)) => words.next(),
            (None, Arity::Optional) => words.next_if(|next| is_operand(next)),
            _ => attached.map(str::to_owned),
        };
        push(&mut options, row, value, String::new())?;
    }
    Ok(options)
}

fn is_operand(word: &str) -> bool {
    !word.starts_with('-')
}

/// Reads a file of options: one a line by its long name, with or without the dashes.
pub fn read_file(
    file: &str,
    content: &str,
    table: &[&'static Row],
) -> Result<Vec<RawOption>, String> {
    let mut options = Vec::new();
    for (number, line) in values::lines(content) {
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(value.trim_start().to_owned())),
            None => (line, None),
        };
        let place = format!("{file}:{number}: ");
        // It is not shown: it may belong in the file of members.
        if name.contains(char::is_whitespace) {
            return Err(format!("{place}a line must have the form NAME = VALUE"));
        }
        let name = format!("--{}", name.trim_start_matches('-'));
        let row = find(table, &name, &format!("{place}{name}"))?;
        if !row.action.may_be_in_file() {
            let problem = "may be given on the command line only";
            return Err(format!("{place}{name}: {problem}"));
        }
        push(&mut options, row, value, place)?;
    }
    Ok(options)
}

/// Words for `twist` and `twistd`, with which the Python server is started, and what to do instead.
const LEFT_OVER: &[(&[&str], &str)] = &[
    (&["--log-file", "--logfile", "-l"], LOG_TO_STDERR),
    (&["--log-format"], "an option of twist: leave it out, the log has one format"),
    (&["--pidfile", "--nodaemon", "-n"], FOREGROUND),
    (&["--reactor", "-r"], "an option of twist: leave it out"),
    (&["--syslog", "--prefix"], "an option of twistd: leave it out, the log goes to stderr"),
    (&["--rundir", "-d"], "an option of twistd: start the server in that directory instead"),
    (&["--umask"], "an option of twistd: leave it out, new databases are for their owner only"),
    (&["--uid", "-u", "--gid", "-g"], "an option of twistd: start the server as that user instead"),
    (&["--chroot"], "an option of twistd: start the server by chroot instead"),
    (&["--no_save", "-o", "--originalname", "--euid", "--logger", "--encrypted", "-e"], OF_TWISTD),
    (&["--debug", "-b", "--spew", "--profile", "--profiler", "--savestats"], OF_TWISTD),
    (&[TWIST_PLUGIN], LEAVE_OUT_PLUGIN),
];

/// Python's own debugging, and what concerns no server of this kind.
const OF_TWISTD: &str = "an option of twistd: leave it out";

const FOREGROUND: &str = "an option of twistd: leave it out, the server stays in the foreground";

/// What `twist` calls the Python server.
pub const TWIST_PLUGIN: &str = "wormhole-mailbox";
pub const LEAVE_OUT_PLUGIN: &str = "leave out this word of twist, options follow";

const STRAY_WORD: &str =
    "unknown option: one begins with '--', and a command is the first word, see --help";

const LOG_TO_STDERR: &str =
    "an option of twist: leave it out, the log goes to stderr, as in '2>>mailbox.log'";

/// The row of that name; the error begins with `shown`.
fn find(table: &[&'static Row], name: &str, shown: &str) -> Result<&'static Row, String> {
    let found = table.iter().find(|row| row.name == name || row.short == Some(name));
    found.copied().ok_or_else(|| {
        let left_over = LEFT_OVER.iter().find(|(names, _)| names.contains(&name));
        // A short name is not mistyped with two dashes, and a file of options takes none.
        let short = |row: &Row| row.short.filter(|_| !name.starts_with("--"));
        let mut names = table.iter().flat_map(|row| [row.name].into_iter().chain(short(row)));
        let problem = match (left_over, nearest(name, &mut names)) {
            (Some((_, problem)), _) => (*problem).to_owned(),
            _ if is_operand(name) => STRAY_WORD.to_owned(),
            (_, Some(known)) => format!("unknown option, did you mean {known}? See --help"),
            (_, None) => "unknown option, see --help".to_owned(),
        };
        format!("{shown}: {problem}")
    })
}

/// Adds an option, if it is not given too often, and has a value where it needs one.
pub fn push(
    options: &mut Vec<RawOption>,
    row: &'static Row,
    value: Option<String>,
    place: String,
) -> Result<(), String> {
    let is_repeated = || options.iter().any(|option| option.row.name == row.name);
    let problem = match (row.arity, &value) {
        (Arity::Flag | Arity::Optional | Arity::Once(_), _) if is_repeated() => {
            "may be given only once".to_owned()
        }
        (Arity::Flag, Some(_)) => "takes no value".to_owned(),
        (Arity::Once(name) | Arity::Many(name), None) => format!("needs a value, {name}"),
        _ => {
            options.push(RawOption { row, value: value.unwrap_or_default(), place });
            return Ok(());
        }
    };
    Err(format!("{place}{}: {problem}", row.name))
}

/// A word as text.
pub fn text(word: OsString) -> Result<String, String> {
    word.into_string().map_err(|word| format!("{}: must be UTF-8", word.to_string_lossy()))
}

/// The name in a word, and the value attached to it: `--port=4000`, `-p4000`.
fn split(word: &str) -> (&str, Option<&str>) {
    const SHORT_NAME_BYTES: usize = "-p".len();
    match word.split_once('=') {
        Some((name, value)) if word.starts_with('-') => (name, Some(value)),
        _ if !word.starts_with('-') || word.starts_with("--") => (word, None),
        _ => match word.split_at_checked(SHORT_NAME_BYTES) {
            Some((name, value)) if !value.is_empty() => (name, Some(value)),
            _ => (word, None),
        },
    }
}
