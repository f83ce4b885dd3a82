//! The files: how new ones are built, which old ones are taken as they are, which are upgraded,
//! and what is left behind. Files that are refused have their own tests, in refused_files.rs.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::common::sql::{self, CHANNEL_V1, CHANNEL_V2, USAGE_V1, USAGE_V2};
use crate::common::{Directory, FREE_PORT, PROGRAM, Running, Server, Signal, eventually, now};
use serde_json::{Value, json};

const VERSION: &str = "SELECT version FROM version";

/// A nameplate 7 with its mailbox "box" that side "a" claims and has open, and a message.
fn live_rows() -> String {
    let now = now();
    format!(
        "INSERT INTO mailboxes VALUES ('app', 'box', {now}, 1);
         INSERT INTO mailbox_sides VALUES ('box', 1, 'a', {now}, NULL);
         INSERT INTO nameplates VALUES (41, 'app', '7', 'box', NULL);
         INSERT INTO nameplate_sides VALUES (41, 1, 'a', {now});
         INSERT INTO messages VALUES ('app', 'box', 'a', 'pake', 'b0d1', {now}, 'm1');"
    )
}

/// Side "b" comes for nameplate 7 and finds everything that `live_rows` has.
fn assert_live_rows_are_served(server: &Server) {
    let mut client = server.bind("app", "b");
    assert_eq!(client.claim("7"), "box");
    let replay = client.open("box");
    assert_eq!(replay.len(), 1);
    assert_eq!(replay[0]["phase"], "pake");
    assert_eq!(replay[0]["body"], "b0d1");
    assert_eq!(replay[0]["id"], "m1");
    assert_eq!(replay[0]["side"], "a");
}

fn directory_with(name: &str, statements: &[&str]) -> Arc<Directory> {
    let directory = Arc::new(Directory::new());
    sql::create(&directory.file(name), statements);
    directory
}

fn assert_built_like(path: &Path, statements: &[&str]) {
    let expected = sql::structure(&sql::in_memory(statements));
    assert_eq!(sql::structure(&sql::open(path)), expected);
}

fn integrity(path: &Path) {
    assert_eq!(sql::rows(path, "PRAGMA integrity_check"), json!([["ok"]]));
    assert_eq!(sql::rows(path, "PRAGMA foreign_key_check"), json!([]));
}

#[test]
fn new_files_have_exactly_the_tables_columns_and_indexes_of_the_manual() {
    let server = Server::start(&["--usage-db=usage.sqlite"]);
    let (status, directory) = server.stop();
    assert!(status.success());
    assert_eq!(sql::names(&directory), ["relay.sqlite", "usage.sqlite"], "nothing else is left");
    let channel = directory.file("relay.sqlite");
    assert_built_like(&channel, &[CHANNEL_V1]);
    assert_eq!(sql::rows(&channel, VERSION), json!([[1]]));
    let usage = directory.file("usage.sqlite");
    assert_built_like(&usage, &[USAGE_V1, USAGE_V2]);
    assert_eq!(sql::rows(&usage, VERSION), json!([[2]]));
}

#[test]
fn a_file_of_zero_bytes_counts_as_new() {
    // As `touch` leaves it, before it is mounted into a container.
    let directory = Arc::new(Directory::new());
    for name in ["relay.sqlite", "usage.sqlite", "addrid.sqlite"] {
        fs::write(directory.file(name), "").expect("write");
    }
    let options = ["--usage-db=usage.sqlite", "--addrid-db=addrid.sqlite"];
    let server = Server::start_in(directory, &options);
    let mailbox = server.bind("app", "a").claim("7");
    let (status, directory) = server.stop();
    assert!(status.success());
    assert_built_like(&directory.file("relay.sqlite"), &[CHANNEL_V1, CHANNEL_V2]);
    assert_built_like(&directory.file("usage.sqlite"), &[USAGE_V1, USAGE_V2]);
    assert_built_like(&directory.file("addrid.sqlite"), &[sql::ADDRID_V1]);
    let server = Server::start_in(directory, &options);
    assert_eq!(server.bind("app", "b").claim("7"), mailbox);
}

