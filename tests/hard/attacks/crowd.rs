//! The attackers' connections: many, non-blocking, served in turn by one thread, and sending
//! whatever bytes an attack wants.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Field;
use crate::common::PATIENCE;
use crate::common::raw::{TEXT, frame, upgrade};

/// Bytes kept of the end of what came: enough for a close frame or the last answer.
const TAIL_BYTES: usize = 160;

/// Connections that are made again in one turn of a flood.
const REPLACED_PER_TURN_MAX: usize = 10;

/// A command as a text frame.
pub fn text(command: &Value) -> Vec<u8> {
    frame(TEXT, command.to_string().as_bytes())
}

pub fn add(phase: &str, body_bytes: usize) -> Vec<u8> {
    text(&json!({"type": "add", "phase": phase, "body": "b".repeat(body_bytes)}))
}

/// A command whose answer shows that all commands before it were handled.
pub fn ping() -> Vec<u8> {
    text(&json!({"type": "ping", "ping": "handled"}))
}

/// Part of its answer, and of no other.
const PONG: &[u8] = b"\"handled\"";

/// A request from that address, as a trusted proxy reports it.
pub fn head(from: &str) -> Vec<u8> {
    upgrade("/v1", &format!("X-Real-IP: {from}\r\n")).into_bytes()
}

/// The head, `bind`, `open` and `ping` of a subscriber.
pub fn subscriber(from: &str, app: &str, side: &str, mailbox: &str) -> Vec<u8> {
    let mut bytes = bound(from, app, side);
    bytes.extend(text(&json!({"type": "open", "mailbox": mailbox})));
    bytes.extend(ping());
    bytes
}

/// The head and `bind`.
pub fn bound(from: &str, app: &str, side: &str) -> Vec<u8> {
    let mut bytes = head(from);
    bytes.extend(text(&json!({"type": "bind", "appid": app, "side": side})));
    bytes
}

/// One connection of an attacker.
pub struct Member {
    stream: TcpStream,
    /// What it sends first, to connect again with.
    opening: Vec<u8>,
    /// How much of its current script is sent.
    sent: usize,
    first: Vec<u8>,
    tail: Vec<u8>,
    pub received: usize,
    /// Whether the answer of [`ping`] has come.
    is_answered: bool,
    pub has_ended: bool,
}

impl Member {
    fn connect(server: SocketAddr, opening: Vec<u8>) -> Option<Member> {
        let mut stream = TcpStream::connect(server).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        let has_ended = stream.write_all(&opening).is_err();
        stream.set_nonblocking(true).ok()?;
        let (first, tail) = (Vec::new(), Vec::new());
        let is_answered = false;
        Some(Member { stream, opening, sent: 0, first, tail, received: 0, is_answered, has_ended })
    }

    /// Sends of the script what the socket takes; returns the number of bytes.
    fn push(&mut self, script: &[u8]) -> usize {
        match self.stream.write(&script[self.sent..]) {
            Ok(count) => {
                self.sent += count;
                count
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.drain();
                self.has_ended = true;
                0
            }
        }
    }

    /// Reads what is there; returns the number of bytes.
    pub fn drain(&mut self) -> usize {
        let mut buffer = [0; 16_384];
        let before = self.received;
        while !self.has_ended {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.has_ended = true,
                Ok(count) => self.keep(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.has_ended = true,
            }
        }
        self.received - before
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.received += bytes.len();
        let missing = "HTTP/1.1 101".len().saturating_sub(self.first.len());
        self.first.extend(&bytes[..missing.min(bytes.len())]);
        self.tail.extend(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
        self.is_answered |= self.tail.windows(PONG.len()).any(|window| window == PONG);
    }

    pub fn is_accepted(&self) -> bool {
        self.first == b"HTTP/1.1 101"
    }

    /// The code of the close frame at the end of what came.
    pub fn close_code(&self) -> Option<u16> {
        let tail = &self.tail;
        let at = (0..tail.len().saturating_sub(3))
            .find(|at| tail[*at] == 0x88 && usize::from(tail[at + 1]) == tail.len() - at - 2)?;
        Some(u16::from_be_bytes([tail[at + 2], tail[at + 3]]))
    }
}

/// Connections of one attack.
pub struct Crowd<'a> {
    field: &'a Field<'a>,
    pub members: Vec<Member>,
    /// How often a connection was closed with each code.
    closed: BTreeMap<u16, usize>,
}

