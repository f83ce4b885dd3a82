//! The server as the manual describes it, without any cleverness: vectors, linear scans.
//!
//! `Model` is told what happens and says what must come of it. This file holds the rules of
//! nameplates, mailboxes and sides (manual: rules 1); `sessions` those of a connection
//! (manual: protocol 3.2), `moments` those of time and of failure.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use wormhole_mailbox::message::{ConnId, Outcome};
use wormhole_mailbox::store::{UsageKind, UsageRecord};
use wormhole_mailbox::sys::clock::{Seconds, Timestamp};

use crate::commands::Reply;
use crate::database::Creation;
use crate::faults::Fault;
use crate::joins::Joins;
use crate::moments::{Check, Times};
use crate::rows::{Mailbox, Name, Nameplate, Rows, Side, Stored};
use crate::sessions::{Client, Opened};
use crate::shares::{self, By, Shares, message_bytes};
use crate::workload::Settings;

/// What a refused command is told.
pub type Refused = Name;

const CROWDED: &str = "crowded";

/// Everything the server knows.
#[derive(Clone, Debug)]
pub struct Model {
    pub settings: Settings,
    pub fault: Option<Fault>,
    pub times: Times,
    pub rows: Rows,
    pub clients: Vec<Client>,
    /// The last activity of each mailbox, not earlier and not later than these: what an expiry
    /// check in progress touches without a write cannot be seen.
    pub activity: HashMap<Name, (Seconds, Seconds)>,
    /// Which peer address created which nameplate.
    pub creators: Vec<(Name, Name, Option<u8>)>,
    /// App and name of nameplates that have ended, and when.
    pub cooling: Vec<(Name, Name, Seconds)>,
    pub usage: Vec<UsageRecord>,
    /// An expiry check in progress.
    pub check: Option<Check>,
    pub is_degraded: bool,
    /// Degraded, and the database could not be read either.
    pub is_blind: bool,
    /// What connections must get in this tick, in the order of its causes.
    pub expected: Vec<(ConnId, Reply)>,
    /// The nameplates that this tick's commit created: where chance decides, the model asks here
    /// and checks that it is allowed.
    pub creations: VecDeque<Creation>,
    /// Mailboxes replayed in this tick: such a replay keeps its messages in memory until it is
    /// sent, deleted or not; but an eviction frees them. Each with its place in `expected`.
    pub replayed: Vec<(Name, Range<usize>)>,
    pub shares: Shares,
    pub joins: Joins,
    /// What the server did that the manual does not allow.
    pub complaints: Vec<String>,
}

impl Model {
    pub fn new(settings: Settings, fault: Option<Fault>, times: Times) -> Model {
        Model {
            settings,
            fault,
            times,
            rows: Rows::default(),
            clients: Vec::new(),
            activity: HashMap::new(),
            creators: Vec::new(),
            cooling: Vec::new(),
            usage: Vec::new(),
            check: None,
            is_degraded: false,
            is_blind: false,
            expected: Vec::new(),
            creations: VecDeque::new(),
            replayed: Vec::new(),
            shares: Shares::default(),
            joins: Joins::default(),
            complaints: Vec::new(),
        }
    }

    pub fn now(&self) -> Seconds {
        self.times.steady
    }

    pub fn mailbox(&mut self, id: &str) -> Option<&mut Mailbox> {
        self.rows.mailboxes.iter_mut().find(|mailbox| *mailbox.id == *id)
    }

    pub fn nameplate(&mut self, app: &str, name: &str) -> Option<&mut Nameplate> {
        self.rows.nameplates.iter_mut().find(|it| *it.app == *app && *it.name == *name)
    }

    pub fn list(&self, app: &str) -> Vec<Name> {
        let in_app = self.rows.nameplates.iter().filter(|nameplate| *nameplate.app == *app);
        let mut names: Vec<Name> = in_app.map(|nameplate| nameplate.name.clone()).collect();
        names.sort();
        names
    }

