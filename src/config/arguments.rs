//! The options as they were given, on the command line and in a file of options, checked for form
//! but not for meaning.
//!
//! Must never open the file: its text comes in.

use std::collections::BTreeMap;
use std::ffi::OsString;

use pico_args::Arguments;

use super::UsageError;
use super::options::{self, Arity, OptionSpec};

/// One option as it was given.
#[derive(Clone, Debug)]
struct Item {
    name: &'static str,
    value: Option<String>,
    /// `FILE:LINE: `, or nothing for the command line.
    place: String,
}

/// All of them, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Items(Vec<Item>);

impl Items {
    /// Reads a command line with these options.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
        options: &[OptionSpec],
    ) -> Result<Items, UsageError> {
        let mut items = Items::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let argument = text(argument)?;
            let (name, attached) = split(&argument);
            let spec = options
                .iter()
                .find(|option| option.name == name || option.short == Some(name))
                .ok_or_else(|| UsageError(format!("{argument}: unknown option, see --help")))?;
            let value = match attached {
                None if spec.arity != Arity::Flag => arguments.next().map(text).transpose()?,
                attached => attached,
            };
            items.push(spec, value, String::new())?;
        }
        Ok(items)
    }

    /// Adds what a file of options says, one a line, except what the command line says as well.
    pub fn add_file(&mut self, file: &str, content: &str) -> Result<(), UsageError> {
        let mut added = Items::default();
        for (index, line) in content.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = match line.split_once('=') {
                Some((name, value)) => (name.trim_end(), Some(value.trim_start().to_owned())),
                None => (line, None),
            };
            let place = format!("{file}:{}: ", index + 1);
            let name = format!("--{}", name.trim_start_matches('-'));
            let spec = options::all()
                .find(|option| option.name == name)
                .ok_or_else(|| UsageError(format!("{place}{name}: unknown option, see --help")))?;
            if options::COMMAND_LINE_ONLY.contains(&spec.name) {
                return Err(UsageError(format!(
                    "{place}{name}: may be given on the command line only"
                )));
            }
            added.push(&spec, value, place)?;
        }
        added.0.retain(|item| !self.has(item.name));
        self.0.append(&mut added.0);
        Ok(())
    }

    fn push(
        &mut self,
        spec: &OptionSpec,
        value: Option<String>,
        place: String,
    ) -> Result<(), UsageError> {
        let name = spec.name;
        let problem = match (spec.arity, &value) {
            (Arity::Flag | Arity::Once, _) if self.has(name) => "may be given only once".to_owned(),
            (Arity::Flag, Some(_)) => "takes no value".to_owned(),
            (Arity::Once | Arity::Many, None) => format!("needs a value, {}", spec.value),
            _ => {
                self.0.push(Item { name, value, place });
                return Ok(());
            }
        };
        Err(UsageError(format!("{place}{name}: {problem}")))
    }

    /// Whether the option is there.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|item| item.name == name)
    }

    /// The value of an option that may be given once.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|item| item.name == name)?.value.as_deref()
    }
}

/// The options, with pico-args to take them out of.
#[derive(Debug)]
pub(super) struct Given {
    items: Items,
    arguments: Arguments,
}

/// Marks a value, so that one which looks like an option is not taken for one.
const VALUE_MARK: char = '=';

impl From<Items> for Given {
    fn from(items: Items) -> Given {
        let mut marked = Vec::new();
        for item in &items.0 {
            marked.push(OsString::from(item.name));
            marked.extend(item.value.iter().map(|value| format!("{VALUE_MARK}{value}").into()));
        }
        Given { items, arguments: Arguments::from_vec(marked) }
    }
}

impl Given {
    /// Whether a flag is given.
    pub fn flag(&mut self, name: &'static str) -> bool {
        self.arguments.contains(name)
    }

    /// The value of an option that may be given once.
    pub fn once<T>(
        &mut self,
        name: &'static str,
        read: impl FnMut(&str) -> Result<T, String>,
    ) -> Result<Option<T>, UsageError> {
        Ok(self.many(name, read)?.pop())
    }

    /// The values of an option; an error of `read` says what is wrong with one.
    pub fn many<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, UsageError> {
        let values: Vec<String> = self
            .arguments
            .values_from_str(name)
            .map_err(|error| UsageError(format!("{name}: {error}")))?;
        let places = self.items.0.iter().filter(|item| item.name == name).map(|item| &item.place);
        let mut read_marked =
            |value: &String| read(value.strip_prefix(VALUE_MARK).unwrap_or(value));
        values
            .iter()
            .zip(places)
            .map(|(value, place)| {
                read_marked(value)
                    .map_err(|problem| UsageError(format!("{place}{name}: {problem}")))
            })
            .collect()
    }
}

/// Where the settings came from: to read them again, and to see what is different then.
#[derive(Clone, Debug)]
pub struct Source {
    arguments: Vec<OsString>,
    items: Items,
}

impl Source {
    pub(super) fn new(arguments: Vec<OsString>, items: Items) -> Source {
        Source { arguments, items }
    }

    /// The command line.
    pub fn arguments(&self) -> &[OsString] {
        &self.arguments
    }

    /// Whether there is any file that may say something else by now.
    pub fn has_files(&self) -> bool {
        options::FILES_READ_AGAIN.iter().any(|option| self.items.has(option))
    }

    /// Options that are given differently in `other`, of those that cannot change while the
    /// server runs.
    pub fn differing(&self, other: &Source) -> Vec<&'static str> {
        let (ours, theirs) = (self.values(), other.values());
        let names = options::all().map(|option| option.name);
        names
            .filter(|name| !options::LIVE.contains(name) && ours.get(name) != theirs.get(name))
            .collect()
    }

    fn values(&self) -> BTreeMap<&str, Vec<Option<&str>>> {
        let mut values: BTreeMap<&str, Vec<Option<&str>>> = BTreeMap::new();
        for item in &self.items.0 {
            values.entry(item.name).or_default().push(item.value.as_deref());
        }
        values
    }
}

/// An argument as text.
pub(super) fn text(argument: OsString) -> Result<String, UsageError> {
    argument
        .into_string()
        .map_err(|argument| UsageError(format!("{}: must be UTF-8", argument.to_string_lossy())))
}

/// An argument's name, and the value attached to it: `--port=4000`, `-p4000`.
fn split(argument: &str) -> (&str, Option<String>) {
    let is_short = argument.starts_with('-') && !argument.starts_with("--");
    match argument.split_once('=') {
        Some((name, value)) if argument.starts_with('-') => (name, Some(value.to_owned())),
        _ if is_short && argument.len() > SHORT_NAME_BYTES => {
            let (name, value) = argument.split_at(SHORT_NAME_BYTES);
            (name, Some(value.to_owned()))
        }
        _ => (argument, None),
    }
}

/// Length of a short option's name, dash included.
const SHORT_NAME_BYTES: usize = "-p".len();
