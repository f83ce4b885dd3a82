//! Backups of a running server's file, as the manual shows them: with SQLite's own tool,
//! and with Litestream. What was acknowledged before the backup is in it, and the server serves on.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crate::common::document::{self, with};
use crate::common::{Client, Directory, Running, Server, eventually, retry, sql};
use crate::programs::program;
use serde_json::json;

/// A client that adds messages as fast as they are acknowledged.
struct Traffic {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Traffic {
    fn start(server: &Server) -> Traffic {
        let mut client = server.bind("a", "s");
        client.open("busy");
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let (stops, counts) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        let thread = thread::spawn(move || {
            while !stops.load(Ordering::Relaxed) {
                add(&mut client, counts.load(Ordering::Relaxed));
                counts.fetch_add(1, Ordering::Relaxed);
            }
        });
        let traffic = Traffic { stop, acknowledged, thread };
        traffic.wait_for_more();
        traffic
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until the traffic has gone on for a while.
    fn wait_for_more(&self) {
        let before = self.acknowledged();
        eventually("traffic", || self.acknowledged() >= before + 50);
    }

    /// Ends it; gives how many messages were acknowledged in all.
    fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no failure");
        self.acknowledged.load(Ordering::Relaxed)
    }
}

fn add(client: &mut Client, number: usize) {
    client.send(json!({"type": "add", "phase": number.to_string(), "body": "00"}));
    // The message comes back when it is committed.
    while client.recv()["type"] != "message" {}
}

fn assert_served_well(server: &Server) {
    let log = server.log();
    let failures =
        log.iter().filter(|line| line.contains("storage failed") || line.contains("ERROR"));
    assert_eq!(failures.count(), 0, "{log:#?}");
}

/// Checks that a file is sound, and that a server serves at least so many messages from it.
fn assert_restores(directory: &Arc<Directory>, name: &str, at_least: usize) {
    let check = sql::rows(&directory.file(name), "PRAGMA integrity_check");
    assert_eq!(check, json!([["ok"]]));
    let server = Server::start_in(Arc::clone(directory), &[&format!("--channel-db={name}")]);
    let replayed = server.bind("a", "t").open("busy");
    let phases: Vec<&str> = replayed.iter().filter_map(|it| it["phase"].as_str()).collect();
    let expected: Vec<String> = (0..phases.len()).map(|number| number.to_string()).collect();
    assert_eq!(phases, expected, "none is missing in between");
    assert!(phases.len() >= at_least, "{} of {at_least}", phases.len());
}

#[test]
#[ignore = "needs sqlite3"]
fn sqlite_backs_the_file_up_while_it_is_written() {
    let sqlite = program("sqlite3");
    let server = Server::start(&[]);
    let traffic = Traffic::start(&server);
    for name in ["first.sqlite", "second.sqlite"] {
        let acknowledged = traffic.acknowledged();
        let status = Command::new(&sqlite)
            .args(["relay.sqlite", &format!(".backup {name}")])
            .current_dir(server.directory.path())
            .status();
        assert!(status.expect("sqlite3 runs").success());
        assert_restores(&server.directory, name, acknowledged);
        traffic.wait_for_more();
    }
    traffic.stop();
    assert_served_well(&server);
}

/// Restores from the replica; whether there is something to restore from yet.
fn restore(litestream: &Path, directory: &Directory, name: &str) -> bool {
    _ = fs::remove_file(directory.file(name));
    let output = Command::new(litestream)
        .args(["restore", "-config", "litestream.yml", "-o", name, "relay.sqlite"])
        .current_dir(directory.path())
        .output()
        .expect("litestream runs");
    output.status.success()
}

#[test]
#[ignore = "needs litestream"]
fn litestream_replicates_the_file_while_it_is_written() {
    let litestream = program("litestream");
    let server = Server::start(&["--limit-mailbox-messages=1000000"]);
    let directory = Arc::clone(&server.directory);
    let config = document::block("src/manual/durability.md", "yaml", "replica:");
    let config = with(&config, "/var/lib/wormhole-mailbox/usage.sqlite", "relay.sqlite");
    let config = with(&config, "/backup/usage", "replica");
    fs::write(directory.file("litestream.yml"), config).expect("write");
    let traffic = Traffic::start(&server);
    let log = fs::File::create(directory.file("litestream.log")).expect("log");
    let child = Command::new(&litestream)
        .args(["replicate", "-config", "litestream.yml"])
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("log"))
        .stderr(log)
        .spawn();
    let running = Running(child.expect("litestream runs"));
    // Once while the traffic goes on, and then until the last message is there.
    let mut traffic = Some(traffic);
    let mut wanted = 0;
    retry(|| {
        let restored = restore(&litestream, &directory, "restored.sqlite");
        let sql = "SELECT COUNT(*) FROM messages";
        let count = || sql::rows(&directory.file("restored.sqlite"), sql)[0][0].as_u64();
        if restored && count() >= Some(wanted) {
            let Some(traffic) = traffic.take() else { return Ok(()) };
            traffic.wait_for_more();
            wanted = traffic.stop() as u64;
        }
        Err(fs::read_to_string(directory.file("litestream.log")).expect("log"))
    });
    assert_served_well(&server);
    assert_restores(&directory, "restored.sqlite", wanted as usize);
    // It leaves tables of its own in the file, which a server must not mind.
    let (status, _) = server.stop();
    assert!(status.success());
    drop(running);
    assert_restores(&directory, "relay.sqlite", wanted as usize);
}
