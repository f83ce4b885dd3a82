//! A disk that is full of what the server itself has stored; the file size limit stands for it.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use crate::common::{Client, Directory, FREE_PORT, PROGRAM, Server, eventually, sql};
use serde_json::json;

const BEGINS: &str = "storage failed";
const ENDS: &str = "storage works again";

/// A server whose files may have 2 MB, and which forgets soon.
fn start(directory: Arc<Directory>) -> Server {
    let mut command = Command::new("sh");
    // In units of 512 bytes.
    command.args(["-c", "ulimit -f 4000; exec \"$@\"", "sh", PROGRAM, FREE_PORT]);
    command.args(["--expire-after=3", "--expire-check=1"]);
    command.current_dir(directory.path());
    Server::spawn(command, directory)
}

/// Whether a message of that many bytes is stored; if not, the connection is closed.
fn adds(client: &mut Client, bytes: usize) -> bool {
    client.send(json!({"type": "add", "phase": "p", "body": "b".repeat(bytes)}));
    loop {
        match client.socket.read() {
            Ok(tungstenite::Message::Text(text)) => {
                assert!(!text.contains("\"error\""), "{text:.200}");
                if text.contains("\"message\"") {
                    return true;
                }
            }
            Ok(tungstenite::Message::Close(_)) | Err(_) => return false,
            Ok(_) => {}
        }
    }
}

#[test]
fn what_has_filled_the_disk_expires_and_the_storage_works_again() {
    let mut server = start(Arc::new(Directory::new()));
    let mut client = server.bind("app", "a");
    client.open("box");
    assert!((0..30).any(|_| !adds(&mut client, 100_000)), "3 MB were stored");
    assert!(server.wait_for_log(BEGINS).contains("the file size limit is reached"));
    server.wait_for_log(ENDS);
    // A close needs no more room, and a start neither.
    let directory = server.kill();
    let server = start(directory);
    let messages = "SELECT count(*) FROM messages";
    let path = server.file("relay.sqlite");
    eventually("the mailbox expires", || sql::rows(&path, messages) == json!([[0]]));
    let mut client = server.bind("app", "a");
    client.open("box");
    assert!((0..5).all(|_| adds(&mut client, 100_000)));
    assert!(server.stop().0.success());
}

#[test]
fn a_message_that_never_fits_keeps_others_off_for_a_while_only() {
    let mut server = start(Arc::new(Directory::new()));
    let mut client = server.bind("app", "a");
    client.open("box");
    assert!(!adds(&mut client, 2_200_000));
    server.wait_for_log(BEGINS);
    server.wait_for_log(ENDS);
    let mut client = server.bind("app", "a");
    client.open("box");
    assert!(adds(&mut client, 1_000));
}

#[test]
fn the_log_of_a_large_batch_is_begun_anew_for_the_next_however_long_that_is() {
    let server = Server::start(&[]);
    let mut client = server.bind("app", "a");
    client.open("box");
    for bytes in [2_000_000, 2_000_000, 2_100_000, 2_200_000] {
        assert!(adds(&mut client, bytes));
    }
    let log = fs::metadata(server.file("relay.sqlite-wal")).expect("a log").len();
    assert!(log < 3_000_000, "{log} bytes");
}
