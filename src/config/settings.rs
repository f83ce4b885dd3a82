//! What the options set: the `Config` of a run, the `Query` of a subcommand, and the state while
//! options are applied.
//!
//! Plain data. Nothing here reads a file or binds an address.

use std::path::PathBuf;

use log::LevelFilter;

use super::arguments::RawOption;
use super::permission::Policy;
use super::reloadable::Reloadable;
use super::server_url::ServerUrl;
use super::trouble::{Trouble, Troubles};
use super::{endpoint, values};
use crate::codec::origins::Origins;
use crate::limits::{self, Limits, Pings};
use crate::message::{AddressHeader, LOOPBACK, Network};
use crate::net::passed_sockets::Pick;
use crate::net::socket::{Endpoint, Role};
use crate::storage::db::Synchronous;
use crate::store::{Listing, Rules};
use crate::sys::clock::Seconds;

/// All settings that only a restart changes.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to bind. The admin listeners come first, so that they are served first.
    pub endpoints: Vec<(Endpoint, Role)>,
    /// Sockets of a service manager to listen on.
    pub passed: Vec<(Pick, Role)>,
    pub limits: Limits,
    pub rules: Rules,
    pub pings: Pings,
    /// The header in which trusted proxies name the client's address.
    pub address_header: AddressHeader,
    /// Values of `Origin` that may connect.
    pub origins: Origins,
    /// Whether small answers are sent at once.
    pub tcp_nodelay: bool,
    /// `:memory:` keeps nothing.
    pub channel_db: PathBuf,
    /// None records no usage.
    pub usage_db: Option<PathBuf>,
    /// Age at which a usage record is deleted; none to keep all.
    pub usage_keep: Option<Seconds>,
    /// None numbers no addresses; `:memory:` is allowed.
    pub addrid_db: Option<PathBuf>,
    /// Lifetime of a generation of address ids.
    pub generation_duration: Seconds,
    /// Whether the connection table is kept.
    pub track_connections: bool,
    /// What of the channel database survives a power loss.
    pub synchronous: Synchronous,
    /// When a proof of work is required (manual: proof_of_work 1).
    pub permission: Policy,
    /// Whether clients may delete single messages (a draft).
    pub delete: bool,
    /// Networks whose clients may begin exchanges; all if there is none.
    pub allocate_from: Vec<Network>,
    /// Time between expiry checks.
    pub expire_check: Seconds,
    /// Whether connections are handed over to another process.
    pub takeover: bool,
    /// The least grave lines that are logged.
    pub log_level: LevelFilter,
    /// What goes wrong on order; nothing but in tests of clients.
    pub troubles: Troubles,
    /// Logged once logging works.
    pub warnings: Vec<String>,
    /// All options given.
    pub given: Vec<RawOption>,
}

impl Config {
    /// The values given to an option.
    pub fn given(&self, name: &str) -> Vec<&str> {
        let given = self.given.iter().filter(|option| option.row.name == name);
        given.map(|option| option.value.as_str()).collect()
    }

    /// The database files, each with the name before the `-db` of its option.
    pub fn databases(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let databases = [
            ("channel", Some(&self.channel_db)),
            ("usage", self.usage_db.as_ref()),
            ("addrid", self.addrid_db.as_ref()),
        ];
        databases.into_iter().filter_map(|(name, path)| Some((name, path?)))
    }

    pub fn has_admin_listener(&self) -> bool {
        self.endpoints.iter().any(|(_, role)| *role == Role::Admin)
    }

