//! The floor: mio, tungstenite and SQLite doing a mailbox server's I/O with no server in between.
//!
//! The I/O is that of the server: a message is a row in a table with an index, and moves its
//! mailbox's time; it is acknowledged to its sender and passed on to both connections of its pair;
//! a ping is acknowledged and answered. All of a tick is stored in one durable transaction before
//! any of it leaves, and each connection gets one write a tick. There is no JSON, no state but the
//! pairs, no limit and no defence against misbehaving peers. It is as fast as its libraries allow:
//! an upper bound for any server built on them.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rusqlite::Connection;
use tungstenite::handshake::server::{NoCallback, ServerHandshake};
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::protocol::{WebSocket, WebSocketConfig};
use tungstenite::{Message, Utf8Bytes};

const LISTENER: Token = Token(usize::MAX);
const EVENTS_MAX: usize = 1024;

/// tungstenite clears this much before each read; the messages of the bench are far smaller.
const READ_BYTES: usize = 4096;

const WELCOME: &str = r#"{"type":"welcome"}"#;
const PONG: &str = r#"{"type":"pong"}"#;
const ACK: &str = r#"{"type":"ack","id":null,"server_tx":1700000000.1234567}"#;

/// The server's tables that messages change (manual: files 2).
const SCHEMA: &str = "
CREATE TABLE mailboxes (app_id VARCHAR, id VARCHAR PRIMARY KEY, updated INTEGER,
  for_nameplate BOOLEAN);
CREATE INDEX mailboxes_idx ON mailboxes (app_id, id);
CREATE TABLE messages (app_id VARCHAR, mailbox_id VARCHAR, side VARCHAR, phase VARCHAR,
  body VARCHAR, server_rx INTEGER, msg_id VARCHAR);
CREATE INDEX messages_idx ON messages (app_id, mailbox_id);
";
const PAGE_BYTES: i64 = 1024;
const APP: &str = "bench.example/relay";

/// Messages that are not stored begin with one of these.
const PING: &str = r#"{"type":"ping""#;
const JOIN: &str = "pair ";

/// A socket that is not read again after a short read, which means that it is empty.
#[derive(Debug)]
struct Stream {
    socket: TcpStream,
    drained: bool,
    /// The poll has reported the end of the stream, and reports it only once.
    ends: bool,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.drained {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.socket.read(buffer)?;
        self.drained = count < buffer.len() && !self.ends;
        Ok(count)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Handshake = MidHandshake<ServerHandshake<Stream, NoCallback>>;

enum Conn {
    Shaking(Box<Handshake>),
    Open(Box<WebSocket<Stream>>, Option<usize>),
}

/// A running floor program.
struct Floor {
    poll: Poll,
    listener: TcpListener,
    database: Connection,
    conns: Vec<Option<Conn>>,
    pairs: Vec<Vec<usize>>,
    /// The pairs' mailboxes; a pair's row is its number and one.
    mailboxes: Vec<String>,
    /// Messages of this tick, with their pairs and senders.
    messages: Vec<(usize, usize, Utf8Bytes)>,
    /// Connections that are to be written to in this tick.
    dirty: Vec<usize>,
}

/// Serves until killed.
pub fn run(address: SocketAddr, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let database = Connection::open(file)?;
    database.pragma_update(None, "page_size", PAGE_BYTES)?;
    database.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    database.pragma_update(None, "synchronous", "full")?;
    database.execute_batch(SCHEMA)?;
    let poll = Poll::new()?;
    let mut listener = TcpListener::bind(address)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut floor = Floor {
        poll,
        listener,
        database,
        conns: Vec::new(),
        pairs: Vec::new(),
        mailboxes: Vec::new(),
        messages: Vec::new(),
        dirty: Vec::new(),
    };
    let mut events = Events::with_capacity(EVENTS_MAX);
    loop {
        floor.tick(&mut events)?;
    }
}

impl Floor {
    fn tick(&mut self, events: &mut Events) -> Result<(), Box<dyn std::error::Error>> {
        match self.poll.poll(events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            outcome => outcome?,
        }
        for event in events.iter() {
            match event.token() {
                LISTENER => self.accept()?,
                Token(id) if event.is_readable() => self.read(id, event.is_read_closed()),
                Token(id) => self.dirty.push(id),
            }
        }
        self.store()?;
        for (pair, sender, text) in self.messages.drain(..) {
            write(&mut self.conns, &mut self.dirty, sender, Utf8Bytes::from_static(ACK));
            for id in &self.pairs[pair] {
                write(&mut self.conns, &mut self.dirty, *id, text.clone());
            }
        }
        self.dirty.sort_unstable();
        self.dirty.dedup();
        for id in self.dirty.drain(..) {
            if let Some(Some(Conn::Open(socket, _))) = self.conns.get_mut(id) {
                _ = socket.flush(); // blocked: a writable event follows; lost: reading shows it
            }
        }
        Ok(())
    }

    fn store(&mut self) -> rusqlite::Result<()> {
        if self.messages.is_empty() {
            return Ok(());
        }
        let database = &self.database;
        database.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        while self.mailboxes.len() < self.pairs.len() {
            let mailbox = format!("mailbox{:06}", self.mailboxes.len());
            database.execute(
                "INSERT INTO mailboxes (rowid, app_id, id, for_nameplate) VALUES (?1, ?2, ?3, 0)",
                (self.mailboxes.len() as i64 + 1, APP, &mailbox),
            )?;
            self.mailboxes.push(mailbox);
        }
        let mut insert = database.prepare_cached(
            "INSERT INTO messages (app_id, mailbox_id, side, phase, body, server_rx, msg_id) \
             VALUES (?1, ?2, 'aaaaaaaaaa', '0', ?3, ?4, NULL)",
        )?;
        let mut touch =
            database.prepare_cached("UPDATE mailboxes SET updated = ?1 WHERE rowid = ?2")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        for (pair, _, text) in &self.messages {
            insert.execute((APP, &self.mailboxes[*pair], text.as_str(), now))?;
            touch.execute((now, *pair as i64 + 1))?;
        }
        database.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            socket.set_nodelay(true)?;
            let id = self.conns.len();
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, Token(id), interest)?;
            let config = WebSocketConfig::default().read_buffer_size(READ_BYTES);
            let stream = Stream { socket, drained: false, ends: false };
            self.conns.push(None);
            self.shaken(id, tungstenite::accept_with_config(stream, Some(config)));
        }
    }

