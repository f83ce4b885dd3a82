//! The rows that are measured with loads.

use std::time::Duration;

use crate::Scope;
use crate::common::is_installed;
use crate::common::modes::{Exchange, Load, Outcome, Ping, Plan, Relay, run};
use crate::common::report;
use crate::rows::{Row, count, median, per_second, seconds};
use crate::servers::{Kind, Server, Setup};

/// Time before each measurement.
const WARM_UP: Duration = Duration::from_millis(500);

/// Size of the bodies that are relayed.
const BODY_BYTES: usize = 200;

/// The tail is measured at this share of the greatest throughput.
const TAIL_LOAD: f64 = 0.3;

/// The tail needs more operations than a throughput does.
const TAIL_TIME_FACTOR: u32 = 3;

/// How much longer a commit waits on the slow disks, and the pairs that share one.
const SLOW_DISK_MILLIS: [u64; 3] = [1, 5, 20];
const SLOW_DISK_PAIRS: [usize; 4] = [1, 16, 64, 256];

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
        let compared_with = format!("{} {}", self.kind.name(), write(median(&other)));
        Row::compared(what, write(median(&ours)), compared_with, &ratios)
    }
}

/// One load on one fresh server; longer, if too few operations end in the time.
pub fn once<L: Load>(
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
            ..Plan::default()
        };
        let mut load = load(kind);
        let outcome = run(&mut load, &server.target, &plan)?;
        server.stop();
        if outcome.operations() >= load.operations_min() {
            return Ok(outcome);
        }
        measured *= LONGER;
        if measured > MEASURED_MAX {
            return Err(format!(
                "{} is too slow: {} operations",
                kind.name(),
                outcome.operations()
            ));
        }
    }
}

fn p50(outcome: &Outcome) -> f64 {
    outcome.latency.quantile(0.5).as_secs_f64()
}

fn p99(outcome: &Outcome) -> f64 {
    outcome.latency.quantile(0.99).as_secs_f64()
}

fn p999(outcome: &Outcome) -> f64 {
    outcome.latency.quantile(0.999).as_secs_f64()
}

fn cpu(outcome: &Outcome) -> f64 {
    outcome.cpu_per_operation().unwrap_or(f64::NAN)
}

fn written(outcome: &Outcome) -> f64 {
    outcome.written_per_operation().unwrap_or(f64::NAN)
}

/// Whole exchanges against Python, and those of one pair against another build.
pub fn exchanges(scope: &Scope) -> Result<Vec<Row>, String> {
    let alone = Versus::run(scope, Kind::Python, |_| Exchange::new(1))?;
    let some = Versus::run(scope, Kind::Python, |_| Exchange::new(16))?;
    let many = Versus::run(scope, Kind::Python, |_| Exchange::new(64))?;
    let mut rows = vec![
        some.row("exchanges per second, 16 pairs", Outcome::per_second, per_second),
        many.row("exchanges per second, 64 pairs", Outcome::per_second, per_second),
        alone.row("bytes written per exchange, one pair", written, report::bytes),
        many.row("bytes written per exchange, 64 pairs", written, report::bytes),
    ];
    if let Some(build) = scope.against {
        let alone = Versus::run(scope, build, |_| Exchange::new(1))?;
        rows.push(alone.row("exchanges per second, one pair", Outcome::per_second, per_second));
    }
    Ok(rows)
}

/// Established pairs against the floor, and against another build.
pub fn relay(scope: &Scope) -> Result<Vec<Row>, String> {
    let mut rows = relay_against(scope, Kind::Floor)?;
    if let Some(build) = scope.against {
        rows.extend(relay_against(scope, build)?);
    }
    Ok(rows)
}

fn relay_against(scope: &Scope, other: Kind) -> Result<Vec<Row>, String> {
    let load = |pairs| move |kind: Kind| Relay::new(pairs, BODY_BYTES, None, kind.dialect());
    let mut rows = Vec::new();
    let one = Versus::run(scope, other, load(1))?;
    rows.push(one.row("relay, one pair, median", p50, seconds));
    for pairs in [32, 256] {
        let many = Versus::run(scope, other, load(pairs))?;
        let what = |figure: &str| format!("{figure}, {pairs} pairs");
        rows.push(many.row(&what("messages per second"), Outcome::per_second, per_second));
        rows.push(many.row(&what("CPU time per message"), cpu, seconds));
        rows.push(many.row(&what("bytes written per message"), written, report::bytes));
    }
    Ok(rows)
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
    let (on_disk, in_memory) = (Setup::default(), Setup { in_memory: true, ..Setup::default() });
    let (mut ours, mut floors, mut diskless, mut rates) = (vec![], vec![], vec![], vec![]);
    for _ in 0..scope.rounds {
        let closed = once(scope, Kind::Ours, &on_disk, |kind| load(kind, None))?;
        let rate = closed.per_second() * TAIL_LOAD;
        let open = |kind, setup| once(&longer, kind, setup, |kind| load(kind, Some(rate)));
        ours.push(open(Kind::Ours, &on_disk)?);
        // The floor at the same rate has the disk's own stalls, and nothing else.
        floors.push(open(Kind::Floor, &on_disk)?);
        // Without a disk, only other work on the machine is left.
        diskless.push(open(Kind::Ours, &in_memory)?);
        rates.push(rate);
    }
    let rate = per_second(median(&rates));
    let what = |tail| format!("relay at 30 % of saturation, {rate}, {tail}th percentile");
    let list = |outcomes: &[Outcome], figure: fn(&Outcome) -> f64| -> Vec<f64> {
        outcomes.iter().map(figure).collect()
    };
    let time = |outcomes, figure| seconds(median(&list(outcomes, figure)));
    let to_median = list(&ours, |it| p99(it) / p50(it));
    let to_floor: Vec<f64> = ours.iter().zip(&floors).map(|(it, of)| p999(it) / p999(of)).collect();
    let floor = format!("floor {}; without a disk {}", time(&floors, p999), time(&diskless, p999));
    let its_median = format!("its median {}", time(&ours, p50));
    Ok(vec![
        Row::compared(&what("99"), time(&ours, p99), its_median, &to_median),
        Row::compared(&what("99.9"), time(&ours, p999), floor, &to_floor),
    ])
}

/// Fsyncs per exchange, under a tracer that stops the server at these calls only.
pub fn fsyncs(scope: &Scope) -> Result<Vec<Row>, String> {
    if !is_installed("strace", "-V") {
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

/// What a server with a slow disk carries, and how long an exchange takes there.
pub fn slow_disk(scope: &Scope) -> Result<Vec<Row>, String> {
    if !is_installed("strace", "-V") {
        return Err("strace is missing".to_owned());
    }
    let mut rows = Vec::new();
    for millis in SLOW_DISK_MILLIS {
        for pairs in SLOW_DISK_PAIRS {
            let delay = Duration::from_millis(millis);
            let setup = Setup { slow_disk: Some(delay), ..Setup::default() };
            let outcome = once(scope, Kind::Ours, &setup, |_| Exchange::new(pairs))?;
            let what = format!("exchanges per second, {pairs} pairs, commits of {millis} ms");
            let times = format!(
                "each takes {} (median), {} (99th percentile)",
                seconds(p50(&outcome)),
                seconds(p99(&outcome))
            );
            rows.push(Row::beside(&what, per_second(outcome.per_second()), times));
        }
    }
    Ok(rows)
}
