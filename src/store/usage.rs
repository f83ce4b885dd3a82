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
    let times = Times::of(&ended.sides, now)?;
    Some(UsageRecord::Nameplate {
        app: app.clone(),
        started: blurred(times.started, blur),
        waiting_time: times.waiting,
        total_time: times.total,
        result: outcome(&ended.sides, ending, None),
    })
}

/// The record of a mailbox that ends now; none if it never had a side.
pub fn of_mailbox(
    ended: &Mailbox,
    now: Timestamp,
    ending: Ending,
    blur: Option<Seconds>,
) -> Option<UsageRecord> {
    let times = Times::of(&ended.sides, now)?;
    Some(UsageRecord::Mailbox {
        app: ended.app.clone(),
        for_nameplate: ended.for_nameplate,
        started: blurred(times.started, blur),
        waiting_time: times.waiting,
        total_time: times.total,
        result: outcome(&ended.sides, ending, ended.gravest_mood()),
    })
}

fn outcome<Id: Copy>(sides: &Sides<Id>, ending: Ending, gravest: Option<Outcome>) -> Outcome {
    match sides.iter().len() {
        count if count > SIDES_MAX => Outcome::Crowded,
        _ if ending == Ending::Pruned => Outcome::Pruney,
        count => gravest.filter(|mood| *mood != Outcome::Happy).unwrap_or(match count {
            SIDES_MAX => Outcome::Happy,
            _ => Outcome::Lonely,
        }),
    }
}

struct Times {
    started: Timestamp,
    waiting: Option<Seconds>,
    total: Seconds,
}

impl Times {
    fn of<Id: Copy>(sides: &Sides<Id>, now: Timestamp) -> Option<Times> {
        let mut added: Vec<Timestamp> = sides.iter().map(|side| side.added).collect();
        added.sort_unstable();
        let started = *added.first()?;
        let waiting = added.get(1).map(|second| *second - started);
        Some(Times { started, waiting, total: now - started })
    }
}
