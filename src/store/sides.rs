//! The sides of one nameplate or one mailbox, and the crowding rule of both: the first two sides
//! are served, a third is recorded and refused.

use std::rc::Rc;

use crate::limits::{SIDES_MAX, SIDES_RECORDED_MAX};
use crate::sys::clock::{Seconds, Timestamp};

/// One side on record.
#[derive(Debug, PartialEq)]
pub struct Side<Id> {
    /// Its row in `nameplate_sides` or `mailbox_sides`.
    pub id: Id,
    pub side: Rc<str>,
    pub added: Timestamp,
    /// Whether it claims the nameplate, or has the mailbox open.
    pub holds: bool,
    /// The mood it closed the mailbox with.
    pub mood: Option<Rc<str>>,
}

/// Sides in the order in which they were added.
#[derive(Debug, PartialEq)]
pub struct Sides<Id>(Vec<Side<Id>>);

impl<Id> Default for Sides<Id> {
    fn default() -> Self {
        Sides(Vec::new())
    }
}

impl<Id: Copy> Sides<Id> {
    /// The side of that name, served or not.
    pub fn get(&self, side: &str) -> Option<&Side<Id>> {
        self.0.iter().find(|known| *known.side == *side)
    }

    /// The side of that name, served or not.
    pub fn get_mut(&mut self, side: &str) -> Option<&mut Side<Id>> {
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

    /// Whether a refused side must still be recorded. One such row suffices to show that it was
    /// crowded, and repeated attempts must not grow the record.
    pub fn must_record(&self, refused: &str) -> bool {
        self.0.len() < SIDES_RECORDED_MAX && self.get(refused).is_none()
    }

    /// Whether a served side still claims the nameplate, or has the mailbox open.
    pub fn held(&self) -> bool {
        self.0.iter().take(SIDES_MAX).any(|side| side.holds)
    }

    pub fn push(&mut self, side: Side<Id>) {
        self.0.reserve_exact(1); // most have two, and a list would begin with four
        self.0.push(side);
    }

    /// The place of a side in the order in which they were added.
    pub fn position(&self, side: &str) -> Option<usize> {
        self.0.iter().position(|known| *known.side == *side)
    }

    /// All sides on record, in the order in which they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Side<Id>> {
        self.0.iter()
    }

    pub fn shift_times(&mut self, seconds: Seconds) {
        for side in &mut self.0 {
            side.added = side.added + seconds;
        }
    }

    pub fn ids(&self) -> Vec<Id> {
        self.0.iter().map(|side| side.id).collect()
    }
}
