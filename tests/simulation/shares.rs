//! The model's room in the store (manual: rules 6): what everything takes, to which address it is
//! charged, and which mailboxes go when there is no room.

use std::collections::VecDeque;

use wormhole_mailbox::message::ConnId;

use crate::commands::{EVICTED, Reply};
use crate::faults::Fault;
use crate::model::{Model, Refused};
use crate::rows::{Name, Stored};
use crate::sessions::Opened;

/// What a mailbox, a nameplate and a message take besides their texts, and what it takes to charge
/// a mailbox to one more holder.
const MAILBOX_BYTES: usize = 1_024;
const NAMEPLATE_BYTES: usize = 1_024;
const MESSAGE_BYTES: usize = 112;
const CHARGE_BYTES: usize = 144;

/// What a message counts in its mailbox besides its text.
const COUNTED_BYTES: usize = 128;

/// Names kept ready with each mailbox and nameplate, at their longest.
const SPARE_BYTES: usize = 2 * 288;

/// Messages that may use the reserve, in bytes.
pub const SHORT_MESSAGE_BYTES: usize = 4_096;

/// How often a tick makes room, and how many mailboxes go at once.
const EVICTIONS_PER_TICK_MAX: usize = 8;
const EVICTED_AT_ONCE_MAX: usize = 128;

/// The peer address that stores something, as far as it is limited.
pub type By = Option<u8>;

/// What one mailbox takes, by the address to which it is charged.
type Charges = Vec<(By, usize)>;

/// Who has stored how much.
#[derive(Clone, Debug, Default)]
pub struct Shares {
    charges: Vec<(Name, Charges)>,
    /// Of mailboxes that ended in this tick while a replay of them was on its way.
    pinned: Vec<Charges>,
    /// Mailboxes that were loaded and not subscribed to since.
    unclaimed: Vec<Name>,
    evictions_left: usize,
    /// What the database deleted with this tick's commit, in order: where the model allows several
    /// choices, it asks here.
    pub deletions: VecDeque<Name>,
    /// What it created, those of nameplates aside.
    pub openings: VecDeque<Name>,
    /// Mailboxes of which messages may still be in the database after their end.
    pub remains: Vec<Name>,
    /// Connections to be closed at the end of the tick.
    pub closings: Vec<(ConnId, Reply)>,
}

impl Shares {
    pub fn begin_tick(&mut self) {
        self.pinned.clear();
        self.closings.clear();
        self.deletions.clear();
        self.openings.clear();
        self.evictions_left = EVICTIONS_PER_TICK_MAX;
    }

    /// A mailbox is gone. `pins`: a replay holds its memory.
    pub fn forget(&mut self, id: &Name, pins: bool) {
        if let Some(place) = self.charges.iter().position(|(mailbox, _)| mailbox == id) {
            let (_, charges) = self.charges.remove(place);
            if pins {
                self.pinned.push(charges);
            }
        }
        self.unclaimed.retain(|mailbox| mailbox != id);
        if let Some(place) = self.deletions.iter().position(|mailbox| mailbox == id) {
            self.deletions.remove(place);
        }
    }

    pub fn charge(&mut self, id: &Name, by: By, bytes: usize) {
        let place = self.charges.iter().position(|(mailbox, _)| mailbox == id);
        let place = place.unwrap_or_else(|| {
            self.charges.push((id.clone(), Vec::new()));
            self.charges.len() - 1
        });
        let charges = &mut self.charges[place].1;
        match charges.iter_mut().find(|(known, _)| *known == by) {
            Some((_, charged)) => *charged += bytes,
            None => charges.push((by, bytes + CHARGE_BYTES)),
        }
    }

    fn of(&self, id: &Name) -> &[(By, usize)] {
        let found = self.charges.iter().find(|(mailbox, _)| mailbox == id);
        found.map_or(&[], |(_, charges)| charges)
    }