    /// Allocates: the number is the server's choice among the free ones of the fewest digits.
    pub fn allocate(&mut self, app: &Name, side: &Name, by: Option<u8>) -> Result<Name, Refused> {
        let mut taken = self.list(app);
        taken.extend(self.cooling_in(app));
        // All numbers that it may be take the same memory.
        self.make_room_for_nameplate(app, "1", side, by)?;
        let name = match self.creations.front() {
            Some(creation) => creation.name.clone(),
            None => return Err("(an allocation that the database has)".into()),
        };
        let is_free = |number: &u64| !taken.iter().any(|name| **name == *number.to_string());
        let digits = (1..=3).find(|digits| digits_range(*digits).any(|number| is_free(&number)));
        let allowed = digits.map_or(1_000..1_000_000, digits_range);
        let number = name.parse().unwrap_or(0);
        if !allowed.contains(&number) || !is_free(&number) || *name != *number.to_string() {
            self.complaints.push(format!("allocated {name} while {taken:?} were taken"));
        }
        self.claim(app, &name, side, by)?;
        Ok(name)
    }

    /// The names that have not cooled down.
    fn cooling_in(&self, app: &Name) -> impl Iterator<Item = Name> {
        let (now, cooldown) = (self.now(), self.settings.nameplate_cooldown);
        let in_app = self.cooling.iter().filter(move |(its_app, _, _)| its_app == app);
        let cooling = in_app.filter(move |(_, _, since)| *since <= now && now - since < cooldown);
        cooling.map(|(_, name, _)| name.clone())
    }

    pub fn claim(
        &mut self,
        app: &Name,
        name: &Name,
        side: &Name,
        by: Option<u8>,
    ) -> Result<Name, Refused> {
        let now = self.now();
        if self.nameplate(app, name).is_none() {
            self.create_nameplate(app, name, side, by)?;
        } else {
            self.make_room_for_side(app, name, side, by)?;
        }
        let third_holds = self.fault == Some(Fault::ThirdSideHolds);
        let Some(nameplate) = self.nameplate(app, name) else { unreachable!("just made sure") };
        let mailbox = nameplate.mailbox.clone();
        let is_admitted = admits(&nameplate.sides, side);
        if is_admitted && nameplate.sides.iter().any(|known| known.side == *side && !known.holds) {
            return Err("reclaimed".into());
        }
        let knows = nameplate.sides.iter().any(|known| known.side == *side);
        if !is_admitted && !knows && nameplate.sides.len() < 3 {
            nameplate.sides.push(new_side(side, now, third_holds));
        }
        let opened = self.open(app, &mailbox, side, by);
        if !is_admitted {
            return Err(CROWDED.into());
        }
        opened?;
        if !knows && let Some(nameplate) = self.nameplate(app, name) {
            nameplate.sides.push(new_side(side, now, true));
            self.shares.charge(&mailbox, by, shares::side_bytes(side));
        }
        Ok(mailbox)
    }

    fn make_room_for_nameplate(
        &mut self,
        app: &Name,
        name: &str,
        side: &Name,
        by: By,
    ) -> Result<(), Refused> {
        const MAILBOX_ID: &str = "aaaaaaaaaaaaa";
        let bytes = shares::nameplate_bytes(app, name)
            + shares::mailbox_bytes(app, MAILBOX_ID)
            + 2 * shares::side_bytes(side);
        self.make_room(by, None, bytes, true)
    }

    /// Room for a side that comes to a nameplate or to its mailbox.
    fn make_room_for_side(
        &mut self,
        app: &Name,
        name: &Name,
        side: &Name,
        by: By,
    ) -> Result<(), Refused> {
        let Some(nameplate) = self.nameplate(app, name) else { return Ok(()) };
        let (id, sides) = (nameplate.mailbox.clone(), nameplate.sides.clone());
        let Some(mailbox) = self.mailbox(&id) else { return Ok(()) };
        if !admits(&sides, side) || !admits(&mailbox.sides, side) {
            return Ok(());
        }
        let is_new = |sides: &[Side]| sides.iter().all(|known| known.side != *side);
        let count = usize::from(is_new(&sides)) + usize::from(is_new(&mailbox.sides));
        match count {
            0 => Ok(()),
            _ => self.make_room(by, Some(&id), count * shares::side_bytes(side), true),
        }
    }

