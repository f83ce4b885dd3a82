//! SIGUSR2: the program at the server's path takes over, with all connections.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::client::assert_welcomed;
use crate::common::raw::{CLOSE, CONTINUES, ENDS, PING, PONG, Raw, TEXT, TEXT_BEGINS, frame};
use crate::common::{
    Client, Directory, FREE_PORT, PATIENCE, PROGRAM, Server, Signal, copy_program, process, retry,
    sql,
};

/// The server's program in the directory of the test, so that another can take its place.
fn program(directory: &Directory) -> PathBuf {
    let path = directory.file("server");
    copy_program(&path);
    path
}

/// A server whose program can be replaced.
pub fn start(options: &[&str]) -> (Server, PathBuf) {
    let directory = Arc::new(Directory::new());
    let path = program(&directory);
    let mut command = Command::new(&path);
    command.arg(FREE_PORT).args(options);
    (Server::spawn(command, directory), path)
}

/// The same, with these lines in its file of options.
fn start_with_file(lines: &str) -> Server {
    let directory = Arc::new(Directory::new());
    put_options(&directory, lines);
    let mut command = Command::new(program(&directory));
    command.arg("--config=options");
    Server::spawn(command, directory)
}

/// Replaces the file of options, for the next program.
fn put_options(directory: &Directory, lines: &str) {
    fs::write(directory.file("options"), format!("{FREE_PORT}\n{lines}\n")).expect("write");
}

/// Puts a script at the path of the program.
pub fn put_script(path: &PathBuf, text: &str) {
    fs::remove_file(path).expect("remove");
    fs::write(path, text).expect("write");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("mode");
}

const PING_7: &[u8] = br#"{"type": "ping", "ping": 7}"#;

pub fn add(phase: &str) -> Value {
    json!({"type": "add", "phase": phase, "body": "00"})
}

#[test]
fn a_client_from_elsewhere_may_not_begin_after_a_takeover_either() {
    let (mut server, _) = start(&["--allocate-from=192.0.2.0/24"]);
    let mut inside = server.bind_from("192.0.2.1", "app", "inside");
    let mut outside = server.bind_from("198.51.100.1", "app", "outside");
    server.replace();
    assert!(outside.error(json!({"type": "allocate"})).contains("joined, not begun"));
    let nameplate = inside.allocate();
    outside.claim(&nameplate);
}

#[test]
fn sessions_go_on_where_they_were() {
    let (mut server, _) = start(&[]);
    let (mut sender, mut receiver) = (server.bind("app", "s"), server.bind("app", "r"));
    let mailbox = sender.claim("4");
    sender.open(&mailbox);
    sender.one(add("p"));
    receiver.claim("4");
    let mut unbound = server.connect();
    let pid = server.pid();
    let open_files = process::descriptors(pid);
    for _ in 0..3 {
        server.replace();
        assert_eq!(sender.one(add("q"))["phase"], "q");
    }
    assert_eq!(process::descriptors(pid), open_files);
    // What a connection may do once stays done, and nothing is replayed.
    assert_eq!(
        sender.error(json!({"type": "claim", "nameplate": "5"})),
        "only one claim per connection"
    );
    assert_eq!(
        sender.error(json!({"type": "open", "mailbox": "other"})),
        "only one open per connection"
    );
    let replayed = receiver.open(&mailbox);
    assert_eq!(replayed.len(), 4, "{replayed:?}");
    receiver.one(add("r"));
    assert_eq!(sender.recv()["phase"], "r");
    sender.release();
    receiver.release();
    assert_eq!(sender.error(json!({"type": "release"})), "only one release per connection");
    sender.close();
    server.replace();
    receiver.close();
    assert_eq!(receiver.error(json!({"type": "close"})), "only one close per connection");
    assert_eq!(sender.list(), Vec::<String>::new());
    unbound = unbound.bound("app", "later");
    assert_ne!(unbound.allocate(), "");
    assert_ne!(server.bind("app", "new").allocate(), "");
    let (status, _) = server.stop();
    assert!(status.success());
}

