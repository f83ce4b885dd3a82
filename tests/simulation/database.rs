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

use wormhole_mailbox::message::Message;
use wormhole_mailbox::storage::db::{ConnectionTable, Database, Failure};
use wormhole_mailbox::store::{Change, NameplateId, Row, SideId};
use wormhole_mailbox::sys::clock::{Seconds, Timestamp};

use crate::faults::Fault;
use crate::rows::{Mailbox, Name, Nameplate, Rows, Side, Stored};

#[derive(Clone, Debug)]
struct MailboxRecord {
    app: Name,
    id: Name,
    updated: Seconds,
    for_nameplate: bool,
}

/// A row of either table of sides.
#[derive(Clone, Debug)]
struct SideRecord<Key> {
    id: SideId,
    key: Key,
    side: Side,
}

#[derive(Clone, Debug)]
struct NameplateRecord {
    id: NameplateId,
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
    nameplate_sides: Vec<SideRecord<NameplateId>>,
    last_nameplate: NameplateId,
    /// Mailboxes created in this commit while messages of earlier ones of that name were there.
    mixed: Vec<Name>,
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
    /// Mailboxes that it deleted, in order.
    pub deletions: Vec<Name>,
    /// Mailboxes that it created, those of nameplates aside, in order.
    pub openings: Vec<Name>,
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

    /// Mailboxes that have ended and whose messages are still there.
    pub fn remains(&self) -> Vec<Name> {
        let tables = &self.tables;
        let lives = |id: &Name| tables.mailboxes.iter().any(|it| it.id == *id);
        let remains = tables.messages.iter().filter(|(mailbox, _)| !lives(mailbox));
        remains.map(|(mailbox, _)| mailbox.clone()).collect()
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
            // Those of a mailbox that has ended are deleted bit by bit.
            if let Some(place) = places.get(mailbox) {
                rows.mailboxes[*place].messages.push(message.clone());
            }
        }
        for record in &tables.nameplates {
            let sides = tables.nameplate_sides.iter().filter(|side| side.key == record.id);
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
                (Some(Fault::LosesMessage), Change::Insert(Row::Message { .. })) => {}
                (Some(Fault::ForgetsRemains), Change::DeleteMessages { .. }) => {}
                (Some(Fault::ForgetsDeletion), Change::DeletePhase { .. }) => {}
                (Some(Fault::CloseForgetsNameplate), Change::DeleteNameplate { .. })
                    if deletes_mailbox => {}
                _ => {
                    if let Change::Insert(Row::Nameplate { app, name, mailbox, .. }) = change {
                        self.creations.push(Creation {
                            app: app.clone(),
                            name: name.clone(),
                            mailbox: mailbox.clone(),
                        });
                    }
                    if let Change::DeleteMailbox { mailbox, .. } = change {
                        self.deletions.push(mailbox.clone());
                    }
                    if let Change::Insert(Row::Mailbox { mailbox, for_nameplate: false, .. }) =
                        change
                    {
                        self.openings.push(mailbox.clone());
                    }
                    let claims_crowded = self.fault == Some(Fault::CrowdedSideClaims);
                    if let Err(problem) = self.tables.apply(change, claims_crowded) {
                        self.violations.push(format!("{problem} by {change:?}"));
                    }
                }
            }
        }
        if let Some(mailbox) = self.tables.mixed.pop() {
            self.violations.push(format!("{mailbox} has messages of an earlier one"));
        }
        Ok(())
    }
}

