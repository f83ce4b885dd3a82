//! Attacks on the real server with its default settings, and what honest clients, newcomers and
//! operators notice of them.
//!
//! Each attack has a short form here, and all of them together are run by
//!
//! ```text
//! ATTACK_SECONDS=120 cargo test --release --test hard -- --ignored --nocapture table_of_attacks
//! ```
//!
//! which prints one row for each attack and one for all at once. `ATTACK_SERVER` names another
//! binary of the server, `ATTACK_ONLY` a part of the names of the attacks to run.
//! Attackers come from addresses of their own, by the `X-Real-IP` of a trusted proxy.

mod addresses; // prefixes, snipers, offices, permissions, the admin listener
mod crowd; // the attackers' connections
mod floods; // bytes and frames
mod honest; // a client and a transfer that report failures
mod memory; // what Linux reports
mod observers; // what others notice
mod stores; // what is stored, deleted, loaded, replayed
mod table; // the long form

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::common::{Directory, FREE_PORT, Server};
use crate::overload::memory_bound;
use memory::{MIB, peak_resident_bytes, socket_bytes};
use observers::{Observed, Observers};

/// Seconds that a short attack lasts, unless it takes longer to do.
const SHORT_SECONDS: f64 = 0.7;

/// By which the attackers come after the server and the observers for the processors.
const ATTACKERS_NICENESS: i32 = 10;

/// One attack.
trait Attack: Sync {
    fn name(&self) -> String;

    /// Options besides the defaults.
    fn options(&self) -> Vec<String> {
        Vec::new()
    }

    /// Writes files before the server starts.
    fn prepare(&self, _directory: &Path) {}

    /// Whether others must notice nothing.
    fn is_observed(&self) -> bool {
        true
    }

    /// Attacks until [`Field::is_over`]; what did not hold is the error.
    fn run(&self, field: &Field<'_>) -> Result<(), String>;
}

/// What an attack costs the attackers.
#[derive(Debug, Default)]
struct Cost {
    bytes: AtomicU64,
    connections: AtomicU64,
}

impl Cost {
    fn note_bytes(&self, count: usize) {
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn note_connection(&self, bytes: usize) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.note_bytes(bytes);
    }
}

/// Where an attack takes place.
struct Field<'a> {
    server: &'a Server,
    cost: &'a Cost,
    until: Instant,
    /// Whether it is one of many at once, and counts of the server are not its own.
    is_shared: bool,
    /// The second part of the attackers' addresses, so that attacks at once have their own.
    network: usize,
}

