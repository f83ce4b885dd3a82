//! This server, the Python server 0.8.0 and the floor under the same loads, side by side:
//! `cargo bench --bench side_by_side -- --help`.
//!
//! Every comparison runs the two in turn, A B A B, each on fresh files, so that other work on the
//! machine slows both. The table has the median of the rounds' ratios, the least and the greatest.
#![forbid(unsafe_code)]

#[path = "../common/mod.rs"]
mod common;
mod floor;
mod instructions;
mod loads;
mod memory;
mod rows;
mod servers;
mod start;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use pico_args::Arguments;
use rows::Row;
use servers::Kind;

const HELP: &str = "\
Compares this server with the Python server 0.8.0 and with the floor (mio, tungstenite and SQLite
doing the same I/O with no server in between), and prints a table in Markdown: this server's figure,
the other one's, and the command that measures both.

  cargo bench --bench side_by_side -- [options]

  --rounds N     comparisons of each kind                      [5; quick: 2]
  --seconds N    measured time of each load                    [4; quick: 1]
  --quick        a short run: fewer connections, no valgrind
  --only TEXT    only the groups whose name contains this: exchanges, relay, ping, tail, memory,
                 stored, fsyncs, size, start, slow-disk, instructions
  --against FILE the binary of another build of this server: exchanges and relaying are compared
                 with it as well
  --help         this

The Python server is installed into target/venv if it is missing (with python3 and pip).
Fsyncs need strace, instructions need valgrind; without them these rows are not measured.
";

/// Exit status for a bad command line.
const USAGE: u8 = 2;

const ROUNDS: usize = 5;
const ROUNDS_QUICK: usize = 2;
const SECONDS: f64 = 4.0;
const SECONDS_QUICK: f64 = 1.0;
const CROWD: usize = 10_000;
const CROWD_QUICK: usize = 1_000;

/// How everything is run.
#[derive(Clone, Debug)]
pub struct Scope {
    pub rounds: usize,
    pub measured: Duration,
    /// The number of connections where a load has many.
    pub crowd: usize,
    pub quick: bool,
    pub only: Option<String>,
    /// Another build that is compared with.
    pub against: Option<Kind>,
}

/// A group of rows that are measured by the same runs.
type Group = (&'static str, fn(&Scope) -> Result<Vec<Row>, String>);

const GROUPS: [Group; 11] = [
    ("exchanges", loads::exchanges),
    ("relay", loads::relay),
    ("ping", loads::ping),
    ("tail", loads::tail),
    ("memory", memory::idle),
    ("stored", memory::full_store),
    ("fsyncs", loads::fsyncs),
    ("size", start::binary_size),
    ("start", start::with_stored_messages),
    ("slow-disk", loads::slow_disk),
    ("instructions", instructions::per_command),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_env();
    if let Ok(Some(address)) = arguments.opt_value_from_str(servers::FLOOR_ARGUMENT) {
        let file: Result<PathBuf, _> = arguments.free_from_str();
        let outcome = file.map_err(Into::into).and_then(|file| floor::run(address, &file));
        return exit(outcome.map_err(|error| error.to_string()));
    }
    common::raise_descriptor_limit();
    if arguments.contains("--help") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    match scope(arguments) {
        Ok(scope) => exit(compare(&scope)),
        Err(error) => {
            eprintln!("side_by_side: {error}");
            ExitCode::from(USAGE)
        }
    }
}

fn exit(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("side_by_side: {error}");
            ExitCode::FAILURE
        }
    }
}

fn scope(mut arguments: Arguments) -> Result<Scope, String> {
    _ = arguments.contains("--bench"); // cargo adds it
    let quick = arguments.contains("--quick");
    let text = |error: pico_args::Error| error.to_string();
    let rounds: Option<usize> = arguments.opt_value_from_str("--rounds").map_err(text)?;
    let seconds: Option<f64> = arguments.opt_value_from_str("--seconds").map_err(text)?;
    let only = arguments.opt_value_from_str("--only").map_err(text)?;
    let against: Option<PathBuf> = arguments.opt_value_from_str("--against").map_err(text)?;
    if let Some(extra) = arguments.finish().first() {
        return Err(format!("unknown argument '{}' (see --help)", extra.display()));
    }
    let seconds = seconds.unwrap_or(if quick { SECONDS_QUICK } else { SECONDS });
    if !(0.1..=3600.0).contains(&seconds) {
        return Err("--seconds takes 0.1 to 3600".to_owned());
    }
    Ok(Scope {
        rounds: rounds.unwrap_or(if quick { ROUNDS_QUICK } else { ROUNDS }).max(1),
        measured: Duration::from_secs_f64(seconds),
        crowd: if quick { CROWD_QUICK } else { CROWD },
        quick,
        only,
        against: against.map(build).transpose()?,
    })
}

/// Servers run in directories of their own, and all take the path from here.
fn build(file: PathBuf) -> Result<Kind, String> {
    let path = file.canonicalize().map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(Kind::Build(Box::leak(path.into_boxed_path())))
}

fn compare(scope: &Scope) -> Result<(), String> {
    let mut table = Vec::new();
    for (name, measure) in GROUPS {
        if scope.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        eprintln!("{name} ...");
        let rows = measure(scope).unwrap_or_else(|error| vec![Row::failed(name, &error)]);
        for row in &rows {
            eprintln!("  {}", row.line());
        }
        table.extend(rows.into_iter().map(|row| (name, row)));
    }
    println!("{}", rows::markdown(&table));
    Ok(())
}
