//! The databases of a start: examined first, then opened, and the state loaded from them.

use std::fs;
use std::path::Path;

use crate::config::Config;
use crate::config::reloadable::Reloadable;
use crate::limits::{CLIENT_HOURS, HOUR_BUCKET_SECONDS};
use crate::message::ConnId;
use crate::message::handover::AddressIdsRecord;
use crate::storage::Storage;
use crate::storage::db::{
    self, AddridDb, ChannelDb, ChannelOptions, ConnectionTable, Database, EarlierLocks, Examined,
    Failure, MEMORY, OpenError, UsageDb, UsageHistory,
};
use crate::storage::records::Records;
use crate::store::Store;
use crate::sys::clock::{Clock, SECONDS_PER_HOUR};
use crate::sys::identity::{self, FileId};
use crate::sys::logging::{info, warn};

/// The open databases, and the state loaded from them.
pub struct Files {
    pub store: Store,
    pub storage: Storage,
    pub records: Records,
    /// What the channel database is and how it was opened.
    summary: String,
}

impl Files {
    /// Opens all files that the options name, or none.
    /// `locks`: those that an earlier process has handed over; `taken_over`: its connections that
    /// go on.
    pub fn open(
        config: &Config,
        reloadable: &Reloadable,
        locks: EarlierLocks,
        taken_over: &[ConnId],
    ) -> Result<Files, Failure> {
        check_distinct(config)?;
        // None is changed before all have been found to be in order.
        let AllExamined { channel, usage, addrid } = AllExamined::new(config, locks)?;
        let db = ChannelDb::open(channel, channel_options(config), !taken_over.is_empty())?;
        let (db, store) = load(config, reloadable, db)?;
        let summary = db.summary();
        let records = open_records(config, &db, usage, addrid, taken_over);
        let storage = Storage::new(Box::new(db));
        let records = match records {
            Ok(records) => records,
            Err(error) => {
                storage.close();
                return Err(error.into());
            }
        };
        Ok(Files { store, storage, records, summary })
    }

    /// The last day of the usage database, for the status page.
    pub fn last_day(&self) -> UsageHistory {
        let Some(usage) = &self.records.usage else { return UsageHistory::default() };
        let since = Clock::read().wall - CLIENT_HOURS as f64 * SECONDS_PER_HOUR;
        usage.past(since, HOUR_BUCKET_SECONDS).unwrap_or_else(|error| {
            warn!("the last day is missing on the status page: {error}");
            UsageHistory::default()
        })
    }

    /// Goes on with the address ids of an earlier process.
    pub fn restore_address_ids(&mut self, record: AddressIdsRecord) {
        if let Some(ids) = &mut self.records.addresses {
            ids.restore(record, Clock::read().instant);
        }
    }

    /// Logs what was opened.
    pub fn log(&self) {
        info!("{}", self.summary);
        let (counts, remains) = (self.store.counts(), self.store.remains_count());
        if remains > 0 {
            warn!("deleting {remains} messages of mailboxes that do not exist");
        }
        info!(
            "loaded {} nameplates, {} mailboxes, {} messages",
            counts.nameplates, counts.mailboxes, counts.messages
        );
        let Records { usage, addresses, .. } = &self.records;
        let summaries =
            [usage.as_ref().map(UsageDb::summary), addresses.as_ref().map(AddridDb::summary)];
        for summary in summaries.into_iter().flatten() {
            info!("{summary}");
        }
    }
}

/// All files, of which none is changed.
struct AllExamined {
    channel: Examined,
    usage: Option<Examined>,
    addrid: Option<Examined>,
}

impl AllExamined {
    /// Closes the locks that no file needs: not later, since SQLite loses its own with them.
    fn new(config: &Config, mut locks: EarlierLocks) -> Result<AllExamined, OpenError> {
        let Config { channel_db, usage_db, addrid_db, .. } = config;
        let channel = ChannelDb::examine(channel_db, channel_options(config), &mut locks)?;
        let usage = usage_db.as_deref().map(|path| UsageDb::examine(path, &mut locks));
        let usage = usage.transpose()?;
        let addrid = addrid_db.as_deref().map(|path| AddridDb::examine(path, &mut locks));
        Ok(AllExamined { channel, usage, addrid: addrid.transpose()? })
    }
}