impl Field<'_> {
    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// An attacker's IPv4 address.
    fn address(&self, number: usize) -> String {
        format!("10.{}.{}.{}", self.network, number / 256, number % 256)
    }

    /// A name that no other attack at the same time has.
    fn name(&self, name: &str) -> String {
        format!("{name}-of-{}", self.network)
    }

    /// Waits for the end, and at least so long that each observer has measured.
    fn linger(&self) {
        let least = Instant::now() + Duration::from_secs_f64(SHORT_SECONDS);
        let until = least.max(self.until);
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

/// What became of an attack.
struct Row {
    attack: String,
    bytes: u64,
    connections: u64,
    observed: Option<Observed>,
    /// The most memory of the process, and the bound that it logged.
    peak_bytes: usize,
    bound_bytes: usize,
    /// The most that waited in sockets.
    socket_bytes: usize,
    held: Result<(), String>,
}

/// What others may notice, in seconds.
struct Bounds {
    pair_p99: f64,
    pair_worst: f64,
    newcomer: f64,
    healthz: f64,
}

/// For an unoptimized server on a machine that does other things as well: only a server that stands
/// still is beyond them.
const GENEROUS: Bounds = Bounds { pair_p99: 4.0, pair_worst: 6.0, newcomer: 8.0, healthz: 6.0 };

/// What is promised.
const PROMISED: Bounds = Bounds { pair_p99: 0.15, pair_worst: 1.0, newcomer: 2.0, healthz: 1.0 };

impl Row {
    /// All that did not hold.
    fn violations(&self, bounds: &Bounds) -> Vec<String> {
        let mut found: Vec<String> = self.held.clone().err().into_iter().collect();
        if self.peak_bytes > self.bound_bytes {
            let (peak, bound) = (self.peak_bytes / MIB, self.bound_bytes / MIB);
            found.push(format!("{peak} MiB of memory, {bound} are the bound"));
        }
        let Some(observed) = &self.observed else { return found };
        let series = [
            ("pair", &observed.pair, bounds.pair_worst),
            ("newcomers", &observed.newcomers, bounds.newcomer),
            ("healthz", &observed.healthz, bounds.healthz),
            ("transfers", &observed.transfers, f64::INFINITY),
        ];
        for (name, series, worst) in series {
            if series.failed > 0 {
                let all = series.count() + series.failed;
                found.push(format!(
                    "{name}: {} of {all} failed: {:?}",
                    series.failed, series.failures
                ));
            }
            if series.worst() > worst {
                found.push(format!("{name}: worst {:.2} s, {worst} promised", series.worst()));
            }
        }
        if observed.pair.quantile(0.99) > bounds.pair_p99 {
            let p99 = observed.pair.quantile(0.99);
            found.push(format!("pair: p99 {p99:.3} s, {} promised", bounds.pair_p99));
        }
        found
    }
}

/// One attack at a time: they measure one machine.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a server, attacks it, and reports.
fn attack(attack: &dyn Attack, seconds: f64) -> Row {
    let _turn = turn();
    let directory = Arc::new(Directory::new());
    attack.prepare(directory.path());
    let default = env!("CARGO_BIN_EXE_wormhole-mailbox").to_owned();
    let mut command = Command::new(std::env::var("ATTACK_SERVER").unwrap_or(default));
    command.args([FREE_PORT, "--admin=tcp:0:interface=127.0.0.1"]);
    command.args(attack.options());
    let server = Server::spawn(command, directory);
    let observers = attack.is_observed().then(|| Observers::start(&server));
    let cost = Cost::default();
    let field = Field {
        server: &server,
        cost: &cost,
        until: Instant::now() + Duration::from_secs_f64(seconds),
        is_shared: false,
        network: 0,
    };
    let (held, socket_bytes) = with_most_socket_bytes(&server, || as_others(|| attack.run(&field)));
    Row {
        attack: attack.name(),
        bytes: cost.bytes.load(Ordering::Relaxed),
        connections: cost.connections.load(Ordering::Relaxed),
        observed: observers.map(Observers::finish),
        peak_bytes: peak_resident_bytes(server.pid()),
        bound_bytes: memory_bound(&server),
        socket_bytes,
        held,
    }
}

/// Runs something, and all threads that it starts, below the server and the observers: attackers
/// have machines of their own.
pub fn as_others<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            rustix::process::nice(ATTACKERS_NICENESS).expect("a lower priority");
            run()
        });
        others.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs something; returns the most that waited in the server's sockets meanwhile, too.
fn with_most_socket_bytes<T>(server: &Server, run: impl FnOnce() -> T) -> (T, usize) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                most = most.max(socket_bytes(server));
                // The table of thousands of sockets takes a while.
                std::thread::sleep(10 * begun.elapsed().max(Duration::from_millis(2)));
            }
            most
        });
        // Ends the watch when the attack panics, too.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        stop.store(true, Ordering::Relaxed);
        let most = watch.join().expect("the watch");
        match outcome {
            Ok(outcome) => (outcome, most),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The short form: what must hold on any machine.
fn holds(kind: &dyn Attack) -> Row {
    let row = attack(kind, SHORT_SECONDS);
    println!("{}", table::line(&row));
    let violations = row.violations(&GENEROUS);
    assert!(violations.is_empty(), "{}:\n{}", row.attack, violations.join("\n"));
    row
}
