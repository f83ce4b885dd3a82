//! Arguments → a complete, valid `Config`, and the `Live` part of it (contract section 6).
//!
//! The only place that sees raw option strings. Does nothing but read them: no address is bound
//! here and no file opened; the texts of files come from a function that the caller gives.

mod arguments;
mod endpoint;
mod generate;
pub mod live;
mod options;
pub mod policy;
pub mod reload;
mod subcommands;
mod websocket_options;
mod welcome_files;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use log::LevelFilter;

use crate::codec::json::Welcome;
use crate::config::live::{Drain, Live};
use crate::config::policy::{Mode, Policy};
use crate::limits::{self, Limit, Limits, Pings};
use crate::message::peer::{self, Network};
use crate::net::passed_sockets::Pick;
use crate::net::socket::{Endpoint, Role};
use crate::storage::db::Synchronous;
use crate::store::Listing;
use crate::sys::clock::Seconds;
pub use arguments::Source;
use arguments::{Given, Items};
pub use subcommands::{Period, Report, Subject};
pub use websocket_options::Origins;

/// Everything an operator can set, but what can change while the server runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen, and for whom. Operators come first: they are served before the crowd.
    pub endpoints: Vec<(Endpoint, Role)>,
    /// Which sockets of a service manager to listen on, and for whom.
    pub passed: Vec<(Pick, Role)>,
    /// Limits in force.
    pub limits: Limits,
    /// When connections are pinged.
    pub pings: Pings,
    /// `Origin`s that may connect.
    pub origins: Origins,
    /// Whether small answers are sent at once.
    pub tcp_nodelay: bool,
    /// The state database.
    pub channel_db: PathBuf,
    /// The usage database.
    pub usage_db: Option<PathBuf>,
    /// The address-id database.
    pub addrid_db: Option<PathBuf>,
    /// Lifetime of a generation of address ids.
    pub generation_duration: Seconds,
    /// Whether the connection table is kept.
    pub track_connections: bool,
    /// Durability of commits.
    pub synchronous: Synchronous,
    /// When clients must work before they may bind.
    pub permission: Policy,
    /// Whether `claim` may say that it must not create its nameplate.
    pub claim_without_allocate: bool,
    /// Time after its end in which a nameplate is not allocated again.
    pub nameplate_cooldown: Seconds,
    /// Lifetime of an idle mailbox.
    pub expire_after: Seconds,
    /// Time between expiry checks.
    pub expire_check: Seconds,
    /// Usage times are rounded down to a multiple of this. Zero only silences the log of
    /// connections, as upstream.
    pub blur_usage: Option<Seconds>,
    /// How much is logged.
    pub log_level: LevelFilter,
    /// Things to warn about once logging works.
    pub warnings: Vec<String>,
    /// Where all this came from.
    pub source: Source,
}

impl Config {
    /// Whether operators may ask how the server is doing.
    pub fn is_watched(&self) -> bool {
        self.endpoints.iter().any(|(_, role)| *role == Role::Admin)
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Serve; the second part can change meanwhile.
    Serve(Box<Config>, Box<Live>),
    /// Tell of a server and exit.
    Report(Report),
    /// Print this text and exit.
    Print(String),
}

/// A mistake on the command line or in a file it names: one line that names the option and says
/// what is right.
#[derive(Debug, PartialEq, Eq)]
pub struct UsageError(pub String);

/// The state database, if the command line names none.
const CHANNEL_DB: &str = "relay.sqlite";

/// Reads the arguments (without the program's name). `read_file` gives a file's text, or says why
/// it cannot.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    read_file: impl Fn(&Path) -> Result<String, String>,
) -> Result<Invocation, UsageError> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some((command, rest)) = arguments.split_first()
        && !command.as_encoded_bytes().starts_with(b"-")
    {
        return subcommands::parse(&arguments::text(command.clone())?, rest.iter().cloned());
    }
    let mut items = Items::read(arguments.iter().cloned(), &options::all().collect::<Vec<_>>())?;
    if items.has("--help") {
        return Ok(Invocation::Print(options::help()));
    }
    if items.has("--version") {
        return Ok(Invocation::Print(format!("wormhole-mailbox {}\n", env!("CARGO_PKG_VERSION"))));
    }
    if let Some(text) = Given::from(items.clone()).once("--generate", generate::text)? {
        return Ok(Invocation::Print(text));
    }
    if let Some(file) = items.value("--config").map(str::to_owned) {
        let content = text_of(&file, &read_file)
            .map_err(|problem| UsageError(format!("--config: {problem}")))?;
        items.add_file(&file, &content)?;
    }
    let source = Source::new(arguments, items.clone());
    let mut given = Given::from(items);
    let live = live(&mut given, &read_file)?;
    let config = config(&mut given, source)?;
    Ok(Invocation::Serve(Box::new(config), Box::new(live)))
}

