//! What was acknowledged is there after a kill, and what is not stored is not acknowledged: the
//! server is killed in the middle of traffic, and its database is locked under it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::sql::{self, CHANNEL_V1};
use crate::common::{Client, Directory, FREE_PORT, PATIENCE, PROGRAM, Running, Server, eventually};
use rusqlite::Connection;
use serde_json::{Value, json};
use tungstenite::Message;

const KILLS: u64 = 20;
const KILLS_MAX: u64 = 10 * KILLS;
const THREADS: usize = 4;

/// What clients have been told, over all rounds.
#[derive(Default)]
struct Acknowledged {
    /// Nameplate and side by `claimed`, with the mailbox.
    claims: BTreeMap<(String, String), String>,
    /// Mailbox and phase of each echo.
    messages: BTreeSet<(String, String)>,
    /// Mailbox and side of each `closed`, where the other side still has it open.
    closes: BTreeSet<(String, String)>,
    /// Mailboxes that the last side has closed.
    ended: BTreeSet<String>,
}

/// A client of a server that may be killed at any time; then everything gives `None`.
struct Mortal(tungstenite::WebSocket<TcpStream>);

impl Mortal {
    fn bind(address: SocketAddr, side: &str) -> Option<Mortal> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let (socket, _) = tungstenite::client(format!("ws://{address}/v1"), stream).ok()?;
        let mut client = Mortal(socket);
        client.send(json!({"type": "bind", "appid": "app", "side": side}))?;
        Some(client)
    }

    fn send(&mut self, command: Value) -> Option<()> {
        self.0.send(Message::text(command.to_string())).ok()
    }

    /// The next message of that type.
    fn await_type(&mut self, wanted: &str) -> Option<Value> {
        loop {
            let Ok(Message::Text(text)) = self.0.read() else { return None };
            let message: Value = serde_json::from_str(&text).expect("JSON");
            assert_ne!(message["type"], "error", "{message}");
            if message["type"] == wanted {
                return Some(message);
            }
        }
    }

    fn ask(&mut self, command: Value, answer: &str) -> Option<Value> {
        self.send(command)?;
        self.await_type(answer)
    }
}

/// One session after another until the server dies.
fn traffic(address: SocketAddr, name: &str, told: &Mutex<Acknowledged>) {
    for number in 0.. {
        if session(address, &format!("{name}-{number}"), number, told).is_none() {
            return;
        }
    }
}

fn session(address: SocketAddr, name: &str, number: u32, told: &Mutex<Acknowledged>) -> Option<()> {
    let sides = [format!("{name}-a"), format!("{name}-b")];
    let mut first = Mortal::bind(address, &sides[0])?;
    let allocated = first.ask(json!({"type": "allocate"}), "allocated")?;
    let nameplate = allocated["nameplate"].as_str().expect("a nameplate").to_owned();
    let mut clients = [first, Mortal::bind(address, &sides[1])?];
    let mut mailbox = String::new();
    for (client, side) in clients.iter_mut().zip(&sides) {
        let claimed = client.ask(json!({"type": "claim", "nameplate": nameplate}), "claimed")?;
        mailbox = claimed["mailbox"].as_str().expect("a mailbox").to_owned();
        let key = (nameplate.clone(), side.clone());
        told.lock().expect("told").claims.insert(key, mailbox.clone());
        client.send(json!({"type": "open", "mailbox": mailbox}))?;
    }
    for phase in 0..3 {
        let phase = phase.to_string();
        clients[0].ask(json!({"type": "add", "phase": phase, "body": "b0d1"}), "message")?;
        told.lock().expect("told").messages.insert((mailbox.clone(), phase));
    }
    if number.is_multiple_of(3) {
        return Some(()); // left as it is, for all the kills to come
    }
    let close = json!({"type": "close", "mood": "happy"});
    clients[0].ask(close.clone(), "closed")?;
    told.lock().expect("told").closes.insert((mailbox.clone(), sides[0].clone()));
    if number % 3 == 1 {
        return Some(());
    }
    // From here on it may be gone, acknowledged or not.
    {
        let mut told = told.lock().expect("told");
        told.claims.retain(|_, it| *it != mailbox);
        told.messages.retain(|(it, _)| *it != mailbox);
        told.closes.retain(|(it, _)| *it != mailbox);
    }
    clients[1].ask(close, "closed")?;
    told.lock().expect("told").ended.insert(mailbox);
    Some(())
}

/// Pairs of texts in a file.
fn pairs(file: &Connection, sql: &str) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let rows = sql::query(file, sql);
    rows.as_array().expect("rows").iter().map(|row| (text(&row[0]), text(&row[1]))).collect()
}

