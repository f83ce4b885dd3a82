//! A channel database in memory: tables with row numbers, changed as the real one changes its own.
//!
//! Faults it can have, and why the server must survive them: writes that fail for a while (a full
//! disk), one commit that fails half-way (rolled back, so nothing of it is there), reads that fail
//! (an I/O error while recovering). What was committed is never lost: that is the disk's promise.
//! Beyond the real one it checks what SQLite's constraints would, and that each change finds its
//! row by number; a miss goes down as a violation.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use wormhole_mailbox::storage::db::{ConnectionTable, Database, Failure};
use wormhole_mailbox::store::{
    Change, MailboxRow, MailboxSideRow, MessageRow, NameplateRow, NameplateSideRow, RowId, Snapshot,
};
use wormhole_mailbox::sys::clock::{Seconds, Timestamp};

use crate::faults::Fault;
use crate::rows::{Mailbox, Name, Nameplate, Rows, Side, Stored};

#[derive(Clone, Debug)]
struct MailboxRecord {
    row: RowId,
    app: Name,
    id: Name,
    updated: Seconds,
    for_nameplate: bool,
}

/// A row of either table of sides.
#[derive(Clone, Debug)]
struct SideRecord<Key> {
    row: RowId,
    key: Key,
    side: Side,
}

#[derive(Clone, Debug)]
struct NameplateRecord {
    row: RowId,
    app: Name,
    name: Name,
    mailbox: Name,
}

/// The tables, each in rowid order.
#[derive(Clone, Debug, Default)]
struct Tables {
    mailboxes: Vec<MailboxRecord>,
    mailbox_sides: Vec<SideRecord<Name>>,
    messages: Vec<(Name, Stored)>,
    nameplates: Vec<NameplateRecord>,
    nameplate_sides: Vec<SideRecord<RowId>>,
    nameplate_row_max: RowId,
}

/// A nameplate that a commit created.
#[derive(Clone, Debug)]
pub struct Creation {
    pub app: Name,
    pub name: Name,
    pub mailbox: Name,
}

/// What survives a crash, and the faults to come.
#[derive(Debug, Default)]
pub struct Disk {
    tables: Tables,
    /// Nothing can be written.
    pub broken: bool,
    /// The next commit fails.
    pub fail_once: bool,
    /// Nothing can be read.
    pub unreadable: bool,
    pub commits_count: usize,
    pub failures_count: usize,
    /// What the last commit created, in order.
    pub creations: Vec<Creation>,
    /// What SQLite would not have taken.
    pub violations: Vec<String>,
    pub fault: Option<Fault>,
    /// Before the last commit; kept only for a fault.
    previous: Tables,
}

impl Disk {
    pub fn new(fault: Option<Fault>) -> Disk {
        Disk { fault, ..Disk::default() }
    }

    /// A planted fault: what a disk never does.
    pub fn lose_last_commit(&mut self) {
        self.tables = self.previous.clone();
    }

    /// What is stored, to be compared.
    pub fn rows(&self) -> Rows {
        let tables = &self.tables;
        let mut rows = Rows::default();
        let mut places = HashMap::new();
        for record in &tables.mailboxes {
            places.insert(record.id.clone(), rows.mailboxes.len());
            rows.mailboxes.push(Mailbox {
                app: record.app.clone(),
                id: record.id.clone(),
                for_nameplate: record.for_nameplate,
                updated: record.updated,
                sides: Vec::new(),
                messages: Vec::new(),
            });
        }
        // Rows that point to nothing panic here: foreign keys are part of the promise.
        for record in &tables.mailbox_sides {
            rows.mailboxes[places[&record.key]].sides.push(record.side.clone());
        }
        for (mailbox, message) in &tables.messages {
            rows.mailboxes[places[mailbox]].messages.push(message.clone());
        }
        for record in &tables.nameplates {
            let sides = tables.nameplate_sides.iter().filter(|side| side.key == record.row);
            rows.nameplates.push(Nameplate {
                app: record.app.clone(),
                name: record.name.clone(),
                mailbox: record.mailbox.clone(),
                sides: sides.map(|side| side.side.clone()).collect(),
            });
        }
        rows
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), Failure> {
        if self.broken || std::mem::take(&mut self.fail_once) {
            self.failures_count += 1;
            return Err("disk is full".into());
        }
        self.commits_count += 1;
        if self.fault == Some(Fault::CrashLosesCommit) {
            self.previous = self.tables.clone();
        }
        let deletes_mailbox =
            changes.iter().any(|change| matches!(change, Change::DeleteMailbox { .. }));
        for change in changes {
            match (self.fault, change) {
                (Some(Fault::LosesMessage), Change::AddMessage { .. }) => {}
                (Some(Fault::CloseForgetsNameplate), Change::DeleteNameplate { .. })
                    if deletes_mailbox => {}
                _ => {
                    if let Change::CreateNameplate { app, name, mailbox, .. } = change {
                        self.creations.push(Creation {
                            app: app.clone(),
                            name: name.clone(),
                            mailbox: mailbox.clone(),
                        });
                    }
                    let claims_crowded = self.fault == Some(Fault::CrowdedSideClaims);
                    if let Err(problem) = self.tables.apply(change, claims_crowded) {
                        self.violations.push(format!("{problem} by {change:?}"));
                    }
                }
            }
        }
        Ok(())
    }
}

