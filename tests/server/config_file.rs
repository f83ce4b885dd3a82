//! `--config=FILE`: options in a file mean what they mean on the command line, which wins; and a
//! mistake in it is told with file and line.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use crate::common::raw::answer_to;
use crate::common::{self, Directory, PROGRAM, Server};
use serde_json::json;

const NAME: &str = "mailbox.conf";

/// A directory that holds this file of options.
fn directory(content: impl AsRef<[u8]>) -> Arc<Directory> {
    let directory = Directory::new();
    fs::write(directory.file(NAME), content).expect("write");
    Arc::new(directory)
}

fn assert_mistake(directory: &Directory, options: &[&str], named: &[&str]) {
    common::assert_mistake(Command::new(PROGRAM).args(options), directory, named);
}

#[test]
fn options_are_taken_from_the_file_however_they_are_written() {
    let content = "# What clients are told.\n\n  motd = Hello = \"there\" # all of it\n\
                   --advertise-version=1.2.3\r\n-signal-error  =\n   # more\ndisallow-list\n\
                   usage-db = usage.sqlite\n--track-connections\n\
                   port = tcp:0:interface=127.0.0.1\nport = 127.0.0.1:0\n\
                   websocket-protocol-option = autoPingInterval=30";
    let mut command = Command::new(PROGRAM);
    command.arg(format!("--config={NAME}"));
    let server = Server::spawn(command, directory(content));
    assert_eq!(server.logged_addresses().len(), 2, "{:#?}", server.log());
    let expected = json!({"motd": "Hello = \"there\" # all of it", "current_cli_version": "1.2.3"});
    assert_eq!(server.operators_welcome(), expected);
    let mut client = server.bind("app", "s");
    client.claim("4");
    assert_eq!(client.one(json!({"type": "list"}))["nameplates"], json!([]));
    assert!(server.file("usage.sqlite").exists());
}

#[test]
fn a_byte_order_mark_at_the_beginning_is_skipped() {
    let directory = directory("\u{feff}motd = \u{feff}marked\nwelcome-file = welcome.json\n");
    fs::write(directory.file("welcome.json"), "\u{feff}{\"number\": 1}").expect("write");
    let server = Server::start_in(directory, &[&format!("--config={NAME}")]);
    assert_eq!(server.operators_welcome(), json!({"motd": "\u{feff}marked", "number": 1}));
}

#[test]
fn the_command_line_wins() {
    let content = "motd = file\nsignal-error = file\nlimit-exempt = 127.0.0.0/8\n\
                   limit-exempt = ::1\nlimit-address-connections = 1\n";
    let option = format!("--config={NAME}");
    let options = [&option, "--trusted-proxy=192.0.2.1", "--limit-exempt=192.0.2.1"];
    let server = Server::start_in(directory(content), &options);
    let _first = server.connect();
    // Loopback is not exempt any more: the command line replaces all of a repeatable option.
    let answer = answer_to(server.address, "GET / HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    let server = Server::start_in(directory(content), &[&option, "--motd=line"]);
    assert_eq!(server.operators_welcome(), json!({"motd": "line", "error": "file"}));
}

#[test]
fn a_mistake_in_the_file_is_told_with_file_line_option_and_rule() {
    let option = format!("--config={NAME}");
    for (content, line, named) in [
        ("# c\n\nnonsense = 5\n", 3, &["--nonsense", "unknown option"][..]),
        ("motd = a\nmotd = b\n", 2, &["--motd", "only once"]),
        ("disallow-list = yes\n", 1, &["--disallow-list", "no value"]),
        ("motd\n", 1, &["--motd", "needs a value"]),
        ("motd hello\n", 1, &["NAME = VALUE"]),
        ("expire-after = 5\nblur-usage = often\n", 2, &["--blur-usage", "often", "whole number"]),
        ("limit-exempt=::1\n\nlimit-exempt=::1/200\n", 3, &["--limit-exempt", "network"]),
        ("drain-seconds = 0\n", 1, &["--drain-seconds", "from 0.001"]),
        (
            "websocket-protocol-option = tcpNoDelay=1",
            1,
            &["--websocket-protocol-option", "tcpNoDelay"],
        ),
        ("config = other.conf\n", 1, &["--config", "command line only"]),
        ("--help\n", 1, &["--help", "command line only"]),
        ("version\n", 1, &["--version", "command line only"]),
        ("p = 4000\n", 1, &["--p", "unknown option, see --help"]),
        ("= 4000\n", 1, &["unknown option"]),
        ("\nwelcome-file = missing.json\n", 2, &["--welcome-file", "missing.json"]),
    ] {
        let place = format!("{NAME}:{line}: ");
        assert_mistake(&directory(content), &[&option], &[&[place.as_str()][..], named].concat());
    }
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake() {
    let option = format!("--config={NAME}");
    assert_mistake(&Directory::new(), &[&option], &["--config", NAME, "No such file"]);
    assert_mistake(&Directory::new(), &["--config=."], &["--config", "regular file"]);
    assert_mistake(&Directory::new(), &["--config=/dev/zero"], &["--config", "regular file"]);
    assert_mistake(&Directory::new(), &["--config="], &["--config", "file name"]);
    assert_mistake(&directory(b"motd = \xff\n"), &[&option], &["--config", NAME, "UTF-8"]);
    let long = "#".repeat(2_000_000);
    assert_mistake(&directory(long), &[&option], &["--config", NAME, "at most"]);
    assert_mistake(&directory(""), &[&option, &option], &["--config", "only once"]);
}

#[test]
fn help_does_not_need_the_file() {
    let program = PROGRAM;
    let output = Command::new(program).args(["--config=missing", "--help"]).output();
    assert!(output.expect("the program runs").status.success());
}
