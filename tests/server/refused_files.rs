//! Files that stop the start: one line that names the file and what is wrong with it, exit status
//! 1, and the file as it was, to the byte.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::common::sql::{self, CHANNEL_V1, CHANNEL_V2, USAGE_V1, USAGE_V2};
use crate::common::{Directory, FREE_PORT, PROGRAM, Running, Server, assert_fails, copy_program};
use crate::moved_files::damaged_in_the_middle;
use serde_json::json;

/// The user that is nobody, on every system.
const NOBODY: u32 = 65_534;

/// Whatever option names the file, it is refused with a line that says `why`; nothing appears
/// beside it but what the other files of the same start need.
fn assert_refused(make: impl Fn(&Directory), option: &str, why: &str) {
    let directory = Directory::new();
    make(&directory);
    let before = sql::files(&directory);
    let option = format!("{option}=bad.db");
    let others = ["--channel-db=:memory:"];
    let is_channel = option.starts_with("--channel-db");
    for _ in 0..2 {
        let others = if is_channel { &[][..] } else { &others[..] };
        let line = sql::refusal(&directory, &[others, &[&option]].concat());
        assert!(line.contains("bad.db"), "{line}");
        assert!(line.contains(why), "{why:?} is not in {line:?}");
        assert!(sql::files(&directory) == before, "all files are as they were: {line}");
    }
}

fn made_of<'a>(statements: &'a [&'a str]) -> impl Fn(&Directory) + 'a {
    move |directory| sql::create(&directory.file("bad.db"), statements)
}

fn holding(bytes: &[u8]) -> impl Fn(&Directory) + '_ {
    move |directory| fs::write(directory.file("bad.db"), bytes).expect("write")
}

const OPTIONS: [&str; 3] = ["--channel-db", "--usage-db", "--addrid-db"];

#[test]
fn a_file_that_is_not_a_database() {
    for option in OPTIONS {
        assert_refused(holding(&[b'x'; 5000]), option, "not an SQLite file");
        assert_refused(holding(b"short"), option, "not a");
    }
}

#[test]
fn a_file_that_uses_what_this_sqlite_lacks() {
    const WHY: &str = "the file uses a feature of SQLite that this program is built without";
    let event = |event: &str, call: &str| {
        format!(
            "CREATE TABLE more (n); CREATE TRIGGER later AFTER {event} BEGIN \
             INSERT INTO more VALUES ({call}); END"
        )
    };
    for (trigger, function) in [
        (event("INSERT ON messages", "newest('now')"), "newest"),
        (event("UPDATE OF updated ON mailboxes", "newer(new.id)"), "newer"),
        (event("DELETE ON nameplates", "new()"), "new"),
    ] {
        let why = format!("{WHY}: no such function: {function}");
        assert_refused(made_of(&[CHANNEL_V1, &trigger]), "--channel-db", &why);
    }
    let unreadable = "CREATE VIEW later AS SELECT 1; PRAGMA writable_schema = ON; \
                      UPDATE sqlite_master SET sql = 'CREATE VIEW later' WHERE name = 'later'";
    let why = format!("{WHY}, or its schema is spoilt: malformed database schema (later)");
    assert_refused(made_of(&[CHANNEL_V1, unreadable]), "--channel-db", &why);
}

#[test]
fn a_file_with_generated_columns_is_used() {
    let directory = Arc::new(Directory::new());
    let generated = "CREATE TABLE more (a, b GENERATED ALWAYS AS (a + 1) STORED); \
                     ALTER TABLE messages ADD COLUMN bytes AS (length(body))";
    sql::create(&directory.file("relay.sqlite"), &[CHANNEL_V1, generated]);
    let server = Server::start_in(directory, &[]);
    let mut client = server.bind("app", "a");
    client.open("box");
    client.one(json!({"type": "add", "phase": "phase", "body": "body"}));
    let bytes = sql::rows(&server.file("relay.sqlite"), "SELECT bytes FROM messages");
    assert_eq!(bytes, json!([[4]]));
}

