//! Numbered addresses (`--addrid-db`) and the table of live connections (`--track-connections`).

use std::fs;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::sql::{self, ADDRID_V1, CHANNEL_V1, CHANNEL_V2};
use crate::common::{Client, Directory, Server, eventually, now, stdout_of};
use serde_json::{Value, json};

/// "Within a second", on a busy machine.
const ABOUT_A_SECOND: Duration = Duration::from_secs(3);

const ADDRESSES: &str = "SELECT generation, counter, type, address FROM address_ids ORDER BY rowid";
const GENERATION: &str = "SELECT generation FROM addrid_generation";
const CONNECTIONS: &str = "SELECT addrid_generation, addrid_counter, side, implementation, version \
                           FROM connections ORDER BY id";
const MESSAGES: &str = "SELECT name FROM connection_messages ORDER BY rowid";

fn connect_from(server: &Server, address: &str) -> Client {
    server.connect_from(Some(address)).expect("accepted")
}

/// Every address but the ones listened on is unknown to the log.
fn assert_no_address_logged(server: &Server, addresses: &[&str]) {
    for line in server.log().iter().filter(|line| !line.contains("listening on")) {
        for address in addresses.iter().chain(&["127.0.0.1", "4711"]) {
            assert!(!line.contains(address), "{address} in {line:?}");
        }
    }
}

#[test]
fn addresses_are_numbered_from_one_and_known_again() {
    let server = Server::start(&["--addrid-db=a.db", "--log-level=debug"]);
    let addresses = ["203.0.113.9", "2001:db8::1", "::ffff:198.51.100.7"];
    for address in addresses {
        drop(connect_from(&server, address));
        drop(connect_from(&server, "203.0.113.9"));
    }
    let mut server = server;
    for number in 1..=3 {
        server.wait_for_log(&format!("addr-1-{number}"));
    }
    drop(server.connect()); // without a proxy, the socket's address
    server.wait_for_log("addr-1-4");
    let expected = json!([
        [1, 1, "ipv4", "203.0.113.9"],
        [1, 2, "ipv6", "2001:db8::1"],
        [1, 3, "ipv4", "198.51.100.7"],
        [1, 4, "ipv4", "127.0.0.1"],
    ]);
    sql::wait_for(&server.file("a.db"), ADDRESSES, &expected);
    assert_eq!(sql::rows(&server.file("relay.sqlite"), GENERATION), json!([[1]]));
    assert_no_address_logged(&server, &addresses);
    assert!(!server.log().iter().any(|line| line.contains("addr-1-5")));
}

#[test]
fn bad_requests_and_bad_headers_do_not_bring_an_address_into_the_log() {
    let mut server = Server::start(&["--addrid-db=:memory:", "--log-level=debug"]);
    drop(connect_from(&server, "203.0.113.9 or so"));
    let mut plain = TcpStream::connect(server.address).expect("connect");
    std::io::Write::write_all(&mut plain, b"GET /203 HTTP/1.1\r\nHost: x\r\n\r\n").expect("write");
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut plain, &mut answer).expect("read");
    assert!(answer.starts_with(b"HTTP/1.1 404"));
    drop(plain);
    server.wait_for_log("gone");
    server.connect().send_text("not JSON");
    server.wait_for_log("addr-1-1");
    assert_no_address_logged(&server, &["203.0.113.9"]);
}

#[test]
fn every_start_begins_a_generation_and_erases_the_table() {
    let mut directory = Arc::new(Directory::new());
    for generation in 1..=3 {
        let server = Server::start_in(directory, &["--addrid-db=a.db"]);
        let table = server.file("a.db");
        // Erased before anyone comes.
        sql::wait_for(&table, ADDRESSES, &json!([]));
        sql::wait_for(&server.file("relay.sqlite"), GENERATION, &json!([[generation]]));
        let address = format!("203.0.113.{generation}");
        drop(connect_from(&server, &address));
        sql::wait_for(&table, ADDRESSES, &json!([[generation, 1, "ipv4", address]]));
        directory = if generation == 1 { server.kill() } else { server.stop().1 };
    }
}

#[test]
fn a_generation_that_is_no_number_stops_no_start() {
    let directory = Arc::new(Directory::new());
    for (stored, next) in [("'odd'", 1), ("2.5", 3), ("NULL", 1), ("-7", 1)] {
        let row = format!("INSERT INTO addrid_generation VALUES ({stored}, NULL)");
        _ = fs::remove_file(directory.file("relay.sqlite"));
        sql::create(&directory.file("relay.sqlite"), &[CHANNEL_V1, CHANNEL_V2, &row]);
        let options = ["--addrid-db=addrid.sqlite"];
        let (status, _) = Server::start_in(Arc::clone(&directory), &options).stop();
        assert!(status.success());
        let generation = sql::rows(&directory.file("relay.sqlite"), GENERATION);
        assert_eq!(generation, json!([[next]]), "{stored}");
    }
}

