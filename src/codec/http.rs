//! HTTP request heads and answers: head → upgrade, plain answer, or "need more"
//! (manual: protocol 1.1).
//!
//! Pure: bytes in, bytes out. `httparse` finds the parts of a head; the rules of the WebSocket
//! handshake are applied here, because the handshake of tungstenite cannot answer plain requests,
//! nor read a list of header values that comes in several lines.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use httparse::Header;
use tungstenite::handshake::derive_accept_key;

use crate::codec::forwarded;
use crate::codec::origins::Origins;
use crate::limits::{HEAD_LINES_MAX, UNAVAILABLE_RETRY_SECONDS};
use crate::message::{AddressHeader, Forwarded, Peer, Secret, Unreadable};

/// The result of parsing the bytes received so far.
#[derive(Debug)]
pub enum Parsed<T> {
    Incomplete,
    /// The whole answer, as to a GET, to a request that is wrong or asks for nothing else; after it
    /// the connection is closed.
    Answer(Vec<u8>),
    Request(T),
}

use Parsed::{Answer, Incomplete, Request};

impl<T> Parsed<T> {
    /// Goes on with a request.
    fn and_then<U>(self, next: impl FnOnce(T) -> Parsed<U>) -> Parsed<U> {
        match self {
            Incomplete => Incomplete,
            Answer(answer) => Answer(answer),
            Request(request) => next(request),
        }
    }
}

/// A GET or HEAD request on the admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Path of the target, without query.
    pub path: Box<str>,
    /// The method is HEAD.
    pub is_head: bool,
    /// The `Host`, if it is a name.
    pub host: Option<Box<str>>,
}

/// An accepted handshake: the connection goes on as a WebSocket after the response.
#[derive(Debug)]
pub struct Upgrade {
    /// The 101 response.
    pub response: Vec<u8>,
    /// Length of the head; frames may follow at once.
    pub head_bytes: usize,
    pub forwarded: Forwarded,
    /// What follows `/v1/` in the path; none if nothing does.
    pub secret: Option<Secret>,
}

/// Statuses of this server's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    BadRequest,
    Forbidden,
    NotFound,
    /// Not the path of the WebSocket.
    WrongPath,
    MethodNotAllowed,
    RequestTimeout,
    /// The name of another host.
    Misdirected,
    /// With the seconds after which to try again.
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
            // Clients show their users nothing but this phrase.
            Status::WrongPath => "404 Not Found: the WebSocket is at /v1",
            Status::MethodNotAllowed => "405 Method Not Allowed",
            Status::RequestTimeout => "408 Request Timeout",
            Status::Misdirected => "421 Misdirected Request",
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
            Status::BadRequest => "Sec-WebSocket-Version: 13\r\n".to_owned(),
            Status::Unavailable => format!("Retry-After: {UNAVAILABLE_RETRY_SECONDS}\r\n"),
            Status::TooManyRequests(seconds) => format!("Retry-After: {seconds}\r\n"),
            _ => String::new(),
        }
    }
}

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

    /// The whole answer, as to a GET.
    pub fn answer(self) -> Vec<u8> {
        text_answer(self.status, self.reason)
    }
}

/// The answer to a request that is not complete when the server stops.
pub const STOPPING: Rejection = Rejection::new(Status::Unavailable, "server is stopping");

/// The answer to a request that is not complete in time.
pub const HEAD_TOO_SLOW: Rejection =
    Rejection::new(Status::RequestTimeout, "request head took too long");

/// A complete request head. HTTP/1.0 is treated as 1.1, upgrades too: load balancers check with it,
/// and some proxies speak nothing else to the server behind.
struct Head<'a> {
    method: &'a str,
    path: &'a str,
    headers: &'a [Header<'a>],
    head_bytes: usize,
}

