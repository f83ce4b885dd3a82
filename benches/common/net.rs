//! Many WebSocket clients in one thread: a mio loop that costs as little as possible, so that the
//! server is the bottleneck and not the tool.
//!
//! Frames are encoded here (masked with one fixed key: legal, and the server's work is the same)
//! and decoded with tungstenite's header parser, in place. What the clients say is the driver's
//! business.

use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Bytes read from one socket at a time.
const READ_BYTES: usize = 64 * 1024;

/// Readiness events taken at a time.
const EVENTS_MAX: usize = 1024;

/// The key that all frames are masked with.
const MASK: [u8; 4] = [0x5a, 0x17, 0xc3, 0x6e];

/// The key of every handshake; a server only hashes it.
const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A client's number; used again after the client is gone.
pub type PeerId = usize;

/// Where the server is.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
    host: String,
    path: String,
}

impl Target {
    /// Takes a URL apart.
    pub fn parse(url: &str) -> Result<Target, String> {
        let rest = url.strip_prefix("ws://").ok_or_else(|| {
            format!("'{url}' is not a ws:// URL (TLS is not spoken here: load the server itself)")
        })?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, "v1"));
        let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        let address = with_port
            .to_socket_addrs()
            .map_err(|error| format!("cannot resolve '{host}': {error}"))?
            .next()
            .ok_or_else(|| format!("'{host}' has no address"))?;
        Ok(Target { address, host: host.to_owned(), path: format!("/{path}") })
    }

    fn request(&self) -> String {
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {WEBSOCKET_KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n",
            self.path, self.host
        )
    }
}

/// What the clients do.
pub trait Driver {
    /// A text message came.
    fn text(&mut self, net: &mut Net, peer: PeerId, text: &str);

    /// The server has closed, or the connection was lost. Most drivers do not expect it.
    fn gone(&mut self, net: &mut Net, _peer: PeerId) {
        net.fail("the server closed a connection".to_owned());
    }

    /// Called before each sleep; says how long it may last.
    fn before_sleep(&mut self, _net: &mut Net) -> Option<Duration> {
        None
    }
}

#[derive(Debug)]
struct Peer {
    stream: TcpStream,
    upgraded: bool,
    /// We have said that we close.
    closing: bool,
    /// The beginning of something that has not come in whole.
    input: Vec<u8>,
    output: Vec<u8>,
}

/// All clients.
#[derive(Debug)]
pub struct Net {
    target: Target,
    poll: Poll,
    peers: Vec<Option<Peer>>,
    free: Vec<PeerId>,
    /// Peers with new output.
    dirty: Vec<PeerId>,
    failure: Option<String>,
}

impl Net {
    pub fn new(target: Target) -> io::Result<Net> {
        Ok(Net {
            target,
            poll: Poll::new()?,
            peers: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            failure: None,
        })
    }

