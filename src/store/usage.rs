//! What is recorded of the use of nameplates and mailboxes: how long they lasted, and how they
//! ended.

use super::sides::Sides;
use crate::limits::SIDES_MAX;
use crate::message::outcome::Outcome;
use crate::sys::clock::{Seconds, Timestamp};

/// Why a nameplate or mailbox ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The last side released or closed it.
    Left,
    /// It expired.
    Pruned,
}

/// Rounds a time down to a multiple of `blur` seconds, if blurring is on.
pub fn blurred(time: Timestamp, blur: Option<Seconds>) -> Timestamp {
    match blur {
        Some(blur) if blur > 0.0 => Timestamp(blur * (time.0 / blur).floor()),
        _ => time,
    }
}

/// What the records of nameplates and mailboxes have in common.
pub struct Summary {
    pub started: Timestamp,
    pub waiting_time: Option<Seconds>,
    pub total_time: Seconds,
    pub result: Outcome,
}

impl Summary {
    /// Of something that ends now; none if it never had a side.
    pub fn of(
        sides: &Sides,
        now: Timestamp,
        ending: Ending,
        gravest: Option<Outcome>,
        blur: Option<Seconds>,
    ) -> Option<Summary> {
        let mut added: Vec<Timestamp> = sides.iter().map(|side| side.added).collect();
        added.sort_unstable();
        let first = *added.first()?;
        let result = match added.len() {
            count if count > SIDES_MAX => Outcome::Crowded,
            _ if ending == Ending::Pruned => Outcome::Pruney,
            count => gravest.filter(|mood| *mood != Outcome::Happy).unwrap_or(match count {
                SIDES_MAX => Outcome::Happy,
                _ => Outcome::Lonely,
            }),
        };
        Some(Summary {
            started: blurred(first, blur),
            waiting_time: added.get(1).map(|second| *second - first),
            total_time: now - first,
            result,
        })
    }
}
