//! The usage database of a run: a real file, read again when the server has crashed or stopped.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::Connection;
use wormhole_mailbox::storage::db::{EarlierLocks, UsageDb};
use wormhole_mailbox::store::{UsageKind, UsageRecord};

/// A file of its own, removed with the run.
#[derive(Debug)]
pub struct UsageFile {
    path: PathBuf,
}

impl UsageFile {
    pub fn new(seed: u64) -> UsageFile {
        // Tests run side by side, some with the same seeds.
        static FILES: AtomicUsize = AtomicUsize::new(0);
        let (pid, file) = (std::process::id(), FILES.fetch_add(1, Ordering::Relaxed));
        let name = format!("simulation-{pid}-{seed}-{file}.sqlite");
        UsageFile { path: std::env::temp_dir().join(name) }
    }

    /// Opens it for a server.
    pub fn open(&self) -> UsageDb {
        UsageDb::examine(&self.path, &mut EarlierLocks::none())
            .and_then(|examined| UsageDb::open(examined, None))
            .unwrap_or_else(|error| panic!("{}: {error:?}", self.path.display()))
    }

    /// After a crash the last second's records may be lost, but not the first `due`, and none may
    /// be wrong. From then on only what is there is `expected`.
    pub fn crashed(&self, expected: &mut Vec<UsageRecord>, due: usize) -> Result<(), String> {
        let mut left: Vec<String> = self.rows();
        if let Some(lost) = expected[..due].iter().find(|it| !left.contains(&describe(it))) {
            return Err(format!("usage: {lost:?} should have been written"));
        }
        let is_there = |record: &UsageRecord| {
            let place = left.iter().position(|row| *row == describe(record));
            place.map(|place| left.swap_remove(place)).is_some()
        };
        expected.retain(is_there);
        match left.first() {
            Some(row) => Err(format!("usage: {row} has not happened")),
            None => Ok(()),
        }
    }

    /// After a clean stop all are there.
    pub fn stopped(&self, expected: &[UsageRecord]) -> Result<(), String> {
        let mut found = self.rows();
        let mut expected: Vec<String> = expected.iter().map(describe).collect();
        found.sort();
        expected.sort();
        let differing =
            (0..found.len().max(expected.len())).find(|at| found.get(*at) != expected.get(*at));
        match differing {
            Some(at) => {
                Err(format!("usage: found {:?}, expected {:?}", found.get(at), expected.get(at)))
            }
            None => Ok(()),
        }
    }

    fn rows(&self) -> Vec<String> {
        const QUERY: &str = "
            SELECT 'nameplate', app_id, 0, started, waiting_time, total_time, result FROM nameplates
            UNION ALL SELECT 'mailbox', app_id, for_nameplate, started, waiting_time, total_time,
                result FROM mailboxes
            UNION ALL SELECT 'client', app_id, 0, connect_time, NULL, 0.0, side FROM client_versions
                WHERE implementation IS NULL AND version IS NULL";
        let read = || -> rusqlite::Result<Vec<String>> {
            let connection = Connection::open(&self.path)?;
            let mut statement = connection.prepare(QUERY)?;
            let rows = statement.query_map([], |row| {
                let kind: String = row.get(0)?;
                let app: String = row.get(1)?;
                let for_nameplate: bool = row.get(2)?;
                let started: f64 = row.get(3)?;
                let waiting: Option<f64> = row.get(4)?;
                let total: f64 = row.get(5)?;
                let result: String = row.get(6)?;
                Ok(line(&kind, &app, for_nameplate, started, waiting, total, &result))
            })?;
            rows.collect()
        };
        read().unwrap_or_else(|error| panic!("{}: {error}", self.path.display()))
    }
}

impl Drop for UsageFile {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            // Not all of them are there.
            _ = std::fs::remove_file(format!("{}{suffix}", self.path.display()));
        }
    }
}

/// A name as it is recorded: its first 64 bytes. Long ones are ASCII here.
fn cut(name: &str) -> &str {
    name.get(..64).unwrap_or(name)
}

fn describe(record: &UsageRecord) -> String {
    match record {
        UsageRecord::Ended { app, kind, started, waiting_time, total_time, result } => {
            let (table, for_nameplate) = match *kind {
                UsageKind::Nameplate => ("nameplate", false),
                UsageKind::Mailbox { for_nameplate } => ("mailbox", for_nameplate),
            };
            let (app, result) = (cut(app), result.name());
            line(table, app, for_nameplate, started.0, *waiting_time, *total_time, result)
        }
        UsageRecord::ClientVersion { app, side, connect_time, .. } => {
            line("client", cut(app), false, connect_time.0, None, 0.0, cut(side))
        }
    }
}

fn line(
    kind: &str,
    app: &str,
    for_nameplate: bool,
    started: f64,
    waiting: Option<f64>,
    total: f64,
    result: &str,
) -> String {
    format!("{kind} {app} {for_nameplate} {started} {waiting:?} {total} {result}")
}
