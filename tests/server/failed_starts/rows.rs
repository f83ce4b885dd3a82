//! What spoils a start, and what it must say.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::Command;

use super::{Kept, ROW, Row, set_mode};
use crate::common::sql::{self, ADDRID_V1, CHANNEL_V1, USAGE_V1, USAGE_V2};
use crate::common::{Directory, Server};
use serde_json::json;

fn write(directory: &Directory, name: &str, bytes: &[u8]) -> Kept {
    fs::write(directory.file(name), bytes).expect("write");
    Kept::Nothing
}

fn database(directory: &Directory, name: &str, statements: &[&str]) -> Kept {
    sql::create(&directory.file(name), statements);
    Kept::Nothing
}

fn link(directory: &Directory, to: &str, name: &str) -> Kept {
    symlink(to, directory.file(name)).expect("link");
    Kept::Nothing
}

fn make_pipe(path: &Path) -> Kept {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo").success());
    Kept::Nothing
}

const DAMAGED: &str = "relay.sqlite: the file is damaged: ";

/// Writes over the first page of a table or index.
fn damage(directory: &Directory, name: &str) -> Kept {
    let path = directory.file("relay.sqlite");
    let first_page = format!("SELECT rootpage FROM sqlite_master WHERE name = '{name}'");
    let [page, bytes] = [&*first_page, "PRAGMA page_size"]
        .map(|sql| sql::rows(&path, sql)[0][0].as_u64().expect("a number"));
    let file = File::options().write(true).open(path).expect("the file");
    file.write_all_at(&[0xff; 64], (page - 1) * bytes).expect("write");
    Kept::Nothing
}

/// A copy of a database while a transaction of another program is under way: what a crash leaves.
pub fn copy_of_a_crash(directory: &Directory, journal: &str) -> Kept {
    let outside = Directory::new();
    let made = outside.file("made");
    sql::create(&made, &[CHANNEL_V1]);
    let writer = sql::open(&made);
    let mode: String = writer
        .query_row(&format!("PRAGMA journal_mode = {journal}"), [], |row| row.get(0))
        .expect("a mode");
    assert_eq!(mode, journal);
    // A cache of one page writes to the file before the commit.
    writer.execute_batch("PRAGMA cache_size = 1; BEGIN").expect("SQL");
    for number in 0..200 {
        let insert = "INSERT INTO mailboxes VALUES ('app', ?1, 1, 0)";
        writer.execute(insert, [format!("{number:0200}")]).expect("a row");
    }
    let suffix = if journal == "wal" { "-wal" } else { "-journal" };
    if journal == "wal" {
        writer.execute_batch("COMMIT").expect("SQL");
    }
    for suffix in ["", suffix] {
        let from = outside.file(&format!("made{suffix}"));
        assert!(fs::metadata(&from).expect("a file").len() > 0);
        fs::copy(from, directory.file(&format!("relay.sqlite{suffix}"))).expect("copy");
    }
    Kept::Nothing
}

const BAD_USAGE: &[&str] = &["--usage-db=bad"];

