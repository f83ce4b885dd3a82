//! Attacks by bytes and frames: floods, fan-out, messages that are never finished.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::json;

use super::crowd::{Crowd, add, bound, head, ping, subscriber, text};
use super::honest::Honest;
use super::memory::{MIB, socket_bytes_when_quiet};
use super::{Attack, Field, holds};
use crate::common::raw::{CONTINUES, PING, TEXT, TEXT_BEGINS, frame};

/// Connections that one address may have, by default.
pub const PER_ADDRESS: usize = 250;

/// Connections of one side that may be subscribed to a mailbox.
const SUBSCRIBED_PER_SIDE: usize = 8;

/// Pings of 1 KB, each answered with as much.
pub struct Pings {
    pub connections: usize,
}

impl Attack for Pings {
    fn name(&self) -> String {
        format!("pings of 1 KB on {} connections", self.connections)
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        let command = text(&json!({"type": "ping", "ping": "p".repeat(1000)}));
        let portion = command.repeat(64);
        let heads = (0..self.connections).map(|index| head(&field.address(index / PER_ADDRESS)));
        let mut crowd = Crowd::gather(field, heads);
        crowd.flood(true, |_| &portion);
        Ok(())
    }
}

/// Many subscribers of one mailbox and one connection that sends.
pub struct FanOut {
    pub subscribers: usize,
    pub kilobytes: usize,
}

impl Attack for FanOut {
    fn name(&self) -> String {
        format!("{} KB to {} subscribers of one mailbox", self.kilobytes, self.subscribers)
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        let mut crowd = subscribers(field, self.subscribers, 1);
        let opening =
            subscriber(&field.address(60_000), &field.name("fan"), "side-0", &field.name("box-0"));
        let mut sender = Crowd::gather(field, [opening]);
        sender.settle();
        let script = add("p", 1000).repeat(self.kilobytes);
        loop {
            sender.deliver(|_| script.clone());
            crowd.drain();
            if field.is_over() {
                break;
            }
        }
        let reached = |crowd: &Crowd<'_>| {
            crowd.members.iter().filter(|member| member.received > 20_000).count()
        };
        for _ in 0..100 {
            crowd.drain();
            std::thread::sleep(Duration::from_millis(5));
        }
        let (reached, most) = (reached(&crowd), 2 * SUBSCRIBED_PER_SIDE);
        if reached > most {
            return Err(format!("{reached} subscribers of one mailbox, {most} are allowed"));
        }
        Ok(())
    }
}

/// Connections of two sides, spread over mailboxes, settled.
fn subscribers<'a>(field: &'a Field<'a>, count: usize, mailboxes: usize) -> Crowd<'a> {
    let openings = (0..count).map(|index| {
        let from = field.address(index / PER_ADDRESS);
        let (mailbox, side) = (index % mailboxes, index / mailboxes % 2);
        let mailbox = field.name(&format!("box-{mailbox}"));
        subscriber(&from, &field.name("fan"), &format!("side-{side}"), &mailbox)
    });
    let mut crowd = Crowd::gather(field, openings);
    crowd.settle();
    crowd
}

/// What the kernel may hold for one connection: the server's send buffer, and the receive buffer
/// of a reader that reads nothing.
const SOCKET_BYTES_MAX: usize = MIB / 2;

/// Large messages to subscribers that read nothing.
pub struct LargeUnread {
    pub readers: usize,
    pub mailboxes: usize,
}

impl Attack for LargeUnread {
    fn name(&self) -> String {
        let LargeUnread { readers, mailboxes } = self;
        format!("900 KB in each of {mailboxes} mailboxes to {readers} readers that read nothing")
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        let mut crowd = subscribers(field, self.readers, self.mailboxes);
        let senders = (0..self.mailboxes).map(|mailbox| {
            let from = field.address(60_000 + mailbox / PER_ADDRESS);
            let mailbox = field.name(&format!("box-{mailbox}"));
            subscriber(&from, &field.name("fan"), "side-0", &mailbox)
        });
        let mut senders = Crowd::gather(field, senders);
        senders.settle();
        senders.deliver(|_| [add("p", 900_000), ping()].concat());
        senders.settle();
        let sockets = socket_bytes_when_quiet(field.server);
        crowd.hold();
        field.linger();
        let most = SOCKET_BYTES_MAX * self.readers;
        if !field.is_shared && sockets > most {
            let (sockets, most) = (sockets / MIB, most / MIB);
            return Err(format!("{sockets} MiB in sockets, {most} are enough"));
        }
        Ok(())
    }
}