/// SQLite takes a file of one byte for an empty one, and what lies beside it for leftovers.
#[test]
fn what_lies_beside_a_file_that_is_not_a_database() {
    let head = b"SQLite format 3\0";
    for (name, bytes) in [
        ("-wal", &b"x"[..]),
        ("-wal", b"S"),
        ("-wal", b"\0"),
        ("-wal", &[b'x'; 5000]),
        ("-journal", &[b'x'; 5000]),
        ("-journal", &[0; 5000]),
        ("-journal", b"\0"),
        ("-journal", head),
    ] {
        let make = |directory: &Directory| {
            holding(bytes)(directory);
            fs::write(directory.file(&format!("bad.db{name}")), b"a text").expect("write");
        };
        for option in OPTIONS {
            assert_refused(make, option, "not an SQLite file");
        }
    }
}

#[test]
fn a_truncated_database() {
    let truncated = |directory: &Directory| {
        let path = directory.file("bad.db");
        sql::create(&path, &[CHANNEL_V1]);
        let bytes = fs::read(&path).expect("the file");
        fs::write(&path, &bytes[..bytes.len() / 2]).expect("write");
    };
    assert_refused(truncated, "--channel-db", "malformed");
}

#[test]
fn a_directory_in_place_of_a_file() {
    let directory = Directory::new();
    fs::create_dir(directory.file("bad.db")).expect("directory");
    assert!(sql::refusal(&directory, &["--channel-db=bad.db"]).contains("bad.db"));
}

#[test]
fn a_file_in_a_directory_that_does_not_exist() {
    let directory = Directory::new();
    for option in OPTIONS {
        let option = format!("{option}=missing/new.db");
        let others: &[&str] =
            if option.starts_with("--channel") { &[] } else { &["--channel-db=:memory:"] };
        let line = sql::refusal(&directory, &[others, &[&option]].concat());
        assert!(line.contains("missing/new.db"), "{line}");
        assert_eq!(sql::names(&directory), Vec::<String>::new());
    }
}

#[test]
fn a_file_of_another_kind() {
    for usage in [&[USAGE_V1][..], &[USAGE_V1, USAGE_V2]] {
        assert_refused(made_of(usage), "--channel-db", "not a channel database");
        assert_refused(made_of(usage), "--addrid-db", "");
    }
    for channel in [&[CHANNEL_V1][..], &[CHANNEL_V1, CHANNEL_V2]] {
        assert_refused(made_of(channel), "--usage-db", "not a usage database");
        assert_refused(made_of(channel), "--addrid-db", "");
    }
    assert_refused(made_of(&[sql::ADDRID_V1]), "--channel-db", "not a channel database");
    assert_refused(made_of(&["CREATE TABLE t (x)"]), "--channel-db", "no 'version' table");
}

#[test]
fn an_unknown_version() {
    for version in ["3", "0", "-1", "'two'", "NULL"] {
        let set = format!("UPDATE version SET version = {version};");
        assert_refused(made_of(&[CHANNEL_V1, &set]), "--channel-db", "version");
        assert_refused(made_of(&[USAGE_V1, USAGE_V2, &set]), "--usage-db", "version");
        assert_refused(made_of(&[sql::ADDRID_V1, &set]), "--addrid-db", "version");
    }
    let none = made_of(&[CHANNEL_V1, "DELETE FROM version;"]);
    assert_refused(none, "--channel-db", "'version' table is empty");
}

