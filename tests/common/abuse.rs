//! What the abuse tests share: connections that break rules, connections from other addresses,
//! what the kernel says of the server, and an innocent pair of clients.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Error, HandshakeError};

use crate::common::{Client, PATIENCE, Server};

/// A connection that sends bytes as it likes.
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

    /// A connection after its handshake, with the welcome unread.
    pub fn upgraded(address: SocketAddr) -> Raw {
        let mut raw = Raw::connect(address);
        raw.send(upgrade_head("").as_bytes());
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            raw.stream.read_exact(&mut byte).expect("response head");
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        raw
    }

    /// Sends all of it; tells whether the server took it.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Everything that still comes, up to the end of the connection, however it ends.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 65_536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return bytes,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return bytes,
                Err(error) => panic!("the server keeps the connection: {error}"),
            }
        }
    }

    /// As `rest`, for an HTTP answer; gives its status.
    pub fn status(&mut self) -> u16 {
        let answer = String::from_utf8(self.rest()).expect("an HTTP answer");
        let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
        status.unwrap_or_else(|| panic!("no status in {answer:?}"))
    }

    /// Skips whole frames up to a close; gives its code.
    pub fn close_code(&mut self) -> u16 {
        let bytes = self.rest();
        let mut rest = &bytes[..];
        while let [opcode, length, tail @ ..] = rest {
            let (length, tail) = match length {
                126 => (usize::from(u16::from_be_bytes([tail[0], tail[1]])), &tail[2..]),
                127 => {
                    let bytes = tail[..8].try_into().expect("eight bytes");
                    (u64::from_be_bytes(bytes) as usize, &tail[8..])
                }
                length => (usize::from(*length), tail),
            };
            if *opcode == 0x88 {
                return u16::from_be_bytes([tail[0], tail[1]]);
            }
            rest = &tail[length..];
        }
        panic!("no close frame in {bytes:?}");
    }
}

/// The head of a good upgrade request, with more header lines.
pub fn upgrade_head(headers: &str) -> String {
    format!(
        "GET /v1 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// An upgrade request whose head has exactly that many bytes.
pub fn upgrade_head_of(bytes: usize) -> String {
    let bare = upgrade_head("X-Padding: \r\n").len();
    upgrade_head(&format!("X-Padding: {}\r\n", "x".repeat(bytes - bare)))
}

/// A masked frame; the first byte holds the flags and the opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// First bytes of frames.
pub const TEXT: u8 = 0x81;
pub const TEXT_BEGINS: u8 = 0x01;
pub const CONTINUES: u8 = 0x00;
pub const ENDS: u8 = 0x80;

/// How a connection was refused before its upgrade.
#[derive(Debug)]
pub struct Refused {
    pub status: u16,
    pub retry_after: Option<u64>,
    pub body: String,
}

/// Connects, the welcome read, or tells how it was refused; a header says who is behind the proxy.
pub fn connect_from(server: &Server, ip: Option<&str>) -> Result<Client, Refused> {
    let stream = TcpStream::connect(server.address).expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut request = server.url().into_client_request().expect("a request");
    if let Some(ip) = ip {
        request.headers_mut().insert("x-real-ip", ip.parse().expect("a header"));
    }
    match tungstenite::client(request, stream) {
        Ok((socket, _)) => {
            let mut client = Client { socket };
            assert_eq!(client.recv()["type"], "welcome");
            Ok(client)
        }
        Err(HandshakeError::Failure(Error::Http(response))) => {
            let retry_after = response.headers().get("retry-after");
            Err(Refused {
                status: response.status().as_u16(),
                retry_after: retry_after.and_then(|value| value.to_str().ok()?.parse().ok()),
                body: String::from_utf8_lossy(response.body().as_deref().unwrap_or_default())
                    .into_owned(),
            })
        }
        Err(error) => panic!("neither accepted nor refused: {error}"),
    }
}

/// A bound connection from that address.
pub fn bind_from(server: &Server, ip: &str, appid: &str, side: &str) -> Client {
    let mut client = connect_from(server, Some(ip)).expect("accepted");
    client.quiet(json!({"type": "bind", "appid": appid, "side": side}));
    client
}

/// Waits until something is so.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Two clients that do what clients do, from the code to the close, and see all of it.
pub fn innocent_exchange(server: &Server) {
    const APP: &str = "innocent";
    let mut alice = server.bind(APP, "alice");
    let nameplate = alice.allocate();
    let mailbox = alice.claim(&nameplate);
    alice.open(&mailbox);
    let mut bob = server.bind(APP, "bob");
    assert_eq!(bob.claim(&nameplate), mailbox);
    bob.open(&mailbox);
    for phase in ["pake", "version", "0"] {
        for side in ["alice", "bob"] {
            let sender = if side == "alice" { &mut alice } else { &mut bob };
            sender.send(json!({"type": "add", "phase": phase, "body": "00"}));
            assert_eq!(sender.recv()["type"], "ack");
            for client in [&mut alice, &mut bob] {
                let message = client.recv();
                assert_eq!(
                    (&message["phase"], &message["side"]),
                    (&Value::from(phase), &Value::from(side)),
                    "{message}"
                );
            }
        }
    }
    for client in [&mut alice, &mut bob] {
        assert_eq!(client.one(json!({"type": "release"}))["type"], "released");
        assert_eq!(client.one(json!({"type": "close", "mood": "happy"}))["type"], "closed");
    }
}

/// Processor time a process has used, in seconds.
pub fn processor_seconds(pid: u32) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0; // USER_HZ, the same on every Linux
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let after_name = stat.rsplit(')').next().expect("fields");
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// Memory of a process that is in RAM, in bytes.
pub fn resident_bytes(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kib = line.split_whitespace().nth(1).and_then(|word| word.parse::<usize>().ok());
    kib.expect("a number") * 1024
}

/// Open descriptors of a process.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("fd").count()
}

/// Whether a program can be run here.
pub fn has_program(name: &str) -> bool {
    let found = Command::new(name)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    found.is_ok()
}

/// The memory that the server logged as its upper bound, in bytes.
pub fn memory_bound(server: &Server) -> usize {
    let log = server.log();
    let line = log.iter().find(|line| line.contains("MiB of memory")).expect("a bound");
    let words: Vec<&str> = line.split_whitespace().collect();
    let unit = words.iter().position(|word| *word == "MiB").expect("MiB");
    words[unit - 1].parse::<usize>().expect("a number") * 1024 * 1024
}