#[test]
fn new_files_are_for_their_owner_alone_and_others_keep_their_mode() {
    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    let options = ["--usage-db=u.db", "--addrid-db=a.db"];
    let server = Server::start(&options);
    server.bind("app", "a").claim("7");
    for name in ["relay.sqlite", "relay.sqlite-wal", "relay.sqlite-shm", "u.db", "a.db"] {
        assert_eq!(mode(&server.file(name)), 0o600, "{name}");
    }
    assert_eq!(server.count_log("chmod 600"), 0);
    let (_, directory) = server.stop();
    let channel = directory.file("relay.sqlite");
    fs::set_permissions(&channel, fs::Permissions::from_mode(0o640)).expect("permissions");
    let server = Server::start_in(directory, &options);
    server.bind("app", "a").claim("7");
    for name in ["relay.sqlite", "relay.sqlite-wal", "relay.sqlite-shm"] {
        assert_eq!(mode(&server.file(name)), 0o640, "{name}");
    }
    assert_eq!(server.count_log("chmod 600"), 1, "{:#?}", server.log());
}

#[test]
fn a_clean_stop_leaves_the_journal_mode_of_the_python_server() {
    let options = ["--usage-db=u.db", "--addrid-db=a.db"];
    let (_, directory) = Server::start(&options).stop();
    for name in ["relay.sqlite", "u.db", "a.db"] {
        let mode = sql::rows(&directory.file(name), "PRAGMA journal_mode");
        assert_eq!(mode, json!([["delete"]]), "{name}");
    }
}

#[test]
fn a_file_that_another_process_has_open_stays_in_wal_mode_with_a_warning() {
    let mut server = Server::start(&[]);
    server.bind("app", "a").claim("7");
    let reader = sql::open(&server.file("relay.sqlite"));
    reader.query_row("SELECT 1 FROM mailboxes", [], |_| Ok(())).expect("a row");
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert_eq!(server.count_log("stays in WAL mode"), 1, "{:#?}", server.log());
    drop(reader);
    let claimed = sql::rows(&server.file("relay.sqlite"), "SELECT name FROM nameplates");
    assert_eq!(claimed, json!([["7"]]));
}

#[test]
fn a_backup_never_replaces_another_and_a_link_is_not_followed() {
    let directory = directory_with("relay.sqlite", &[CHANNEL_V1]);
    fs::write(directory.file("relay.sqlite-backup-v1"), "precious").expect("write");
    fs::write(directory.file("victim"), "precious").expect("write");
    let link = directory.file("relay.sqlite-backup-v1.2");
    std::os::unix::fs::symlink(directory.file("victim"), link).expect("link");
    let server = Server::start_in(directory, &["--track-connections"]);
    for name in ["relay.sqlite-backup-v1", "victim"] {
        assert_eq!(fs::read(server.file(name)).expect("a file"), b"precious");
    }
    let backup = server.file("relay.sqlite-backup-v1.3");
    assert_eq!(sql::rows(&backup, VERSION), json!([[1]]));
}

#[test]
fn a_link_shows_what_is_in_the_log_beside_the_file() {
    let directory = directory_with("relay.sqlite", &[CHANNEL_V1]);
    let folder = directory.file("folder");
    fs::create_dir(&folder).expect("directory");
    std::os::unix::fs::symlink("../relay.sqlite", folder.join("link")).expect("link");
    let options = ["--channel-db=folder/link", "--admin=unix:admin.sock"];
    let server = Server::start_in(directory, &options);
    server.bind("app", "a").claim("7");
    let status = |option: &str| -> Value {
        let mut command = Command::new(PROGRAM);
        command.args(["status", "--json", option]).current_dir(server.directory.path());
        serde_json::from_slice(&command.output().expect("it runs").stdout).expect("JSON")
    };
    let read = status("--channel-db=folder/link");
    assert_eq!(read["channel"]["nameplates"], 1, "{read}");
    assert!(read["channel"]["file"]["wal_bytes"].as_u64() > Some(0), "{read}");
    let told = status("--admin=unix:admin.sock");
    assert!(told["server"]["storage"]["files"][0]["wal_bytes"].as_u64() > Some(0), "{told}");
}

#[test]
fn a_name_that_only_begins_as_that_of_a_backup_is_free() {
    for name in ["relay.sqlite-backup-vault", "relay.sqlite-backup-v", "relay.sqlite-backup-v1.x"] {
        let server = Server::start(&[&format!("--usage-db={name}")]);
        let (status, directory) = server.stop();
        assert!(status.success());
        assert_eq!(sql::names(&directory), ["relay.sqlite", name]);
    }
}