#[test]
fn an_unknown_version_in_wal_mode_with_a_log_left_over() {
    let left_over = |directory: &Directory| {
        let made = directory.file("made.db");
        let writer = sql::open(&made);
        writer.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).expect("WAL");
        writer.execute_batch(CHANNEL_V1).expect("SQL");
        writer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("checkpoint");
        writer.execute_batch("UPDATE version SET version = 3;").expect("SQL");
        for suffix in ["", "-wal", "-shm"] {
            let copy = directory.file(&format!("bad.db{suffix}"));
            fs::copy(directory.file(&format!("made.db{suffix}")), copy).expect("copy");
        }
    };
    assert_refused(left_over, "--channel-db", "version 3 is unknown");
}

#[test]
fn a_version_that_the_tables_do_not_bear_out() {
    let claims_2 = made_of(&[CHANNEL_V1, "UPDATE version SET version = 2;"]);
    assert_refused(claims_2, "--channel-db", "no such table");
    let column_gone = made_of(&[CHANNEL_V1, "ALTER TABLE mailbox_sides DROP COLUMN mood;"]);
    assert_refused(column_gone, "--channel-db", "mood");
}

#[test]
fn rows_that_point_to_nothing() {
    let dangling =
        "PRAGMA foreign_keys = OFF; INSERT INTO mailbox_sides VALUES ('gone', 1, 'a', 1, NULL);";
    assert_refused(made_of(&[CHANNEL_V1, dangling]), "--channel-db", "foreign key");
}

#[test]
fn a_refused_file_that_would_have_been_upgraded_gets_no_backup() {
    let dangling =
        "PRAGMA foreign_keys = OFF; INSERT INTO mailbox_sides VALUES ('gone', 1, 'a', 1, NULL);";
    let with_later_tables = [CHANNEL_V1, CHANNEL_V2, "UPDATE version SET version = 1;"];
    for statements in [&[CHANNEL_V1, dangling][..], &with_later_tables] {
        let directory = Directory::new();
        sql::create(&directory.file("relay.sqlite"), statements);
        sql::refusal(&directory, &["--track-connections"]);
        assert_eq!(sql::names(&directory), ["relay.sqlite"]);
    }
}

#[test]
fn a_damaged_message_is_found_before_an_upgrade() {
    let directory = Directory::new();
    damaged_in_the_middle(&directory.file("relay.sqlite"));
    let before = sql::files(&directory);
    for option in ["--track-connections", "--addrid-db=:memory:"] {
        let why = sql::refusal(&directory, &[option]);
        assert!(why.contains("relay.sqlite: the file is damaged"), "{why}");
        assert!(sql::files(&directory) == before, "{option}: the file as it was");
    }
}

#[test]
fn a_file_name_may_be_as_long_as_that_of_its_journal_allows() {
    const NAME_BYTES_MAX: usize = 255;
    let longest = NAME_BYTES_MAX - "-journal".len();
    let option = |bytes| format!("--channel-db={}", "c".repeat(bytes));
    let server = Server::start(&[&option(longest)]);
    server.bind("app", "a").claim("7");
    assert_eq!(server.count_log("WARN"), 0, "{:#?}", server.log());
    assert!(server.file(&("c".repeat(longest) + "-wal")).exists());
    let directory = server.kill();
    assert_eq!(sql::names(&directory).len(), 3, "no scratch file is left");
    for check in [&[][..], &["--check-config"]] {
        let mut command = Command::new(PROGRAM);
        command.args([FREE_PORT, &option(longest + 1)]).args(check);
        assert_fails(&mut command, &directory, 1, &["'-journal' file", "File name too long"]);
    }
}

/// The program run by a user who may not do everything; `path`: what only root can write.
fn command_of_nobody(directory: &Directory, path: &Path) -> Command {
    let is_root = fs::OpenOptions::new().write(true).open(path).is_ok();
    if !is_root {
        return Command::new(PROGRAM);
    }
    // Others may not run what is in root's directories.
    let program = directory.file("program");
    copy_program(&program);
    let mut command = Command::new(program);
    command.uid(NOBODY);
    command
}