    /// The first that subscribes to what was loaded is charged for it.
    pub fn claim_loaded(&mut self, id: &Name, by: By) {
        let before = self.unclaimed.len();
        self.unclaimed.retain(|mailbox| mailbox != id);
        if by.is_none() || self.unclaimed.len() == before {
            return;
        }
        let Some((_, charges)) = self.charges.iter_mut().find(|(mailbox, _)| mailbox == id) else {
            return;
        };
        if let Some(place) = charges.iter().position(|(by, _)| by.is_none()) {
            let (_, bytes) = charges.remove(place);
            self.charge(id, by, bytes - CHARGE_BYTES);
        }
    }

    fn all(&self) -> impl Iterator<Item = &(By, usize)> {
        self.charges.iter().map(|(_, charges)| charges).chain(&self.pinned).flatten()
    }

    fn bytes(&self) -> usize {
        self.all().map(|(_, bytes)| bytes).sum()
    }

    fn bytes_of(&self, address: u8) -> usize {
        self.all().filter(|(by, _)| *by == Some(address)).map(|(_, bytes)| bytes).sum()
    }

    /// How large the holder is that has the most.
    fn top_class(&self) -> u32 {
        let holders = self.all().map(|(by, bytes)| by.map_or(*bytes, |it| self.bytes_of(it)));
        holders.map(class).max().unwrap_or(0)
    }

    /// How large the holder is that has most of a mailbox.
    fn class_of(&self, id: &Name) -> u32 {
        // Of two that have the same the server takes the later one.
        let main = self.of(id).iter().max_by_key(|(_, bytes)| *bytes);
        main.map_or(0, |(by, bytes)| class(by.map_or(*bytes, |it| self.bytes_of(it))))
    }
}

/// Sizes with the same number of binary digits count as equal.
fn class(bytes: usize) -> u32 {
    usize::BITS - bytes.leading_zeros()
}

/// A block of the heap.
fn block(bytes: usize) -> usize {
    (bytes + 8).next_multiple_of(16).max(32)
}

fn name_bytes(name: &str) -> usize {
    block(16 + name.len())
}

pub fn side_bytes(side: &str) -> usize {
    name_bytes(side)
}

pub fn mailbox_bytes(app: &str, id: &str) -> usize {
    MAILBOX_BYTES + SPARE_BYTES + name_bytes(app) + name_bytes(id)
}

pub fn nameplate_bytes(app: &str, name: &str) -> usize {
    NAMEPLATE_BYTES + SPARE_BYTES + name_bytes(app) + name_bytes(name)
}

fn text_bytes(message: &Stored) -> usize {
    let id = message.id.as_ref().map_or(0, |id| id.len());
    message.phase.len() + message.body.len() + id
}

/// Memory of a message.
pub fn message_bytes(message: &Stored) -> usize {
    MESSAGE_BYTES + block(text_bytes(message))
}

/// What messages count in their mailbox.
pub fn counted_bytes<'a>(messages: impl Iterator<Item = &'a Stored>) -> usize {
    messages.map(|message| COUNTED_BYTES + text_bytes(message)).sum()
}

impl Model {
    /// Everything is loaded anew: what there is belongs to nobody, until somebody subscribes.
    pub fn load_shares(&mut self) {
        self.shares.charges.clear();
        self.shares.pinned.clear();
        self.shares.unclaimed.clear();
        for mailbox in &self.rows.mailboxes {
            let bytes = mailbox_bytes(&mailbox.app, &mailbox.id)
                + mailbox.sides.iter().take(2).map(|it| side_bytes(&it.side)).sum::<usize>()
                + mailbox.messages.iter().map(message_bytes).sum::<usize>();
            self.shares.charge(&mailbox.id, None, bytes);
            if self.fault != Some(Fault::LoadedIsFree) {
                self.shares.unclaimed.push(mailbox.id.clone());
            }
        }
        for nameplate in &self.rows.nameplates {
            let bytes = nameplate_bytes(&nameplate.app, &nameplate.name)
                + nameplate.sides.iter().take(2).map(|it| side_bytes(&it.side)).sum::<usize>();
            self.shares.charge(&nameplate.mailbox, None, bytes);
        }
        // The server subscribes them again in the order of their numbers.
        let mut subscribed: Vec<_> = self
            .clients
            .iter()
            .filter(|client| client.opened == Opened::Yes)
            .filter_map(|client| Some((client.conn, client.mailbox.clone()?, client.address)))
            .collect();
        subscribed.sort();
        for (_, mailbox, address) in subscribed {
            self.shares.claim_loaded(&mailbox, address);
        }
    }