    /// Stores the connection after a step of its handshake.
    fn shaken(
        &mut self,
        id: usize,
        outcome: Result<WebSocket<Stream>, HandshakeError<ServerHandshake<Stream, NoCallback>>>,
    ) {
        self.conns[id] = match outcome {
            Ok(socket) => Some(Conn::Open(Box::new(socket), None)),
            Err(HandshakeError::Interrupted(handshake)) => Some(Conn::Shaking(Box::new(handshake))),
            Err(HandshakeError::Failure(_)) => None,
        };
        if let Some(Conn::Open(..)) = self.conns[id] {
            write(&mut self.conns, &mut self.dirty, id, Utf8Bytes::from_static(WELCOME));
        }
    }

    fn read(&mut self, id: usize, ends: bool) {
        match self.conns[id].take() {
            None => return,
            Some(Conn::Shaking(mut handshake)) => {
                handshake.get_mut().get_mut().drained = false;
                return self.shaken(id, handshake.handshake());
            }
            open => self.conns[id] = open,
        }
        let Some(Conn::Open(socket, pair)) = &mut self.conns[id] else { return };
        socket.get_mut().drained = false;
        socket.get_mut().ends |= ends;
        loop {
            match socket.read() {
                Ok(Message::Text(text)) => match *pair {
                    _ if text.starts_with(PING) => {
                        _ = socket.write(Message::Text(Utf8Bytes::from_static(ACK)));
                        _ = socket.write(Message::Text(Utf8Bytes::from_static(PONG)));
                        self.dirty.push(id);
                    }
                    Some(pair) => self.messages.push((pair, id, text)),
                    None => {
                        let number = text.strip_prefix(JOIN).and_then(|it| it.parse().ok());
                        *pair = number;
                        join(&mut self.pairs, number.unwrap_or(0), id);
                        _ = socket.write(Message::Text(Utf8Bytes::from_static(PONG)));
                        self.dirty.push(id);
                    }
                },
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return;
                }
                Err(_) => {
                    self.conns[id] = None;
                    return;
                }
            }
        }
    }
}

/// A third one begins the pair anew: the two before are of an earlier run.
fn join(pairs: &mut Vec<Vec<usize>>, pair: usize, id: usize) {
    if pairs.len() <= pair {
        pairs.resize(pair + 1, Vec::new());
    }
    if pairs[pair].len() == 2 {
        pairs[pair].clear();
    }
    pairs[pair].push(id);
}

/// Queues a text; it leaves with the flush at the end of the tick.
fn write(conns: &mut [Option<Conn>], dirty: &mut Vec<usize>, id: usize, text: Utf8Bytes) {
    if let Some(Some(Conn::Open(socket, _))) = conns.get_mut(id) {
        _ = socket.write(Message::Text(text)); // lost: reading shows it
        dirty.push(id);
    }
}
