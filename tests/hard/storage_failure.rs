//! Storage that fails under a running server and works again: what was acknowledged is there, what
//! failed was told so, reading goes on, recovery needs no restart, and the log has one line when
//! it begins and one when it ends.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::client::exchange;
use crate::common::{Client, Directory, PATIENCE, Server, Signal, eventually, process, sql};
use rustix::process::Resource;
use serde_json::{Value, json};
use tungstenite::Message;

const BEGINS: &str = "storage failed";
const ENDS: &str = "storage works again";
const OTHER_REASON: &str = "storage is still unavailable";
const DEGRADED: &str = "The server's storage is unavailable, please try again later.";
const UNAVAILABLE: &str = "server storage is unavailable, try again later";
const TRY_AGAIN_LATER: u16 = 1013;

/// What became of an operation.
#[derive(Debug, PartialEq)]
enum Outcome {
    Acknowledged,
    /// By an `error`.
    Refused,
    /// By a close with 1013.
    Closed,
}

/// Adds a message, and gives how the server took it. The ack alone promises nothing; the echo of
/// the stored message does.
fn try_add(client: &mut Client, phase: &str, body_bytes: usize) -> Outcome {
    client.send(json!({"type": "add", "phase": phase, "body": "b".repeat(body_bytes)}));
    loop {
        match client.socket.read().expect("an answer or a close") {
            Message::Text(text) => {
                let answer: Value = serde_json::from_str(&text).expect("JSON");
                match answer["type"].as_str() {
                    Some("ack") => {}
                    Some("message") => {
                        assert_eq!(answer["phase"], phase);
                        return Outcome::Acknowledged;
                    }
                    _ => {
                        assert_eq!(answer["error"], UNAVAILABLE, "{answer}");
                        return Outcome::Refused;
                    }
                }
            }
            Message::Close(frame) => {
                let code = frame.map(|frame| u16::from(frame.code));
                assert_eq!(code, Some(TRY_AGAIN_LATER));
                return Outcome::Closed;
            }
            _ => {}
        }
    }
}

