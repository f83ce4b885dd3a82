//! Real clients that the server refuses: those without a proof of work (Rust's has one), those that
//! come while it drains, and those from networks with a notice. Their users are told why.

use std::sync::Arc;

use crate::clients::{self, Kind, Payload, Site};
use crate::common::{Directory, Server, Signal, eventually};
use serde_json::json;

/// The message of a draining server.
const DRAINING: &str = "Moving to a new machine, try again at noon.";

const CODE: &str = "4-guitarist-revenge";

/// How the server tells in its `error`, and in its close.
const ERROR: &str = "permission required: this server demands a proof of work (hashcash)";
const CLOSE: &str = "permission denied: this server demands a proof of work (hashcash)";

/// Go's client has nothing to say when it sends its next command before it reads the close, and
/// waits for ever. Of so many, one is quick enough.
const GO_CLIENTS: usize = 24;

#[test]
#[ignore = "needs the Rust client"]
fn the_rust_client_does_the_work_and_sends_a_file() {
    let home = Directory::new();
    let file = home.file("payload.bin");
    std::fs::write(&file, "what was worth the work").expect("file");
    for mode in ["--permission=require", "--permission=offer"] {
        let server = Server::start(&[mode, "--hashcash-bits=12", "--log-level=debug"]);
        let site = Site::new(server.url());
        let mut sender = Kind::Rust.send(&site, None, &Payload::File(file.clone()));
        let mut receiver = Kind::Rust.receive(&site, &sender.code());
        receiver.succeed();
        sender.succeed();
        assert_eq!(receiver.received(), std::fs::read(&file).expect("file"));
        assert!(!server.log().iter().any(|line| line.contains("NotPermitted")), "{mode}");
    }
}

fn text() -> Payload {
    Payload::Text("hello".to_owned())
}

#[test]
#[ignore = "needs the Python client"]
fn the_python_client_shows_its_user_why_it_may_not_bind() {
    let server = Server::start(&["--permission=require"]);
    let site = Site::new(server.url());
    for mut client in [
        Kind::Python.send(&site, None, &text()),
        Kind::Python.send(&site, Some(CODE), &text()),
        Kind::Python.receive(&site, CODE),
    ] {
        assert!(!client.wait().success());
        assert!(client.output().contains(&format!("ERROR: {ERROR}")), "{}", client.output());
    }
}

#[test]
#[ignore = "needs the Go client"]
fn the_go_client_shows_its_user_why_it_may_not_bind() {
    let server = Server::start(&["--permission=require"]);
    let site = Site::new(server.url());
    let starts: [fn(&Site) -> clients::Client; 2] =
        [|site| Kind::Go.send(site, None, &text()), |site| Kind::Go.receive(site, CODE)];
    for start in starts {
        let clients: Vec<clients::Client> = (0..GO_CLIENTS).map(|_| start(&site)).collect();
        eventually("a client shows why", || {
            clients.iter().any(|client| client.output().contains(CLOSE))
        });
    }
}

#[test]
#[ignore = "needs the Python, Go and Rust clients"]
fn clients_show_the_message_of_a_draining_server_to_their_user() {
    let mut server = Server::start(&["--drain-message", DRAINING]);
    let site = Site::new(server.url());
    let file = server.file("relay.sqlite");
    let _bound = server.bind("app", "s");
    server.signal(Signal::QUIT);
    server.wait_for_log("draining: ");
    for kind in Kind::ALL {
        let mut client = kind.send(&site, None, &Payload::File(file.clone()));
        assert!(!client.wait().success(), "{kind:?}: {}", client.output());
        // Go's forgets the text in its message, whatever the error is.
        let shown = if kind == Kind::Go { "server error" } else { DRAINING };
        assert!(client.output().contains(shown), "{kind:?}: {}", client.output());
    }
}

#[test]
#[ignore = "needs the Python, Go and Rust clients"]
fn clients_stop_at_a_notice_and_pythons_shows_it_to_its_user() {
    let text = "Please stop polling, write to admin@example.org";
    let notices = json!({"127.0.0.0/8": text}).to_string();
    let directory = Directory::new();
    let file = directory.file("notices.json");
    std::fs::write(&file, notices).expect("write");
    let server = Server::start_in(Arc::new(directory), &["--notices-file=notices.json"]);
    let site = Site::new(server.url());
    for kind in Kind::ALL {
        let mut client = kind.send(&site, None, &Payload::File(file.clone()));
        assert!(!client.wait().success(), "{kind:?}: {}", client.output());
        // Go's forgets the text in its message, and Rust's does not look at a welcome's error.
        let shown = match kind {
            Kind::Python => text,
            Kind::Go => "server error",
            Kind::Rust => "Connection closed",
        };
        assert!(client.output().contains(shown), "{kind:?}: {}", client.output());
    }
}