#[test]
fn links_in_place_of_temporary_names_are_not_followed() {
    let directory = Arc::new(Directory::new());
    let victim = directory.file("victim");
    fs::write(&victim, "precious").expect("write");
    // The shell's number is the program's: all names that it could try first lead elsewhere.
    let script = "for n in 0 1 2 3 4 5 6 7 8 9; do ln -s victim relay.sqlite.new-$$-$n; \
                  ln -s victim relay.sqlite.new-$$-$n-journal; done; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", PROGRAM, FREE_PORT]);
    let server = Server::spawn(command, directory);
    server.bind("app", "a").claim("7");
    assert_eq!(fs::read(&victim).expect("a file"), b"precious");
}

#[test]
fn new_files_of_a_server_that_needs_version_2_have_it_without_a_backup() {
    let server = Server::start(&["--channel-db=c.db", "--addrid-db=a.db", "--track-connections"]);
    let (_, directory) = server.stop();
    let names = sql::names(&directory);
    let channel = directory.file("c.db");
    assert_built_like(&channel, &[CHANNEL_V1, CHANNEL_V2]);
    assert_eq!(sql::rows(&channel, VERSION), json!([[2]]));
    assert_built_like(&directory.file("a.db"), &[sql::ADDRID_V1]);
    // Nothing of value was there to back up.
    assert_eq!(names, ["a.db", "c.db"]);
}

#[test]
fn a_version_1_file_stays_version_1() {
    let directory = directory_with("relay.sqlite", &[CHANNEL_V1, &live_rows()]);
    let server = Server::start_in(directory, &[]);
    assert_live_rows_are_served(&server);
    let (_, directory) = server.stop();
    assert_eq!(sql::names(&directory), ["relay.sqlite"]);
    assert_eq!(sql::rows(&directory.file("relay.sqlite"), VERSION), json!([[1]]));
    assert_built_like(&directory.file("relay.sqlite"), &[CHANNEL_V1]);
}

#[test]
fn a_feature_that_needs_version_2_upgrades_the_file_and_keeps_a_backup() {
    for feature in ["--addrid-db=:memory:", "--track-connections"] {
        let directory = directory_with("relay.sqlite", &[CHANNEL_V1, &live_rows()]);
        let path = directory.file("relay.sqlite");
        let before = sql::contents(&path);
        let bytes = fs::read(&path).expect("the file");
        let server = Server::start_in(directory, &[feature]);
        assert!(server.log().iter().any(|line| line.contains("relay.sqlite-backup-v1")));
        let (_, directory) = server.stop();
        assert_eq!(sql::names(&directory), ["relay.sqlite", "relay.sqlite-backup-v1"], "{feature}");
        assert_built_like(&path, &[CHANNEL_V1, CHANNEL_V2]);
        assert_eq!(sql::rows(&path, VERSION), json!([[2]]));
        let mut after = sql::contents(&path);
        for added in ["addrid_generation", "connections", "connection_messages"] {
            assert!(after.remove(added).is_some());
        }
        assert_eq!(after, before, "{feature}");

        let backup = directory.file("relay.sqlite-backup-v1");
        assert!(fs::read(&backup).expect("a backup") == bytes, "the file as it was");
        assert_eq!(sql::rows(&backup, VERSION), json!([[1]]));
        assert_eq!(sql::contents(&backup), before);
        integrity(&backup);

        // The way back is the backup under the old name.
        fs::rename(&backup, &path).expect("rename");
        assert_live_rows_are_served(&Server::start_in(directory, &[]));
    }
}

#[test]
fn the_backup_holds_what_a_reader_keeps_in_the_log() {
    let server = Server::start(&[]);
    let first = server.bind("app", "a").claim("7");
    let reader = sql::open(&server.file("relay.sqlite"));
    reader.execute_batch("BEGIN").expect("BEGIN");
    sql::query(&reader, "SELECT * FROM mailboxes");
    let second = server.bind("app", "a").claim("8");
    let server = Server::start_in(server.kill(), &["--track-connections"]);
    let ids = "SELECT id FROM mailboxes ORDER BY rowid";
    let backup = sql::rows(&server.file("relay.sqlite-backup-v1"), ids);
    assert_eq!(backup, json!([[first], [second]]));
}