/// What can change while the server runs.
fn live(
    given: &mut Given,
    read_file: &impl Fn(&Path) -> Result<String, String>,
) -> Result<Live, UsageError> {
    let mut welcome = Welcome {
        motd: given.once("--motd", any)?,
        current_cli_version: given.once("--advertise-version", unless_empty)?.flatten(),
        error: given.once("--signal-error", unless_empty)?.flatten(),
        more: Vec::new(),
    };
    given.once("--welcome-file", |file| {
        let content = text_of(file, read_file)?;
        welcome_files::merge_welcome(&mut welcome, &content)
            .map_err(|problem| format!("{file}: {problem}"))
    })?;
    let notices = given.once("--notices-file", |file| {
        let content = text_of(file, read_file)?;
        welcome_files::notices(&content).map_err(|problem| format!("{file}: {problem}"))
    })?;
    let message = given.once("--drain-message", unless_empty)?.flatten();
    Ok(Live {
        trusted_proxies: or_loopback(given.many("--trusted-proxy", network)?),
        exempt: or_loopback(given.many("--limit-exempt", network)?),
        welcome,
        list: listing(given)?,
        notices: notices.unwrap_or_default(),
        drain: Drain {
            message: message.as_deref().unwrap_or(DRAIN_MESSAGE).into(),
            seconds: given
                .once("--drain-seconds", positive_seconds)?
                .unwrap_or(limits::DRAIN_SECONDS),
        },
    })
}

/// What clients are told while the server drains, unless the operator has other words.
const DRAIN_MESSAGE: &str = "The server is about to restart, please try again in a few minutes.";

fn or_loopback(networks: Vec<Network>) -> Vec<Network> {
    if networks.is_empty() { peer::LOOPBACK.to_vec() } else { networks }
}

/// The text of a file that an option names.
fn text_of(
    file: &str,
    read_file: &impl Fn(&Path) -> Result<String, String>,
) -> Result<String, String> {
    read_file(&path(file)?).map_err(|problem| format!("{file}: {problem}"))
}

/// All the rest.
fn config(given: &mut Given, source: Source) -> Result<Config, UsageError> {
    let mut config = Config {
        endpoints: Vec::new(),
        passed: Vec::new(),
        limits: Limits::default(),
        pings: Pings::default(),
        origins: Origins::default(),
        tcp_nodelay: true,
        channel_db: given.once("--channel-db", path)?.unwrap_or_else(|| CHANNEL_DB.into()),
        usage_db: given.once("--usage-db", path)?,
        addrid_db: given.once("--addrid-db", path)?,
        generation_duration: given
            .once("--generation-duration", positive_seconds)?
            .unwrap_or(limits::GENERATION_SECONDS),
        track_connections: given.flag("--track-connections"),
        synchronous: given.once("--synchronous", synchronous)?.unwrap_or_default(),
        permission: permission(given)?,
        claim_without_allocate: given.flag("--claim-without-allocate"),
        nameplate_cooldown: given.once("--nameplate-cooldown", seconds)?.unwrap_or(0.0),
        expire_after: given
            .once("--expire-after", positive_seconds)?
            .unwrap_or(limits::EXPIRE_AFTER_SECONDS),
        expire_check: given
            .once("--expire-check", positive_seconds)?
            .unwrap_or(limits::EXPIRE_CHECK_SECONDS),
        blur_usage: given.once("--blur-usage", whole_seconds)?,
        log_level: given.once("--log-level", log_level)?.unwrap_or(LevelFilter::Info),
        warnings: Vec::new(),
        source,
    };
    for (source, role) in given.many("--port", endpoint::for_clients)? {
        match source {
            endpoint::Source::Bind(endpoint) => config.endpoints.push((endpoint, role)),
            endpoint::Source::Passed(pick) => config.passed.push((pick, role)),
        }
    }
    let allow_public = given.flag("--admin-public");
    let operators = given.many("--admin", |text| endpoint::for_operators(text, allow_public))?;
    config.endpoints.splice(..0, operators);
    for limit in limits::table() {
        if let Some(value) = given.once(limit.option, |text| limit_value(text, &limit))? {
            (limit.set)(&mut config.limits, value);
        }
    }
    if given.once("--log-fd", descriptor)?.is_some() {
        config.warnings.push("--log-fd has no effect".to_owned());
    }
    given.many("--websocket-protocol-option", |text| websocket_options::set(&mut config, text))?;
    config.limits.fit();
    Ok(config)
}

