//! Attacks by what is stored: too much, too small to be counted right, deleted or loaded at once,
//! replayed to readers that read nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::crowd::{Crowd, add, bound, ping, subscriber, text};
use super::floods::PER_ADDRESS;
use super::memory::{MIB, counted_bytes, peak_resident_bytes, socket_bytes_when_quiet};
use super::{Attack, Field, holds};
use crate::common::process::resident_bytes;
use crate::common::raw::{PING, TEXT_BEGINS, frame};
use crate::common::{eventually, now, sql};

/// Bytes of a body that is no extreme of any kind.
const BODY_BYTES: usize = 64;

/// Writes a channel database with that many open mailboxes of one side, and messages in each.
fn fill_file(directory: &Path, mailboxes: usize, messages: usize, body_bytes: usize) {
    let path = directory.join("relay.sqlite");
    sql::create(&path, &[sql::CHANNEL_V1]);
    let begun = now();
    let fill = format!(
        "PRAGMA synchronous = OFF;
         BEGIN;
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {mailboxes})
           INSERT INTO mailboxes SELECT 'stored', 'stored-' || i, {begun}, 0 FROM n;
         INSERT INTO mailbox_sides SELECT id, 1, 'one', {begun}, NULL FROM mailboxes;
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {messages})
           INSERT INTO messages SELECT 'stored', id, 'one', 'p', '{body}', {begun}, NULL
           FROM mailboxes, n;
         COMMIT;",
        body = "b".repeat(body_bytes),
    );
    let file = sql::open(&path);
    file.execute_batch(&fill).expect("SQL");
    // Filling takes its time, and what is old expires at the start.
    file.execute("UPDATE mailboxes SET updated = ?1", [now()]).expect("SQL");
}

/// Closes many full mailboxes at the same moment.
pub struct DeleteAtOnce {
    pub mailboxes: usize,
    pub messages: usize,
}

impl Attack for DeleteAtOnce {
    fn name(&self) -> String {
        format!("{} mailboxes of {} messages closed at once", self.mailboxes, self.messages)
    }

    fn prepare(&self, directory: &Path) {
        fill_file(directory, self.mailboxes, self.messages, 1);
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        let openings = (0..self.mailboxes).map(|_| bound(&field.address(0), "stored", "one"));
        let mut crowd = Crowd::gather(field, openings);
        crowd.deliver(|_| ping());
        crowd.settle();
        crowd.deliver(|index| {
            let close = json!({"type": "close", "mailbox": format!("stored-{index}")});
            [text(&close), ping()].concat()
        });
        crowd.settle();
        field.linger();
        let (alive, all) = (crowd.alive(), self.mailboxes);
        if alive < all { Err(format!("{alive} of {all} closed their mailbox")) } else { Ok(()) }
    }
}

/// Many full mailboxes expire in the same check.
pub struct ExpireAtOnce {
    pub mailboxes: usize,
    pub messages: usize,
    /// `--expire-after`: more than it takes to load them, and transfers of others.
    pub seconds: usize,
}

impl Attack for ExpireAtOnce {
    fn name(&self) -> String {
        format!("{} mailboxes of {} messages expire at once", self.mailboxes, self.messages)
    }

    fn options(&self) -> Vec<String> {
        vec![format!("--expire-after={}", self.seconds), "--expire-check=1".to_owned()]
    }

    fn prepare(&self, directory: &Path) {
        fill_file(directory, self.mailboxes, self.messages, 1);
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        let of_others = 8;
        let status = || field.server.status();
        let mailboxes = || status()["store"]["mailboxes"].as_u64().expect("a number");
        eventually("they expired", || mailboxes() < of_others);
        field.linger();
        Ok(())
    }
}

/// Small things that may count for less than they take.
#[derive(Clone, Copy)]
pub enum Small {
    /// Messages with fields of one byte.
    Messages,
    /// Nameplates, each under an app id of its own.
    AppIds,
    /// Mailboxes with the longest names.
    LongNames,
    /// First fragments of 64 KB of messages that never end.
    FirstFragments,
}