fn assert_all_there(path: &Path, told: &Acknowledged) {
    let file = sql::open(path);
    let claims = pairs(
        &file,
        "SELECT name || ' ' || side, mailbox_id FROM nameplates JOIN nameplate_sides \
         ON nameplates.id = nameplates_id WHERE claimed",
    );
    for ((nameplate, side), mailbox) in &told.claims {
        let claim = (format!("{nameplate} {side}"), mailbox.clone());
        assert!(claims.contains(&claim), "claim {claim:?} is lost");
    }
    let messages = pairs(&file, "SELECT mailbox_id, phase FROM messages");
    let lost: Vec<_> = told.messages.difference(&messages).collect();
    assert!(lost.is_empty(), "messages {lost:?} are lost");
    let closes = pairs(
        &file,
        "SELECT mailbox_id, side FROM mailbox_sides WHERE NOT opened AND mood = 'happy'",
    );
    let lost: Vec<_> = told.closes.difference(&closes).collect();
    assert!(lost.is_empty(), "closes {lost:?} are lost");
    let mailboxes = pairs(&file, "SELECT id, '' FROM mailboxes");
    let risen: Vec<_> = told
        .ended
        .iter()
        .filter(|it| mailboxes.contains(&((*it).clone(), String::new())))
        .collect();
    assert!(risen.is_empty(), "mailboxes {risen:?} are back");
}

/// Whether so much was acknowledged that it shows something.
fn has_enough(told: &Acknowledged) -> bool {
    let counts = [told.claims.len(), told.messages.len(), told.closes.len(), told.ended.len()];
    counts.iter().all(|count| *count > 20)
}

#[test]
fn everything_acknowledged_survives_being_killed_again_and_again() {
    let told = Mutex::new(Acknowledged::default());
    let mut directory = Arc::new(Directory::new());
    // A slow machine needs more of them for as much to happen.
    for round in 0..KILLS_MAX {
        let server = Server::start_in(directory, &[]);
        assert_all_there(&server.file("relay.sqlite"), &told.lock().expect("told"));
        if round >= KILLS && has_enough(&told.lock().expect("told")) {
            directory = server.kill();
            break;
        }
        let address = server.address;
        directory = std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let told = &told;
                scope.spawn(move || traffic(address, &format!("{round}-{thread}"), told));
            }
            let instant = 30 + 9 * (round % KILLS); // any will do
            std::thread::sleep(Duration::from_millis(instant));
            server.kill()
        });
    }
    let server = Server::start_in(directory, &[]);
    let told = told.into_inner().expect("told");
    assert_all_there(&server.file("relay.sqlite"), &told);
    assert!(has_enough(&told), "too little happened");
    // And what is in the file is what clients get.
    for ((nameplate, side), mailbox) in told.claims.iter().take(50) {
        let mut client = server.bind("app", side);
        assert_eq!(client.claim(nameplate), *mailbox);
        let replayed = client.open(mailbox);
        let of_mailbox = |(it, _): &&(String, String)| it == mailbox;
        assert!(replayed.len() >= told.messages.iter().filter(of_mailbox).count());
    }
}

#[test]
fn clients_come_back_after_a_restart_and_get_their_messages_again() {
    for is_killed in [false, true] {
        let server = Server::start(&[]);
        let mut first = server.bind("app", "a");
        let mailbox = first.claim("7");
        first.open(&mailbox);
        let mut sent = Vec::new();
        for number in 0..5 {
            let phase = number.to_string();
            sent.push(first.one(json!({"type": "add", "phase": phase, "body": "b", "id": phase})));
        }
        let directory = if is_killed {
            server.kill()
        } else {
            drop(first);
            server.stop().1
        };
        let server = Server::start_in(directory, &[]);
        for side in ["a", "b"] {
            let mut client = server.bind("app", side);
            assert_eq!(client.claim("7"), mailbox);
            assert_eq!(client.open(&mailbox), sent, "in order, as they were, for {side}");
        }
        let mut stranger = server.bind("app", "c");
        assert_eq!(stranger.error(json!({"type": "claim", "nameplate": "7"})), "crowded");
    }
}

const BEGINS: &str = "storage failed";
const ENDS: &str = "storage works again";
const OTHER_REASON: &str = "storage is still unavailable";

/// What the server does to a connection whose command it could not store: a close, and not a
/// message before it.
fn assert_told_to_come_back(mut client: Client) {
    match client.socket.read() {
        Ok(Message::Close(Some(frame))) => assert_eq!(u16::from(frame.code), 1013, "{frame}"),
        other => panic!("an answer left without its commit: {other:?}"),
    }
}

