//! Arguments and environment → a complete, valid `Config` and its `Reloadable` part
//! (manual: command_line 1).
//!
//! Binds no address and, but for `reload`, opens no file: the texts of files come from a function
//! of the caller, which in the program is that of `reload`. The system is asked for nothing but the
//! numbers of network interfaces.
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
pub mod permission;
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
use reloadable::Reloadable;
pub use server_url::ServerUrl;
use settings::Settings;
pub use settings::{Config, Format, Period};
use spec::{Action, Row};
use subcommands::Subcommand;
pub use subcommands::Subject;
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
    Report(Subject, Format),
    /// Print this text and exit.
    Print(String),
}

/// Returns the text of a settings file, or the reason why it cannot be read.
type ReadFile<'a> = &'a dyn Fn(&Path) -> Result<String, String>;

/// Reads the arguments (without the program's name) and the environment. The error is one line that
/// names the option and says what is right.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    read_file: impl Fn(&Path) -> Result<String, String>,
) -> Result<Invocation, String> {
    let words = arguments.into_iter().map(|word| arguments::text(word).map(OsString::from));
    let mut words = Arguments::from_vec(words.collect::<Result<_, _>>()?);
    match arguments::take_subcommand(&mut words) {
        Some(name) if name == subcommands::HELP_COMMAND => help(words).map(Invocation::Print),
        Some(name) => subcommand(subcommands::find(&name)?, words, &read_file),
        None => serve(words, &mut environment.into_iter(), &read_file),
    }
}

/// `help`, or `help COMMAND`.
fn help(mut words: Arguments) -> Result<String, String> {
    let text = match arguments::take_subcommand(&mut words) {
        Some(name) if name != subcommands::HELP_COMMAND => {
            generate::help::subcommand(subcommands::find(&name)?)
        }
        _ => generate::help::most_used(),
    };
    // What is left over is a mistake.
    arguments::read(words, &[], None).map(|_| text)
}

/// The command line of the server itself.
fn serve(
    words: Arguments,
    environment: &mut dyn Iterator<Item = (OsString, OsString)>,
    read_file: ReadFile<'_>,
) -> Result<Invocation, String> {
    let table = options::all();
    let mut given = arguments::read(words, &table, None)?;
    if let Some(text) = text_to_print(&given, generate::help::server)? {
        return Ok(Invocation::Print(text));
    }
    // The command line takes precedence, then the environment, then the file.
    let (variables, warnings) = environment::read(environment, &table)?;
    add_missing(&mut given, variables);
    if let Some(option) = find(&given, |it| matches!(it, Action::OptionsFile)) {
        let content = content(option, read_file)?;
        let options = arguments::read_file(&option.value, &content, &table)?;
        add_missing(&mut given, options);
    }
    let mut settings = Settings::default();
    settings.config.warnings = warnings;
    apply(&mut settings, &table, &given, read_file)?;
    let (mut config, reloadable) = settings.finish();
    let only_checks = find(&given, |it| matches!(it, Action::CheckConfig)).is_some();
    config.given = given;
    if only_checks {
        return Ok(Invocation::CheckConfig(Box::new(config)));
    }
    Ok(Invocation::Serve(Box::new(config), Box::new(reloadable)))
}

/// The command line of a subcommand.
fn subcommand(
    subcommand: &'static Subcommand,
    words: Arguments,
    read_file: ReadFile<'_>,
) -> Result<Invocation, String> {
    let mut operands = Vec::new();
    let table: Vec<&Row> = subcommand.rows.iter().collect();
    let takes_operand = subcommand.operand.is_some();
    let given = arguments::read(words, &table, takes_operand.then_some(&mut operands))?;
    if let Some(text) = text_to_print(&given, |_| Ok(generate::help::subcommand(subcommand)))? {
        return Ok(Invocation::Print(text));
    }
    let mut settings = Settings::default();
    if let Some((_, set)) = subcommand.operand
        && !operands.is_empty()
    {
        set(&mut settings, &operands.join(" "))?;
    }
    apply(&mut settings, &table, &given, read_file)?;
    (subcommand.finish)(settings.query)
}

/// Adds those options of which none is given yet.
fn add_missing(given: &mut Vec<RawOption>, mut more: Vec<RawOption>) {
    more.retain(|option| !given.iter().any(|other| other.row.name == option.row.name));
    given.append(&mut more);
}

/// Applies the given options to the settings, in the order of their table.
fn apply(
    settings: &mut Settings,
    table: &[&Row],
    given: &[RawOption],
    read_file: ReadFile<'_>,
) -> Result<(), String> {
    for option in table.iter().flat_map(|row| given.iter().filter(|it| it.row.name == row.name)) {
        let (text, file) = match option.row.action {
            Action::ReloadFile(_) => (content(option, read_file)?, format!("{}: ", option.value)),
            _ => (option.value.clone(), String::new()),
        };
        let done = option.row.set(settings, &text);
        done.map_err(|problem| option.error(&format!("{file}{problem}")))?;
    }
    Ok(())
}

/// The content of the file that an option names.
fn content(option: &RawOption, read_file: ReadFile<'_>) -> Result<String, String> {
    let file = &option.value;
    let path = values::path(file).map_err(|problem| option.error(&problem))?;
    read_file(&path).map_err(|problem| option.error(&format!("{file}: {problem}")))
}

/// The text that `--help`, `--version` or `--generate` asks for, in this order.
fn text_to_print(
    given: &[RawOption],
    help: impl Fn(&str) -> Result<String, String>,
) -> Result<Option<String>, String> {
    if let Some(option) = find(given, |it| matches!(it, Action::Help)) {
        return help(&option.value).map(Some).map_err(|problem| option.error(&problem));
    }
    if find(given, |it| matches!(it, Action::Version)).is_some() {
        return Ok(Some(format!("wormhole-mailbox {}\n", env!("CARGO_PKG_VERSION"))));
    }
    let Some(option) = find(given, |it| matches!(it, Action::Generate)) else { return Ok(None) };
    generate::text(&option.value).map(Some).map_err(|problem| option.error(&problem))
}

/// The first option given that does this.
fn find(given: &[RawOption], does: fn(&Action) -> bool) -> Option<&RawOption> {
    given.iter().find(|option| does(&option.row.action))
}
