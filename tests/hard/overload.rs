//! More of everything than there is room for: descriptors, connects at once, and every known abuse
//! at the same time with an innocent pair of clients in the middle of it.
//!
//! `ABUSE_SECONDS` makes the last of these tests run as long as wanted.

use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::client::{EXCHANGE_APP, exchange};
use crate::common::process::{self, descriptors, resident_bytes};
use crate::common::random::Random;
use crate::common::raw::{CLOSE, Raw, TEXT, TEXT_BEGINS, frame, upgrade};
use crate::common::{Client, Directory, FREE_PORT, PATIENCE, PROGRAM, Server, Signal, eventually};
use rustix::process::Resource;
use serde_json::json;

fn assert_serves(client: &mut Client) {
    client.send(json!({"type": "ping", "ping": 1}));
    assert_eq!(client.recv()["type"], "ack");
    assert_eq!(client.recv()["type"], "pong");
}

#[test]
fn without_descriptors_it_neither_spins_nor_stops_accepting_and_serves_who_is_there() {
    process::raise_own_descriptor_limit();
    let server = Server::start(&[]);
    let idle = descriptors(server.pid());
    let mut known = server.bind("app", "side");
    known.open("box");
    // Under the server's feet, for it would keep its reserve otherwise.
    process::limit(server.pid(), Resource::Nofile, Some(idle as u64 + 11));
    for _ in 0..2 {
        let mut crowd: Vec<Raw> = (0..200).map(|_| Raw::connect(server.address)).collect();
        for raw in &mut crowd {
            raw.send(upgrade("/v1", "").as_bytes());
        }
        let add = json!({"type": "add", "phase": "p", "body": "b"});
        assert_eq!(known.one(add)["type"], "message");
        eventually("it sleeps with nothing to do", || {
            (0..20).all(|_| {
                std::thread::sleep(Duration::from_millis(5));
                process::state(server.pid()) == 'S'
            })
        });
        assert_serves(&mut known);
        let open = descriptors(server.pid());
        assert!(open < idle + 50, "{open} open, {idle} when idle");
        drop(crowd);
        eventually("there is room again", || descriptors(server.pid()) < idle + 3);
        // Those of the crowd that it had not accepted come first.
        let visit = [upgrade("/v1", "").as_bytes(), &frame(CLOSE, b"")].concat();
        eventually("it accepts again", || {
            let mut raw = Raw::connect(server.address);
            raw.try_send(&visit) && raw.drain().starts_with(b"HTTP/1.1 101 ")
        });
        assert_serves(&mut server.connect());
    }
    process::limit(server.pid(), Resource::Nofile, Some(1000));
    exchange(&server, "happy");
    assert_eq!(server.count_log("out of file"), 1, "{:#?}", server.log());
}

#[test]
fn with_few_descriptors_it_keeps_a_reserve_and_says_503() {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "ulimit -Sn 50 && ulimit -Hn 72 && exec \"$0\" \"$1\"",
        PROGRAM,
        FREE_PORT,
    ]);
    let server = Server::spawn(command, Arc::new(Directory::new()));
    let idle = descriptors(server.pid());
    for _ in 0..2 {
        let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
        assert_eq!(server.connect_from(None).err().expect("refused").status, 503);
        clients.truncate(6);
        eventually("two are gone", || {
            let two = [(); 2].map(|()| server.connect_from(None));
            two.iter().all(Result::is_ok)
        });
        eventually("their places are free", || {
            server.connect_from(None).is_ok() && {
                exchange(&server, "happy");
                true
            }
        });
        drop(clients);
        eventually("all are gone", || descriptors(server.pid()) == idle);
    }
    let log = server.log();
    assert!(!log.iter().any(|line| line.contains("out of file")), "{log:#?}");
}

