//! HTTP request head → upgrade, plain answer, or "need more" (contract section 1).
//!
//! Pure: bytes in, bytes out. tungstenite parses and answers the WebSocket handshake; what it
//! cannot do (HEAD, other methods and versions, plain answers) is decided from the request line.

use crate::message::peer::Forwarded;
use std::net::IpAddr;

use tungstenite::error::{Error, ProtocolError};
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::http::HeaderMap;

/// What to do about the bytes received so far.
#[derive(Debug)]
pub enum Head {
    /// The head is not complete.
    Incomplete,
    /// Send these bytes and close.
    Answer(Vec<u8>),
    /// Send the response and go on as a WebSocket.
    Upgrade(Upgrade),
    /// An operator asks for a page, and somebody else knows the answer.
    Question(Question),
}

/// A GET or HEAD request on an operators' listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The path of the target.
    pub path: Box<str>,
    /// Only the head of the answer is wanted.
    pub is_head: bool,
}

/// An accepted handshake.
#[derive(Debug)]
pub struct Upgrade {
    /// The 101 response.
    pub response: Vec<u8>,
    /// Length of the head; frames may follow at once.
    pub head_bytes: usize,
    /// What a proxy says about the peer.
    pub forwarded: Forwarded,
}

/// Statuses that this server answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    BadRequest,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    UpgradeRequired,
    /// Come back after so many seconds.
    TooManyRequests(u64),
    HeadTooLarge,
    Unavailable,
    VersionNotSupported,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Status::Ok => "200 OK",
            Status::BadRequest => "400 Bad Request",
            Status::Forbidden => "403 Forbidden",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed => "405 Method Not Allowed",
            Status::RequestTimeout => "408 Request Timeout",
            Status::UpgradeRequired => "426 Upgrade Required",
            Status::TooManyRequests(_) => "429 Too Many Requests",
            Status::HeadTooLarge => "431 Request Header Fields Too Large",
            Status::Unavailable => "503 Service Unavailable",
            Status::VersionNotSupported => "505 HTTP Version Not Supported",
        }
    }

    /// Headers that the status calls for.
    fn headers(self) -> String {
        match self {
            Status::MethodNotAllowed => "Allow: GET, HEAD\r\n".to_owned(),
            Status::UpgradeRequired => "Upgrade: websocket\r\n".to_owned(),
            Status::BadRequest => "Sec-WebSocket-Version: 13\r\n".to_owned(),
            Status::Unavailable => format!("Retry-After: {UNAVAILABLE_RETRY_SECONDS}\r\n"),
            Status::TooManyRequests(seconds) => format!("Retry-After: {seconds}\r\n"),
            _ => String::new(),
        }
    }
}

/// What a client is told to wait when the server is full or stopping.
const UNAVAILABLE_RETRY_SECONDS: u64 = 5;

/// An HTTP answer that turns a connection away before its handshake is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub status: Status,
    /// One line, the body of the answer.
    pub reason: &'static str,
}

impl Rejection {
    pub const fn new(status: Status, reason: &'static str) -> Rejection {
        Rejection { status, reason }
    }

    /// The whole answer.
    pub fn answer(self) -> Vec<u8> {
        text_answer(self.status, self.reason)
    }
}

/// Judges what has been received; a head may have `bytes_max` bytes. `origin_allowed` decides on the `Origin` header of an upgrade.
pub fn parse(bytes: &[u8], bytes_max: usize, origin_allowed: impl Fn(&str) -> bool) -> Head {
    let (line, head) = match request(bytes, bytes_max, &["HTTP/1.1"]) {
        Ok(request) => request,
        Err(verdict) => return verdict,
    };
    let is_websocket = match path(line.target) {
        "/" => false,
        "/v1" => true,
        path if path.starts_with("/v1/") => true,
        _ => return plain(line.method, Status::NotFound, "not found: the WebSocket is at /v1"),
    };
    match (line.method, is_websocket) {
        ("GET" | "HEAD", false) => plain(line.method, Status::Ok, "Wormhole Relay"),
        ("HEAD", true) => plain("HEAD", Status::UpgradeRequired, UPGRADE_REQUIRED),
        ("GET", true) => upgrade(head, origin_allowed),
        _ => answer(Status::MethodNotAllowed, USE_GET),
    }
}

