//! The rows that are measured with loads.

use std::time::Duration;

use crate::Scope;
use crate::common::modes::{Exchange, Idle, Load, Outcome, Ping, Plan, Relay, run, run_idle};
use crate::common::report;
use crate::common::syncs;
use crate::rows::{Row, count, median, per_second, seconds, times};
use crate::servers::{Kind, Server, Setup};

/// Time before each measurement.
const WARM_UP: Duration = Duration::from_millis(500);

/// Size of the bodies that are relayed.
const BODY_BYTES: usize = 200;

/// Size of the bodies in the burst of large messages.
const BURST_BYTES: usize = 64 * 1024;

/// The tail is measured at this share of the greatest throughput.
const TAIL_LOAD: f64 = 0.3;

/// The tail needs more operations than a throughput does.
const TAIL_TIME_FACTOR: u32 = 3;

/// Factor by which the measured time grows if too few operations end in it.
const LONGER: u32 = 4;

/// Longest measured time. The Python server with many pairs needs it on a slow disk.
const MEASURED_MAX: Duration = Duration::from_secs(40);

/// One load on two servers in turn, round by round.
struct Versus {
    kind: Kind,
    ours: Vec<Outcome>,
    other: Vec<Outcome>,
}

impl Versus {
    fn run<L: Load>(
        scope: &Scope,
        other: Kind,
        load: impl Fn(Kind) -> L,
    ) -> Result<Versus, String> {
        let mut versus = Versus { kind: other, ours: Vec::new(), other: Vec::new() };
        for _ in 0..scope.rounds {
            versus.other.push(once(scope, other, &Setup::default(), &load)?);
            versus.ours.push(once(scope, Kind::Ours, &Setup::default(), &load)?);
        }
        Ok(versus)
    }

    /// This server's figure and the other's.
    fn row(&self, what: &str, figure: fn(&Outcome) -> f64, write: fn(f64) -> String) -> Row {
        let figures = |outcomes: &[Outcome]| outcomes.iter().map(figure).collect::<Vec<f64>>();
        let (ours, other) = (figures(&self.ours), figures(&self.other));
        let ratios: Vec<f64> = ours.iter().zip(&other).map(|(ours, other)| ours / other).collect();
        let compared_with = format!("{:?} {}", self.kind, write(median(&other)));
        Row::compared(what, write(median(&ours)), compared_with, &ratios)
    }
}

/// One load on one fresh server; longer, if too few operations end in the time.
fn once<L: Load>(
    scope: &Scope,
    kind: Kind,
    setup: &Setup,
    load: impl Fn(Kind) -> L,
) -> Result<Outcome, String> {
    let mut measured = scope.measured;
    loop {
        let server = Server::start(kind, setup)?;
        let plan = Plan {
            warm_up: WARM_UP,
            measured,
            pid: Some(server.pid),
            syncs: server.trace.clone(),
            progress: false,
        };
        let mut load = load(kind);
        let outcome = run(&mut load, &server.target, &plan)?;
        server.stop();
        if outcome.operations() >= load.operations_min() {
            return Ok(outcome);
        }
        measured *= LONGER;
        if measured > MEASURED_MAX {
            return Err(format!("{kind:?} is too slow: {} operations", outcome.operations()));
        }
    }
}

fn p50(outcome: &Outcome) -> f64 {
    outcome.latency.quantile(0.5).as_secs_f64()
}

fn written(outcome: &Outcome) -> f64 {
    outcome.written_per_operation().unwrap_or(f64::NAN)
}

/// Whole exchanges against Python.
pub fn exchanges(scope: &Scope) -> Result<Vec<Row>, String> {
    let alone = Versus::run(scope, Kind::Python, |_| Exchange::new(1))?;
    let some = Versus::run(scope, Kind::Python, |_| Exchange::new(16))?;
    let many = Versus::run(scope, Kind::Python, |_| Exchange::new(64))?;
    Ok(vec![
        some.row("exchanges per second, 16 pairs", Outcome::per_second, per_second),
        alone.row("bytes written per exchange, one pair", written, report::bytes),
        many.row("bytes written per exchange, 64 pairs", written, report::bytes),
    ])
}

/// Established pairs against the floor.
pub fn relay(scope: &Scope) -> Result<Vec<Row>, String> {
    let load = |pairs| move |kind: Kind| Relay::new(pairs, BODY_BYTES, None, kind.dialect());
    let one = Versus::run(scope, Kind::Floor, load(1))?;
    let many = Versus::run(scope, Kind::Floor, load(32))?;
    let cpu = |outcome: &Outcome| outcome.cpu_per_operation().unwrap_or(f64::NAN);
    Ok(vec![
        one.row("relay, one pair, median", p50, seconds),
        many.row("messages per second, 32 pairs", Outcome::per_second, per_second),
        many.row("CPU time per message, 32 pairs", cpu, seconds),
        many.row("bytes written per message, 32 pairs", written, report::bytes),
    ])
}

