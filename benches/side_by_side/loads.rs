//! The rows that come of loads.

use std::time::Duration;

use crate::Scope;
use crate::common::modes::{Exchange, Idle, Load, Outcome, Ping, Plan, Relay, run, run_idle};
use crate::common::report;
use crate::common::syncs;
use crate::rows::{Bar, Row, Unit, median};
use crate::servers::{Kind, Server, Setup};

/// Time before each measurement.
const WARM_UP: Duration = Duration::from_millis(500);

/// Size of the bodies that are relayed.
const BODY_BYTES: usize = 200;

/// Size of the bodies in the burst of large messages.
const BURST_BYTES: usize = 64 * 1024;

/// The tail is looked at with this share of the greatest throughput.
const TAIL_LOAD: f64 = 0.3;

/// The tail needs more operations than a throughput does.
const TAIL_TIME_FACTOR: u32 = 3;

/// When too few operations end in the measured time, it is made so many times longer ...
const LONGER: u32 = 4;

/// ... but not longer than this. The Python server with many pairs needs it on a slow disk.
const MEASURED_MAX: Duration = Duration::from_secs(40);

/// One load on two servers in turn, round by round.
struct Versus {
    ours: Vec<Outcome>,
    other: Vec<Outcome>,
}

impl Versus {
    fn run<L: Load>(
        scope: &Scope,
        other: Kind,
        load: impl Fn(Kind) -> L,
    ) -> Result<Versus, String> {
        let mut versus = Versus { ours: Vec::new(), other: Vec::new() };
        for _ in 0..scope.rounds {
            versus.other.push(once(scope, other, &Setup::default(), &load)?);
            versus.ours.push(once(scope, Kind::Ours, &Setup::default(), &load)?);
        }
        Ok(versus)
    }

    /// Ours by the other's, with the medians of both.
    fn row(
        &self,
        what: &str,
        bar: Bar,
        figure: impl Fn(&Outcome) -> f64,
        write: impl Fn(f64) -> String,
    ) -> Row {
        let ours: Vec<f64> = self.ours.iter().map(&figure).collect();
        let other: Vec<f64> = self.other.iter().map(&figure).collect();
        let ratios = ours.iter().zip(&other).map(|(ours, other)| ours / other).collect();
        let detail = format!(
            "{} / {}",
            write(median(&ours).unwrap_or(0.0)),
            write(median(&other).unwrap_or(0.0))
        );
        Row::new(what, bar, Unit::Ratio, ratios, detail)
    }
}

/// One load on one fresh server; longer, if too few operations come to an end in the time.
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

fn per_second(figure: f64) -> String {
    format!("{figure:.0}/s")
}

fn seconds(figure: f64) -> String {
    report::time(Duration::from_secs_f64(figure))
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
    let bytes = report::bytes;
    Ok(vec![
        some.row(
            "exchanges per second, 16 pairs, to Python",
            Bar::AtLeast(60.0),
            Outcome::per_second,
            per_second,
        ),
        alone.row("bytes written per exchange alone, to Python", Bar::AtMost(0.25), written, bytes),
        many.row(
            "bytes written per exchange, 64 pairs, to Python",
            Bar::AtMost(0.1),
            written,
            bytes,
        ),
    ])
}

/// Established pairs against the floor.
pub fn relay(scope: &Scope) -> Result<Vec<Row>, String> {
    let load = |pairs| move |kind: Kind| Relay::new(pairs, BODY_BYTES, None, kind.dialect());
    let one = Versus::run(scope, Kind::Floor, load(1))?;
    let many = Versus::run(scope, Kind::Floor, load(32))?;
    let cpu = |outcome: &Outcome| outcome.cpu_per_operation().unwrap_or(f64::NAN);
    Ok(vec![
        one.row("relay p50, one pair, to the floor", Bar::AtMost(1.2), p50, seconds),
        many.row(
            "messages per second, 32 pairs, to the floor",
            Bar::AtLeast(0.9),
            Outcome::per_second,
            per_second,
        ),
        many.row("server CPU per message, 32 pairs, to the floor", Bar::AtMost(1.4), cpu, seconds),
        many.row(
            "bytes written per message, 32 pairs, to the floor",
            Bar::Words("–"),
            written,
            report::bytes,
        ),
    ])
}