/// Checks what can be checked without opening anything for writing.
pub fn check(config: &Config) -> Result<(), String> {
    check_distinct(config)?;
    let Config { channel_db, usage_db, addrid_db, .. } = config;
    let channel = (&**channel_db, channel_options(config));
    db::check_files(channel, usage_db.as_deref(), addrid_db.as_deref())
        .map_err(|error| error.to_string())
}

/// Checks all that a start checks before it changes a file. `locks`: those of the server that this
/// program is to replace.
pub fn check_for_takeover(config: &Config, locks: EarlierLocks) -> Result<(), String> {
    AllExamined::new(config, locks).map(drop).map_err(|error| error.to_string())
}

/// Fails if two options name the same file.
fn check_distinct(config: &Config) -> Result<(), String> {
    let files = config.databases().filter(|(_, path)| *path != Path::new(MEMORY));
    let files: Vec<_> = files.collect();
    for (index, (name, path)) in files.iter().enumerate() {
        if let Some((other, _)) = files[..index].iter().find(|(_, it)| same_file(it, path)) {
            return Err(format!("--{other}-db and --{name}-db both name {}", path.display()));
        }
        if let Some((other, _)) = files.iter().find(|(_, it)| belongs_to(path, it)) {
            let path = path.display();
            return Err(format!(
                "--{name}-db names {path}, which belongs to the file of --{other}-db"
            ));
        }
    }
    Ok(())
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (file_id(a), file_id(b)) {
        (None, None) => identity::is_same_name(a, b),
        (a, b) => a == b,
    }
}

/// Whether a path is that of a log of the database, which is beside the file itself, or of a copy,
/// which is beside a link to it.
fn belongs_to(path: &Path, database: &Path) -> bool {
    let real = fs::canonicalize(database).unwrap_or_else(|_| database.to_owned());
    let names = [database, &real];
    let directory = identity::directory(path);
    names.iter().any(|it| db::is_named_after(path, it) && directory == identity::directory(it))
}

fn file_id(path: &Path) -> Option<FileId> {
    identity::at_path(path).ok().map(|(id, _)| id)
}

fn channel_options(config: &Config) -> ChannelOptions {
    ChannelOptions {
        synchronous: config.synchronous,
        tracks_connections: config.track_connections,
        numbers_addresses: config.addrid_db.is_some(),
    }
}

fn open_records(
    config: &Config,
    channel: &ChannelDb,
    usage: Option<Examined>,
    addrid: Option<Examined>,
    taken_over: &[ConnId],
) -> Result<Records, OpenError> {
    let last = if addrid.is_some() { channel.generation()? } else { None };
    let rows = if config.track_connections { Some(channel.connections()?) } else { None };
    let connections = rows.map(|rows| ConnectionTable::taken_over(rows, taken_over));
    let usage = usage.map(|it| UsageDb::open(it, config.usage_keep)).transpose()?;
    let duration = config.generation_duration;
    let addresses = addrid.map(|it| AddridDb::open(it, last, duration, Clock::read())).transpose();
    match addresses {
        Ok(addresses) => {
            Ok(Records { usage, addresses, connections, openings: channel.openings() })
        }
        Err(error) => {
            _ = usage.map(UsageDb::close); // in the journal mode that it had
            Err(error)
        }
    }
}

/// Loads the state from the channel database.
fn load(
    config: &Config,
    reloadable: &Reloadable,
    db: ChannelDb,
) -> Result<(ChannelDb, Store), Failure> {
    let mut store = Store::new(config.rules.clone(), config.limits.clone());
    store.set_listing(reloadable.list);
    if let Err(error) = store.load(Clock::read().wall, |each| db.load(each)) {
        _ = Box::new(db).close(); // in the journal mode that it had
        return Err(error);
    }
    Ok((db, store))
}
