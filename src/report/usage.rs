//! `usage`: results with their shares, times, clients, and results day by day, from the usage
//! database.

use std::fmt::Display;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::table::Align::{Left, Right};
use super::table::Table;
use super::{Report, file_json, file_line};
use crate::config::Period;
use crate::format::{self, UNKNOWN};
use crate::limits::REPORT_CLIENTS_MAX;
use crate::message::Outcome;
use crate::sorted::sorted;
use crate::storage::db::{self, ClientCount, EndingRow, OpenError, UsageSince};
use crate::store::UsageKind;
use crate::sys::clock::{self, SECONDS_PER_DAY, Seconds, Timestamp};

/// The row of results that this server does not know.
const OTHER: &str = "other";

/// How often each result occurred, and at last all that this server does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Results([u64; Outcome::COUNT + 1]);

impl Results {
    fn add(&mut self, outcome: Option<Outcome>) {
        self.0[outcome.map_or(Outcome::COUNT, |outcome| outcome as usize)] += 1;
    }

    fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// All results with their counts.
    fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Outcome::all().map(Outcome::name).chain([OTHER]).zip(self.0)
    }

    fn json(&self) -> Value {
        let total = self.total();
        let mut results = Map::new();
        for (name, count) in self.entries().filter(|(name, count)| *name != OTHER || *count > 0) {
            let share = format::share(count, total);
            results.insert(name.to_owned(), json!({"count": count, "share": share}));
        }
        json!({"total": total, "results": results})
    }
}

/// Lengths of time in seconds, of which the median and the slowest tenth are shown.
#[derive(Debug, Default)]
struct Times(Vec<Seconds>);

impl Times {
    /// The median, and the time that 90 % do not exceed.
    fn quantiles(&self) -> [Option<Seconds>; 2] {
        let sorted = sorted(self.0.iter().copied().map(Timestamp)); // these have an order
        [0.5, 0.9].map(|part| {
            let rank = (part * sorted.len() as f64).ceil() as usize;
            sorted.get(rank.saturating_sub(1)).map(|time| time.0)
        })
    }

    fn json(&self) -> Value {
        let [median, p90] = self.quantiles();
        json!({"count": self.0.len(), "median": median, "p90": p90})
    }
}

/// Results of what ended in one period.
#[derive(Clone, Copy, Debug, Default)]
struct Endings {
    mailboxes: Results,
    nameplates: Results,
}

/// What ended in a period.
#[derive(Debug, Default)]
struct Exchanges {
    all: Endings,
    /// Mailboxes of nameplates that ended happy.
    transfers: u64,
    waiting: Times,
    total: Times,
    /// In order, by day, `2024-12-31`, or by month, `2024-12`, if the period is not bounded.
    parts: Vec<(String, Endings)>,
}

pub fn report(path: &Path, period: Period, now: Timestamp) -> Result<Report, OpenError> {
    let since = period.days.map(|days| now - f64::from(days) * SECONDS_PER_DAY);
    let from = since.unwrap_or(Timestamp(f64::NEG_INFINITY));
    let mut exchanges = Exchanges::default();
    let UsageSince { file, current, clients } =
        db::read_usage(path, from, |ending| exchanges.add(&ending, period))?;
    let blur = current.and_then(|current| current.blur_time).filter(|blur| *blur > 0.0);

    let mut text = format!("{}\n{}", file_line(path, file), heading(period, since, blur));
    if exchanges.parts.is_empty() {
        text += "Nothing ended in this time.\n";
    } else {
        text += &exchanges.text(period);
    }
    text += &format!("\n{}", clients_text(clients.as_deref()));
    let json = json!({
        "file": file_json(path, file),
        "since": since.map(|since| since.0),
        "until": now.0,
        "blur_seconds": blur,
        "mailboxes": exchanges.all.mailboxes.json(),
        "nameplates": exchanges.all.nameplates.json(),
        "transfers": exchanges.transfers,
        "waiting_seconds": exchanges.waiting.json(),
        "total_seconds": exchanges.total.json(),
        "parts": exchanges.parts_json(part_name(period)),
        "clients": clients.as_deref().map(clients_json),
    });
    Ok(Report { text, json })
}

fn heading(period: Period, since: Option<Timestamp>, blur: Option<Seconds>) -> String {
    let mut heading = match (period.days, since.map(clock::utc)) {
        (Some(1), Some(since)) => format!("The last 24 hours, since {since}.\n"),
        (Some(days), Some(since)) => format!("The last {days} days, since {since}.\n"),
        _ => "All that is recorded.\n".to_owned(),
    };
    if let Some(blur) = blur {
        heading += &format!(
            "Times are rounded down to {} (--blur-usage), and so are the limits of the period and \
             its parts.\n",
            format::duration(blur)
        );
    }
    heading + "\n"
}

/// The parts that an unbounded period, or a bounded one, is divided into.
fn part_name(period: Period) -> &'static str {
    if period.days.is_none() { "month" } else { "day" }
}

impl Exchanges {
    fn add(&mut self, ending: &EndingRow, period: Period) {
        let mut part = clock::utc(ending.started);
        part.truncate(if period.days.is_none() { "2024-12" } else { "2024-12-31" }.len());
        let at = self.parts.partition_point(|(earlier, _)| *earlier < part);
        if self.parts.get(at).is_none_or(|(known, _)| *known != part) {
            self.parts.insert(at, (part, Endings::default()));
        }
        for endings in [&mut self.all, &mut self.parts[at].1] {
            match ending.kind {
                UsageKind::Mailbox { .. } => endings.mailboxes.add(ending.outcome),
                UsageKind::Nameplate => endings.nameplates.add(ending.outcome),
            }
        }
        if let UsageKind::Mailbox { for_nameplate } = ending.kind {
            let is_happy = ending.outcome == Some(Outcome::Happy);
            self.transfers += u64::from(is_happy && for_nameplate);
            self.waiting.0.extend(ending.waiting_time);
            self.total.0.extend(ending.total_time);
        }
    }