/// Makes many small things and compares what the process takes with what the server counts.
pub struct TinyFields {
    pub kind: Small,
    pub count: usize,
}

/// Share of the counted bytes that the memory may have more: the allocator's.
const ALLOCATOR_SHARE: f64 = 0.15;

/// What the memory may have more whatever is counted: caches, connections that are just ending.
const ALLOCATOR_SLACK: usize = MIB;

/// Nameplates that one address may have, by default and before.
const NAMEPLATES_PER_ADDRESS: usize = 100;

/// Bytes of a first fragment.
const FRAGMENT_BYTES: usize = 64_000;

impl TinyFields {
    fn make(&self, field: &Field<'_>, things: std::ops::Range<usize>) {
        match self.kind {
            Small::Messages => {
                const EACH: usize = 8_000;
                let writers = things.len().div_ceil(EACH);
                let openings = (0..writers).map(|index| {
                    let mailbox = format!("tiny-{}-{index}", things.start);
                    subscriber(&field.address(things.start + index), "tiny", "s", &mailbox)
                });
                let mut crowd = Crowd::gather(field, openings);
                crowd.settle();
                let each = things.len().min(EACH);
                crowd.deliver(|_| [add("p", 1).repeat(each), ping()].concat());
                crowd.settle();
            }
            Small::AppIds => self.make_one_each(field, things, |from, index| {
                let claim = json!({"type": "claim", "nameplate": (index % 900 + 1).to_string()});
                [bound(from, &format!("app-{index}"), "s"), text(&claim), ping()].concat()
            }),
            Small::LongNames => self.make_one_each(field, things, |from, index| {
                let long = |name: &str| format!("{name}-{index}-{:x<256}", "")[..256].to_owned();
                subscriber(from, &long("app"), &long("side"), &long("mailbox"))
            }),
            Small::FirstFragments => unreachable!("they are held, not made"),
        }
    }

    /// One connection for each, some at a time.
    fn make_one_each(
        &self,
        field: &Field<'_>,
        things: std::ops::Range<usize>,
        opening: impl Fn(&str, usize) -> Vec<u8>,
    ) {
        let all: Vec<usize> = things.collect();
        for some in all.chunks(NAMEPLATES_PER_ADDRESS) {
            let from = field.address(some[0] / NAMEPLATES_PER_ADDRESS);
            Crowd::gather(field, some.iter().map(|index| opening(&from, *index))).settle();
        }
    }

    /// Fragments are not counted where an operator could see it: their limit is compared.
    fn hold_fragments(&self, field: &Field<'_>) -> Result<(), String> {
        let before = resident_bytes(field.server.pid());
        let openings = (0..self.count).map(|index| {
            let from = field.address(index / PER_ADDRESS);
            let fragment = frame(TEXT_BEGINS, &[b' '; FRAGMENT_BYTES]);
            [bound(&from, "fragments", "s"), fragment, ping_frame()].concat()
        });
        let mut crowd = Crowd::gather(field, openings);
        let until = Instant::now() + Duration::from_secs(5);
        let quiet = |crowd: &mut Crowd<'_>| {
            (0..20).all(|_| {
                std::thread::sleep(Duration::from_millis(5));
                crowd.drain() == 0
            })
        };
        while !quiet(&mut crowd) && Instant::now() < until {}
        let grown = resident_bytes(field.server.pid()).saturating_sub(before);
        field.linger();
        let sent = (self.count * FRAGMENT_BYTES).min(BUFFERED_BYTES_MAX);
        compare(grown, sent, "first fragments")
    }
}

/// The default of `--limit-buffered-bytes`.
const BUFFERED_BYTES_MAX: usize = 64 * MIB;

/// A ping of the WebSocket protocol, answered between fragments, too.
fn ping_frame() -> Vec<u8> {
    frame(PING, b"between")
}

