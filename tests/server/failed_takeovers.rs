//! A takeover by a program that fails, is killed, or would not start: nothing acknowledged is lost,
//! and no second server gets the files.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Resource;
use serde_json::json;

use crate::common::{
    Client, Directory, PATIENCE, PROGRAM, Server, Signal, copy_program, eventually, process, retry,
    sql,
};
use crate::takeover::{add, put_script, start};

/// A client, and its mailbox with a message.
fn with_message(server: &Server) -> (Client, String) {
    let mut client = server.bind("app", "s");
    let mailbox = client.claim("4");
    client.open(&mailbox);
    client.one(add("p"));
    (client, mailbox)
}

#[test]
fn a_program_that_fails_its_check_does_not_take_over() {
    let (mut server, path) = start(&[]);
    let mut client = server.bind("app", "s");
    for (script, reason) in [
        ("#!/bin/sh\necho 'no such option' >&2\nexit 2\n", "no such option"),
        ("#!/bin/sh\nexit 3\n", "exit status: 3"),
        ("not a program\n", "Exec format error"),
        ("#!/bin/sh\nexit 0\n", "did not say"),
        ("#!/bin/sh\necho \"$@\"\n", "did not say"),
        ("#!/bin/sh\necho 'the configuration is valid'\necho but\n", "did not say"),
        // More than is looked at.
        ("#!/bin/sh\ndd if=/dev/zero bs=1000 count=70 2>/dev/null\n", "did not say"),
    ] {
        put_script(&path, script);
        let before = server.log().len();
        server.signal(Signal::USR2);
        let line = server.wait_for_log_after(before, "not replaced by ");
        assert!(line.contains("WARN") && line.contains(reason), "{line}");
        assert!(!line.trim_end().ends_with(':'), "{line}");
        client.one(json!({"type": "ping", "ping": 1}));
    }
    // One that passes its check, but cannot be executed afterwards.
    put_script(&path, "#!/bin/sh\nrm -f \"$0\"\necho 'the configuration is valid'\n");
    let before = server.log().len();
    server.signal(Signal::USR2);
    server.wait_for_log_after(before, "not replaced by ");
    client.claim("4");
    // A good one still can.
    copy_program(&path);
    server.replace();
    client.one(json!({"type": "ping", "ping": 1}));
}

/// A program that checks itself well, and then does something else than taking over.
fn put_impostor(path: &PathBuf, then: &str) {
    let check = r#"case "$*" in *--check-config*) echo 'the configuration is valid'; exit;; esac"#;
    put_script(path, &format!("#!/bin/sh\n{check}\n{then}\n"));
}

#[test]
fn a_program_that_takes_nothing_over_closes_the_connections_and_keeps_the_state() {
    let (mut server, path) = start(&[]);
    let (mut client, mailbox) = with_message(&server);
    put_impostor(&path, &format!("exec {PROGRAM} \"$@\" </dev/null"));
    let before = server.log().len();
    server.signal(Signal::USR2);
    client.assert_lost();
    server.wait_for_log_after(before, "listening on ");
    server.address = *server.logged_addresses().last().expect("an address");
    eventually("the event loop", || process::has_event_loop(server.pid()));
    let mut client = retry(|| {
        std::net::TcpStream::connect(server.address).map_err(|error| error.to_string())?;
        Ok(server.bind("app", "s"))
    });
    assert_eq!(client.claim("4"), mailbox);
    assert_eq!(client.open(&mailbox).len(), 1);
}

#[test]
fn a_program_that_crashes_loses_nothing_acknowledged() {
    let (mut server, path) = start(&[]);
    let (mut client, mailbox) = with_message(&server);
    put_impostor(&path, "kill -9 $$");
    server.signal(Signal::USR2);
    client.assert_lost();
    assert!(!server.wait().success());
    assert_stored(Arc::clone(&server.directory), &mailbox, 1);
}

/// A start in the directory finds the mailbox with that many messages at least.
fn assert_stored(directory: Arc<Directory>, mailbox: &str, messages: usize) -> Arc<Directory> {
    let server = Server::start_in(directory, &[]);
    let mut client = server.bind("app", "s");
    let replayed = client.open(mailbox).len();
    assert!(replayed >= messages, "{replayed} of {messages}");
    server.kill()
}