#[test]
fn the_backup_holds_what_a_killed_server_left_in_its_log() {
    let server = Server::start(&[]);
    let mailbox = server.bind("app", "a").claim("7");
    let directory = server.kill();
    assert!(fs::metadata(directory.file("relay.sqlite-wal")).expect("a log").len() > 0);
    let server = Server::start_in(directory, &["--track-connections"]);
    let backup = sql::rows(&server.file("relay.sqlite-backup-v1"), "SELECT id FROM mailboxes");
    assert_eq!(backup, json!([[mailbox]]));
    assert_eq!(server.bind("app", "b").claim("7"), mailbox);
}

#[test]
fn a_version_2_file_works_with_and_without_the_features_that_need_it() {
    let directory = directory_with("relay.sqlite", &[CHANNEL_V1, &live_rows(), CHANNEL_V2]);
    for features in [&[][..], &["--addrid-db=:memory:", "--track-connections"], &[]] {
        let server = Server::start_in(Arc::clone(&directory), features);
        assert_live_rows_are_served(&server);
        drop(server.stop());
        assert_eq!(sql::names(&directory), ["relay.sqlite"], "no backup of what is not changed");
        assert_eq!(sql::rows(&directory.file("relay.sqlite"), VERSION), json!([[2]]));
    }
}

#[test]
fn a_file_upgraded_by_upstream_has_a_third_column_and_works() {
    let third_column = "ALTER TABLE addrid_generation ADD COLUMN ends INTEGER;
                        INSERT INTO addrid_generation VALUES (12, 1700000000.5, NULL);";
    let directory =
        directory_with("relay.sqlite", &[CHANNEL_V1, &live_rows(), CHANNEL_V2, third_column]);
    let server = Server::start_in(directory, &["--addrid-db=:memory:", "--track-connections"]);
    assert_live_rows_are_served(&server);
    let generation = "SELECT generation, ends FROM addrid_generation";
    sql::wait_for(&server.file("relay.sqlite"), generation, &json!([[13, null]]));
}

#[test]
fn tables_of_other_programs_are_left_alone_whatever_rules_they_have() {
    // A function that this SQLite does not have.
    let theirs = "CREATE TABLE theirs (value);
                  INSERT INTO theirs VALUES ('[1]');
                  PRAGMA writable_schema = ON;
                  UPDATE sqlite_master SET sql = replace(sql, ')', ' CHECK (json_valid(value)))')
                  WHERE name = 'theirs';";
    let directory = directory_with("relay.sqlite", &[CHANNEL_V1, theirs]);
    let server = Server::start_in(directory, &[]);
    server.bind("app", "a").claim("7");
    let (_, directory) = server.stop();
    let contents = sql::rows(&directory.file("relay.sqlite"), "SELECT value FROM theirs");
    assert_eq!(contents, json!([["[1]"]]));
}

#[test]
fn connections_of_an_earlier_run_are_removed_even_if_none_are_tracked_now() {
    let earlier = "INSERT INTO connections (id, connected, side) VALUES (7, 1700000000.5, 'a');
                   INSERT INTO connection_messages VALUES (7, 1700000000.5, 'bind');";
    let directory = directory_with("relay.sqlite", &[CHANNEL_V1, CHANNEL_V2, earlier]);
    let server = Server::start_in(directory, &[]);
    let path = server.file("relay.sqlite");
    for table in ["connections", "connection_messages"] {
        assert_eq!(sql::rows(&path, &format!("SELECT * FROM {table}")), json!([]));
    }
}

#[test]
fn a_version_1_usage_file_is_upgraded_and_keeps_a_backup() {
    let row = "INSERT INTO mailboxes VALUES ('app', 1, 1700000000, 3.5, 1.25, 'happy');";
    let directory = directory_with("usage.sqlite", &[USAGE_V1, row]);
    let path = directory.file("usage.sqlite");
    let server = Server::start_in(directory, &["--usage-db=usage.sqlite"]);
    drop(server.bind("app", "a"));
    let (_, directory) = server.stop();
    let expected = ["relay.sqlite", "usage.sqlite", "usage.sqlite-backup-v1"];
    assert_eq!(sql::names(&directory), expected);
    assert_built_like(&path, &[USAGE_V1, USAGE_V2]);
    let mailboxes = json!([["app", 1, 1_700_000_000, 3.5, 1.25, "happy"]]);
    assert_eq!(sql::contents(&path)["mailboxes"], mailboxes);
    assert_eq!(sql::rows(&path, "SELECT side FROM client_versions"), json!([["a"]]));
    let backup = directory.file("usage.sqlite-backup-v1");
    assert_eq!(sql::rows(&backup, VERSION), json!([[1]]));
    assert_eq!(sql::contents(&backup)["mailboxes"], mailboxes);
}