    fn create_nameplate(
        &mut self,
        app: &Name,
        name: &Name,
        side: &Name,
        by: By,
    ) -> Result<(), Refused> {
        self.make_room_for_nameplate(app, name, side, by)?;
        let mailbox = match self.creations.pop_front() {
            Some(creation) if creation.app == *app && creation.name == *name => creation.mailbox,
            other => {
                self.complaints.push(format!("{name} should be created, there is {other:?}"));
                return Err("(a nameplate that the database has)".into());
            }
        };
        let base32 = |byte: u8| matches!(byte, b'a'..=b'z' | b'2'..=b'7');
        // Eight bytes are twelve digits of five bits and one of four.
        let is_id = mailbox.len() == 13
            && mailbox.bytes().all(base32)
            && "acegikmoqsuwy246".contains(&mailbox[12..]);
        if !is_id || self.mailbox(&mailbox).is_some() {
            self.complaints.push(format!("{mailbox} is no new mailbox id"));
        }
        self.create_mailbox(app, &mailbox, true);
        let bytes = shares::mailbox_bytes(app, &mailbox) + shares::nameplate_bytes(app, name);
        self.shares.charge(&mailbox, by, bytes);
        let nameplate =
            Nameplate { app: app.clone(), name: name.clone(), mailbox, sides: Vec::new() };
        self.rows.nameplates.push(nameplate);
        self.creators.push((app.clone(), name.clone(), by));
        Ok(())
    }

    /// Counts as activity. The file's time is written when it is older by more than 30 s, and by
    /// more than a tenth of what a mailbox lives for.
    pub fn touch(&mut self, id: &Name) {
        let (now, lag) = (self.now(), self.activity_lag());
        let Some(mailbox) = self.mailbox(id) else { return };
        if now - mailbox.updated > lag || now < mailbox.updated {
            mailbox.updated = now;
        }
        self.activity.insert(id.clone(), (now, now));
    }

    pub fn activity_lag(&self) -> Seconds {
        let lag: Seconds =
            if self.fault == Some(Fault::WritesActivityLate) { 30.125 } else { 30.0 };
        lag.min(self.settings.expire_after / 10.0)
    }

    /// Memory is filled from the file: the last activity is what that says.
    pub fn load_activity(&mut self) {
        let stored = self.rows.mailboxes.iter();
        self.activity = stored.map(|it| (it.id.clone(), (it.updated, it.updated))).collect();
    }

    /// All last activities are written, of which those in doubt show now.
    pub fn write_activity(&mut self, written: &Rows) {
        for (mailbox, written) in self.rows.mailboxes.iter_mut().zip(&written.mailboxes) {
            let Some((earliest, latest)) = self.activity.get(&mailbox.id) else { continue };
            let possible = (earliest.max(mailbox.updated), latest.max(mailbox.updated));
            mailbox.updated = written.updated.clamp(possible.0, possible.1);
        }
        self.load_activity();
    }

    /// Memory is filled from the file after a failure: the last activities are known still. Where
    /// one was at the very time of the failed tick, the server may know the one before only.
    pub fn keep_activity(&mut self) {
        if self.fault == Some(Fault::FailureAges) {
            return self.load_activity();
        }
        let now = self.now();
        for mailbox in &self.rows.mailboxes {
            if let Some((earliest, latest)) = self.activity.get_mut(&mailbox.id)
                && *latest == now
            {
                *earliest = mailbox.updated.min(*earliest);
            }
        }
    }

    fn create_mailbox(&mut self, app: &Name, id: &Name, for_nameplate: bool) {
        self.rows.mailboxes.push(Mailbox {
            app: app.clone(),
            id: id.clone(),
            for_nameplate,
            updated: self.now(),
            sides: Vec::new(),
            messages: Vec::new(),
        });
        self.touch(id);
    }

    pub fn release(&mut self, app: &Name, name: &Name, side: &Name) {
        let Some(nameplate) = self.nameplate(app, name) else { return };
        let mut has_released = false;
        for known in nameplate.sides.iter_mut().filter(|known| known.side == *side) {
            has_released |= known.holds;
            known.holds = false;
        }
        if has_released && !nameplate.sides.iter().any(|known| known.holds) {
            let sides = std::mem::take(&mut nameplate.sides);
            self.end_nameplate(app, name, self.now());
            self.summarise_nameplate(app, &sides, self.now(), false);
        }
    }

