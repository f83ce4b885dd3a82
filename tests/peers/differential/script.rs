//! Random commands from several connections: what a seed makes of them, and playing it.
//!
//! The script knows as much of each connection's session as it needs to make commands that are
//! mostly sensible, and to see a deviation coming. What is right, only the reference knows.

use crate::common::Client;
use crate::common::random::Random;
use crate::python_server::PythonServer;
use serde_json::{Value, json};

use super::deviations::Reference;
use super::pair::{BOTH, Clients, Pair, Transcript, Which, next, same};

const CONNECTIONS_MAX: usize = 6;
const BATCH_MAX: usize = 5;
/// How often to look for another command when one would run into a deviation.
const TRIES: usize = 20;

/// Finds the apps of a seed in a database.
pub fn app_pattern(seed: u64) -> String {
    format!("app-{seed}-%")
}

/// What the script knows of a connection. Names are canonical.
#[derive(Clone, Default)]
struct Session {
    app: usize,
    side: String,
    /// With whom it has business.
    couple: usize,
    bound: bool,
    claimed: Option<String>,
    released: bool,
    /// The mailbox opened last.
    mailbox: Option<String>,
    open: bool,
    closed: bool,
    /// Its open mailbox was deleted by another connection: 0.8.0 would still add to it.
    orphan: bool,
}

impl Session {
    /// Follows a command, as far as the rules of one connection go.
    fn follow(&mut self, command: &Value) {
        let text = |field: &str| command.get(field).and_then(Value::as_str).map(str::to_owned);
        let matches = |field: &str, known: &Option<String>| match (command.get(field), known) {
            (None, known) => known.is_some(),
            (Some(_), None) => true,
            (Some(named), Some(known)) => named == known,
        };
        match command["type"].as_str() {
            Some("bind") => {
                self.bound |= command.get("appid").is_some() && command.get("side").is_some();
            }
            _ if !self.bound => {}
            Some("claim") if self.claimed.is_none() => self.claimed = text("nameplate"),
            Some("release") => self.released |= matches("nameplate", &self.claimed),
            Some("open") if !self.open => {
                self.open = command.get("mailbox").is_some();
                self.mailbox = text("mailbox").or(self.mailbox.take());
            }
            Some("close") if !self.closed && matches("mailbox", &self.mailbox) => {
                (self.closed, self.open, self.orphan) = (true, false, false);
            }
            _ => {}
        }
    }
}

struct Connection {
    clients: Clients,
    session: Session,
}

pub struct Script {
    seed: u64,
    random: Random,
    reference: Reference,
    connections: Vec<Option<Connection>>,
    /// Per app: allocated nameplates that are still there, mailboxes that claims told of.
    nameplates: Vec<Vec<String>>,
    mailboxes: Vec<Vec<String>>,
    commands_count: u64,
}

impl Script {
    pub fn new(seed: u64, reference: &PythonServer) -> Script {
        let channel = rusqlite::Connection::open(reference.file("relay.sqlite")).expect("database");
        let mut random = Random::new(seed);
        let apps_count = 1 + random.below(3);
        Script {
            seed,
            random,
            reference: Reference(channel),
            connections: (0..CONNECTIONS_MAX).map(|_| None).collect(),
            nameplates: vec![Vec::new(); apps_count],
            mailboxes: vec![Vec::new(); apps_count],
            commands_count: 0,
        }
    }

    /// Plays that many steps on both servers; tells of the first difference.
    pub fn play(mut self, pair: &mut Pair, steps: usize) -> Result<(), String> {
        for step in 0..steps {
            let at = self.random.below(CONNECTIONS_MAX);
            if self.connections[at].is_none() {
                self.connections[at] = Some(self.connect(pair)?);
            } else if self.random.one_in(12) {
                self.disconnect(at);
            } else if self.random.one_in(40) {
                self.break_off(at).map_err(|it| format!("step {step}: {it}"))?;
            } else {
                self.talk(at, pair).map_err(|it| format!("step {step}: {it}"))?;
            }
        }
        Ok(())
    }

    fn connect(&mut self, pair: &Pair) -> Result<Connection, String> {
        let clients = pair.connect()?;
        let app = self.random.below(self.nameplates.len());
        // Mostly two sides that have business with each other; a third one is in their way.
        let own = app + if self.random.one_in(5) { 2 } else { 0 };
        let partner = self.random.pick(&[0, 0, 0, 0, 1, 1, 1, 1, 2]);
        // The third one is the same in all apps.
        let couple = if partner == 2 { 0 } else { own };
        let side = format!("side-{}-{couple}-{partner}", self.seed);
        Ok(Connection {
            clients,
            session: Session { app, side, couple: own, ..Session::default() },
        })
    }

