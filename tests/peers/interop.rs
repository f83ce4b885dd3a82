//! Real clients, each with each: what one sends another receives, whatever they are written in.
//!
//! Not every client says goodbye, with any server: the Go sender often ends before its `close`
//! is out, and the Rust client leaves without one when the code is wrong. What they leave behind
//! goes with expiry, which these tests set to a few seconds.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clients::{KeysDiffer, Kind, Payload, Site, succeed_both};
use crate::common::random::Random;
use crate::common::{Directory, Server, Signal, eventually, sql};
use serde_json::json;

/// Options that record usage, and forget abandoned mailboxes soon.
const OPTIONS: [&str; 3] = ["--usage-db=usage.sqlite", "--expire-after=3", "--expire-check=1"];

/// How many transfers go on at once.
const WORKERS: usize = 3;

/// Added to the number of a transfer that is made once more; even, as tests look at that.
const REPEATED: usize = 100;

/// Big enough for many transit records.
const FILE_BYTES: usize = 1_000_000;

#[test]
#[ignore = "needs the Python, Go and Rust clients"]
fn every_client_sends_a_file_to_every_other() {
    let server = Server::start(&OPTIONS);
    let file = random_file(&server.directory);
    let mut repeated = 0;
    for allocates in [true, false] {
        repeated += for_each_pair(Kind::pairs(), &server.url(), |site, number, from, to| {
            let code = (!allocates).then(|| code(number));
            let mut sender = from.send(site, code.as_deref(), &Payload::File(file.clone()));
            let told = sender.code();
            assert!(code.is_none_or(|code| code == told), "{told}");
            let mut receiver = to.receive(site, &told);
            succeed_both(&mut sender, &mut receiver)?;
            let same = receiver.received() == std::fs::read(&file).expect("file");
            assert!(same, "{from:?} to {to:?}: another file came out");
            Ok(())
        });
    }
    assert_left_clean(&server, &["happy", "pruney"], Kind::pairs().len() * 2, repeated);
}

#[test]
#[ignore = "needs the Python and Go clients"]
fn every_client_that_knows_texts_sends_one_to_every_other() {
    let server = Server::start(&OPTIONS);
    let mut pairs = Kind::pairs();
    pairs.retain(|(from, to)| from.knows_texts() && to.knows_texts());
    let mut repeated = 0;
    for allocates in [true, false] {
        repeated += for_each_pair(pairs.clone(), &server.url(), |site, number, from, to| {
            let code = (!allocates).then(|| code(number));
            let text = format!("\u{fc}ber {from:?} an {to:?} \u{1f30c}");
            let mut sender = from.send(site, code.as_deref(), &Payload::Text(text.clone()));
            let mut receiver = to.receive(site, &sender.code());
            succeed_both(&mut sender, &mut receiver)?;
            assert!(receiver.output().contains(&text), "{}", receiver.output());
            Ok(())
        });
    }
    assert_left_clean(&server, &["happy", "pruney"], pairs.len() * 2, repeated);
}

#[test]
#[ignore = "needs the Python, Go and Rust clients"]
fn a_receiver_may_come_before_the_sender() {
    let server = Server::start(&OPTIONS);
    let file = random_file(&server.directory);
    let repeated = for_each_pair(Kind::pairs(), &server.url(), |site, number, from, to| {
        receive_first(&server, (site, from), (site, to), &code(number), &file)
    });
    assert_left_clean(&server, &["happy", "pruney"], Kind::pairs().len(), repeated);
}

const SECRET: &str = "correct-horse-battery-staple";

/// A server with a member, who is at the second URL.
fn server_with_a_member() -> (Server, Site) {
    let directory = Directory::new();
    std::fs::write(directory.file("members"), format!("alice {SECRET}\n")).expect("file");
    let options = [&OPTIONS[..], &["--members=members"]].concat();
    let server = Server::start_in(Arc::new(directory), &options);
    let members = Site::new(format!("{}/{SECRET}", server.url()));
    (server, members)
}