/// Pings against the floor.
pub fn ping(scope: &Scope) -> Result<Vec<Row>, String> {
    let one = Versus::run(scope, Kind::Floor, |_| Ping::new(1))?;
    let many = Versus::run(scope, Kind::Floor, |_| Ping::new(32))?;
    Ok(vec![
        one.row("ping, one client, median", p50, seconds),
        many.row("pings per second, 32 clients", Outcome::per_second, per_second),
    ])
}

/// Whether checkpoints and expiry show in the latency of a server that is not busy.
pub fn tail(scope: &Scope) -> Result<Vec<Row>, String> {
    let load = |kind: Kind, rate| Relay::new(32, BODY_BYTES, rate, kind.dialect());
    let longer = Scope { measured: scope.measured * TAIL_TIME_FACTOR, ..scope.clone() };
    let (mut ratios, mut p50s, mut tails, mut rates) = (vec![], vec![], vec![], vec![]);
    let (mut floors, mut diskless) = (vec![], vec![]);
    let in_memory = Setup { in_memory: true, ..Setup::default() };
    for _ in 0..scope.rounds {
        let closed = once(scope, Kind::Ours, &Setup::default(), |kind| load(kind, None))?;
        let rate = closed.per_second() * TAIL_LOAD;
        let open = once(&longer, Kind::Ours, &Setup::default(), |kind| load(kind, Some(rate)))?;
        // The floor at the same rate has the disk's own stalls, and nothing else.
        let floor = once(&longer, Kind::Floor, &Setup::default(), |kind| load(kind, Some(rate)))?;
        floors.push(floor.latency.quantile(0.999).as_secs_f64() / p50(&floor));
        // Without a disk, only other work on the machine is left.
        let no_disk = once(&longer, Kind::Ours, &in_memory, |kind| load(kind, Some(rate)))?;
        diskless.push(no_disk.latency.quantile(0.999).as_secs_f64());
        let tail = open.latency.quantile(0.999).as_secs_f64();
        ratios.push(tail / p50(&open));
        p50s.push(p50(&open));
        tails.push(tail);
        rates.push(rate);
    }
    let rate = per_second(median(&rates));
    let what = format!("relay at 30 % of saturation, {rate}, 99.9th percentile");
    let compared_with = format!(
        "its median {}; the floor has {}; without a disk it is {}",
        seconds(median(&p50s)),
        times(median(&floors)),
        seconds(median(&diskless))
    );
    Ok(vec![Row::compared(&what, seconds(median(&tails)), compared_with, &ratios)])
}

/// Resident memory: empty, with idle connections, and after a burst on all of them.
pub fn memory(scope: &Scope) -> Result<Vec<Row>, String> {
    let (mut empty, mut idle, mut after, mut ratios) = (vec![], vec![], vec![], vec![]);
    for _ in 0..scope.rounds.min(2) {
        let server = Server::start(Kind::Ours, &Setup::default())?;
        let load = Idle::new(scope.crowd, Some(BURST_BYTES));
        let report = run_idle(load, &server.target, server.pid, Duration::from_secs(1))?;
        let burst = report.per_connection_after_burst().unwrap_or(f64::NAN);
        empty.push(report.before as f64);
        idle.push(report.per_connection());
        after.push(burst);
        ratios.push(burst / report.per_connection());
        server.stop();
    }
    let per_connection = format!("memory per idle bound connection, {} of them", scope.crowd);
    let burst =
        format!("the same after a message of {} on each", report::bytes(BURST_BYTES as f64));
    let before = format!("before {}", report::bytes(median(&idle)));
    Ok(vec![
        Row::alone("memory, empty", &empty, report::bytes),
        Row::alone(&per_connection, &idle, report::bytes),
        Row::compared(&burst, report::bytes(median(&after)), before, &ratios),
    ])
}

/// Fsyncs per exchange, under a tracer that stops the server at these calls only.
pub fn fsyncs(scope: &Scope) -> Result<Vec<Row>, String> {
    if !syncs::available() {
        return Err("strace is missing".to_owned());
    }
    let setup = Setup { count_syncs: true, ..Setup::default() };
    let sample = |pairs| -> Result<Vec<f64>, String> {
        let mut samples = Vec::new();
        for _ in 0..scope.rounds {
            let outcome = once(scope, Kind::Ours, &setup, |_| Exchange::new(pairs))?;
            samples.push(outcome.syncs_per_operation().unwrap_or(f64::NAN));
        }
        Ok(samples)
    };
    Ok(vec![
        Row::alone("fsyncs per exchange, one pair", &sample(1)?, count),
        Row::alone("fsyncs per exchange, 64 pairs", &sample(64)?, count),
    ])
}