#[test]
fn signals_that_arrive_at_any_moment_of_a_takeover_end_nothing() {
    let (mut server, _) = start(&[]);
    let mut client = server.bind("app", "s");
    let (pid, is_over) = (server.pid(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let until = Instant::now() + PATIENCE;
            while !is_over.load(Ordering::Relaxed) && Instant::now() < until {
                process::signal(pid, Signal::HUP);
                thread::sleep(Duration::from_micros(100));
            }
        });
        for _ in 0..5 {
            server.replace();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    client.allocate();
    assert!(server.stop().0.success());
}

#[test]
fn a_frame_and_a_request_head_that_have_begun_are_read_on() {
    let (mut server, _) = start(&[]);
    let mut raw = Raw::open(server.address);
    let ping = frame(TEXT, PING_7);
    let mut head = std::net::TcpStream::connect(server.address).expect("connect");
    raw.send(&ping[..9]);
    head.write_all(b"GET / HTTP/1.1\r\nHo").expect("write");
    server.replace();
    raw.send(&ping[9..]);
    raw.frame(); // the ack
    assert!(String::from_utf8_lossy(&raw.frame().1).contains(r#""pong":7"#));
    head.write_all(b"st: x\r\n\r\n").expect("write");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut head, &mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn output_that_waits_arrives_in_order() {
    let (mut server, _) = start(&[]);
    let (mut writer, mut reader) = (server.bind("app", "w"), server.bind("app", "r"));
    writer.open("m");
    let body = "0".repeat(100_000);
    for phase in 0..100 {
        let phase = phase.to_string();
        writer.one(json!({"type": "add", "phase": phase, "body": body}));
    }
    // 10 MB are more than its socket takes.
    reader.send(json!({"type": "open", "mailbox": "m"}));
    writer.one(json!({"type": "ping", "ping": 1}));
    server.replace();
    writer.one(add("last"));
    server.replace();
    assert_eq!(reader.recv()["type"], "ack");
    for phase in 0..100 {
        assert_eq!(reader.recv()["phase"], phase.to_string());
    }
    assert_eq!(reader.recv()["phase"], "last");
}

#[test]
fn a_busy_pair_loses_and_doubles_nothing_in_twenty_takeovers() {
    const MESSAGES: usize = 200;
    let (mut server, _) = start(&[]);
    let (mut writer, mut reader) = (server.bind("app", "w"), server.bind("app", "r"));
    writer.open("m");
    reader.open("m");
    let writing = thread::spawn(move || {
        for phase in 0..MESSAGES {
            writer.send(add(&phase.to_string()));
            thread::sleep(Duration::from_millis(20));
        }
        for phase in 0..MESSAGES {
            assert_eq!(writer.recv()["type"], "ack");
            assert_eq!(writer.recv()["phase"], phase.to_string());
        }
    });
    let reading = thread::spawn(move || {
        for phase in 0..MESSAGES {
            assert_eq!(reader.recv()["phase"], phase.to_string());
        }
    });
    for _ in 0..20 {
        server.replace();
    }
    writing.join().expect("the writer");
    reading.join().expect("the reader");
}

#[test]
fn thousands_of_idle_connections_stay() {
    const CONNECTIONS: usize = 2_000;
    process::raise_own_descriptor_limit();
    let (mut server, _) = start(&[]);
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| server.connect()).collect();
    let pid = server.pid();
    server.replace();
    let (open_files, memory) = (process::descriptors(pid), process::resident_bytes(pid));
    for _ in 0..5 {
        server.replace();
    }
    assert_eq!(process::descriptors(pid), open_files);
    let grown = process::resident_bytes(pid).saturating_sub(memory);
    assert!(grown < memory / 4, "{memory} bytes, and {grown} more");
    for client in &mut clients {
        client.one(json!({"type": "ping", "ping": 1}));
    }
}

#[test]
fn a_message_in_fragments_is_read_on() {
    let (mut server, _) = start(&["--limit-frame-bytes=10"]);
    let pieces: Vec<&[u8]> = PING_7.chunks(10).collect();
    let mut connections: Vec<Raw> = (0..=pieces.len()).map(|_| Raw::open(server.address)).collect();
    let fragment = |index| frame(if index == 0 { TEXT_BEGINS } else { CONTINUES }, pieces[index]);
    for (sent, raw) in connections.iter_mut().enumerate() {
        (0..sent).for_each(|index| raw.send(&fragment(index)));
        raw.send(&frame(PING, b""));
        assert_eq!(raw.frame().0, PONG);
        raw.send(&frame(PING, b"between")[..4]);
    }
    let mut empty = Raw::open(server.address);
    empty.send(&[frame(TEXT_BEGINS, b""), frame(PING, b"")].concat());
    assert_eq!(empty.frame().0, PONG);
    server.replace();
    server.replace();
    for (sent, raw) in connections.iter_mut().enumerate() {
        raw.send(&frame(PING, b"between")[4..]);
        assert_eq!(raw.frame(), (PONG, b"between".to_vec()));
        (sent..pieces.len()).for_each(|index| raw.send(&fragment(index)));
        raw.send(&frame(ENDS, b""));
    }
    empty.send(&frame(ENDS, b"{}"));
    assert_eq!(empty.json()["error"], "missing 'type'");
    for raw in &mut connections {
        assert_eq!(raw.json()["type"], "ack");
        assert_eq!(raw.json()["pong"], 7);
    }
}

#[test]
fn a_message_that_is_thrown_away_has_a_second_to_end() {
    let (mut server, _) = start(&["--limit-message-bytes=1000"]);
    let (mut ends, mut hangs) = (Raw::open(server.address), Raw::open(server.address));
    let ping = frame(TEXT, PING_7);
    for raw in [&mut ends, &mut hangs] {
        raw.send(&frame(TEXT_BEGINS, &[b'x'; 1001]));
    }
    let mut idle = server.connect();
    idle.one(json!({"type": "ping", "ping": 1}));
    let before = server.log().len();
    server.signal(Signal::USR2);
    ends.send(&frame(ENDS, b""));
    assert_eq!(ends.json()["type"], "ack");
    assert_eq!(ends.json()["error"], "message is too long: at most 1000 bytes");
    let (opcode, payload) = hangs.frame();
    assert_eq!((opcode, &payload[..2]), (CLOSE, &1001_u16.to_be_bytes()[..]));
    server.wait_for_log_after(before, "took over ");
    idle.one(json!({"type": "ping", "ping": 1}));
    ends.send(&ping);
    assert_eq!(ends.json()["type"], "ack");
    assert_eq!(ends.json()["pong"], 7);
}

#[test]
fn a_drain_goes_before_a_takeover() {
    let (mut server, _) = start(&["--limit-message-bytes=1000"]);
    let (mut hangs, mut client) = (Raw::open(server.address), server.bind("app", "s"));
    hangs.send(&frame(TEXT_BEGINS, &[b'x'; 1001])); // which is waited for
    client.claim("4");
    server.signal(Signal::USR2);
    server.signal(Signal::QUIT);
    let line = server.wait_for_log("not replaced by ");
    assert!(line.contains("the server drains"), "{line}");
    server.wait_for_log("draining: 1 mailboxes");
    client.one(json!({"type": "ping", "ping": 1}));
}

#[test]
fn a_link_through_which_path_leads_to_the_program_may_lead_to_another() {
    let (directory, first) = (Arc::new(Directory::new()), Directory::new());
    let link = directory.file("relay");
    symlink(program(&first), &link).expect("a link");
    let mut command = Command::new("relay");
    command.arg(FREE_PORT).env("PATH", directory.path());
    let mut server = Server::spawn(command, Arc::clone(&directory));
    let mut client = server.bind("app", "s");
    for second in [Directory::new(), Directory::new()] {
        fs::remove_file(&link).expect("remove");
        symlink(program(&second), &link).expect("a link");
        server.replace();
        let runs = fs::read_link(format!("/proc/{}/exe", server.pid())).expect("a program");
        assert_eq!(runs, fs::canonicalize(&link).expect("a path"));
        client.one(json!({"type": "ping", "ping": 1}));
    }
}

#[test]
fn an_address_that_somebody_else_has_is_found_before_the_takeover() {
    let mut server = start_with_file("");
    let mut client = server.bind("app", "s");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address");
    put_options(&server.directory, &format!("port = {address}\nadmin = unix:admin"));
    let before = server.log().len();
    server.signal(Signal::USR2);
    let line = server.wait_for_log_after(before, "not replaced by ");
    assert!(line.contains(&format!("cannot listen on {address}: ")), "{line}");
    client.claim("4");
    drop(taken);
    server.replace();
    client.one(json!({"type": "ping", "ping": 1}));
    TcpStream::connect(address).expect("it is listened on");

    // Where all addresses are wanted instead of one, the old listener goes first.
    let port = server.address.port();
    fs::write(server.file("options"), format!("port = {port}\n")).expect("write");
    server.replace();
    client.one(json!({"type": "ping", "ping": 1}));
    TcpStream::connect(("::1", port)).expect("it is listened on");
}

#[test]
fn a_unix_socket_that_somebody_else_has_is_found_before_the_takeover() {
    let mut server = start_with_file("port = unix:relay.sock");
    let directory = Arc::clone(&server.directory);
    let put = |lines: &str| put_options(&directory, lines);
    let mut client = server.bind("app", "s");
    let taken = UnixListener::bind(directory.file("a b")).expect("a socket");
    fs::write(directory.file("text"), "").expect("write");
    for path in ["a b", "text", "missing/socket"] {
        put(&format!("port = unix:relay.sock\nport = unix:free.sock\nport = unix:{path}"));
        let before = server.log().len();
        server.signal(Signal::USR2);
        let line = server.wait_for_log_after(before, "not replaced by ");
        assert!(line.contains(&format!("cannot listen on unix:{path}: ")), "{line}");
        assert!(!directory.file("free.sock").exists());
        client.one(json!({"type": "ping", "ping": 1}));
    }
    // What nobody listens on any more is free, and its own socket is under any name.
    drop(taken);
    for (options, path) in [
        ("port = unix:relay.sock\nport = unix:a b", "a b"),
        ("port = unix:./relay.sock", "relay.sock"),
    ] {
        put(options);
        server.replace();
        client.one(json!({"type": "ping", "ping": 1}));
        assert_welcomed(UnixStream::connect(directory.file(path)).expect("it is listened on"));
    }
}

#[test]
fn what_is_not_on_disk_is_not_handed_over_and_it_can_be_switched_off() {
    for (option, reason) in [
        ("--channel-db=:memory:", "without a channel database on disk"),
        ("--takeover=no", "--takeover=no"),
    ] {
        let (mut server, _) = start(&[option]);
        let mut client = server.bind("app", "s");
        server.signal(Signal::USR2);
        let line = server.wait_for_log("SIGUSR2 is ignored");
        assert!(line.contains(reason), "{line}");
        client.claim("4");
    }
    let (mut server, _) = start(&[]);
    fs::rename(server.file("relay.sqlite"), server.file("aside")).expect("rename");
    server.bind("app", "s").send(json!({"type": "allocate"}));
    server.wait_for_log("storage failed");
    server.signal(Signal::USR2);
    let line = server.wait_for_log("SIGUSR2 is ignored");
    assert!(line.contains("storage unavailable: channel database: the file is missing"), "{line}");
}

#[test]
fn nobody_else_can_hand_anything_over() {
    let directory = Arc::new(Directory::new());
    let mut command = Command::new(PROGRAM);
    command.arg(FREE_PORT).env("WORMHOLE_HANDOVER", "1 1");
    let server = Server::spawn(command, directory);
    assert!(server.log().iter().all(|line| !line.contains("took over")), "{:#?}", server.log());
    server.bind("app", "s").claim("4");
}

#[test]
fn unix_sockets_go_over_and_their_file_is_removed_at_the_end() {
    let (mut server, _) = start(&["--port=unix:relay.sock:mode=600"]);
    let path = server.file("relay.sock");
    let connect = || UnixStream::connect(&path).expect("connect");
    let (mut client, _) = tungstenite::client("ws://localhost/v1", connect()).expect("handshake");
    client.read().expect("a welcome");
    server.replace();
    client.send(r#"{"type": "ping", "ping": 7}"#.into()).expect("send");
    client.read().expect("an ack");
    assert!(client.read().expect("a pong").into_text().expect("text").contains(r#""pong":7"#));
    assert_welcomed(connect());
    drop(client);
    let (status, _) = server.stop();
    assert!(status.success());
    assert!(!path.exists());
}

#[test]
fn a_unix_socket_gets_the_mode_of_its_option_and_goes_with_it() {
    let mut server = start_with_file("port = unix:relay.sock:mode=660");
    put_options(&server.directory, "port = unix:relay.sock:mode=600");
    server.replace();
    let socket = fs::metadata(server.file("relay.sock")).expect("a socket");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    put_options(&server.directory, "");
    server.replace();
    assert!(!server.file("relay.sock").exists());
}

#[test]
fn connections_still_count_for_their_addresses() {
    let (mut server, _) = start(&["--limit-address-connections=2"]);
    let from = |server: &Server| server.connect_from(Some("192.0.2.1"));
    let first = from(&server).expect("the first");
    let _second = from(&server).expect("the second");
    server.replace();
    assert_eq!(from(&server).err().expect("a refusal").status, 429);
    drop(first);
    retry(|| from(&server).map_err(|refused| format!("{refused:?}")));
}

/// The error of a command that the limits of its address refuse.
fn refused(client: &mut Client, command: Value) -> String {
    let reply = client.one(command);
    reply["error"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
}

#[test]
fn what_an_address_has_used_of_its_rates_and_nameplates_stays_used() {
    let (mut server, _) = start(&[
        "--limit-address-allocate-burst=1",
        "--limit-address-allocate-rate=0.001",
        "--limit-address-nameplates=2",
    ]);
    let mut first = server.bind_from("2001:db8:0:1::1", "app", "first");
    let nameplate = first.allocate();
    let mailbox = first.claim(&nameplate);
    first.open(&mailbox);
    for _ in 0..2 {
        server.replace();
        let mut second = server.bind_from("2001:db8:0:1::2", "app", "second");
        let error = refused(&mut second, json!({"type": "allocate"}));
        assert!(error.contains("too many 'allocate' from your address"), "{error}");
    }
    let mut third = server.bind_from("2001:db8:0:1::3", "app", "third");
    third.claim("1001");
    let mut fourth = server.bind_from("2001:db8:0:1::4", "app", "fourth");
    let error = refused(&mut fourth, json!({"type": "claim", "nameplate": "1002"}));
    assert!(error.contains("too many nameplates"), "{error}");
    // One that ends counts no more.
    first.close();
    fourth.claim("1002");
}

#[test]
fn a_join_before_a_takeover_that_keeps_a_side_out_after_it_is_charged() {
    let (mut server, _) = start(&["--limit-address-join-burst=1", "--limit-address-join-rate=1"]);
    let claim = |server: &Server, ip, side, nameplate| {
        let mut client = server.bind_from(ip, "app", side);
        client.one(json!({"type": "claim", "nameplate": nameplate}))
    };
    for nameplate in ["1", "2"] {
        claim(&server, "192.0.2.1", "sender", nameplate);
    }
    assert_eq!(claim(&server, "192.0.2.2", "sniper", "1")["type"], "claimed");
    server.replace();
    assert_eq!(claim(&server, "192.0.2.3", "receiver", "1")["error"], "crowded");
    server.replace();
    let sniped = claim(&server, "192.0.2.2", "sniper", "2");
    assert!(sniped["error"].as_str().expect("a text").contains("too many 'claim'"), "{sniped}");
    assert_eq!(claim(&server, "192.0.2.3", "receiver", "2")["type"], "claimed");
}

#[test]
fn an_attack_goes_on() {
    let (mut server, _) = start(&[
        "--permission=auto",
        "--attack-events=3",
        "--attack-half-life=1000",
        "--limit-address-allocate-burst=1",
        "--limit-address-allocate-rate=0.001",
    ]);
    let addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
    for ip in addresses {
        server.bind_from(ip, "app", "side").allocate();
    }
    let mut greedy = addresses.map(|ip| server.bind_from(ip, "app", "side"));
    greedy.iter_mut().for_each(|client| client.send(json!({"type": "allocate"})));
    server.wait_for_log("under attack");
    for _ in 0..2 {
        server.replace();
        let welcome = Client::connect(server.address).recv();
        assert!(welcome["welcome"]["permission-required"].is_object(), "{welcome}");
    }
    assert_eq!(server.count_log("under attack"), 1);
}

#[test]
fn address_ids_go_on_in_their_generation() {
    let (mut server, _) = start(&["--addrid-db=a.sqlite", "--log-level=debug"]);
    drop(server.connect_from(Some("192.0.2.1")));
    server.wait_for_log("addr-1-1");
    for number in 2..=3 {
        server.replace();
        drop(server.connect_from(Some("192.0.2.1")));
        drop(server.connect_from(Some(&format!("192.0.2.{number}"))));
        server.wait_for_log(&format!("addr-1-{number}"));
    }
    let rows = "SELECT generation, counter, address FROM address_ids ORDER BY counter";
    let expected = json!([[1, 1, "192.0.2.1"], [1, 2, "192.0.2.2"], [1, 3, "192.0.2.3"]]);
    sql::wait_for(&server.file("a.sqlite"), rows, &expected);
}

#[test]
fn an_outsider_stays_one() {
    let (mut server, _) = start(&["--allocate-from=192.0.2.0/24"]);
    let mut client = server.bind("app", "s");
    server.replace();
    assert!(client.error(json!({"type": "allocate"})).contains("not begun"));
}

#[test]
fn live_connections_are_in_the_table_of_connections() {
    let (mut server, _) = start(&["--track-connections"]);
    let _client = server.bind("app", "s");
    let sides = "SELECT side FROM connections";
    sql::wait_for(&server.file("relay.sqlite"), sides, &json!([["s"]]));
    server.replace();
    sql::wait_for(&server.file("relay.sqlite"), sides, &json!([["s"]]));
}

#[test]
fn the_last_activity_of_a_mailbox_is_known_after_a_takeover() {
    let (mut server, _) = start(&[]);
    let mut client = server.bind("app", "s");
    client.open("m");
    thread::sleep(Duration::from_millis(50)); // the row lags behind from now on
    client.one(add("p"));
    // The two are read from different clocks.
    let is_written = "SELECT ABS(updated - server_rx) < 0.025 FROM mailboxes, messages";
    assert_eq!(sql::rows(&server.file("relay.sqlite"), is_written), json!([[0]]));
    server.replace();
    assert_eq!(sql::rows(&server.file("relay.sqlite"), is_written), json!([[1]]));
}

#[test]
fn a_subscribed_mailbox_does_not_expire_at_a_takeover() {
    let (mut server, _) = start(&["--expire-after=0.1", "--expire-check=1000"]);
    let mut client = server.bind("app", "s");
    let mailbox = client.claim("4");
    client.open(&mailbox);
    thread::sleep(Duration::from_millis(200));
    server.replace();
    assert_eq!(client.one(add("p"))["phase"], "p");
}