fn compare(grown: usize, counted: usize, what: &str) -> Result<(), String> {
    println!("{what}: {grown} bytes of memory for {counted} counted");
    let allowed = (counted as f64 * (1.0 + ALLOCATOR_SHARE)) as usize + ALLOCATOR_SLACK;
    if grown <= allowed {
        return Ok(());
    }
    let (grown, counted) = (grown as f64 / MIB as f64, counted as f64 / MIB as f64);
    Err(format!("{what}: {grown:.1} MiB of memory for {counted:.1} MiB counted"))
}

impl Attack for TinyFields {
    fn name(&self) -> String {
        let kind = match self.kind {
            Small::Messages => "messages of 1 byte",
            Small::AppIds => "nameplates with an app id each",
            Small::LongNames => "mailboxes with names of 256 bytes",
            Small::FirstFragments => "first fragments of 64 KB",
        };
        format!("{} {kind}", self.count)
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        if matches!(self.kind, Small::FirstFragments) {
            return self.hold_fragments(field);
        }
        let measure = || {
            // Buffers of connections that end are given back with them.
            std::thread::sleep(Duration::from_millis(300));
            (resident_bytes(field.server.pid()), counted_bytes(field.server))
        };
        let warm_up = self.count / 10;
        self.make(field, 0..warm_up);
        let before = measure();
        self.make(field, warm_up..self.count);
        let after = measure();
        compare(after.0.saturating_sub(before.0), after.1 - before.1, "these")
    }
}

/// The program itself, with SQLite's caches.
const BASE_BYTES: usize = 12 * MIB;

/// A start with a full store, then a storage failure.
pub struct FullStore {
    pub mailboxes: usize,
    pub messages: usize,
}

impl Attack for FullStore {
    fn name(&self) -> String {
        let FullStore { mailboxes, messages } = self;
        format!("start and storage failure with {mailboxes} mailboxes of {messages} messages")
    }

    fn prepare(&self, directory: &Path) {
        fill_file(directory, self.mailboxes, self.messages, BODY_BYTES);
    }

    /// A storage failure closes connections.
    fn is_observed(&self) -> bool {
        false
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        let pid = field.server.pid();
        let (loaded, counted) = (resident_bytes(pid), counted_bytes(field.server));
        let peak_of_start = peak_resident_bytes(pid);
        let is_degraded = || field.server.status()["storage"]["degraded"] == true;
        let lock = sql::open(&field.server.file("relay.sqlite"));
        for _ in 0..2 {
            lock.execute_batch("BEGIN IMMEDIATE").expect("lock");
            let opening = subscriber(&field.address(0), "stored", "two", "one-more");
            let crowd = Crowd::gather(field, [opening]);
            eventually("the storage failed", is_degraded);
            lock.execute_batch("COMMIT").expect("unlock");
            eventually("the storage works again", || !is_degraded());
            drop(crowd);
        }
        let peak = peak_resident_bytes(pid);
        compare(peak_of_start.saturating_sub(BASE_BYTES), counted, "a start")?;
        compare(peak, loaded, "a storage failure")
    }
}

/// Addresses that store all they may, and stay subscribed.
pub struct FillStore {
    pub addresses: usize,
    pub megabytes_each: usize,
    /// What goes into one mailbox.
    pub megabytes_per_mailbox: usize,
    pub options: Vec<String>,
}

/// Messages that fill, in bytes.
const FILLING_BYTES: usize = 100_000;

impl Attack for FillStore {
    fn name(&self) -> String {
        format!("{} addresses store {} MB each", self.addresses, self.megabytes_each)
    }