/// Parses a client's request head of at most `bytes_max` bytes. An upgrade's `address_header` is
/// read, and `origins` decides on its `Origin`.
pub fn parse(
    bytes: &[u8],
    bytes_max: usize,
    address_header: AddressHeader,
    origins: &Origins,
) -> Parsed<Upgrade> {
    let mut headers = [httparse::EMPTY_HEADER; HEAD_LINES_MAX];
    parse_head(bytes, bytes_max, &mut headers).and_then(|head| {
        let is_websocket = match head.path {
            // A client whose user left out the path sees nothing but the reason phrase.
            "/" if !head.has("sec-websocket-key") => false,
            _ if head.path_below_v1().is_some() => true,
            _ => return answer(Status::WrongPath, "not found: the WebSocket is at /v1"),
        };
        match (head.method, is_websocket) {
            ("GET" | "HEAD", false) => answer(Status::Ok, "Wormhole Relay"),
            ("GET", true) if head.has("upgrade") => head.upgrade(address_header, origins),
            ("GET" | "HEAD", true) => answer(Status::Ok, ENDPOINT),
            _ => answer(Status::MethodNotAllowed, USE_GET),
        }
    })
}

/// As [`parse`], on the admin listener.
pub fn parse_question(bytes: &[u8], bytes_max: usize) -> Parsed<Question> {
    let mut headers = [httparse::EMPTY_HEADER; HEAD_LINES_MAX];
    parse_head(bytes, bytes_max, &mut headers).and_then(|head| {
        let is_head = match head.method {
            "GET" => false,
            "HEAD" => true,
            _ => return answer(Status::MethodNotAllowed, USE_GET),
        };
        match head.host_name() {
            Ok(host) => Request(Question { path: head.path.into(), is_head, host }),
            Err(()) => bad_request("more than one 'Host'"),
        }
    })
}

fn parse_head<'h, 'b>(
    bytes: &'b [u8],
    bytes_max: usize,
    headers: &'h mut [Header<'b>],
) -> Parsed<Head<'h>> {
    // One empty line may stand before the request line (RFC 9112, section 2.2); the parser would
    // skip any number of them.
    let request_line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let is_after_empty_line = request_line.len() < bytes.len();
    match request_line.first() {
        Some(b'\r') if is_after_empty_line => return bad_request(NO_REQUEST),
        Some(b'\n') => return bad_request(NO_REQUEST),
        _ => {}
    }
    let mut request = httparse::Request::new(headers);
    let head_bytes = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) if head_bytes <= bytes_max => head_bytes,
        Ok(httparse::Status::Partial) if bytes.len() <= bytes_max => return Incomplete,
        Ok(_) => {
            let body = format!("request head must be at most {bytes_max} bytes");
            return answer(Status::HeadTooLarge, &body);
        }
        Err(error) => return Answer(error_answer(error, &request, request_line)),
    };
    // The parser takes a bare line feed for a line end. A proxy in front may not, and both must
    // agree on what the lines are.
    match (request.method, request.path) {
        // A fragment is the client's alone (RFC 6455, section 3).
        (Some(method), Some(target))
            if !has_bare_line_feed(&bytes[..head_bytes]) && !target.contains('#') =>
        {
            let path = path(target);
            Request(Head { method, path, headers: request.headers, head_bytes })
        }
        _ => bad_request(MALFORMED),
    }
}

/// The answer to a head that the parser rejects. `bytes` begin with the request line.
fn error_answer(
    error: httparse::Error,
    request: &httparse::Request<'_, '_>,
    bytes: &[u8],
) -> Vec<u8> {
    if error == httparse::Error::TooManyHeaders {
        let body = format!("request head must have at most {HEAD_LINES_MAX} header lines");
        return text_answer(Status::HeadTooLarge, &body);
    }
    let version = bytes.split(|byte| *byte == b' ').nth(2).unwrap_or_default();
    match (request.path, request.version) {
        (_, Some(_)) => text_answer(Status::BadRequest, MALFORMED),
        (Some(_), None) if version.starts_with(b"HTTP/") => {
            text_answer(Status::VersionNotSupported, USE_HTTP_1)
        }
        _ => text_answer(Status::BadRequest, NO_REQUEST),
    }
}

