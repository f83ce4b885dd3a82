//! Arguments and environment → a complete, valid `Config` and its `Reloadable` part
//! (manual: command_line 1).
//!
//! Binds no address and opens no file; the texts of files come from a function of the caller.
//!
//! `options` and `subcommands` are tables with one row an option; all else reads them: parsing
//! (`arguments`), `--help`, manual page, completions and option reference (`generate`), and
//! `reload`. To add an option, add a row there and the field of `settings` that it sets.

mod arguments;
mod endpoint;
mod environment;
mod generate;
pub mod members;
mod nearest;
mod options;
mod origins;
pub mod policy;
pub mod reload;
pub mod reloadable;
mod server_url;
mod settings;
mod spec;
mod subcommands;
pub mod trouble;
mod values;
mod websocket_options;
mod welcome_files;

use std::ffi::OsString;
use std::path::Path;

use pico_args::Arguments;

use arguments::RawOption;
pub use arguments::UsageError;
use environment::PREFIX;
pub use origins::Origins;
use reloadable::Reloadable;
pub use server_url::ServerUrl;
use settings::Settings;
pub use settings::{Config, Source};
use spec::{Action, Row};
pub use subcommands::{Period, Report, Subject};
use subcommands::{Query, Subcommand};
use trouble::Trouble;

/// The purpose of a run.
#[derive(Debug)]
pub enum Invocation {
    Serve(Box<Config>, Box<Reloadable>),
    /// Check what options alone do not show, and exit.
    CheckConfig(Box<Config>),
    /// Serve in memory until stdin is closed.
    TestServer(Vec<Trouble>),
    /// Print a report on a server and exit.
    Report(Report),
    /// Print this text and exit.
    Print(String),
}

/// Returns the text of a settings file, or the reason why it cannot be read.
type ReadFile<'a> = &'a dyn Fn(&Path) -> Result<String, String>;

/// Reads the arguments (without the program's name) and the environment.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    read_file: impl Fn(&Path) -> Result<String, String>,
) -> Result<Invocation, UsageError> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    for word in &arguments {
        arguments::text(word.clone())?;
    }
    let mut words = Arguments::from_vec(arguments.clone());
    match arguments::take_subcommand(&mut words) {
        Some(name) if name == subcommands::HELP => help(words).map(Invocation::Print),
        Some(name) => subcommand(subcommands::find(&name)?, words),
        None => {
            let is_ours = |name: &OsString| name.as_encoded_bytes().starts_with(PREFIX.as_bytes());
            let environment = environment.into_iter().filter(|(name, _)| is_ours(name)).collect();
            serve(Source { arguments, environment, options: Vec::new() }, words, &read_file)
        }
    }
}

/// `help`, or `help COMMAND`.
fn help(mut words: Arguments) -> Result<String, UsageError> {
    let text = match arguments::take_subcommand(&mut words) {
        Some(name) if name != subcommands::HELP => {
            generate::help::subcommand(subcommands::find(&name)?)
        }
        _ => generate::help::most_used(),
    };
    // What is left over is a mistake.
    let options: &[Row<Query>] = &[];
    arguments::read(words, options.iter()).map(|_| text)
}

/// The command line of the server itself.
fn serve(
    mut source: Source,
    words: Arguments,
    read_file: ReadFile<'_>,
) -> Result<Invocation, UsageError> {
    let mut given = arguments::read(words, options::all())?;
    if let Some(text) = text_to_print(&given, generate::help::server)? {
        return Ok(Invocation::Print(text));
    }
    // The command line takes precedence, then the environment, then the file.
    let (variables, warnings) = environment::read(&source.environment, options::all())?;
    add_missing(&mut given, variables);
    let file = given.iter().find(|option| matches!(option.row.action, Action::OptionsFile));
    if let Some(option) = file {
        let content = content(option, read_file)?;
        let options = arguments::read_file(&option.value, &content, options::all())?;
        add_missing(&mut given, options);
    }
    source.options = given.clone();
    let mut settings = Settings::new(source);
    settings.config.warnings = warnings;
    for option in in_table_order(options::all(), &given) {
        apply(&mut settings, option, read_file)?;
    }
    let (config, reloadable) = settings.finish();
    if given.iter().any(|option| matches!(option.row.action, Action::CheckConfig)) {
        return Ok(Invocation::CheckConfig(Box::new(config)));
    }
    Ok(Invocation::Serve(Box::new(config), Box::new(reloadable)))
}

