//! Rules that are easiest seen on the store alone (manual: rules 1), with given time and entropy:
//! allocation, mailbox ids, crowding, summaries, blurring, expiry, limits. How they work together,
//! over time and failure, is `simulation`'s.

use std::collections::BTreeSet;
use std::rc::Rc;

use wormhole_mailbox::codec::json as protocol;
use wormhole_mailbox::limits::Limits;
use wormhole_mailbox::message::{ConnId, Holder, Message, Outcome, Output, Refusal, Response};
use wormhole_mailbox::store::{
    Act, Change, Counts, Effects, NameplateId, Row, Rules, Store, UsageKind, UsageRecord,
};
use wormhole_mailbox::sys::clock::{Seconds, Timestamp};
use wormhole_mailbox::sys::entropy::Entropy;

const NAME_BYTES_MAX: usize = 256;

/// What `EPOCH` is does not matter, only that sums with it are exact.
const EPOCH: Seconds = 1_700_000_000.0;

/// Counts up from a start in steps: every draw is known.
#[derive(Debug)]
struct Draws {
    next: u64,
    step: u64,
}

impl Entropy for Draws {
    fn next_u64(&mut self) -> u64 {
        self.next = self.next.wrapping_add(self.step);
        self.next
    }
}

fn act<'a>(now: Seconds, entropy: &'a mut Draws, effects: &'a mut Effects) -> Act<'a> {
    Act { now: Timestamp(now), wall: Timestamp(now), entropy, effects, may_begin: true }
}

/// A store, and what it takes to use it.
pub struct Bench {
    pub store: Store,
    pub now: Seconds,
    draws: Draws,
    pub effects: Effects,
    conns: u64,
}

impl Bench {
    pub fn new(rules: Rules) -> Bench {
        Bench::with(rules, Limits::default())
    }

    fn with(rules: Rules, limits: Limits) -> Bench {
        Bench {
            store: Store::new(rules, limits),
            now: EPOCH,
            draws: Draws { next: 0, step: 0x9e37_79b9_7f4a_7c15 },
            effects: Effects::default(),
            conns: 0,
        }
    }

    pub fn limited(limits: Limits) -> Bench {
        Bench::with(Rules::default(), limits)
    }

    /// A new connection, bound for a side of one app.
    pub fn bind(&mut self, side: &str) -> ConnId {
        self.bind_from(None, side)
    }