pub const ROWS: &[(&str, Row)] = &[
    (
        "not a database",
        Row {
            spoil: |it| write(it, "bad", &[b'x'; 5000]),
            arguments: BAD_USAGE,
            says: &["usage database bad: not a usage database: not an SQLite file"],
            ..ROW
        },
    ),
    (
        "a text",
        Row {
            spoil: |it| write(it, "bad", b"short"),
            arguments: BAD_USAGE,
            says: &["usage database bad: not a usage database"],
            ..ROW
        },
    ),
    (
        "a directory",
        Row {
            spoil: |it| {
                fs::create_dir(it.file("bad")).expect("directory");
                Kept::Nothing
            },
            arguments: BAD_USAGE,
            says: &["usage database bad: it is a directory"],
            ..ROW
        },
    ),
    (
        "a pipe",
        Row {
            spoil: |it| make_pipe(&it.file("bad")),
            arguments: BAD_USAGE,
            says: &["usage database bad: not a usage database: not a regular file"],
            ..ROW
        },
    ),
    (
        "a device",
        Row {
            arguments: &["--usage-db=/dev/full"],
            says: &["usage database /dev/full: not a usage database: not a regular file"],
            ..ROW
        },
    ),
    (
        "a missing directory",
        Row {
            arguments: &["--usage-db=missing/usage.sqlite"],
            says: &["missing/usage.sqlite: the directory 'missing' does not exist"],
            ..ROW
        },
    ),
    (
        "a file for a directory",
        Row {
            arguments: &["--usage-db=relay.sqlite/usage.sqlite"],
            says: &["the directory 'relay.sqlite' is not a directory"],
            ..ROW
        },
    ),
    (
        "a dangling link",
        Row {
            spoil: |it| link(it, "nowhere", "bad"),
            arguments: BAD_USAGE,
            says: &["usage database bad: it is a symbolic link to a file that does not exist"],
            ..ROW
        },
    ),
    (
        "a link for a log",
        Row {
            spoil: |it| link(it, "nowhere", "relay.sqlite-wal"),
            says: &["relay.sqlite: its '-wal' file is not writable: it is a symbolic link"],
            ..ROW
        },
    ),
    (
        "a link beside a new file",
        Row {
            spoil: |it| link(it, "nowhere", "new-journal"),
            arguments: &["--usage-db=new"],
            says: &["usage database new: its '-journal' file is not writable: it is a symbolic"],
            ..ROW
        },
    ),
    (
        "a circle of links",
        Row {
            spoil: |it| link(it, "bad", "bad"),
            arguments: BAD_USAGE,
            says: &["usage database bad: Too many levels of symbolic links"],
            ..ROW
        },
    ),
    (
        "an unknown version",
        Row {
            spoil: |it| {
                database(it, "bad", &[USAGE_V1, USAGE_V2, "UPDATE version SET version = 9"])
            },
            arguments: BAD_USAGE,
            says: &["usage database bad: version 9 is unknown, this server reads 1 to 2"],
            ..ROW
        },
    ),
    (
        "no version",
        Row {
            spoil: |it| database(it, "bad", &[USAGE_V1, USAGE_V2, "DELETE FROM version"]),
            arguments: BAD_USAGE,
            says: &["usage database bad: not a usage database: its 'version' table is empty"],
            ..ROW
        },
    ),
    (
        "another kind",
        Row {
            spoil: |it| database(it, "bad", &[ADDRID_V1]),
            arguments: BAD_USAGE,
            says: &["usage database bad: not a usage database"],
            ..ROW
        },
    ),
    (
        "one file for two",
        Row {
            arguments: &["--usage-db=relay.sqlite"],
            says: &["--channel-db and --usage-db both name relay.sqlite"],
            ..ROW
        },
    ),
    (
        "one new file for two",
        Row {
            arguments: &["--usage-db=new", "--addrid-db=./new"],
            says: &["--usage-db and --addrid-db both name ./new"],
            ..ROW
        },
    ),
    (
        "two of one name in directories that do not exist",
        Row {
            arguments: &["--usage-db=one/new", "--addrid-db=two/new"],
            says: &["usage database one/new: the directory 'one' does not exist"],
            ..ROW
        },
    ),
    (
        "the log of another",
        Row {
            arguments: &["--usage-db=./relay.sqlite-wal"],
            says: &[
                "--usage-db names ./relay.sqlite-wal, which belongs to the file of --channel-db",
            ],
            ..ROW
        },
    ),
    (
        "the log of another by a link",
        Row {
            spoil: |it| link(it, "relay.sqlite", "link"),
            arguments: &["--channel-db=link", "--usage-db=relay.sqlite-journal"],
            says: &["relay.sqlite-journal, which belongs to the file of --channel-db"],
            ..ROW
        },
    ),
    (
        "the copy of a later one",
        Row {
            arguments: &["--usage-db=u-backup-v1.2", "--addrid-db=u"],
            says: &["--usage-db names u-backup-v1.2, which belongs to the file of --addrid-db"],
            ..ROW
        },
    ),
    (
        "one file by two names",
        Row {
            spoil: |it| link(it, "relay.sqlite", "bad"),
            arguments: BAD_USAGE,
            says: &["--channel-db and --usage-db both name bad"],
            ..ROW
        },
    ),
    (
        "one file by two hard links",
        Row {
            spoil: |it| {
                fs::hard_link(it.file("relay.sqlite"), it.file("bad")).expect("link");
                Kept::Nothing
            },
            arguments: BAD_USAGE,
            says: &["--channel-db and --usage-db both name bad"],
            ..ROW
        },
    ),
    (
        "rows that point to nothing",
        Row {
            spoil: |it| {
                let connection = sql::open(&it.file("relay.sqlite"));
                let insert = "PRAGMA foreign_keys = OFF;
                          INSERT INTO mailbox_sides VALUES ('gone', 1, 'a', 1, NULL)";
                connection.execute_batch(insert).expect("SQL");
                Kept::Nothing
            },
            says: &["relay.sqlite: foreign key check failed: table 'mailbox_sides'"],
            ..ROW
        },
    ),
    (
        "half a file",
        Row {
            spoil: |it| {
                let bytes = fs::read(it.file("relay.sqlite")).expect("the file");
                write(it, "relay.sqlite", &bytes[..bytes.len() / 2])
            },
            says: &["relay.sqlite: the file is damaged"],
            ..ROW
        },
    ),
    ("a damaged table", Row { spoil: |it| damage(it, "messages"), says: &[DAMAGED], ..ROW }),
    ("a damaged index", Row { spoil: |it| damage(it, "by_request"), says: &[DAMAGED], ..ROW }),
    (
        "a version that is no number",
        Row {
            spoil: |it| {
                database(it, "bad", &[USAGE_V1, USAGE_V2, "UPDATE version SET version = 'two'"])
            },
            arguments: BAD_USAGE,
            says: &["usage database bad: version 'two' is unknown, this server reads 1 to 2"],
            ..ROW
        },
    ),
    (
        "a directory in place of the log of a new file",
        Row {
            spoil: |it| {
                fs::create_dir(it.file("new-wal")).expect("directory");
                Kept::Nothing
            },
            arguments: &["--usage-db=new"],
            says: &["usage database new: its '-wal' file is not writable: it is a directory"],
            ..ROW
        },
    ),
    (
        "a pipe in place of a journal",
        Row {
            spoil: |it| make_pipe(&it.file("relay.sqlite-journal")),
            says: &["relay.sqlite: its '-journal' file is not writable: it is not a regular file"],
            ..ROW
        },
    ),
    (
        "another server",
        Row {
            spoil: |it| {
                let server = Server::start(&[]);
                fs::hard_link(server.file("relay.sqlite"), it.file("used")).expect("link");
                Kept::Server(server)
            },
            arguments: &["--channel-db=used"],
            says: &["channel database used: another server uses it"],
            ..ROW
        },
    ),
    (
        "a lock of another program",
        Row {
            lock: |it| {
                let other = sql::open(&it.file("relay.sqlite"));
                other.execute_batch("BEGIN EXCLUSIVE").expect("locked");
                Kept::Connection(other)
            },
            says: &["relay.sqlite: another program has it locked"],
            ..ROW
        },
    ),
    (
        "a transaction of another program",
        Row {
            lock: |it| Kept::Connection(sql::lock(&it.file("relay.sqlite"))),
            says: &["relay.sqlite: another program has it locked"],
            ..ROW
        },
    ),
    (
        "a reader of a file that is not in WAL mode",
        Row {
            lock: |it| {
                let other = sql::open(&it.file("relay.sqlite"));
                other.execute_batch("BEGIN").expect("begun");
                assert_eq!(sql::query(&other, "SELECT version FROM version"), json!([[1]]));
                Kept::Connection(other)
            },
            says: &["relay.sqlite: another program has it locked"],
            ..ROW
        },
    ),
    (
        "what a crash left, in a rollback journal",
        Row {
            spoil: |it| {
                copy_of_a_crash(it, "delete");
                write(it, "bad", b"short")
            },
            arguments: BAD_USAGE,
            says: &["usage database bad: not a usage database"],
            ..ROW
        },
    ),
    (
        "what a crash left, in a log",
        Row {
            spoil: |it| {
                copy_of_a_crash(it, "wal");
                write(it, "bad", b"short")
            },
            arguments: BAD_USAGE,
            says: &["usage database bad: not a usage database"],
            ..ROW
        },
    ),
    (
        "a log of an earlier file beside an empty one",
        Row {
            spoil: |it| {
                write(it, "relay.sqlite", b"");
                write(it, "relay.sqlite-wal", b"old");
                write(it, "bad", b"short")
            },
            arguments: BAD_USAGE,
            says: &["usage database bad: not a usage database"],
            ..ROW
        },
    ),
    (
        "a port in use",
        Row {
            spoil: |_| Kept::Listener(TcpListener::bind("127.0.0.1:0").expect("a port")),
            arguments: &["--port=127.0.0.1:TAKEN"],
            says: &["cannot listen on 127.0.0.1:", "in use"],
            ..ROW
        },
    ),
    (
        "an address of another machine",
        Row {
            arguments: &["--port=192.0.2.1:4000"],
            says: &["cannot listen on 192.0.2.1:4000: "],
            ..ROW
        },
    ),
    (
        "a socket in a missing directory",
        Row {
            arguments: &["--port=unix:missing/x.sock"],
            says: &["cannot listen on unix:missing/x.sock: No such file or directory"],
            ..ROW
        },
    ),
    (
        "a socket at the path of a file",
        Row {
            spoil: |it| write(it, "x.sock", b"precious"),
            arguments: &["--port=unix:x.sock"],
            says: &["cannot listen on unix:x.sock: ", "in use"],
            ..ROW
        },
    ),
    (
        "no descriptors",
        Row {
            shell: "ulimit -n 20",
            says: &["the limit of 20 open files leaves no room for connections"],
            ..ROW
        },
    ),
    (
        "a file size limit",
        Row {
            shell: "ulimit -f 1",
            says: &["relay.sqlite: the file size limit is reached"],
            ..ROW
        },
    ),
    (
        "no room for the copy of an older file",
        Row {
            spoil: |it| {
                let large = "CREATE TABLE more (n); INSERT INTO more VALUES (zeroblob(500000))";
                database(it, "old", &[USAGE_V1, large])
            },
            shell: "ulimit -f 500",
            arguments: &["--usage-db=old"],
            says: &["usage database old: the file size limit is reached"],
            ..ROW
        },
    ),
    (
        "an unknown option",
        Row { arguments: &["--frobnicate"], status: 2, says: &["--frobnicate"], ..ROW },
    ),
    (
        "a value that is none",
        Row {
            arguments: &["--expire-after=soon"],
            status: 2,
            says: &["--expire-after", "soon"],
            ..ROW
        },
    ),
    (
        "a missing file of options",
        Row { arguments: &["--config=missing.conf"], status: 2, says: &["missing.conf"], ..ROW },
    ),
    (
        "a missing file of texts",
        Row {
            arguments: &["--welcome-file=missing.json"],
            status: 2,
            says: &["missing.json"],
            ..ROW
        },
    ),
];

