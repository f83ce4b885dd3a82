//! The sides of one nameplate or one mailbox, and the crowding rule that both share (contract
//! section 3): the first two sides are served, a third is put on record and turned away.

use std::rc::Rc;

use super::change::RowId;
use crate::limits::{SIDES_MAX, SIDES_RECORDED_MAX};
use crate::sys::clock::Timestamp;

/// One side on record.
#[derive(Debug, PartialEq)]
pub struct Side {
    /// Its row in `nameplate_sides` or `mailbox_sides`.
    pub row: RowId,
    /// Its name.
    pub side: Rc<str>,
    /// When it came.
    pub added: Timestamp,
    /// Whether it claims the nameplate, or has the mailbox open.
    pub holds: bool,
    /// The mood it closed the mailbox with.
    pub mood: Option<Rc<str>>,
}

/// Sides in the order they came.
#[derive(Debug, Default, PartialEq)]
pub struct Sides(Vec<Side>);

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

    /// Whether a side that is turned away must still be put on record. One such row says all
    /// there is to say, and a stream of strangers must not grow the record.
    pub fn wants_record_of(&self, stranger: &str) -> bool {
        self.0.len() < SIDES_RECORDED_MAX && self.get(stranger).is_none()
    }

    /// Whether a served side still claims the nameplate, or has the mailbox open.
    pub fn held(&self) -> bool {
        self.0.iter().take(SIDES_MAX).any(|side| side.holds)
    }

    /// Appends a side.
    pub fn push(&mut self, side: Side) {
        self.0.push(side);
    }

    /// All sides on record, in the order they came.
    pub fn iter(&self) -> impl Iterator<Item = &Side> {
        self.0.iter()
    }

    /// The rows of all sides.
    pub fn rows(&self) -> Vec<RowId> {
        self.0.iter().map(|side| side.row).collect()
    }
}
