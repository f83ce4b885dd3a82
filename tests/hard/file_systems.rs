//! File systems that are full, cannot be written, or lack what others have.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::common::{Client, Directory, FREE_PORT, PROGRAM, Server, eventually, sql};
use serde_json::json;

const BEGINS: &str = "storage failed";
const ENDS: &str = "storage works again";

/// A file system that is gone when this is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(path: &Path, command: &[&str]) -> Mounted {
        fs::create_dir_all(path).expect("a mount point");
        let mounted = Command::new(command[0]).args(&command[1..]).arg(path).status();
        assert!(mounted.expect("it runs").success(), "{command:?}");
        Mounted(path.to_owned())
    }

    /// ext4 with blocks of 1 KiB, which is what small disks get.
    fn ext4(directory: &Directory, mebibytes: u64) -> Mounted {
        let image = directory.file("image");
        File::create(&image).and_then(|it| it.set_len(mebibytes << 20)).expect("an image");
        let mut made = Command::new("mkfs.ext4");
        made.args(["-q", "-b", "1024", "-m", "0"]).arg(&image);
        assert!(made.status().expect("mkfs.ext4").success());
        let image = image.to_string_lossy().into_owned();
        Mounted::new(&directory.file("disk"), &["mount", "-o", "loop", &image])
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Writes until the disk is full; then frees that many bytes.
fn fill(path: &Path, free: u64) {
    let mut ballast = OpenOptions::new().append(true).create(true).open(path).expect("ballast");
    for size in [65_536, 1_024] {
        while ballast.write_all(&vec![1; size]).and_then(|()| ballast.sync_data()).is_ok() {}
    }
    let length = ballast.metadata().expect("metadata").len();
    ballast.set_len(length.saturating_sub(free)).expect("freed");
    ballast.sync_all().expect("sync");
}

#[test]
#[ignore = "needs root to mount a file system"]
fn a_start_on_a_full_disk_serves_or_says_so_however_much_is_left() {
    let directory = Arc::new(Directory::new());
    let _disk = Mounted::ext4(&directory, 4);
    let ballast = directory.file("disk/ballast");
    for free in (0..160).step_by(4) {
        for prepared in [false, true] {
            for name in ["relay.sqlite", "relay.sqlite-wal", "relay.sqlite-shm", "ballast"] {
                _ = fs::remove_file(directory.file("disk").join(name));
            }
            if prepared {
                let options = ["--channel-db=disk/relay.sqlite"];
                let server = Server::start_in(Arc::clone(&directory), &options);
                server.bind("app", "a").claim("7");
                drop(server.kill());
            }
            fill(&ballast, free * 1024);
            let mut command = Command::new("timeout");
            // In the foreground: otherwise the group gets a second signal, which ends the server at
            // once.
            command.args(["--foreground", "--preserve-status", "1", PROGRAM, FREE_PORT]);
            command.args(["--channel-db=disk/relay.sqlite", "--log-level=error"]);
            command.current_dir(directory.path()).stdin(Stdio::null());
            let output = command.output().expect("it runs");
            let text = String::from_utf8_lossy(&output.stderr);
            let died_of = output.status.signal();
            assert_eq!(died_of, None, "{free} KiB left, file there: {prepared}: {text}");
            match output.status.code() {
                Some(1) => assert!(text.contains("the disk is full"), "{free} KiB left: {text}"),
                code => assert_eq!(code, Some(0), "{free} KiB left: {text}"),
            }
        }
    }
}

#[test]
#[ignore = "needs root to mount a file system"]
fn so_does_one_with_three_files_which_stay_as_they_were_if_it_fails() {
    const ARGUMENTS: [&str; 3] = [
        "--channel-db=disk/relay.sqlite",
        "--usage-db=disk/usage.sqlite",
        "--addrid-db=disk/addrid.sqlite",
    ];
    let directory = Arc::new(Directory::new());
    let size = ["mount", "-t", "tmpfs", "-o", "size=4m", "none"];
    let _disk = Mounted::new(&directory.file("disk"), &size);
    assert!(Server::start_in(Arc::clone(&directory), &ARGUMENTS).stop().0.success());
    let state = || {
        let entries = fs::read_dir(directory.file("disk")).expect("a directory");
        let paths: BTreeSet<PathBuf> =
            entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.into_iter().map(|path| (fs::read(&path).expect("read"), path)).collect::<Vec<_>>()
    };
    let mut failed = 0;
    for free in (0..256).step_by(8) {
        fill(&directory.file("disk/ballast"), free * 1024);
        let before = state();
        let mut command = Command::new("timeout");
        command.args(["--foreground", "--preserve-status", "1", PROGRAM, FREE_PORT]);
        command.args(ARGUMENTS).arg("--log-level=error");
        command.current_dir(directory.path()).stdin(Stdio::null());
        let output = command.output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(1) {
            failed += 1;
            assert!(text.contains("the disk is full"), "{free} KiB left: {text}");
            assert_eq!(text.lines().count(), 1, "{free} KiB left: {text}");
            assert!(state() == before, "{free} KiB left: {text}");
        } else {
            assert_eq!((output.status.code(), &*text), (Some(0), ""), "{free} KiB left");
        }
    }
    assert!((1..32).contains(&failed), "{failed} starts failed");
}

#[test]
#[ignore = "needs root to mount a file system"]
fn a_log_that_a_reader_holds_on_a_full_disk_is_a_storage_failure() {
    let directory = Arc::new(Directory::new());
    let _disk = Mounted::ext4(&directory, 24);
    let ballast = directory.file("disk/ballast");
    fs::write(&ballast, vec![1; 12 << 20]).expect("room");
    let mut server = Server::start_in(Arc::clone(&directory), &["--channel-db=disk/relay.sqlite"]);
    let mut client = server.bind("app", "a");
    client.open("box");
    let reader = sql::open(&directory.file("disk/relay.sqlite"));
    reader.execute_batch("BEGIN; SELECT COUNT(*) FROM mailboxes").expect("a read transaction");
    // The log grows past several pieces of its index while the disk fills up.
    let body = "b".repeat(100_000);
    for number in 0.. {
        client.send(json!({"type": "add", "phase": number.to_string(), "body": body}));
        if server.count_log(BEGINS) > 0 {
            break;
        }
        assert!(number < 1_000, "the disk does not fill up");
        let Some(_) = next_message(&mut client) else { break };
    }
    server.wait_for_log(BEGINS);
    drop(reader);
    fs::remove_file(&ballast).expect("freed");
    server.wait_for_log(ENDS);
    let (status, _) = server.stop();
    assert!(status.success());
}

/// The next `message`, or none if the connection is closed.
fn next_message(client: &mut Client) -> Option<()> {
    loop {
        match client.socket.read().ok()? {
            tungstenite::Message::Text(text) if text.contains("\"message\"") => return Some(()),
            tungstenite::Message::Text(text) if text.contains("\"error\"") => return None,
            tungstenite::Message::Close(_) => return None,
            _ => {}
        }
    }
}

#[test]
#[ignore = "needs root to mount a file system"]
fn log_and_database_on_one_full_disk_degrade_and_recover_as_without_the_log() {
    let directory = Arc::new(Directory::new());
    let _disk = Mounted::ext4(&directory, 8);
    let log = directory.file("disk/log");
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>>disk/log", "sh", PROGRAM, "--port=unix:x.sock"]);
    command.args(["--channel-db=disk/relay.sqlite", "--log-level=debug"]);
    command.args([FREE_PORT, "--admin=unix:admin.sock"]);
    let child = command.current_dir(directory.path()).stdin(Stdio::null()).spawn();
    let child = crate::common::Running(child.expect("server starts"));
    let address = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.lines().filter_map(|it| it.split("listening on 127").nth(1)).next_back().map(|it| {
            format!("127{it}").trim().parse::<std::net::SocketAddr>().expect("an address")
        })
    };
    eventually("it listens", || address().is_some());
    let address = address().expect("an address");
    let bind = || {
        let mut client = Client::connect(address);
        let welcome = client.recv();
        client.quiet(json!({"type": "bind", "appid": "app", "side": "a"}));
        (client, welcome["welcome"]["error"].clone())
    };
    let (mut client, error) = bind();
    assert!(error.is_null());
    client.open("box");
    let ballast = directory.file("disk/ballast");
    fill(&ballast, 0);
    let body = "b".repeat(100_000);
    client.send(json!({"type": "add", "phase": "0", "body": body}));
    while next_message(&mut client).is_some() {
        client.send(json!({"type": "add", "phase": "1", "body": body}));
    }
    eventually("it is degraded", || bind().1.is_string());
    for _ in 0..50 {
        drop(bind()); // each writes lines, more than the last block of the log has room for
    }
    fs::remove_file(&ballast).expect("freed");
    eventually("it recovers", || bind().1.is_null());
    bind().0.claim("7");
    eventually("lost lines are reported", || {
        drop(bind());
        fs::read_to_string(&log).is_ok_and(|text| text.contains("could not be written"))
    });
    drop(child);
}