/// All that SQLite needs is that names in it can be looked up and made.
#[test]
fn a_directory_that_cannot_be_listed_stops_nobody() {
    let directory = Directory::new();
    let (probe, data) = (directory.file("probe"), directory.file("data"));
    fs::write(&probe, "").expect("write");
    fs::set_permissions(&probe, fs::Permissions::from_mode(0o444)).expect("permissions");
    let mut command = command_of_nobody(&directory, &probe);
    fs::create_dir(&data).expect("directory");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o333)).expect("permissions");
    command.args([FREE_PORT, "--channel-db=data/relay.sqlite"]).current_dir(directory.path());
    let server = command.stderr(Stdio::piped()).spawn().expect("server starts");
    let mut server = Running(server);
    let log = BufReader::new(server.0.stderr.take().expect("a pipe"));
    let mut lines = log.lines().map(|line| line.expect("UTF-8"));
    assert!(lines.any(|line| line.contains("listening on")), "it starts");
}

#[test]
fn a_file_that_cannot_be_written() {
    let directory = Directory::new();
    let path = directory.file("bad.db");
    sql::create(&path, &[CHANNEL_V1]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("permissions");
    let before = fs::read(&path).expect("the file");
    let mut command = command_of_nobody(&directory, &path);
    command.args([FREE_PORT, "--log-level=error", "--channel-db=bad.db"]);
    let line = sql::refusal_of(command, &directory);
    assert!(line.contains("bad.db") && line.contains("the file is not writable"), "{line}");
    assert!(fs::read(&path).expect("the file") == before);
}

/// The copy of an older version lies beside the link that leads to the file.
#[test]
fn a_directory_that_takes_no_copy_of_an_older_version() {
    let directory = Directory::new();
    let (data, links) = (directory.file("data"), directory.file("links"));
    let path = data.join("relay.sqlite");
    fs::create_dir(&data).and_then(|()| fs::create_dir(&links)).expect("directories");
    sql::create(&path, &[CHANNEL_V1]);
    std::os::unix::fs::symlink("../data/relay.sqlite", links.join("link")).expect("link");
    let probe = directory.file("probe");
    fs::write(&probe, "").expect("write");
    for (path, mode) in [(&data, 0o777), (&path, 0o666), (&links, 0o555), (&probe, 0o444)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
    }
    let before = fs::read(&path).expect("the file");
    let mut command = command_of_nobody(&directory, &probe);
    command.args([FREE_PORT, "--log-level=error", "--track-connections"]);
    command.arg("--channel-db=links/link");
    let line = sql::refusal_of(command, &directory);
    assert!(line.contains("the directory 'links' is not writable: permission denied"), "{line}");
    assert!(fs::read(&path).expect("the file") == before);
}

#[test]
fn a_file_that_another_server_uses() {
    let first = Server::start(&["--usage-db=u.db", "--addrid-db=a.db"]);
    let mailbox = first.bind("app", "a").claim("7");
    for [channel, usage, addrid] in [
        ["relay.sqlite", ":memory:", ":memory:"],
        ["other.db", "u.db", ":memory:"],
        ["other.db", ":memory:", "a.db"],
    ] {
        let options = [
            format!("--channel-db={channel}"),
            format!("--usage-db={usage}"),
            format!("--addrid-db={addrid}"),
        ];
        let line = sql::refusal(&first.directory, &options.each_ref().map(String::as_str));
        assert!(line.contains("another server uses it"), "{line}");
    }
    // The first is none the worse for it, nor are its files.
    assert_eq!(first.bind("app", "b").claim("7"), mailbox);
    let (status, directory) = first.stop();
    assert!(status.success());
    let claimed = sql::rows(&directory.file("relay.sqlite"), "SELECT name FROM nameplates");
    assert_eq!(claimed, json!([["7"]]));
    // And when it is gone, the file is free, even after a kill.
    let second = Server::start_in(Arc::clone(&directory), &[]);
    assert_eq!(Server::start_in(second.kill(), &[]).bind("app", "b").claim("7"), mailbox);
}
