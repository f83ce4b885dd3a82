//! The loads. Each is a driver of the clients and keeps its own measurements.

mod exchange;
mod fill;
mod idle;
mod ping;
mod relay;
mod storm;

pub use exchange::Exchange;
pub use fill::Fill;
pub use idle::{Crowd, Idle, IdleReport, gather, run_idle};
pub use ping::Ping;
pub use relay::Relay;
pub use storm::Storm;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::histogram::Histogram;
use super::net::{Driver, Net, Target};
use super::process::{Usage, own_cpu};
use super::syncs;

/// How long setting up and finishing may take before a run counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long answers still under way at the end are waited for.
const DRAIN: Duration = Duration::from_secs(5);

/// The loop wakes up at least this often, to see whether time is up.
const TURN: Duration = Duration::from_millis(20);

/// Interval between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// The protocol that the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The mailbox protocol.
    Mailbox,
    /// The floor program of the side-by-side bench: pairs of echoes, no protocol.
    Floor,
}

/// A load that runs for a given time.
pub trait Load: Driver {
    /// What one operation is, in the plural.
    fn unit(&self) -> &'static str;
    /// Connects the clients.
    fn start(&mut self, net: &mut Net);
    /// Whether everything is set up and the load itself may begin.
    fn is_ready(&self) -> bool {
        true
    }
    /// Begins the load, after everything is set up.
    fn begin(&mut self, _net: &mut Net) {}
    /// The operations that have ended, and how long each took.
    fn latency(&mut self) -> &mut Histogram;
    /// Begins no more operations.
    fn stop(&mut self) {}
    /// Operations begun and not ended.
    fn outstanding(&self) -> usize {
        0
    }
    /// With fewer operations than this, the figures are not significant.
    fn operations_min(&self) -> u64 {
        1
    }
    /// Whether operations that end after the measured time count: those of an open loop, which
    /// were due within it.
    fn counts_late_ends(&self) -> bool {
        false
    }
    /// Whether there is nothing more to do, before time is up.
    fn is_done(&self) -> bool {
        false
    }
}

/// How long a load runs, and the process that is measured.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Not measured: caches, files and the processor's clock settle.
    pub warm_up: Duration,
    pub measured: Duration,
    /// The server's process, if it is on this machine.
    pub pid: Option<u32>,
    /// The log of a tracer that counts the server's fsyncs.
    pub syncs: Option<PathBuf>,
    /// Whether progress is printed on stderr.
    pub progress: bool,
}

/// The results of a load.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub unit: &'static str,
    pub elapsed: Duration,
    pub latency: Histogram,
    /// Operations begun and never ended.
    pub unanswered: usize,
    pub server: Option<Usage>,
    pub syncs: Option<usize>,
    /// This program's CPU time per elapsed time; 1 is a whole core.
    pub own_cpu_share: f64,
}

impl Outcome {
    pub fn operations(&self) -> u64 {
        self.latency.count()
    }

    pub fn per_second(&self) -> f64 {
        self.operations() as f64 / self.elapsed.as_secs_f64()
    }

    /// Server CPU time per operation, in seconds.
    pub fn cpu_per_operation(&self) -> Option<f64> {
        let cpu = self.server?.cpu.as_secs_f64();
        (self.operations() > 0).then(|| cpu / self.operations() as f64)
    }

    /// Calls of fsync and fdatasync per operation.
    pub fn syncs_per_operation(&self) -> Option<f64> {
        (self.operations() > 0).then_some(self.syncs? as f64 / self.operations() as f64)
    }

    /// Bytes that the server wrote to storage per operation.
    pub fn written_per_operation(&self) -> Option<f64> {
        let written = self.server?.written_bytes? as f64;
        (self.operations() > 0).then(|| written / self.operations() as f64)
    }
}

/// Runs a load: set up, warm up, measure, drain.
pub fn run(load: &mut impl Load, target: &Target, plan: &Plan) -> Result<Outcome, String> {
    let mut net = Net::new(target.clone()).map_err(|error| format!("poll: {error}"))?;
    load.start(&mut net);
    let limit = Instant::now() + PATIENCE;
    net.run(load, |load, net| {
        if load.is_ready() {
            return None;
        }
        if Instant::now() > limit {
            net.fail(format!("not set up after {} s", PATIENCE.as_secs()));
        }
        Some(TURN)
    })?;

    load.begin(&mut net);
    run_for(load, &mut net, plan.warm_up, false)?;
    *load.latency() = Histogram::default();
    let before = Sample::take(plan)?;
    run_for(load, &mut net, plan.measured, plan.progress)?;
    let after = Sample::take(plan)?;
    let mut latency = load.latency().clone();

    // In an open loop, what was due in time counts however late it ends: else a stall at the end
    // would not show.
    *load.latency() = Histogram::default();
    load.stop();
    let limit = Instant::now() + DRAIN;
    net.run(load, |load, _| (load.outstanding() > 0 && Instant::now() < limit).then_some(TURN))?;
    if load.counts_late_ends() {
        latency.add(load.latency());
    }
    let elapsed = after.at - before.at;
    Ok(Outcome {
        unit: load.unit(),
        elapsed,
        latency,
        unanswered: load.outstanding(),
        server: after.server.zip(before.server).map(|(after, before)| after.since(&before)),
        syncs: after.syncs.zip(before.syncs).map(|(after, before)| after - before),
        own_cpu_share: (after.own_cpu - before.own_cpu).as_secs_f64() / elapsed.as_secs_f64(),
    })
}

/// Everything that is read at the beginning and the end of the measured time.
struct Sample {
    at: Instant,
    server: Option<Usage>,
    syncs: Option<usize>,
    own_cpu: Duration,
}

impl Sample {
    fn take(plan: &Plan) -> Result<Sample, String> {
        Ok(Sample {
            at: Instant::now(),
            server: plan.pid.map(Usage::of).transpose()?,
            syncs: plan.syncs.as_deref().and_then(syncs::count),
            own_cpu: own_cpu(),
        })
    }
}

fn run_for<L: Load>(
    load: &mut L,
    net: &mut Net,
    time: Duration,
    progress: bool,
) -> Result<(), String> {
    let started = Instant::now();
    let mut next_report = started + PROGRESS_EVERY;
    let mut reported = 0;
    net.run(load, |load, _| {
        let now = Instant::now();
        if progress && now >= next_report {
            let count = load.latency().count();
            let p99 = load.latency().quantile(0.99);
            eprint!(
                "\r  {:>3} s  {:>9} {} in the last second, p99 {:.3?}      ",
                now.duration_since(started).as_secs(),
                count - reported,
                load.unit(),
                p99
            );
            reported = count;
            next_report += PROGRESS_EVERY;
        }
        let left = time.saturating_sub(now.duration_since(started));
        (!left.is_zero() && !load.is_done()).then(|| left.min(TURN))
    })?;
    if progress {
        eprintln!();
    }
    Ok(())
}