impl Tables {
    fn apply(&mut self, change: &Change, claims_crowded: bool) -> Result<(), &'static str> {
        match change {
            Change::CreateMailbox { row, app, mailbox, updated, for_nameplate } => {
                let is_new = |known: &MailboxRecord| known.row < *row && known.id != *mailbox;
                ensure(self.mailboxes.iter().all(is_new), "mailbox is there already")?;
                self.mailboxes.push(MailboxRecord {
                    row: *row,
                    app: app.clone(),
                    id: mailbox.clone(),
                    updated: updated.0,
                    for_nameplate: *for_nameplate,
                });
            }
            Change::TouchMailbox { row, mailbox, updated } => {
                let found =
                    self.mailboxes.iter_mut().find(|it| it.row == *row && it.id == *mailbox);
                found.ok_or("no such mailbox")?.updated = updated.0;
            }
            Change::DeleteMailbox { row, app, mailbox, sides, messages } => {
                let (sides_before, messages_before) =
                    (self.mailbox_sides.len(), self.messages.len());
                self.messages.retain(|(of, _)| !*messages || of != mailbox);
                ensure(
                    *messages == (self.messages.len() < messages_before),
                    "messages are not as told",
                )?;
                self.mailbox_sides.retain(|it| !(sides.contains(&it.row) && it.key == *mailbox));
                let deleted = sides_before - self.mailbox_sides.len();
                ensure(deleted == sides.len(), "sides are not where they were put")?;
                let referred = self.mailbox_sides.iter().any(|it| it.key == *mailbox)
                    || self.messages.iter().any(|(of, _)| of == mailbox)
                    || self.nameplates.iter().any(|it| it.mailbox == *mailbox);
                ensure(!referred, "mailbox is referred to")?;
                let is_it =
                    |it: &MailboxRecord| it.row == *row && it.id == *mailbox && it.app == *app;
                ensure(self.mailboxes.iter().any(is_it), "no such mailbox")?;
                self.mailboxes.retain(|it| !is_it(it));
            }
            Change::AddMailboxSide { row, mailbox, opened, side, added } => {
                ensure(self.mailboxes.iter().any(|it| it.id == *mailbox), "no such mailbox")?;
                add_side(&mut self.mailbox_sides, *row, mailbox.clone(), side, added.0, *opened)?;
            }
            Change::CloseMailboxSide { row, mailbox, side, mood } => {
                let found = find_side(&mut self.mailbox_sides, *row, mailbox, side)?;
                found.holds = false;
                found.mood.clone_from(mood);
            }
            Change::AddMessage { app, mailbox, message } => {
                let is_it = |it: &MailboxRecord| it.id == *mailbox && it.app == *app;
                ensure(self.mailboxes.iter().any(is_it), "no such mailbox")?;
                let stored = Stored {
                    side: message.side.clone(),
                    phase: (*message.phase).into(),
                    body: (*message.body).into(),
                    server_rx: message.server_rx.0,
                    id: message.id.as_deref().map(Rc::from),
                };
                self.messages.push((mailbox.clone(), stored));
            }
            Change::CreateNameplate { row, app, name, mailbox } => {
                ensure(*row > self.nameplate_row_max, "nameplate's id was given out before")?;
                let is_other = |it: &NameplateRecord| it.app != *app || it.name != *name;
                ensure(self.nameplates.iter().all(is_other), "nameplate is there already")?;
                ensure(self.mailboxes.iter().any(|it| it.id == *mailbox), "no such mailbox")?;
                self.nameplate_row_max = *row;
                self.nameplates.push(NameplateRecord {
                    row: *row,
                    app: app.clone(),
                    name: name.clone(),
                    mailbox: mailbox.clone(),
                });
            }
            Change::DeleteNameplate { row, sides } => {
                let before = self.nameplate_sides.len();
                self.nameplate_sides.retain(|it| it.key != *row);
                let deleted = before - self.nameplate_sides.len();
                ensure(deleted == sides.len(), "sides are not where they were put")?;
                ensure(self.nameplates.iter().any(|it| it.row == *row), "no such nameplate")?;
                self.nameplates.retain(|it| it.row != *row);
            }
            Change::AddNameplateSide { row, nameplate, claimed, side, added } => {
                ensure(self.nameplates.iter().any(|it| it.row == *nameplate), "no such nameplate")?;
                let claimed = *claimed || claims_crowded;
                add_side(&mut self.nameplate_sides, *row, *nameplate, side, added.0, claimed)?;
            }
            Change::ReleaseNameplateSide { row, nameplate, side } => {
                find_side(&mut self.nameplate_sides, *row, nameplate, side)?.holds = false;
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            mailboxes: collect(&self.mailboxes, |it| MailboxRow {
                row: it.row,
                app: it.app.to_string(),
                mailbox: it.id.to_string(),
                updated: Timestamp(it.updated),
                for_nameplate: it.for_nameplate,
            }),
            mailbox_sides: collect(&self.mailbox_sides, |it| MailboxSideRow {
                row: it.row,
                mailbox: it.key.to_string(),
                opened: it.side.holds,
                side: it.side.side.to_string(),
                added: Timestamp(it.side.added),
                mood: it.side.mood.as_deref().map(str::to_owned),
            }),
            messages: collect(&self.messages, |(mailbox, message)| MessageRow {
                mailbox: mailbox.to_string(),
                side: message.side.to_string(),
                phase: message.phase.to_string(),
                body: message.body.to_string(),
                server_rx: Timestamp(message.server_rx),
                id: message.id.as_deref().map(str::to_owned),
            }),
            nameplates: collect(&self.nameplates, |it| NameplateRow {
                row: it.row,
                app: it.app.to_string(),
                name: it.name.to_string(),
                mailbox: it.mailbox.to_string(),
            }),
            nameplate_sides: collect(&self.nameplate_sides, |it| NameplateSideRow {
                row: it.row,
                nameplate: it.key,
                claimed: it.side.holds,
                side: it.side.side.to_string(),
                added: Timestamp(it.side.added),
            }),
            nameplate_row_max: self.nameplate_row_max,
        }
    }
}

