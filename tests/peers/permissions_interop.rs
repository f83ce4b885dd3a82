//! Proof of work with real clients: Rust's, which gives it, and the others, which cannot and must
//! let their users know.

use std::time::Instant;

use crate::common::clients::{CLIENT_PATIENCE, Client, Kind, Payload, Site};
use crate::common::real_clients::skip;
use crate::common::{Directory, Server};

const CODE: &str = "4-guitarist-revenge";

/// How the server tells in its `error`, and in its close.
const ERROR: &str = "permission required: this server demands a proof of work (hashcash)";
const CLOSE: &str = "permission denied: this server demands a proof of work (hashcash)";

/// Go's client has nothing to say when it sends its next command before it reads the close, and
/// waits for ever. Of so many, one is quick enough.
const GO_CLIENTS: usize = 24;

fn is_installed(kind: Kind) -> bool {
    if kind.program().is_none() {
        skip(&format!("the {kind:?} client"));
    }
    kind.program().is_some()
}

#[test]
fn the_rust_client_does_the_work_and_sends_a_file() {
    if !is_installed(Kind::Rust) {
        return;
    }
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
fn the_python_client_shows_its_user_why_it_may_not_bind() {
    if !is_installed(Kind::Python) {
        return;
    }
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
fn the_go_client_shows_its_user_why_it_may_not_bind() {
    if !is_installed(Kind::Go) {
        return;
    }
    let server = Server::start(&["--permission=require"]);
    let site = Site::new(server.url());
    let starts: [fn(&Site) -> Client; 2] =
        [|site| Kind::Go.send(site, None, &text()), |site| Kind::Go.receive(site, CODE)];
    for start in starts {
        let clients: Vec<Client> = (0..GO_CLIENTS).map(|_| start(&site)).collect();
        let until = Instant::now() + CLIENT_PATIENCE;
        while !clients.iter().any(|client| client.output().contains(CLOSE)) {
            assert!(Instant::now() < until, "{}", clients[0].output());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}