#[test]
fn a_file_is_created_whole_or_not_at_all() {
    // Some of these are killed before the rename, some after it, some while serving; at each, the
    // name has either no file or one that the next start takes.
    let directory = Arc::new(Directory::new());
    for round in 0..30 {
        let mut child = Command::new(PROGRAM)
            .args([FREE_PORT, "--log-level=error"])
            .arg(format!("--channel-db=c{round}.db"))
            .current_dir(directory.path())
            .spawn()
            .expect("server starts");
        std::thread::sleep(Duration::from_micros(500 * round)); // any instant will do
        child.kill().expect("kill");
        child.wait().expect("wait");
        let path = directory.file(&format!("c{round}.db"));
        if path.exists() {
            assert_built_like(&path, &[CHANNEL_V1]);
            assert_eq!(sql::rows(&path, VERSION), json!([[1]]));
        }
        let name = format!("--channel-db=c{round}.db");
        drop(Server::start_in(Arc::clone(&directory), &[&name]));
    }
}

#[test]
fn logs_of_a_file_that_was_removed_do_not_get_into_a_new_one() {
    let server = Server::start(&[]);
    let old = server.bind("app", "a").claim("7");
    let directory = server.kill();
    fs::remove_file(directory.file("relay.sqlite")).expect("remove");
    assert!(directory.file("relay.sqlite-wal").exists(), "what the operator forgot");
    let server = Server::start_in(directory, &[]);
    assert_ne!(server.bind("app", "b").claim("7"), old);
    let (_, directory) = server.stop();
    integrity(&directory.file("relay.sqlite"));
    assert_eq!(sql::names(&directory), ["relay.sqlite"]);
}

#[test]
fn a_clean_stop_leaves_neither_log_nor_shared_memory() {
    let options = ["--usage-db=u.db", "--addrid-db=a.db", "--track-connections"];
    let server = Server::start(&options);
    let mut client = server.bind("app", "a");
    client.claim("7");
    assert!(server.file("relay.sqlite-wal").exists());
    drop(client);
    let (status, directory) = server.stop();
    assert!(status.success());
    assert_eq!(sql::names(&directory), ["a.db", "relay.sqlite", "u.db"]);
    // The claim is in the file itself, then.
    let claimed = sql::rows(&directory.file("relay.sqlite"), "SELECT name FROM nameplates");
    assert_eq!(claimed, json!([["7"]]));
}

#[test]
fn a_file_in_memory_keeps_nothing_and_leaves_nothing() {
    let options = ["--channel-db=:memory:", "--usage-db=:memory:", "--addrid-db=:memory:"];
    let server = Server::start(&options);
    let mailbox = server.bind("app", "a").claim("7");
    assert_eq!(server.bind("app", "b").claim("7"), mailbox);
    let (status, directory) = server.stop();
    assert!(status.success());
    assert_eq!(sql::names(&directory), Vec::<String>::new());
    let server = Server::start_in(directory, &options);
    assert_ne!(server.bind("app", "b").claim("7"), mailbox);
}

#[test]
fn messages_of_mailboxes_that_do_not_exist_are_removed() {
    let orphans = "INSERT INTO messages VALUES ('app', 'gone', 'a', '0', 'b', 1, NULL);
                   INSERT INTO messages VALUES ('app', 'gone', 'a', '1', 'b', 2, NULL);";
    let directory = directory_with("relay.sqlite", &[CHANNEL_V1, orphans, &live_rows()]);
    let server = Server::start_in(directory, &[]);
    assert!(server.log().iter().any(|line| line.contains("deleting 2 messages")));
    let messages = sql::rows(&server.file("relay.sqlite"), "SELECT mailbox_id FROM messages");
    assert_eq!(messages, json!([["box"]]));
    assert_live_rows_are_served(&server);
    assert_eq!(server.bind("app", "a").open("gone"), Vec::<Value>::new());
}

