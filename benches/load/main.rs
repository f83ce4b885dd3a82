//! A load tool for Magic Wormhole mailbox servers: `cargo bench --bench load -- --help`.
#![forbid(unsafe_code)]

#[path = "../common/mod.rs"]
mod common;
mod options;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use common::modes::{
    Dialect, Exchange, Idle, IdleReport, Load, Outcome, Ping, Plan, Relay, Storm, run, run_idle,
};
use common::report;
use common::svg;
use common::syncs::Tracer;
use options::{Mode, Options};
use serde_json::{Value, json};

/// Exit status for a bad command line.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    common::raise_descriptor_limit();
    let options = match options::parse() {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("load: {error}");
            return ExitCode::from(USAGE);
        }
    };
    match carry_out(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(options: &Options) -> Result<(), String> {
    let tracer = match options.pid {
        Some(pid) if options.count_syncs => Some(Tracer::attach(pid)?),
        _ => None,
    };
    let plan = Plan {
        warm_up: options.warm_up,
        measured: options.seconds,
        pid: options.pid,
        syncs: tracer.as_ref().map(|tracer| tracer.log.clone()),
        progress: true,
    };
    match options.mode {
        Mode::Exchange { pairs } => measure(&mut Exchange::new(pairs), options, &plan),
        Mode::Relay { pairs, bytes, rate } => {
            measure(&mut Relay::new(pairs, bytes, rate, Dialect::Mailbox), options, &plan)
        }
        Mode::Ping { clients } => measure(&mut Ping::new(clients), options, &plan),
        Mode::Storm { clients } => {
            let plan = Plan { warm_up: Duration::ZERO, ..plan };
            measure(&mut Storm::new(clients), options, &plan)
        }
        Mode::Idle { clients, burst_bytes } => {
            let pid = options.pid.ok_or("idle reads the server's memory: it needs --pid")?;
            let idle = Idle::new(clients, burst_bytes);
            let report = run_idle(idle, &options.target, pid, options.warm_up)?;
            print_idle(&report);
            write_json(options, idle_json(&report))
        }
    }
}

fn measure(load: &mut impl Load, options: &Options, plan: &Plan) -> Result<(), String> {
    let outcome = run(load, &options.target, plan)?;
    println!("{} on {}", description(options.mode), options.url);
    let open_loop = matches!(options.mode, Mode::Relay { rate: Some(_), .. });
    print!("{}", report::table(&outcome, open_loop));
    write_json(options, report::json(&outcome))?;
    match &options.svg {
        Some(path) => write(path, &draw(options, &outcome)),
        None => Ok(()),
    }
}

fn description(mode: Mode) -> String {
    match mode {
        Mode::Exchange { pairs } => format!("whole exchanges, {pairs} pairs at once"),
        Mode::Relay { pairs, bytes, rate: None } => {
            format!("relay, closed loop, {pairs} pairs, bodies of {bytes} bytes")
        }
        Mode::Relay { pairs, bytes, rate: Some(rate) } => {
            format!(
                "relay, open loop, {rate} messages/s over {pairs} pairs, bodies of {bytes} bytes"
            )
        }
        Mode::Ping { clients } => format!("pings, {clients} clients"),
        Mode::Idle { clients, .. } => format!("{clients} idle connections"),
        Mode::Storm { clients } => format!("{clients} connections at once"),
    }
}

fn draw(options: &Options, outcome: &Outcome) -> String {
    let description = description(options.mode);
    let (title, subtitle) = match &options.title {
        Some(title) => (title.clone(), description),
        None => (description, options.url.clone()),
    };
    let subtitle = format!("{subtitle} · {:.0} {}/s", outcome.per_second(), outcome.unit);
    svg::plot(&title, &subtitle, &options.name, &outcome.latency)
}

fn print_idle(report: &IdleReport) {
    println!("{} idle connections", report.clients);
    println!("  memory before           {}", report::bytes(report.before as f64));
    println!("  memory with them        {}", report::bytes(report.connected as f64));
    println!("  per connection          {}", report::bytes(report.per_connection()));
    if let (Some(after), Some(each)) = (report.after_burst, report.per_connection_after_burst()) {
        println!("  memory after the burst  {}", report::bytes(after as f64));
        println!("  per connection          {}", report::bytes(each));
    }
}

fn idle_json(report: &IdleReport) -> Value {
    json!({
        "connections": report.clients,
        "resident_bytes_before": report.before,
        "resident_bytes_connected": report.connected,
        "resident_bytes_per_connection": report.per_connection(),
        "resident_bytes_after_burst": report.after_burst,
        "resident_bytes_per_connection_after_burst": report.per_connection_after_burst(),
    })
}

fn write_json(options: &Options, mut result: Value) -> Result<(), String> {
    let Some(path) = &options.json else { return Ok(()) };
    result["mode"] = json!(options.name);
    result["url"] = json!(options.url);
    result["description"] = json!(description(options.mode));
    write(path, &format!("{result:#}\n"))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