impl Tables {
    fn apply(&mut self, change: &Change, claims_crowded: bool) -> Result<(), &'static str> {
        match change {
            Change::Insert(row) => self.insert(row, claims_crowded)?,
            Change::ShiftTimes { seconds } => {
                self.mailboxes.iter_mut().for_each(|it| it.updated += seconds);
                self.mailbox_sides.iter_mut().for_each(|it| it.side.added += seconds);
                self.nameplate_sides.iter_mut().for_each(|it| it.side.added += seconds);
            }
            Change::TouchMailbox { mailbox, updated } => {
                let found = self.mailboxes.iter_mut().find(|it| it.id == *mailbox);
                found.ok_or("no such mailbox")?.updated = updated.0;
            }
            Change::DeleteMailbox { app, mailbox, sides, with_messages, .. } => {
                let sides_before = self.mailbox_sides.len();
                self.messages.retain(|(of, _)| !*with_messages || of != mailbox);
                self.mixed.retain(|mixed| mixed != mailbox);
                self.mailbox_sides.retain(|it| !(sides.contains(&it.id) && it.key == *mailbox));
                let deleted = sides_before - self.mailbox_sides.len();
                ensure(deleted == sides.len(), "sides are not where they were put")?;
                let referred = self.mailbox_sides.iter().any(|it| it.key == *mailbox)
                    || self.nameplates.iter().any(|it| it.mailbox == *mailbox);
                ensure(!referred, "mailbox is referred to")?;
                let is_it = |it: &MailboxRecord| it.id == *mailbox && it.app == *app;
                ensure(self.mailboxes.iter().any(is_it), "no such mailbox")?;
                self.mailboxes.retain(|it| !is_it(it));
            }
            Change::DeleteMessages { mailbox, count, .. } => {
                for _ in 0..*count {
                    let last = self.messages.iter().rposition(|(of, _)| of == mailbox);
                    self.messages.remove(last.ok_or("no such message")?);
                }
                if self.messages.iter().all(|(of, _)| of != mailbox) {
                    self.mixed.retain(|mixed| mixed != mailbox);
                }
            }
            Change::DeletePhase { mailbox, side, phase, .. } => {
                let before = self.messages.len();
                self.messages
                    .retain(|(of, it)| of != mailbox || *it.side != **side || *it.phase != **phase);
                ensure(self.messages.len() < before, "no such message")?;
            }
            Change::CloseMailboxSide { id, mailbox, side, mood } => {
                let found = find_side(&mut self.mailbox_sides, *id, mailbox, side)?;
                found.holds = false;
                found.mood.clone_from(mood);
            }
            Change::DeleteNameplate { id, sides } => {
                let before = self.nameplate_sides.len();
                self.nameplate_sides.retain(|it| it.key != *id);
                let deleted = before - self.nameplate_sides.len();
                ensure(deleted == sides.len(), "sides are not where they were put")?;
                ensure(self.nameplates.iter().any(|it| it.id == *id), "no such nameplate")?;
                self.nameplates.retain(|it| it.id != *id);
            }
            Change::ReleaseNameplateSide { id, nameplate, side } => {
                find_side(&mut self.nameplate_sides, *id, nameplate, side)?.holds = false;
            }
        }
        Ok(())
    }

    fn insert(&mut self, row: &Row, claims_crowded: bool) -> Result<(), &'static str> {
        match row {
            Row::Mailbox { app, mailbox, updated, for_nameplate } => {
                let is_new = |known: &MailboxRecord| known.id != *mailbox;
                ensure(self.mailboxes.iter().all(is_new), "mailbox is there already")?;
                if self.messages.iter().any(|(of, _)| of == mailbox) {
                    self.mixed.push(mailbox.clone());
                }
                self.mailboxes.push(MailboxRecord {
                    app: app.clone(),
                    id: mailbox.clone(),
                    updated: updated.0,
                    for_nameplate: *for_nameplate,
                });
            }
            Row::MailboxSide { id, mailbox, opened, side, added, mood } => {
                ensure(self.mailboxes.iter().any(|it| it.id == *mailbox), "no such mailbox")?;
                ensure(mood.is_none(), "a new side has a mood")?;
                add_side(&mut self.mailbox_sides, *id, mailbox.clone(), side, added.0, *opened)?;
            }
            Row::Message { app, mailbox, message } => {
                let is_it = |it: &MailboxRecord| it.id == *mailbox && it.app == *app;
                ensure(self.mailboxes.iter().any(is_it), "no such mailbox")?;
                let stored = Stored {
                    side: message.side.clone(),
                    phase: (*message.phase()).into(),
                    body: (*message.body()).into(),
                    server_rx: message.server_rx.0,
                    id: message.id().as_deref().map(Rc::from),
                };
                self.messages.push((mailbox.clone(), stored));
            }
            Row::Nameplate { id, app, name, mailbox } => {
                ensure(*id > self.last_nameplate, "nameplate's id was given out before")?;
                let is_other = |it: &NameplateRecord| it.app != *app || it.name != *name;
                ensure(self.nameplates.iter().all(is_other), "nameplate is there already")?;
                ensure(self.mailboxes.iter().any(|it| it.id == *mailbox), "no such mailbox")?;
                self.last_nameplate = *id;
                self.nameplates.push(NameplateRecord {
                    id: *id,
                    app: app.clone(),
                    name: name.clone(),
                    mailbox: mailbox.clone(),
                });
            }
            Row::NameplateSide { id, nameplate, claimed, side, added } => {
                ensure(self.nameplates.iter().any(|it| it.id == *nameplate), "no such nameplate")?;
                let claimed = *claimed || claims_crowded;
                add_side(&mut self.nameplate_sides, *id, *nameplate, side, added.0, claimed)?;
            }
        }
        Ok(())
    }

    fn load(&self, each: &mut dyn FnMut(Row)) -> NameplateId {
        let app_of = |id: &Name| {
            let mailbox = self.mailboxes.iter().find(|mailbox| mailbox.id == *id);
            mailbox.map_or("".into(), |mailbox| mailbox.app.clone())
        };
        self.mailboxes.iter().for_each(|it| {
            each(Row::Mailbox {
                app: it.app.clone(),
                mailbox: it.id.clone(),
                updated: Timestamp(it.updated),
                for_nameplate: it.for_nameplate,
            });
        });
        self.mailbox_sides.iter().for_each(|it| {
            each(Row::MailboxSide {
                id: it.id,
                mailbox: it.key.clone(),
                opened: it.side.holds,
                side: it.side.side.clone(),
                added: Timestamp(it.side.added),
                mood: it.side.mood.clone(),
            });
        });
        self.messages.iter().for_each(|(mailbox, it)| {
            let server_rx = Timestamp(it.server_rx);
            let message =
                Message::new(it.side.clone(), &it.phase, &it.body, server_rx, it.id.as_deref());
            let (app, mailbox) = (app_of(mailbox), mailbox.clone());
            each(Row::Message { app, mailbox, message: Rc::new(message) });
        });
        self.nameplates.iter().for_each(|it| {
            each(Row::Nameplate {
                id: it.id,
                app: it.app.clone(),
                name: it.name.clone(),
                mailbox: it.mailbox.clone(),
            });
        });
        self.nameplate_sides.iter().for_each(|it| {
            each(Row::NameplateSide {
                id: it.id,
                nameplate: it.key,
                claimed: it.side.holds,
                side: it.side.side.clone(),
                added: Timestamp(it.side.added),
            });
        });
        self.last_nameplate
    }
}