#[test]
#[ignore = "needs the Python, Go and Rust clients"]
fn a_member_sends_to_a_guest_and_receives_from_one() {
    let (server, members) = server_with_a_member();
    let file = random_file(&server.directory);
    let mut repeated = for_each_pair(Kind::pairs(), &server.url(), |guests, _, from, to| {
        let mut sender = from.send(&members, None, &Payload::File(file.clone()));
        let mut receiver = to.receive(guests, &sender.code());
        succeed_both(&mut sender, &mut receiver)?;
        assert!(receiver.received() == std::fs::read(&file).expect("file"));
        Ok(())
    });
    // Who receives begins: the two have agreed on a code, and the receiver is there first.
    repeated += for_each_pair(Kind::pairs(), &server.url(), |guests, number, from, to| {
        receive_first(&server, (guests, from), (&members, to), &code(number), &file)
    });
    assert_left_clean(&server, &["happy", "pruney"], Kind::pairs().len() * 2, repeated);
}

#[test]
#[ignore = "needs the Python and Rust clients"]
fn a_guest_who_would_begin_is_shown_that_only_members_may() {
    let (server, members) = server_with_a_member();
    let guests = Site::new(server.url());
    let wrong = Site::new(format!("{}s", members.url));
    let file = Payload::File(random_file(&server.directory));
    // Go's client waits after a refused `allocate` or `claim`, whatever the error is.
    for kind in [Kind::Python, Kind::Rust] {
        for site in [&guests, &wrong] {
            for mut client in [
                kind.send(site, None, &file),
                kind.send(site, Some("4-guitarist-revenge"), &file),
                kind.receive(site, "4-guitarist-revenge"),
            ] {
                assert!(!client.wait().success(), "{kind:?}: {}", client.output());
                let shown = "only members of this server may begin an exchange";
                assert!(client.output().contains(shown), "{kind:?}: {}", client.output());
            }
        }
    }
    assert_eq!(count(&server.file("relay.sqlite"), "SELECT count(*) FROM mailboxes"), 0);
}

#[test]
#[ignore = "needs the Python, Go and Rust clients"]
fn a_wrong_code_fails_on_both_sides_and_counts_as_scary() {
    let file_home = Directory::new();
    let file = random_file(&file_home);
    // A server for each pair, to know whose records these are.
    for_each_pair(Kind::pairs(), "", |_, _, from, to| {
        let server = Server::start(&OPTIONS);
        let site = Site::new(server.url());
        let mut sender = from.send(&site, None, &Payload::File(file.clone()));
        let code = format!("{}s", sender.code());
        let mut receiver = to.receive(&site, &code);
        // Before the clients have ended: it expires with its mailbox.
        if from == Kind::Python || to == Kind::Python {
            wait_for_scary_mood(&server);
        }
        for client in [&mut receiver, &mut sender] {
            assert!(!client.wait().success(), "{:?}: {}", client.kind, client.output());
        }
        // The record says "scary" when both have closed; only Python's always does.
        let both_close = from == Kind::Python && to == Kind::Python;
        let result: &[&str] = if both_close { &["scary"] } else { &["scary", "pruney"] };
        assert_left_clean(&server, result, 1, 0);
        Ok(())
    });
}

#[test]
#[ignore = "needs the Python, Go and Rust clients"]
fn a_restart_between_send_and_receive_does_no_harm() {
    let mut pairs = Kind::pairs();
    pairs.retain(|(from, _)| from.reconnects());
    let home = Directory::new();
    let file = random_file(&home);
    for_each_pair(pairs, "", |_, number, from, to| {
        let mut server = Server::start(&OPTIONS[..1]);
        let site = Site::new(server.url());
        let mut sender = from.send(&site, None, &Payload::File(file.clone()));
        let code = sender.code();
        wait_for_nameplate(&server, &code);
        wait_for_pake(&server);
        let port = format!("--port=tcp:{}:interface=127.0.0.1", server.address.port());
        let directory = if number % 2 == 0 { server.stop().1 } else { server.kill() };
        server = Server::start_in(directory, &[&port, OPTIONS[0]]);
        let mut receiver = to.receive(&site, &code);
        succeed_both(&mut sender, &mut receiver)?;
        assert!(receiver.received() == std::fs::read(&file).expect("file"));
        if to.closes_when_done() {
            assert_left_clean(&server, &["happy"], 1, 0);
        }
        Ok(())
    });
}

