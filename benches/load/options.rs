//! The command line of the load tool.

use std::path::PathBuf;
use std::time::Duration;

use pico_args::Arguments;

use crate::common::net::Target;

pub const HELP: &str = "\
Loads any Magic Wormhole mailbox server, and prints throughput and latency.

  cargo bench --bench load -- MODE [options]

Modes
  exchange   whole exchanges, as two wormhole clients have them    --pairs
  relay      messages between clients that are connected already   --pairs --bytes --rate
  ping       pings, one under way per client                       --clients
  idle       connections that are bound and do nothing: memory     --clients --bytes, needs --pid
  storm      connections all begun in the same instant             --clients

Load
  --url URL          the server                        [ws://127.0.0.1:4000/v1]
  --seconds N        measured time                     [10]
  --warm-up N        seconds before it                 [1]
  --pairs N          pairs at once                     [16]
  --clients N        clients                           [ping: 16, idle and storm: 1000]
  --bytes N          size of message bodies            [relay: 200, idle: no burst]
                     idle: every client sends itself one message of this size
  --rate N           relay: this many messages a second in all, each timed from when it was due;
                     without it, each pair has one message under way

The server's process, on the same machine
  --pid PID          print its CPU time, memory, and bytes written (/proc)
  --count-syncs      count its fsyncs too: attaches strace, which slows the server down much, so
                     that the times of such a run say nothing

Result
  --json FILE        the result for machines
  --svg FILE         a plot of the latency distribution
  --title TEXT       the plot's title
  --help             this
";

const URL: &str = "ws://127.0.0.1:4000/v1";
const SECONDS: f64 = 10.0;
const WARM_UP_SECONDS: f64 = 1.0;
const SECONDS_MAX: f64 = 86_400.0;
const PAIRS: usize = 16;
const PING_CLIENTS: usize = 16;
const MANY_CLIENTS: usize = 1_000;
const RELAY_BYTES: usize = 200;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    Exchange { pairs: usize },
    Relay { pairs: usize, bytes: usize, rate: Option<f64> },
    Ping { clients: usize },
    Idle { clients: usize, burst_bytes: Option<usize> },
    Storm { clients: usize },
}

/// The command line.
#[derive(Debug)]
pub struct Options {
    pub mode: Mode,
    pub name: String,
    pub url: String,
    pub target: Target,
    pub seconds: Duration,
    pub warm_up: Duration,
    pub pid: Option<u32>,
    pub count_syncs: bool,
    pub json: Option<PathBuf>,
    pub svg: Option<PathBuf>,
    pub title: Option<String>,
}

/// Reads it; `None` when help was asked for.
pub fn parse() -> Result<Option<Options>, String> {
    let mut arguments = Arguments::from_env();
    _ = arguments.contains("--bench"); // cargo adds it
    if arguments.contains("--help") {
        return Ok(None);
    }
    read(arguments).map(Some)
}

fn read(mut arguments: Arguments) -> Result<Options, String> {
    let url = value(&mut arguments, "--url")?.unwrap_or_else(|| URL.to_owned());
    let seconds = value(&mut arguments, "--seconds")?.unwrap_or(SECONDS);
    let warm_up = value(&mut arguments, "--warm-up")?.unwrap_or(WARM_UP_SECONDS);
    let pid = value(&mut arguments, "--pid")?;
    let count_syncs = arguments.contains("--count-syncs");
    let json = value::<PathBuf>(&mut arguments, "--json")?;
    let svg = value::<PathBuf>(&mut arguments, "--svg")?;
    let title = value(&mut arguments, "--title")?;
    let pairs = value(&mut arguments, "--pairs")?;
    let clients = value(&mut arguments, "--clients")?;
    let bytes = value(&mut arguments, "--bytes")?;
    let rate = value(&mut arguments, "--rate")?;
    let name = arguments
        .subcommand()
        .ok()
        .flatten()
        .ok_or("which mode? exchange, relay, ping, idle or storm (see --help)")?;
    let mode = mode(&name, pairs, clients, bytes, rate)?;
    if let Some(extra) = arguments.finish().first() {
        return Err(format!("unknown argument '{}' (see --help)", extra.display()));
    }
    if count_syncs && pid.is_none() {
        return Err("--count-syncs needs --pid".to_owned());
    }
    let target = Target::parse(&url)?;
    let seconds = duration("--seconds", seconds)?;
    let warm_up = duration("--warm-up", warm_up)?;
    Ok(Options { mode, name, url, target, seconds, warm_up, pid, count_syncs, json, svg, title })
}

fn mode(
    name: &str,
    pairs: Option<usize>,
    clients: Option<usize>,
    bytes: Option<usize>,
    rate: Option<f64>,
) -> Result<Mode, String> {
    let pairs = pairs.unwrap_or(PAIRS).max(1);
    let clients = |default| clients.unwrap_or(default).max(1);
    if rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        return Err("--rate must be more than zero".to_owned());
    }
    Ok(match name {
        "exchange" => Mode::Exchange { pairs },
        "relay" => Mode::Relay { pairs, bytes: bytes.unwrap_or(RELAY_BYTES), rate },
        "ping" => Mode::Ping { clients: clients(PING_CLIENTS) },
        "idle" => Mode::Idle { clients: clients(MANY_CLIENTS), burst_bytes: bytes },
        "storm" => Mode::Storm { clients: clients(MANY_CLIENTS) },
        _ => return Err(format!("no mode '{name}': exchange, relay, ping, idle or storm")),
    })
}

fn value<T: std::str::FromStr>(
    arguments: &mut Arguments,
    name: &'static str,
) -> Result<Option<T>, String>
where
    T::Err: std::fmt::Display,
{
    arguments.opt_value_from_str(name).map_err(|error| format!("{name}: {error}"))
}

fn duration(name: &str, seconds: f64) -> Result<Duration, String> {
    if (0.0..=SECONDS_MAX).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(format!("{name} takes 0 to {SECONDS_MAX} seconds"))
}
