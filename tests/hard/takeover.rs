//! Takeovers that are killed at each of their system calls, or that come again and again under
//! thousands of connections and steady traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::raw::{Raw, TEXT, frame};
use crate::common::{Server, Signal, eventually, process};

const TOOK_OVER: &str = "took over ";

/// A system call, by its name and its number among those of that name.
type Call = (String, usize);

/// The process takes over, traced; returns the system calls that it makes meanwhile. It gets a
/// signal at one of them.
fn traced_takeover(server: &Server, signal_at: Option<(&str, &Call)>) -> Vec<Call> {
    let trace = server.file("trace");
    let mut strace = Command::new("strace");
    // Those of the process alone, not those of the check.
    strace.arg("-q").arg("-o").arg(&trace).args(["-p", &server.pid().to_string()]);
    if let Some((signal, (name, number))) = signal_at {
        strace.args(["-e", &format!("inject={name}:signal={signal}:when={number}")]);
    }
    let mut strace = strace.spawn().expect("strace runs");
    // An idle server makes calls, too: it may be killed at once.
    let is_killed = || process::state(server.pid()) == 'Z';
    eventually("strace is attached", || {
        let has_ended = strace.try_wait().expect("strace").is_some();
        assert!(!has_ended || is_killed(), "strace may not attach");
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("status");
        !status.contains("TracerPid:\t0\n") || is_killed()
    });
    let before = server.count_log(TOOK_OVER);
    server.signal(Signal::USR2);
    eventually("a takeover or an end", || server.count_log(TOOK_OVER) > before || is_killed());
    if strace.try_wait().expect("strace").is_none() {
        process::signal(strace.id(), Signal::INT);
    }
    strace.wait().expect("strace");
    let mut numbers = BTreeMap::new();
    let trace = fs::read_to_string(trace).expect("the trace");
    let names = trace.lines().filter_map(|line| line.split_once('('));
    let calls = names.map(|(name, _)| {
        let number = numbers.entry(name.to_owned()).or_insert(0);
        *number += 1;
        (name.to_owned(), *number)
    });
    calls.collect()
}

#[test]
#[ignore = "needs strace"]
fn a_kill_at_any_system_call_of_a_takeover_loses_nothing_acknowledged() {
    let kills = std::env::var("TAKEOVER_KILLS").map_or(60, |it| it.parse().expect("a number"));
    let server = Server::start(&[]);
    server.bind("app", "s").claim("4");
    let calls = traced_takeover(&server, None);
    let step = (calls.len() / kills).max(1);
    let (mut directory, mut acknowledged) = (server.kill(), 0);
    let (mut kills_after_exec, mut killed_at) = ([0; 2], BTreeSet::new());
    for call in calls.iter().step_by(step) {
        let mut server = Server::start_in(Arc::clone(&directory), &[]);
        let mut client = server.bind("app", "s");
        assert!(client.open("m").len() >= acknowledged, "before {call:?}");
        client.one(json!({"type": "add", "phase": "p", "body": "00"}));
        acknowledged += 1;
        let traced = traced_takeover(&server, Some(("KILL", call)));
        if process::state(server.pid()) == 'Z' {
            assert!(!server.wait().success());
            client.assert_lost();
            let has_executed = traced.iter().any(|(name, _)| name == "execve");
            kills_after_exec[usize::from(has_executed)] += 1;
            killed_at.insert(&*call.0);
        }
        directory = server.kill();
        // A check that was just beginning has the server's lock until it is executed.
        eventually("the end of the check", || !process::is_any_in(directory.path()));
    }
    println!("{kills_after_exec:?} kills of {} calls, at: {killed_at:?}", calls.len());
    assert!(kills_after_exec.iter().all(|count| *count > 0), "{killed_at:?}");
    let server = Server::start_in(directory, &[]);
    assert!(server.bind("app", "s").open("m").len() >= acknowledged);
}

