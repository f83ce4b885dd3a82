//! The usage records of nameplates and mailboxes that ended: how long they lasted, and how they
//! ended.

use std::rc::Rc;

use super::app::Nameplate;
use super::change::UsageRecord;
use super::mailbox::Mailbox;
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

/// The record of a nameplate that ends now; none if it never had a side.
pub fn of_nameplate(
    app: &Rc<str>,
    ended: &Nameplate,
    now: Timestamp,
    ending: Ending,
    blur: Option<Seconds>,
) -> Option<UsageRecord> {
    let Summary { started, waiting_time, total_time, result } =
        Summary::of(&ended.sides, now, ending, None, blur)?;
    let app = app.clone();
    Some(UsageRecord::Nameplate { app, started, waiting_time, total_time, result })
}

/// The record of a mailbox that ends now; none if it never had a side.
pub fn of_mailbox(
    ended: &Mailbox,
    now: Timestamp,
    ending: Ending,
    blur: Option<Seconds>,
) -> Option<UsageRecord> {
    let Summary { started, waiting_time, total_time, result } =
        Summary::of(&ended.sides, now, ending, ended.gravest_mood(), blur)?;
    let (app, for_nameplate) = (ended.app.clone(), ended.for_nameplate);
    Some(UsageRecord::Mailbox { app, for_nameplate, started, waiting_time, total_time, result })
}

/// What the records of nameplates and mailboxes have in common.
struct Summary {
    started: Timestamp,
    waiting_time: Option<Seconds>,
    total_time: Seconds,
    result: Outcome,
}

impl Summary {
    fn of(
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
