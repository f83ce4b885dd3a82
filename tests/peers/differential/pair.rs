//! The two servers, and what they call the same things: random names become the same canonical
//! ones on both sides, times become steps.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::common::{Client, PATIENCE, Server, now};
use crate::python_server::PythonServer;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tungstenite::Message;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

/// One of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Theirs,
    Ours,
}

pub const BOTH: [Which; 2] = [Which::Theirs, Which::Ours];

/// A connection to each server.
pub type Clients = [Client; 2];

/// What was heard on each connection.
pub type Transcript = Vec<Vec<Value>>;

/// One server's side of the pair.
struct Party {
    address: std::net::SocketAddr,
    channel: PathBuf,
    usage: PathBuf,
    /// Canonical names of allocated nameplates, by app and number. A number may come again.
    nameplates: HashMap<(String, String), String>,
    /// Canonical names of the mailboxes that claims told of.
    mailboxes: HashMap<String, String>,
    /// Numbers and ids behind canonical names.
    raw: HashMap<String, String>,
    /// Start of each step: half way from the end of the one before.
    steps: Vec<f64>,
    step_ended: f64,
}

pub struct Pair {
    parties: [Party; 2],
}

impl Pair {
    pub fn new(theirs: &PythonServer, ours: &Server) -> Pair {
        let party = |address, channel, usage| Party {
            address,
            channel,
            usage,
            nameplates: HashMap::new(),
            mailboxes: HashMap::new(),
            raw: HashMap::new(),
            steps: Vec::new(),
            step_ended: now(),
        };
        let theirs =
            party(theirs.address, theirs.file("relay.sqlite"), theirs.file("usage.sqlite"));
        let ours = party(ours.address, ours.file("relay.sqlite"), ours.file("usage.sqlite"));
        Pair { parties: [theirs, ours] }
    }

    pub fn channel(&self, which: Which) -> Connection {
        open(&self.parties[which as usize].channel)
    }

    pub fn usage(&self, which: Which) -> Connection {
        open(&self.parties[which as usize].usage)
    }

    /// Connects to both, and compares the welcomes.
    pub fn connect(&self) -> Result<Clients, String> {
        let [theirs, ours] = BOTH.map(|which| {
            let mut client = Client::connect(self.parties[which as usize].address);
            let mut welcome = client.recv();
            let port = &mut welcome["welcome"]["your-address"]["port"];
            assert!(port.is_u64(), "{which:?}: {welcome}");
            *port = Value::Null;
            (client, welcome)
        });
        same("welcome", &theirs.1, &ours.1)?;
        Ok([theirs.0, ours.0])
    }

    /// What a server calls a thing with a canonical name; other names mean themselves.
    pub fn raw(&self, which: Which, canonical: &str) -> String {
        let known = self.parties[which as usize].raw.get(canonical);
        known.map_or_else(|| canonical.to_owned(), String::clone)
    }

    /// Whether the number of an allocated nameplate still means that one on both servers.
    pub fn is_current(&self, app: &str, canonical: &str) -> bool {
        self.parties.iter().all(|party| {
            let raw = party.raw.get(canonical).expect("allocated");
            party.nameplates.get(&(app.to_owned(), raw.clone())).is_some_and(|it| it == canonical)
        })
    }

    /// Sends commands on one connection of one server, then gives what all connections hear of it,
    /// in canonical form.
    pub fn play(
        &mut self,
        which: Which,
        app: &str,
        clients: &mut [(usize, &mut Client)],
        sender: usize,
        commands: &[Value],
    ) -> Result<Transcript, String> {
        let commands: Vec<Value> =
            commands.iter().map(|command| self.translate(which, command)).collect();
        self.parties[which as usize].begin_step();
        let (_, client) = clients.iter_mut().find(|(at, _)| *at == sender).expect("connected");
        for command in &commands {
            send(client, command);
        }
        let mut transcript = vec![Vec::new(); sender + 1];
        transcript[sender] = hear(client).map_err(|it| format!("{which:?}: {it}: {commands:?}"))?;
        for (at, client) in clients.iter_mut().filter(|(at, _)| *at != sender) {
            transcript.resize_with(transcript.len().max(*at + 1), Vec::new);
            transcript[*at] = hear(client).map_err(|it| format!("{which:?}, bystander: {it}"))?;
        }
        let party = &mut self.parties[which as usize];
        party.step_ended = now();
        for answer in transcript.iter_mut().flatten() {
            party.canonicalise(which, app, answer, &commands);
        }
        Ok(transcript)
    }

    fn translate(&self, which: Which, command: &Value) -> Value {
        let mut command = command.clone();
        for field in ["nameplate", "mailbox"] {
            if let Some(Value::String(name)) = command.get_mut(field) {
                *name = self.raw(which, name);
            }
        }
        command
    }

    /// The canonical name of a nameplate in the database.
    pub fn nameplate(&self, which: Which, app: &str, raw: &str) -> String {
        let known = &self.parties[which as usize].nameplates;
        known.get(&(app.to_owned(), raw.to_owned())).cloned().unwrap_or_else(|| raw.to_owned())
    }

    /// The canonical name of a mailbox in the database. Those that no claim told of have none; the
    /// order of rows tells them apart.
    pub fn mailbox(&self, which: Which, raw: &str) -> String {
        let known = &self.parties[which as usize].mailboxes;
        let random = raw.len() == 13 && !raw.contains('-');
        let unknown = if random { "made by an allocate" } else { raw };
        known.get(raw).cloned().unwrap_or_else(|| unknown.to_owned())
    }

