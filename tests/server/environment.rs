//! Options from the environment: between the command line and the file, by one rule for all names.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use crate::common::{
    self, Client, Directory, FREE_PORT, PROGRAM, Server, Signal, eventually, stdout_of,
};
use serde_json::{Value, json};

/// The program in this environment, where its other variables begin with `WORMHOLE_MAILBOX_`.
fn program(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    command.envs(variables.iter().map(|(name, value)| (format!("WORMHOLE_MAILBOX_{name}"), value)));
    command
}

fn start(directory: &Arc<Directory>, arguments: &[&str], variables: &[(&str, &str)]) -> Server {
    Server::spawn(program(arguments, variables), Arc::clone(directory))
}

fn motd(server: &Server) -> Value {
    Client::connect(server.address).recv()["welcome"]["motd"].clone()
}

fn assert_mistake(name: &str, value: &str, named: &[&str]) {
    let variable = format!("WORMHOLE_MAILBOX_{name}");
    let named = [&[variable.as_str()], named].concat();
    common::assert_mistake(&mut program(&[], &[(name, value)]), &Directory::new(), &named);
}

#[test]
fn variables_set_options_of_every_kind() {
    let server = start(
        &Arc::new(Directory::new()),
        &[],
        &[
            ("PORT", "tcp:0:interface=127.0.0.1  127.0.0.1:0"),
            ("USAGE_DB", "with blanks.sqlite"),
            ("MOTD", "Hello, all = well"),
            ("DISALLOW_LIST", "yes"),
            ("TRACK_CONNECTIONS", "0"),
            ("LIMIT_CONNECTIONS", "17"),
            ("WEBSOCKET_PROTOCOL_OPTION", "autoPingInterval=30 tcpNoDelay=false"),
            ("SIGNAL_ERROR", ""),
        ],
    );
    assert_eq!(server.logged_addresses().len(), 2, "{:#?}", server.log());
    assert!(server.file("with blanks.sqlite").exists());
    assert_eq!(motd(&server), "Hello, all = well");
    assert_eq!(server.count_log("empty list"), 1);
    assert_eq!(server.count_log("limits: 17 connections"), 1);
    assert_eq!(server.count_log("version 1"), 1, "no table of connections");
    assert_eq!(server.count_log("WARN"), 0);
}

#[test]
fn the_command_line_goes_before_the_environment_and_that_before_the_file() {
    let directory = Arc::new(Directory::new());
    let file = format!("motd = file\nadvertise-version = file\n{FREE_PORT}\n");
    fs::write(directory.file("conf"), format!("{file}port = 127.0.0.1:0\n")).expect("write");
    let variables =
        [("CONFIG", "conf"), ("MOTD", "environment"), ("PORT", "127.0.0.1:0"), ("LOG_LEVEL", "")];
    let server = start(&directory, &[], &variables);
    assert_eq!(server.logged_addresses().len(), 1, "a list is replaced as a whole");
    let welcome = Client::connect(server.address).recv()["welcome"].clone();
    assert_eq!(welcome["motd"], "environment");
    assert_eq!(welcome["current_cli_version"], "file");
    drop(server);
    assert_eq!(motd(&start(&directory, &["--motd=line"], &variables)), "line");
    assert_eq!(motd(&start(&directory, &["--motd="], &variables)), "");
}

#[test]
fn a_file_that_the_environment_names_is_read_again() {
    let directory = Arc::new(Directory::new());
    fs::write(directory.file("conf"), "motd = one\nsignal-error = one").expect("write");
    let server = start(&directory, &[FREE_PORT], &[("CONFIG", "conf"), ("SIGNAL_ERROR", "kept")]);
    assert_eq!(motd(&server), "one");
    fs::write(directory.file("conf"), "motd = two\nsignal-error = two").expect("write");
    server.signal(Signal::HUP);
    eventually("the new text", || motd(&server) == "two");
    assert_eq!(Client::connect(server.address).recv()["welcome"]["error"], json!("kept"));
}

#[test]
fn mistakes_name_the_variable() {
    assert_mistake("PORT", "tcp:99999", &["--port", "99999"]);
    assert_mistake("PORT", "127.0.0.1:0 nonsense", &["--port", "nonsense"]);
    assert_mistake("EXPIRE_AFTER", "soon", &["--expire-after", "soon"]);
    assert_mistake("DISALLOW_LIST", "perhaps", &["perhaps", "yes, no, 1 or 0"]);
    assert_mistake("CONFIG", "missing", &["--config", "missing"]);
    for name in ["HELP", "VERSION", "GENERATE"] {
        assert_mistake(name, "man", &["command line only"]);
    }
}

#[test]
fn variables_of_no_option_are_ignored_with_a_warning() {
    let mut server = start(
        &Arc::new(Directory::new()),
        &[FREE_PORT],
        &[
            ("PROT", "1"),
            ("SERVICE_HOST", "10.0.0.1"),
            ("PORT", "tcp://10.0.0.1:4000"),
            ("MOTD", "tcp://10.0.0.1:4000"),
            ("FOO", "1"),
            ("VERSION", ""),
            ("ELSE", ""),
        ],
    );
    for part in [
        "_PROT: ignored, this is no option's variable, did you mean WORMHOLE_MAILBOX_PORT?",
        "_SERVICE_HOST: ignored, this is no option's variable",
        "_PORT: ignored, Kubernetes",
    ] {
        assert_eq!(server.count_log(part), 1, "{part}: {:#?}", server.log());
    }
    assert_eq!(server.count_log("ignored"), 4, "{:#?}", server.log());
    let foo = server.wait_for_log("_FOO: ignored");
    assert!(foo.ends_with("this is no option's variable"), "resembles none: {foo}");
    assert_eq!(motd(&server), "tcp://10.0.0.1:4000");
    server.bind("app", "side");
    let help = program(&["--help"], &[("PORT", "nonsense")]).output().expect("the program runs");
    assert_eq!(String::from_utf8_lossy(&help.stdout), stdout_of(&["--help"]));
}
