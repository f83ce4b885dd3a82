//! From a `Config` to a running `Server`: descriptor limit, addresses, files, and the log of it.
//!
//! Every failure is one line for the log; nothing is left half-open.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;

use log::{info, warn};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::admin::Admin;
use crate::config::Config;
use crate::config::policy::{Mode, Policy};
use crate::config::reloadable::Reloadable;
use crate::engine::Engine;
use crate::limits::{CLIENT_HOURS, DESCRIPTORS_RESERVED, HOUR_BUCKET_SECONDS};
use crate::net::handover;
use crate::net::listeners::{HandedOver, Listeners};
use crate::net::passed_sockets::{PassedSockets, Pick};
use crate::net::socket::{Endpoint, Role};
use crate::server::Server;
use crate::server::inheritance::Inheritance;
use crate::server::service_manager::{Notifier, STORED_NAME};
use crate::server::signals::Signals;
use crate::storage::Storage;
use crate::storage::address_ids::Addresses;
use crate::storage::db::{
    self, AddridDb, ChannelDb, ChannelOptions, Examined, MEMORY, OpenError, UsageDb, UsageHistory,
};
use crate::storage::records::Records;
use crate::store::{Settings, Store};
use crate::sys::clock::Clock;
use crate::sys::entropy::SystemEntropy;

/// Takes over the signals if this program has replaced another, to be called first of all: a signal
/// that comes before ends the process, and with it the connections.
pub fn signals_of_successor() -> Option<io::Result<Signals>> {
    handover::is_announced().then(Signals::install)
}

/// Opens everything. The error is one line for the log.
pub fn start(
    config: Config,
    reloadable: Reloadable,
    signals: Option<io::Result<Signals>>,
) -> Result<Server, String> {
    let signals = signals.unwrap_or_else(Signals::install);
    let signals = signals.map_err(|error| format!("cannot handle signals: {error}"))?;
    let mut passed = PassedSockets::from_environment()?;
    let mut notifier = Notifier::from_environment(Clock::read());
    raise_descriptor_limit();
    let stored = passed.take_stored(STORED_NAME);
    if let (Some(_), Some(notifier)) = (&stored, &mut notifier) {
        notifier.remove_stored();
    }
    let inheritance = Inheritance::receive(stored);
    build(config, reloadable, signals, passed, notifier, inheritance).map(|(server, _)| server)
}

/// Starts a server inside another program; returns the TCP address that it listens on. Leaves the
/// environment of the process and its limits alone.
pub fn start_for_tests(
    config: Config,
    reloadable: Reloadable,
    signals: Signals,
) -> Result<(Server, SocketAddr), String> {
    let passed = PassedSockets::none();
    let (server, bound) = build(config, reloadable, signals, passed, None, None)?;
    let address = bound.iter().find_map(|(endpoint, _)| match endpoint {
        Endpoint::Tcp(address) => Some(*address),
        Endpoint::Unix { .. } => None,
    });
    Ok((server, address.ok_or("no TCP address is listened on")?))
}

fn build(
    mut config: Config,
    reloadable: Reloadable,
    signals: Signals,
    passed: PassedSockets,
    notifier: Option<Notifier>,
    mut inheritance: Option<Inheritance>,
) -> Result<(Server, Vec<(Endpoint, Role)>), String> {
    let entropy = SystemEntropy::new().map_err(|error| format!("no secure randomness: {error}"))?;
    let descriptors = descriptor_limit();
    config.limits.connections_max =
        config.limits.connections_max.min(descriptors.saturating_sub(DESCRIPTORS_RESERVED));
    if config.limits.connections_max == 0 {
        return Err(format!(
            "the limit of {descriptors} open files leaves no room for connections"
        ));
    }

    // Addresses first: a second server on the same ones must not touch the files. Then files, and
    // only then the first connection.
    let (mut listeners, bound) = bind(&mut config, passed, inheritance.as_mut())?;
    if let Some(inheritance) = &mut inheritance {
        inheritance.renumber(&listeners);
    }
    let examined = examine_files(&config)?;
    info!("wormhole-mailbox {}", env!("CARGO_PKG_VERSION"));
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let Files { store, storage, records, past } =
        open_files(&config, &reloadable, examined).map_err(|error| error.to_string())?;
    log_settings(&config, &reloadable);
    let config = Rc::new(config);
    let clock = Clock::read();
    let entropy = Box::new(entropy);
    let mut engine =
        Engine::new(Rc::clone(&config), reloadable, store, storage, records, entropy, clock);
    if let Some(inheritance) = &mut inheritance {
        engine.restore(inheritance.take_addresses(), inheritance.take_states());
    }
    engine.run_first_check();
    let admin = config.is_watched().then(|| {
        let mut admin = Admin::new(clock);
        engine.watch_clients(admin.restore(past));
        admin
    });
    if let Err(problem) = listeners.listen(&bound) {
        engine.close();
        return Err(problem);
    }
    log_addresses(&bound);
    let mut server = Server::new(config, engine, listeners, signals, notifier, admin)
        .map_err(|error| format!("cannot start the event loop: {error}"))?;
    if let Some(inheritance) = inheritance {
        server.restore(inheritance);
    }
    Ok((server, bound))
}

