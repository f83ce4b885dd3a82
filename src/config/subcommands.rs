//! The commands: what tells of a server and its files, instead of serving.
//!
//! One row a command, as `options` has one row an option; parsing, help, manual and completions
//! all read it. Opens nothing and asks nobody: that is `report`'s work.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::arguments::{Given, Items};
use super::options::{self, Arity, Group, Help, OptionSpec, option};
use super::{CHANNEL_DB, Invocation, UsageError, endpoint, path};
use crate::net::socket::Endpoint;
use crate::storage::db::MEMORY;

/// What is to be told, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it is about.
    pub subject: Subject,
    /// As JSON, for programs, instead of as a table.
    pub json: bool,
}

/// What a report is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// How the server is, by its own word or by its files.
    Status {
        /// The running server's admin listener.
        admin: Option<Endpoint>,
        /// The state database.
        channel_db: Option<PathBuf>,
        /// The usage database.
        usage_db: Option<PathBuf>,
    },
    /// How exchanges went.
    Usage {
        /// The usage database.
        usage_db: PathBuf,
        /// How far back.
        period: Period,
    },
    /// Who is connected.
    Connections {
        /// The state database.
        channel_db: PathBuf,
        /// Where to look addresses up; only if they are to be shown.
        addrid_db: Option<PathBuf>,
    },
}

/// How far back a report looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Period {
    /// The last 24 hours.
    Day,
    /// The last 7 days.
    #[default]
    Week,
    /// The last 30 days.
    Month,
    /// Everything.
    All,
}

impl Period {
    const NAMES: [(&'static str, Period); 4] = [
        ("day", Period::Day),
        ("week", Period::Week),
        ("month", Period::Month),
        ("all", Period::All),
    ];

    fn parse(text: &str) -> Result<Period, String> {
        let known = Period::NAMES.into_iter().find(|(name, _)| *name == text);
        known
            .map(|(_, period)| period)
            .ok_or_else(|| format!("'{text}' must be day, week, month or all"))
    }

    /// Days that it covers; none for all.
    pub fn days(self) -> Option<u32> {
        match self {
            Period::Day => Some(1),
            Period::Week => Some(7),
            Period::Month => Some(30),
            Period::All => None,
        }
    }
}

/// A command.
#[derive(Debug)]
pub(super) struct CommandSpec {
    /// Its name, the first argument.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Its options.
    pub options: Vec<OptionSpec>,
}

impl CommandSpec {
    /// The text of its `--help`.
    fn help(self) -> String {
        let head = format!("{}\n\nUsage: wormhole-mailbox {} [options]\n", self.about, self.name);
        options::text(&head, vec![Group { title: "Options", options: self.options }])
    }
}

/// All commands.
pub(super) fn all() -> Vec<CommandSpec> {
    let usage_db = |about| option("--usage-db", Arity::Once, "FILE", Help::Text(about));
    let channel_db = || {
        option(
            "--channel-db",
            Arity::Once,
            "FILE",
            Help::Text("The state database. [default: relay.sqlite]"),
        )
    };
    let (json, help) = (
        || option("--json", Arity::Flag, "", Help::Text("Print JSON, for programs.")),
        || OptionSpec {
            name: "--help",
            short: Some("-h"),
            arity: Arity::Flag,
            value: "",
            help: Help::Text("Print this and exit."),
        },
    );
    vec![
        CommandSpec {
            name: "status",
            about: "Tells how a server is: by its own word with --admin, else by its files.",
            options: vec![
                option(
                    "--admin",
                    Arity::Once,
                    "ENDPOINT",
                    Help::Text(
                        "Ask the running server, at its admin listener: PORT, ADDRESS:PORT, \
                         tcp:PORT[:interface=ADDRESS], unix:PATH. Files are then read only if named. \
                         [default: read the files]",
                    ),
                ),
                channel_db(),
                usage_db("Tell of this usage database too. [default: none]"),
                json(),
                help(),
            ],
        },
        CommandSpec {
            name: "usage",
            about: "Tells how exchanges went: results, times and clients.",
            options: vec![
                usage_db("The usage database. Must be given."),
                option(
                    "--period",
                    Arity::Once,
                    "day|week|month|all",
                    Help::Text("The last 24 hours, 7 days, 30 days, or all. [default: week]"),
                ),
                json(),
                help(),
            ],
        },
        CommandSpec {
            name: "connections",
            about: "Tells who is connected, if the server runs with --track-connections.",
            options: vec![
                channel_db(),
                option(
                    "--addresses",
                    Arity::Flag,
                    "",
                    Help::Text("Show addresses, out of --addrid-db, and not only their numbers."),
                ),
                option(
                    "--addrid-db",
                    Arity::Once,
                    "FILE",
                    Help::Text(
                        "The address-id database; read only with --addresses. [default: none]",
                    ),
                ),
                json(),
                help(),
            ],
        },
    ]
}

/// Reads what comes after a command's name.
pub(super) fn parse(
    name: &str,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Invocation, UsageError> {
    let Some(command) = all().into_iter().find(|command| command.name == name) else {
        let names: Vec<&str> = all().iter().map(|command| command.name).collect();
        let names = names.join(", ");
        return Err(UsageError(format!("{name}: unknown command, there are {names}; see --help")));
    };
    let mut given = Given::from(Items::read(arguments, &command.options)?);
    if given.flag("--help") {
        return Ok(Invocation::Print(command.help()));
    }
    let json = given.flag("--json");
    let channel_db = given.once("--channel-db", file)?;
    let usage_db = given.once("--usage-db", file)?;
    let subject = match command.name {
        "status" => {
            let admin = given.once("--admin", endpoint::of_admin)?;
            // Who asks the server has its word, and wants files only by name.
            let by_default = admin.is_none().then(|| CHANNEL_DB.into());
            Subject::Status { admin, channel_db: channel_db.or(by_default), usage_db }
        }
        "usage" => Subject::Usage {
            usage_db: usage_db.ok_or_else(|| {
                UsageError("--usage-db: must be given, as in --usage-db=FILE".into())
            })?,
            period: given.once("--period", Period::parse)?.unwrap_or_default(),
        },
        _ => {
            let addrid_db = given.once("--addrid-db", file)?;
            let addresses = given.flag("--addresses");
            if addresses && addrid_db.is_none() {
                let problem = "--addresses: needs --addrid-db=FILE, where the addresses are";
                return Err(UsageError(problem.to_owned()));
            }
            Subject::Connections {
                channel_db: channel_db.unwrap_or_else(|| CHANNEL_DB.into()),
                addrid_db: addrid_db.filter(|_| addresses),
            }
        }
    };
    Ok(Invocation::Report(Report { subject, json }))
}

/// A file that another process can read.
fn file(text: &str) -> Result<PathBuf, String> {
    if Path::new(text) == Path::new(MEMORY) {
        return Err(format!("'{MEMORY}' is inside the server: give a file, or use status --admin"));
    }
    path(text)
}