/// Pings of the WebSocket protocol and empty fragments without end.
pub struct ControlFrames {
    pub connections: usize,
}

/// Close code of a violation of the WebSocket protocol.
const PROTOCOL_ERROR: u16 = 1002;

impl Attack for ControlFrames {
    fn name(&self) -> String {
        format!("WebSocket pings and empty fragments on {} connections", self.connections)
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        let pings = frame(PING, b"").repeat(10_000);
        let fragments = frame(CONTINUES, b"").repeat(10_000);
        let openings = (0..self.connections).map(|index| {
            let mut opening = head(&field.address(index / PER_ADDRESS));
            if index % 2 == 1 {
                opening.extend(frame(TEXT_BEGINS, b""));
            }
            opening
        });
        let mut crowd = Crowd::gather(field, openings);
        crowd.flood(true, |index| if index % 2 == 1 { &fragments } else { &pings });
        if crowd.closed_with(PROTOCOL_ERROR) == 0 {
            return Err("empty fragments go on for ever".to_owned());
        }
        Ok(())
    }
}

/// Unfinished messages that together fill the buffers, and an honest one of 150 KB.
pub struct HalfFinished {
    pub connections: usize,
    pub kilobytes_each: usize,
    pub options: Vec<String>,
}

impl Attack for HalfFinished {
    fn name(&self) -> String {
        let HalfFinished { connections, kilobytes_each, .. } = self;
        format!("{kilobytes_each} KB of unfinished messages on {connections} connections")
    }

    fn options(&self) -> Vec<String> {
        self.options.clone()
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        let unfinished = frame(TEXT, &vec![b' '; (self.kilobytes_each + 10) * 1000]);
        let unfinished = &unfinished[..self.kilobytes_each * 1000];
        let openings = (0..self.connections).map(|index| {
            let from = field.address(index / PER_ADDRESS);
            [bound(&from, "half", "side"), unfinished.to_vec()].concat()
        });
        let mut crowd = Crowd::gather(field, openings);
        let (mut sent, mut dropped) = (0, Vec::new());
        while sent < 10 || !field.is_over() {
            sent += 1;
            dropped.extend(send_in_halves(field, sent).err());
            crowd.drain();
            if dropped.len() > 20 {
                break;
            }
        }
        if let Some(first) = dropped.first() {
            return Err(format!("{} of {sent} honest messages dropped: {first}", dropped.len()));
        }
        Ok(())
    }
}

/// One message of 150 KB, with a moment between its halves.
fn send_in_halves(field: &Field<'_>, number: usize) -> Result<(), String> {
    let from = format!("198.19.0.{}", number % 250);
    let mut honest = Honest::bind(field.server.address, &from, "honest", "side")?;
    honest.send(&json!({"type": "open", "mailbox": format!("halves-{number}")}))?;
    let message = add("p", 150_000);
    let (one, two) = message.split_at(message.len() / 2);
    for half in [one, two] {
        honest.socket.get_mut().write_all(half).map_err(|error| error.to_string())?;
        std::thread::sleep(Duration::from_millis(20));
    }
    honest.wait_for("message")?;
    honest.ask(&json!({"type": "close"}), "closed").map(|_| ())
}

/// Long messages that all end at once; each takes long to decode, and its answer is short.
pub struct LongAtOnce {
    pub connections: usize,
    pub kilobytes: usize,
}