/// A connection that opens the mailbox, or the `error` it got instead.
fn try_open(server: &Server, side: &str) -> Option<Client> {
    let mut client = server.bind("app", side);
    client.send(json!({"type": "open", "mailbox": "box"}));
    client.send(json!({"type": "ping", "ping": "opened"}));
    loop {
        match client.socket.read().ok()? {
            Message::Text(text) => {
                let answer: Value = serde_json::from_str(&text).expect("JSON");
                if answer["type"] == "error" {
                    assert_eq!(answer["error"], UNAVAILABLE, "{answer}");
                    return None;
                }
                if answer["type"] == "pong" {
                    return Some(client);
                }
            }
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

/// What a client sees of a server whose storage fails.
fn assert_degraded(server: &Server) {
    let mut client = Client::connect(server.address);
    assert_eq!(client.recv()["welcome"]["error"], DEGRADED);
    client.quiet(json!({"type": "bind", "appid": "app", "side": "reader"}));
    for command in [
        json!({"type": "allocate"}),
        json!({"type": "claim", "nameplate": "77"}),
        json!({"type": "open", "mailbox": "other"}),
        json!({"type": "close", "mailbox": "box"}),
    ] {
        assert_eq!(client.error(command), UNAVAILABLE);
    }
    let release = json!({"type": "release", "nameplate": "1"});
    assert_eq!(client.one(release.clone())["type"], "released", "not held by this side");
    let mut holder = Client::connect(server.address);
    holder.recv();
    holder.quiet(json!({"type": "bind", "appid": "app", "side": "one"}));
    assert_eq!(holder.error(release), UNAVAILABLE);
    assert_eq!(client.one(json!({"type": "ping", "ping": 1}))["type"], "pong");
    let list = client.one(json!({"type": "list"}));
    assert_eq!(list["nameplates"], json!([{"id": "1"}]), "what is stored can be read");
}

fn assert_recovers(server: &mut Server) {
    server.wait_for_log(ENDS);
    let mut client = Client::connect(server.address);
    assert_eq!(client.recv()["welcome"]["error"], Value::Null);
    exchange(server, "happy");
}

/// The phases that a mailbox holds, as a new connection is told.
fn stored(server: &Server) -> HashSet<String> {
    let replayed = server.bind("app", "one").open("box");
    replayed.iter().map(|it| it["phase"].as_str().expect("a phase").to_owned()).collect()
}

/// Traffic in the mailbox "box" before, during and after a failure.
struct Story {
    client: Option<Client>,
    next: usize,
    acknowledged: Vec<String>,
    failed: Vec<String>,
}

impl Story {
    fn begin(server: &Server) -> Story {
        let mut client = server.bind("app", "one");
        client.claim("1");
        client.open("box");
        Story { client: Some(client), next: 0, acknowledged: Vec::new(), failed: Vec::new() }
    }

    /// One message; tells whether it was acknowledged.
    fn step(&mut self, server: &Server, body_bytes: usize) -> bool {
        if self.client.is_none() {
            self.client = try_open(server, "one");
        }
        let Some(client) = &mut self.client else { return false };
        let phase = format!("phase-{}", self.next);
        self.next += 1;
        let outcome = try_add(client, &phase, body_bytes);
        if outcome == Outcome::Acknowledged {
            self.acknowledged.push(phase);
            return true;
        }
        if outcome == Outcome::Closed {
            self.client = None;
        }
        self.failed.push(phase);
        false
    }

    /// What was acknowledged is there, and only that, now and after a crash.
    fn end(self, server: Server, options: &[&str]) {
        let Story { client, acknowledged, failed, .. } = self;
        drop(client);
        let check = |server: &Server| {
            let stored = stored(server);
            for phase in &acknowledged {
                assert!(stored.contains(phase), "{phase} was acknowledged and is lost");
            }
            for phase in &failed {
                assert!(!stored.contains(phase), "{phase} was refused and is there");
            }
        };
        check(&server);
        let server = Server::start_in(server.kill(), options);
        check(&server);
    }
}

/// A small file system of its own, gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path, bytes: usize) -> SmallDisk {
        fs::create_dir_all(path).expect("a mount point");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(path)
            .status();
        assert!(mounted.expect("mount runs").success());
        SmallDisk(path.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
#[ignore = "needs root to mount a file system"]
fn a_disk_that_fills_up_and_is_freed_again_loses_nothing_and_needs_no_restart() {
    let directory = Arc::new(Directory::new());
    let disk_path = directory.file("disk");
    let disk = SmallDisk::mount(&disk_path, 4 * 1024 * 1024);
    let ballast = disk_path.join("ballast");
    fs::write(&ballast, vec![0; 2_500_000]).expect("room");
    let options = ["--channel-db=disk/relay.sqlite"];
    let mut server = Server::start_in(directory, &options);
    let mut story = Story::begin(&server);
    let until = Instant::now() + PATIENCE;
    while story.step(&server, 20_000) {
        assert!(Instant::now() < until, "the disk does not fill up");
    }
    assert!(story.acknowledged.len() > 10);
    server.wait_for_log(BEGINS);
    assert_degraded(&server);
    // Others try as well, for longer than a retry takes.
    let until = Instant::now() + Duration::from_millis(2500);
    while Instant::now() < until {
        story.step(&server, 20_000);
    }
    assert_eq!(server.count_log(BEGINS), 1, "{:#?}", server.log());
    fs::remove_file(&ballast).expect("freed");
    assert_recovers(&mut server);
    eventually("traffic goes on", || story.step(&server, 20_000));
    assert_eq!((server.count_log(BEGINS), server.count_log(ENDS)), (1, 1), "{:#?}", server.log());
    assert_eq!(server.count_log(OTHER_REASON), 0, "{:#?}", server.log());
    story.end(server, &options);
    drop(disk);
}

#[test]
fn a_file_that_may_not_grow_does_not_end_the_process() {
    let mut server = Server::start(&[]);
    let mut story = Story::begin(&server);
    // The soft limit only, so that it can be lifted again.
    process::limit(server.pid(), Resource::Fsize, Some(500_000));
    let until = Instant::now() + PATIENCE;
    while story.step(&server, 20_000) {
        assert!(Instant::now() < until, "the file may grow");
    }
    server.wait_for_log(BEGINS);
    assert_degraded(&server);
    process::limit(server.pid(), Resource::Fsize, None);
    assert_recovers(&mut server);
    eventually("traffic goes on", || story.step(&server, 20_000));
    story.end(server, &[]);
}

#[test]
fn a_database_locked_by_another_process_is_waited_for_and_taken_up_again() {
    let mut server = Server::start(&[]);
    let mut story = Story::begin(&server);
    for round in 1..=2 {
        assert!(story.step(&server, 100));
        let other = sql::lock(&server.file("relay.sqlite"));
        assert!(!story.step(&server, 100), "nobody can write now");
        eventually("it is noticed", || server.count_log(BEGINS) == round);
        assert_degraded(&server);
        story.step(&server, 100);
        drop(other);
        eventually("it is taken up again", || server.count_log(ENDS) == round);
        assert_eq!(server.count_log(BEGINS), round);
        eventually("traffic goes on", || story.step(&server, 100));
    }
    assert_recovers(&mut server);
    story.end(server, &[]);
}

/// Makes system calls of the server fail, until dropped.
struct Sabotage {
    strace: Child,
    trace: PathBuf,
}

impl Sabotage {
    fn begin(server: &Server, calls: &str, error: &str) -> Sabotage {
        let trace = server.file("sabotage");
        let strace = Command::new("strace")
            .args(["-q", "-f", "-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:error={error}")])
            .arg("-o")
            .arg(&trace)
            .args(["-p", &server.pid().to_string()])
            .spawn();
        let mut strace = strace.expect("strace runs");
        eventually("strace is attached", || {
            assert_eq!(strace.try_wait().expect("strace"), None, "strace may not attach");
            is_traced(server.pid())
        });
        Sabotage { strace, trace }
    }

    /// System calls that have failed so far.
    fn failures(&self) -> usize {
        let trace = fs::read_to_string(&self.trace).expect("the trace");
        trace.matches("(INJECTED)").count()
    }
}

impl Drop for Sabotage {
    fn drop(&mut self) {
        // Politely, so that it lets the server go.
        process::signal(self.strace.id(), Signal::INT);
        _ = self.strace.wait();
    }
}

fn is_traced(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    !status.lines().any(|line| line.starts_with("TracerPid:") && line.ends_with("\t0"))
}

/// Whether the failing calls are in place depends on the tracer, so it is tried until it shows.
fn survives(calls: &str, error: &str) {
    let mut server = Server::start(&[]);
    let mut story = Story::begin(&server);
    assert!(story.step(&server, 100));
    let sabotage = Sabotage::begin(&server, calls, error);
    let until = Instant::now() + PATIENCE;
    while story.step(&server, 100) {
        assert!(Instant::now() < until, "nothing fails");
    }
    server.wait_for_log(BEGINS);
    assert_degraded(&server);
    let before = sabotage.failures();
    eventually("it tries again", || sabotage.failures() > before);
    story.step(&server, 100);
    assert_eq!((server.count_log(BEGINS), server.count_log(ENDS)), (1, 0), "{:#?}", server.log());
    drop(sabotage);
    assert_recovers(&mut server);
    eventually("traffic goes on", || story.step(&server, 100));
    assert_eq!((server.count_log(BEGINS), server.count_log(ENDS)), (1, 1), "{:#?}", server.log());
    assert_eq!(server.count_log(OTHER_REASON), 0, "{:#?}", server.log());
    story.end(server, &[]);
}

#[test]
#[ignore = "needs strace"]
fn an_error_while_writing_is_survived() {
    survives("pwrite64", "EIO");
}

#[test]
#[ignore = "needs strace"]
fn an_error_while_syncing_is_survived() {
    survives("fsync,fdatasync", "EIO");
}

#[test]
#[ignore = "needs strace"]
fn a_file_system_that_turns_read_only_is_survived() {
    survives("pwrite64,ftruncate", "EROFS");
}

#[test]
fn those_who_listen_and_are_idle_still_hear_what_comes_after_the_failure() {
    let mut server = Server::start(&[]);
    let mut listener = server.bind("app", "two");
    listener.open("box");
    let mut story = Story::begin(&server);
    let other = sql::lock(&server.file("relay.sqlite"));
    assert!(!story.step(&server, 100));
    drop(other);
    server.wait_for_log(ENDS);
    eventually("traffic goes on", || story.step(&server, 100));
    assert_eq!(listener.recv()["phase"], *story.acknowledged[0]);
}

#[test]
#[ignore = "needs strace"]
fn those_who_listen_go_on_listening_when_it_could_not_even_be_read_for_a_while() {
    let mut server = Server::start(&["--synchronous=off"]);
    let mut story = Story::begin(&server);
    for _ in 0..120 {
        assert!(story.step(&server, 50_000)); // more than SQLite keeps in memory
    }
    let mut listener = server.bind("app", "two");
    assert_eq!(listener.open("box").len(), 120);
    let sabotage = Sabotage::begin(&server, "pread64,pwrite64", "EIO");
    let until = Instant::now() + PATIENCE;
    while story.step(&server, 100) {
        listener.recv();
        assert!(Instant::now() < until, "nothing fails");
    }
    let mut reader = server.bind("app", "three");
    assert_eq!(reader.error(json!({"type": "list"})), UNAVAILABLE, "an empty list would be a lie");
    drop(sabotage);
    assert_recovers(&mut server);
    eventually("traffic goes on", || story.step(&server, 100));
    while listener.recv()["phase"] != **story.acknowledged.last().expect("one") {}
    story.end(server, &[]);
}

#[test]
fn failed_claims_do_not_count_as_live_nameplates_of_their_address() {
    const ADDRESS: &str = "192.0.2.1";
    let mut server = Server::start(&["--limit-address-nameplates=2"]);
    for round in 1..=3 {
        let mut client = server.connect_from(Some(ADDRESS)).expect("accepted");
        client.quiet(json!({"type": "bind", "appid": "app", "side": "s"}));
        let other = sql::lock(&server.file("relay.sqlite"));
        client.send(json!({"type": "claim", "nameplate": "5"}));
        assert_eq!(client.close_code(), TRY_AGAIN_LATER);
        drop(other);
        eventually("it works again", || server.count_log(ENDS) == round);
    }
    let mut client = server.connect_from(Some(ADDRESS)).expect("accepted");
    client.quiet(json!({"type": "bind", "appid": "app", "side": "s"}));
    client.claim("6");
    assert_recovers(&mut server);
}

#[test]
fn a_usage_database_that_is_locked_or_gone_never_hurts_the_service() {
    let mut server = Server::start(&["--usage-db=usage.sqlite"]);
    exchange(&server, "happy");
    let path = server.file("usage.sqlite");
    let count = "SELECT COUNT(*) FROM mailboxes";
    eventually("rows are written", || sql::rows(&path, count)[0][0] == 1);
    let other = sql::lock(&path);
    let mut exchanges = 1;
    while exchanges < 20 || server.count_log("usage database fails") == 0 {
        exchange(&server, "happy");
        exchanges += 1;
    }
    drop(other);
    server.wait_for_log("usage database works again");
    eventually("the backlog is written", || {
        exchange(&server, "happy");
        sql::rows(&path, count)[0][0].as_u64() >= Some(exchanges)
    });
    for part in ["usage database fails", "usage database works again"] {
        assert_eq!(server.count_log(part), 1, "{:#?}", server.log());
    }
    for name in ["usage.sqlite", "usage.sqlite-wal", "usage.sqlite-shm"] {
        _ = fs::remove_file(server.file(name));
    }
    for _ in 0..10 {
        exchange(&server, "happy");
    }
    assert_eq!(server.count_log(BEGINS), 0, "{:#?}", server.log());
    let (status, _) = server.stop();
    assert!(status.success());
}
