//! A client that sends arbitrary bytes: for HTTP heads and for frames that no library would send.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::Value;

use super::PATIENCE;

/// First bytes of frames: the final bit with the opcode.
pub const TEXT_BEGINS: u8 = 0x01;
pub const BINARY_BEGINS: u8 = 0x02;
pub const CONTINUES: u8 = 0x00;
pub const ENDS: u8 = 0x80;
pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

/// The key of RFC 6455's example, and what it must be answered with.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// An upgrade request for a target, with header lines added (each with its line end).
pub fn upgrade(target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{headers}\r\n"
    )
}

/// An upgrade request whose head has exactly that many bytes.
pub fn upgrade_of(bytes: usize) -> String {
    let bare = upgrade("/v1", "X-Padding: \r\n").len();
    upgrade("/v1", &format!("X-Padding: {}\r\n", "x".repeat(bytes - bare)))
}

/// A masked frame, as a client must send it.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];
    let mut bytes = header(first, payload.len() as u64, true);
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A frame's first byte and length, without its mask.
pub fn header(first: u8, payload_bytes: u64, masked: bool) -> Vec<u8> {
    let mask_bit = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload_bytes {
        0..126 => bytes.push(mask_bit | payload_bytes as u8),
        126..65_536 => {
            bytes.push(mask_bit | 126);
            bytes.extend((payload_bytes as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask_bit | 127);
            bytes.extend(payload_bytes.to_be_bytes());
        }
    }
    bytes
}

/// A connection without any protocol.
pub struct Raw {
    pub stream: TcpStream,
}

impl Raw {
    pub fn connect(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Raw { stream }
    }

    /// A WebSocket with its welcome unread.
    pub fn upgraded(address: SocketAddr) -> Raw {
        let mut raw = Raw::connect(address);
        raw.send(upgrade("/v1", "").as_bytes());
        assert!(raw.head().starts_with("HTTP/1.1 101 "));
        raw
    }

    /// A WebSocket with its welcome read.
    pub fn open(address: SocketAddr) -> Raw {
        let mut raw = Raw::upgraded(address);
        assert_eq!(raw.json()["type"], "welcome");
        raw
    }

    /// Sends as much as the server takes; returns whether that was all.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send");
    }

    pub fn send_json(&mut self, message: &Value) {
        self.send(&frame(TEXT, message.to_string().as_bytes()));
    }

    pub fn end_of_input(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("shutdown");
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).expect("bytes");
        bytes
    }

    /// An answer's head, up to and with the empty line.
    pub fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.bytes(1));
        }
        String::from_utf8(head).expect("UTF-8")
    }

    /// All that comes until the server ends the connection, which must not be by a reset.
    pub fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("an orderly end");
        String::from_utf8(rest).expect("UTF-8")
    }

    /// All that comes until the connection ends, orderly or by a reset.
    pub fn drain(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Err(error) = self.stream.read_to_end(&mut bytes) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        }
        bytes
    }

    /// As `drain`, for an HTTP answer; returns its status.
    pub fn status(&mut self) -> u16 {
        let answer = String::from_utf8(self.drain()).expect("an HTTP answer");
        let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
        status.unwrap_or_else(|| panic!("no status in {answer:?}"))
    }

    /// The next frame: its first byte and its payload.
    pub fn frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.bytes(2);
        assert!(head[1] < 0x80, "servers do not mask");
        let payload_bytes = match head[1] {
            126 => u16::from_be_bytes(self.bytes(2).try_into().expect("two")).into(),
            127 => u64::from_be_bytes(self.bytes(8).try_into().expect("eight")),
            short => short.into(),
        };
        (head[0], self.bytes(payload_bytes as usize))
    }

    /// The next frame, which must be a whole text message.
    pub fn json(&mut self) -> Value {
        let (first, payload) = self.frame();
        assert_eq!(first, TEXT, "{payload:?}");
        serde_json::from_slice(&payload).expect("JSON")
    }

    /// The code of the close frame that ends the connection, after whatever frames.
    pub fn last_close_code(&mut self) -> u16 {
        loop {
            let (first, payload) = self.frame();
            if first == CLOSE {
                self.drain();
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    }

    /// The code of the close frame that comes next; after it the connection must end.
    pub fn close_code(&mut self) -> u16 {
        let (first, payload) = self.frame();
        assert_eq!(first, CLOSE, "{payload:?}");
        assert_eq!(self.rest(), "");
        u16::from_be_bytes([payload[0], payload[1]])
    }
}

/// Sends a request and returns all that comes until the end of the connection.
pub fn answer_to(address: SocketAddr, request: impl AsRef<[u8]>) -> String {
    let mut raw = Raw::connect(address);
    raw.send(request.as_ref());
    raw.rest()
}
