//! The table of subcommands: reports on a server and its files, and a server for tests. One row an
//! option, as in `options`.
//!
//! Opens nothing and connects to nothing: that is done in `report` and `testing`.

use std::path::{Path, PathBuf};

use super::arguments::{LEAVE_OUT_PLUGIN, TWIST_PLUGIN};
use super::members;
use super::nearest::nearest;
use super::server_url::{Scheme, ServerUrl};
use super::settings::{Format, Period, Query};
use super::spec::Arity::{Flag, Many, Once};
use super::spec::ShownDefault::{Text, Unset};
use super::spec::{Row, Setter, rows};
use super::trouble::Trouble;
use super::{Invocation, endpoint, values};
use crate::net::socket::Endpoint;
use crate::storage::db::MEMORY;

/// The subject of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The state of a server, from its admin listener or from its files.
    Status {
        /// The running server's admin listener.
        admin: Option<Endpoint>,
        /// Files to be read; none to leave them alone.
        channel_db: Option<PathBuf>,
        usage_db: Option<PathBuf>,
    },
    /// Results of exchanges.
    Usage { usage_db: PathBuf, period: Period },
    /// Live connections.
    Connections {
        channel_db: PathBuf,
        /// Given only if addresses are to be shown.
        addrid_db: Option<PathBuf>,
    },
    /// An exchange through a server.
    Check {
        server: ServerUrl,
        /// A line of the shell that connects to it with its stdin and stdout.
        via: Option<String>,
    },
    /// Adds a member to a file.
    AddMember {
        members: PathBuf,
        name: String,
        /// As clients use it; none if it is not known.
        url: Option<String>,
    },
}

/// A subcommand.
#[derive(Debug)]
pub struct Subcommand {
    /// The first word of the command line.
    pub name: &'static str,
    /// Whole sentences.
    pub about: &'static str,
    /// What may follow the name: one word, or several with blanks between them.
    pub operand: Option<Operand>,
    pub rows: &'static [Row],
    /// Checks the options together. The error is a whole line.
    pub finish: fn(Query) -> Result<Invocation, String>,
}

/// The name of a word, as the help shows it, and its effect.
pub type Operand = (&'static str, Setter);

/// All subcommands.
pub static TABLE: &[Subcommand] = &[
    Subcommand {
        name: "status",
        about: "Show server status, from the running server (`--admin`) or from its database files.",
        operand: None,
        rows: rows! {
            "--admin": Once("ENDPOINT"),
                Set |s, text| s.query.admin = Some(endpoint::for_admin(text)?),
                Text("read the files"),
                "Ask the running server at its admin listener: `PORT`, `ADDRESS:PORT`, \
                 `tcp:PORT[:interface=ADDRESS]`, `unix:PATH`. Files are then read only if named.";
            "--channel-db": Once("FILE"), Set |s, text| s.query.channel_db = Some(file(text)?),
                Text("`relay.sqlite`"), "The state database.";
            "--usage-db": Once("FILE"), Set |s, text| s.query.usage_db = Some(file(text)?),
                Text("none"), "Read this usage database too.";
            JSON, HELP
        },
        finish: status,
    },
    Subcommand {
        name: "usage",
        about: "Show results and durations of exchanges, and the clients that connected.",
        operand: None,
        rows: rows! {
            "--usage-db": Once("FILE"), Set |s, text| s.query.usage_db = Some(file(text)?), Unset,
                "The usage database. Must be given.";
            "--period": Once("day|week|month|all"),
                Set |s, text| s.query.period = values::one_of(text, &Period::NAMES)?,
                Text("`week`"), "The last 24 hours, 7 days, 30 days, or all.";
            JSON, HELP
        },
        finish: usage,
    },
    Subcommand {
        name: "connections",
        about: "Show live connections of a server that runs with `--track-connections`.",
        operand: None,
        rows: rows! {
            "--channel-db": Once("FILE"), Set |s, text| s.query.channel_db = Some(file(text)?),
                Text("`relay.sqlite`"), "The state database.";
            "--addresses": Flag, Set |s, _| s.query.addresses = true, Unset,
                "Show addresses, from `--addrid-db`, and not only their numbers.";
            "--addrid-db": Once("FILE"), Set |s, text| s.query.addrid_db = Some(file(text)?),
                Text("none"), "The address-id database; read only with `--addresses`.";
            JSON, HELP
        },
        finish: connections,
    },
    Subcommand {
        name: "check",
        about: "Carry out an exchange of two clients through a running server, at `URL` or \
                `ws://127.0.0.1:4000/v1`, and show how long each step took.",
        operand: Some(("URL", |s, text| {
            s.query.server = ServerUrl::parse(text)?;
            Ok(())
        })),
        rows: rows! {
            "--via": Once("COMMAND"), Set |s, text| s.query.via = Some(values::shell_line(text)?),
                Text("none"),
                "Talk to the server through stdin and stdout of this command, which the shell runs \
                 for each of the two clients. `URL` may then begin with `wss://`.";
            JSON, HELP
        },
        finish: check,
    },
    Subcommand {
        name: "member",
        about: "Make a secret for the new member `NAME`, add it to the file of members, and show the \
                lines to type for each client.",
        operand: Some(("add NAME", |s, text| {
            let name = text.strip_prefix("add ").ok_or("member: give add NAME")?;
            s.query.name =
                Some(members::name(name).map_err(|rule| format!("member: {rule}"))?.to_owned());
            Ok(())
        })),
        rows: rows! {
            "--members": Once("FILE"), Set |s, text| s.query.members = Some(values::path(text)?),
                Unset, "The file of members; created if it is missing. Must be given.";
            "--url": Once("URL"), Set |s, text| s.query.url = Some(values::member_url(text)?),
                Unset, "The server's URL as clients use it, as in `wss://mailbox.example.org/v1`.";
            HELP
        },
        finish: member,
    },
    Subcommand {
        name: "test-server",
        about: "Run a server for the tests of a client: in memory, on a free port, until stdin is \
                closed. The only line on stdout is its URL.",
        operand: None,
        rows: rows! {
            "--trouble": Many("TROUBLE"),
                Set |s, text| s.query.troubles.push(Trouble::parse(text)?), Text("none"),
                "What goes wrong; repeatable. After that many commands, `restart:AFTER`, \
                 `drop:AFTER` or `freeze:AFTER:SECONDS`; or else `crowded`, `error:TEXT` or \
                 `slow-replay:MS`.";
            HELP
        },
        finish: |query| Ok(Invocation::TestServer(query.troubles)),
    },
];

const JSON: Row = rows! {
    "--json": Flag, Set |s, _| s.query.format = Format::Json, Unset, "Print JSON, for programs.";
}[0];

const HELP: Row = rows! { "--help" / "-h": Flag, Help, Unset, "Print this and exit."; }[0];

/// The subcommand of that name.
pub fn find(name: &str) -> Result<&'static Subcommand, String> {
    if let Some(subcommand) = TABLE.iter().find(|subcommand| subcommand.name == name) {
        return Ok(subcommand);
    }
    if name == TWIST_PLUGIN {
        return Err(format!("{name}: {LEAVE_OUT_PLUGIN}"));
    }
    let names = TABLE.iter().map(|subcommand| subcommand.name).chain([HELP_COMMAND]);
    let meant = nearest(name, &mut names.clone()).map(|known| format!(" (did you mean {known}?)"));
    let (meant, names) = (meant.unwrap_or_default(), names.collect::<Vec<_>>().join(", "));
    Err(format!("'{name}': unknown command{meant}, there are {names}; see --help"))
}

