//! `check`: a whole exchange of two clients through a running server, step by step.
//!
//! Leaves nothing behind: whatever happens, both clients release and close what they have.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::ToSocketAddrs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use super::Report;
use super::stream::Stream;
use super::table::list;
use crate::codec::hashcash;
use crate::config::ServerUrl;
use crate::format;
use crate::limits::{CHECK_HEAD_BYTES_MAX, CHECK_LEAVE, CHECK_MESSAGE_BYTES_MAX, CHECK_STEP};
use crate::message::CHECK_APP;
use crate::net::socket::Endpoint;
use crate::sys::clock::Clock;

/// What the clients send each other: hex, about as long as the first message of a real exchange.
const BODY: &str = "6120776f726d686f6c652d6d61696c626f7820636865636b206973207061737365642074687275";

/// Carries out an exchange; the error says which step failed and why.
pub fn report(server: &ServerUrl, via: Option<&str>) -> Result<Report, Box<dyn Error>> {
    let began = Clock::read().instant;
    let mut steps = Steps { taken: Vec::new(), until: began };
    exchange(server, via, &mut steps).map_err(|problem| format!("check of {server}: {problem}"))?;
    let total = steps.until - began;
    let shown = |time: &Duration| format::duration(time.as_secs_f64());
    let mut lines: Vec<_> = steps.taken.iter().map(|(name, time)| (*name, shown(time))).collect();
    lines.push(("in all", shown(&total)));
    let seconds =
        |(name, time): &(&str, Duration)| json!({"step": name, "seconds": time.as_secs_f64()});
    let json = json!({
        "server": server.to_string(),
        "steps": steps.taken.iter().map(seconds).collect::<Vec<_>>(),
        "seconds": total.as_secs_f64(),
    });
    Ok(Report { text: format!("A whole exchange through {server}\n{}", list(&lines)), json })
}

fn exchange(server: &ServerUrl, via: Option<&str>, steps: &mut Steps) -> Result<(), String> {
    let (mut sender, demand) = steps.done("connect", Client::connect(server, via, "sender"))?;
    steps.done("bind", sender.bind(&demand))?;
    steps.done("allocate", sender.allocate())?;
    steps.done("claim", sender.claim())?;
    steps.done("open", sender.open())?;
    steps.done("add", sender.add("pake"))?;
    let second = Client::connect(server, via, "receiver");
    let (mut receiver, demand) = steps.done("second connect", second)?;
    steps.done("second bind", receiver.bind(&demand))?;
    receiver.nameplate.clone_from(&sender.nameplate);
    steps.done("second claim", receiver.claim())?;
    if receiver.mailbox != sender.mailbox {
        return Err("second claim: another mailbox than the first".to_owned());
    }
    let opened = receiver.open();
    steps.done("replay", opened.and_then(|()| receiver.expect_message("sender", "pake")))?;
    let added = receiver.add("version");
    steps.done("delivery", added.and_then(|()| sender.expect_message("receiver", "version")))?;
    steps.done("release", sender.release().and_then(|()| receiver.release()))?;
    steps.done("close", sender.close("happy").and_then(|()| receiver.close("happy")))
}