    /// The nameplate is gone, and begins to cool.
    pub fn end_nameplate(&mut self, app: &Name, name: &Name, now: Seconds) {
        self.rows.nameplates.retain(|it| !(it.app == *app && it.name == *name));
        self.cooling.retain(|(its_app, its_name, _)| its_app != app || its_name != name);
        self.cooling.push((app.clone(), name.clone(), now));
    }

    /// Opens for the side, without a subscription.
    pub fn open(&mut self, app: &Name, id: &Name, side: &Name, by: By) -> Result<(), Refused> {
        let now = self.now();
        if self.mailbox(id).is_none() {
            self.create_mailbox(app, id, false);
            self.shares.charge(id, by, shares::mailbox_bytes(app, id));
            if self.shares.openings.front() == Some(id) {
                self.shares.openings.pop_front();
            }
        }
        let third_renews = self.fault == Some(Fault::ThirdSideRenews);
        let Some(mailbox) = self.mailbox(id) else { unreachable!("just made sure") };
        if mailbox.app != *app {
            return Err("mailbox is not available".into());
        }
        let knows = mailbox.sides.iter().any(|known| known.side == *side);
        if !admits(&mailbox.sides, side) {
            if !knows && mailbox.sides.len() < 3 {
                mailbox.sides.push(new_side(side, now, false));
                self.join_crowded(id);
            }
            if third_renews {
                self.touch(id);
            }
            return Err(CROWDED.into());
        }
        if !knows {
            mailbox.sides.push(new_side(side, now, true));
            self.shares.charge(id, by, shares::side_bytes(side));
        }
        self.touch(id);
        Ok(())
    }

    /// Room for a mailbox that is to be created, or for a side that comes to it.
    pub fn make_room_to_open(
        &mut self,
        app: &Name,
        id: &Name,
        side: &Name,
        by: By,
    ) -> Result<(), Refused> {
        let is_opened = self.shares.openings.front() == Some(id);
        let has_remains = self.shares.remains.contains(id);
        let bytes = match self.mailbox(id) {
            // The server may have to delete more of the old one first than it does in one tick.
            None if has_remains && !is_opened => return Err("mailbox is not available".into()),
            None => shares::mailbox_bytes(app, id),
            Some(mailbox) => {
                let knows = mailbox.sides.iter().any(|known| known.side == *side);
                if knows || mailbox.app != *app || !admits(&mailbox.sides, side) {
                    return Ok(());
                }
                0
            }
        };
        self.make_room(by, Some(id), bytes + shares::side_bytes(side), true)
    }

    pub fn add(&mut self, id: &Name, message: Stored, by: By) -> Result<(), Refused> {
        let (messages_max, bytes_max) =
            (self.settings.mailbox_messages_max, self.settings.mailbox_bytes_max);
        let Some(mailbox) = self.mailbox(id) else {
            return Err("must open mailbox before adding".into());
        };
        let bytes = shares::counted_bytes(mailbox.messages.iter().chain([&message]));
        if mailbox.messages.len() >= messages_max || bytes > bytes_max {
            return Err("mailbox is full…".into());
        }
        let bytes = message_bytes(&message);
        self.make_room(by, Some(id), bytes, bytes <= shares::SHORT_MESSAGE_BYTES)?;
        let Some(mailbox) = self.mailbox(id) else { unreachable!("it is spared") };
        mailbox.messages.push(message);
        self.touch(id);
        self.shares.charge(id, by, bytes);
        Ok(())
    }

    pub fn close(&mut self, id: &Name, side: &Name, mood: Option<Name>) {
        let Some(mailbox) = self.mailbox(id) else { return };
        for known in mailbox.sides.iter_mut().filter(|known| known.side == *side) {
            known.holds = false;
            known.mood.clone_from(&mood);
        }
        let is_held = mailbox.sides.iter().any(|known| known.holds);
        self.join_closed(id, mood.as_deref());
        if !is_held {
            for (app, name) in self.nameplates_of(id) {
                self.end_nameplate(&app, &name, self.now());
            }
            self.delete_mailbox(id, self.now(), false);
        }
    }