impl Config {
    /// Without an endpoint for clients: listens on the sockets passed, if there are any, or where
    /// everyone expects it.
    pub fn listen_by_default(&mut self, sockets_are_passed: bool) {
        let serves_clients =
            !self.passed.is_empty() || self.endpoints.iter().any(|(_, role)| *role != Role::Admin);
        if serves_clients {
            return;
        }
        if sockets_are_passed {
            self.passed.push((Pick::All, Role::Client));
        } else {
            self.endpoints.push((endpoint::default(), Role::Client));
        }
    }
}

fn network(text: &str) -> Result<Network, String> {
    Network::from_str(text).map_err(|()| format!("'{text}' must be a network, as in 10.0.0.0/8"))
}

/// What `list` answers, by upstream's flag or our option.
fn listing(given: &mut Given) -> Result<Listing, UsageError> {
    let is_disallowed = given.flag("--disallow-list");
    let list = given.once("--list", |text| one_of(text, &Listing::ALL, Listing::name))?;
    match list {
        Some(Listing::Real | Listing::Decoy) if is_disallowed => Err(UsageError(
            "--disallow-list: is --list=empty, and --list says otherwise; give one of them"
                .to_owned(),
        )),
        None if is_disallowed => Ok(Listing::Empty),
        list => Ok(list.unwrap_or_default()),
    }
}

fn permission(given: &mut Given) -> Result<Policy, UsageError> {
    let default = Policy::default();
    Ok(Policy {
        mode: given
            .once("--permission", |text| one_of(text, &Mode::ALL, Mode::name))?
            .unwrap_or_default(),
        bits: given.once("--hashcash-bits", bits)?.unwrap_or(default.bits),
        attack_events: given.once("--attack-events", events)?.unwrap_or(default.attack_events),
        attack_half_life: given
            .once("--attack-half-life", positive_seconds)?
            .unwrap_or(default.attack_half_life),
    })
}

/// The one of these that has that name.
fn one_of<T: Copy>(text: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<T, String> {
    all.iter().copied().find(|it| name(*it) == text).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|it| name(*it)).collect();
        let (last, others) = names.split_last().unwrap_or((&"", &[]));
        format!("'{text}' must be {} or {last}", others.join(", "))
    })
}

fn bits(text: &str) -> Result<u32, String> {
    let allowed = limits::HASHCASH_BITS_MIN..=limits::HASHCASH_BITS_MAX;
    text.parse().ok().filter(|bits| allowed.contains(bits)).ok_or_else(|| {
        format!("'{text}' must be a whole number from {} to {}", allowed.start(), allowed.end())
    })
}

fn events(text: &str) -> Result<f64, String> {
    text.parse::<u32>()
        .ok()
        .filter(|events| *events > 0)
        .map(f64::from)
        .ok_or_else(|| format!("'{text}' must be a whole number of events above 0"))
}

/// A limit is a number above 0; one of 0 would shut everybody out.
fn limit_value(text: &str, limit: &Limit) -> Result<f64, String> {
    let Limit { whole, unit, .. } = limit;
    let number: Option<f64> =
        if *whole { text.parse::<u32>().ok().map(f64::from) } else { text.parse().ok() };
    let kind = if *whole { "a whole number" } else { "a number" };
    number
        .filter(|number| (limits::OPTION_SECONDS_MIN..=limits::OPTION_NUMBER_MAX).contains(number))
        .ok_or_else(|| {
            format!(
                "'{text}' must be {kind} ({unit}) above 0, at most {}",
                limits::OPTION_NUMBER_MAX
            )
        })
}

fn any(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// A text that counts as not given when it is empty.
fn unless_empty(text: &str) -> Result<Option<String>, String> {
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("needs a file name".to_owned()) } else { Ok(text.into()) }
}

fn positive_seconds(text: &str) -> Result<Seconds, String> {
    text.parse().ok().filter(|seconds: &Seconds| limits::is_duration(*seconds)).ok_or_else(|| {
        format!("'{text}' must be a number of seconds, at least {}", limits::OPTION_SECONDS_MIN)
    })
}

/// As [`positive_seconds`], or zero for never.
fn seconds(text: &str) -> Result<Seconds, String> {
    match text.parse() {
        Ok(0.0) => Ok(0.0),
        _ => positive_seconds(text).map_err(|problem| format!("{problem}, or 0 for never")),
    }
}

fn whole_seconds(text: &str) -> Result<Seconds, String> {
    text.parse::<u32>()
        .map(Seconds::from)
        .map_err(|_| format!("'{text}' must be a whole number of seconds"))
}

fn descriptor(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("'{text}' must be a file descriptor number"))
}

fn synchronous(text: &str) -> Result<Synchronous, String> {
    let all = [Synchronous::Full, Synchronous::Normal, Synchronous::Off];
    one_of(text, &all, Synchronous::name)
}

fn log_level(text: &str) -> Result<LevelFilter, String> {
    LevelFilter::from_str(text).map_err(|_| format!("'{text}' must be error, warn, info or debug"))
}