/// Pings against the floor.
pub fn ping(scope: &Scope) -> Result<Vec<Row>, String> {
    let one = Versus::run(scope, Kind::Floor, |_| Ping::new(1))?;
    let many = Versus::run(scope, Kind::Floor, |_| Ping::new(32))?;
    Ok(vec![
        one.row("ping p50, one client, to the floor", Bar::AtMost(1.15), p50, seconds),
        many.row(
            "pings per second, 32 clients, to the floor",
            Bar::AtLeast(0.9),
            Outcome::per_second,
            per_second,
        ),
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
        // Without a disk, what is left is the machine's: others want its processors as well.
        let no_disk = once(&longer, Kind::Ours, &in_memory, |kind| load(kind, Some(rate)))?;
        diskless.push(no_disk.latency.quantile(0.999).as_secs_f64());
        let tail = open.latency.quantile(0.999).as_secs_f64();
        ratios.push(tail / p50(&open));
        p50s.push(p50(&open));
        tails.push(tail);
        rates.push(rate);
    }
    let middle = |samples: &[f64]| median(samples).unwrap_or(0.0);
    let detail = format!(
        "{} / {} at {}; the floor has {:.1} ×; with no disk p99.9 is {}",
        seconds(middle(&tails)),
        seconds(middle(&p50s)),
        per_second(middle(&rates)),
        middle(&floors),
        seconds(middle(&diskless))
    );
    let what = "relay p99.9 at 30 % of saturation, to its p50";
    Ok(vec![Row::new(what, Bar::AtMost(5.0), Unit::Ratio, ratios, detail)])
}

/// Resident memory: empty, with idle connections, and after a burst on all of them.
pub fn memory(scope: &Scope) -> Result<Vec<Row>, String> {
    let (mut empty, mut idle, mut after) = (vec![], vec![], vec![]);
    for _ in 0..scope.rounds.min(2) {
        let server = Server::start(Kind::Ours, &Setup::default())?;
        let load = Idle::new(scope.crowd, Some(BURST_BYTES));
        let report = run_idle(load, &server.target, server.pid, Duration::from_secs(1))?;
        empty.push(report.before as f64);
        idle.push(report.per_connection());
        let burst = report.per_connection_after_burst().unwrap_or(f64::NAN);
        after.push(burst / report.per_connection());
        server.stop();
    }
    let of = format!("{} connections", scope.crowd);
    let burst = format!("{of}, one message of {} on each", report::bytes(BURST_BYTES as f64));
    const MIB: f64 = 1024.0 * 1024.0;
    Ok(vec![
        Row::new("resident memory, empty", Bar::AtMost(4.0 * MIB), Unit::Bytes, empty, "".into()),
        Row::new(
            "resident memory per idle bound connection",
            Bar::AtMost(1024.0),
            Unit::Bytes,
            idle,
            of,
        ),
        Row::new("the same after a burst", Bar::AtMost(1.1), Unit::Ratio, after, burst),
    ])
}

/// Fsyncs per exchange, under a tracer that stops the server at these calls only.
pub fn fsyncs(scope: &Scope) -> Result<Vec<Row>, String> {
    if !syncs::available() {
        return Err("strace is not there".to_owned());
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
    let words = Bar::Words("≤ ticks with changes");
    Ok(vec![
        Row::new("fsyncs per exchange, one pair alone", words, Unit::Count, sample(1)?, "".into()),
        Row::new("… with 64 pairs", Bar::AtMost(2.0), Unit::Count, sample(64)?, "".into()),
    ])
}