#[test]
#[ignore = "needs root to mount a file system"]
fn usage_is_not_recorded_while_the_file_system_has_little_room() {
    let directory = Arc::new(Directory::new());
    let disk = directory.file("disk");
    let _disk = Mounted::new(&disk, &["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs"]);
    let options = ["--channel-db=disk/relay.sqlite", "--usage-db=disk/usage.sqlite"];
    let mut server = Server::start_in(Arc::clone(&directory), &options);
    let sides = "SELECT side FROM client_versions ORDER BY rowid";
    drop(server.bind("app", "before"));
    sql::wait_for(&disk.join("usage.sqlite"), sides, &json!([["before"]]));
    fs::write(disk.join("filler"), vec![0; 7 << 20]).expect("filler");
    drop(server.bind("app", "meanwhile"));
    server.wait_for_log("has little room left");
    assert_eq!(server.bind("app", "a").claim("7"), server.bind("app", "b").claim("7"));
    fs::remove_file(disk.join("filler")).expect("filler");
    eventually("recording goes on", || {
        drop(server.bind("app", "after"));
        server.count_log("has room again") == 1
    });
    let (_, _) = server.stop();
    let rows = sql::rows(&disk.join("usage.sqlite"), sides).to_string();
    assert!(!rows.contains("meanwhile") && rows.contains("after"), "{rows}");
}

