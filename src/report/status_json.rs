//! Fetches `/status.json` from a server's admin listener: one request, one answer, bounded in time
//! and size. What listens there may be another program, so the answer is checked.

use std::io::{self, Read, Write};

use serde_json::Value;

use super::stream::Stream;
use crate::format;
use crate::limits::{REPORT_ANSWER, REPORT_ANSWER_BYTES_MAX};
use crate::net::socket::Endpoint;

const REQUEST: &[u8] = b"GET /status.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Returns the server's status, a JSON object.
pub fn fetch(endpoint: &Endpoint) -> Result<Value, String> {
    let answer = exchange(endpoint).map_err(|error| describe(&error));
    let status = answer.and_then(|answer| read(&answer));
    status.map_err(|problem| format!("admin listener {endpoint}: {problem}"))
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => {
            format!("no answer within {} seconds", REPORT_ANSWER.as_secs())
        }
        _ => error.to_string(),
    }
}

/// Sends the request and reads the answer to its end, or until the time is up.
fn exchange(endpoint: &Endpoint) -> io::Result<Vec<u8>> {
    let mut stream = Stream::connect(endpoint, REPORT_ANSWER)?;
    stream.write_all(REQUEST)?;
    let mut answer = Vec::new();
    // One byte more than allowed shows that it is too long.
    stream.take(REPORT_ANSWER_BYTES_MAX as u64 + 1).read_to_end(&mut answer)?;
    if answer.len() > REPORT_ANSWER_BYTES_MAX {
        return Err(io::Error::other("the answer is too long"));
    }
    Ok(answer)
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
    match serde_json::from_str(&String::from_utf8_lossy(&answer[end + HEAD_END.len()..])) {
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