    /// Begins to connect. The first text from the server, its welcome, shows that it worked. Texts
    /// sent before that follow the handshake at once.
    pub fn connect(&mut self) -> PeerId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.peers.push(None);
            self.peers.len() - 1
        });
        match self.open(id) {
            Ok(peer) => self.peers[id] = Some(peer),
            Err(error) => self.fail(format!("cannot connect: {error}")),
        }
        id
    }

    fn open(&mut self, id: PeerId) -> io::Result<Peer> {
        let mut stream = TcpStream::connect(self.target.address)?;
        stream.set_nodelay(true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(id), interest)?;
        let output = self.target.request().into_bytes();
        Ok(Peer { stream, upgraded: false, closing: false, input: Vec::new(), output })
    }

    /// Queues a text message; it leaves when the driver's call returns.
    pub fn send(&mut self, id: PeerId, text: &str) {
        self.queue(id, OpCode::Data(Data::Text), text.as_bytes());
    }

    /// Queues a close; `gone` is called when the server has answered it.
    pub fn close(&mut self, id: PeerId) {
        if let Some(peer) = &mut self.peers[id] {
            peer.closing = true;
        }
        self.queue(id, OpCode::Control(Control::Close), &[]);
    }

    fn queue(&mut self, id: PeerId, opcode: OpCode, payload: &[u8]) {
        if let Some(peer) = &mut self.peers[id] {
            if peer.output.is_empty() {
                self.dirty.push(id);
            }
            frame(opcode, payload, &mut peer.output);
        }
    }

    /// Ends the run; the first reason counts.
    pub fn fail(&mut self, reason: String) {
        self.failure.get_or_insert(reason);
    }

    /// Clients that are connected or connecting.
    pub fn peers_count(&self) -> usize {
        self.peers.len() - self.free.len()
    }

    /// Runs the clients until `done`, asked once per turn, says so.
    pub fn run<D: Driver>(
        &mut self,
        driver: &mut D,
        mut done: impl FnMut(&mut D, &mut Net) -> Option<Duration>,
    ) -> Result<(), String> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut buffer = vec![0; READ_BYTES];
        while let Some(mut patience) = done(driver, self) {
            if let Some(limit) = driver.before_sleep(self) {
                patience = patience.min(limit);
            }
            self.flush();
            match self.poll.poll(&mut events, Some(patience)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                outcome => outcome.map_err(|error| format!("poll: {error}"))?,
            }
            for event in &events {
                let id = event.token().0;
                if event.is_writable() {
                    self.write(id);
                }
                if event.is_readable() || event.is_error() || event.is_read_closed() {
                    self.read(id, &mut buffer, event.is_read_closed(), driver);
                }
                self.flush();
            }
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
        }
        Ok(())
    }

    fn flush(&mut self) {
        while let Some(id) = self.dirty.pop() {
            self.write(id);
        }
    }

    fn write(&mut self, id: PeerId) {
        let Some(Some(peer)) = self.peers.get_mut(id) else { return };
        while !peer.output.is_empty() {
            match peer.stream.write(&peer.output) {
                Ok(written) => drop(peer.output.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    return self.fail(format!("cannot connect: {error}"));
                }
                // Blocked or still connecting: a writable event follows. Lost: reading shows it.
                Err(_) => return,
            }
        }
    }

    fn read<D: Driver>(&mut self, id: PeerId, buffer: &mut [u8], ends: bool, driver: &mut D) {
        loop {
            let Some(Some(peer)) = self.peers.get_mut(id) else { return };
            match peer.stream.read(buffer) {
                Ok(0) => return self.lose(id, None, driver),
                Ok(count) => {
                    // A short read has emptied the socket, and the poll reports more input. It
                    // reports the end of the stream only once.
                    let drained = count < buffer.len() && !ends;
                    if peer.input.is_empty() {
                        let used = self.handle(id, &buffer[..count], driver);
                        self.keep(id, &buffer[used..count]);
                    } else {
                        let mut input = std::mem::take(&mut peer.input);
                        input.extend_from_slice(&buffer[..count]);
                        let used = self.handle(id, &input, driver);
                        input.drain(..used);
                        self.keep(id, &input);
                    }
                    if drained {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.lose(id, Some(error), driver),
            }
        }
    }

    fn keep(&mut self, id: PeerId, rest: &[u8]) {
        if let Some(peer) = &mut self.peers[id]
            && !rest.is_empty()
        {
            peer.input.extend_from_slice(rest);
        }
    }

    fn lose<D: Driver>(&mut self, id: PeerId, error: Option<io::Error>, driver: &mut D) {
        let Some(peer) = self.peers[id].take() else { return };
        self.free.push(id);
        match error {
            Some(error) if !peer.closing => self.fail(format!("a connection failed: {error}")),
            None if !peer.upgraded => self.fail("the server hung up in the handshake".to_owned()),
            _ => driver.gone(self, id),
        }
    }

    /// Handles input from the beginning; returns the number of bytes consumed.
    fn handle<D: Driver>(&mut self, id: PeerId, input: &[u8], driver: &mut D) -> usize {
        let mut used = 0;
        if self.peers[id].as_ref().is_some_and(|peer| !peer.upgraded) {
            match self.upgrade(id, input) {
                Some(head_bytes) => used = head_bytes,
                None => return 0,
            }
        }
        while let Some((header, start, end)) = self.next_frame(&input[used..]) {
            let payload = &input[used + start..used + end];
            used += end;
            match header.opcode {
                OpCode::Data(Data::Text) if header.is_final => match std::str::from_utf8(payload) {
                    Ok(text) => driver.text(self, id, text),
                    Err(_) => self.fail("a text message is not UTF-8".to_owned()),
                },
                OpCode::Control(Control::Ping) => {
                    self.queue(id, OpCode::Control(Control::Pong), payload);
                }
                OpCode::Control(Control::Pong) => {}
                OpCode::Control(Control::Close) => {
                    if self.peers[id].as_ref().is_some_and(|peer| !peer.closing) {
                        self.queue(id, header.opcode, payload);
                    }
                    // From now on only the end of the stream matters.
                }
                _ => self.fail("the server sent a frame that no mailbox server sends".to_owned()),
            }
        }
        used
    }

    /// Finds the end of the handshake answer.
    fn upgrade(&mut self, id: PeerId, input: &[u8]) -> Option<usize> {
        const END: &[u8] = b"\r\n\r\n";
        let head_bytes = input.windows(END.len()).position(|window| window == END)? + END.len();
        if !input.starts_with(b"HTTP/1.1 101") {
            let status = String::from_utf8_lossy(input).lines().next().unwrap_or("").to_owned();
            self.fail(format!("the server refused the WebSocket: {status}"));
            return None;
        }
        if let Some(peer) = &mut self.peers[id] {
            peer.upgraded = true;
        }
        Some(head_bytes)
    }

    /// The first frame of the input, if it is whole: its header, and where its payload is.
    fn next_frame(&mut self, input: &[u8]) -> Option<(FrameHeader, usize, usize)> {
        let mut cursor = Cursor::new(input);
        match FrameHeader::parse(&mut cursor) {
            Ok(Some((header, payload_bytes))) => {
                let start = cursor.position() as usize;
                let end = start.checked_add(usize::try_from(payload_bytes).ok()?)?;
                (end <= input.len()).then_some((header, start, end))
            }
            Ok(None) => None,
            Err(error) => {
                self.fail(format!("a malformed frame came: {error}"));
                None
            }
        }
    }
}

/// Appends a masked frame.
pub fn frame(opcode: OpCode, payload: &[u8], output: &mut Vec<u8>) {
    let header = FrameHeader {
        is_final: true,
        rsv1: false,
        rsv2: false,
        rsv3: false,
        opcode,
        mask: Some(MASK),
    };
    // Writing to memory cannot fail.
    _ = header.format(payload.len() as u64, output);
    output.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}