#[test]
#[ignore = "needs root to mount a file system"]
fn a_read_only_file_system_stops_the_start_with_that_reason() {
    let directory = Directory::new();
    let disk = directory.file("disk");
    let _disk = Mounted::new(&disk, &["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs"]);
    sql::create(&disk.join("relay.sqlite"), &[sql::CHANNEL_V1]);
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&disk).status();
    assert!(remounted.expect("mount").success());
    let line = sql::refusal(&directory, &["--channel-db=disk/relay.sqlite"]);
    assert!(line.contains("the file system is read-only"), "{line}");
    let line = sql::refusal(&directory, &["--channel-db=disk/new.sqlite"]);
    let wanted = "the directory 'disk' is not writable: the file system is read-only";
    assert!(line.contains(wanted), "{line}");
}

#[test]
#[ignore = "needs bindfs, and root to mount a file system"]
fn without_shared_memory_a_rollback_journal_does() {
    let directory = Arc::new(Directory::new());
    fs::create_dir(directory.file("real")).expect("directory");
    let real = directory.file("real").to_string_lossy().into_owned();
    let _fuse = Mounted::new(&directory.file("disk"), &["bindfs", "-o", "direct_io", &real]);
    let options = ["--channel-db=disk/relay.sqlite", "--usage-db=disk/usage.sqlite"];
    let server = Server::start_in(Arc::clone(&directory), &options);
    assert_eq!(server.count_log("has no shared memory"), 2, "{:#?}", server.log());
    let mailbox = server.bind("app", "a").claim("7");
    let channel = directory.file("real/relay.sqlite");
    let mode = |expected: &str| {
        assert_eq!(sql::rows(&channel, "PRAGMA journal_mode"), json!([[expected]]));
    };
    let server = Server::start_in(server.kill(), &options);
    assert_eq!(server.bind("app", "b").claim("7"), mailbox);
    let (status, _) = server.stop();
    assert!(status.success());
    mode("delete");
    // A file that comes from elsewhere in WAL mode is taken, too.
    let writer = sql::open(&channel);
    writer.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).expect("WAL");
    drop(writer);
    mode("wal");
    let server = Server::start_in(Arc::clone(&directory), &options);
    assert_eq!(server.bind("app", "b").claim("7"), mailbox);
    drop(server.kill());
    mode("delete");
}

