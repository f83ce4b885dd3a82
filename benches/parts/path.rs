//! From a frame in to frames out, without a socket or a database.

use std::hint::black_box;

use tungstenite::protocol::frame::coding::{Data, OpCode};
use wormhole_mailbox::codec::json;
use wormhole_mailbox::codec::websocket::{self, Inbound, WebSocket};
use wormhole_mailbox::limits::Limits;
use wormhole_mailbox::message::{ConnId, Event, Output, Response};
use wormhole_mailbox::store::{Act, Change, Effects, Rules, Store};
use wormhole_mailbox::sys::clock::Timestamp;
use wormhole_mailbox::sys::entropy::Entropy;

use crate::Part;
use crate::common::net;

/// Hex digits in the bodies, as a short wormhole message has them.
const BODY_BYTES: usize = 200;

/// Longest name, as the server's limit has it.
const NAME_BYTES_MAX: usize = 256;

const NOW: Timestamp = Timestamp(1_700_000_000.125);
const SENDER: ConnId = ConnId(1);
const RECEIVER: ConnId = ConnId(2);

/// The mailbox is emptied after this many messages, so that memory does not affect the times.
const MAILBOX_MESSAGES_MAX: u64 = 1_000;

/// The parts, in the order a message meets them.
pub fn parts() -> Vec<Part> {
    let part = |name, prepare| Part { name, prepare, messages: 1 };
    vec![
        part("frame in (websocket)", frame_in),
        part("text to command (json)", decode),
        part("add to changes and replies (store)", apply),
        part("one ack and two messages to text (json)", encode),
        part("three frames out (websocket)", frames_out),
        part("the whole path but socket and database", whole),
        part("a ping, the same way", ping),
    ]
}

#[derive(Debug)]
struct Zeros;

impl Entropy for Zeros {
    fn next_u64(&mut self) -> u64 {
        0
    }
}

fn add_text() -> String {
    format!(
        r#"{{"id":"5a5a","type":"add","phase":"pake","body":"{}"}}"#,
        "5a".repeat(BODY_BYTES / 2)
    )
}

fn frame(text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    net::frame(OpCode::Data(Data::Text), text.as_bytes(), &mut frame);
    frame
}

/// A store with two connections that have one mailbox open, and the effects of making it.
pub struct Scene {
    pub store: Store,
    pub effects: Effects,
    added: u64,
}

impl Scene {
    pub fn new() -> Scene {
        let mut scene = Scene {
            store: Store::new(Rules::default(), Limits::default()),
            effects: Effects::default(),
            added: 0,
        };
        scene.open();
        scene
    }