#[test]
fn a_clean_stop_leaves_no_messages_of_mailboxes_that_have_ended() {
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
                INSERT INTO messages SELECT 'app', 'box', 'a', i, '', 1, NULL FROM n;";
    let directory = directory_with("relay.sqlite", &[CHANNEL_V1, &live_rows(), many]);
    let server = Server::start_in(directory, &[]);
    let mut client = server.bind("app", "a");
    client.one(json!({"type": "close", "mailbox": "box", "mood": "happy"}));
    // With nobody to wait for, the stop comes before all is deleted.
    drop(client);
    let (_, directory) = server.stop();
    let count = "SELECT COUNT(*) FROM messages";
    assert_eq!(sql::rows(&directory.file("relay.sqlite"), count), json!([[0]]));
}

#[test]
fn sides_that_refer_to_nothing_are_skipped() {
    let sides = "INSERT INTO nameplate_sides VALUES (NULL, 1, 'b', 1);
                 INSERT INTO mailbox_sides VALUES (NULL, 1, 'b', 1, NULL);
                 UPDATE nameplate_sides SET nameplates_id = '41' WHERE nameplates_id = 41;";
    let directory = directory_with("relay.sqlite", &[CHANNEL_V1, &live_rows(), sides]);
    assert_live_rows_are_served(&Server::start_in(directory, &[]));
}

#[test]
fn of_two_nameplates_of_one_name_the_first_counts_and_the_other_goes() {
    let second = "INSERT INTO mailboxes SELECT app_id, 'second', updated, 1 FROM mailboxes;
                  INSERT INTO nameplates SELECT 90, app_id, name, 'second', NULL FROM nameplates;
                  INSERT INTO nameplate_sides VALUES (90, 1, 'a', 1);";
    let directory = directory_with("relay.sqlite", &[CHANNEL_V1, &live_rows(), second]);
    let server = Server::start_in(directory, &[]);
    assert_live_rows_are_served(&server);
    let nameplates = sql::rows(&server.file("relay.sqlite"), "SELECT mailbox_id FROM nameplates");
    assert_eq!(nameplates, json!([["box"]]));
    let server = Server::start_in(server.kill(), &[]);
    assert_live_rows_are_served(&server);
}

#[test]
fn rows_that_were_edited_by_hand_end_like_all_others() {
    const LEFT: &str = "SELECT id FROM mailboxes UNION ALL SELECT mailbox_id FROM mailbox_sides \
                        UNION ALL SELECT id FROM nameplates \
                        UNION ALL SELECT nameplates_id FROM nameplate_sides";
    for edit in [
        "UPDATE nameplates SET app_id = 'other'",
        "UPDATE nameplates SET mailbox_id = NULL",
        "UPDATE mailboxes SET id = 5; UPDATE nameplates SET mailbox_id = 5; \
         UPDATE mailbox_sides SET mailbox_id = 5",
        "UPDATE nameplate_sides SET nameplates_id = '41'",
    ] {
        let edit = format!("PRAGMA foreign_keys = OFF; {edit}");
        let directory = directory_with("relay.sqlite", &[CHANNEL_V1, &live_rows(), &edit]);
        let server = Server::start_in(directory, &["--expire-after=1", "--expire-check=0.2"]);
        sql::wait_for(&server.file("relay.sqlite"), LEFT, &json!([]));
        let server = Server::start_in(server.stop().1, &[]);
        assert!(server.stop().0.success(), "{edit}");
    }
}

#[test]
fn a_file_in_wal_mode_with_a_log_left_over_is_taken_with_what_the_log_holds() {
    let directory = Arc::new(Directory::new());
    let made = directory.file("made.db");
    let writer = sql::open(&made);
    let mode: String =
        writer.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).expect("WAL");
    assert_eq!(mode, "wal");
    writer.execute_batch(CHANNEL_V1).expect("SQL");
    writer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("checkpoint");
    writer.execute_batch(&live_rows()).expect("SQL");
    // A copy taken while a connection has it open is what a crash leaves.
    fs::copy(&made, directory.file("relay.sqlite")).expect("copy");
    fs::copy(directory.file("made.db-wal"), directory.file("relay.sqlite-wal")).expect("copy");
    let server = Server::start_in(directory, &[]);
    assert_live_rows_are_served(&server);
}