    /// Leaves, with a goodbye or without.
    fn disconnect(&mut self, at: usize) {
        let polite = self.random.one_in(2);
        for mut client in self.connections[at].take().expect("connected").clients {
            if polite {
                _ = client.socket.close(None);
                while client.socket.read().is_ok() {}
            }
        }
    }

    /// Sends what makes 0.8.0 drop the connection; ours must answer with an error and go on.
    fn break_off(&mut self, at: usize) -> Result<(), String> {
        let session = &self.connections[at].as_ref().expect("connected").session;
        let mut texts = vec!["not JSON", "[1, 2]", "\"text\"", "5", "null", "{\"type\": "];
        if !session.bound {
            texts.push(r#"{"type": "bind", "appid": 5, "side": "side"}"#);
        } else if session.claimed.is_none() {
            texts.push(r#"{"type": "claim", "nameplate": "12a"}"#);
            texts.push(r#"{"type": "claim", "nameplate": 12}"#);
        } else if !session.open {
            texts.push(r#"{"type": "open", "mailbox": 12}"#);
        }
        let text = self.random.pick(&texts);
        let [mut theirs, mut ours] = self.connections[at].take().expect("connected").clients;
        for client in [&mut theirs, &mut ours] {
            client.send_text(text);
        }
        while let Some(answer) = next(&mut theirs)? {
            if answer["type"] != "ack" {
                return Err(format!("0.8.0 answers {text} with {answer}"));
            }
        }
        let mut answer = ours.recv();
        if answer["type"] == "ack" {
            answer = ours.recv();
        }
        let orig = serde_json::from_str(text).ok().filter(Value::is_object);
        same("type", &json!("error"), &answer["type"])?;
        same("orig", &orig.unwrap_or(json!(text)), &answer["orig"])?;
        match ours.ask(json!({"type": "ping", "ping": 1})).as_slice() {
            [_, pong] if pong["pong"] == 1 => Ok(()),
            other => Err(format!("after {text}: {other:?}")),
        }
    }

    /// Sends one command, or several at once.
    fn talk(&mut self, at: usize, pair: &mut Pair) -> Result<(), String> {
        let count = if self.random.one_in(2) { 1 } else { 1 + self.random.below(BATCH_MAX) };
        let mut session = self.connections[at].as_ref().expect("connected").session.clone();
        let mut batch = Vec::new();
        for _ in 0..count {
            let mut tries = 0..TRIES;
            let command = loop {
                let command = self.command(&session);
                if !self.deviates(pair, &session, &batch, &command) {
                    break Some(command);
                }
                if tries.next().is_none() {
                    break None;
                }
            };
            let Some(command) = command else { break };
            session.follow(&command);
            batch.push(command);
        }
        let app = self.app(session.app);
        let [theirs, ours] = BOTH.map(|which| {
            let mut clients: Vec<(usize, &mut Client)> = Vec::new();
            for (at, connection) in self.connections.iter_mut().enumerate() {
                clients.extend(connection.as_mut().map(|it| (at, &mut it.clients[which as usize])));
            }
            pair.play(which, &app, &mut clients, at, &batch)
        });
        let commands = || batch.iter().map(Value::to_string).collect::<Vec<_>>().join("\n    ");
        let (theirs, ours) = (theirs?, ours?);
        same(&format!("connection {at}:\n    {}", commands()), &theirs, &ours)?;
        self.connections[at].as_mut().expect("connected").session = session;
        self.learn(at, &theirs, pair);
        Ok(())
    }

    /// Takes note of what there is now, and what no longer.
    fn learn(&mut self, at: usize, heard: &Transcript, pair: &Pair) {
        let app = self.connections[at].as_ref().expect("connected").session.app;
        for answer in &heard[at] {
            let name = |field: &str| answer[field].as_str().expect("a text").to_owned();
            match answer["type"].as_str() {
                Some("allocated") => self.nameplates[app].push(name("nameplate")),
                Some("claimed") if !self.mailboxes[app].contains(&name("mailbox")) => {
                    self.mailboxes[app].push(name("mailbox"));
                }
                _ => {}
            }
        }
        let app_id = self.app(app);
        let reference = &self.reference;
        self.nameplates[app].retain(|name| {
            reference.has_nameplate(&app_id, &pair.raw(Which::Theirs, name))
                && pair.is_current(&app_id, name)
        });
        for connection in self.connections.iter_mut().flatten() {
            let session = &mut connection.session;
            if let (true, Some(mailbox)) = (session.open, &session.mailbox) {
                session.orphan |= !reference.has_mailbox(&pair.raw(Which::Theirs, mailbox));
            }
        }
    }

    fn app(&self, index: usize) -> String {
        format!("app-{}-{index}", self.seed)
    }

    /// Whether another answer to this than 0.8.0's is right, or whether that cannot be known,
    /// because of what goes before it in its batch.
    fn deviates(&self, pair: &Pair, session: &Session, batch: &[Value], command: &Value) -> bool {
        if !session.bound {
            return false;
        }
        let app = self.app(session.app);
        let raw = |name: &str| pair.raw(Which::Theirs, name);
        let after = |kinds: &[&str]| {
            batch.iter().any(|it| it["type"].as_str().is_some_and(|it| kinds.contains(&it)))
        };
        let named = |field: &str, other: &Option<String>| match command.get(field) {
            Some(name) => name.as_str().map(str::to_owned),
            None => other.clone(),
        };
        // An allocated number may be given out again once it is free, but not the same on both.
        let gone = |name: &str| {
            name.starts_with('A')
                && (after(&["release", "close"])
                    || !self.nameplates[session.app].contains(&name.to_owned()))
        };
        match command["type"].as_str() {
            Some("claim") => command["nameplate"].as_str().is_some_and(|name| {
                gone(name) || self.reference.claim_differs(&app, &raw(name), &session.side)
            }),
            Some("release") => {
                session.claimed.as_deref().is_some_and(gone)
                    || named("nameplate", &session.claimed).is_some_and(|name| gone(&name))
            }
            Some("open") => {
                session.orphan
                    || after(&["close"])
                    || command["mailbox"].as_str().is_some_and(|name| {
                        self.reference.open_differs(&app, &raw(name), &session.side)
                    })
            }
            Some("add") => session.orphan,
            Some("close") => named("mailbox", &session.mailbox).is_some_and(|name| {
                let id = raw(&name);
                after(&["claim", "allocate"])
                    || self.reference.open_differs(&app, &id, &session.side)
                    || self.reference.close_differs(&id, &session.side)
            }),
            _ => false,
        }
    }

    /// A random command. It has a number, by which an error's `orig` is known again.
    fn command(&mut self, session: &Session) -> Value {
        let mut command = if session.bound || self.random.one_in(5) {
            self.any_command(session)
        } else {
            self.bind(session)
        };
        self.commands_count += 1;
        command["n"] = self.commands_count.into();
        if command["id"].is_null() && !self.random.one_in(4) {
            let ids =
                [json!("a1b2"), json!(""), json!(null), json!(7), json!(-12), json!("\u{fc}")];
            command["id"] = self.random.pick(&ids);
        }
        if command["type"] != "add" && self.random.one_in(8) {
            // An add stores its id, and there the types differ.
            let ids = [json!(true), json!(1.5), json!({"a": [1, null]}), json!([])];
            command["id"] = self.random.pick(&ids);
        }
        command
    }

    fn bind(&mut self, session: &Session) -> Value {
        let mut bind =
            json!({"type": "bind", "appid": self.app(session.app), "side": session.side});
        let versions = [
            json!(["python", "0.24.0"]),
            json!([null, null]),
            json!(["x", "1", "more"]),
            json!([3, "1"]),
        ];
        if self.random.one_in(2) {
            bind["client_version"] = self.random.pick(&versions);
        }
        bind
    }

    fn any_command(&mut self, session: &Session) -> Value {
        if self.random.one_in(2) {
            return self.next_of_a_transfer(session);
        }
        match self.random.below(100) {
            0..12 => json!({"type": "claim", "nameplate": self.nameplate(session)}),
            12..17 => json!({"type": "allocate"}),
            17..27 => match self.random.below(5) {
                0 => json!({"type": "release", "nameplate": self.nameplate(session)}),
                1 if session.claimed.is_some() => {
                    json!({"type": "release", "nameplate": session.claimed})
                }
                2 => json!({"type": "release", "nameplate": self.random.pick(&["none", ""])}),
                _ => json!({"type": "release"}),
            },
            27..42 => json!({"type": "open", "mailbox": self.mailbox(session)}),
            42..58 => self.add(),
            58..70 => self.close(session),
            70..77 => json!({"type": "list"}),
            77..81 => json!({"type": "ping", "ping": [1, {"deep": null}]}),
            81..84 => self.bind(session),
            _ => self.invalid(session),
        }
    }

    /// What a client would do next.
    fn next_of_a_transfer(&mut self, session: &Session) -> Value {
        if session.claimed.is_none() && self.random.one_in(2) {
            json!({"type": "claim", "nameplate": self.nameplate(session)})
        } else if !session.open && !session.closed {
            json!({"type": "open", "mailbox": self.mailbox(session)})
        } else if session.claimed.is_some() && !session.released {
            json!({"type": "release"})
        } else if session.open && self.random.one_in(2) {
            self.add()
        } else {
            self.close(session)
        }
    }

    fn add(&mut self) -> Value {
        let phases = ["pake", "version", "0", "1", ""];
        let bodies = ["", "00ff", "not hex", "\u{1f30c} \" \\ \n", "e1\u{0}e3"];
        let (phase, body) = (self.random.pick(&phases), self.random.pick(&bodies));
        // Long ones have a length of another size in their frame.
        let times = self.random.pick(&[1, 1, 1, 1, 1, 1, 1, 1, 50, 20_000]);
        json!({"type": "add", "phase": phase, "body": body.repeat(times)})
    }

    fn close(&mut self, session: &Session) -> Value {
        let mut close = json!({"type": "close"});
        if self.random.one_in(3) {
            close["mailbox"] = self.mailbox(session).into();
        } else if session.mailbox.is_some() && self.random.one_in(2) {
            close["mailbox"] = session.mailbox.clone().into();
        }
        let moods = ["happy", "lonely", "scary", "errory", "odd", ""];
        match self.random.below(8) {
            0 => close["mood"] = Value::Null,
            1 => {}
            _ => close["mood"] = self.random.pick(&moods).into(),
        }
        close
    }

    /// A command that is always refused.
    fn invalid(&mut self, session: &Session) -> Value {
        let mut commands = vec![
            json!({}),
            json!({"id": "no type"}),
            json!({"type": "ping"}),
            json!({"type": "bind", "appid": "only"}),
            json!({"type": "bind", "side": "only"}),
            json!({"type": "claim"}),
            json!({"type": "open"}),
            json!({"type": "add"}),
            json!({"type": "add", "phase": "p"}),
            json!({"type": "add", "body": "b"}),
            json!({"type": "unknown"}),
            json!({"type": null}),
            json!({"type": ["list"]}),
            json!({"type": "List"}),
        ];
        // Of a wrong type, but refused for another reason before anyone looks at it.
        if session.claimed.is_some() || !session.bound {
            commands.push(json!({"type": "claim", "nameplate": "x"}));
            commands.push(json!({"type": "claim", "nameplate": 5}));
            commands.push(json!({"type": "release", "nameplate": 5}));
            commands.push(json!({"type": "release", "nameplate": null}));
        }
        if session.open || !session.bound {
            commands.push(json!({"type": "open", "mailbox": 5}));
            commands.push(json!({"type": "close", "mailbox": 5}));
            commands.push(json!({"type": "close", "mailbox": null}));
        }
        self.random.pick(&commands)
    }

    /// Agreed upon by people, or allocated. Those agreed upon have more digits than any number that
    /// so few allocations give out.
    fn nameplate(&mut self, session: &Session) -> String {
        let live = &self.nameplates[session.app];
        if !live.is_empty() && self.random.one_in(2) {
            return self.random.pick(live);
        }
        let agreed =
            ["1000000", "0100", "100200300", "999999", "0123456789012345678901234567890123456789"];
        if self.random.one_in(6) {
            return self.random.pick(&agreed).to_owned();
        }
        agreed[session.couple].to_owned()
    }

    /// The one that the connection's claim gave is likelier than others.
    fn mailbox(&mut self, session: &Session) -> String {
        let known = &self.mailboxes[session.app];
        if !known.is_empty() && self.random.one_in(2) {
            let recent = &known[known.len().saturating_sub(3)..];
            return self.random.pick(recent);
        }
        let couple = if self.random.one_in(6) { self.random.below(4) } else { session.couple };
        format!("box-{}-{couple}", self.seed)
    }
}
