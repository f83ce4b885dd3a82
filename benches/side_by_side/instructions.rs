//! What a command costs in instructions, on a server with many connections and mailboxes against
//! an empty one. Counted by callgrind, because instructions are the same on a busy machine.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Scope;
use crate::common::is_installed;
use crate::common::modes::{Load, Ping, Plan, Relay, gather, run};
use crate::rows::Row;
use crate::servers::{Kind, ROOMY_MAILBOXES, Server, Setup};

const BODY_BYTES: usize = 200;

/// Instructions per operation: of an add with its relay, and of a ping.
struct Cost {
    add: f64,
    ping: f64,
}

pub fn per_command(scope: &Scope) -> Result<Vec<Row>, String> {
    if scope.quick {
        return Err("not part of a quick run".to_owned());
    }
    if !is_installed("valgrind", "--version") {
        return Err("valgrind is missing".to_owned());
    }
    let empty = cost(scope, 0)?;
    let crowded = cost(scope, scope.crowd)?;
    let row = |what: &str, empty: f64, crowded: f64| {
        let what = format!("instructions per {what}, {} connections", scope.crowd);
        let empty_server = format!("empty server {empty:.0}");
        Row::compared(&what, format!("{crowded:.0}"), empty_server, &[crowded / empty])
    };
    Ok(vec![row("add", empty.add, crowded.add), row("ping", empty.ping, crowded.ping)])
}

fn cost(scope: &Scope, connections: usize) -> Result<Cost, String> {
    let under = ["valgrind", "--tool=callgrind", "--callgrind-out-file=callgrind.out"];
    // Pings to the crowd and its first deadlines are no part of a command, and would come to many
    // for each: callgrind makes the commands fifty times slower, and not the time between pings.
    let options = ROOMY_MAILBOXES.into_iter().chain([
        "--websocket-protocol-option=autoPingInterval=3600",
        "--limit-handshake-seconds=3600",
        "--limit-bind-seconds=3600",
    ]);
    let options = Some(options.map(str::to_owned).collect());
    let setup = Setup { under: under.map(str::to_owned).to_vec(), options, ..Setup::default() };
    let server = Server::start(Kind::Ours, &setup)?;
    let _crowd = (connections > 0).then(|| gather(&server.target, connections)).transpose()?;
    let relay = Relay::new(1, BODY_BYTES, None, Kind::Ours.dialect());
    let add = count(scope, &server, relay)?;
    let ping = count(scope, &server, Ping::new(1))?;
    Ok(Cost { add, ping })
}

/// The counters are set to zero before the load; its few connects are negligible.
fn count(scope: &Scope, server: &Server, mut load: impl Load) -> Result<f64, String> {
    let plan = Plan { measured: scope.measured * 2, ..Plan::default() };
    control("--zero", server.pid)?;
    let outcome = run(&mut load, &server.target, &plan)?;
    let instructions = dumped(server)?;
    Ok(instructions / outcome.operations().max(1) as f64)
}

fn control(command: &str, pid: u32) -> Result<(), String> {
    let status = Command::new("callgrind_control")
        .args([command, &pid.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(|error| format!("callgrind_control: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("callgrind_control {command}: {status}")) }
}

/// Has the counters written out, and reads their sum from the newest file.
fn dumped(server: &Server) -> Result<f64, String> {
    control("--dump", server.pid)?;
    let files = fs::read_dir(server.directory()).map_err(|error| error.to_string())?;
    files
        .flatten()
        .filter(|file| file.file_name().to_string_lossy().starts_with("callgrind.out."))
        .max_by_key(|file| number(&file.path()))
        .and_then(|file| fs::read_to_string(file.path()).ok())
        .and_then(|text| {
            let sum = text.lines().find_map(|line| line.strip_prefix("totals:"))?;
            sum.trim().parse().ok()
        })
        .ok_or("callgrind wrote no totals".to_owned())
}

/// Dumps are numbered in their extension.
fn number(path: &Path) -> u32 {
    path.extension().and_then(|it| it.to_str()?.parse().ok()).unwrap_or(0)
}
