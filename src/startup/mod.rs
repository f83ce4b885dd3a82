//! From a `Config` to a running `Server`: descriptor limit, addresses, files, and the log of it.
//!
//! Every failure is one line for the log; nothing is left half-open.

mod files;

use std::env;
use std::io;
use std::rc::Rc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::admin::Admin;
use crate::config::permission::{Mode, Policy};
use crate::config::reloadable::Reloadable;
use crate::config::{Config, reload};
use crate::engine::Engine;
use crate::engine::client_programs::ClientPrograms;
use crate::limits::DESCRIPTORS_RESERVED;
use crate::net::handover;
use crate::net::listeners::{HandedOver, Listeners};
use crate::net::passed_sockets::{PassedSockets, Pick, Taken};
use crate::net::socket::{Endpoint, Listener, Role};
use crate::server::Server;
use crate::server::inheritance::Inheritance;
use crate::server::service_manager::{Notifier, STORED_NAME};
use crate::server::signals::Signals;
use crate::storage::db::{EarlierLocks, UsageHistory};
use crate::sys::clock::Clock;
use crate::sys::entropy::SystemEntropy;
use crate::sys::logging::{info, warn};
use files::Files;

/// Takes over the signals if this program has replaced another, to be called first of all: a signal
/// that comes before ends the process, and with it the connections.
pub fn signals_of_successor() -> Option<io::Result<Signals>> {
    handover::is_announced().then(Signals::install)
}

/// Checks what can be checked without opening anything for writing. Files of a running server may
/// be named. Only for a server that this program is to replace it also binds addresses, and tries
/// the directories and locks of files.
pub fn check(mut config: Config) -> Result<(), String> {
    let list = env::var(handover::LISTENING).ok();
    if let Some(listening) = &list {
        check_takeover(&mut config, listening)?;
    }
    check_addresses(&config.endpoints)?;
    files::check(&config)?;
    match list {
        Some(list) => files::check_for_takeover(&config, EarlierLocks::described(&list)),
        None => Ok(()),
    }
}

/// Fails if the sockets cannot be had that are not among those to be taken over, whose
/// [`Listeners::check_list`] `listening` is.
fn check_takeover(config: &mut Config, listening: &str) -> Result<(), String> {
    let mut passed = PassedSockets::announced(listening);
    config.listen_by_default(!passed.is_empty());
    for (pick, _) in &config.passed {
        passed.pick(pick).map_err(|problem| not_picked(pick, &problem))?;
    }
    for (endpoint, _) in &config.endpoints {
        if !listening.lines().any(|line| is_in_the_way(line, endpoint)) {
            // Not for long: the file of a unix socket goes with it.
            Listener::bind(endpoint)
                .map_err(|error| format!("cannot listen on {endpoint}: {error}"))?;
        }
    }
    Ok(())
}

/// Whether a listener to be taken over, by its line in the list, has that endpoint, or keeps it
/// from being bound as long as it is there.
fn is_in_the_way(line: &str, endpoint: &Endpoint) -> bool {
    let listener = match line.strip_prefix("unix:") {
        Some(path) => Some(Endpoint::Unix { path: path.into(), mode: 0 }),
        None => line.parse().ok().map(Endpoint::Tcp),
    };
    listener.is_some_and(|listener| listener.overlaps(endpoint))
}

fn not_picked(pick: &Pick, problem: &str) -> String {
    format!("cannot listen on systemd:{pick}: {problem}")
}

/// Fails if two addresses cannot be listened on both. The kernel would not say so before the files
/// are open.
fn check_addresses(endpoints: &[(Endpoint, Role)]) -> Result<(), String> {
    for (index, (endpoint, _)) in endpoints.iter().enumerate() {
        if let Some((other, _)) = endpoints[..index].iter().find(|(it, _)| it.overlaps(endpoint)) {
            return Err(format!("cannot listen on {endpoint}: {other} is listened on as well"));
        }
    }
    Ok(())
}

/// Opens everything. The error is one line for the log.
pub fn start(
    config: Config,
    reloadable: Reloadable,
    signals: Option<io::Result<Signals>>,
) -> Result<Server, String> {
    let mut passed = PassedSockets::from_environment()?;
    let signals = signals.unwrap_or_else(Signals::install);
    let signals = signals.map_err(|error| format!("cannot handle signals: {error}"))?;
    let mut notifier = Notifier::from_environment(Clock::read());
    raise_descriptor_limit();
    let stored = passed.take_stored(STORED_NAME);
    if let (Some(_), Some(notifier)) = (&stored, &mut notifier) {
        notifier.remove_stored();
    }
    let inheritance = Inheritance::receive(stored);
    build(config, reloadable, signals, passed, notifier, inheritance).map(|(server, _)| server)
}