/// A server some of whose system calls fail from its start on, those on all files or on one path.
fn start_with_failing(calls: &str, path: Option<&Path>, directory: &Arc<Directory>) -> Server {
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-qq", "-o", "trace"]);
    if let Some(path) = path {
        strace.arg("-P").arg(path);
    }
    for call in calls.split(' ') {
        strace.args(["-e", &format!("inject={call}")]);
    }
    strace.args([PROGRAM, FREE_PORT, "--track-connections"]); // which upgrades a file
    Server::spawn(strace, Arc::clone(directory))
}

/// What it acknowledges outlives it, and no file with a temporary name does.
fn assert_lasts(server: Server) {
    let mailbox = server.bind("app", "a").claim("7");
    let server = Server::start_in(server.kill(), &[]);
    assert_eq!(server.bind("app", "b").claim("7"), mailbox);
    let names = sql::names(&server.directory);
    assert!(!names.iter().any(|name| name.contains(".new-")), "{names:?}");
}

fn assert_injected(directory: &Directory) {
    let trace = fs::read_to_string(directory.file("trace")).expect("the trace");
    assert!(trace.contains("(INJECTED)"), "{trace}");
}

#[test]
#[ignore = "needs strace"]
fn without_hard_links_and_careful_renames_a_new_file_is_filled_in_place() {
    for calls in ["link,linkat:error=EPERM", "link,linkat:error=EPERM renameat2:error=EINVAL"] {
        let directory = Arc::new(Directory::new());
        let server = start_with_failing(calls, None, &directory);
        assert_injected(&directory);
        assert_lasts(server);

        let directory = Arc::new(Directory::new());
        sql::create(&directory.file("relay.sqlite"), &[sql::CHANNEL_V1]);
        fs::write(directory.file("relay.sqlite-backup-v1"), "precious").expect("write");
        let server = start_with_failing(calls, None, &directory);
        let version = sql::rows(&server.file("relay.sqlite-backup-v1.2"), "SELECT * FROM version");
        assert_eq!(version, json!([[1]]));
        let first = fs::read(server.file("relay.sqlite-backup-v1")).expect("a file");
        assert_eq!(first, b"precious");
        assert_lasts(server);
    }
}

#[test]
#[ignore = "needs strace"]
fn where_no_mode_can_be_set_files_are_made_all_the_same() {
    let directory = Arc::new(Directory::new());
    assert_lasts(start_with_failing("fchmod,chmod:error=EPERM", None, &directory));
}

#[test]
#[ignore = "needs strace"]
fn where_a_directory_cannot_be_synced_the_server_does_without() {
    let directory = Arc::new(Directory::new());
    let calls = "fsync,fdatasync:error=EINVAL";
    let server = start_with_failing(calls, Some(directory.path()), &directory);
    assert_injected(&directory);
    assert_lasts(server);
}

#[test]
#[ignore = "needs strace"]
fn a_file_system_without_locks_costs_a_warning_and_not_the_service() {
    for error in ["ENOLCK", "EBADF", "ENOSYS"] {
        let directory = Arc::new(Directory::new());
        let server = start_with_failing(&format!("flock:error={error}"), None, &directory);
        assert_eq!(server.count_log("the file system has no locks"), 1, "{:#?}", server.log());
        server.bind("app", "a").claim("7");
    }
}