    /// Whether there is room for that many bytes more; mailboxes of larger holders go if not.
    pub fn make_room(
        &mut self,
        by: By,
        mailbox: Option<&Name>,
        bytes: usize,
        is_ordinary: bool,
    ) -> Result<(), Refused> {
        let limit = self.settings.stored_bytes_max;
        let share = (limit / 8).max(self.settings.mailbox_bytes_max * 9 / 8 + 8 * 1_024);
        let held = match (by, mailbox) {
            (Some(address), _) => self.shares.bytes_of(address),
            (None, Some(id)) => {
                self.shares.of(id).iter().find(|(by, _)| by.is_none()).map_or(0, |it| it.1)
            }
            (None, None) => 0,
        };
        let is_endless = self.fault == Some(Fault::SharesWithoutEnd);
        if by.is_some() && held + bytes > share && !is_endless {
            return Err("too much stored from your address…".into());
        }
        let may_use_reserve = is_ordinary || self.fault == Some(Fault::ReserveForAll);
        let reserve = if may_use_reserve { 0 } else { limit / 16 };
        let most = limit.saturating_sub(reserve).saturating_sub(bytes);
        if self.shares.bytes() <= most {
            return Ok(());
        }
        if self.shares.top_class() > class(held) && self.shares.evictions_left > 0 {
            self.shares.evictions_left -= 1;
            self.evict(class(held), mailbox, most.saturating_sub(limit / 64));
        }
        let has_room = self.shares.bytes() <= most;
        if has_room { Ok(()) } else { Err("server is full, try again later".into()) }
    }

    fn evict(&mut self, above: u32, spared: Option<&Name>, enough: usize) {
        let ids = self.rows.mailboxes.iter().map(|mailbox| mailbox.id.clone());
        let ids = ids.filter(|id| Some(id) != spared);
        let mut candidates: Vec<(u32, Name)> =
            ids.map(|id| (self.shares.class_of(&id), id)).filter(|it| it.0 > above).collect();
        for _ in 0..EVICTED_AT_ONCE_MAX {
            if self.shares.bytes() <= enough || candidates.is_empty() {
                return;
            }
            let classes = candidates.iter().map(|(class, _)| *class);
            let top = match self.fault {
                Some(Fault::EvictsSmallest) => classes.min(),
                _ => classes.max(),
            };
            let next = self.shares.deletions.front().cloned();
            let place = candidates
                .iter()
                .position(|(class, id)| Some(*class) == top && Some(id) == next.as_ref());
            let Some(place) = place else {
                self.complaints.push(format!("{next:?} is deleted, and not one of {candidates:?}"));
                return;
            };
            let (_, id) = candidates.remove(place);
            self.evict_mailbox(&id);
        }
    }

    fn evict_mailbox(&mut self, id: &Name) {
        let now = self.now();
        for client in &self.clients {
            if client.opened == Opened::Yes && client.mailbox.as_ref() == Some(id) {
                self.shares.closings.push((client.conn, Reply::Bytes(EVICTED)));
            }
        }
        for (replayed, places) in std::mem::take(&mut self.replayed) {
            if replayed == *id {
                self.expected[places].iter_mut().for_each(|(_, reply)| *reply = Reply::Nothing);
            } else {
                self.replayed.push((replayed, places));
            }
        }
        self.prune_mailbox(id, now);
    }
}
