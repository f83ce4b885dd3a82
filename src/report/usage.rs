//! `usage`: results with their shares, times, clients, and results day by day, from the usage
//! database.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::table::{Align, Table};
use super::{Report, file_json, file_line};
use crate::config::Period;
use crate::format::{self, UNKNOWN};
use crate::limits::REPORT_CLIENTS_MAX;
use crate::message::outcome::{Outcome, OutcomeCounts};
use crate::storage::db::{ClientCount, EndingRow, FileState, UsageKind, UsageReader};
use crate::sys::clock::{self, Seconds, Timestamp};

/// The row of results that this server does not know.
const OTHER: &str = "other";

const SECONDS_PER_DAY: f64 = 86_400.0;

/// How often each result occurred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Results {
    known: OutcomeCounts,
    other: u64,
}

impl Results {
    fn add(&mut self, outcome: Option<Outcome>) {
        match outcome {
            Some(outcome) => self.known.add(outcome, 1),
            None => self.other += 1,
        }
    }

    fn total(&self) -> u64 {
        self.known.total() + self.other
    }

    /// All results with their counts.
    fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.known.iter().map(|(it, count)| (it.name(), count)).chain([(OTHER, self.other)])
    }

    fn json(&self) -> Value {
        let total = self.total();
        let results: Map<String, Value> = self
            .entries()
            .filter(|(name, count)| *name != OTHER || *count > 0)
            .map(|(name, count)| {
                let share = format::share(count, total);
                (name.to_owned(), json!({"count": count, "share": share}))
            })
            .collect();
        json!({"total": total, "results": results})
    }
}

/// Lengths of time in seconds, of which the median and the slowest tenth are shown.
#[derive(Debug, Default)]
struct Times(Vec<Seconds>);

impl Times {
    fn sort(&mut self) {
        self.0.sort_unstable_by(Seconds::total_cmp);
    }

    /// The time that this part of all times does not exceed; they must be sorted.
    fn quantile(&self, part: f64) -> Option<Seconds> {
        let rank = (part * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied()
    }

    fn cells(&self) -> [String; 2] {
        QUANTILES
            .map(|part| self.quantile(part).map_or_else(|| UNKNOWN.to_owned(), format::duration))
    }

    fn json(&self) -> Value {
        let [median, p90] = QUANTILES.map(|part| self.quantile(part));
        json!({"count": self.0.len(), "median": median, "p90": p90})
    }
}

const QUANTILES: [f64; 2] = [0.5, 0.9];

/// Results of what ended in one period.
#[derive(Clone, Copy, Debug, Default)]
struct Endings {
    mailboxes: Results,
    nameplates: Results,
}

#[derive(Debug)]
pub struct Usage {
    path: PathBuf,
    state: FileState,
    period: Period,
    since: Option<Timestamp>,
    now: Timestamp,
    /// Blurring in force when the file was last written.
    blur: Option<Seconds>,
    all: Endings,
    /// Mailboxes of nameplates that ended happy.
    transfers: u64,
    waiting: Times,
    total: Times,
    /// By day, `2024-12-31`, or by month, `2024-12`, if the period is not bounded.
    parts: BTreeMap<String, Endings>,
    clients: Option<Vec<ClientCount>>,
}

pub fn collect(path: &Path, period: Period, now: Timestamp) -> Result<Usage, String> {
    let reader = UsageReader::open(path).map_err(|error| error.to_string())?;
    let since = period.days().map(|days| now - f64::from(days) * SECONDS_PER_DAY);
    let mut usage = Usage {
        path: path.to_owned(),
        state: reader.state(),
        period,
        since,
        now,
        blur: None,
        all: Endings::default(),
        transfers: 0,
        waiting: Times::default(),
        total: Times::default(),
        parts: BTreeMap::new(),
        clients: None,
    };
    usage.read(&reader).map_err(|error| error.to_string())?;
    Ok(usage)
}

impl Usage {
    fn read(&mut self, reader: &UsageReader) -> Result<(), crate::storage::db::OpenError> {
        let since = self.since.unwrap_or(Timestamp(f64::NEG_INFINITY));
        let blur = reader.current()?.and_then(|current| current.blur_time);
        self.blur = blur.filter(|blur| *blur > 0.0);
        reader.endings(since, |ending| self.add(&ending))?;
        self.clients = reader.clients(since)?;
        self.waiting.sort();
        self.total.sort();
        Ok(())
    }

