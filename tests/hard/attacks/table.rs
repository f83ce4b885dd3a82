//! The long form: every attack for `ATTACK_SECONDS`, then all of them at once; one row each.

use super::addresses::{
    AutoPermission, IdleAdmin, ManyPrefixes, Office, Prefixes, Sniper, UsageGrowth,
};
use super::floods::{
    ControlFrames, FanOut, HalfFinished, LargeUnread, LongAtOnce, Pings, SlowSenders,
};
use super::memory::MIB;
use super::stores::{
    DeleteAtOnce, ExpireAtOnce, FillStore, FullStore, Small, TinyFields, UnreadReplay,
};
use super::{Attack, Field, PROMISED, Row, attack};

const HEADING: &str = "\
| attack | sent | connections | pair p50, p99, worst | newcomer worst | healthz worst | \
memory, of the bound | sockets | did not hold |
|---|---|---|---|---|---|---|---|---|";

/// A row of the table.
pub fn line(row: &Row) -> String {
    let observed = match &row.observed {
        None => "– | – | –".to_owned(),
        Some(observed) => format!(
            "{:.1} ms, {:.1} ms, {:.2} s | {:.2} s | {:.2} s",
            observed.pair.quantile(0.5) * 1e3,
            observed.pair.quantile(0.99) * 1e3,
            observed.pair.worst(),
            observed.newcomers.worst(),
            observed.healthz.worst(),
        ),
    };
    let violations = row.violations(&PROMISED);
    let verdict = if violations.is_empty() { "–".to_owned() } else { violations.join("; ") };
    format!(
        "| {} | {:.1} MB | {} | {observed} | {} of {} MiB | {} MiB | {verdict} |",
        row.attack,
        row.bytes as f64 / 1e6,
        row.connections,
        row.peak_bytes / MIB,
        row.bound_bytes / MIB,
        row.socket_bytes / MIB,
    )
}

/// Attacks on one server with default settings, which can be made at once.
fn with_defaults() -> Vec<Box<dyn Attack>> {
    vec![
        Box::new(Pings { connections: 1000 }),
        Box::new(FanOut { subscribers: 250, kilobytes: 410 }),
        Box::new(LargeUnread { readers: 1000, mailboxes: 1 }),
        Box::new(LargeUnread { readers: 992, mailboxes: 62 }),
        Box::new(ControlFrames { connections: 250 }),
        Box::new(HalfFinished { connections: 1000, kilobytes_each: 100, options: Vec::new() }),
        Box::new(SlowSenders { connections: 250 }),
        Box::new(UnreadReplay { connections: 240, megabytes: 16 }),
        Box::new(FillStore {
            addresses: 1,
            megabytes_each: 150,
            megabytes_per_mailbox: 15,
            options: Vec::new(),
        }),
        Box::new(FillStore {
            addresses: 20,
            megabytes_each: 16,
            megabytes_per_mailbox: 16,
            options: Vec::new(),
        }),
        Box::new(Sniper { transfers: 30, releases: false }),
        Box::new(Sniper { transfers: 30, releases: true }),
        Box::new(LongAtOnce { connections: 14, kilobytes: 4_000 }),
        Box::new(Office { pairs: 60 }),
        Box::new(Office { pairs: 100 }),
        Box::new(IdleAdmin),
        Box::new(DeleteAtOnce { mailboxes: 50, messages: 10_000 }),
    ]
}

/// Attacks with settings or files of their own, or with too many connections: the driver has no
/// descriptors left for others.
fn one_by_one() -> Vec<Box<dyn Attack>> {
    vec![
        Box::new(FanOut { subscribers: 8000, kilobytes: 410 }),
        Box::new(Prefixes { bits: 48, networks: 24, each: 250, most: 4000, options: Vec::new() }),
        Box::new(ExpireAtOnce { mailboxes: 50, messages: 10_000, seconds: 10 }),
        Box::new(TinyFields { kind: Small::Messages, count: 400_000 }),
        Box::new(TinyFields { kind: Small::AppIds, count: 20_000 }),
        Box::new(TinyFields { kind: Small::LongNames, count: 20_000 }),
        Box::new(TinyFields { kind: Small::FirstFragments, count: 1000 }),
        Box::new(FullStore { mailboxes: 40, messages: 10_000 }),
        Box::new(ManyPrefixes { count: 70_000 }),
        Box::new(AutoPermission { connections: 22 }),
        Box::new(UsageGrowth { connections: 5000, rows: 1000 }),
    ]
}

/// All of [`with_defaults`], each from addresses of its own.
struct AllAtOnce(Vec<Box<dyn Attack>>);

impl Attack for AllAtOnce {
    fn name(&self) -> String {
        "all of these with default settings at once".to_owned()
    }

    fn prepare(&self, directory: &std::path::Path) {
        self.0.iter().for_each(|attack| attack.prepare(directory));
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        let failed: Vec<String> = std::thread::scope(|scope| {
            let running = self.0.iter().enumerate().map(|(index, attack)| {
                scope.spawn(move || {
                    let network = 100 + index;
                    let own = Field { network, is_shared: true, ..*field };
                    attack.run(&own).err().map(|error| format!("{}: {error}", attack.name()))
                })
            });
            let running: Vec<_> = running.collect();
            running.into_iter().filter_map(|it| it.join().expect("an attack")).collect()
        });
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }
}

#[test]
#[ignore = "long: ATTACK_SECONDS says how long each attack takes"]
fn table_of_attacks() {
    let seconds = std::env::var("ATTACK_SECONDS").ok().and_then(|text| text.parse().ok());
    let seconds: f64 = seconds.unwrap_or(10.0);
    let only = std::env::var("ATTACK_ONLY").unwrap_or_default();
    let all_at_once: Box<dyn Attack> = Box::new(AllAtOnce(with_defaults()));
    let attacks = with_defaults().into_iter().chain(one_by_one());
    let mut violations = Vec::new();
    println!("{HEADING}");
    for kind in attacks.chain([all_at_once]).filter(|it| it.name().contains(&only)) {
        let row = attack(kind.as_ref(), seconds);
        println!("{}", line(&row));
        violations.extend(
            row.violations(&PROMISED).into_iter().map(|it| format!("{}: {it}", row.attack)),
        );
    }
    assert!(violations.is_empty(), "did not hold:\n{}", violations.join("\n"));
}