impl Attack for LongAtOnce {
    fn name(&self) -> String {
        let LongAtOnce { connections, kilobytes } = self;
        format!("messages of {kilobytes} KB end at once on {connections} connections")
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        let numbers = "1,".repeat(self.kilobytes * 500);
        let long = format!(r#"{{"type":"ping","ping":"handled","unknown":[{numbers}1]}}"#);
        let long = frame(TEXT, long.as_bytes());
        let (all_but_the_end, end) = long.split_at(long.len() - 1);
        let heads = (0..self.connections).map(|_| head(&field.address(0)));
        let mut crowd = Crowd::gather(field, heads);
        loop {
            crowd.deliver(|_| all_but_the_end.to_vec());
            // So that the server has read all of it.
            std::thread::sleep(Duration::from_millis(300));
            crowd.deliver(|_| end.to_vec());
            crowd.settle();
            if field.is_over() {
                return Ok(());
            }
        }
    }
}

/// Messages of which a byte comes each second.
pub struct SlowSenders {
    pub connections: usize,
}

/// Seconds after which a message of that size must be whole: 60 s, and 1 s for each 8 KiB; and
/// some for a slow machine.
const SLOW_SECONDS: u64 = 60 + 60 / 8 + 10;

impl Attack for SlowSenders {
    fn name(&self) -> String {
        format!("{} senders of a byte a second", self.connections)
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        let whole = frame(TEXT, &vec![b' '; MIB - 1000]);
        let openings = (0..self.connections).map(|index| {
            let from = field.address(index / PER_ADDRESS);
            [bound(&from, "slow", "side"), whole[..60_000].to_vec()].concat()
        });
        let begun = Instant::now();
        let mut crowd = Crowd::gather(field, openings);
        let left = || field.until.saturating_duration_since(Instant::now());
        let slow_line = std::thread::scope(|scope| {
            let is_long = left() > SLOW_LINE_SECONDS;
            let slow_line = is_long.then(|| scope.spawn(|| send_slowly(field)));
            while !field.is_over() {
                crowd.deliver(|_| vec![b' ']);
                std::thread::sleep(left().min(Duration::from_secs(1)));
            }
            slow_line.map_or(Ok(()), |it| it.join().expect("the slow line"))
        });
        slow_line.map_err(|error| format!("an honest slow line: {error}"))?;
        let alive = crowd.alive();
        if begun.elapsed().as_secs() > SLOW_SECONDS && alive > 0 {
            return Err(format!("{alive} messages still unfinished after {SLOW_SECONDS} s"));
        }
        Ok(())
    }
}

/// An honest line of 10 KB/s, and how long it takes for a message of 200 KB.
const SLOW_LINE_BYTES_PER_SECOND: usize = 10_000;
const SLOW_LINE_SECONDS: Duration = Duration::from_secs(20);

fn send_slowly(field: &Field<'_>) -> Result<(), String> {
    let mut honest = Honest::bind(field.server.address, "198.19.5.1", "honest", "side")?;
    honest.send(&json!({"type": "open", "mailbox": "slow-line"}))?;
    let message = add("p", SLOW_LINE_BYTES_PER_SECOND * SLOW_LINE_SECONDS.as_secs() as usize);
    for part in message.chunks(SLOW_LINE_BYTES_PER_SECOND) {
        honest.socket.get_mut().write_all(part).map_err(|error| error.to_string())?;
        std::thread::sleep(Duration::from_secs(1));
    }
    honest.wait_for("message").map(|_| ())
}

#[test]
fn long_messages_that_end_at_once_take_turns() {
    holds(&LongAtOnce { connections: 100, kilobytes: 400 });
}

#[test]
fn pings_on_many_connections_do_not_delay_others() {
    holds(&Pings { connections: 500 });
}

#[test]
fn a_side_has_eight_subscribed_connections_at_most() {
    holds(&FanOut { subscribers: 60, kilobytes: 50 });
}

#[test]
fn a_large_message_to_many_takes_little_memory() {
    holds(&LargeUnread { readers: 80, mailboxes: 1 });
}

#[test]
fn large_messages_in_many_mailboxes_stay_within_the_bound() {
    holds(&LargeUnread { readers: 80, mailboxes: 5 });
}

#[test]
fn empty_fragments_without_end_are_a_violation() {
    holds(&ControlFrames { connections: 50 });
}

#[test]
fn unfinished_messages_of_others_do_not_drop_an_honest_one() {
    holds(&HalfFinished {
        connections: 200,
        kilobytes_each: 100,
        options: vec![
            "--limit-message-bytes=1000000".to_owned(),
            "--limit-buffered-bytes=8500000".to_owned(),
        ],
    });
}

#[test]
fn slow_senders_do_not_delay_others() {
    holds(&SlowSenders { connections: 100 });
}
