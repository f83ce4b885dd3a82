//! Real clients that the server refuses: those without a proof of work (Rust's has one), those that
//! come while it drains, those from networks with a notice, and those that meet a limit. What their
//! users see is in the manual (manual: clients 1).

use std::sync::Arc;
use std::time::Duration;

use crate::clients::{self, Kind, Payload, Site};
use crate::common::{Directory, Server, Signal, eventually, sql};
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
#[ignore = "needs the Python and Rust clients"]
fn clients_show_the_message_of_a_draining_server_to_their_user() {
    let mut server = Server::start(&["--drain-message", DRAINING]);
    let site = Site::new(server.url());
    let file = server.file("relay.sqlite");
    server.bind("app", "s").claim("4");
    server.signal(Signal::QUIT);
    server.wait_for_log("draining: ");
    // Go's waits after a refused `allocate`, whatever the error is.
    for kind in [Kind::Python, Kind::Rust] {
        assert_shows(kind.send(&site, None, &Payload::File(file.clone())), DRAINING);
        assert_shows(kind.receive(&site, CODE), DRAINING);
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
    let send = |kind: Kind| kind.send(&site, None, &Payload::File(file.clone()));
    let receive = |kind: Kind| kind.receive(&site, CODE);
    let clients =
        Kind::ALL.into_iter().flat_map(|kind| [(kind, send(kind)), (kind, receive(kind))]);
    for (kind, mut client) in clients {
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

/// The app of the file-sending clients.
const APP: &str = "lothar.com/wormhole/text-or-file-xfer";

/// Loopback is not exempt, and an address has one of each in a quarter of an hour.
const STRICT: &[&str] = &[
    "--limit-exempt=192.0.2.1",
    "--limit-address-allocate-burst=1",
    "--limit-address-allocate-rate=0.001",
    "--limit-address-claim-burst=1",
    "--limit-address-claim-rate=0.001",
];

/// The clients that show the text of an `error`. Go's waits for an answer of another type.
const TELLING: [Kind; 2] = [Kind::Python, Kind::Rust];

#[track_caller]
fn assert_shows(mut client: clients::Client, text: &str) {
    let kind = client.kind;
    assert!(!client.wait().success(), "{kind:?}: {}", client.output());
    assert!(client.output().contains(text), "{kind:?}: {}", client.output());
}

#[test]
#[ignore = "needs the Python and Rust clients"]
fn clients_show_the_limit_on_their_address_to_their_user() {
    let server = Server::start(STRICT);
    let site = Site::new(server.url());
    let file = server.file("relay.sqlite");
    let mut other = server.bind(APP, "other");
    other.allocate();
    other.claim("9");
    for kind in TELLING {
        let sender = kind.send(&site, None, &Payload::File(file.clone()));
        assert_shows(sender, "too many 'allocate' from your address, try again in ");
        let receiver = kind.receive(&site, CODE);
        assert_shows(receiver, "too many 'claim' from your address, try again in ");
    }
}

#[test]
#[ignore = "needs the Python and Rust clients"]
fn clients_show_that_nothing_more_can_be_stored_to_their_user() {
    let server = Server::start(&["--limit-stored-bytes=1"]);
    let site = Site::new(server.url());
    let file = server.file("relay.sqlite");
    server.bind(APP, "other").claim("9");
    for kind in TELLING {
        let sender = kind.send(&site, None, &Payload::File(file.clone()));
        assert_shows(sender, "server is full, try again later");
        assert_shows(kind.receive(&site, CODE), "server is full, try again later");
    }
}

#[test]
#[ignore = "needs the Python and Rust clients"]
fn both_clients_of_a_full_mailbox_show_it_to_their_users() {
    let server = Server::start(&["--limit-mailbox-messages=2"]);
    let site = Site::new(server.url());
    let file = server.file("relay.sqlite");
    for kind in TELLING {
        let sender = kind.send(&site, None, &Payload::File(file.clone()));
        let receiver = kind.receive(&site, &sender.code());
        let text = "mailbox is full: at most 2 messages";
        assert_shows(receiver, text);
        assert_shows(sender, text);
    }
}

#[test]
#[ignore = "needs the Python and Rust clients"]
fn a_third_client_shows_that_the_code_is_in_use() {
    let server = Server::start(&[]);
    let site = Site::new(server.url());
    for side in ["s1", "s2"] {
        server.bind(APP, side).claim("4");
    }
    for kind in TELLING {
        assert_shows(kind.receive(&site, CODE), "crowded");
    }
}

#[test]
#[ignore = "needs the Python, Go and Rust clients"]
fn clients_show_why_they_were_not_let_in() {
    for (options, path, status) in [
        (&["--limit-exempt=192.0.2.1", "--limit-address-connections=1"][..], "/v1", "429"),
        (&["--limit-connections=1"], "/v1", "503"),
        (&[], "/v2", "404"),
    ] {
        let server = Server::start(options);
        let site = Site::new(format!("ws://{}{path}", server.address));
        let file = server.file("relay.sqlite");
        let _first = server.connect();
        for kind in Kind::ALL {
            assert_shows(kind.send(&site, None, &Payload::File(file.clone())), status);
            assert_shows(kind.receive(&site, CODE), status);
        }
    }
}

#[test]
#[ignore = "needs the Python and Go clients"]
fn a_text_that_is_too_long_ends_its_sender() {
    let server = Server::start(&["--limit-message-bytes=5000"]);
    let site = Site::new(server.url());
    for kind in Kind::texting() {
        let sender = kind.send(&site, None, &Payload::Text("x".repeat(8_000)));
        let _receiver = kind.receive(&site, &sender.code());
        assert_shows(
            sender,
            match kind {
                Kind::Go => "got ack for different message",
                _ => "message is too long: at most 5000 bytes",
            },
        );
    }
}

#[test]
#[ignore = "needs the Python client"]
fn the_python_client_ends_once_the_storage_works_that_failed_in_its_exchange() {
    let mut server = Server::start(&["--log-level=debug"]);
    let site = Site::new(server.url());
    let sender = Kind::Python.send(&site, None, &text());
    let code = sender.code();
    let other = sql::lock(&server.file("relay.sqlite"));
    let receiver = Kind::Python.receive(&site, &code);
    server.wait_for_log("storage failed");
    let connected = "connected from ";
    let before = server.count_log(connected);
    eventually("it connects again", || server.count_log(connected) > before);
    // It wants to leave before it shows the error, and cannot yet.
    std::thread::sleep(Duration::from_secs(1));
    drop(other);
    assert_shows(receiver, "The server's storage is unavailable, please try again later.");
}