/// Rows that need a user who may not do everything.
pub const ROWS_OF_NOBODY: &[(&str, Row)] = &[
    (
        "a file of another user",
        Row {
            spoil: |it| {
                set_mode(&it.file("relay.sqlite"), 0o444);
                Kept::Nothing
            },
            says: &["relay.sqlite: the file is not writable: permission denied"],
            ..ROW
        },
    ),
    (
        "a file that cannot even be read",
        Row {
            spoil: |it| {
                set_mode(&it.file("relay.sqlite"), 0o000);
                Kept::Nothing
            },
            says: &["relay.sqlite: ", "permission denied"],
            ..ROW
        },
    ),
    (
        "a log of another user",
        Row {
            spoil: |it| {
                copy_of_a_crash(it, "wal");
                set_mode(&it.file("relay.sqlite"), 0o666);
                set_mode(&it.file("relay.sqlite-wal"), 0o444);
                Kept::Nothing
            },
            says: &["relay.sqlite: its '-wal' file is not writable: permission denied"],
            ..ROW
        },
    ),
    (
        "a directory of another user",
        Row {
            spoil: |it| {
                set_mode(it.path(), 0o555);
                Kept::Nothing
            },
            says: &["relay.sqlite: the directory '", "' is not writable: permission denied"],
            ..ROW
        },
    ),
    (
        "a new file in a directory of another user",
        Row {
            spoil: |it| {
                fs::create_dir(it.file("theirs")).expect("directory");
                set_mode(&it.file("theirs"), 0o555);
                Kept::Nothing
            },
            arguments: &["--usage-db=theirs/u.db"],
            says: &["theirs/u.db: the directory 'theirs' is not writable: permission denied"],
            ..ROW
        },
    ),
    (
        "a directory that cannot be entered",
        Row {
            spoil: |it| {
                fs::create_dir(it.file("theirs")).expect("directory");
                set_mode(&it.file("theirs"), 0o000);
                Kept::Nothing
            },
            arguments: &["--usage-db=theirs/u.db"],
            says: &["theirs/u.db: the directory 'theirs'", "permission denied"],
            ..ROW
        },
    ),
    (
        "a socket in a directory of another user",
        Row {
            spoil: |it| {
                fs::create_dir(it.file("theirs")).expect("directory");
                set_mode(&it.file("theirs"), 0o555);
                Kept::Nothing
            },
            arguments: &["--port=unix:theirs/x.sock"],
            says: &["cannot listen on unix:theirs/x.sock: Permission denied"],
            ..ROW
        },
    ),
];
