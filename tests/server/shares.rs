//! Shares of the store, its reserve, and what goes when it is full (manual: rules 6), seen on the
//! store alone; also subscriptions of one side, and messages that are deleted bit by bit. How they
//! work together is `simulation`'s.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use wormhole_mailbox::limits::Limits;
use wormhole_mailbox::message::{
    CloseReason, ConnId, CountedAddress, Holder, Message, Refusal, Response,
};
use wormhole_mailbox::store::{Change, Effects, NameplateId, Row, Rules};
use wormhole_mailbox::sys::clock::Timestamp;

use crate::store::Bench;

const A: Option<Holder> = holder(1);
const B: Option<Holder> = holder(2);

/// An address in a network of its own.
const fn holder(last: u8) -> Option<Holder> {
    let ip = IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
    Some(Holder { address: CountedAddress::Ip(ip), onion_bits: None })
}

/// A store of 400 KB: an address has 50 KB, and a mailbox 40 KB.
fn bench() -> Bench {
    Bench::limited(Limits {
        stored_bytes_max: 400_000,
        mailbox_bytes_max: 40_000,
        ..Limits::default()
    })
}

/// Opens a mailbox and adds messages of 10 KB to it, until one is refused.
fn fill(bench: &mut Bench, from: Option<Holder>, mailbox: &str) -> (ConnId, Result<(), Refusal>) {
    let conn = bench.bind_from(from, "side");
    if let Err(refusal) = bench.open(conn, mailbox) {
        return (conn, Err(refusal));
    }
    for _ in 0..100 {
        if let Err(refusal) = bench.add(conn, &"x".repeat(10_000)) {
            return (conn, Err(refusal));
        }
    }
    panic!("nothing is ever full");
}

/// The messages that an `open` has replayed.
fn replayed(bench: &Bench) -> Vec<Rc<Message>> {
    let replays = bench.replies().into_iter().filter_map(|(_, response)| match response {
        Response::Replay(replay) => Some(replay.clone()),
        _ => None,
    });
    replays.flatten().collect()
}

#[test]
fn an_address_has_its_share_and_gets_it_back_with_its_mailboxes() {
    let mut bench = bench();
    for _ in 0..2 {
        assert!(matches!(fill(&mut bench, A, "one").1, Err(Refusal::MailboxFull { .. })));
        let (conn, refused) = fill(&mut bench, A, "two");
        assert_eq!(refused, Err(Refusal::AddressFull));
        bench.store.disconnect(conn);
        assert_eq!(fill(&mut bench, A, "three").1, Err(Refusal::AddressFull), "it stays charged");
        assert!(matches!(fill(&mut bench, B, "other").1, Err(Refusal::MailboxFull { .. })));
        for (mailbox, from) in [("one", A), ("two", A), ("three", A), ("other", B)] {
            let conn = bench.bind_from(from, "side");
            bench.close(conn, mailbox, "happy");
        }
        assert_eq!(bench.store.counts().bytes, 0);
    }
}

#[test]
fn what_is_added_is_charged_to_the_address_that_adds() {
    let mut bench = bench();
    let (a, b) = (bench.bind_from(A, "a"), bench.bind_from(B, "b"));
    assert_eq!((bench.open(a, "m"), bench.open(b, "m")), (Ok(()), Ok(())));
    for _ in 0..3 {
        assert_eq!(bench.add(a, &"x".repeat(10_000)), Ok(()));
    }
    assert_eq!(fill(&mut bench, A, "n").1, Err(Refusal::AddressFull));
    assert!(matches!(fill(&mut bench, B, "o").1, Err(Refusal::MailboxFull { .. })));
}

#[test]
fn without_an_address_each_mailbox_is_a_holder_of_its_own() {
    let mut bench = bench();
    for mailbox in ["one", "two", "three"] {
        assert!(matches!(fill(&mut bench, None, mailbox).1, Err(Refusal::MailboxFull { .. })));
    }
}

#[test]
fn what_was_loaded_is_charged_to_the_first_that_subscribes() {
    let mut bench = bench();
    let mut rows = Vec::new();
    for _ in 0..2 {
        assert!(matches!(fill(&mut bench, A, "loaded").1, Err(Refusal::MailboxFull { .. })));
        rows.clear();
        rows.push(Row::Mailbox {
            app: "app".into(),
            mailbox: "loaded".into(),
            updated: Timestamp(bench.now),
            for_nameplate: false,
        });
        let conn = bench.bind("side");
        bench.open(conn, "loaded").expect("opens");
        rows.extend(replayed(&bench).into_iter().map(|message| Row::Message {
            app: "app".into(),
            mailbox: "loaded".into(),
            message,
        }));
        for conn in 0..=conn.0 {
            bench.store.disconnect(ConnId(conn));
        }
        let load = |each: &mut dyn FnMut(Row)| {
            rows.iter().cloned().for_each(each);
            Ok::<_, ()>(NameplateId(0))
        };
        assert_eq!(bench.store.load(Timestamp(bench.now), load), Ok(()));
        assert!(matches!(fill(&mut bench, A, "new").1, Err(Refusal::MailboxFull { .. })));
        let (first, second) = (bench.bind_from(B, "side"), bench.bind_from(A, "two"));
        assert_eq!((bench.open(first, "loaded"), bench.open(second, "loaded")), (Ok(()), Ok(())));
        assert_eq!(fill(&mut bench, B, "more").1, Err(Refusal::AddressFull));
        for mailbox in ["loaded", "new", "more"] {
            for side in ["side", "two"] {
                let conn = bench.bind(side);
                bench.close(conn, mailbox, "happy");
            }
        }
        let conn = bench.bind("two");
        bench.close(conn, "loaded", "happy");
    }
}

