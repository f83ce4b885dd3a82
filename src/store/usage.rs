//! Summaries of what ended, for the usage database (contract section 5): how long it took, and
//! how it went.

use std::rc::Rc;

use super::change::UsageRecord;
use super::sides::Sides;
use crate::limits::SIDES_MAX;
use crate::message::outcome::{Mood, Outcome};
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

/// The record of a nameplate that ends now; none if no side ever came.
pub fn nameplate(
    app: &Rc<str>,
    sides: &Sides,
    now: Timestamp,
    ending: Ending,
    blur: Option<Seconds>,
) -> Option<UsageRecord> {
    let times = Times::of(sides, now)?;
    Some(UsageRecord::Nameplate {
        app: app.clone(),
        started: blurred(times.started, blur),
        waiting_time: times.waiting,
        total_time: times.total,
        result: overriding_outcome(sides, ending).unwrap_or(default_outcome(sides)),
    })
}

/// The record of a mailbox that ends now; none if no side ever came.
pub fn mailbox(
    app: &Rc<str>,
    for_nameplate: bool,
    sides: &Sides,
    now: Timestamp,
    ending: Ending,
    blur: Option<Seconds>,
) -> Option<UsageRecord> {
    let times = Times::of(sides, now)?;
    let moods = sides.iter().filter_map(|side| side.mood.as_deref()).map(Mood::from_name);
    let gravest = moods.max().and_then(Mood::outcome);
    Some(UsageRecord::Mailbox {
        app: app.clone(),
        for_nameplate,
        started: blurred(times.started, blur),
        waiting_time: times.waiting,
        total_time: times.total,
        result: overriding_outcome(sides, ending).or(gravest).unwrap_or(default_outcome(sides)),
    })
}

/// Outcomes that take precedence over all moods.
fn overriding_outcome(sides: &Sides, ending: Ending) -> Option<Outcome> {
    if sides.iter().count() > SIDES_MAX {
        Some(Outcome::Crowded)
    } else if ending == Ending::Pruned {
        Some(Outcome::Pruney)
    } else {
        None
    }
}

fn default_outcome(sides: &Sides) -> Outcome {
    if sides.iter().count() == SIDES_MAX { Outcome::Happy } else { Outcome::Lonely }
}

struct Times {
    started: Timestamp,
    waiting: Option<Seconds>,
    total: Seconds,
}

impl Times {
    fn of(sides: &Sides, now: Timestamp) -> Option<Times> {
        let mut added: Vec<Timestamp> = sides.iter().map(|side| side.added).collect();
        added.sort();
        let started = *added.first()?;
        let waiting = added.get(1).map(|second| *second - started);
        Some(Times { started, waiting, total: now - started })
    }
}