    /// Without an endpoint for clients: listens on the passed sockets, or else on the default port.
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

impl Default for Config {
    /// Listens nowhere yet: that depends on the passed sockets ([`Config::listen_by_default`]).
    fn default() -> Config {
        Config {
            endpoints: Vec::new(),
            passed: Vec::new(),
            limits: Limits::default(),
            rules: Rules::default(),
            pings: Pings::default(),
            address_header: AddressHeader::default(),
            origins: Origins::default(),
            tcp_nodelay: true,
            channel_db: values::CHANNEL_DB.into(),
            usage_db: None,
            usage_keep: None,
            addrid_db: None,
            generation_duration: limits::GENERATION_SECONDS,
            track_connections: false,
            synchronous: Synchronous::default(),
            permission: Policy::default(),
            delete: false,
            allocate_from: Vec::new(),
            expire_check: limits::EXPIRE_CHECK_SECONDS,
            takeover: true,
            log_level: LevelFilter::Info,
            troubles: Troubles::default(),
            warnings: Vec::new(),
            given: Vec::new(),
        }
    }
}

/// What the options of a subcommand set.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Of a new member.
    pub name: Option<String>,
    pub members: Option<PathBuf>,
    /// As clients use it, without a secret.
    pub url: Option<String>,
    /// What is checked.
    pub server: ServerUrl,
    pub via: Option<String>,
    pub admin: Option<Endpoint>,
    pub channel_db: Option<PathBuf>,
    pub usage_db: Option<PathBuf>,
    pub addrid_db: Option<PathBuf>,
    pub addresses: bool,
    pub period: Period,
    pub format: Format,
    pub troubles: Vec<Trouble>,
}

/// The form of a report.
#[derive(Clone, Copy, Debug, Default)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// How far back a report goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// None for all that is recorded.
    pub days: Option<u32>,
}

impl Period {
    /// Its names on the command line.
    pub const NAMES: [(&'static str, Period); 4] = [
        ("day", Period { days: Some(1) }),
        ("week", Period { days: Some(7) }),
        ("month", Period { days: Some(30) }),
        ("all", Period { days: None }),
    ];
}

impl Default for Period {
    fn default() -> Period {
        Period { days: Some(7) }
    }
}

/// All that options set; they are applied in the order of their table.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub config: Config,
    pub reloadable: Reloadable,
    pub query: Query,
    pub admin_public: bool,
    pub list: Option<Listing>,
}

impl Settings {
    /// What is in force once all options are applied.
    pub fn finish(mut self) -> (Config, Reloadable) {
        let or_loopback = |networks: Vec<Network>| {
            if networks.is_empty() { LOOPBACK.to_vec() } else { networks }
        };
        self.reloadable.trusted_proxies = or_loopback(self.reloadable.trusted_proxies);
        self.reloadable.exempt = or_loopback(self.reloadable.exempt);
        self.reloadable.list = self.list.unwrap_or_default();
        let raised = self.config.limits.settle_dependent_limits();
        self.config.warnings.extend(raised);
        (self.config, self.reloadable)
    }

    pub fn listen_for_clients(&mut self, text: &str) -> Result<(), String> {
        match endpoint::for_clients(text)? {
            (endpoint::SocketSource::Bind(endpoint), role) => {
                self.config.endpoints.push((endpoint, role))
            }
            (endpoint::SocketSource::Passed(pick), role) => self.config.passed.push((pick, role)),
        }
        Ok(())
    }

    pub fn listen_for_admin(&mut self, text: &str) -> Result<(), String> {
        let endpoint = if self.admin_public {
            endpoint::for_admin(text)?
        } else {
            endpoint::for_private_admin(text)?
        };
        let endpoints = &mut self.config.endpoints;
        let at = endpoints.partition_point(|(_, role)| *role == Role::Admin);
        endpoints.insert(at, (endpoint, Role::Admin));
        Ok(())
    }

    /// `--disallow-list`, which must not contradict `--list`.
    pub fn disallow_list(&mut self) -> Result<(), String> {
        match self.list.replace(Listing::Empty) {
            None | Some(Listing::Empty) => Ok(()),
            Some(Listing::Real | Listing::Decoy) => {
                Err("is --list=empty, and --list says otherwise; give one of them".to_owned())
            }
        }
    }
}
