//! The rows of memory: empty, with idle connections, with a full store.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use crate::Scope;
use crate::common::modes::{Fill, Idle, Plan, run, run_idle};
use crate::common::process::Usage;
use crate::common::report;
use crate::rows::{Row, median};
use crate::servers::{Kind, Server, Setup, free_address};

/// Size of the bodies in the burst of large messages.
const BURST_BYTES: usize = 64 * 1024;

/// The store that is filled, by that many clients.
const STORED_BYTES: usize = 64 * 1024 * 1024;
const FILLERS: usize = 64;

/// Sizes of the bodies that fill it.
const BODY_BYTES: [usize; 4] = [200, 700, 2_000, 20_000];

/// How long filling it may take, and the time for buffers to be freed before memory is read.
const FILLED_MAX: Duration = Duration::from_secs(120);
const SETTLE: Duration = Duration::from_secs(1);

/// Memory: empty, with idle connections, and after a burst on all of them.
pub fn idle(scope: &Scope) -> Result<Vec<Row>, String> {
    let (mut resident, mut anonymous) = (vec![], vec![]);
    let (mut idle, mut after, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..scope.rounds.min(2) {
        let server = Server::start(Kind::Ours, &Setup::default())?;
        anonymous.push(Usage::of(server.pid)?.anonymous_bytes as f64);
        let load = Idle::new(scope.crowd, Some(BURST_BYTES));
        let report = run_idle(load, &server.target, server.pid, Duration::from_secs(1))?;
        let burst = report.per_connection_after_burst().unwrap_or(f64::NAN);
        resident.push(report.before as f64);
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
        Row::alone("memory, empty", &resident, report::bytes),
        Row::alone("the part of it that is no file's", &anonymous, report::bytes),
        Row::alone(&per_connection, &idle, report::bytes),
        Row::compared(&burst, report::bytes(median(&after)), before, &ratios),
    ])
}

/// Memory with a full store, to the bytes that it counts: with messages of one size, and when they
/// have been replaced by others.
pub fn full_store(_scope: &Scope) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for bytes in BODY_BYTES {
        let what = format!("memory with the store full of messages of {bytes} bytes");
        rows.push(filled(&what, &[bytes])?);
    }
    let what = "memory with the store full, messages of other sizes before";
    rows.push(filled(what, &BODY_BYTES)?);
    Ok(rows)
}

fn filled(what: &str, bodies: &[usize]) -> Result<Row, String> {
    let admin = free_address()?;
    let options = [format!("--admin={admin}"), format!("--limit-stored-bytes={STORED_BYTES}")];
    let setup = Setup { options: Some(options.to_vec()), ..Setup::default() };
    let server = Server::start(Kind::Ours, &setup)?;
    let before = Usage::of(server.pid)?.resident_bytes;
    for bytes in bodies {
        let plan = Plan { measured: FILLED_MAX, ..Plan::default() };
        run(&mut Fill::new(FILLERS, *bytes), &server.target, &plan)?;
    }
    sleep(SETTLE);
    let memory = (Usage::of(server.pid)?.resident_bytes - before) as f64;
    let metrics = metrics(&admin.to_string()).map_err(|error| format!("metrics: {error}"))?;
    let stored =
        metrics.lines().find_map(|line| line.strip_prefix("wormhole_mailbox_stored_bytes "));
    let stored: f64 = stored.and_then(|it| it.trim().parse().ok()).ok_or("no stored bytes")?;
    server.stop();
    let compared_with = format!("stored {}", report::bytes(stored));
    Ok(Row::compared(what, report::bytes(memory), compared_with, &[memory / stored]))
}

fn metrics(admin: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