#[test]
fn numbers_in_memory_still_have_generations() {
    let options = ["--addrid-db=:memory:", "--log-level=debug"];
    let mut server = Server::start(&options);
    drop(connect_from(&server, "203.0.113.9"));
    server.wait_for_log("addr-1-1");
    let (_, directory) = server.stop();
    let mut server = Server::start_in(directory, &options);
    drop(connect_from(&server, "203.0.113.9"));
    server.wait_for_log("addr-2-1");
    assert_no_address_logged(&server, &["203.0.113.9"]);
}

#[test]
fn a_generation_ends_in_its_time_even_if_nobody_comes() {
    let options = ["--addrid-db=a.db", "--generation-duration=2", "--log-level=debug"];
    let mut server = Server::start(&options);
    let _stays = connect_from(&server, "203.0.113.9");
    let table = server.file("a.db");
    let generation = |rows: &Value| rows[0][0].as_u64();
    let first = sql::wait_until(&table, ADDRESSES, |rows| generation(rows).is_some());
    let first = generation(&first).expect("a generation");
    sql::wait_for(&table, ADDRESSES, &json!([]));
    let later = sql::rows(&server.file("relay.sqlite"), GENERATION);
    assert!(generation(&later) > Some(first), "{later} after {first}");
    assert_eq!(later.as_array().expect("rows").len(), 1);
    // The same address starts over.
    drop(connect_from(&server, "203.0.113.9"));
    eventually("an address of a later generation", || {
        server.log().iter().any(|line| {
            let number = line.split("addr-").nth(1).and_then(|id| id.trim().strip_suffix("-1"));
            number.and_then(|it| it.parse().ok()).is_some_and(|it: u64| it > first)
        })
    });
    server.wait_for_log(&format!("addr-{first}-1"));
}

#[test]
fn an_address_that_is_erased_leaves_no_trace_in_the_file_or_its_log() {
    let server = Server::start(&["--addrid-db=a.db", "--generation-duration=2"]);
    let address = "203.0.113.9";
    drop(connect_from(&server, address));
    let is_there = || {
        ["a.db", "a.db-wal"].iter().any(|name| {
            let bytes = fs::read(server.file(name)).expect("a file");
            bytes.windows(address.len()).any(|part| part == address.as_bytes())
        })
    };
    eventually("it is written", is_there);
    eventually("it is erased", || !is_there());
}

#[test]
fn a_generation_that_cannot_begin_for_the_channel_database_says_so() {
    let mut server = Server::start(&["--addrid-db=a.db", "--generation-duration=2"]);
    let lock = sql::lock(&server.file("relay.sqlite"));
    let line = server.wait_for_log("address-id database fails");
    assert!(line.contains(": channel database "), "{line}");
    assert!(line.contains("relay.sqlite: another program has it locked"), "{line}");
    drop(lock);
    server.wait_for_log("address-id database works again");
}

#[test]
fn a_locked_address_database_hurts_nobody() {
    let mut server = Server::start(&["--addrid-db=a.db"]);
    let table = server.file("a.db");
    let lock = sql::open(&table);
    lock.execute_batch("BEGIN EXCLUSIVE").expect("lock");
    let mut client = connect_from(&server, "203.0.113.9");
    client.quiet(json!({"type": "bind", "appid": "app", "side": "a"}));
    server.wait_for_log("address-id database fails");
    client.claim("7");
    lock.execute_batch("COMMIT").expect("unlock");
    server.wait_for_log("address-id database works again");
    sql::wait_for(&table, ADDRESSES, &json!([[1, 1, "ipv4", "203.0.113.9"]]));
}

#[test]
fn an_address_file_that_is_replaced_is_taken_up_even_if_nobody_comes() {
    const WAL_MODE: [u8; 2] = [2, 2];
    let server = Server::start(&["--addrid-db=a.db", "--expire-check=1"]);
    let (path, other) = (server.file("a.db"), server.file("other"));
    let _stays = connect_from(&server, "203.0.113.9");
    sql::wait_for(&path, ADDRESSES, &json!([[1, 1, "ipv4", "203.0.113.9"]]));
    sql::create(&other, &[ADDRID_V1]);
    fs::rename(&other, &path).expect("rename");
    eventually("it is opened", || fs::read(&path).expect("read")[18..20] == WAL_MODE);
    assert_eq!(sql::rows(&path, ADDRESSES), json!([]), "nothing of the old log");
}