#[test]
#[ignore = "needs strace"]
fn a_stop_around_the_execution_of_the_next_program_is_not_lost() {
    let server = Server::start(&[]);
    let calls = traced_takeover(&server, None);
    drop(server);
    let executes = calls.iter().position(|(name, _)| name == "execve").expect("an execution");
    let mut stops_after_exec = [0; 2];
    for call in &calls[executes.saturating_sub(30)..executes + 10] {
        let mut server = Server::start(&[]);
        let traced = traced_takeover(&server, Some(("TERM", call)));
        let trace = fs::read_to_string(server.file("trace")).expect("the trace");
        if trace.contains("--- SIGTERM") {
            assert!(server.wait().success(), "{call:?}");
            let has_executed = traced.iter().any(|(name, _)| name == "execve");
            stops_after_exec[usize::from(has_executed)] += 1;
        }
    }
    println!("{stops_after_exec:?} stops");
    assert!(stops_after_exec.iter().all(|count| *count > 0), "{stops_after_exec:?}");
}

/// A server whose log shows when a takeover is done; makes one.
fn replace(server: &mut Server) -> Duration {
    let (before, began) = (server.log().len(), Instant::now());
    server.signal(Signal::USR2);
    server.wait_for_log_after(before, TOOK_OVER);
    began.elapsed()
}

#[test]
#[ignore = "needs 20,000 descriptors"]
fn ten_thousand_idle_connections_survive_twenty_takeovers() {
    const CONNECTIONS: usize = 10_000;
    process::raise_own_descriptor_limit();
    let mut server = Server::start(&[]);
    let mut clients: Vec<Raw> = (0..CONNECTIONS).map(|_| Raw::open(server.address)).collect();
    for client in &mut clients {
        client.send(&frame(TEXT, br#"{"type": "bind", "appid": "app", "side": "s"}"#));
        client.frame(); // the ack
    }
    let pid = server.pid();
    replace(&mut server);
    let (descriptors, memory) = (process::descriptors(pid), process::resident_bytes(pid));
    let longest = (0..20).map(|_| replace(&mut server)).max().expect("twenty");
    let memory_after = process::resident_bytes(pid);
    println!("{descriptors} descriptors, {memory} bytes, then {memory_after}; {longest:?} at most");
    assert_eq!(process::descriptors(pid), descriptors);
    assert!(memory_after < memory + memory / 4);
    let ping = frame(TEXT, br#"{"type": "ping", "ping": 7}"#);
    for client in &mut clients {
        client.send(&ping);
    }
    for client in &mut clients {
        client.frame(); // the ack
        assert!(String::from_utf8_lossy(&client.frame().1).contains(r#""pong":7"#));
    }
}

#[test]
#[ignore = "needs ten seconds of a machine with nothing else to do"]
fn steady_traffic_sees_short_gaps_while_the_program_is_replaced_each_second() {
    const MESSAGES: usize = 500;
    let mut server = Server::start(&[]);
    let (mut writer, mut reader) = (server.bind("app", "w"), server.bind("app", "r"));
    writer.open("m");
    reader.open("m");
    let is_done = AtomicBool::new(false);
    let longest = thread::scope(|scope| {
        scope.spawn(|| {
            for phase in 0..MESSAGES {
                writer.one(json!({"type": "add", "phase": phase.to_string(), "body": "00"}));
                thread::sleep(Duration::from_millis(20));
            }
        });
        let reading = scope.spawn(|| {
            let (mut longest, mut last) = (Duration::ZERO, Instant::now());
            for phase in 0..MESSAGES {
                assert_eq!(reader.recv()["phase"], phase.to_string());
                (longest, last) = (longest.max(last.elapsed()), Instant::now());
            }
            is_done.store(true, Ordering::Relaxed);
            longest
        });
        while !is_done.load(Ordering::Relaxed) {
            replace(&mut server);
            thread::sleep(Duration::from_secs(1));
        }
        reading.join().expect("the reader")
    });
    println!("the longest gap between two messages: {longest:?}");
    // 300 ms are wanted; other work on the machine may take as long.
    assert!(longest < Duration::from_secs(3), "{longest:?}");
}