#[test]
#[ignore = "needs the Python client"]
fn a_transfer_that_has_begun_comes_to_its_end_while_the_server_drains() {
    let kind = Kind::Python;
    let mut server = Server::start(&["--usage-db=usage.sqlite"]);
    let site = Site::new(server.url());
    let file = server.file("payload");
    std::fs::write(&file, "content").expect("write");
    let mut sender = kind.send(&site, Some("7-guitarist-revenge"), &Payload::File(file));
    let mut receiver = kind.receive_typed(&site);
    let binds = "SELECT count(*) FROM client_versions";
    sql::wait_for(&server.file("usage.sqlite"), binds, &json!([[2]]));
    server.signal(Signal::QUIT);
    assert!(server.wait_for_log("draining: ").contains("1 mailboxes"));
    receiver.type_line("7-guitarist-revenge");
    receiver.succeed();
    sender.succeed();
    assert_eq!(receiver.received(), b"content");
    assert!(server.wait().success());
    server.wait_for_log("drained: 0 mailboxes are left");
    assert!(!server.file("relay.sqlite-wal").exists());
}

#[test]
#[ignore = "needs the Python, Go and Rust clients"]
fn transfers_go_on_while_the_server_is_replaced_again_and_again() {
    let mut server = Server::start(&OPTIONS);
    let url = server.url();
    let repeated = std::thread::scope(|scope| {
        let transfers = scope.spawn(|| transfer_again_and_again(&url));
        while !transfers.is_finished() {
            server.replace();
            std::thread::sleep(Duration::from_millis(300));
        }
        transfers.join().expect("transfers")
    });
    assert!(server.count_log("took over ") > 5, "{:#?}", server.log());
    assert_left_clean(&server, &["happy", "pruney"], pairs_again_and_again().len(), repeated);
}

#[test]
#[ignore = "needs TRANSFERS_URL, a server that is restarted meanwhile (.ci/package)"]
fn transfers_go_on_through_restarts_of_a_server_elsewhere() {
    // `.ci/run` runs all tests, and has no such server.
    if let Ok(url) = std::env::var("TRANSFERS_URL") {
        transfer_again_and_again(&url);
    }
}

/// All pairs of clients, as often as it takes to have that many transfers.
fn pairs_again_and_again() -> Vec<(Kind, Kind)> {
    let pairs = Kind::pairs();
    let count = std::env::var("TRANSFERS").map_or(pairs.len(), |it| it.parse().expect("a number"));
    pairs.into_iter().cycle().take(count).collect()
}

/// Returns how many transfers had to be made once more.
fn transfer_again_and_again(url: &str) -> usize {
    let home = Directory::new();
    let file = random_file(&home);
    for_each_pair(pairs_again_and_again(), url, |site, number, from, to| {
        let mut sender = from.send(site, None, &Payload::File(file.clone()));
        let code = sender.code();
        std::thread::sleep(Duration::from_millis(1_100)); // it waits through a restart
        let mut receiver = to.receive(site, &code);
        succeed_both(&mut sender, &mut receiver)?;
        assert!(receiver.received() == std::fs::read(&file).expect("file"), "transfer {number}");
        Ok(())
    })
}

/// A transfer in which the receiver claims the nameplate before there is a sender.
fn receive_first(
    server: &Server,
    (senders, from): (&Site, Kind),
    (receivers, to): (&Site, Kind),
    code: &str,
    file: &Path,
) -> Result<(), KeysDiffer> {
    let mut receiver = to.receive(receivers, code);
    wait_for_nameplate(server, code);
    let mut sender = from.send(senders, Some(code), &Payload::File(file.to_owned()));
    succeed_both(&mut sender, &mut receiver)?;
    assert!(receiver.received() == std::fs::read(file).expect("file"));
    Ok(())
}

