//! What clients send and what they are told, in the simulation's own terms: the text of a command
//! is written here, the server's responses are taken apart here.

use wormhole_mailbox::message::{Message, Orig, Output, Response};
use wormhole_mailbox::storage::held::Released;
use wormhole_mailbox::sys::clock::Seconds;

use crate::rows::Name;

/// A field of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    Absent,
    /// JSON that breaks the field's rule.
    Bad(Name),
    Text(Name),
}

impl Arg {
    pub fn text(text: &str) -> Arg {
        Arg::Text(text.into())
    }
}

/// A command.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// The value is JSON text.
    Ping(Option<&'static str>),
    SubmitPermissions,
    Bind {
        app: Arg,
        side: Arg,
    },
    List,
    Allocate,
    /// The nameplate, and the JSON text of `allocate`.
    Claim(Arg, Option<&'static str>),
    Release(Arg),
    Open(Arg),
    Add {
        phase: Arg,
        body: Arg,
    },
    Delete {
        phase: Arg,
        side: Arg,
    },
    Close {
        mailbox: Arg,
        mood: Arg,
    },
    Unknown,
    WithoutType,
    NotAnObject,
    NotJson,
}

/// A command with its `id`, as JSON text.
#[derive(Clone, Debug)]
pub struct Sent {
    pub id: Option<&'static str>,
    pub ask: Ask,
    pub text: Name,
}

impl Sent {
    pub fn new(id: Option<&'static str>, ask: Ask) -> Sent {
        let text = text(id, &ask).into();
        Sent { id, ask, text }
    }
}

fn text(id: Option<&str>, ask: &Ask) -> String {
    let kind = match ask {
        Ask::NotJson => return "{\"type\":".to_owned(),
        Ask::NotAnObject => return "[\"type\"]".to_owned(),
        Ask::Ping(_) => "ping",
        Ask::SubmitPermissions => "submit-permissions",
        Ask::Bind { .. } => "bind",
        Ask::List => "list",
        Ask::Allocate => "allocate",
        Ask::Claim(..) => "claim",
        Ask::Release(_) => "release",
        Ask::Open(_) => "open",
        Ask::Add { .. } => "add",
        Ask::Delete { .. } => "delete",
        Ask::Close { .. } => "close",
        Ask::Unknown => "frobnicate",
        Ask::WithoutType => "",
    };
    let mut text = String::from("{\"unknown key\":[]");
    let mut put = |key: &str, json: &str| {
        text.push_str(&format!(",\"{key}\":{json}"));
    };
    if *ask != Ask::WithoutType {
        put("type", &format!("\"{kind}\""));
    }
    if let Some(id) = id {
        put("id", id);
    }
    let mut put_arg = |key: &str, arg: &Arg| match arg {
        Arg::Absent => {}
        Arg::Bad(json) => put(key, json),
        Arg::Text(text) => put(key, &format!("\"{text}\"")),
    };
    match ask {
        Ask::Ping(Some(value)) => put("ping", value),
        Ask::Bind { app, side } => {
            put_arg("appid", app);
            put_arg("side", side);
        }
        Ask::Claim(nameplate, allocate) => {
            put_arg("nameplate", nameplate);
            if let Some(json) = allocate {
                put_arg("allocate", &Arg::Bad((*json).into()));
            }
        }
        Ask::Release(nameplate) => put_arg("nameplate", nameplate),
        Ask::Open(mailbox) => put_arg("mailbox", mailbox),
        Ask::Add { phase, body } => {
            put_arg("phase", phase);
            put_arg("body", body);
        }
        Ask::Delete { phase, side } => {
            put_arg("their-phase", phase);
            put_arg("their-side", side);
        }
        Ask::Close { mailbox, mood } => {
            put_arg("mailbox", mailbox);
            put_arg("mood", mood);
        }
        _ => {}
    }
    text.push('}');
    text
}

/// Something a connection gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Whether it carries an `error`.
    Welcome {
        error: bool,
    },
    /// The `id` is JSON text.
    Ack(Name),
    Nameplates(Vec<Name>),
    Allocated(Name),
    Claimed(Name),
    Released,
    /// The `id` is JSON text.
    Message {
        side: Name,
        phase: Name,
        body: Name,
        server_rx: Seconds,
        id: Name,
    },
    Closed,
    Pong(Name),
    /// The text, and what is shown of the command. An expected text that ends in `…` is only the
    /// beginning.
    Error(Name, Name),
    /// Of a replay that an eviction cut off.
    Nothing,
    /// What carries no state.
    Bytes(&'static str),
}

/// Bytes that stand for an upgrade's response, a pong and a close.
pub const BYTES: [&str; 5] = [UPGRADED, PONGED, CLOSED_1013, REPLACED, EVICTED];
pub const UPGRADED: &str = "101";
pub const PONGED: &str = "pong";
pub const CLOSED_1013: &str = "1013";
pub const REPLACED: &str = "1008 replaced";
pub const EVICTED: &str = "1008 evicted";

impl Reply {
    pub fn error(text: &str, orig: &Name) -> Reply {
        Reply::Error(text.into(), orig.clone())
    }

    /// Whether this is what was expected.
    pub fn fits(&self, expected: &Reply) -> bool {
        match (self, expected) {
            (Reply::Error(text, orig), Reply::Error(beginning, expected_orig)) => {
                orig == expected_orig
                    && match beginning.strip_suffix('…') {
                        Some(beginning) => text.starts_with(beginning),
                        None => text == beginning,
                    }
            }
            _ => self == expected,
        }
    }

    /// Takes apart what the server released.
    pub fn all_of(released: Released, out: &mut Vec<Reply>) {
        out.push(match released.into_output() {
            Output::Bytes(bytes) => {
                let known = BYTES.into_iter().find(|known| known.as_bytes() == bytes);
                Reply::Bytes(known.unwrap_or("unknown bytes"))
            }
            Output::End => Reply::Bytes("end"),
            Output::Response(response) => match response {
                Response::Welcome(text) => Reply::Welcome { error: text.contains("\"error\"") },
                Response::Ack { id } => Reply::Ack(id.as_deref().unwrap_or("null").into()),
                Response::Nameplates(names) => Reply::Nameplates(names.to_vec()),
                Response::Allocated(name) => Reply::Allocated(name),
                Response::Claimed(mailbox) => Reply::Claimed(mailbox),
                Response::Released => Reply::Released,
                Response::Message(message) => Reply::message(&message),
                Response::Replay(replay) => {
                    out.extend(replay.map(|message| Reply::message(&message)));
                    return;
                }
                Response::Closed => Reply::Closed,
                Response::Pong(value) => Reply::Pong((*value).into()),
                Response::Error { refusal, orig: Orig::Command(orig) | Orig::Text(orig) } => {
                    Reply::Error(refusal.to_string().into(), (*orig).into())
                }
            },
        });
    }

    fn message(message: &Message) -> Reply {
        let id = match message.id() {
            Some(text) => format!("\"{text}\"").into(),
            None => "null".into(),
        };
        Reply::Message {
            side: message.side.clone(),
            phase: (*message.phase()).into(),
            body: (*message.body()).into(),
            server_rx: message.server_rx.0,
            id,
        }
    }
}
