//! The parts of the per-message path, each alone: `cargo bench --bench parts -- --help`.
//!
//! Times vary on a busy machine; instructions and allocations do not. They are counted by valgrind:
//! this program runs itself under it twice with different numbers of rounds, and the difference is
//! the cost of the rounds without the start.
#![forbid(unsafe_code)]

#[path = "../common/mod.rs"]
mod common;
mod path;
mod storage;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use pico_args::Arguments;

const HELP: &str = "\
Measures the parts of the per-message path: time, instructions and allocations per round.

  cargo bench --bench parts -- [options]

  --only TEXT    only the parts whose name contains this
  --fast         times only, without valgrind
  --help         this
";

/// Argument: runs one part this many times and exits, for valgrind.
const PART: &str = "--part";

/// Rounds of the two counted runs.
const ROUNDS_FEW: u64 = 500;
const ROUNDS_MANY: u64 = 1_500;

/// Each part is timed this often; the shortest time is printed, as noise only adds.
const REPEATS: u32 = 15;

/// About how long one of these lasts.
const REPEAT_TIME: Duration = Duration::from_millis(40);

/// Exit status for a bad command line.
const USAGE: u8 = 2;

/// A part that is measured by repeating it.
pub struct Part {
    pub name: &'static str,
    /// Makes what it needs, and returns the function that does the rounds.
    pub prepare: fn() -> Box<dyn FnMut(u64)>,
    /// Messages that one round handles.
    pub messages: u64,
}

/// What valgrind says of a run.
#[derive(Clone, Copy, Debug)]
struct Counts {
    instructions: f64,
    allocations: f64,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_env();
    _ = arguments.contains("--bench"); // cargo adds it
    let parts: Vec<Part> = path::parts().into_iter().chain(storage::parts()).collect();
    if arguments.contains("--help") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    if arguments.contains(PART) {
        return run_one(arguments, &parts);
    }
    let fast = arguments.contains("--fast");
    let only: Option<String> = arguments.opt_value_from_str("--only").ok().flatten();
    if let Some(extra) = arguments.finish().first() {
        eprintln!("parts: unknown argument '{}' (see --help)", extra.display());
        return ExitCode::from(USAGE);
    }
    let counted = !fast && common::is_installed("valgrind", "--version");
    if !fast && !counted {
        eprintln!("valgrind is not there: instructions and allocations are left out");
    }
    println!("{:<44}{:>12}{:>16}{:>14}", "per message", "time", "instructions", "allocations");
    for part in &parts {
        if only.as_ref().is_none_or(|only| part.name.contains(only.as_str())) {
            measure(part, counted);
        }
    }
    ExitCode::SUCCESS
}

fn run_one(mut arguments: Arguments, parts: &[Part]) -> ExitCode {
    let name: Result<String, _> = arguments.free_from_str();
    let rounds: Result<u64, _> = arguments.free_from_str();
    match (name, rounds) {
        (Ok(name), Ok(rounds)) => {
            if let Some(part) = parts.iter().find(|part| part.name == name) {
                (part.prepare)()(rounds);
                return ExitCode::SUCCESS;
            }
        }
        _ => eprintln!("parts: {PART} NAME ROUNDS"),
    }
    ExitCode::from(USAGE)
}

fn measure(part: &Part, counted: bool) {
    let messages = part.messages as f64;
    let nanos = time(part) / messages;
    let (instructions, allocations) = match counted.then(|| count(part)) {
        None => (String::new(), String::new()),
        Some(None) => ("not counted".to_owned(), String::new()),
        Some(Some(counts)) => (
            format!("{:.0}", counts.instructions / messages),
            format!("{:.2}", counts.allocations / messages),
        ),
    };
    println!("{:<44}{:>9.0} ns{instructions:>16}{allocations:>14}", part.name, nanos);
}

/// Nanoseconds per round: the least of the repeats.
fn time(part: &Part) -> f64 {
    let mut run = (part.prepare)();
    run(1);
    let probe = Instant::now();
    run(10);
    let each = probe.elapsed().as_secs_f64() / 10.0;
    let rounds = (REPEAT_TIME.as_secs_f64() / each.max(1e-9)).ceil() as u64;
    let repeat = |_| {
        let started = Instant::now();
        run(rounds);
        started.elapsed().as_nanos() as f64 / rounds as f64
    };
    (0..REPEATS).map(repeat).fold(f64::INFINITY, f64::min)
}

/// Instructions and allocations per round.
fn count(part: &Part) -> Option<Counts> {
    let few = counted_run(part, ROUNDS_FEW)?;
    let many = counted_run(part, ROUNDS_MANY)?;
    let rounds = (ROUNDS_MANY - ROUNDS_FEW) as f64;
    Some(Counts {
        instructions: (many.instructions - few.instructions) / rounds,
        allocations: (many.allocations - few.allocations) / rounds,
    })
}

fn counted_run(part: &Part, rounds: u64) -> Option<Counts> {
    // The lines of interest: "Collected : 123" and "total heap usage: 1,234 allocs, …".
    let callgrind = ["--tool=callgrind", "--callgrind-out-file=/dev/null"];
    let memcheck = ["--tool=memcheck", "--undef-value-errors=no"];
    Some(Counts {
        instructions: number_after(&valgrind(&callgrind, part, rounds)?, "Collected :")?,
        allocations: number_after(&valgrind(&memcheck, part, rounds)?, "total heap usage:")?,
    })
}

fn valgrind(options: &[&str], part: &Part, rounds: u64) -> Option<String> {
    let own = std::env::current_exe().ok()?;
    let output = Command::new("valgrind")
        .args(options)
        .arg(own)
        .args([PART, part.name, &rounds.to_string()])
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

fn number_after(text: &str, key: &str) -> Option<f64> {
    let (_, rest) = text.split_once(key)?;
    rest.split_whitespace().next()?.replace(',', "").parse().ok()
}