#[test]
fn a_kill_at_any_moment_of_a_takeover_loses_nothing_acknowledged() {
    let mut directory = Arc::new(Directory::new());
    let mut acknowledged = 0;
    for round in 0..12 {
        let server = Server::start_in(directory, &[]);
        let mut client = server.bind("app", "s");
        assert!(client.open("m").len() >= acknowledged);
        for _ in 0..3 {
            client.one(add("p"));
            acknowledged += 1;
        }
        server.signal(Signal::USR2);
        // From before the check to after the start of the new program.
        thread::sleep(Duration::from_millis(5 * round));
        directory = server.kill();
        // A check that was just beginning has the server's lock until it is executed.
        eventually("the end of the check", || !process::is_any_in(directory.path()));
    }
    assert_stored(directory, "m", acknowledged);
}

/// The program at the server's path does not take over; the line with the reason.
fn refusal(server: &mut Server) -> String {
    let before = server.log().len();
    server.signal(Signal::USR2);
    server.wait_for_log_after(before, "not replaced by ")
}

#[test]
fn what_a_start_refuses_is_found_before_the_takeover() {
    const DANGLING: &str =
        "PRAGMA foreign_keys = OFF; INSERT INTO mailbox_sides VALUES ('gone', 1, 'a', 1, NULL)";
    let (directory, other) = (Arc::new(Directory::new()), Server::start(&["--usage-db=u.sqlite"]));
    let put = |more: &str| {
        let lines = format!("port = 127.0.0.1:0\naddrid-db = ids.sqlite\n{more}\n");
        fs::write(directory.file("conf"), lines).expect("write");
    };
    put("usage-db = usage.sqlite");
    let mut command = Command::new(PROGRAM);
    command.arg("--config=conf");
    let mut server = Server::spawn(command, Arc::clone(&directory));
    let (mut client, mailbox) = with_message(&server);
    let names = sql::names(&directory);
    let mut assert_refused = |server: &mut Server, says: &str| {
        let line = refusal(server);
        assert!(line.contains(says), "{says}: {line}");
        assert_eq!(sql::names(&directory), names, "{says}");
        client.one(json!({"type": "ping", "ping": 1}));
    };

    let files = sql::open(&directory.file("relay.sqlite"));
    files.execute_batch(DANGLING).expect("SQL");
    assert_refused(&mut server, "relay.sqlite: foreign key check failed");
    files.execute_batch("DELETE FROM mailbox_sides WHERE mailbox_id = 'gone'").expect("SQL");
    drop(files);

    // As on a full disk: there is no room for what a start tries.
    process::limit(server.pid(), Resource::Fsize, Some(60 * 1024));
    assert_refused(&mut server, "relay.sqlite: the file size limit is reached");
    process::limit(server.pid(), Resource::Fsize, None);

    put(&format!("usage-db = {}", other.file("u.sqlite").display()));
    assert_refused(&mut server, "u.sqlite: another server uses it");
    put("usage-db = /proc/u.sqlite");
    assert_refused(&mut server, "the directory '/proc' takes no new files");
    put(&format!("usage-db = {}", directory.file("taken").display()));
    fs::create_dir(directory.file("taken-wal")).expect("a directory");
    let line = refusal(&mut server);
    assert!(line.contains("'-wal' file is not writable"), "{line}");

    put("usage-db = other.sqlite");
    server.replace();
    client.one(json!({"type": "ping", "ping": 1}));
    drop(client);
    assert_eq!(server.bind("app", "s").open(&mailbox).len(), 1);
}

#[test]
fn no_second_server_gets_the_files_between_a_program_and_the_next() {
    const FILES: [&str; 3] = ["relay.sqlite", "usage.sqlite", "ids.sqlite"];
    let mut server = Server::start(&["--usage-db=usage.sqlite", "--addrid-db=ids.sqlite"]);
    let mut client = server.bind("app", "s");
    let files = FILES.map(|name| File::open(server.file(name)).expect("a file"));
    let (is_over, is_free) = (AtomicBool::new(false), |file: &File| file.try_lock().is_ok());
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let until = Instant::now() + PATIENCE;
            while !is_over.load(Ordering::Relaxed) && Instant::now() < until {
                assert!(!files.iter().any(is_free), "a file without a lock");
            }
        });
        for _ in 0..3 {
            server.replace();
        }
        is_over.store(true, Ordering::Relaxed);
        watching.join().expect("always locked");
    });
    client.allocate();
    assert!(server.stop().0.success());
    assert!(files.iter().all(is_free));
}