    fn add(&mut self, ending: &EndingRow) {
        let mut part = clock::utc(ending.started);
        part.truncate(if self.period == Period::All { "2024-12" } else { "2024-12-31" }.len());
        for endings in [&mut self.all, self.parts.entry(part).or_default()] {
            match ending.kind {
                UsageKind::Mailbox => endings.mailboxes.add(ending.outcome),
                UsageKind::Nameplate => endings.nameplates.add(ending.outcome),
            }
        }
        if ending.kind == UsageKind::Mailbox {
            let is_happy = ending.outcome == Some(Outcome::Happy);
            self.transfers += u64::from(is_happy && ending.for_nameplate);
            self.waiting.0.extend(ending.waiting_time);
            self.total.0.extend(ending.total_time);
        }
    }

    fn heading(&self) -> String {
        let period = match (self.period.days(), self.since) {
            (Some(1), Some(since)) => format!("The last 24 hours, since {}", clock::utc(since)),
            (Some(days), Some(since)) => {
                format!("The last {days} days, since {}", clock::utc(since))
            }
            _ => "All that is recorded".to_owned(),
        };
        let mut heading = format!("{}\n{period}.\n", file_line(&self.path, self.state));
        if let Some(blur) = self.blur {
            heading += &format!(
                "Times are rounded down to {} (--blur-usage), and so are the limits of the period \
                 and its parts.\n",
                format::duration(blur)
            );
        }
        heading
    }

    fn results(&self) -> String {
        let right = Align::Right;
        let mut table = Table::new(&[
            ("", Align::Left),
            ("mailboxes", right),
            ("", right),
            ("nameplates", right),
            ("", right),
        ]);
        let Endings { mailboxes, nameplates } = self.all;
        let (of_mailboxes, of_nameplates) = (mailboxes.total(), nameplates.total());
        for ((name, mailboxes), (_, nameplates)) in mailboxes.entries().zip(nameplates.entries()) {
            if name == OTHER && mailboxes + nameplates == 0 {
                continue;
            }
            table.row(vec![
                name.to_owned(),
                mailboxes.to_string(),
                format::percent(mailboxes, of_mailboxes),
                nameplates.to_string(),
                format::percent(nameplates, of_nameplates),
            ]);
        }
        table.row(vec![
            "all".to_owned(),
            of_mailboxes.to_string(),
            String::new(),
            of_nameplates.to_string(),
        ]);
        table.text()
    }

    fn times(&self) -> String {
        let mut table = Table::new(&[
            ("", Align::Left),
            ("median", Align::Right),
            ("90 % within", Align::Right),
            ("", Align::Left),
        ]);
        for (name, times, meaning) in [
            ("waiting", &self.waiting, "until the second side came"),
            ("total", &self.total, "until the mailbox was gone"),
        ] {
            let [median, p90] = times.cells();
            table.row(vec![name.to_owned(), median, p90, meaning.to_owned()]);
        }
        table.text()
    }

    fn days(&self) -> String {
        let mut columns = vec![(part_name(self.period), Align::Left)];
        columns.extend([("mailboxes", Align::Right), ("nameplates", Align::Right)]);
        columns.extend(Outcome::all().map(|outcome| (outcome.name(), Align::Right)));
        let mut table = Table::new(&columns);
        for (part, endings) in &self.parts {
            let mut cells = vec![
                part.clone(),
                endings.mailboxes.total().to_string(),
                endings.nameplates.total().to_string(),
            ];
            cells.extend(endings.mailboxes.known.iter().map(|(_, count)| count.to_string()));
            table.row(cells);
        }
        table.text()
    }