    /// The same, from an address.
    pub fn bind_from(&mut self, holder: Option<Holder>, side: &str) -> ConnId {
        self.conns += 1;
        let conn = ConnId(self.conns);
        self.store.connect(conn, holder);
        let bind = format!(r#"{{"type":"bind","appid":"app","side":"{side}"}}"#);
        assert_eq!(self.ask(conn, &bind), Ok(()));
        conn
    }

    /// Carries out a command; its effects replace those of the last one.
    fn ask(&mut self, conn: ConnId, text: &str) -> Result<(), Refusal> {
        let request = protocol::decode(text, NAME_BYTES_MAX).expect("decodes");
        self.effects = Effects::default();
        self.store.apply(
            conn,
            &request.command,
            &mut act(self.now, &mut self.draws, &mut self.effects),
        )
    }

    /// What the last command has made the server say.
    pub fn replies(&self) -> Vec<(ConnId, &Response)> {
        let outputs = self.effects.outputs.iter();
        let replies = outputs.map(|(conn, output)| match output {
            Output::Response(response) => (conn, response),
            other => panic!("the store replies, and sends no {other:?}"),
        });
        replies.collect()
    }

    fn allocate(&mut self, conn: ConnId) -> Result<Rc<str>, Refusal> {
        self.ask(conn, r#"{"type":"allocate"}"#)?;
        match &self.replies()[..] {
            [(to, Response::Allocated(name))] if *to == conn => Ok(Rc::clone(name)),
            other => panic!("one nameplate is allocated, not {other:?}"),
        }
    }

    pub fn claim(&mut self, conn: ConnId, nameplate: &str) -> Result<Rc<str>, Refusal> {
        self.ask(conn, &format!(r#"{{"type":"claim","nameplate":"{nameplate}"}}"#))?;
        match &self.replies()[..] {
            [(to, Response::Claimed(mailbox))] if *to == conn => Ok(Rc::clone(mailbox)),
            other => panic!("one nameplate is claimed, not {other:?}"),
        }
    }

    fn release(&mut self, conn: ConnId, nameplate: &str) {
        let text = format!(r#"{{"type":"release","nameplate":"{nameplate}"}}"#);
        assert_eq!(self.ask(conn, &text), Ok(()));
    }

    pub fn open(&mut self, conn: ConnId, mailbox: &str) -> Result<(), Refusal> {
        self.ask(conn, &format!(r#"{{"type":"open","mailbox":"{mailbox}"}}"#))
    }

    pub fn add(&mut self, conn: ConnId, body: &str) -> Result<(), Refusal> {
        self.ask(conn, &format!(r#"{{"type":"add","phase":"p","body":"{body}"}}"#))
    }

    pub fn close(&mut self, conn: ConnId, mailbox: &str, mood: &str) {
        let text = format!(r#"{{"type":"close","mailbox":"{mailbox}","mood":"{mood}"}}"#);
        assert_eq!(self.ask(conn, &text), Ok(()));
    }

    /// A whole expiry check.
    fn expire_at(&mut self, now: Seconds) {
        self.now = now;
        self.expire();
    }

    fn expire(&mut self) {
        self.effects = Effects::default();
        self.store.begin_expiry(Timestamp(self.now));
        let mut act = act(self.now, &mut self.draws, &mut self.effects);
        while self.store.continue_expiry(&mut act) {}
    }

    /// The result of the one thing that has just ended.
    fn result(&self) -> &'static str {
        match &self.effects.usage[..] {
            [(UsageRecord::Ended { result, .. }, _)] => result.name(),
            other => panic!("one thing has ended, not {other:?}"),
        }
    }

    /// Nameplates, mailboxes and messages.
    fn counts(&self) -> (usize, usize, usize) {
        let Counts { nameplates, mailboxes, messages, .. } = self.store.counts();
        (nameplates, mailboxes, messages)
    }

    fn mailboxes_count(&self) -> usize {
        self.store.counts().mailboxes
    }
}

#[test]
fn allocation_picks_free_numbers_of_the_fewest_digits() {
    let mut bench = Bench::new(Rules::default());
    // Names that are no canonical numbers take none.
    for name in ["05", "007", "0"] {
        let conn = bench.bind("a");
        assert!(bench.claim(conn, name).is_ok());
    }
    let mut given = BTreeSet::new();
    for digits in [1..=9, 10..=99, 100..=999] {
        for _ in digits.clone() {
            let conn = bench.bind("a");
            let name = bench.allocate(conn).expect("there is one");
            let number: u32 = name.parse().expect("a number");
            assert!(digits.contains(&number), "{number} while {digits:?} are not used up");
            assert!(given.insert(number), "{number} was taken");
        }
    }
    for _ in 0..100 {
        let conn = bench.bind("a");
        let name = bench.allocate(conn).expect("there is one");
        let number: u32 = name.parse().expect("a number");
        assert!((1_000..=999_999).contains(&number), "{number}");
        assert!(given.insert(number), "{number} was taken");
    }
    let conn = bench.bind("a");
    bench.release(conn, "57");
    assert_eq!(bench.allocate(conn).as_deref(), Ok("57"));
}

#[test]
fn allocation_reaches_every_free_number() {
    let mut seen = BTreeSet::new();
    for start in 0..200 {
        let mut bench = Bench::new(Rules::default());
        bench.draws.next = start;
        let other = bench.bind("b");
        assert!(bench.claim(other, "4").is_ok());
        let conn = bench.bind("a");
        seen.insert(bench.allocate(conn).expect("there is one").to_string());
    }
    assert_eq!(seen.into_iter().collect::<String>(), "12356789");
}

#[test]
fn when_all_nameplates_of_the_fewest_digits_are_taken_longer_ones_are_used() {
    let rules = Rules { nameplate_digits_min: 4, ..Rules::default() };
    let mut bench = Bench::new(rules);
    for number in 1_000..10_000 {
        let conn = bench.bind("a");
        assert_eq!(bench.allocate(conn).map(|name| name.len()), Ok(4), "{number}");
    }
    let conn = bench.bind("a");
    assert!(bench.allocate(conn).is_ok_and(|name| name.len() > 4));
}

/// Ends the nine nameplates of one digit in some way; gives the next one allocated, so long after.
fn next_after(end: impl Fn(&mut Bench, ConnId, &str, &str), seconds: Seconds) -> String {
    let mut bench = Bench::new(Rules { nameplate_cooldown: 60.0, ..Rules::default() });
    for _ in 0..9 {
        let conn = bench.bind("a");
        let name = bench.allocate(conn).expect("there is one");
        let mailbox = bench.claim(conn, &name).expect("it is ours");
        end(&mut bench, conn, &name, &mailbox);
        bench.store.disconnect(conn);
    }
    assert!(bench.store.counts().nameplates == 0, "all have ended");
    bench.now += seconds;
    let conn = bench.bind("a");
    bench.allocate(conn).expect("there is one").to_string()
}

#[test]
fn a_nameplate_cools_down_however_it_has_ended() {
    let release = |bench: &mut Bench, conn, name: &str, _: &str| bench.release(conn, name);
    let close = |bench: &mut Bench, conn, _: &str, id: &str| bench.close(conn, id, "happy");
    for (seconds, digits) in [(59.875, 2), (60.0, 1)] {
        assert_eq!(next_after(release, seconds).len(), digits, "released {seconds} s ago");
        assert_eq!(next_after(close, seconds).len(), digits, "closed {seconds} s ago");
    }

    let mut bench = Bench::new(Rules { nameplate_cooldown: 60.0, ..Rules::default() });
    for _ in 0..9 {
        let conn = bench.bind("a");
        assert!(bench.allocate(conn).is_ok());
    }
    bench.now += 660.0;
    bench.expire();
    let conn = bench.bind("a");
    assert_eq!(bench.allocate(conn).map(|name| name.len()), Ok(2), "expired just now");
    let conn = bench.bind("a");
    assert!(bench.claim(conn, "4").is_ok(), "who names one may have it");
    bench.now += 60.0;
    let conn = bench.bind("a");
    assert_eq!(bench.allocate(conn).map(|name| name.len()), Ok(1), "cooled down");
}

#[test]
fn when_all_short_nameplates_cool_the_next_digits_are_used() {
    let mut bench = Bench::new(Rules { nameplate_cooldown: 60.0, ..Rules::default() });
    let mut given = BTreeSet::new();
    for count in 0..2_000 {
        let conn = bench.bind("a");
        let name = bench.allocate(conn).expect("there is one");
        let digits = match count {
            0..9 => 1,
            9..99 => 2,
            99..999 => 3,
            _ => 4,
        };
        assert!(name.len() == digits || digits == 4 && name.len() > 4, "{count}: {name}");
        assert!(given.insert(name.clone()), "{name} was given a moment ago");
        bench.release(conn, &name);
    }
}

#[test]
fn a_mailbox_id_is_eight_random_bytes_in_base32() {
    for (draw, id) in [
        (0, "aaaaaaaaaaaaa"),
        (u64::MAX, "7777777777776"),
        (0x0123_4567_89ab_cdef, "aerukz4jvpg66"),
    ] {
        let mut bench = Bench::new(Rules::default());
        bench.draws = Draws { next: draw, step: 0 };
        let conn = bench.bind("a");
        assert_eq!(bench.claim(conn, "1").as_deref(), Ok(id));
    }
}

#[test]
fn a_mailbox_id_that_is_taken_is_refused_and_the_claim_not_used_up() {
    let mut bench = Bench::new(Rules::default());
    bench.draws = Draws { next: 7, step: 0 };
    let (first, second) = (bench.bind("a"), bench.bind("b"));
    assert!(bench.claim(first, "1").is_ok());
    assert_eq!(bench.claim(second, "2"), Err(Refusal::MailboxNotAvailable));
    assert!(bench.effects.changes.is_empty());
    bench.draws.step = 1;
    assert!(bench.claim(second, "2").is_ok());
}

#[test]
fn a_third_side_is_recorded_once_and_holds_nothing() {
    let mut bench = Bench::new(Rules::default());
    let (a, b) = (bench.bind("a"), bench.bind("b"));
    let mailbox = bench.claim(a, "1").expect("is free");
    assert!(bench.claim(b, "1").is_ok());

    bench.now += 1.0;
    let c = bench.bind("c");
    assert_eq!(bench.claim(c, "1"), Err(Refusal::Crowded));
    // One row in each table, released and closed; no touch.
    match &bench.effects.changes[..] {
        [
            Change::Insert(Row::NameplateSide { claimed: false, side: claimer, .. }),
            Change::Insert(Row::MailboxSide { opened: false, side: opener, .. }),
        ] => assert_eq!((&**claimer, &**opener), ("c", "c")),
        other => panic!("{other:?}"),
    }
    for side in ["c", "d"] {
        let conn = bench.bind(side);
        assert_eq!(bench.claim(conn, "1"), Err(Refusal::Crowded));
        assert_eq!(bench.open(conn, &mailbox), Err(Refusal::Crowded));
        bench.release(conn, "1");
        bench.close(conn, &mailbox, "scary");
        assert!(bench.effects.changes.is_empty(), "{:?}", bench.effects.changes);
    }

    // The first two go on, on new connections too; then everything goes with them.
    for side in ["a", "b"] {
        let conn = bench.bind(side);
        assert_eq!(bench.claim(conn, "1").as_deref(), Ok(&*mailbox));
        assert_eq!(bench.open(conn, &mailbox), Ok(()));
    }
    bench.release(a, "1");
    assert!(bench.effects.usage.is_empty());
    bench.release(b, "1");
    assert_eq!(bench.result(), "crowded");
    bench.close(a, &mailbox, "happy");
    assert!(bench.effects.usage.is_empty());
    bench.close(b, &mailbox, "happy");
    assert_eq!(bench.result(), "crowded");
    assert_eq!(bench.counts(), (0, 0, 0));
}

#[test]
fn a_nameplate_is_happy_with_two_sides_and_lonely_with_one() {
    for (sides, result) in [(&["a"][..], "lonely"), (&["a", "b"], "happy")] {
        let mut bench = Bench::new(Rules::default());
        let conns: Vec<ConnId> = sides.iter().map(|side| bench.bind(side)).collect();
        for conn in &conns {
            assert!(bench.claim(*conn, "1").is_ok());
        }
        for conn in &conns {
            bench.release(*conn, "1");
        }
        assert_eq!(bench.result(), result);
    }
}

#[test]
fn the_gravest_mood_is_a_mailbox_result() {
    for (moods, result) in [
        (&["happy", "happy"][..], "happy"),
        (&["happy", "curious"], "happy"),
        (&["happy", "lonely"], "lonely"),
        (&["lonely", "errory"], "errory"),
        (&["scary", "errory"], "scary"),
        (&["happy"], "lonely"),
        (&["errory"], "errory"),
    ] {
        let mut bench = Bench::new(Rules::default());
        let sides = ["a", "b"];
        let conns: Vec<ConnId> =
            moods.iter().zip(sides).map(|(_, side)| bench.bind(side)).collect();
        for conn in &conns {
            assert_eq!(bench.open(*conn, "m"), Ok(()));
        }
        for (conn, mood) in conns.iter().zip(moods) {
            bench.close(*conn, "m", mood);
        }
        assert_eq!(bench.result(), result, "{moods:?}");
    }
}

#[test]
fn blurring_rounds_the_start_down_and_leaves_durations_alone() {
    let mut bench = Bench::new(Rules { blur: Some(3600.0), ..Rules::default() });
    let start = (EPOCH / 3600.0).floor() * 3600.0;
    bench.now = start + 3599.5;
    let (a, b) = (bench.bind("a"), bench.bind("b"));
    assert!(matches!(
        bench.effects.usage[..],
        [(UsageRecord::ClientVersion { connect_time, .. }, _)] if connect_time == Timestamp(start)
    ));
    assert_eq!(bench.open(a, "m"), Ok(()));
    bench.now += 2.5;
    assert_eq!(bench.open(b, "m"), Ok(()));
    bench.now += 4.0;
    bench.close(a, "m", "happy");
    bench.close(b, "m", "happy");
    let records = bench.effects.usage.iter().map(|(record, _)| record);
    assert_eq!(
        records.collect::<Vec<_>>(),
        [&UsageRecord::Ended {
            app: "app".into(),
            kind: UsageKind::Mailbox { for_nameplate: false },
            started: Timestamp(start),
            waiting_time: Some(2.5),
            total_time: 6.5,
            result: Outcome::Happy,
        }]
    );
}

#[test]
fn a_mailbox_expires_when_it_was_idle_for_exactly_its_lifetime() {
    for (idle, left) in [(660.0, 0), (659.875, 1)] {
        let mut bench = Bench::new(Rules::default());
        let conn = bench.bind("a");
        assert!(bench.claim(conn, "1").is_ok());
        bench.now += idle;
        bench.expire();
        assert_eq!(bench.mailboxes_count(), left, "after {idle} seconds");
        let results = bench.effects.usage.iter().map(|(record, _)| match record {
            UsageRecord::Ended { result, .. } => result.name(),
            UsageRecord::ClientVersion { .. } => "no ending",
        });
        assert!(results.eq(["pruney", "pruney"].into_iter().take(2 - 2 * left)));
    }
}

#[test]
fn a_subscriber_keeps_a_mailbox_and_a_stranger_does_not() {
    let mut bench = Bench::new(Rules::default());
    let (a, b) = (bench.bind("a"), bench.bind("b"));
    assert_eq!(bench.open(a, "m"), Ok(()));
    assert_eq!(bench.open(b, "m"), Ok(()));
    bench.now += 3600.0;
    bench.expire();
    assert_eq!(bench.mailboxes_count(), 1);
    bench.store.disconnect(a);
    bench.store.disconnect(b);
    for _ in 0..11 {
        bench.now += 60.0;
        let stranger = bench.bind("c");
        assert_eq!(bench.open(stranger, "m"), Err(Refusal::Crowded));
    }
    bench.expire();
    assert_eq!(bench.mailboxes_count(), 0);
    assert_eq!(bench.result(), "crowded");
}

#[test]
fn expiry_counts_from_the_last_activity_when_the_clock_was_set_back() {
    let mut bench = Bench::new(Rules::default());
    let conn = bench.bind("a");
    assert_eq!(bench.open(conn, "m"), Ok(()));
    bench.now -= 3600.0;
    assert_eq!(bench.add(conn, ""), Ok(()));
    bench.store.disconnect(conn);
    bench.now += 660.0;
    bench.expire();
    assert_eq!(bench.mailboxes_count(), 0);
}

#[test]
fn a_full_mailbox_refuses_and_keeps_what_it_has() {
    let few = Bench::limited(Limits { mailbox_messages_max: 2, ..Limits::default() });
    // A message counts 128 bytes besides its text: here the phase and the body.
    let mailbox_bytes_max = 2 * (128 + 1 + 10);
    let small = Bench::limited(Limits { mailbox_bytes_max, ..Limits::default() });
    for mut bench in [few, small] {
        let conn = bench.bind("a");
        assert_eq!(bench.open(conn, "m"), Ok(()));
        for _ in 0..2 {
            assert_eq!(bench.add(conn, "0123456789"), Ok(()));
        }
        for _ in 0..2 {
            let refused = bench.add(conn, "");
            assert!(matches!(refused, Err(Refusal::MailboxFull { .. })), "{refused:?}");
            assert!(bench.effects.changes.is_empty() && bench.effects.outputs.is_empty());
        }
        assert_eq!(bench.store.counts().messages, 2);
    }
}

#[test]
fn the_end_of_one_mailbox_touches_no_other() {
    let mut bench = Bench::new(Rules::default());
    let (one, other) = (bench.bind("a"), bench.bind("a"));
    let mailbox = bench.claim(one, "1").expect("is free");
    assert!(bench.claim(other, "2").is_ok());
    bench.close(one, &mailbox, "happy");
    assert_eq!(bench.counts(), (1, 1, 0));
    assert_eq!(bench.ask(other, r#"{"type":"list"}"#), Ok(()));
    assert!(matches!(
        bench.replies()[..],
        [(_, Response::Nameplates(names))] if names.iter().map(|name| &**name).eq(["2"])
    ));
}

#[test]
fn a_load_drops_the_old_state_before_the_first_row_comes() {
    let mailbox = || Row::Mailbox {
        app: "app".into(),
        mailbox: "m".into(),
        updated: Timestamp(EPOCH),
        for_nameplate: false,
    };
    let message = || Rc::new(Message::new("a".into(), "p", "b", Timestamp(EPOCH), None));
    let row = |message| Row::Message { app: "app".into(), mailbox: "m".into(), message };
    let mut bench = Bench::new(Rules::default());
    let old = message();
    let first = bench.store.load(Timestamp(EPOCH), |each| {
        each(mailbox());
        each(row(old.clone()));
        Ok::<_, ()>(NameplateId(7))
    });
    assert_eq!((first, Rc::strong_count(&old)), (Ok(()), 2));
    let second = bench.store.load(Timestamp(EPOCH), |each| {
        assert_eq!(Rc::strong_count(&old), 1);
        each(mailbox());
        each(row(message()));
        Err("cannot read")
    });
    assert_eq!((second, bench.store.is_loaded()), (Err("cannot read"), false));
    assert_eq!(bench.counts(), (0, 0, 0));
    assert_eq!(bench.store.load(Timestamp(EPOCH), |_| Ok::<_, ()>(NameplateId(0))), Ok(()));
    assert!(bench.store.is_loaded());
}

#[test]
fn times_later_than_now_count_as_now() {
    let mut bench = Bench::new(Rules::default());
    let conn = bench.bind("s");
    bench.now += 365.0 * 86_400.0;
    assert_eq!(bench.ask(conn, r#"{"type":"claim","nameplate":"4"}"#), Ok(()));
    let rows = std::mem::take(&mut bench.effects.changes);
    let mut loaded = Bench::new(Rules::default());
    let outcome = loaded.store.load(Timestamp(EPOCH), |each| {
        for change in rows {
            let Change::Insert(row) = change else { panic!("{change:?}") };
            each(row);
        }
        Ok::<_, ()>(NameplateId(1))
    });
    assert_eq!((outcome, loaded.store.counts().mailboxes), (Ok(()), 1));
    loaded.expire_at(EPOCH + 660.0);
    assert_eq!(loaded.store.counts().mailboxes, 0);
    let total_times = loaded.effects.usage.iter().map(|(record, _)| match record {
        UsageRecord::Ended { total_time, .. } => *total_time,
        UsageRecord::ClientVersion { .. } => panic!("{record:?}"),
    });
    assert_eq!(total_times.collect::<Vec<_>>(), [660.0, 660.0]);
}

#[test]
fn what_is_stored_keeps_its_age_when_the_clock_is_set() {
    for step in [-50.0 * 365.0 * 86_400.0, 56.0 * 365.0 * 86_400.0] {
        let mut bench = Bench::new(Rules { nameplate_cooldown: 60.0, ..Rules::default() });
        let conn = bench.bind("s");
        assert_eq!(bench.ask(conn, r#"{"type":"claim","nameplate":"4"}"#), Ok(()));
        bench.store.shift_times(step);
        bench.expire_at(EPOCH + step + 659.0);
        assert_eq!((bench.store.counts().mailboxes, bench.effects.usage.len()), (1, 0));
        bench.expire_at(EPOCH + step + 660.0);
        assert_eq!(bench.store.counts().mailboxes, 0);
        for (record, _) in &bench.effects.usage {
            let UsageRecord::Ended { started, total_time, .. } = record else {
                panic!("{record:?}")
            };
            assert_eq!((*started, *total_time), (Timestamp(EPOCH + step), 660.0));
        }
    }
}