/// The header line that all answers have.
const SERVER: &str = concat!("Server: wormhole-mailbox/", env!("CARGO_PKG_VERSION"), "\r\n");

const NO_REQUEST: &str = "not an HTTP request";
const MALFORMED: &str = "malformed request head";
const USE_HTTP_1: &str = "this server speaks HTTP/1.1 and HTTP/1.0";
const USE_GET: &str = "method not allowed: use GET";
/// The answer at the WebSocket's path to a request that is no upgrade; monitors ask so.
const ENDPOINT: &str = "Wormhole Relay: this is a WebSocket Endpoint";

fn has_bare_line_feed(head: &[u8]) -> bool {
    head.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r')
}

impl Head<'_> {
    /// The path of the WebSocket without its first segment, which may be percent-encoded; none at
    /// another path.
    fn path_below_v1(&self) -> Option<&str> {
        let path = self.path.strip_prefix('/')?;
        let (segment, below) = path.split_once('/').unwrap_or((path, ""));
        matches!(segment, "v1" | "v%31" | "%761" | "%76%31").then_some(below)
    }

    fn upgrade(&self, address_header: AddressHeader, origins: &Origins) -> Parsed<Upgrade> {
        let key = match self.handshake_key() {
            Ok(key) => key,
            Err(reason) => return bad_request(reason),
        };
        if !self.values("origin").all(|it| origins.allow(&String::from_utf8_lossy(it))) {
            return answer(Status::Forbidden, "this origin is not allowed");
        }
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\n{SERVER}Connection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key)
        );
        Request(Upgrade {
            response: response.into(),
            head_bytes: self.head_bytes,
            forwarded: self.forwarded(address_header),
            secret: self.path_below_v1().filter(|rest| !rest.is_empty()).map(Secret::new),
        })
    }

    /// The `Sec-WebSocket-Key` of a valid handshake (RFC 6455, section 4.2.1), or what is wrong.
    fn handshake_key(&self) -> Result<&[u8], &'static str> {
        if !self.has("host") {
            return Err("bad upgrade: 'Host' is missing");
        }
        if !self.tokens("connection").any(|token| token.eq_ignore_ascii_case(b"upgrade")) {
            return Err("bad upgrade: 'Connection: Upgrade' is missing");
        }
        if !self.tokens("upgrade").any(|token| token.eq_ignore_ascii_case(b"websocket")) {
            return Err("bad upgrade: 'Upgrade' must be 'websocket'");
        }
        if !self.tokens("sec-websocket-version").eq([b"13"]) {
            return Err("bad upgrade: 'Sec-WebSocket-Version' must be 13");
        }
        match self.only("sec-websocket-key") {
            Ok(None) => Err("bad upgrade: 'Sec-WebSocket-Key' is missing"),
            Ok(Some(key)) if is_handshake_key(key) => Ok(key),
            _ => Err("bad upgrade: 'Sec-WebSocket-Key' must be 16 bytes in base64"),
        }
    }

    /// The name in `Host`, without the port; none if it is an address, or there is no `Host`, and
    /// an error if there are several.
    fn host_name(&self) -> Result<Option<Box<str>>, ()> {
        let Some(value) = self.only("host")? else { return Ok(None) };
        let text = String::from_utf8_lossy(value);
        let is_address = text.parse::<IpAddr>().is_ok()
            || text.parse::<SocketAddr>().is_ok()
            || text
                .strip_prefix('[')
                .and_then(|text| text.strip_suffix(']'))
                .is_some_and(|text| text.parse::<Ipv6Addr>().is_ok());
        let name = text.split(':').next().unwrap_or_default();
        Ok((!is_address && !text.is_empty()).then(|| name.strip_suffix('.').unwrap_or(name).into()))
    }

    fn forwarded(&self, header: AddressHeader) -> Forwarded {
        let is_missing = !self.has(header.name());
        let other = AddressHeader::NAMES.into_iter().find(|(name, _)| is_missing && self.has(name));
        let lines = self.values(header.name());
        let (hops, is_port_unreadable) = match header {
            AddressHeader::XRealIp => {
                let (ip, port) = (self.parsed("x-real-ip"), self.parsed("x-real-port"));
                let (is_port_unreadable, port) = (port.is_err(), port.unwrap_or_default());
                let peer = ip.map(|ip| ip.map(|ip| Peer::at(ip, port))).map_err(|()| Unreadable);
                (peer.transpose().into_iter().collect(), is_port_unreadable)
            }
            AddressHeader::XForwardedFor => (forwarded::hops(lines, forwarded::address), false),
            AddressHeader::Forwarded => (forwarded::hops(lines, forwarded::element), false),
        };
        Forwarded { hops, is_port_unreadable, other: other.map(|(_, header)| header) }
    }

    /// The value of a header, parsed; an error if there are several or it cannot be.
    fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>, ()> {
        let Some(value) = self.only(name)? else { return Ok(None) };
        let text = std::str::from_utf8(value).map_err(drop)?;
        text.parse().map(Some).map_err(drop)
    }

    /// The value of a header; an error if there are several.
    fn only(&self, name: &str) -> Result<Option<&[u8]>, ()> {
        let mut values = self.values(name);
        let value = values.next();
        if values.next().is_some() { Err(()) } else { Ok(value) }
    }

    fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// The values of the header lines of that name, which must be in lower case.
    fn values(&self, name: &str) -> impl DoubleEndedIterator<Item = &[u8]> {
        let lines = self.headers.iter().filter(move |line| line.name.eq_ignore_ascii_case(name));
        lines.map(|line| line.value.trim_ascii())
    }

    /// The elements of a list of tokens, which may be spread over several lines and padded with
    /// any blanks (RFC 9110, sections 5.3 and 5.6.1).
    fn tokens(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.values(name)
            .flat_map(|value| value.split(|byte| matches!(byte, b',' | b' ' | b'\t')))
            .filter(|token| !token.is_empty())
    }
}