/// As [`parse`], where operators ask. Some of their programs are old.
pub fn parse_question(bytes: &[u8], bytes_max: usize) -> Head {
    match request(bytes, bytes_max, &["HTTP/1.1", "HTTP/1.0"]) {
        Ok((Line { method: method @ ("GET" | "HEAD"), target, .. }, _)) => {
            Head::Question(Question { path: path(target).into(), is_head: method == "HEAD" })
        }
        Ok(_) => answer(Status::MethodNotAllowed, USE_GET),
        Err(verdict) => verdict,
    }
}

/// The request line and the head, once they are there in whole and no verdict is passed on them.
fn request<'a>(
    bytes: &'a [u8],
    bytes_max: usize,
    versions: &[&str],
) -> Result<(Line<'a>, &'a [u8]), Head> {
    let line = match request_line(bytes) {
        RequestLine::Incomplete if bytes.len() > bytes_max => return Err(too_large(bytes_max)),
        RequestLine::Incomplete => return Err(Head::Incomplete),
        RequestLine::Malformed => return Err(answer(Status::BadRequest, "not an HTTP request")),
        RequestLine::Parsed(line) => line,
    };
    let head = match head_bytes(bytes) {
        Some(length) if length <= bytes_max => &bytes[..length],
        None if bytes.len() <= bytes_max => return Err(Head::Incomplete),
        _ => return Err(too_large(bytes_max)),
    };
    if !versions.contains(&line.version) {
        return Err(answer(Status::VersionNotSupported, "this server speaks HTTP/1.1"));
    }
    Ok((line, head))
}

/// A whole answer with a one-line text body, after which the connection is closed.
pub fn text_answer(status: Status, body: &str) -> Vec<u8> {
    page_answer(status, TEXT, "", &format!("{body}\n"))
}

/// A whole answer of that content type, after which the connection is closed. `headers` are added
/// as they are, each with its line end.
pub fn page_answer(status: Status, content_type: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{}{headers}\
         Connection: close\r\n\r\n{body}",
        status.line(),
        body.len(),
        status.headers(),
    )
    .into_bytes()
}

/// What a HEAD request gets of an answer.
pub fn without_body(mut answer: Vec<u8>) -> Vec<u8> {
    answer.truncate(head_bytes(&answer).unwrap_or(answer.len()));
    answer
}

/// The content type of one-line answers.
pub const TEXT: &str = "text/plain";

const USE_GET: &str = "method not allowed: use GET";

const UPGRADE_REQUIRED: &str = "upgrade required: this is a WebSocket endpoint";

fn answer(status: Status, body: &str) -> Head {
    Head::Answer(text_answer(status, body))
}

/// As `answer`, but a HEAD request gets no body.
fn plain(method: &str, status: Status, body: &str) -> Head {
    let bytes = text_answer(status, body);
    Head::Answer(if method == "HEAD" { without_body(bytes) } else { bytes })
}

fn too_large(bytes_max: usize) -> Head {
    answer(Status::HeadTooLarge, &format!("request head must be at most {bytes_max} bytes"))
}