#[test]
fn a_thousand_connects_at_once_all_find_room_in_the_queue_and_are_served() {
    const CONNECTS: usize = 1000;
    process::raise_own_descriptor_limit();
    let server = Server::start(&[]);
    for _ in 0..2 {
        server.signal(Signal::STOP); // so that nothing is accepted before the last of them is there
        let streams: Vec<TcpStream> = (0..CONNECTS)
            .map(|_| {
                // A connect that finds the queue full is repeated after a second.
                let before_a_retry = Duration::from_millis(900);
                TcpStream::connect_timeout(&server.address, before_a_retry).expect("room")
            })
            .collect();
        server.signal(Signal::CONT);
        let mut clients: Vec<Raw> = streams.into_iter().map(|stream| Raw { stream }).collect();
        for client in &mut clients {
            client.send(upgrade("/v1", "").as_bytes());
            client.send(&frame(0x88, &1000u16.to_be_bytes()));
        }
        for client in &mut clients {
            client.stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
            let answer = client.drain();
            assert!(answer.starts_with(b"HTTP/1.1 101"));
        }
    }
    exchange(&server, "happy");
}

type Run = fn(&Abuse<'_>);

/// Something to do until told to stop.
struct Abuse<'a> {
    server: &'a Server,
    stop: &'a AtomicBool,
    /// How often it was done, to see that it was.
    done: AtomicUsize,
}

impl Abuse<'_> {
    fn goes_on(&self) -> bool {
        self.done.fetch_add(1, Ordering::Relaxed);
        !self.stop.load(Ordering::Relaxed)
    }

    fn connect(&self) -> Option<Raw> {
        let stream = TcpStream::connect(self.server.address).ok()?;
        let briefly = Some(Duration::from_millis(200));
        stream.set_read_timeout(briefly).ok()?;
        stream.set_write_timeout(briefly).ok()?;
        Some(Raw { stream })
    }

    fn upgraded(&self) -> Option<Raw> {
        let mut raw = self.connect()?;
        raw.try_send(upgrade("/v1", "").as_bytes()).then_some(raw)
    }

    fn bound(&self, mailbox: &str) -> Option<Raw> {
        let mut raw = self.upgraded()?;
        for command in [
            json!({"type": "bind", "appid": "abuse", "side": "abuser"}),
            json!({"type": "open", "mailbox": mailbox}),
        ] {
            raw.try_send(&text(&command.to_string()));
        }
        Some(raw)
    }
}

fn text(text: &str) -> Vec<u8> {
    frame(TEXT, text.as_bytes())
}

/// The upper bound of its memory that the server logged, in bytes.
pub fn memory_bound(server: &Server) -> usize {
    let log = server.log();
    let line = log.iter().find(|line| line.contains("MiB of memory")).expect("a bound");
    let words: Vec<&str> = line.split_whitespace().collect();
    let unit = words.iter().position(|word| *word == "MiB").expect("MiB");
    words[unit - 1].parse::<usize>().expect("a number") * 1024 * 1024
}