#[test]
fn a_connection_has_a_row_with_what_it_said_and_its_commands() {
    let server = Server::start(&["--track-connections", "--addrid-db=:memory:"]);
    let file = server.file("relay.sqlite");
    let before = now();
    let mut client = connect_from(&server, "203.0.113.9");
    let connected = Instant::now();
    sql::wait_for(&file, CONNECTIONS, &json!([[1, 1, null, null, null]]));
    assert!(connected.elapsed() < ABOUT_A_SECOND, "{:?}", connected.elapsed());

    client.quiet(json!(
        {"type": "bind", "appid": "app", "side": "s1", "client_version": ["python", "0.1"]}
    ));
    let mailbox = client.claim("7");
    client.open(&mailbox);
    let other = server.bind("app", "s2");
    let expected = json!([[1, 1, "s1", "python", "0.1"], [1, 2, "s2", null, null]]);
    sql::wait_for(&file, CONNECTIONS, &expected);
    let mut names = json!(["bind", "claim", "open"]);
    let of_first = "SELECT name FROM connection_messages JOIN connections USING (id) \
                    WHERE side = 's1' AND name != 'ping' ORDER BY connection_messages.rowid";
    let rows = |names: &Value| -> Value {
        names.as_array().expect("names").iter().map(|name| json!([name])).collect()
    };
    sql::wait_for(&file, of_first, &rows(&names));

    let active = "SELECT active, connected, (SELECT MAX(\"when\") FROM connection_messages AS m \
                  WHERE m.id = connections.id) FROM connections WHERE side = 's1'";
    let first = sql::rows(&file, active);
    client.one(json!({"type": "add", "phase": "p", "body": "b"}));
    names.as_array_mut().expect("names").push(json!("add"));
    sql::wait_for(&file, of_first, &rows(&names));
    let second = sql::rows(&file, active);
    assert!(second[0][0].as_f64() > first[0][0].as_f64(), "{first} {second}");
    assert_eq!(second[0][0], second[0][2], "active is when the last command came");
    assert!(second[0][1].as_f64().is_some_and(|it| it >= before - 0.001 && it <= now()));
    assert_eq!(second[0][1], first[0][1]);

    // Gone in either way, gone from the table.
    drop(other);
    sql::wait_for(&file, CONNECTIONS, &json!([[1, 1, "s1", "python", "0.1"]]));
    client.socket.close(None).expect("close");
    while client.socket.read().is_ok() {} // until the answer to the close
    drop(client);
    let left = Instant::now();
    sql::wait_for(&file, CONNECTIONS, &json!([]));
    assert!(left.elapsed() < ABOUT_A_SECOND, "{:?}", left.elapsed());
    assert_eq!(sql::rows(&file, MESSAGES), json!([]));
}

#[test]
fn without_numbered_addresses_the_rows_have_none() {
    let server = Server::start(&["--track-connections"]);
    let _client = server.bind("app", "s1");
    let expected = json!([[null, null, "s1", null, null]]);
    sql::wait_for(&server.file("relay.sqlite"), CONNECTIONS, &expected);
}

#[test]
fn a_report_tells_a_server_without_shared_memory_from_one_that_was_killed() {
    let directory = Directory::new();
    let file = directory.file("relay.sqlite");
    let row = "INSERT INTO connections (id, connected, active) VALUES (1, 1, 1)";
    sql::create(&file, &[CHANNEL_V1, CHANNEL_V2]);
    let server = sql::open(&file);
    server.query_row("PRAGMA journal_mode = TRUNCATE", [], |_| Ok(())).expect("the mode");
    server.execute_batch(row).expect("SQL");
    let option = format!("--channel-db={}", file.display());
    let report = || stdout_of(&["connections", &option]);
    assert!(report().contains("As the server last wrote them."), "{}", report());
    drop(server);
    fs::remove_file(directory.file("relay.sqlite-journal")).expect("remove");
    assert!(report().contains("No server has the file open"), "{}", report());
}

#[test]
fn rows_of_an_earlier_run_are_cleared_at_the_start() {
    let directory = Arc::new(Directory::new());
    let old = "INSERT INTO connections (id, side) VALUES (1, 'x'), (2, 'y'), (900, 'z');
               INSERT INTO connection_messages VALUES (1, 1, 'bind'), (900, 1, 'bind');";
    sql::create(&directory.file("relay.sqlite"), &[CHANNEL_V1, CHANNEL_V2, old]);
    let server = Server::start_in(directory, &["--track-connections"]);
    let file = server.file("relay.sqlite");
    assert_eq!(sql::rows(&file, CONNECTIONS), json!([]));
    assert_eq!(sql::rows(&file, MESSAGES), json!([]));
    let _client = server.bind("app", "s1");
    sql::wait_for(&file, "SELECT side FROM connections", &json!([["s1"]]));

    let directory = server.kill();
    let server = Server::start_in(directory, &["--track-connections"]);
    assert_eq!(sql::rows(&file, CONNECTIONS), json!([]));
    // It does not answer the server's goodbye.
    let _client = server.bind("app", "s2");
    sql::wait_for(&file, "SELECT side FROM connections", &json!([["s2"]]));
    let (_, _directory) = server.stop();
    assert_eq!(sql::rows(&file, CONNECTIONS), json!([]));
}