fn upgrade(head: &[u8], origin_allowed: impl Fn(&str) -> bool) -> Head {
    // The parser also takes bare line feeds for line ends; where it and we do not agree on where
    // the head ends, nobody should guess.
    let request = match Request::try_parse(head) {
        Ok(Some((length, request))) if length == head.len() => request,
        _ => return answer(Status::BadRequest, "malformed request head"),
    };
    let headers = request.headers();
    if !headers.contains_key("upgrade") {
        return answer(Status::UpgradeRequired, UPGRADE_REQUIRED);
    }
    let response = match create_response(&request) {
        Ok(response) => response,
        Err(error) => return answer(Status::BadRequest, handshake_fault(&error)),
    };
    if let Some(origin) = headers.get("origin")
        && !origin_allowed(&String::from_utf8_lossy(origin.as_bytes()))
    {
        return answer(Status::Forbidden, "this origin is not allowed");
    }
    let mut written = Vec::new();
    match write_response(&mut written, &response) {
        Ok(()) => Head::Upgrade(Upgrade {
            response: written,
            head_bytes: head.len(),
            forwarded: forwarded(headers),
        }),
        Err(_) => answer(Status::BadRequest, "malformed handshake"),
    }
}

/// What a client did wrong in its handshake, in one line.
fn handshake_fault(error: &Error) -> &'static str {
    match error {
        Error::Protocol(ProtocolError::MissingConnectionUpgradeHeader) => {
            "bad upgrade: 'Connection: Upgrade' is missing"
        }
        Error::Protocol(ProtocolError::MissingUpgradeWebSocketHeader) => {
            "bad upgrade: 'Upgrade' must be 'websocket'"
        }
        Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => {
            "bad upgrade: 'Sec-WebSocket-Version' must be 13"
        }
        Error::Protocol(ProtocolError::MissingSecWebSocketKey) => {
            "bad upgrade: 'Sec-WebSocket-Key' is missing"
        }
        Error::Protocol(ProtocolError::InvalidSecWebSocketKey) => {
            "bad upgrade: 'Sec-WebSocket-Key' must be 16 bytes in base64"
        }
        _ => "bad upgrade",
    }
}

fn forwarded(headers: &HeaderMap) -> Forwarded {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
    let (ip_text, port_text) = (text("x-real-ip"), text("x-real-port"));
    let ip: Option<IpAddr> = ip_text.and_then(|text| text.parse().ok());
    let port: Option<u16> = port_text.and_then(|text| text.parse().ok());
    Forwarded {
        ip,
        port,
        malformed: ip.is_some() != ip_text.is_some() || port.is_some() != port_text.is_some(),
    }
}

/// Length of a head that is there in whole.
fn head_bytes(bytes: &[u8]) -> Option<usize> {
    const END: &[u8] = b"\r\n\r\n";
    bytes.windows(END.len()).position(|window| window == END).map(|position| position + END.len())
}

struct Line<'a> {
    method: &'a str,
    target: &'a str,
    version: &'a str,
}

enum RequestLine<'a> {
    Incomplete,
    Malformed,
    Parsed(Line<'a>),
}

fn request_line(bytes: &[u8]) -> RequestLine<'_> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let so_far = &bytes[..end.unwrap_or(bytes.len())];
    // Told apart early, so that a TLS client or a stranger's protocol learns it at once.
    if so_far.iter().any(|byte| !matches!(byte, b'\r' | b'\t' | b' '..=b'~' | 0x80..)) {
        return RequestLine::Malformed;
    }
    let Some(line) = end.and_then(|_| std::str::from_utf8(so_far).ok()) else {
        return if end.is_some() { RequestLine::Malformed } else { RequestLine::Incomplete };
    };
    let mut words = line.trim_end_matches('\r').split(' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(method), Some(target), Some(version), None)
            if !method.is_empty() && !target.is_empty() && version.starts_with("HTTP/") =>
        {
            RequestLine::Parsed(Line { method, target, version })
        }
        _ => RequestLine::Malformed,
    }
}

/// The path of a request target: without query, and without scheme and host where a client sends
/// the absolute form.
fn path(target: &str) -> &str {
    let after_scheme =
        target.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "ws"));
    let target = match after_scheme {
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    target.split(['?', '#']).next().unwrap_or(target)
}