/// Connects and says nothing; and again, when dropped.
fn half_open(abuse: &Abuse<'_>) {
    let mut held = Vec::new();
    while abuse.goes_on() {
        held.extend(abuse.connect());
        if held.len() > 150 {
            held.drain(..75);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Heads a byte at a time, on many connections.
fn slow_heads(abuse: &Abuse<'_>) {
    let head = upgrade("/v1", "");
    let mut raws: Vec<Raw> = (0..50).filter_map(|_| abuse.connect()).collect();
    for byte in head.as_bytes().iter().cycle() {
        if !abuse.goes_on() {
            return;
        }
        for raw in &mut raws {
            if !raw.try_send(&[*byte])
                && let Some(fresh) = abuse.connect()
            {
                *raw = fresh;
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Large frames a byte at a time, and fragments without end.
fn slow_frames(abuse: &Abuse<'_>) {
    let large = frame(TEXT, &[b' '; 1_000_000]);
    let endless = frame(TEXT_BEGINS, b" ");
    while abuse.goes_on() {
        let mut raws: Vec<Raw> = (0..20).filter_map(|_| abuse.upgraded()).collect();
        for raw in &mut raws {
            raw.try_send(&large[..900_000]);
        }
        for byte in large[900_000..].chunks(1).take(20) {
            for raw in &mut raws {
                raw.try_send(byte);
            }
        }
        for _ in 0..100 {
            abuse.upgraded().map(|mut raw| raw.try_send(&endless));
        }
    }
}

/// Asks for much and reads nothing.
fn never_reads(abuse: &Abuse<'_>) {
    let ping = text(&json!({"type": "ping", "ping": "p".repeat(50_000)}).to_string());
    while abuse.goes_on() {
        let Some(mut raw) = abuse.bound("unread") else { continue };
        while abuse.goes_on() && raw.try_send(&ping) {}
    }
}

/// Pings, JSON and WebSocket ones, as fast as the answers can be read and thrown away.
fn pings_forever(abuse: &Abuse<'_>) {
    let mut portion = frame(0x89, b"ping");
    portion.extend_from_slice(&text(r#"{"type":"ping","ping":1}"#));
    let portion = portion.repeat(100);
    let Some(raw) = abuse.upgraded() else { return };
    std::thread::scope(|scope| {
        let mut reader = Raw { stream: raw.stream.try_clone().expect("clone") };
        let mut raw = raw;
        scope.spawn(move || std::io::copy(&mut reader.stream, &mut std::io::sink()));
        while abuse.goes_on() && raw.try_send(&portion) {}
        _ = raw.stream.shutdown(std::net::Shutdown::Both);
    });
}

/// Opens mailboxes, leaves something in them and goes without a word.
fn opens_and_abandons(abuse: &Abuse<'_>) {
    let mut number = 0;
    while abuse.goes_on() {
        number += 1;
        let Some(mut raw) = abuse.bound(&format!("abandoned-{number}")) else { continue };
        let add = json!({"type": "add", "phase": "p", "body": "b".repeat(200)});
        raw.try_send(&text(&add.to_string()));
        if number % 2 == 0 {
            // Read first: closing with unread input resets the connection at once.
            _ = std::io::Read::read(&mut raw.stream, &mut [0; 100]);
        }
    }
}

/// Fills one mailbox, and opens it again and again without reading the replay.
fn replays_unread(abuse: &Abuse<'_>) {
    let add = json!({"type": "add", "phase": "p", "body": "b".repeat(500_000)});
    while abuse.goes_on() {
        let Some(mut writer) = abuse.bound("large") else { continue };
        for _ in 0..10 {
            writer.try_send(&text(&add.to_string()));
        }
        let readers: Vec<_> = (0..20).filter_map(|_| abuse.bound("large")).collect();
        writer.try_send(&text(r#"{"type":"close"}"#));
        std::thread::sleep(Duration::from_millis(50));
        drop(readers);
    }
}

/// Bytes that mean nothing, before and after the upgrade.
fn babbles(abuse: &Abuse<'_>) {
    let mut random = Random::new(1);
    while abuse.goes_on() {
        let noise = random.bytes(500);
        for raw in [abuse.connect(), abuse.upgraded()] {
            raw.map(|mut raw| raw.try_send(&noise));
        }
        if let Some(mut raw) = abuse.upgraded() {
            raw.try_send(&text(&"[".repeat(100_000)));
            raw.try_send(&frame(0x83, b"reserved"));
        }
    }
}

/// Allocates and claims all there is, from an address that is not exempt.
fn takes_nameplates(abuse: &Abuse<'_>) {
    const ADDRESS: &str = "192.0.2.66";
    while abuse.goes_on() {
        if abuse.server.connect_from(Some(ADDRESS)).is_ok()
            && abuse.server.connect_from(Some(ADDRESS)).is_ok()
        {
            continue; // until connecting is refused
        }
        std::thread::sleep(Duration::from_millis(150));
        let Ok(mut client) = abuse.server.connect_from(Some(ADDRESS)) else { continue };
        client.quiet(json!({"type": "bind", "appid": EXCHANGE_APP, "side": "greedy"}));
        client.ask(json!({"type": "allocate"}));
        client.ask(json!({"type": "claim", "nameplate": "123456"}));
    }
}

#[test]
fn under_every_abuse_at_once_an_innocent_pair_completes_every_exchange() {
    process::raise_own_descriptor_limit();
    let seconds = std::env::var("ABUSE_SECONDS").ok().and_then(|text| text.parse().ok());
    let seconds: f64 = seconds.unwrap_or(6.0);
    // The allocator keeps what was freed, the more the larger it was, unless it is told not to;
    // here it is the server's own memory that counts.
    let mut command = Command::new(PROGRAM);
    command.envs([("MALLOC_MMAP_THRESHOLD_", "65536"), ("MALLOC_TRIM_THRESHOLD_", "65536")]);
    command.args([
        FREE_PORT,
        // The abuses hold about 500 at a time: the pair is refused only if those pile up that are
        // gone and not noticed.
        "--limit-connections=1500",
        "--limit-stored-bytes=40000000",
        "--limit-buffered-bytes=10000000",
        "--limit-handshake-seconds=1",
        "--limit-bind-seconds=2",
        "--expire-after=1",
        "--expire-check=0.5",
    ]);
    let server = Server::spawn(command, Arc::new(Directory::new()));
    let bound = memory_bound(&server);
    for _ in 0..3 {
        exchange(&server, "happy");
    }
    eventually("their connections are gone", || descriptors(server.pid()) < 32);
    let (idle_descriptors, idle_bytes) = (descriptors(server.pid()), resident_bytes(server.pid()));

    let abuses: [(&str, Run); 9] = [
        ("half open", half_open),
        ("slow heads", slow_heads),
        ("slow frames", slow_frames),
        ("never reads", never_reads),
        ("pings forever", pings_forever),
        ("opens and abandons", opens_and_abandons),
        ("replays unread", replays_unread),
        ("babbles", babbles),
        ("takes nameplates", takes_nameplates),
    ];
    let stop = AtomicBool::new(false);
    let running: Vec<Abuse<'_>> = abuses
        .iter()
        .map(|_| Abuse { server: &server, stop: &stop, done: AtomicUsize::new(0) })
        .collect();
    let (mut exchanges, mut most_bytes) = (0, 0);
    std::thread::scope(|scope| {
        // Ends the abuses when an exchange fails, too.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stop = Stop(&stop);
        for ((_, run), abuse) in abuses.iter().zip(&running) {
            scope.spawn(move || run(abuse));
        }
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < until {
            exchange(&server, "happy");
            exchanges += 1;
            most_bytes = most_bytes.max(resident_bytes(server.pid()));
        }
    });
    for ((name, _), abuse) in abuses.iter().zip(&running) {
        println!("{name}: {} times", abuse.done.load(Ordering::Relaxed));
        assert!(abuse.done.load(Ordering::Relaxed) > 1, "{name} was not tried");
    }
    let most_lines = 40 + seconds as usize;
    let log = server.log();
    assert!(log.len() < most_lines, "{} lines: {:#?}", log.len(), &log[..most_lines]);
    assert!(exchanges > 0);
    assert!(most_bytes < bound, "{most_bytes} bytes of memory, bound {bound}");

    eventually("all descriptors are back", || descriptors(server.pid()) <= idle_descriptors);
    server.bind_from("192.0.2.1", "app", "side").open("box");
    // SQLite's page cache is warm now, and the allocator's small pieces lie between its pages.
    let near_idle = idle_bytes + 16 * 1024 * 1024;
    eventually("memory is back", || resident_bytes(server.pid()) < near_idle);
    println!(
        "{exchanges} exchanges; memory {idle_bytes} idle, {most_bytes} at most, {} afterwards, \
         bound {bound}",
        resident_bytes(server.pid())
    );
    exchange(&server, "happy");
}
