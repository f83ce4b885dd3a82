//! A WebSocket client that speaks JSON, as itself or for an address behind a trusted proxy.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

use super::{PATIENCE, Server};

/// A WebSocket client.
pub struct Client {
    pub socket: WebSocket<TcpStream>,
}

impl Client {
    /// Connects without reading anything.
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        let (socket, _) =
            tungstenite::client(format!("ws://{address}/v1"), stream).expect("handshake");
        // Only now: a read with a timeout can be interrupted when a child process ends, and an
        // interrupted handshake cannot go on.
        socket.get_ref().set_read_timeout(Some(PATIENCE)).expect("timeout");
        Client { socket }
    }

    /// The connection once it is bound.
    pub fn bound(mut self, appid: &str, side: &str) -> Client {
        self.send(json!({"type": "bind", "appid": appid, "side": side}));
        assert_eq!(self.recv()["type"], "ack");
        self
    }

    pub fn send(&mut self, message: Value) {
        self.send_text(&message.to_string());
    }

    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("send");
    }

    /// The next message, without its `server_tx`, whose presence is checked.
    pub fn recv(&mut self) -> Value {
        let mut message = self.recv_raw();
        let server_tx = message.as_object_mut().expect("an object").remove("server_tx");
        assert!(server_tx.is_some_and(|it| it.is_f64()), "server_tx missing");
        message
    }

    /// Reads on when a signal interrupts.
    fn read(&mut self) -> tungstenite::Result<Message> {
        loop {
            match self.socket.read() {
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }

    /// The next message as it came.
    pub fn recv_raw(&mut self) -> Value {
        loop {
            match self.read().expect("a message") {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Sends a command and returns what comes up to the answer of a ping sent after it: the ack,
    /// then all it caused here.
    pub fn ask(&mut self, command: Value) -> Vec<Value> {
        self.send(command);
        self.send(json!({"type": "ping", "ping": "asked"}));
        let mut answers = Vec::new();
        loop {
            let answer = self.recv();
            if answer == json!({"type": "pong", "pong": "asked"}) {
                answers.pop(); // the ping's ack
                return answers;
            }
            answers.push(answer);
        }
    }

    /// Sends a command that has one answer besides the ack; returns that.
    pub fn one(&mut self, command: Value) -> Value {
        let mut answers = self.ask(command.clone());
        assert_eq!(answers.len(), 2, "ack and one answer to {command}: {answers:?}");
        assert_eq!(answers[0]["type"], "ack");
        answers.remove(1)
    }

    /// Sends a command that is refused; returns the error's text.
    pub fn error(&mut self, command: Value) -> String {
        let answer = self.one(command.clone());
        assert_eq!(answer["type"], "error", "{command}: {answer}");
        assert_eq!(answer["orig"], command);
        answer["error"].as_str().expect("a text").to_owned()
    }

    /// Sends a command that has no answer besides the ack.
    pub fn quiet(&mut self, command: Value) {
        let answers = self.ask(command.clone());
        assert_eq!(answers.len(), 1, "only an ack to {command}: {answers:?}");
        assert_eq!(answers[0]["type"], "ack");
    }

    pub fn allocate(&mut self) -> String {
        let answer = self.one(json!({"type": "allocate"}));
        answer["nameplate"].as_str().unwrap_or_else(|| panic!("allocated: {answer}")).to_owned()
    }

    pub fn claim(&mut self, nameplate: &str) -> String {
        let answer = self.one(json!({"type": "claim", "nameplate": nameplate}));
        answer["mailbox"].as_str().unwrap_or_else(|| panic!("claimed: {answer}")).to_owned()
    }

    /// Opens a mailbox; returns what is replayed.
    pub fn open(&mut self, mailbox: &str) -> Vec<Value> {
        let mut answers = self.ask(json!({"type": "open", "mailbox": mailbox}));
        assert_eq!(answers.remove(0)["type"], "ack");
        answers
    }

    /// The nameplates that are listed.
    pub fn list(&mut self) -> Vec<String> {
        let answer = self.one(json!({"type": "list"}));
        let list = answer["nameplates"].as_array().unwrap_or_else(|| panic!("{answer}")).iter();
        list.map(|it| it["id"].as_str().expect("a text").to_owned()).collect()
    }

    /// Releases the nameplate of the connection.
    pub fn release(&mut self) {
        assert_eq!(self.one(json!({"type": "release"})), json!({"type": "released"}));
    }

    /// Closes the mailbox of the connection without a mood.
    pub fn close(&mut self) {
        assert_eq!(self.one(json!({"type": "close"})), json!({"type": "closed"}));
    }

    /// Waits for an end without a close frame.
    pub fn assert_lost(&mut self) {
        loop {
            match self.read() {
                Ok(Message::Close(frame)) => panic!("a close frame: {frame:?}"),
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("still open")
                }
                Err(_) => return,
            }
        }
    }

    /// The code of the close frame that ends the connection.
    pub fn close_code(&mut self) -> u16 {
        loop {
            match self.read() {
                Ok(Message::Close(Some(frame))) => return frame.code.into(),
                Ok(_) => {}
                Err(error) => panic!("no close frame: {error}"),
            }
        }
    }
}

/// A connection over a unix socket is upgraded and welcomed.
pub fn assert_welcomed(stream: UnixStream) {
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let (mut socket, _) = tungstenite::client("ws://localhost/v1", stream).expect("handshake");
    let welcome = socket.read().expect("a welcome").into_text().expect("text");
    assert!(welcome.contains(r#""type":"welcome""#), "{welcome}");
}

/// An HTTP answer in place of an upgrade.
#[derive(Debug)]
pub struct Refused {
    pub status: u16,
    pub retry_after: Option<u64>,
    pub body: String,
}

impl Server {
    /// The keys of the welcome that the operator has set.
    pub fn operators_welcome(&self) -> Value {
        let mut welcome = Client::connect(self.address).recv()["welcome"].take();
        welcome.as_object_mut().expect("an object").remove("your-address");
        welcome
    }

    /// A connection with its welcome read.
    pub fn connect(&self) -> Client {
        let mut client = Client::connect(self.address);
        assert_eq!(client.recv()["type"], "welcome");
        client
    }

    /// A bound connection.
    pub fn bind(&self, appid: &str, side: &str) -> Client {
        self.connect().bound(appid, side)
    }

    /// A connection with its welcome read, or the answer that refused it. A header says that it
    /// comes from `ip`, if any.
    pub fn connect_from(&self, ip: Option<&str>) -> Result<Client, Refused> {
        let stream = TcpStream::connect(self.address).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let mut request = self.url().into_client_request().expect("a request");
        if let Some(ip) = ip {
            request.headers_mut().insert("x-real-ip", ip.parse().expect("a header"));
            request.headers_mut().insert("x-real-port", "4711".parse().expect("a header"));
        }
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => {
                let mut client = Client { socket };
                assert_eq!(client.recv()["type"], "welcome");
                Ok(client)
            }
            Err(HandshakeError::Failure(Error::Http(response))) => {
                let retry_after = response.headers().get("retry-after");
                let body = response.body().as_deref().unwrap_or_default();
                Err(Refused {
                    status: response.status().as_u16(),
                    retry_after: retry_after.and_then(|value| value.to_str().ok()?.parse().ok()),
                    body: String::from_utf8_lossy(body).into_owned(),
                })
            }
            // By a signal of another test in this process.
            Err(HandshakeError::Failure(Error::Io(error)))
                if error.kind() == std::io::ErrorKind::Interrupted =>
            {
                self.connect_from(ip)
            }
            Err(error) => panic!("neither accepted nor refused: {error}"),
        }
    }

    /// A bound connection from that address.
    pub fn bind_from(&self, ip: &str, appid: &str, side: &str) -> Client {
        self.connect_from(Some(ip)).expect("accepted").bound(appid, side)
    }
}

/// The application of [`exchange`].
pub const EXCHANGE_APP: &str = "secret-app";

/// Messages that each side of [`exchange`] adds.
pub const MESSAGES_EACH: u64 = 2;

/// A whole exchange, from the code to the close, in which both sides see all that they must see.
pub fn exchange(server: &Server, mood: &str) {
    let join = |side: &str| {
        let mut client = server.connect();
        client.quiet(json!({
            "type": "bind", "appid": EXCHANGE_APP, "side": side,
            "client_version": ["tester", "1.2"],
        }));
        client
    };
    let sides = ["secret-side-1", "secret-side-2"];
    let mut clients = sides.map(join);
    let nameplate = clients[0].allocate();
    let mailbox = clients[0].claim(&nameplate);
    assert_eq!(clients[1].claim(&nameplate), mailbox);
    for client in &mut clients {
        client.open(&mailbox);
        assert_eq!(client.one(json!({"type": "release"}))["type"], "released");
    }
    for number in 0..MESSAGES_EACH {
        for (index, side) in sides.into_iter().enumerate() {
            let phase = number.to_string();
            clients[index].send(json!({"type": "add", "phase": phase, "body": "00ff"}));
            assert_eq!(clients[index].recv()["type"], "ack");
            for client in &mut clients {
                let message = client.recv();
                let told = (message["phase"].as_str(), message["side"].as_str());
                assert_eq!(told, (Some(&*phase), Some(side)), "{message}");
            }
        }
    }
    for client in &mut clients {
        assert_eq!(client.one(json!({"type": "close", "mood": mood}))["type"], "closed");
    }
}