fn ensure(holds: bool, problem: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(problem) }
}

fn add_side<Key>(
    table: &mut Vec<SideRecord<Key>>,
    id: SideId,
    key: Key,
    side: &Name,
    added: Seconds,
    holds: bool,
) -> Result<(), &'static str> {
    ensure(table.iter().all(|known| known.id < id), "row is taken")?;
    let side = Side { side: side.clone(), added, holds, mood: None };
    table.push(SideRecord { id, key, side });
    Ok(())
}

fn find_side<'a, Key: PartialEq>(
    table: &'a mut [SideRecord<Key>],
    id: SideId,
    key: &Key,
    side: &Name,
) -> Result<&'a mut Side, &'static str> {
    let found = table.iter_mut().find(|it| it.id == id && it.key == *key && it.side.side == *side);
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

    fn load(&self, each: &mut dyn FnMut(Row)) -> Result<NameplateId, Failure> {
        let disk = self.0.borrow();
        if disk.unreadable { Err("cannot read".into()) } else { Ok(disk.tables.load(each)) }
    }

    fn set_generation(&mut self, _generation: u64, _started: Timestamp) -> Result<(), Failure> {
        self.try_write()
    }

    fn shrink_log(&mut self) {}

    fn release_memory(&mut self) {}

    fn wal_pages(&self) -> u32 {
        0
    }

    fn check(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<bool, Failure> {
        Ok(true)
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(())
    }
}