/// Steps that were taken, and how long each took.
struct Steps {
    taken: Vec<(&'static str, Duration)>,
    /// The end of the last one.
    until: Instant,
}

impl Steps {
    /// Ends the step that follows the last one.
    fn done<T>(&mut self, name: &'static str, outcome: Result<T, String>) -> Result<T, String> {
        let now = Clock::read().instant;
        self.taken.push((name, now - self.until));
        self.until = now;
        outcome.map_err(|problem| format!("step '{name}': {problem}"))
    }
}

/// One side of the exchange.
struct Client {
    socket: WebSocket<Stream>,
    side: &'static str,
    /// Claimed, or about to be, and not released.
    nameplate: Option<String>,
    /// Opened, and not closed.
    mailbox: Option<String>,
}

impl Client {
    /// Returns the client, and the proof of work that the server demands.
    fn connect(
        server: &ServerUrl,
        via: Option<&str>,
        side: &'static str,
    ) -> Result<(Client, Value), String> {
        let stream = match via {
            Some(command) => Stream::through(command, CHECK_STEP),
            None => stream(server),
        };
        let mut stream = stream.map_err(describe)?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(CHECK_MESSAGE_BYTES_MAX))
            .max_frame_size(Some(CHECK_MESSAGE_BYTES_MAX));
        shake_hands(server, &mut stream).map_err(|problem| stream.explain(problem))?;
        let socket = WebSocket::from_raw_socket(stream, Role::Client, Some(config));
        let mut client = Client { socket, side, nameplate: None, mailbox: None };
        let welcome = client.wait(&|message| message["type"] == "welcome")?["welcome"].take();
        if let Some(text) = welcome["error"].as_str() {
            return Err(format!("the welcome has the error '{}'", format::harmless_error(text)));
        }
        Ok((client, welcome["permission-required"].clone()))
    }

    fn bind(&mut self, demand: &Value) -> Result<(), String> {
        if demand.is_object() && demand["none"].is_null() {
            let stamp = stamp(&demand["hashcash"])?;
            self.send(json!({"type": "submit-permissions", "method": "hashcash", "stamp": stamp}))?;
        }
        let version = ["wormhole-mailbox check", env!("CARGO_PKG_VERSION")];
        self.send(json!({
            "type": "bind", "appid": CHECK_APP, "side": self.side, "client_version": version,
        }))?;
        self.ask(json!({"type": "ping", "ping": 1}), "pong").map(drop)
    }

    fn allocate(&mut self) -> Result<(), String> {
        let answer = self.ask(json!({"type": "allocate"}), "allocated")?;
        self.nameplate = Some(text(&answer["nameplate"])?);
        Ok(())
    }

    fn claim(&mut self) -> Result<(), String> {
        let answer = self.ask(json!({"type": "claim", "nameplate": self.nameplate}), "claimed")?;
        self.mailbox = Some(text(&answer["mailbox"])?);
        Ok(())
    }

    fn open(&mut self) -> Result<(), String> {
        self.send(json!({"type": "open", "mailbox": self.mailbox}))
    }

    /// The client gets its own message as well, or an error.
    fn add(&mut self, phase: &str) -> Result<(), String> {
        self.send(json!({"type": "add", "phase": phase, "body": BODY}))?;
        self.expect_message(self.side, phase)
    }

    fn expect_message(&mut self, side: &str, phase: &str) -> Result<(), String> {
        let message = self.wait(&|it| it["type"] == "message" && it["side"] == side)?;
        if message["phase"] == phase && message["body"] == BODY {
            Ok(())
        } else {
            Err("a message came back changed".to_owned())
        }
    }

    fn release(&mut self) -> Result<(), String> {
        self.ask(json!({"type": "release", "nameplate": self.nameplate}), "released")?;
        self.nameplate = None;
        Ok(())
    }

    fn close(&mut self, mood: &str) -> Result<(), String> {
        self.ask(json!({"type": "close", "mailbox": self.mailbox, "mood": mood}), "closed")?;
        self.mailbox = None;
        Ok(())
    }

    fn send(&mut self, command: Value) -> Result<(), String> {
        self.socket.get_mut().begin_step();
        self.socket.send(Message::text(command.to_string())).map_err(problem)
    }

    fn ask(&mut self, command: Value, answer: &str) -> Result<Value, String> {
        self.send(command)?;
        self.wait(&|message| message["type"] == answer)
    }

    /// Returns the first message that is wanted; an error of the server ends the step.
    fn wait(&mut self, is_wanted: &dyn Fn(&Value) -> bool) -> Result<Value, String> {
        self.socket.get_mut().begin_step();
        loop {
            let text = match self.socket.read().map_err(problem)? {
                Message::Text(text) => text,
                Message::Close(frame) => {
                    let reason = frame.map(|frame| format!(": {} {}", frame.code, frame.reason));
                    let reason = format::harmless_error(&reason.unwrap_or_default());
                    return Err(format!("the server closed the connection{reason}"));
                }
                _ => continue,
            };
            let message: Value = serde_json::from_str(&text)
                .map_err(|_| "what the server sends is no JSON".to_owned())?;
            if is_wanted(&message) {
                return Ok(message);
            }
            if message["type"] == "error" {
                let error = message["error"].as_str().unwrap_or_default();
                return Err(format!("the server answers '{}'", format::harmless_error(error)));
            }
        }
    }
}