    /// The step in which a server's clock showed that time.
    pub fn step(&self, which: Which, time: f64) -> usize {
        self.parties[which as usize].step(time)
    }
}

impl Party {
    fn begin_step(&mut self) {
        self.steps.push((self.step_ended + now()) / 2.0);
    }

    fn step(&self, time: f64) -> usize {
        self.steps.partition_point(|start| *start <= time)
    }

    fn canonicalise(&mut self, which: Which, app: &str, answer: &mut Value, commands: &[Value]) {
        let step = self.steps.len();
        match answer["type"].as_str().expect("a type") {
            "allocated" => {
                let raw = answer["nameplate"].as_str().expect("a text").to_owned();
                // How many digits it has is no accident.
                let name = format!("A{step}/{}-{}", self.raw.len(), raw.len());
                self.nameplates.insert((app.to_owned(), raw.clone()), name.clone());
                self.raw.insert(name.clone(), raw);
                answer["nameplate"] = name.into();
            }
            "claimed" => {
                let raw = answer["mailbox"].as_str().expect("a text").to_owned();
                let fresh = format!("M{step}/{}", self.raw.len());
                let name = self.mailboxes.entry(raw.clone()).or_insert(fresh).clone();
                self.raw.insert(name.clone(), raw);
                answer["mailbox"] = name.into();
            }
            "nameplates" => {
                let list = answer["nameplates"].as_array_mut().expect("a list");
                let raw: Vec<String> = list.iter().map(|it| text(&it["id"])).collect();
                assert!(raw.is_sorted(), "{raw:?}");
                let mut names: Vec<String> = raw
                    .into_iter()
                    .map(|it| {
                        self.nameplates.get(&(app.to_owned(), it.clone())).cloned().unwrap_or(it)
                    })
                    .collect();
                names.sort();
                *list = names.into_iter().map(|it| json!({"id": it})).collect();
            }
            "message" => {
                let time = answer["server_rx"].as_f64().expect("a time");
                answer["server_rx"] = self.step(time).into();
                // 0.8.0 delivers a number as it came, and replays it as text, which ours always is.
                if which == Which::Theirs && answer["id"].is_number() {
                    answer["id"] = answer["id"].to_string().into();
                }
                // 0.8.0 delivers another JSON value live as it came, and replays it as text.
                if answer["id"].is_number() {
                    answer["id"] = answer["id"].to_string().into();
                }
            }
            // The number that the script gave the command says which one is meant.
            "error" if commands.contains(&answer["orig"]) => {
                answer["orig"] = answer["orig"]["n"].clone();
            }
            _ => {}
        }
    }
}

/// Sends a command in one of the ways that clients have: as text, as bytes, or as the Go client
/// does, with an empty frame after it.
fn send(client: &mut Client, command: &Value) {
    let text = command.to_string();
    let frame = |part: Vec<u8>, code, last| Message::Frame(Frame::message(part, code, last));
    let messages = match command["n"].as_u64().expect("a number") % 8 {
        0 => vec![Message::binary(text)],
        1 | 2 => vec![
            frame(text.into(), OpCode::Data(Data::Text), false),
            frame(Vec::new(), OpCode::Data(Data::Continue), true),
        ],
        _ => vec![Message::text(text)],
    };
    for message in messages {
        client.socket.send(message).expect("send");
    }
}

/// What one connection hears up to the answer to a ping sent now.
fn hear(client: &mut Client) -> Result<Vec<Value>, String> {
    client.send(json!({"type": "ping", "ping": "heard"}));
    let mut heard = Vec::new();
    loop {
        let answer = next(client)?.ok_or_else(|| format!("closed after {heard:?}"))?;
        if answer["pong"] == "heard" {
            heard.pop(); // the ping's ack
            return Ok(heard);
        }
        heard.push(answer);
    }
}

/// The next message without its `server_tx`; `None` when the connection ends.
pub fn next(client: &mut Client) -> Result<Option<Value>, String> {
    loop {
        match client.socket.read() {
            Ok(Message::Text(text)) => {
                let mut answer: Value = serde_json::from_str(&text).map_err(|it| it.to_string())?;
                let sent = answer.as_object_mut().and_then(|it| it.remove("server_tx"));
                if !sent.is_some_and(|it| it.is_f64()) {
                    return Err(format!("no server_tx: {answer}"));
                }
                return Ok(Some(answer));
            }
            Ok(Message::Close(_)) => return Ok(None),
            Ok(_) => {}
            Err(tungstenite::Error::Io(error))
                if error.kind() == std::io::ErrorKind::WouldBlock =>
            {
                return Err("no answer".to_owned());
            }
            Err(_) => return Ok(None),
        }
    }
}

/// An error if two things are not the same.
pub fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    theirs: &T,
    ours: &T,
) -> Result<(), String> {
    if theirs == ours {
        return Ok(());
    }
    // Some messages are long.
    let [theirs, ours] = [theirs, ours].map(|it| format!("{it:?}").chars().take(4_000).collect());
    let (theirs, ours): (String, String) = (theirs, ours);
    Err(format!("{what}\n    theirs {theirs}\n    ours   {ours}"))
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn open(path: &std::path::Path) -> Connection {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("database");
    connection.busy_timeout(PATIENCE).expect("timeout");
    connection
}
