//! Starts that fail: one line from which a stranger knows what to do, exit status 1 or 2, and every
//! file as it was, to the byte.
//!
//! In each row the channel database is sound and would be upgraded if it were opened, so a start
//! that fails too late shows.

mod rows;

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::sql::{self, ADDRID_V1, CHANNEL_V1, CHANNEL_V2, USAGE_V1, USAGE_V2};
use crate::common::{Directory, FREE_PORT, PROGRAM, Server};
use rows::{ROWS, ROWS_OF_NOBODY, copy_of_a_crash};
use rusqlite::Connection;
use serde_json::json;

/// The user that owns nothing, on every system.
const NOBODY: u32 = 65_534;

/// What a start is given, and what it must say.
struct Row {
    /// Spoils the directory; what it returns is kept until the start has failed.
    spoil: fn(&Directory) -> Kept,
    /// The same for a lock, which looking at the file afterwards would drop.
    lock: fn(&Directory) -> Kept,
    /// A shell command before the program, such as a limit.
    shell: &'static str,
    arguments: &'static [&'static str],
    status: i32,
    /// Parts of the line.
    says: &'static [&'static str],
}

enum Kept {
    Nothing,
    Connection(Connection),
    Server(Server),
    Listener(TcpListener),
}

const ROW: Row = Row {
    spoil: |_| Kept::Nothing,
    lock: |_| Kept::Nothing,
    shell: "",
    arguments: &[],
    status: 1,
    says: &[],
};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("permissions");
}

/// Everything below a directory: contents, targets of links, modes.
fn snapshot(path: &Path, into: &mut BTreeMap<String, (u32, Vec<u8>)>) {
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries {
        let path = entry.expect("entry").path();
        let metadata = fs::symlink_metadata(&path).expect("metadata");
        let kind = metadata.file_type();
        let bytes = if kind.is_file() {
            fs::read(&path).unwrap_or_default()
        } else if kind.is_symlink() {
            fs::read_link(&path).expect("a link").to_string_lossy().as_bytes().to_vec()
        } else {
            if kind.is_dir() {
                snapshot(&path, into);
            }
            vec![u8::from(kind.is_fifo())]
        };
        let name = path.to_string_lossy().into_owned();
        into.insert(name, (metadata.permissions().mode(), bytes));
    }
}

fn fails(name: &str, row: &Row, user: Option<u32>) {
    let directory = Directory::new();
    sql::create(&directory.file("relay.sqlite"), &[CHANNEL_V1]);
    if user.is_some() {
        set_mode(directory.path(), 0o777);
        set_mode(&directory.file("relay.sqlite"), 0o666);
    }
    let kept = (row.spoil)(&directory);
    let state = || {
        let mut state = BTreeMap::new();
        snapshot(directory.path(), &mut state);
        state
    };
    let before = state();
    let lock = (row.lock)(&directory);
    // A server that starts all the same is ended after a while.
    let mut command = Command::new("timeout");
    let script = format!("{}\nexec \"$@\"", row.shell);
    command.args(["--preserve-status", "20", "sh", "-c", &script, "sh"]);
    command.args([PROGRAM, "--track-connections"]);
    if !row.arguments.iter().any(|argument| argument.starts_with("--port")) {
        command.arg(FREE_PORT);
    }
    let taken = match &kept {
        Kept::Listener(listener) => listener.local_addr().expect("an address").port().to_string(),
        _ => String::new(),
    };
    command.args(row.arguments.iter().map(|argument| argument.replace("TAKEN", &taken)));
    command.current_dir(directory.path()).stdin(Stdio::null());
    if let Some(user) = user {
        command.uid(user);
    }
    let output = command.output().expect("it runs");
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(row.status), "{name}: {text}");
    assert_eq!(text.lines().count(), 1, "{name}: {text}");
    for part in row.says {
        assert!(text.contains(part), "{name}: {part:?} is not in {text:?}");
    }
    if let Kept::Connection(other) = lock {
        other.execute_batch("ROLLBACK").expect("it had the lock");
    }
    let after = state();
    let changed: Vec<_> = before
        .keys()
        .chain(after.keys())
        .filter(|name| before.get(*name) != after.get(*name))
        .collect();
    assert_eq!(changed, Vec::<&String>::new(), "{name}: {text}");
    if let Kept::Server(server) = kept {
        assert!(server.stop().0.success());
    }
    set_mode(directory.path(), 0o755);
}