    fn binds(&self) -> u64 {
        self.clients.iter().flatten().map(|client| client.binds).sum()
    }

    /// The clients that are listed, and the binds of all others.
    fn listed<'a>(&self, clients: &'a [ClientCount]) -> (&'a [ClientCount], u64) {
        let (listed, others) = clients.split_at(clients.len().min(REPORT_CLIENTS_MAX));
        (listed, others.iter().map(|client| client.binds).sum())
    }

    fn clients(&self) -> String {
        let Some(clients) = &self.clients else {
            return "A file of version 1 has no clients.\n".to_owned();
        };
        if clients.is_empty() {
            return "No client has come.\n".to_owned();
        }
        let columns = [("client", Align::Left), ("version", Align::Left)];
        let numbers = [("binds", Align::Right), ("", Align::Right)];
        let mut table = Table::new(&[columns, numbers].concat());
        let (listed, others) = self.listed(clients);
        let mut row = |name: String, version: String, binds: u64| {
            table.row(vec![name, version, binds.to_string(), format::percent(binds, self.binds())]);
        };
        for ClientCount { implementation, version, binds } in listed {
            let name =
                implementation.as_deref().map_or_else(|| "(unnamed)".to_owned(), format::harmless);
            row(name, format::harmless_or_unknown(version.as_deref()), *binds);
        }
        if others > 0 {
            row(format!("({} others)", clients.len() - listed.len()), "-".to_owned(), others);
        }
        table.text()
    }
}

fn part_name(period: Period) -> &'static str {
    if period == Period::All { "month" } else { "day" }
}

impl Report for Usage {
    fn text(&self) -> String {
        let mut text = self.heading() + "\n";
        if self.all.mailboxes.total() + self.all.nameplates.total() == 0 {
            text += "Nothing ended in this time.\n";
        } else {
            text += &self.results();
            text += &format!(
                "\nTransfers: {} (mailboxes of a nameplate that ended happy).\n\n{}",
                self.transfers,
                self.times()
            );
            if self.period != Period::Day {
                text += &format!("\n{}", self.days());
            }
        }
        text + "\n" + &self.clients()
    }

    fn json(&self) -> Value {
        let parts = self.parts.iter().map(|(part, endings)| {
            json!({
                part_name(self.period): part,
                "mailboxes": endings.mailboxes.json(),
                "nameplates": endings.nameplates.json(),
            })
        });
        let clients = self.clients.as_ref().map(|clients| {
            let (listed, others) = self.listed(clients);
            let listed = listed.iter().map(|client| {
                json!({
                    "implementation": client.implementation,
                    "version": client.version,
                    "binds": client.binds,
                    "share": format::share(client.binds, self.binds()),
                })
            });
            json!({"binds": self.binds(), "listed": listed.collect::<Vec<_>>(), "others": others})
        });
        json!({
            "file": file_json(&self.path, self.state),
            "since": self.since.map(|since| since.0),
            "until": self.now.0,
            "blur_seconds": self.blur,
            "mailboxes": self.all.mailboxes.json(),
            "nameplates": self.all.nameplates.json(),
            "transfers": self.transfers,
            "waiting_seconds": self.waiting.json(),
            "total_seconds": self.total.json(),
            "parts": parts.collect::<Vec<_>>(),
            "clients": clients,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_occurred() {
        let mut times = Times((1..=10).rev().map(f64::from).collect());
        times.sort();
        assert_eq!(QUANTILES.map(|part| times.quantile(part)), [Some(5.0), Some(9.0)]);
        let one = Times(vec![3.0]);
        assert_eq!(QUANTILES.map(|part| one.quantile(part)), [Some(3.0), Some(3.0)]);
        assert_eq!(Times::default().quantile(0.5), None);
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