/// Whether this is base64 of 16 bytes. The last digit has four bits that encode nothing; RFC 6455
/// itself has an example in which they are set.
fn is_handshake_key(key: &[u8]) -> bool {
    const DIGITS: usize = (16 * 8usize).div_ceil(6);
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.strip_suffix(b"==").is_some_and(|key| key.len() == DIGITS && key.iter().all(is_digit))
}

fn bad_request<T>(body: &str) -> Parsed<T> {
    answer(Status::BadRequest, body)
}

fn answer<T>(status: Status, body: &str) -> Parsed<T> {
    Answer(text_answer(status, body))
}

/// A whole answer with a one-line text body, after which the connection is closed.
pub fn text_answer(status: Status, body: &str) -> Vec<u8> {
    page_answer(status, TEXT, "", &format!("{body}\n"))
}

/// A whole answer of that content type, after which the connection is closed. `headers` are added
/// as they are, each with its line end.
pub fn page_answer(status: Status, content_type: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {}\r\n{SERVER}Content-Type: {content_type}\r\nContent-Length: {}\r\n{}{headers}\
         Connection: close\r\n\r\n{body}",
        status.line(),
        body.len(),
        status.headers(),
    )
    .into_bytes()
}

/// Whether these are the first bytes of a HEAD request, whatever is wrong with the rest of it.
pub fn is_head_request(bytes: &[u8]) -> bool {
    bytes.strip_prefix(b"\r\n").unwrap_or(bytes).starts_with(b"HEAD ")
}

/// Makes an answer to a GET one to a HEAD, which must have no body.
pub fn remove_body(answer: &mut Vec<u8>) {
    const END: &[u8] = b"\r\n\r\n";
    let end = answer.windows(END.len()).position(|window| window == END);
    answer.truncate(end.map_or(answer.len(), |end| end + END.len()));
}

/// The content type of one-line answers.
pub const TEXT: &str = "text/plain";

/// The path of a request target: without query, and without scheme and host if it has the
/// absolute form.
fn path(target: &str) -> &str {
    let path = target.split('?').next().unwrap_or(target);
    let is_scheme =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match path.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) {
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => path,
    }
}
