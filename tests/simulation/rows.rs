//! What is durable, in the plainest form: nested vectors in order of creation. The model's state
//! and the simulated database's tables are compared in it.

use std::rc::Rc;

use wormhole_mailbox::sys::clock::Seconds;

pub type Name = Rc<str>;

/// A side of a nameplate or a mailbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    pub side: Name,
    pub added: Seconds,
    /// It claims the nameplate, or has the mailbox open.
    pub holds: bool,
    pub mood: Option<Name>,
}

/// A stored message.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub side: Name,
    pub phase: Name,
    pub body: Name,
    pub server_rx: Seconds,
    pub id: Option<Name>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Mailbox {
    pub app: Name,
    pub id: Name,
    pub for_nameplate: bool,
    /// As in the file: its last activity may be later.
    pub updated: Seconds,
    pub sides: Vec<Side>,
    pub messages: Vec<Stored>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Nameplate {
    pub app: Name,
    pub name: Name,
    pub mailbox: Name,
    pub sides: Vec<Side>,
}

/// All rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    pub mailboxes: Vec<Mailbox>,
    pub nameplates: Vec<Nameplate>,
}

impl Rows {
    /// The latest time of a mailbox or side.
    pub fn latest(&self) -> Seconds {
        let sides = self.nameplates.iter().flat_map(|it| &it.sides);
        let sides = sides.chain(self.mailboxes.iter().flat_map(|it| &it.sides));
        let updated = self.mailboxes.iter().map(|it| it.updated);
        sides.map(|side| side.added).chain(updated).fold(0.0, Seconds::max)
    }

    /// The first difference to what the model expects, in words.
    pub fn difference(&self, expected: &Rows) -> Option<String> {
        let mailboxes = first_difference(&self.mailboxes, &expected.mailboxes);
        let nameplates = first_difference(&self.nameplates, &expected.nameplates);
        mailboxes.or(nameplates)
    }
}

fn first_difference<T: std::fmt::Debug + PartialEq>(found: &[T], expected: &[T]) -> Option<String> {
    (0..found.len().max(expected.len()))
        .find(|index| found.get(*index) != expected.get(*index))
        .map(|index| {
            format!(
                "database rows: found {:?}, expected {:?}",
                found.get(index),
                expected.get(index)
            )
        })
}