/// Gives up what a failed exchange still holds.
impl Drop for Client {
    fn drop(&mut self) {
        self.socket.get_mut().limit = CHECK_LEAVE;
        if self.nameplate.is_some() {
            _ = self.release();
        }
        if self.mailbox.is_some() {
            _ = self.close("errory");
        }
        self.socket.get_mut().begin_step();
        _ = self.socket.close(None);
        _ = self.socket.flush();
        // A command is not killed before it has passed this on.
        while self.socket.read().is_ok_and(|message| !message.is_close()) {}
    }
}

fn stream(server: &ServerUrl) -> io::Result<Stream> {
    let (host, port) = match server {
        ServerUrl::Tcp { host, port, .. } => (host.as_str(), *port),
        ServerUrl::Unix(path) => {
            return Stream::connect(&Endpoint::Unix { path: path.clone(), mode: 0 }, CHECK_STEP);
        }
    };
    let mut last = io::Error::other("the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match Stream::connect(&Endpoint::Tcp(address), CHECK_STEP) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The upgrade. By hand, as tungstenite's client would make the program a tenth larger.
fn shake_hands(server: &ServerUrl, stream: &mut Stream) -> Result<(), String> {
    const KEY: &str = "d29ybWhvbGUtbWFpbGJveA=="; // any 16 bytes
    let (host, path) = server.host_and_path();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(describe)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // One by one: frames may follow at once.
        let mut byte = [0];
        stream.read_exact(&mut byte).map_err(describe)?;
        head.push(byte[0]);
        // What is no answer may be the request, and a member's secret is in that.
        if head.len() > CHECK_HEAD_BYTES_MAX || !head.iter().zip(b"HTTP/").all(|(a, b)| a == b) {
            return Err("the answer is no HTTP".to_owned());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        return Err(format!("the answer is '{}'", format::harmless_error(status)));
    }
    let accepted = lines.filter_map(|line| line.split_once(':')).any(|(name, value)| {
        name.eq_ignore_ascii_case("sec-websocket-accept")
            && value.trim() == derive_accept_key(KEY.as_bytes())
    });
    if accepted { Ok(()) } else { Err("the answer is no WebSocket upgrade".to_owned()) }
}

fn text(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| "the answer has no text".to_owned())
}

fn problem(error: tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Io(error) => describe(error),
        error => format::harmless_error(&error.to_string()),
    }
}

fn describe(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => format!("no answer within {} seconds", CHECK_STEP.as_secs()),
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => "the connection ended".to_owned(),
        io::ErrorKind::ConnectionRefused => "nothing listens there".to_owned(),
        _ => error.to_string(),
    }
}

/// A proof of work, as long as it can be found in the time of a step (manual: proof_of_work 2).
fn stamp(demand: &Value) -> Result<String, String> {
    let (bits, resource) = (demand["bits"].as_u64(), demand["resource"].as_str());
    let (Some(bits), Some(resource)) = (bits, resource) else {
        return Err("the server demands a permission that is no hashcash".to_owned());
    };
    const TRIES_BETWEEN_LOOKS: u64 = 1 << 16;
    let until = Clock::read().instant + CHECK_STEP;
    for counter in 0_u64.. {
        let stamp = format!("1:{bits}:000101:{resource}::check:{counter:x}");
        if u64::from(hashcash::proven_bits(&stamp)) >= bits {
            return Ok(stamp);
        }
        if counter % TRIES_BETWEEN_LOOKS == 0 && until <= Clock::read().instant {
            break;
        }
    }
    Err(format!("no proof of work of {bits} bits within {} seconds", CHECK_STEP.as_secs()))
}