    fn text(&self, period: Period) -> String {
        let mut text = format!(
            "{}\nTransfers: {} (mailboxes of a nameplate that ended happy).\n\n{}",
            self.results(),
            self.transfers,
            self.times()
        );
        if period.days != Some(1) {
            text += &format!("\n{}", self.parts(part_name(period)));
        }
        text
    }

    fn results(&self) -> String {
        let columns =
            [("", Left), ("mailboxes", Right), ("", Right), ("nameplates", Right), ("", Right)];
        let mut table = Table::new(&columns);
        let Endings { mailboxes, nameplates } = self.all;
        let (of_mailboxes, of_nameplates) = (mailboxes.total(), nameplates.total());
        for ((name, mailboxes), (_, nameplates)) in mailboxes.entries().zip(nameplates.entries()) {
            if name == OTHER && mailboxes + nameplates == 0 {
                continue;
            }
            let share = format::percent(mailboxes, of_mailboxes);
            let nameplate_share = format::percent(nameplates, of_nameplates);
            table.row(&[&name, &mailboxes, &share, &nameplates, &nameplate_share]);
        }
        table.row(&[&"all", &of_mailboxes, &"", &of_nameplates, &""]);
        table.text()
    }

    fn times(&self) -> String {
        let columns = [("", Left), ("median", Right), ("90 % within", Right), ("", Left)];
        let mut table = Table::new(&columns);
        for (name, times, meaning) in [
            ("waiting", &self.waiting, "until the second side came"),
            ("total", &self.total, "until the mailbox was gone"),
        ] {
            let quantiles = times.quantiles();
            let [median, p90] = quantiles.map(|time| format::or_unknown(time, format::duration));
            table.row(&[&name, &median, &p90, &meaning]);
        }
        table.text()
    }

    fn parts(&self, title: &'static str) -> String {
        let mut columns = vec![(title, Left), ("mailboxes", Right), ("nameplates", Right)];
        columns.extend(Outcome::all().map(|outcome| (outcome.name(), Right)));
        let mut table = Table::new(&columns);
        for (part, Endings { mailboxes, nameplates }) in &self.parts {
            let known = &mailboxes.0[..Outcome::COUNT];
            let counts = [&[mailboxes.total(), nameplates.total()], known].concat();
            let mut cells: Vec<&dyn Display> = vec![part];
            cells.extend(counts.iter().map(|count| count as &dyn Display));
            table.row(&cells);
        }
        table.text()
    }

    fn parts_json(&self, name: &'static str) -> Vec<Value> {
        let parts = self.parts.iter().map(|(part, Endings { mailboxes, nameplates })| {
            json!({name: part, "mailboxes": mailboxes.json(), "nameplates": nameplates.json()})
        });
        parts.collect()
    }
}

/// The clients that are listed, the binds of all others, and all binds.
fn listed(clients: &[ClientCount]) -> (&[ClientCount], u64, u64) {
    let (listed, others) = clients.split_at(clients.len().min(REPORT_CLIENTS_MAX));
    let binds = |clients: &[ClientCount]| clients.iter().map(|client| client.binds).sum();
    (listed, binds(others), binds(clients))
}

fn clients_text(clients: Option<&[ClientCount]>) -> String {
    let Some(clients) = clients else {
        return "A file of version 1 has no clients.\n".to_owned();
    };
    if clients.is_empty() {
        return "No client has come.\n".to_owned();
    }
    let mut table =
        Table::new(&[("client", Left), ("version", Left), ("binds", Right), ("", Right)]);
    let (listed, others, all) = listed(clients);
    for ClientCount { implementation, version, binds } in listed {
        let name =
            implementation.as_deref().map_or_else(|| "(unnamed)".to_owned(), format::harmless);
        let version = format::or_unknown(version.as_deref(), format::harmless);
        table.row(&[&name, &version, binds, &format::percent(*binds, all)]);
    }
    if others > 0 {
        let name = format!("({} others)", clients.len() - listed.len());
        table.row(&[&name, &UNKNOWN, &others, &format::percent(others, all)]);
    }
    table.text()
}

fn clients_json(clients: &[ClientCount]) -> Value {
    let (listed, others, all) = listed(clients);
    let listed = listed.iter().map(|client| {
        json!({
            "implementation": client.implementation,
            "version": client.version,
            "binds": client.binds,
            "share": format::share(client.binds, all),
        })
    });
    json!({"binds": all, "listed": listed.collect::<Vec<_>>(), "others": others})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_occurred() {
        let times = Times((1..=10).rev().map(f64::from).collect());
        assert_eq!(times.quantiles(), [Some(5.0), Some(9.0)]);
        assert_eq!(Times(vec![3.0]).quantiles(), [Some(3.0), Some(3.0)]);
        assert_eq!(Times::default().quantiles(), [None, None]);
    }

    #[test]
    fn an_unknown_result_is_counted_apart() {
        let mut results = Results::default();
        for outcome in ["happy", "happy", "sleepy"].map(Outcome::from_name) {
            results.add(outcome);
        }
        assert_eq!(results.total(), 3);
        assert_eq!(results.entries().last(), Some((OTHER, 1)));
    }
}