    fn options(&self) -> Vec<String> {
        self.options.clone()
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        let mailboxes = self.megabytes_each.div_ceil(self.megabytes_per_mailbox);
        let each = self.megabytes_each * 1_000_000 / FILLING_BYTES / mailboxes;
        let openings = (0..self.addresses * mailboxes).map(|index| {
            let from = field.address(index / mailboxes);
            let mailbox = field.name(&format!("filled-{index}"));
            subscriber(&from, &field.name("fill"), "side", &mailbox)
        });
        let mut crowd = Crowd::gather(field, openings);
        crowd.settle();
        let script = [add("p", FILLING_BYTES).repeat(each), ping()].concat();
        crowd.deliver(|_| script.clone());
        crowd.settle();
        while !field.is_over() {
            crowd.drain();
            std::thread::sleep(Duration::from_millis(10));
        }
        field.linger();
        if field.is_shared || self.addresses > 1 {
            return Ok(());
        }
        let status = field.server.status();
        let bytes = |name: &str| status["store"][name].as_f64().expect("a number");
        let (stored, limit) = (bytes("bytes"), bytes("bytes_max"));
        // An eighth, and as much again for what is not the attacker's.
        if stored > limit / 4.0 {
            return Err(format!("one address has {:.0} % of the store", 100.0 * stored / limit));
        }
        Ok(())
    }
}

/// A full mailbox, opened by many that read nothing.
pub struct UnreadReplay {
    pub connections: usize,
    pub megabytes: usize,
}

impl Attack for UnreadReplay {
    fn name(&self) -> String {
        format!("{} MB replayed to {} that read nothing", self.megabytes, self.connections)
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        let mailbox = field.name("unread");
        let opening = |side: usize| {
            subscriber(&field.address(0), &field.name("app"), &format!("side-{side}"), &mailbox)
        };
        let mut writer = Crowd::gather(field, [opening(0)]);
        writer.settle();
        writer.deliver(|_| [add("p", 250_000).repeat(self.megabytes * 4), ping()].concat());
        writer.settle();
        let openings = (0..self.connections).map(|index| opening(index % 2));
        let mut crowd = Crowd::gather(field, openings);
        let grown = socket_bytes_when_quiet(field.server);
        crowd.hold();
        field.linger();
        let (megabytes, most) = (grown / MIB, self.connections);
        if !field.is_shared && megabytes > most {
            return Err(format!("{megabytes} MiB in the sockets of {most} connections"));
        }
        Ok(())
    }
}

#[test]
fn mailboxes_closed_at_once_do_not_delay_others() {
    holds(&DeleteAtOnce { mailboxes: 20, messages: 3_000 });
}

#[test]
fn mailboxes_that_expire_at_once_do_not_delay_others() {
    holds(&ExpireAtOnce { mailboxes: 20, messages: 3_000, seconds: 3 });
}

#[test]
fn messages_of_one_byte_count_as_what_they_take() {
    holds(&TinyFields { kind: Small::Messages, count: 80_000 });
}

#[test]
fn nameplates_with_an_app_id_each_count_as_what_they_take() {
    holds(&TinyFields { kind: Small::AppIds, count: 4_000 });
}

#[test]
fn mailboxes_with_long_names_count_as_what_they_take() {
    holds(&TinyFields { kind: Small::LongNames, count: 6_000 });
}

#[test]
fn first_fragments_count_as_what_they_take() {
    holds(&TinyFields { kind: Small::FirstFragments, count: 300 });
}

#[test]
fn neither_a_start_nor_a_storage_failure_holds_the_store_twice() {
    holds(&FullStore { mailboxes: 20, messages: 5_000 });
}

#[test]
fn one_address_has_a_share_of_the_store_and_others_go_on() {
    let options = ["--limit-stored-bytes=24000000", "--limit-mailbox-bytes=2000000"];
    let options = options.map(str::to_owned).to_vec();
    holds(&FillStore { addresses: 1, megabytes_each: 26, megabytes_per_mailbox: 1, options });
}

#[test]
fn many_addresses_that_fill_the_store_lose_theirs_and_others_go_on() {
    let options = ["--limit-stored-bytes=24000000", "--limit-mailbox-bytes=2000000"];
    let options = options.map(str::to_owned).to_vec();
    holds(&FillStore { addresses: 16, megabytes_each: 3, megabytes_per_mailbox: 1, options });
}

#[test]
fn a_replay_that_is_not_read_does_not_fill_the_kernel() {
    holds(&UnreadReplay { connections: 20, megabytes: 5 });
}