    fn open(&mut self) {
        for (conn, side) in [(SENDER, "aaaaaaaaaa"), (RECEIVER, "bbbbbbbbbb")] {
            self.store.connect(conn, None);
            self.apply(
                conn,
                &format!(r#"{{"type":"bind","appid":"bench.example/x","side":"{side}"}}"#),
            );
            self.apply(conn, r#"{"type":"open","mailbox":"aaaaaaaaaaaaa"}"#);
        }
    }

    pub fn apply(&mut self, conn: ConnId, text: &str) {
        let request = json::decode(text, NAME_BYTES_MAX).expect("a command");
        let (entropy, effects) = (&mut Zeros, &mut self.effects);
        let mut act = Act { now: NOW, wall: NOW, entropy, effects, may_begin: true };
        let outcome = self.store.apply(conn, &request.command, &mut act);
        assert_eq!(outcome, Ok(()));
    }

    /// Adds a message; now and then the mailbox is closed and opened anew.
    pub fn add(&mut self, text: &str) {
        self.apply(SENDER, text);
        self.added += 1;
        if self.added.is_multiple_of(MAILBOX_MESSAGES_MAX) {
            for conn in [SENDER, RECEIVER] {
                self.apply(conn, r#"{"type":"close","mood":"happy"}"#);
                self.store.disconnect(conn);
            }
            while self.store.end_tick(&mut self.effects) {}
            self.open();
        }
    }

    fn clear(&mut self) {
        self.effects.changes.clear();
        self.effects.outputs.clear();
        self.effects.usage.clear();
    }
}

/// Changes as a tick with that many adds has them.
pub fn changes(adds: usize) -> Vec<Change> {
    let mut scene = Scene::new();
    scene.clear();
    let text = add_text();
    for _ in 0..adds {
        scene.apply(SENDER, &text);
    }
    std::mem::take(&mut scene.effects.changes)
}

/// The changes that make the mailbox itself.
pub fn opening() -> Vec<Change> {
    std::mem::take(&mut Scene::new().effects.changes)
}

fn frame_in() -> Box<dyn FnMut(u64)> {
    let frame = frame(&add_text());
    let limits = Limits::default();
    let mut socket = WebSocket::default();
    Box::new(move |rounds| {
        for _ in 0..rounds {
            let inbound = socket.next(&mut black_box(&*frame), &limits);
            assert!(matches!(black_box(inbound), Ok(Some(Inbound::Message(Event::Text(_))))));
        }
    })
}

fn decode() -> Box<dyn FnMut(u64)> {
    let text = add_text();
    Box::new(move |rounds| {
        for _ in 0..rounds {
            assert!(black_box(json::decode(black_box(&text), NAME_BYTES_MAX)).is_ok());
        }
    })
}

/// With the decoding, which cannot be taken out of it without a copy.
fn apply() -> Box<dyn FnMut(u64)> {
    let text = add_text();
    let mut scene = Scene::new();
    Box::new(move |rounds| {
        for _ in 0..rounds {
            scene.add(&text);
            scene.clear();
        }
    })
}

/// What one add makes the server say.
fn replies() -> Vec<Response> {
    let mut scene = Scene::new();
    scene.clear();
    scene.apply(SENDER, &add_text());
    let mut replies = vec![Response::Ack { id: Some("\"5a5a\"".into()) }];
    scene.effects.outputs.drain_by_connection(|_, outputs| replies.extend(outputs.map(response)));
    replies
}

fn response(output: Output) -> Response {
    match output {
        Output::Response(response) => response,
        other => unreachable!("the store sends no {other:?}"),
    }
}

fn encode() -> Box<dyn FnMut(u64)> {
    let replies = replies();
    assert_eq!(replies.len(), 3);
    let mut text = Vec::new();
    Box::new(move |rounds| {
        for _ in 0..rounds {
            for response in &replies {
                text.clear();
                json::encode(black_box(response), &mut text);
                black_box(&text);
            }
        }
    })
}

fn frames_out() -> Box<dyn FnMut(u64)> {
    let mut server_tx = json::ServerTx::default();
    server_tx.set(NOW);
    let texts: Vec<Vec<u8>> = replies()
        .iter()
        .map(|response| {
            let mut text = Vec::new();
            json::encode(response, &mut text);
            text
        })
        .collect();
    let mut frames = Vec::new();
    Box::new(move |rounds| {
        for _ in 0..rounds {
            frames.clear();
            for text in &texts {
                websocket::text(black_box(&[text, server_tx.as_bytes()]), &mut frames);
            }
            black_box(&frames);
        }
    })
}

/// One message of SENDER from its frame to the frames of both.
fn round_trip(text: String) -> Box<dyn FnMut(u64)> {
    let frame = frame(&text);
    let limits = Limits::default();
    let (mut socket, mut scene) = (WebSocket::default(), Scene::new());
    let mut server_tx = json::ServerTx::default();
    server_tx.set(NOW);
    let (mut encoded, mut frames) = (Vec::new(), Vec::new());
    Box::new(move |rounds| {
        for _ in 0..rounds {
            let inbound = socket.next(&mut black_box(&*frame), &limits);
            let Ok(Some(Inbound::Message(Event::Text(text)))) = inbound else {
                unreachable!("a text came")
            };
            scene.add(&text);
            frames.clear();
            scene.effects.outputs.reply(SENDER, Response::Ack { id: None });
            scene.effects.outputs.drain_by_connection(|_, outputs| {
                for response in outputs.map(response) {
                    encoded.clear();
                    if !matches!(response, Response::Replay(_)) {
                        json::encode(&response, &mut encoded);
                    }
                    websocket::text(&[&encoded, server_tx.as_bytes()], &mut frames);
                }
            });
            black_box(&frames);
            scene.clear();
        }
    })
}

fn whole() -> Box<dyn FnMut(u64)> {
    round_trip(add_text())
}

fn ping() -> Box<dyn FnMut(u64)> {
    round_trip(r#"{"type":"ping","ping":1}"#.to_owned())
}
