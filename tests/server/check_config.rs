//! `--check-config`: options and files are read, and nothing is opened for writing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use crate::common::sql::{self, CHANNEL_V1};
use crate::common::{Directory, FREE_PORT, PROGRAM, Server, assert_fails};
use crate::moved_files::damaged_in_the_middle;

fn check(directory: &Directory, options: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("--check-config").args(options).current_dir(directory.path());
    command.stdin(Stdio::null()).output().expect("the program runs")
}

/// All files with their contents.
fn contents(directory: &Directory) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(directory.path()).expect("a directory");
    let files = entries.map(|entry| entry.expect("an entry").path());
    files
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).expect("read")))
        .collect()
}

fn assert_valid(directory: &Directory, options: &[&str]) {
    let before = contents(directory);
    let output = check(directory, options);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stdout, b"the configuration is valid\n", "{output:?}");
    assert_eq!(contents(directory), before);
}

fn assert_wrong(directory: &Directory, options: &[&str], status: i32, named: &str) {
    let before = contents(directory);
    let output = check(directory, options);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(status), 0), "{error}");
    assert!(error.lines().count() == 1 && error.contains(named), "{named}: {error}");
    assert_eq!(contents(directory), before);
}

#[test]
fn a_valid_configuration_of_a_running_server_disturbs_nothing() {
    let options = ["--usage-db=usage.sqlite", "--addrid-db=addrid.sqlite", "--motd=Hello"];
    let mut server = Server::start(&options);
    let port = format!("--port={}", server.address);
    assert_valid(&server.directory, &[&options[..], &[&port]].concat());
    server.bind("app", "side").allocate();
    server.signal(crate::common::Signal::TERM);
    server.wait();
    assert_valid(&server.directory, &options);
}

#[test]
fn files_that_do_not_exist_yet_are_not_made() {
    let directory = Directory::new();
    assert_valid(&directory, &[FREE_PORT, "--usage-db=u.sqlite", "--addrid-db=:memory:"]);
    fs::write(directory.file("empty"), "").expect("write");
    assert_valid(&directory, &["--channel-db=empty"]);
    assert_valid(&directory, &["--channel-db=:memory:"]);
}

#[test]
fn what_is_wrong_is_one_line() {
    let directory = Directory::new();
    for (name, text) in [
        ("text", "This is no database, whatever else it may be. ".repeat(100)),
        ("conf", "motd = one\nmotd = two".to_owned()),
        ("welcome", "[]".to_owned()),
    ] {
        fs::write(directory.file(name), text).expect("write");
    }
    symlink("nowhere", directory.file("new-wal")).expect("link");
    symlink("nowhere", directory.file("link")).expect("link");
    for (option, status, named) in [
        ("--prot=4000", 2, "--port"),
        ("--expire-after=soon", 2, "soon"),
        ("--config=conf", 2, "conf:2"),
        ("--welcome-file=welcome", 2, "JSON object"),
        ("--channel-db=text", 1, "text"),
        ("--usage-db=text", 1, "usage database text"),
        ("--channel-db=missing/relay.sqlite", 1, "missing"),
        ("--usage-db=relay.sqlite", 1, "--channel-db and --usage-db"),
        ("--channel-db=.", 1, "regular file"),
        ("--channel-db=new", 1, "new: its '-wal' file is not writable: it is a symbolic link"),
        ("--usage-db=link", 1, "symbolic link to a file that does not exist"),
    ] {
        assert_wrong(&directory, &[option], status, named);
    }
    assert_wrong(&directory, &["--check-config"], 2, "only once");
    fs::write(directory.file("check"), "check-config").expect("write");
    assert_wrong(&directory, &["--config=check"], 2, "command line only");
}

#[test]
fn what_a_start_looks_for_in_a_database_is_looked_for() {
    for (statement, named) in [
        (
            "CREATE TRIGGER later AFTER INSERT ON messages BEGIN SELECT newest('now'); END",
            "no such function: newest",
        ),
        (
            "INSERT INTO mailbox_sides VALUES ('gone', 1, 'side', 0, NULL)",
            "table 'mailbox_sides' has rows that point to nothing",
        ),
    ] {
        let directory = Directory::new();
        let statements = ["PRAGMA foreign_keys = OFF", CHANNEL_V1, statement];
        sql::create(&directory.file("relay.sqlite"), &statements);
        assert_wrong(&directory, &[FREE_PORT], 1, named);
    }
    for option in [FREE_PORT, "--track-connections"] {
        let directory = Directory::new();
        damaged_in_the_middle(&directory.file("relay.sqlite"));
        assert_wrong(&directory, &[option], 1, "relay.sqlite: the file is damaged");
    }
}

/// A directory with a database and the rollback journal of a program that was killed.
fn with_hot_journal() -> Directory {
    let (directory, killed) = (Directory::new(), Directory::new());
    let files = ["relay.sqlite", "relay.sqlite-journal"];
    sql::create(&killed.file(files[0]), &[CHANNEL_V1]);
    let connection = sql::open(&killed.file(files[0]));
    let unfinished = "PRAGMA cache_size = 1; BEGIN; UPDATE version SET version = 9;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
         INSERT INTO messages SELECT 'app', 'box', 'a', i, hex(zeroblob(500)), 1, NULL FROM n;";
    connection.execute_batch(unfinished).expect("SQL");
    for name in files {
        fs::copy(killed.file(name), directory.file(name)).expect("copy");
    }
    directory
}

/// A directory with a database and its log, but not the log's index.
fn with_log_alone() -> Directory {
    let server = Server::start(&[]);
    server.bind("app", "side").claim("7");
    let killed = server.kill();
    let directory = Directory::new();
    for name in ["relay.sqlite", "relay.sqlite-wal"] {
        fs::copy(killed.file(name), directory.file(name)).expect("copy");
    }
    directory
}

#[test]
fn what_a_start_would_clean_up_is_no_mistake_and_reports_say_what_is_in_their_way() {
    for (directory, why) in [
        (with_hot_journal(), "a killed program left a change unfinished; a server would undo it"),
        (with_log_alone(), "its '-wal' file has no '-shm' file beside it; a server would make one"),
    ] {
        assert_valid(&directory, &[FREE_PORT]);
        let mut status = Command::new(PROGRAM);
        assert_fails(status.arg("status"), &directory, 1, &["relay.sqlite", why]);
        let server = Server::start_in(Arc::new(directory), &[]);
        server.bind("app", "side").list();
    }
}

#[test]
fn a_log_without_its_index_is_looked_into() {
    let directory = with_log_alone();
    let newer = sql::open(&directory.file("relay.sqlite"));
    newer.execute_batch("UPDATE version SET version = 9").expect("SQL");
    let other = Directory::new();
    for name in ["relay.sqlite", "relay.sqlite-wal"] {
        fs::copy(directory.file(name), other.file(name)).expect("copy");
    }
    assert_wrong(&other, &[FREE_PORT], 1, "version 9 is unknown");
}