/// Adds those options of which none is given yet.
fn add_missing<S>(given: &mut Vec<RawOption<S>>, mut more: Vec<RawOption<S>>) {
    more.retain(|option| !given.iter().any(|other| other.row.spec.name == option.row.spec.name));
    given.append(&mut more);
}

/// The given options in the order of their table, in which they are applied.
fn in_table_order<S>(
    table: impl Iterator<Item = &'static Row<S>>,
    given: &[RawOption<S>],
) -> impl Iterator<Item = &RawOption<S>> {
    table.flat_map(|row| given.iter().filter(|option| option.row.spec.name == row.spec.name))
}

/// Applies an option to the settings.
fn apply(
    settings: &mut Settings,
    option: &RawOption<Settings>,
    read_file: ReadFile<'_>,
) -> Result<(), UsageError> {
    let value = option.value.as_str();
    let done = match option.row.action {
        Action::Set(set) | Action::Reload(set) => set(settings, value),
        Action::Limit(limit) => values::limit(value, limit)
            .map(|number| (limit.set)(&mut settings.config.limits, number)),
        Action::ReloadFile(set) => set(settings, &content(option, read_file)?)
            .map_err(|problem| format!("{value}: {problem}")),
        Action::Help
        | Action::Version
        | Action::CheckConfig
        | Action::Generate
        | Action::OptionsFile => Ok(()),
    };
    done.map_err(|problem| option.error(&problem))
}

/// The content of the file that an option names.
fn content<S>(option: &RawOption<S>, read_file: ReadFile<'_>) -> Result<String, UsageError> {
    let file = &option.value;
    let path = values::path(file).map_err(|problem| option.error(&problem))?;
    read_file(&path).map_err(|problem| option.error(&format!("{file}: {problem}")))
}

/// The text that `--help`, `--version` or `--generate` asks for, in this order.
fn text_to_print<S>(
    given: &[RawOption<S>],
    help: impl Fn(&str) -> Result<String, String>,
) -> Result<Option<String>, UsageError> {
    let find = |is_wanted: fn(&Action<S>) -> bool| {
        given.iter().find(|option| is_wanted(&option.row.action))
    };
    if let Some(option) = find(|action| matches!(action, Action::Help)) {
        return help(&option.value).map(Some).map_err(|problem| option.error(&problem));
    }
    if find(|action| matches!(action, Action::Version)).is_some() {
        return Ok(Some(format!("wormhole-mailbox {}\n", env!("CARGO_PKG_VERSION"))));
    }
    let Some(option) = find(|action| matches!(action, Action::Generate)) else { return Ok(None) };
    generate::text(&option.value).map(Some).map_err(|problem| option.error(&problem))
}

/// The command line of a subcommand.
fn subcommand(
    subcommand: &'static Subcommand,
    mut words: Arguments,
) -> Result<Invocation, UsageError> {
    let mut operands = Vec::new();
    while subcommand.operand.is_some()
        && let Some(word) = arguments::take_subcommand(&mut words)
    {
        operands.push(word);
    }
    let given = arguments::read(words, subcommand.rows.iter())?;
    if let Some(text) = text_to_print(&given, |_| Ok(generate::help::subcommand(subcommand)))? {
        return Ok(Invocation::Print(text));
    }
    let mut query = Query::default();
    if let Some((_, set)) = subcommand.operand
        && !operands.is_empty()
    {
        set(&mut query, &operands.join(" ")).map_err(UsageError)?;
    }
    for option in in_table_order(subcommand.rows.iter(), &given) {
        if let Action::Set(set) = option.row.action {
            set(&mut query, &option.value).map_err(|problem| option.error(&problem))?;
        }
    }
    (subcommand.finish)(query).map_err(UsageError)
}