/// The command that shows the help of another, which follows it.
pub const HELP_COMMAND: &str = "help";

fn status(query: Query) -> Result<Invocation, String> {
    let Query { admin, channel_db, usage_db, format, .. } = query;
    // A running server needs no files.
    let by_default = admin.is_none().then(|| values::CHANNEL_DB.into());
    let subject = Subject::Status { admin, channel_db: channel_db.or(by_default), usage_db };
    Ok(Invocation::Report(subject, format))
}

fn usage(query: Query) -> Result<Invocation, String> {
    let usage_db = query.usage_db.ok_or("--usage-db: must be given, as in --usage-db=FILE")?;
    Ok(Invocation::Report(Subject::Usage { usage_db, period: query.period }, query.format))
}

fn connections(query: Query) -> Result<Invocation, String> {
    let Query { channel_db, addrid_db, addresses, format, .. } = query;
    if addresses && addrid_db.is_none() {
        return Err("--addresses: needs --addrid-db=FILE, where the addresses are".to_owned());
    }
    let channel_db = channel_db.unwrap_or_else(|| values::CHANNEL_DB.into());
    let addrid_db = addrid_db.filter(|_| addresses);
    Ok(Invocation::Report(Subject::Connections { channel_db, addrid_db }, format))
}

fn check(query: Query) -> Result<Invocation, String> {
    let Query { server, via, format, .. } = query;
    match (&server, &via) {
        (ServerUrl::Unix(_), Some(_)) => {
            Err("--via: connects to the server by itself, so give the URL that clients use"
                .to_owned())
        }
        (ServerUrl::Tcp { scheme: Scheme::WSS, .. }, None) => Err(format!(
            "{server}: TLS needs a command that speaks it, as in --via='openssl s_client -quiet \
             -verify_return_error -connect HOST:443'; or check behind the proxy, as in \
             ws://127.0.0.1:4000/v1"
        )),
        _ => Ok(Invocation::Report(Subject::Check { server, via }, format)),
    }
}

fn member(query: Query) -> Result<Invocation, String> {
    let name = query.name.ok_or("member: give add NAME")?;
    let members = query.members.ok_or("--members: must be given, as in --members=FILE")?;
    Ok(Invocation::Report(Subject::AddMember { members, name, url: query.url }, query.format))
}

/// A file that another process can read.
fn file(text: &str) -> Result<PathBuf, String> {
    if Path::new(text) == Path::new(MEMORY) {
        return Err(format!("'{MEMORY}' is inside the server: give a file, or use status --admin"));
    }
    values::path(text)
}
