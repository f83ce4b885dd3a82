//! The model's time: expiry (manual: rules 5), storage failure and recovery (manual: durability 3),
//! and what a tick leaves behind.

use std::time::{Duration, Instant};

use wormhole_mailbox::message::ConnId;
use wormhole_mailbox::sys::clock::{Clock, Seconds};

use crate::commands::{CLOSED_1013, Reply};
use crate::database::Disk;
use crate::faults::Fault;
use crate::joins::Joins;
use crate::model::Model;
use crate::rows::{Mailbox, Name, Rows};
use crate::sessions::Opened;

/// Seconds by which the wall clock may be off before what is stored gets new times.
const STEP: Seconds = 30.0;

/// How often a failed storage is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The clocks, and what is due when.
#[derive(Clone, Debug)]
pub struct Times {
    pub instant: Instant,
    /// The wall clock.
    pub wall: Seconds,
    /// Time for the rules: it goes on from `origin` when the wall clock is set.
    pub steady: Seconds,
    /// Both clocks at the start, or when the wall clock was last set.
    pub origin: Clock,
    pub next_check: Instant,
    pub retry_at: Option<Instant>,
}

/// An expiry check in progress: the server may spread it over several ticks.
#[derive(Clone, Debug)]
pub struct Check {
    began: Seconds,
    /// Mailboxes not yet known to be done with, and whether the server need not touch them any
    /// more: who subscribes while the check is in progress may be seen by it or not, and who is
    /// active in the very tick in which it may have come by cannot be told from one it has seen.
    left: Vec<(Name, bool)>,
}

impl Model {
    /// A tick begins. `has_failed`: the server wanted to write new times, and could not.
    pub fn begin_tick(&mut self, clock: Clock, disk: &Disk, has_failed: bool) {
        let origin = self.times.origin;
        (self.times.instant, self.times.wall) = (clock.instant, clock.wall.0);
        self.times.steady = origin.wall.0 + (clock.instant - origin.instant).as_secs_f64();
        let step = clock.wall.0 - self.times.steady;
        match step.abs() > STEP && !self.is_degraded {
            true if has_failed => self.lose_storage(disk),
            true => {
                self.shift_times(step);
                (self.times.origin, self.times.steady) = (clock, clock.wall.0);
            }
            false => {}
        }
        self.expected.clear();
        self.replayed.clear();
        self.shares.begin_tick();
    }

    fn shift_times(&mut self, step: Seconds) {
        for mailbox in &mut self.rows.mailboxes {
            mailbox.updated += step;
            mailbox.sides.iter_mut().for_each(|side| side.added += step);
        }
        for (earliest, latest) in self.activity.values_mut() {
            *earliest += step;
            *latest += step;
        }
        for nameplate in &mut self.rows.nameplates {
            nameplate.sides.iter_mut().for_each(|side| side.added += step);
        }
        self.cooling.iter_mut().for_each(|(_, _, since)| *since += step);
        if let Some(check) = &mut self.check {
            check.began += step;
        }
    }

    /// What is due after the tick's commands. `found` is what the database holds after the tick;
    /// while `is_checking`, it tells how far the server's expiry check has come.
    pub fn run_timers(&mut self, disk: &Disk, found: &Rows, is_checking: bool) {
        self.run_deadlines(disk);
        let Some(mut check) = self.check.take() else { return };
        check.left.retain_mut(|(id, is_free)| {
            !self.check_mailbox(id, is_free, check.began, found, is_checking)
        });
        self.check = is_checking.then_some(check);
    }

    fn run_deadlines(&mut self, disk: &Disk) {
        let now = self.times.instant;
        if self.times.retry_at.is_some_and(|retry_at| retry_at <= now) {
            let works = !disk.broken && !disk.unreadable;
            self.times.retry_at = (!works).then_some(now + RETRY);
            // What it had read before is dropped before the file is read again.
            self.is_blind = !works && (self.is_blind || !disk.broken);
            self.is_degraded = !works;
            if works {
                self.load_shares();
                self.times.next_check = now;
            }
        }
        if now >= self.times.next_check {
            self.times.next_check = now + Duration::from_secs_f64(self.settings.expire_check);
            if self.is_degraded {
                self.note_subscribers();
            } else {
                let began = self.now();
                let left = self.rows.mailboxes.iter();
                let left = left.map(|it| (it.id.clone(), !self.is_subscribed(&it.id)));
                self.check = Some(Check { began, left: left.collect() });
            }
        }
    }

    /// Without storage there is no check, but subscribers count as activity. A server that cannot
    /// read its files knows of none.
    fn note_subscribers(&mut self) {
        let now = self.now();
        let mut activity = std::mem::take(&mut self.activity);
        for (id, times) in &mut activity {
            if !self.is_blind && self.is_subscribed(id) {
                *times = (now, now);
            }
        }
        self.activity = activity;
    }