/// Binds all addresses and adds the passed sockets; returns the addresses.
fn bind(
    config: &mut Config,
    mut passed: PassedSockets,
    inheritance: Option<&mut Inheritance>,
) -> Result<(Listeners, Vec<(Endpoint, Role)>), String> {
    let mut none = HandedOver::default();
    let handed_over = inheritance.map_or(&mut none, Inheritance::listeners_mut);
    passed.add_handed_over(handed_over.passed());
    config.listen_by_default(!passed.is_empty());
    let (mut listeners, mut bound) = Listeners::bind(&config.endpoints, handed_over)?;
    bound.extend(adopt(&mut listeners, &mut passed, &config.passed)?);
    Ok((listeners, bound))
}

fn log_addresses(bound: &[(Endpoint, Role)]) {
    for (address, role) in bound {
        match (role, address) {
            (Role::Admin, Endpoint::Tcp(address)) => info!("admin page on http://{address}/"),
            (Role::Admin, address) => info!("admin page on {address}"),
            _ => info!("listening on {address}"),
        }
    }
}

/// Adds the selected passed sockets; returns their addresses.
fn adopt(
    listeners: &mut Listeners,
    passed: &mut PassedSockets,
    picks: &[(Pick, Role)],
) -> Result<Vec<(Endpoint, Role)>, String> {
    let mut addresses = Vec::new();
    for (pick, role) in picks {
        let taken = passed
            .take(pick)
            .map_err(|problem| format!("cannot listen on systemd:{pick}: {problem}"))?;
        for (listener, address, origin) in taken {
            listeners.add(listener, *role, origin);
            addresses.push((address, *role));
        }
    }
    for index in passed.left_over() {
        warn!("systemd socket {index} is not selected by any --port; connections to it will hang");
    }
    Ok(addresses)
}

/// The open databases, and the state loaded from them.
struct Files {
    store: Store,
    storage: Storage,
    records: Records,
    /// The last day of the usage database; empty without an admin listener.
    past: UsageHistory,
}

/// The files, examined: none is changed before all have been found to be in order.
struct ExaminedFiles {
    channel: Examined,
    usage: Option<Examined>,
    addrid: Option<Examined>,
}

fn examine_files(config: &Config) -> Result<ExaminedFiles, String> {
    check_distinct(config)?;
    let examine = || {
        Ok(ExaminedFiles {
            channel: ChannelDb::examine(&config.channel_db, channel_options(config))?,
            usage: config.usage_db.as_deref().map(UsageDb::examine).transpose()?,
            addrid: config.addrid_db.as_deref().map(AddridDb::examine).transpose()?,
        })
    };
    examine().map_err(|error: OpenError| error.to_string())
}

/// Checks what can be checked without opening anything for writing. Files of a running server may
/// be named.
pub fn check(config: &Config) -> Result<(), String> {
    check_distinct(config)?;
    let Config { channel_db, usage_db, addrid_db, .. } = config;
    db::check_files(channel_db, usage_db.as_deref(), addrid_db.as_deref())
        .map_err(|error| error.to_string())
}

/// Fails if two options name the same file.
fn check_distinct(config: &Config) -> Result<(), String> {
    let files = [
        ("--channel-db", Some(&config.channel_db)),
        ("--usage-db", config.usage_db.as_ref()),
        ("--addrid-db", config.addrid_db.as_ref()),
    ];
    let files = files.into_iter().filter_map(|(option, path)| Some((option, path?)));
    let files: Vec<_> = files.filter(|(_, path)| **path != Path::new(MEMORY)).collect();
    for (index, (option, path)) in files.iter().enumerate() {
        if let Some((other, _)) = files[..index].iter().find(|(_, it)| same_file(it, path)) {
            return Err(format!("{other} and {option} both name {}", path.display()));
        }
    }
    Ok(())
}

fn same_file(a: &Path, b: &Path) -> bool {
    // Of a file that is to be made, there is the directory.
    let real = |path: &Path| {
        let absolute = std::path::absolute(path).ok()?;
        let in_directory = || Some(absolute.parent()?.canonicalize().ok()?.join(path.file_name()?));
        path.canonicalize().ok().or_else(in_directory)
    };
    a == b || real(a).is_some_and(|a| Some(a) == real(b))
}

fn channel_options(config: &Config) -> ChannelOptions {
    ChannelOptions {
        synchronous: config.synchronous,
        needs_version_2: config.addrid_db.is_some() || config.track_connections,
    }
}

fn open_files(
    config: &Config,
    reloadable: &Reloadable,
    examined: ExaminedFiles,
) -> Result<Files, OpenError> {
    let (db, store) = open_channel_db(config, reloadable, examined.channel)?;
    match open_records(config, &db, examined.usage, examined.addrid) {
        Ok((records, past)) => {
            Ok(Files { store, storage: Storage::new(Box::new(db)), records, past })
        }
        Err(error) => {
            Storage::new(Box::new(db)).close();
            Err(error)
        }
    }
}