#[test]
fn a_file_that_is_put_in_place_gets_the_rows_of_live_connections() {
    let mut server = Server::start(&["--track-connections", "--addrid-db=:memory:"]);
    let (file, other) = (server.file("relay.sqlite"), server.file("other"));
    let mut client = connect_from(&server, "203.0.113.9");
    client.quiet(json!(
        {"type": "bind", "appid": "app", "side": "s1", "client_version": ["python", "0.1"]}
    ));
    client.one(json!({"type": "list"}));
    let last = "SELECT name FROM connection_messages ORDER BY rowid DESC LIMIT 2";
    sql::wait_for(&file, last, &json!([["ping"], ["list"]]));
    let expected = sql::rows(&file, CONNECTIONS);
    assert_eq!(expected, json!([[1, 1, "s1", "python", "0.1"]]));
    let old = "INSERT INTO connections (id, side) VALUES (1, 'x'), (900, 'z');";
    sql::create(&other, &[CHANNEL_V1, CHANNEL_V2, old]);
    fs::rename(&other, &file).expect("rename");
    server.bind("app", "s2").send(json!({"type": "claim", "nameplate": "8"}));
    server.wait_for_log("storage works again");
    sql::wait_for(&file, CONNECTIONS, &expected);
    sql::wait_for(&file, MESSAGES, &json!([["ping"]])); // the last command alone
    sql::wait_for(&file, GENERATION, &json!([[1]]));
    drop(client);
    sql::wait_for(&file, CONNECTIONS, &json!([]));
}

#[test]
fn a_connection_keeps_its_row_when_the_process_is_replaced() {
    let mut server = Server::start(&["--track-connections", "--addrid-db=:memory:"]);
    let file = server.file("relay.sqlite");
    let mut client = connect_from(&server, "203.0.113.9");
    let leaver = connect_from(&server, "203.0.113.10");
    client.quiet(json!(
        {"type": "bind", "appid": "app", "side": "s1", "client_version": ["python", "0.1"]}
    ));
    let expected = json!([[1, 1, "s1", "python", "0.1"], [1, 2, null, null, null]]);
    sql::wait_for(&file, CONNECTIONS, &expected);
    let connected = "SELECT connected FROM connections WHERE addrid_counter = 1";
    let before = sql::rows(&file, connected);
    for _ in 0..2 {
        // As of one that could not be handed over.
        let other = "INSERT INTO connections (id) VALUES (900)";
        sql::open(&file).execute_batch(other).expect("insert");
        server.replace();
        sql::wait_for(&file, CONNECTIONS, &expected);
        assert_eq!(sql::rows(&file, connected), before);
        client.one(json!({"type": "list"}));
    }
    let generation = server.count_log("address-id database :memory:: generation 1");
    assert_eq!(generation, 3, "{:#?}", server.log());
    let names = "SELECT name FROM connection_messages WHERE name != 'ping' ORDER BY rowid";
    sql::wait_for(&file, names, &json!([["bind"], ["list"], ["list"]]));
    drop(leaver);
    sql::wait_for(&file, CONNECTIONS, &json!([[1, 1, "s1", "python", "0.1"]]));
    drop(client);
    sql::wait_for(&file, CONNECTIONS, &json!([]));
    assert_eq!(sql::rows(&file, MESSAGES), json!([]));
}

#[test]
fn connections_that_come_and_go_leave_no_rows() {
    let server = Server::start(&["--track-connections"]);
    let file = server.file("relay.sqlite");
    let mut stays = server.bind("app", "stays");
    for round in 0..100 {
        let mut client = server.bind("app", &format!("s{round}"));
        client.one(json!({"type": "list"}));
    }
    stays.open("box");
    let only = json!([["stays"]]);
    sql::wait_for(&file, "SELECT side FROM connections", &only);
    let strangers =
        "SELECT COUNT(*) FROM connection_messages WHERE id NOT IN (SELECT id FROM connections)";
    assert_eq!(sql::rows(&file, strangers), json!([[0]]));
}