/// A file with a journal of a crash cannot be examined: what it is shows when others are open.
#[test]
fn files_that_are_open_when_the_last_one_fails_keep_their_journal_mode() {
    let directory = Directory::new();
    copy_of_a_crash(&directory, "delete");
    sql::create(&directory.file("channel"), &[CHANNEL_V1]);
    sql::create(&directory.file("usage"), &[USAGE_V1, USAGE_V2]);
    let options = ["--channel-db=channel", "--usage-db=usage", "--addrid-db=relay.sqlite"];
    let line = sql::refusal(&directory, &options);
    assert!(line.contains("not an address-id database"), "{line}");
    for name in ["channel", "usage"] {
        let mode = sql::rows(&directory.file(name), "PRAGMA journal_mode");
        assert_eq!(mode, json!([["delete"]]), "{name}");
    }
}

#[test]
fn a_start_that_fails_says_why_and_leaves_every_file_as_it_was() {
    for (name, row) in ROWS {
        fails(name, row, None);
    }
}

#[test]
#[ignore = "needs strace"]
fn a_start_without_an_event_loop_leaves_the_files_in_the_mode_that_they_had() {
    let log = fails_late(None, "epoll_create1:error=ENOMEM");
    assert!(log.contains("cannot start the event loop"), "{log}");
}

#[test]
#[ignore = "needs strace"]
fn so_does_one_that_finds_out_when_it_has_opened_some_of_the_files() {
    for name in FILES {
        // SQLite's shared memory, which is not made before all files have been examined.
        let log = fails_late(Some(&format!("{name}-shm")), "openat:error=EIO");
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains(name), "{log}");
    }
}

const FILES: [&str; 3] = ["addrid.sqlite", "relay.sqlite", "usage.sqlite"];

/// A start in which a system call, if need be on one file only, has that result; returns its log.
fn fails_late(file: Option<&str>, call: &str) -> String {
    let directory = Directory::new();
    let tables = [&[ADDRID_V1][..], &[CHANNEL_V1, CHANNEL_V2], &[USAGE_V1, USAGE_V2]];
    for (name, statements) in FILES.into_iter().zip(tables) {
        sql::create(&directory.file(name), statements);
    }
    let mut command = Command::new("strace");
    command.args(["-o", "/dev/null", "-e", &format!("inject={call}")]);
    if let Some(file) = file {
        command.arg("-P").arg(directory.file(file));
    }
    command.args([PROGRAM, FREE_PORT, "--usage-db=usage.sqlite", "--addrid-db=addrid.sqlite"]);
    command.current_dir(directory.path()).stdin(Stdio::null());
    let output = command.output().expect("it runs");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert_eq!(sql::names(&directory), FILES, "{log}");
    for name in FILES {
        // By its header a reader knows that it is not in WAL mode.
        let file = fs::read(directory.file(name)).expect("read");
        assert_eq!(file[18..20], [1, 1], "{name}: {log}");
    }
    log
}

#[test]
fn so_does_one_whose_user_may_not_do_it() {
    let directory = Directory::new();
    let locked = directory.file("locked");
    fs::write(&locked, "").expect("write");
    set_mode(&locked, 0o000);
    // Root may do everything, and is somebody else for these rows.
    let user = File::open(&locked).is_ok().then_some(NOBODY);
    for (name, row) in ROWS_OF_NOBODY {
        fails(name, row, user);
    }
}
