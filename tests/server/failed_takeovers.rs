//! A takeover by a program that fails, or is killed: nothing acknowledged is lost.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::common::{Client, Directory, PROGRAM, Server, Signal, eventually, process, retry};
use crate::takeover::{add, put_script, start};

/// A client, and its mailbox with a message.
fn with_message(server: &Server) -> (Client, String) {
    let mut client = server.bind("app", "s");
    let mailbox = client.claim("4");
    client.open(&mailbox);
    client.one(add("p"));
    (client, mailbox)
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