#[test]
fn no_answer_leaves_before_its_commit_and_a_locked_database_degrades_the_service() {
    let mut server = Server::start(&[]);
    let mut writer = server.bind("app", "a");
    let mailbox = writer.claim("7");
    writer.open(&mailbox);
    let stored = writer.one(json!({"type": "add", "phase": "before", "body": "b"}));
    let mut listener = server.bind("app", "b");
    assert_eq!(listener.open(&mailbox), std::slice::from_ref(&stored));

    let locked = sql::lock(&server.file("relay.sqlite"));
    writer.send(json!({"type": "add", "phase": "during", "body": "b"}));
    assert_told_to_come_back(writer);
    server.wait_for_log(BEGINS);

    // Those who had no part in it stay, and can do all that changes nothing.
    let storage_error = |client: &mut Client, command: Value| {
        let text = client.error(command);
        assert!(text.contains("storage"), "{text}");
    };
    assert_eq!(
        listener.one(json!({"type": "ping", "ping": 1})),
        json!({"type": "pong", "pong": 1})
    );
    storage_error(&mut listener, json!({"type": "add", "phase": "p", "body": "b"}));
    let mut newcomer = Client::connect(server.address);
    let welcome = newcomer.recv();
    let told = welcome["welcome"]["error"].as_str().expect("an error");
    assert!(told.contains("storage is unavailable"), "{told}");
    newcomer.quiet(json!({"type": "bind", "appid": "app", "side": "c"}));
    for command in [
        json!({"type": "allocate"}),
        json!({"type": "claim", "nameplate": "8"}),
        json!({"type": "open", "mailbox": "other"}),
        json!({"type": "close", "mailbox": "other"}),
    ] {
        storage_error(&mut newcomer, command);
    }
    // For longer than it takes to try again twice.
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(2200) {
        let nameplates = newcomer.one(json!({"type": "list"}));
        assert_eq!(nameplates["nameplates"], json!([{"id": "7"}]));
        assert_eq!(server.count_log(ENDS), 0);
    }

    drop(locked);
    let freed = Instant::now();
    server.wait_for_log(ENDS);
    assert!(freed.elapsed() < Duration::from_millis(2500), "{:?}", freed.elapsed());

    // The refused commands have used nothing up, the listener still listens, and what was
    // acknowledged is there, without what was not.
    newcomer.claim("8");
    let mut writer = server.bind("app", "a");
    assert_eq!(writer.open(&mailbox), [stored]);
    writer.one(json!({"type": "add", "phase": "after", "body": "b"}));
    assert_eq!(listener.recv()["phase"], "after");
    assert_eq!((server.count_log(BEGINS), server.count_log(ENDS)), (1, 1));
    assert_eq!(server.count_log(OTHER_REASON), 0);
    let mut welcomed = Client::connect(server.address);
    assert_eq!(welcomed.recv()["welcome"].get("error"), None);
    let phases = sql::rows(&server.file("relay.sqlite"), "SELECT phase FROM messages");
    assert_eq!(phases, json!([["before"], ["after"]]));
}

#[test]
fn who_could_not_leave_is_closed_once_the_storage_works_and_others_stay() {
    let mut server = Server::start(&[]);
    let mut writer = server.bind("app", "a");
    let mailbox = writer.claim("7");
    writer.open(&mailbox);
    let mut held = [server.bind("app", "a"), server.bind("app", "a")];
    let mut others = server.bind("app", "other");
    let locked = sql::lock(&server.file("relay.sqlite"));
    writer.send(json!({"type": "add", "phase": "p", "body": "b"}));
    assert_told_to_come_back(writer);
    server.wait_for_log(BEGINS);
    let [release, close] = [
        json!({"type": "release", "nameplate": "7"}),
        json!({"type": "close", "mailbox": mailbox}),
    ];
    for (client, command) in held.iter_mut().zip([&release, &close]) {
        assert!(client.error(command.clone()).contains("storage"));
    }
    // What the side does not hold, it need not leave.
    assert_eq!(others.one(release)["type"], "released");
    drop(locked);
    server.wait_for_log(ENDS);
    held.into_iter().for_each(assert_told_to_come_back);
    assert_eq!(others.one(json!({"type": "ping", "ping": 1}))["type"], "pong");
    let mut again = server.bind("app", "a");
    assert_eq!(again.one(close)["type"], "closed");
}