/// A code with a nameplate that no other transfer has, nor one that is allocated.
fn code(number: usize) -> String {
    format!("{}-guitarist-revenge", 100 + number)
}

/// Runs a transfer for each pair, some at a time; the number is the transfer's own. One in which
/// the keys differ is made once more. Returns how many were.
fn for_each_pair(
    pairs: Vec<(Kind, Kind)>,
    url: &str,
    transfer: impl Fn(&Site, usize, Kind, Kind) -> Result<(), KeysDiffer> + Sync,
) -> usize {
    let site = Site::new(url.to_owned());
    let repeated = AtomicUsize::new(0);
    let queue = Arc::new(Mutex::new(pairs.into_iter().enumerate()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("queue").next();
                    let Some((number, (from, to))) = next else { return };
                    if transfer(&site, number, from, to).is_err() {
                        repeated.fetch_add(1, Ordering::Relaxed);
                        let number = number + REPEATED;
                        transfer(&site, number, from, to).expect("1 of 65,536 fails twice");
                    }
                }
            });
        }
    });
    repeated.into_inner()
}

fn random_file(directory: &Directory) -> PathBuf {
    let path = directory.file("payload.bin");
    std::fs::write(&path, Random::new(1).bytes(FILE_BYTES)).expect("file");
    path
}

/// Waits until the one who knows the code has claimed its nameplate.
fn wait_for_nameplate(server: &Server, code: &str) {
    let name = code.split('-').next().expect("a nameplate");
    let claimed = format!(
        "SELECT count(*) FROM nameplates JOIN mailbox_sides USING (mailbox_id)
         WHERE name = '{name}'"
    );
    eventually("the nameplate is claimed", || count(&server.file("relay.sqlite"), &claimed) > 0);
}

/// Waits until the sender's first message is stored and has come back to it. Who is cut off before
/// sends it once more, and Go's client does not take the same message twice, from any server.
fn wait_for_pake(server: &Server) {
    let messages = "SELECT count(*) FROM messages";
    eventually("the sender adds", || count(&server.file("relay.sqlite"), messages) > 0);
    // What was stored has left by the time that a later connection is welcomed; the client needs
    // a moment to read it.
    server.connect();
    std::thread::sleep(Duration::from_millis(200));
}

/// Waits until one who knows that the code was wrong has said so.
fn wait_for_scary_mood(server: &Server) {
    let places = [
        ("relay.sqlite", "SELECT count(*) FROM mailbox_sides WHERE mood = 'scary'"),
        ("usage.sqlite", "SELECT count(*) FROM mailboxes WHERE result = 'scary'"),
    ];
    eventually("a close with a scary mood", || {
        places.iter().any(|(file, scary)| count(&server.file(file), scary) > 0)
    });
}

/// Waits until nothing is left in the channel database; every mailbox must then have a usage
/// record with one of these results, those of transfers that were made once more aside.
fn assert_left_clean(server: &Server, results: &[&str], mailboxes: usize, repeated: usize) {
    for table in ["nameplates", "nameplate_sides", "mailboxes", "mailbox_sides", "messages"] {
        let rows = format!("SELECT count(*) FROM {table}");
        eventually(&rows, || count(&server.file("relay.sqlite"), &rows) == 0);
    }
    let list = results.join("', '");
    let good = format!("SELECT count(*) FROM mailboxes WHERE result IN ('{list}')");
    let usage = server.file("usage.sqlite");
    // Usage rows may lag by a second.
    let ended = "SELECT count(*) FROM mailboxes";
    let all = mailboxes + repeated;
    eventually("the usage records", || count(&usage, ended) >= all);
    assert_eq!(count(&usage, ended), all);
    assert!(count(&usage, &good) >= mailboxes, "results other than {results:?}");
}

fn count(database: &Path, query: &str) -> usize {
    sql::rows(database, query)[0][0].as_u64().expect("a count") as usize
}
