//! The sides of one nameplate or one mailbox, and the crowding rule of both: the first two sides
//! are served, a third is recorded and refused.

use std::rc::Rc;

use super::change::SideId;
use super::room::side_bytes;
use super::session::Identity;
use crate::limits::{SIDES_MAX, SIDES_RECORDED_MAX};
use crate::message::{Holder, MessageLog};
use crate::sys::clock::{Seconds, Timestamp};

/// One side on record.
#[derive(Debug)]
pub(super) struct Side {
    pub id: SideId,
    pub side: Rc<str>,
    pub added: Timestamp,
    /// Whether it claims the nameplate, or has the mailbox open.
    pub holds: bool,
    /// The mood it closed the mailbox with.
    pub mood: Option<Rc<str>>,
}

/// Sides in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Sides(Vec<Side>);

impl Sides {
    /// The side of that name, served or not.
    pub fn get(&self, side: &str) -> Option<&Side> {
        self.0.iter().find(|known| *known.side == *side)
    }

    /// The side of that name, served or not.
    pub fn get_mut(&mut self, side: &str) -> Option<&mut Side> {
        self.0.iter_mut().find(|known| *known.side == *side)
    }

    /// Whether the side is one of the two served, or can become one.
    pub fn admits(&self, side: &str) -> bool {
        let served = &self.0[..self.0.len().min(SIDES_MAX)];
        served.len() < SIDES_MAX || served.iter().any(|known| *known.side == *side)
    }

    /// Whether the side is not on record and would be served.
    pub fn is_new(&self, side: &str) -> bool {
        self.0.len() < SIDES_MAX && self.get(side).is_none()
    }

    /// Puts a side on record if it is new, one that is not served as one that holds nothing. Of
    /// these the first suffices to show that it was crowded, and repeated attempts must not grow
    /// the record. Returns what was added.
    pub fn record(
        &mut self,
        id: SideId,
        me: &Identity,
        now: Timestamp,
        log: &MessageLog,
    ) -> Option<&Side> {
        if self.0.len() >= SIDES_RECORDED_MAX || self.get(&me.side).is_some() {
            return None;
        }
        let (side, holds) = (me.side.clone(), self.admits(&me.side));
        self.add(Side { id, side, added: now, holds, mood: None }, me.holder, log);
        self.0.last()
    }

    /// Adds a side. Its memory is charged to `holder` in the mailbox's log, if it is served.
    pub fn add(&mut self, side: Side, holder: Option<Holder>, log: &MessageLog) {
        if self.0.len() < SIDES_MAX {
            log.charge(holder, side_bytes(&side.side));
        }
        self.0.reserve_exact(1); // most have two, and a list would begin with four
        self.0.push(side);
    }

    /// Whether a served side still claims the nameplate, or has the mailbox open.
    pub fn held(&self) -> bool {
        self.0.iter().take(SIDES_MAX).any(|side| side.holds)
    }

    /// The place of a side in the order in which they were added.
    pub fn position(&self, side: &str) -> Option<usize> {
        self.0.iter().position(|known| *known.side == *side)
    }

    /// All sides on record, in the order in which they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Side> {
        self.0.iter()
    }

    pub fn shift_times(&mut self, seconds: Seconds) {
        for side in &mut self.0 {
            side.added = side.added + seconds;
        }
    }

    /// The rows of all sides on record.
    pub fn ids(&self) -> Vec<SideId> {
        self.0.iter().map(|side| side.id).collect()
    }
}
