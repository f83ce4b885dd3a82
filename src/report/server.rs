//! Fetches `/status.json` from a server's admin listener: one request, one answer, bounded in time
//! and size. What listens there may be another program, so the answer is checked.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::format;
use crate::limits::{REPORT_ANSWER, REPORT_ANSWER_BYTES_MAX};
use crate::net::socket::Endpoint;
use crate::sys::clock::Clock;

const REQUEST: &[u8] =
    b"GET /status.json HTTP/1.1\r\nHost: wormhole-mailbox\r\nConnection: close\r\n\r\n";

/// Returns the server's status, a JSON object.
pub fn fetch(endpoint: &Endpoint) -> Result<Value, String> {
    let answer = exchange(endpoint)
        .map_err(|error| format!("admin listener {endpoint}: {}", describe(&error)))?;
    read(&answer).map_err(|problem| format!("admin listener {endpoint}: {problem}"))
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        // Which of the two a timeout is depends on the system.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer within {} seconds", REPORT_ANSWER.as_secs())
        }
        _ => error.to_string(),
    }
}

fn exchange(endpoint: &Endpoint) -> io::Result<Vec<u8>> {
    let until = Clock::read().instant + REPORT_ANSWER;
    match endpoint {
        Endpoint::Tcp(address) => {
            let stream = TcpStream::connect_timeout(&reachable(*address), left(until)?)?;
            converse(stream, until, |stream, left| {
                stream.set_write_timeout(Some(left))?;
                stream.set_read_timeout(Some(left))
            })
        }
        Endpoint::Unix { path, .. } => {
            converse(UnixStream::connect(path)?, until, |stream, left| {
                stream.set_write_timeout(Some(left))?;
                stream.set_read_timeout(Some(left))
            })
        }
    }
}

/// The loopback address for a listener on all addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Sends the request and reads the answer to its end, or until the time is up.
fn converse<S: Read + Write>(
    mut stream: S,
    until: Instant,
    set_timeout: impl Fn(&S, Duration) -> io::Result<()>,
) -> io::Result<Vec<u8>> {
    set_timeout(&stream, left(until)?)?;
    stream.write_all(REQUEST)?;
    let mut answer = Vec::new();
    let mut portion = [0; PORTION_BYTES];
    loop {
        set_timeout(&stream, left(until)?)?;
        match stream.read(&mut portion) {
            Ok(0) => return Ok(answer),
            Ok(count) => answer.extend_from_slice(&portion[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if answer.len() > REPORT_ANSWER_BYTES_MAX {
            return Err(io::Error::other("the answer is too long"));
        }
    }
}

const PORTION_BYTES: usize = 4096;

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Clock::read().instant);
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The JSON object in an HTTP answer.
fn read(answer: &[u8]) -> Result<Value, String> {
    const HEAD_END: &[u8] = b"\r\n\r\n";
    let not_http = || "what listens there does not speak HTTP".to_owned();
    let end = answer.windows(HEAD_END.len()).position(|it| it == HEAD_END).ok_or_else(not_http)?;
    let head = str::from_utf8(&answer[..end]).map_err(|_| not_http())?;
    let status = head.lines().next().and_then(|line| line.strip_prefix("HTTP/1."));
    let status = status.and_then(|rest| rest.split(' ').nth(1)).ok_or_else(not_http)?;
    if status != "200" {
        let status = format::harmless(status);
        return Err(format!(
            "answers with status {status} to /status.json, is it another listener?"
        ));
    }
    match serde_json::from_slice(&answer[end + HEAD_END.len()..]) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err("/status.json is no JSON object, or was cut off".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_with_status_200_is_an_answer() {
        let value = read(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{\"a\": 1}");
        assert_eq!(value, Ok(serde_json::json!({"a": 1})));
        for (answer, part) in [
            ("", "HTTP"),
            ("SSH-2.0-x\r\n\r\n", "HTTP"),
            ("HTTP/1.1 200 OK\r\n", "HTTP"),
            ("HTTP/1.1 404 Not Found\r\n\r\n", "404"),
            ("HTTP/1.1 200 OK\r\n\r\n{\"a\":", "cut off"),
            ("HTTP/1.1 200 OK\r\n\r\n[]", "object"),
        ] {
            let problem = read(answer.as_bytes()).expect_err(answer);
            assert!(problem.contains(part), "{answer:?}: {problem}");
        }
    }
}