#[test]
fn a_vacuum_by_another_process_does_no_harm() {
    let server = Server::start(&["--expire-after=600"]);
    // Gaps in the rows, so that a vacuum numbers them anew.
    let mut clients: Vec<_> =
        (0..6).map(|number| server.bind("app", &format!("side{number}"))).collect();
    let mailboxes: Vec<String> = clients
        .iter_mut()
        .enumerate()
        .map(|(number, client)| {
            let mailbox = client.claim(&number.to_string());
            client.open(&mailbox);
            client.one(json!({"type": "add", "phase": "p", "body": "b"}));
            mailbox
        })
        .collect();
    for client in &mut clients[..3] {
        client.close();
    }
    let path = server.file("relay.sqlite");
    // SQLite does so to tables without an index.
    let numbers = "SELECT rowid FROM mailbox_sides";
    let before = sql::rows(&path, numbers);
    sql::open(&path).execute_batch("VACUUM").expect("vacuum");
    assert_ne!(sql::rows(&path, numbers), before, "the rows have new numbers");

    // New rows, changes to old ones, and deletions, all beside each other.
    let mut late = server.bind("app", "late");
    assert_eq!(late.claim("5"), mailboxes[5]);
    late.open(&mailboxes[5]);
    late.one(json!({"type": "add", "phase": "q", "body": "c"}));
    assert_eq!(clients[5].recv()["phase"], "q");
    clients[4].release();
    clients[3].close();
    assert_eq!(clients[5].one(json!({"type": "close", "mood": "happy"}))["type"], "closed");

    let in_file = |sql: &str| sql::rows(&path, sql);
    let expected = json!([[mailboxes[4]], [mailboxes[5]]]);
    assert_eq!(in_file("SELECT id FROM mailboxes ORDER BY rowid"), expected);
    let sides = "SELECT side, opened, mood FROM mailbox_sides ORDER BY side";
    let expected = json!([["late", 1, null], ["side4", 1, null], ["side5", 0, "happy"]]);
    assert_eq!(in_file(sides), expected);
    assert_eq!(in_file("SELECT name FROM nameplates"), json!([["5"]]));
    integrity(&path);
    let server = Server::start_in(server.kill(), &[]);
    assert_eq!(server.bind("app", "late").open(&mailboxes[5]).len(), 2);
}

#[test]
fn nobody_can_connect_before_the_files_are_open() {
    let directory = directory_with("relay.sqlite", &[CHANNEL_V1]);
    let other = sql::open(&directory.file("relay.sqlite"));
    other.execute_batch("BEGIN EXCLUSIVE").expect("locked");
    let mut command = Command::new(PROGRAM);
    command.args([FREE_PORT, "--port=unix:x.sock"]);
    command.current_dir(directory.path()).stdin(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn();
    let _server = Running(child.expect("server starts"));
    let socket = directory.file("x.sock");
    eventually("the address is taken", || socket.exists());
    let refused = UnixStream::connect(&socket).expect_err("the file is locked");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    other.execute_batch("ROLLBACK").expect("it had the lock");
    eventually("it listens", || UnixStream::connect(&socket).is_ok());
}

#[test]
fn the_log_of_changes_shrinks_again_after_a_reader_has_held_it() {
    let server = Server::start(&["--admin=tcp:0:interface=127.0.0.1"]);
    let mut client = server.bind("app", "a");
    client.open("box");
    let reader = sql::open(&server.file("relay.sqlite"));
    reader.execute_batch("BEGIN; SELECT COUNT(*) FROM mailboxes").expect("a read transaction");
    let bytes = || fs::metadata(server.file("relay.sqlite-wal")).expect("the log").len();
    let body = "b".repeat(100_000);
    while bytes() < 6_000_000 {
        client.one(json!({"type": "add", "phase": "p", "body": body}));
    }
    let held = || {
        let metrics = server.ask_admin("/metrics").body;
        !metrics.contains("wormhole_mailbox_wal_held_seconds 0\n")
    };
    eventually("it is measured", held);
    reader.execute_batch("COMMIT").expect("the reader is done");
    eventually("it shrinks", || bytes() < 4_500_000);
    assert!(!held());
}