impl<'a> Crowd<'a> {
    /// Connects once for each opening, and sends it.
    pub fn gather(field: &'a Field<'a>, openings: impl IntoIterator<Item = Vec<u8>>) -> Crowd<'a> {
        let mut crowd = Crowd { field, members: Vec::new(), closed: BTreeMap::new() };
        for opening in openings {
            crowd.members.extend(crowd.connect(opening));
        }
        crowd
    }

    fn connect(&self, opening: Vec<u8>) -> Option<Member> {
        self.field.cost.note_connection(opening.len());
        Member::connect(self.field.server.address, opening)
    }

    /// Reads until each is at an end or has its [`ping`] answered.
    pub fn settle(&mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            self.drain();
            let is_settled = |member: &Member| member.has_ended || member.is_answered;
            if self.members.iter().all(is_settled) || Instant::now() > until {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn drain(&mut self) -> usize {
        self.members.iter_mut().map(Member::drain).sum()
    }

    /// Sends each its whole script while reading; ends when all is sent or refused.
    pub fn deliver(&mut self, script: impl Fn(usize) -> Vec<u8>) {
        let scripts: Vec<Vec<u8>> = (0..self.members.len()).map(script).collect();
        for member in &mut self.members {
            (member.sent, member.is_answered) = (0, false);
        }
        let until = Instant::now() + 2 * PATIENCE;
        loop {
            let (mut progress, mut left) = (0, 0);
            for (member, script) in self.members.iter_mut().zip(&scripts) {
                if !member.has_ended && member.sent < script.len() {
                    left += 1;
                    let count = member.push(script);
                    self.field.cost.note_bytes(count);
                    progress += count;
                }
                progress += member.drain();
            }
            if left == 0 || Instant::now() > until {
                return;
            }
            if progress == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Sends each its portion again and again until the attack is over. Connections that ended
    /// are made again.
    pub fn flood(&mut self, reads: bool, portion: impl Fn(usize) -> &'a [u8]) {
        self.members.iter_mut().for_each(|member| member.sent = 0);
        while !self.field.is_over() {
            let mut progress = 0;
            for (index, member) in self.members.iter_mut().enumerate() {
                let portion = portion(index);
                let count = if member.has_ended { 0 } else { member.push(portion) };
                if member.sent == portion.len() {
                    member.sent = 0;
                }
                self.field.cost.note_bytes(count);
                progress += count;
                if reads {
                    progress += member.drain();
                }
            }
            self.replace_ended();
            if progress == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Holds the connections until the attack is over, reading nothing.
    pub fn hold(&mut self) {
        while !self.field.is_over() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn replace_ended(&mut self) {
        let ended: Vec<usize> = (0..self.members.len())
            .filter(|index| self.members[*index].has_ended)
            .take(REPLACED_PER_TURN_MAX)
            .collect();
        for index in ended {
            self.count_close(index);
            let opening = self.members[index].opening.clone();
            if let Some(member) = self.connect(opening) {
                self.members[index] = member;
            }
        }
    }

    fn count_close(&mut self, index: usize) {
        if let Some(code) = self.members[index].close_code() {
            *self.closed.entry(code).or_default() += 1;
        }
    }

    /// How often a connection was closed with that code, replaced ones included.
    pub fn closed_with(&self, code: u16) -> usize {
        let now = self.members.iter().filter(|member| member.close_code() == Some(code)).count();
        self.closed.get(&code).copied().unwrap_or(0) + now
    }

    pub fn accepted(&self) -> usize {
        self.members.iter().filter(|member| member.is_accepted()).count()
    }

    pub fn alive(&mut self) -> usize {
        self.drain();
        self.members.iter().filter(|member| member.is_accepted() && !member.has_ended).count()
    }
}