#[test]
fn every_command_that_changes_something_waits_for_its_commit() {
    let server = Server::start(&[]);
    for (number, command) in [
        json!({"type": "allocate"}),
        json!({"type": "claim", "nameplate": "9"}),
        json!({"type": "release"}),
        json!({"type": "open", "mailbox": "other"}),
        json!({"type": "add", "phase": "p", "body": "b"}),
        json!({"type": "close"}),
    ]
    .into_iter()
    .enumerate()
    {
        let name = command["type"].as_str().expect("a type").to_owned();
        let mut client = server.bind("app", &format!("side{number}"));
        if matches!(&*name, "release" | "add" | "close") {
            let mailbox = client.claim(&(100 + number).to_string());
            client.open(&mailbox);
        }
        let locked = sql::lock(&server.file("relay.sqlite"));
        client.send(command);
        assert_told_to_come_back(client);
        drop(locked);
        eventually(&name, || server.count_log(ENDS) > number);
        assert_eq!(server.count_log(BEGINS), number + 1, "{name}");
    }
}

#[test]
fn a_lock_that_is_shorter_than_its_patience_is_waited_for() {
    const PATIENCE_OF_THE_SERVER: Duration = Duration::from_secs(1);
    const BRIEFLY: Duration = Duration::from_millis(20);
    let server = Server::start(&[]);
    loop {
        let mut client = server.bind("app", "a");
        client.open("box");
        let locked = sql::lock(&server.file("relay.sqlite"));
        let since = Instant::now();
        client.send(json!({"type": "add", "phase": "p", "body": "b"}));
        // Nothing may come while the lock is held, be it an answer or a close.
        client.socket.get_ref().set_read_timeout(Some(BRIEFLY)).expect("timeout");
        assert!(client.socket.read().is_err(), "an answer left without its commit");
        drop(locked);
        let is_short = since.elapsed() < PATIENCE_OF_THE_SERVER;
        client.socket.get_ref().set_read_timeout(Some(PATIENCE)).expect("timeout");
        let answer = client.socket.read().expect("an answer");
        if is_short {
            assert!(answer.to_text().expect("text").contains("\"ack\""), "{answer}");
            return;
        }
        // A busy machine: it was not shorter. It is tried again.
        eventually("it works again", || server.count_log(ENDS) == server.count_log(BEGINS));
    }
}

#[test]
fn what_expires_under_a_lock_expires_after_it_once() {
    let options = ["--usage-db=u.db", "--expire-after=1", "--expire-check=0.5"];
    let mut server = Server::start(&options);
    let mut client = server.bind("app", "a");
    client.open("box");
    drop(client);
    let locked = sql::lock(&server.file("relay.sqlite"));
    server.wait_for_log(BEGINS);
    let usage = server.file("u.db");
    assert_eq!(sql::rows(&usage, "SELECT * FROM mailboxes"), json!([]), "not yet gone");
    drop(locked);
    server.wait_for_log(ENDS);
    sql::wait_for(&server.file("relay.sqlite"), "SELECT * FROM mailboxes", &json!([]));
    let (_, directory) = server.stop();
    let results = sql::rows(&directory.file("u.db"), "SELECT result FROM mailboxes");
    assert_eq!(results, json!([["pruney"]]));
}

#[test]
fn a_kill_during_the_copy_before_an_upgrade_leaves_no_copy_by_its_name() {
    const BYTES_LARGE: u64 = 1 << 20; // more than any scratch file has
    let directory = Directory::new();
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 64)
         INSERT INTO messages SELECT 'app', 'box', 'a', i, hex(zeroblob(500000)), 1, NULL FROM n";
    sql::create(&directory.file("relay.sqlite"), &[CHANNEL_V1, rows]);
    let bytes = fs::metadata(directory.file("relay.sqlite")).expect("a file").len();
    let mut command = Command::new(PROGRAM);
    command.args([FREE_PORT, "--track-connections"]).current_dir(directory.path());
    let child = Running(command.stderr(Stdio::null()).spawn().expect("the program starts"));
    let is_copy = |name: &String| {
        let bytes = fs::metadata(directory.file(name)).map_or(0, |it| it.len());
        name.as_str() != "relay.sqlite" && bytes > BYTES_LARGE
    };
    let until = Instant::now() + PATIENCE;
    while !sql::names(&directory).iter().any(is_copy) {
        assert!(Instant::now() < until, "no copy");
    }
    drop(child);
    // If the kill came too late, it is whole.
    let copy = fs::metadata(directory.file("relay.sqlite-backup-v1"));
    assert!(copy.as_ref().map_or(true, |copy| copy.len() == bytes), "{copy:?} of {bytes}");
}