fn collect<T, U>(records: &[T], row: impl Fn(&T) -> U) -> Vec<U> {
    records.iter().map(row).collect()
}

fn ensure(holds: bool, problem: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(problem) }
}

fn add_side<Key>(
    table: &mut Vec<SideRecord<Key>>,
    row: RowId,
    key: Key,
    side: &Name,
    added: Seconds,
    holds: bool,
) -> Result<(), &'static str> {
    ensure(table.iter().all(|known| known.row < row), "row is taken")?;
    let side = Side { side: side.clone(), added, holds, mood: None };
    table.push(SideRecord { row, key, side });
    Ok(())
}

fn find_side<'a, Key: PartialEq>(
    table: &'a mut [SideRecord<Key>],
    row: RowId,
    key: &Key,
    side: &Name,
) -> Result<&'a mut Side, &'static str> {
    let found =
        table.iter_mut().find(|it| it.row == row && it.key == *key && it.side.side == *side);
    found.map(|it| &mut it.side).ok_or("no such side")
}

/// The engine's handle on the disk.
#[derive(Debug)]
pub struct SimulatedDatabase(pub Rc<RefCell<Disk>>);

impl Database for SimulatedDatabase {
    fn commit(&mut self, changes: &[Change]) -> Result<(), Failure> {
        self.0.borrow_mut().commit(changes)
    }

    fn write_connections(&mut self, _connections: &ConnectionTable) -> Result<(), Failure> {
        self.try_write()
    }

    fn try_write(&mut self) -> Result<(), Failure> {
        if self.0.borrow().broken { Err("disk is full".into()) } else { Ok(()) }
    }

    fn load(&self) -> Result<Snapshot, Failure> {
        let disk = self.0.borrow();
        if disk.unreadable { Err("cannot read".into()) } else { Ok(disk.tables.snapshot()) }
    }

    fn set_generation(&mut self, _generation: u64, _started: Timestamp) -> Result<(), Failure> {
        self.try_write()
    }

    fn release_memory(&mut self) {}

    fn wal_pages(&self) -> u32 {
        0
    }

    fn checkpoint(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(())
    }
}