    /// App and name of the nameplates that point to a mailbox.
    pub fn nameplates_of(&self, id: &Name) -> Vec<(Name, Name)> {
        let names = self.rows.nameplates.iter().filter(|nameplate| nameplate.mailbox == *id);
        names.map(|it| (it.app.clone(), it.name.clone())).collect()
    }

    pub fn delete_mailbox(&mut self, id: &Name, now: Seconds, is_pruned: bool) {
        let Some(place) = self.rows.mailboxes.iter().position(|mailbox| mailbox.id == *id) else {
            return;
        };
        let gone = self.rows.mailboxes.remove(place);
        self.activity.remove(id);
        self.join_ended(id);
        self.shares.forget(id, self.replayed.iter().any(|(replayed, _)| replayed == id));
        if !gone.messages.is_empty() {
            self.shares.remains.push(id.clone());
        }
        self.replayed.retain(|(replayed, _)| replayed != id);
        for client in &mut self.clients {
            if client.opened == Opened::Yes && client.mailbox.as_ref() == Some(id) {
                client.opened = Opened::Gone;
            }
        }
        self.summarise_mailbox(&gone, now, is_pruned);
    }

    /// Deletes a mailbox as expired, with its nameplates.
    pub fn prune_mailbox(&mut self, id: &Name, now: Seconds) {
        for (app, name) in self.nameplates_of(id) {
            let Some(nameplate) = self.nameplate(&app, &name) else { continue };
            let sides = std::mem::take(&mut nameplate.sides);
            self.end_nameplate(&app, &name, now);
            self.summarise_nameplate(&app, &sides, now, true);
        }
        self.delete_mailbox(id, now, true);
    }

    pub fn summarise_nameplate(
        &mut self,
        app: &Name,
        sides: &[Side],
        now: Seconds,
        is_pruned: bool,
    ) {
        let Some((started, waiting_time)) = self.arrivals(sides) else { return };
        self.usage.push(UsageRecord::Ended {
            app: app.clone(),
            kind: UsageKind::Nameplate,
            started: Timestamp(self.blurred(started)),
            waiting_time,
            total_time: now - started,
            result: match sides.len() {
                3.. => Outcome::Crowded,
                _ if is_pruned => Outcome::Pruney,
                2 => Outcome::Happy,
                _ => Outcome::Lonely,
            },
        });
    }

    fn summarise_mailbox(&mut self, gone: &Mailbox, now: Seconds, is_pruned: bool) {
        let Some((started, waiting_time)) = self.arrivals(&gone.sides) else { return };
        let felt = |mood: &str| gone.sides.iter().any(|side| side.mood.as_deref() == Some(mood));
        self.usage.push(UsageRecord::Ended {
            app: gone.app.clone(),
            kind: UsageKind::Mailbox { for_nameplate: gone.for_nameplate },
            started: Timestamp(self.blurred(started)),
            waiting_time,
            total_time: now - started,
            result: match gone.sides.len() {
                3.. => Outcome::Crowded,
                _ if is_pruned => Outcome::Pruney,
                _ if felt("scary") => Outcome::Scary,
                _ if felt("errory") => Outcome::Errory,
                _ if felt("lonely") => Outcome::Lonely,
                2 => Outcome::Happy,
                _ => Outcome::Lonely,
            },
        });
    }

    /// When the first side came, and how long it waited for the second.
    fn arrivals(&self, sides: &[Side]) -> Option<(Seconds, Option<Seconds>)> {
        let mut added: Vec<Seconds> = sides.iter().map(|side| side.added).collect();
        added.sort_by(f64::total_cmp); // as upstream: a clock may step back
        Some((*added.first()?, added.get(1).map(|second| second - added[0])))
    }

    pub fn blurred(&self, time: Seconds) -> Seconds {
        self.settings.blur.map_or(time, |blur| time - time.rem_euclid(blur))
    }
}

fn digits_range(digits: u32) -> std::ops::Range<u64> {
    10_u64.pow(digits - 1)..10_u64.pow(digits)
}

/// Whether the side is one of the first two, or there is a place.
fn admits(sides: &[Side], side: &Name) -> bool {
    sides.len() < 2 || sides[..2].iter().any(|known| known.side == *side)
}

fn new_side(side: &Name, added: Seconds, holds: bool) -> Side {
    Side { side: side.clone(), added, holds, mood: None }
}