#[test]
fn when_the_store_is_full_the_largest_holder_loses_mailboxes_and_its_subscribers_are_closed() {
    let mut bench = bench();
    let small = bench.bind_from(holder(100), "side");
    assert_eq!(bench.open(small, "small"), Ok(()));
    let mut readers = Vec::new();
    for address in 1..100 {
        let (reader, refused) = fill(&mut bench, holder(address), &format!("m{address}"));
        readers.push(reader);
        if refused == Err(Refusal::ServerFull) {
            break;
        }
    }
    assert!(readers.len() > 8, "{} have filled it", readers.len());
    bench.store.end_tick(&mut Effects::default()); // a tick ends
    let newcomer = bench.bind_from(holder(200), "side");
    let mut evicted = Vec::new();
    for nameplate in 1..=100 {
        let newcomer = bench.bind_from(holder(200 + nameplate), "side");
        assert!(bench.claim(newcomer, &nameplate.to_string()).is_ok(), "{nameplate}");
        evicted.extend(bench.effects.closings.clone());
        if !evicted.is_empty() {
            break;
        }
    }
    assert!(bench.effects.evicted_count > 0);
    assert!(bench.effects.usage.len() >= bench.effects.evicted_count, "they are summarised");
    assert!(evicted.iter().all(|(conn, reason)| {
        *reason == CloseReason::Evicted && readers.contains(conn) && *conn != small
    }));
    let (gone, _) = evicted[0];
    assert_eq!(bench.add(gone, "x"), Err(Refusal::MustOpenFirst));
    assert_eq!(bench.add(small, "x"), Ok(()));
    assert_eq!(bench.open(newcomer, "new"), Ok(()));
    assert!(bench.store.counts().bytes <= 400_000);
}

#[test]
fn the_reserve_is_for_short_messages_and_new_exchanges() {
    let mut bench = Bench::limited(Limits { stored_bytes_max: 100_000, ..Limits::default() });
    let (conn, refused) = fill(&mut bench, None, "m");
    assert_eq!(refused, Err(Refusal::ServerFull));
    for _ in 0..3 {
        assert_eq!(bench.add(conn, &"x".repeat(5_000)), Err(Refusal::ServerFull));
        assert_eq!(bench.add(conn, &"x".repeat(500)), Ok(()));
    }
    let refused = (0..1_000).find_map(|_| bench.add(conn, &"x".repeat(500)).err());
    assert_eq!(refused, Some(Refusal::ServerFull), "of the largest holder only");
    assert!(bench.store.counts().bytes <= 100_000);
}

#[test]
fn one_more_subscription_of_a_side_closes_its_oldest_connection() {
    let mut bench = Bench::new(Rules::default());
    let other = bench.bind("other");
    assert_eq!(bench.open(other, "m"), Ok(()));
    let conns: Vec<ConnId> = (0..8).map(|_| bench.bind("side")).collect();
    for conn in &conns {
        assert_eq!(bench.open(*conn, "m"), Ok(()));
        assert_eq!(bench.effects.closings, []);
    }
    for oldest in &conns {
        let conn = bench.bind("side");
        assert_eq!(bench.open(conn, "m"), Ok(()));
        assert_eq!(bench.effects.closings, [(*oldest, CloseReason::Replaced)]);
        assert!(bench.effects.participants.contains(oldest), "it is closed if the tick fails");
        assert_eq!(bench.add(*oldest, "x"), Err(Refusal::MustOpenFirst));
        assert_eq!(bench.add(other, "x"), Ok(()));
        assert_eq!(bench.replies().len(), 9);
    }
}

#[test]
fn the_messages_of_a_mailbox_that_ended_are_deleted_in_slices() {
    const MESSAGES: usize = 2_500;
    let mut bench = Bench::new(Rules::default());
    let conn = bench.bind("side");
    assert_eq!(bench.open(conn, "m"), Ok(()));
    (0..MESSAGES).for_each(|_| assert_eq!(bench.add(conn, "x"), Ok(())));
    bench.close(conn, "m", "happy");
    assert!(
        bench
            .effects
            .changes
            .iter()
            .any(|change| { matches!(change, Change::DeleteMailbox { with_messages: false, .. }) })
    );
    let again = bench.bind("side");
    assert_eq!(bench.open(again, "m"), Err(Refusal::MailboxNotAvailable), "not before they go");
    bench.close(again, "m", "happy");
    let mut deleted = 0;
    for ticks in 1.. {
        let mut effects = Effects::default();
        let more = bench.store.end_tick(&mut effects);
        for change in &effects.changes {
            let Change::DeleteMessages { count, .. } = change else { panic!("{change:?}") };
            assert!(*count <= 1_000);
            deleted += count;
        }
        assert_eq!(bench.store.counts().messages, MESSAGES - deleted, "memory goes with the rows");
        if !more {
            assert_eq!((ticks, deleted), (3, MESSAGES));
            break;
        }
    }
    assert_eq!(bench.store.counts().bytes, 0);
    let again = bench.bind("side");
    assert_eq!(bench.open(again, "m"), Ok(()));
    assert_eq!(bench.replies().len(), 0);
}