    /// Looks at one mailbox; tells whether that is done. While the server `is_checking`, only if
    /// it has.
    fn check_mailbox(
        &mut self,
        id: &Name,
        is_free: &mut bool,
        began: Seconds,
        found: &Rows,
        is_checking: bool,
    ) -> bool {
        let mut old = began - self.settings.expire_after;
        if self.fault == Some(Fault::ExpiresEarly) {
            old += 0.125;
        }
        let lives_at_boundary = self.fault == Some(Fault::ExpiresLate);
        let is_subscribed = self.is_subscribed(id);
        let is_idle = |active: Seconds| active < old || active == old && !lives_at_boundary;
        let Some((earliest, latest)) = self.activity.get(id).copied() else { return true };
        let there = found.mailboxes.iter().find(|it| it.id == *id);
        if is_subscribed {
            return self.check_subscribed(id, is_free, there, is_checking);
        }
        if !is_idle(earliest) || !is_idle(latest) && there.is_some() {
            return false;
        }
        if is_checking && there.is_some() {
            return false;
        }
        self.prune_mailbox(id, began);
        true
    }

    /// The same of a mailbox that has subscribers.
    fn check_subscribed(
        &mut self,
        id: &Name,
        is_free: &mut bool,
        there: Option<&Mailbox>,
        is_checking: bool,
    ) -> bool {
        let (now, lag) = (self.now(), self.activity_lag());
        let Some(mailbox) = self.mailbox(id) else { return true };
        let would_write = now - mailbox.updated > lag || now < mailbox.updated;
        let is_written = would_write && there.is_some_and(|it| it.updated == now);
        if is_written || !is_checking && !*is_free {
            self.touch(id);
            return true;
        }
        // The server may touch it in this tick, or may have, and nothing shows it.
        if !would_write {
            *is_free |= is_checking;
            if let Some((_, latest)) = self.activity.get_mut(id) {
                *latest = now;
            }
        }
        !is_checking
    }

    pub fn is_subscribed(&self, id: &Name) -> bool {
        self.clients
            .iter()
            .any(|client| client.opened == Opened::Yes && client.mailbox.as_ref() == Some(id))
    }

    /// The tick's commit failed: nothing has happened but that time passed and those `affected`
    /// are being closed.
    pub fn fail(&mut self, disk: &Disk, affected: &[ConnId]) {
        self.run_deadlines(disk);
        for conn in affected {
            self.disconnect(*conn);
            self.tell(*conn, Reply::Bytes(CLOSED_1013));
        }
        self.lose_storage(disk);
    }

    /// Connections that were refused a `release` or `close` are closed once the storage works.
    pub fn close_refused_farewells(&mut self) -> Vec<(ConnId, Reply)> {
        let waiting = self.clients.iter_mut().filter(|client| client.is_refused_farewell);
        waiting
            .map(|client| {
                client.is_refused_farewell = false;
                (client.conn, Reply::Bytes(CLOSED_1013))
            })
            .collect()
    }

    /// Whether a connection was refused one, or may have been in the tick that ends the failure.
    pub fn may_be_refused_farewell(&self, conn: ConnId) -> bool {
        self.is_degraded || self.client(conn).is_some_and(|client| client.is_refused_farewell)
    }

    fn lose_storage(&mut self, disk: &Disk) {
        self.check = None;
        self.cooling.clear();
        self.is_degraded = true;
        self.is_blind = disk.unreadable;
        self.times.retry_at = Some(self.times.instant + RETRY);
        self.load_shares();
        self.keep_activity();
    }

    /// The tick is over.
    pub fn end_tick(&mut self) {
        let nameplates = &self.rows.nameplates;
        let lives = |app: &Name, name: &Name| {
            nameplates.iter().any(|nameplate| nameplate.app == *app && nameplate.name == *name)
        };
        // A nameplate may have ended and been created again within the tick: the last one counts.
        let creators = std::mem::take(&mut self.creators);
        for (place, creator) in creators.iter().enumerate() {
            let (app, name, _) = creator;
            let is_last = !creators[place + 1..].iter().any(|(a, n, _)| a == app && n == name);
            if is_last && lives(app, name) {
                self.creators.push(creator.clone());
            }
        }
        if !self.creations.is_empty() {
            self.complaints.push(format!("created without a cause: {:?}", self.creations));
        }
        self.creations.clear();
    }

    /// The process is gone, with all connections and what it knew of addresses.
    pub fn lose_connections(&mut self) {
        self.clients.clear();
        self.creators.clear();
        self.joins = Joins::default();
    }

    /// A new process starts on the same rows.
    pub fn restart(&mut self, disk: &Disk) {
        self.cooling.clear();
        self.expected.clear();
        self.times.retry_at = None;
        (self.is_degraded, self.is_blind) = (false, false);
        self.times.next_check = self.times.instant;
        self.load_shares();
        self.load_activity();
        if !disk.broken {
            self.run_timers(disk, &Rows::default(), false);
            return;
        }
        let (rows, usage_count) = (self.rows.clone(), self.usage.len());
        self.run_timers(disk, &Rows::default(), false);
        if self.rows != rows || !disk.remains().is_empty() {
            self.rows = rows;
            self.cooling.clear();
            self.usage.truncate(usage_count);
            self.load_activity();
            self.is_degraded = true;
            self.times.retry_at = Some(self.times.instant + RETRY);
        }
    }
}
