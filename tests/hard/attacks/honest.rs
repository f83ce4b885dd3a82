//! An honest client, and a whole exchange of two. Failures are returned: under attack they are
//! what is measured.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

/// How long an honest client waits for anything before it counts as failed.
pub const HONEST_PATIENCE: Duration = Duration::from_secs(20);

pub struct Honest {
    pub socket: WebSocket<TcpStream>,
    pub welcome: Value,
    /// Of the nameplate that it claimed.
    pub mailbox: String,
}

impl Honest {
    /// Connects from that address, as a trusted proxy reports it, and reads the welcome.
    pub fn connect(server: SocketAddr, from: &str) -> Result<Honest, String> {
        let stream = TcpStream::connect(server).map_err(|error| format!("connect: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(HONEST_PATIENCE)).map_err(|error| error.to_string())?;
        stream.set_write_timeout(Some(HONEST_PATIENCE)).map_err(|error| error.to_string())?;
        let mut request = format!("ws://{server}/v1").into_client_request().expect("a request");
        request.headers_mut().insert("x-real-ip", from.parse().expect("a header"));
        let (socket, _) = tungstenite::client(request, stream).map_err(|error| match error {
            HandshakeError::Failure(Error::Http(response)) => {
                format!("handshake: HTTP {}", response.status().as_u16())
            }
            other => format!("handshake: {other}"),
        })?;
        let mut honest = Honest { socket, welcome: Value::Null, mailbox: String::new() };
        honest.welcome = honest.wait_for("welcome")?;
        Ok(honest)
    }

    pub fn bind(server: SocketAddr, from: &str, app: &str, side: &str) -> Result<Honest, String> {
        let mut honest = Honest::connect(server, from)?;
        honest.send(&json!({"type": "bind", "appid": app, "side": side}))?;
        Ok(honest)
    }

    pub fn send(&mut self, command: &Value) -> Result<(), String> {
        let sent = self.socket.send(Message::text(command.to_string()));
        sent.map_err(|error| format!("send: {error}"))
    }

    /// Skips messages up to one of that type; an `error` is a failure.
    pub fn wait_for(&mut self, kind: &str) -> Result<Value, String> {
        loop {
            let text = match self.socket.read() {
                Ok(Message::Text(text)) => text,
                Ok(Message::Close(frame)) => return Err(format!("closed, no {kind}: {frame:?}")),
                Ok(_) => continue,
                Err(error) => return Err(format!("no {kind}: {error}")),
            };
            let message: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            if message["type"] == kind {
                return Ok(message);
            }
            if message["type"] == "error" {
                return Err(format!("no {kind}: {}", message["error"]));
            }
        }
    }

    /// Sends a command and returns its answer of that type.
    pub fn ask(&mut self, command: &Value, answer: &str) -> Result<Value, String> {
        self.send(command)?;
        self.wait_for(answer)
    }

    /// Allocates a nameplate, claims it and opens its mailbox.
    pub fn begin(&mut self) -> Result<String, String> {
        let allocated = self.ask(&json!({"type": "allocate"}), "allocated")?;
        let nameplate = allocated["nameplate"].as_str().unwrap_or_default().to_owned();
        self.join(&nameplate)?;
        Ok(nameplate)
    }

    /// Claims a nameplate and opens its mailbox.
    pub fn join(&mut self, nameplate: &str) -> Result<(), String> {
        let claimed = self.ask(&json!({"type": "claim", "nameplate": nameplate}), "claimed")?;
        self.mailbox = claimed["mailbox"].as_str().unwrap_or_default().to_owned();
        self.send(&json!({"type": "open", "mailbox": self.mailbox}))
    }

    /// Adds a message and waits for its echo.
    pub fn add(&mut self, phase: &str) -> Result<(), String> {
        let add = json!({"type": "add", "phase": phase, "body": "00".repeat(40)});
        self.ask(&add, "message").map(|_| ())
    }
}

/// Both sides have joined: messages both ways, then release and close.
pub fn finish(one: &mut Honest, two: &mut Honest) -> Result<(), String> {
    for phase in ["pake", "version", "0"] {
        for client in [&mut *one, &mut *two] {
            client.add(phase)?;
        }
    }
    for client in [one, two] {
        client.ask(&json!({"type": "release"}), "released")?;
        client.ask(&json!({"type": "close", "mood": "happy"}), "closed")?;
    }
    Ok(())
}

/// A whole transfer between two addresses.
pub fn transfer(server: SocketAddr, from: [&str; 2], app: &str) -> Result<(), String> {
    let mut one = Honest::bind(server, from[0], app, "one")?;
    let nameplate = one.begin()?;
    let mut two = Honest::bind(server, from[1], app, "two")?;
    two.join(&nameplate)?;
    finish(&mut one, &mut two)
}