/// Starts a server inside another program; returns the addresses that it listens on. Leaves the
/// environment of the process and its limits alone.
pub fn start_for_tests(
    config: Config,
    reloadable: Reloadable,
    signals: Signals,
) -> Result<(Server, Vec<(Endpoint, Role)>), String> {
    build(config, reloadable, signals, PassedSockets::none(), None, None)
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
    bound_connections(&mut config)?;

    // Addresses first: a second server on the same ones must not touch the files. Then files, and
    // only then the first connection.
    let handed_over = inheritance.as_mut().map(|it| std::mem::take(&mut it.listeners));
    let mut listeners = bind(&mut config, passed, handed_over.unwrap_or_default())?;
    let locks = inheritance.as_mut().map(|it| std::mem::take(&mut it.locks)).unwrap_or_default();
    let locks = EarlierLocks::HandedOver(locks);
    let taken_over = inheritance.as_ref().map(Inheritance::numbers).unwrap_or_default();
    let mut files =
        Files::open(&config, &reloadable, locks, &taken_over).map_err(|error| error.to_string())?;
    if let Some(record) = inheritance.as_mut().and_then(|it| it.addresses.ids.take()) {
        files.restore_address_ids(record);
    }
    // Only now: a start that fails has one line, that of the failure.
    log_program(&config);
    files.log();
    log_settings(&config, &reloadable);
    let config = Rc::new(config);
    let (engine, admin) = start_engine(&config, reloadable, files, entropy, &mut inheritance);
    if let Err(problem) = listeners.listen() {
        engine.close();
        return Err(problem);
    }
    let addresses = listeners.addresses();
    log_addresses(&addresses);
    let mut server = Server::new(config, engine, listeners, signals, notifier, admin)
        .map_err(|error| format!("cannot start the event loop: {error}"))?;
    if let Some(inheritance) = inheritance {
        server.restore(inheritance);
    }
    Ok((server, addresses))
}

/// Puts the engine together, with what an earlier process has handed over to it, and what the
/// admin listener shows.
fn start_engine(
    config: &Rc<Config>,
    reloadable: Reloadable,
    files: Files,
    entropy: SystemEntropy,
    inheritance: &mut Option<Inheritance>,
) -> (Box<Engine>, Option<Admin>) {
    let clock = Clock::read();
    let last_day = config.has_admin_listener().then(|| files.last_day());
    let Files { store, storage, records, .. } = files;
    // In the heap, as each move of it would be one more copy on the stack, whose pages stay.
    let mut engine = Box::new(Engine::new(
        Rc::clone(config),
        reloadable,
        store,
        storage,
        records,
        Box::new(entropy),
        clock,
    ));
    if let Some(inheritance) = inheritance {
        let addresses = std::mem::take(&mut inheritance.addresses);
        engine.restore(addresses, inheritance.take_states());
    }
    engine.run_first_check();
    let admin = last_day.map(|UsageHistory { mailboxes, clients }| {
        engine.client_programs = Some(Box::new(ClientPrograms::of_binds(clients, clock.wall)));
        Admin::new(clock, &mailboxes)
    });
    (engine, admin)
}

/// Allows no more connections than there are descriptors for.
fn bound_connections(config: &mut Config) -> Result<(), String> {
    // None means unlimited.
    let Some(descriptors) = getrlimit(Resource::Nofile).current else { return Ok(()) };
    let room = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let room = room.saturating_sub(DESCRIPTORS_RESERVED);
    let connections_max = &mut config.limits.connections_max;
    *connections_max = room.min(*connections_max);
    if *connections_max > 0 {
        return Ok(());
    }
    Err(format!("the limit of {descriptors} open files leaves no room for connections"))
}

/// Binds all addresses and adds the passed sockets.
fn bind(
    config: &mut Config,
    mut passed: PassedSockets,
    mut handed_over: HandedOver,
) -> Result<Listeners, String> {
    passed.add_handed_over(&mut handed_over);
    config.listen_by_default(!passed.is_empty());
    check_addresses(&config.endpoints)?;
    let adopted = adopt(&mut passed, &config.passed)?;
    let mut listeners = Listeners::bind(&config.endpoints, handed_over)?;
    for ((listener, record), role) in adopted {
        listeners.add(listener, role, record);
    }
    Ok(listeners)
}

fn log_addresses(addresses: &[(Endpoint, Role)]) {
    for (address, role) in addresses {
        match (role, address) {
            (Role::Admin, Endpoint::Tcp(address)) => info!("admin page on http://{address}/"),
            (Role::Admin, address) => info!("admin page on {address}"),
            _ => info!("listening on {address}"),
        }
    }
}

/// Takes the selected passed sockets, and closes those of an earlier process that are not, so that
/// their addresses are free.
fn adopt(passed: &mut PassedSockets, picks: &[(Pick, Role)]) -> Result<Vec<(Taken, Role)>, String> {
    let mut adopted = Vec::new();
    for (pick, role) in picks {
        let taken = passed.take(pick).map_err(|problem| not_picked(pick, &problem))?;
        adopted.extend(taken.into_iter().map(|taken| (taken, *role)));
    }
    passed.close_handed_over();
    for index in passed.left_over() {
        warn!("systemd socket {index} is not selected by any --port; connections to it will hang");
    }
    Ok(adopted)
}

fn log_program(config: &Config) {
    info!("wormhole-mailbox {}", env!("CARGO_PKG_VERSION"));
    for warning in &config.warnings {
        warn!("{warning}");
    }
}

const BYTES_PER_MIB: usize = 1024 * 1024;

fn log_settings(config: &Config, reloadable: &Reloadable) {
    let limits = &config.limits;
    if reload::has_files(config) {
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
        config.rules.expire_after,
        config.expire_check,
        config.synchronous.name()
    );
    match config.rules.blur {
        Some(0.0) => info!("usage times are exact, connections are not logged"),
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
    if config.rules.claim_without_allocate {
        info!("'claim' with '\"allocate\": false' creates no nameplate");
    }
    if config.delete {
        info!("clients may delete single messages");
    }
    if config.rules.nameplate_cooldown > 0.0 {
        info!("nameplates are allocated again after {} s", config.rules.nameplate_cooldown);
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
