//! The log: the form of its lines, and that a log which cannot be written costs lines and nothing
//! else.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use crate::common::{Directory, FREE_PORT, PROGRAM, Running, Server, eventually, retry};

/// A server that listens on `x.sock`, with a stderr of the test's choice.
struct Unheard {
    child: Running,
    directory: Directory,
}

impl Unheard {
    fn start(stderr: impl Into<Stdio>, options: &[&str]) -> Unheard {
        let directory = Directory::new();
        let child = Command::new(PROGRAM)
            .args(["--port=unix:x.sock", "--log-level=debug"])
            .args(options)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("server starts");
        Unheard { child: Running(child), directory }
    }

    /// What it answers to a request on its socket, once it listens.
    fn answer(&mut self, request: &str) -> String {
        let mut stream = retry(|| {
            assert_eq!(self.child.0.try_wait().expect("wait"), None, "it has ended");
            let stream = UnixStream::connect(self.directory.file("x.sock"));
            stream.map_err(|error| error.to_string())
        });
        stream.write_all(request.as_bytes()).expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read");
        answer
    }
}

fn serves_unheard(stderr: impl Into<Stdio>) {
    let mut server = Unheard::start(stderr, &["--channel-db=:memory:"]);
    for _ in 0..3 {
        assert!(server.answer("GET / HTTP/1.1\r\nHost: x\r\n\r\n").contains("Wormhole Relay"));
    }
    assert_eq!(server.child.0.try_wait().expect("wait"), None);
}

#[test]
fn a_full_disk_under_the_log_ends_nothing() {
    serves_unheard(OpenOptions::new().write(true).open("/dev/full").expect("/dev/full"));
}

#[test]
fn a_log_that_has_reached_the_file_size_limit_ends_nothing() {
    let directory = Directory::new();
    fs::write(directory.file("log"), [b'x'; 4096]).expect("write");
    let run = |argument: &str| {
        let script = "ulimit -f 1; exec \"$@\" 2>>log";
        let mut command = Command::new("timeout");
        // Else it signals its group as well, and a second signal ends the server at once.
        command.args(["--foreground", "--preserve-status", "1"]);
        command.args(["sh", "-c", script, "sh", PROGRAM]);
        command.args([argument, "--channel-db=:memory:"]).current_dir(directory.path());
        command.status().expect("it runs")
    };
    // Until the end of that second; and one that ends by itself, at a mistake.
    assert_eq!(run(FREE_PORT).code(), Some(0));
    assert_eq!(run("--frobnicate").code(), Some(2));
}

#[test]
fn a_log_that_is_closed_ends_nothing() {
    let (reader, writer) = std::io::pipe().expect("pipe");
    drop(reader);
    serves_unheard(writer);
}

#[test]
fn a_log_that_is_not_read_holds_nothing_up() {
    let (_reader, mut writer) = std::io::pipe().expect("pipe");
    // Filled by a thread that the last byte blocks, for as long as the pipe is open.
    let mut filler = writer.try_clone().expect("clone");
    std::thread::spawn(move || while filler.write(&[b'x'; 4096]).is_ok() {});
    writer.flush().expect("flush");
    serves_unheard(writer);
}

#[test]
fn a_log_that_must_not_be_written_at_all_ends_nothing() {
    serves_unheard(File::open("/dev/null").expect("for reading only"));
}

#[test]
fn a_line_has_the_time_to_the_millisecond_and_the_level() {
    let server = Server::start(&[]);
    let lines = server.log();
    assert!(lines.len() > 3, "{lines:?}");
    for line in lines {
        let (time, rest) = line.split_once(' ').expect("a time");
        let form: String =
            time.chars().map(|it| if it.is_ascii_digit() { '0' } else { it }).collect();
        assert_eq!(form, "0000-00-00T00:00:00.000Z", "{line}");
        let level = rest.split(' ').next().expect("a level");
        assert!(["ERROR", "WARN", "INFO", "DEBUG"].contains(&level), "{line}");
    }
}

#[test]
fn the_journal_gets_priorities_instead_of_time_and_level() {
    use std::os::unix::fs::MetadataExt;
    let directory = Directory::new();
    let path = directory.file("log");
    let text = || fs::read_to_string(&path).expect("the log");
    let start = |option: &str| {
        let log = File::create(&path).expect("a file");
        let id = log.metadata().map(|it| format!("{}:{}", it.dev(), it.ino())).expect("metadata");
        let mut command = Command::new(PROGRAM);
        command.args([FREE_PORT, "--log-fd=7", option]).env("JOURNAL_STREAM", id);
        Running(command.current_dir(directory.path()).stderr(log).spawn().expect("it runs"))
    };
    for (option, status, beginning) in [
        ("--channel-db=missing/file", 1, "<3>channel database"),
        ("--expire-after=soon", 2, "<3>wormhole-mailbox: --expire-after"),
    ] {
        assert_eq!(start(option).0.wait().expect("it ends").code(), Some(status));
        let text = text();
        assert!(text.starts_with(beginning) && text.lines().count() == 1, "{text}");
    }
    let _server = start("--channel-db=:memory:");
    eventually("a start", || text().contains("<6>listening on"));
    let lines = text();
    assert!(lines.starts_with("<6>wormhole-mailbox"), "{lines}");
    assert!(lines.contains("\n<4>--log-fd"), "{lines}");
}