fn open_records(
    config: &Config,
    channel: &ChannelDb,
    usage: Option<Examined>,
    addrid: Option<Examined>,
) -> Result<(Records, UsageHistory), OpenError> {
    let mut past = UsageHistory::default();
    let usage = usage.map(UsageDb::open).transpose()?;
    if let (Some(path), Some(db)) = (&config.usage_db, &usage) {
        info!("usage database {}: {}, version {}", path.display(), db.history(), db.version());
        if config.is_watched() {
            past = read_past(db);
        }
    }
    let mut addresses = None;
    if let (Some(path), Some(examined)) = (&config.addrid_db, addrid) {
        let last = channel.generation();
        let last = last.map_err(|error| OpenError::channel(&config.channel_db, error))?;
        let addrid = AddridDb::open(examined)?;
        let ids = Addresses::new(last, Clock::read(), config.generation_duration);
        info!("address-id database {}: generation {}", path.display(), ids.generation().0);
        addresses = Some((addrid, ids));
    }
    Ok((Records::new(usage, config.usage_keep, addresses, config.track_connections), past))
}

/// Opens the channel database and loads the state from it.
fn open_channel_db(
    config: &Config,
    reloadable: &Reloadable,
    examined: Examined,
) -> Result<(ChannelDb, Store), OpenError> {
    let path = &config.channel_db;
    let mut db = ChannelDb::open(examined, channel_options(config))?;
    info!("channel database {}: {}, version {}", path.display(), db.history(), db.version());
    let prepared = db.prepare_for_service(config.track_connections);
    prepared.map_err(|error| OpenError::channel(path, error))?;
    let settings = Settings {
        expire_after: config.expire_after,
        blur: config.blur_usage,
        list: reloadable.list,
        claim_without_allocate: config.claim_without_allocate,
        nameplate_digits_min: config.nameplate_digits_min,
        nameplate_cooldown: config.nameplate_cooldown,
        limits: config.limits.clone(),
        ..Settings::default()
    };
    let mut store = Store::new(settings);
    let loaded = store.load(Clock::read().wall, |each| db.load(each));
    loaded.map_err(|error| OpenError::channel(path, error))?;
    let (counts, remains) = (store.counts(), store.remains_count());
    if remains > 0 {
        warn!("deleting {remains} messages of mailboxes that do not exist");
    }
    info!(
        "loaded {} nameplates, {} mailboxes, {} messages",
        counts.nameplates, counts.mailboxes, counts.messages
    );
    Ok((db, store))
}

/// Reads the last day of the usage database, for the status page.
fn read_past(usage: &UsageDb) -> UsageHistory {
    const SECONDS_PER_HOUR: f64 = 3_600.0;
    let since = Clock::read().wall - CLIENT_HOURS as f64 * SECONDS_PER_HOUR;
    usage.past(since, HOUR_BUCKET_SECONDS).unwrap_or_else(|error| {
        warn!("the last day is missing on the status page: {error}");
        UsageHistory::default()
    })
}

const BYTES_PER_MIB: usize = 1024 * 1024;

fn log_settings(config: &Config, reloadable: &Reloadable) {
    let limits = &config.limits;
    if config.source.has_files() {
        info!("read from files: {reloadable}");
    }
    info!(
        "limits: {} connections, messages of {} bytes, at most {} MiB of memory in all",
        limits.connections_max,
        limits.message_bytes_max,
        limits.memory_bytes_max().div_ceil(BYTES_PER_MIB)
    );
    info!(
        "expiry after {} s, checked every {} s; synchronous {}",
        config.expire_after,
        config.expire_check,
        config.synchronous.name()
    );
    match config.blur_usage {
        Some(blur) => info!("usage times are rounded down to {blur} s, connections are not logged"),
        None if config.usage_db.is_some() => info!("usage times are exact"),
        None => {}
    }
    if let Some(note) = reloadable.list_note() {
        info!("{note}");
    }
    log_extensions(config);
}

/// Logs the extensions that are on; all are off by default.
fn log_extensions(config: &Config) {
    let Policy { mode, bits, attack_events, attack_half_life } = config.permission;
    match mode {
        Mode::None => {}
        Mode::Offer => info!("proof of work: {bits} bits, optional"),
        Mode::Require => info!("proof of work: {bits} bits, required"),
        Mode::Auto => info!(
            "proof of work: {bits} bits or more, required during an attack, which begins at \
             {attack_events} hostile events with a half-life of {attack_half_life} s"
        ),
    }
    if config.claim_without_allocate {
        info!("'claim' with '\"allocate\": false' creates no nameplate");
    }
    if config.delete {
        info!("clients may delete single messages");
    }
    if config.nameplate_cooldown > 0.0 {
        info!("nameplates are allocated again after {} s", config.nameplate_cooldown);
    }
    if !config.allocate_from.is_empty() {
        info!("exchanges begin in {} networks only", config.allocate_from.len());
    }
}

/// Raises the soft limit of open files to the hard one.
fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        warn!("cannot raise the limit of open files: {error}");
    }
}

fn descriptor_limit() -> usize {
    // None means unlimited.
    getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX))
}
