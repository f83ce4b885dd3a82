//! Summaries of what ended, for the usage database (contract section 5): how long it took, and
//! how it went.

use std::rc::Rc;

use super::change::UsageRecord;
use super::sides::Sides;
use crate::limits::SIDES_MAX;
use crate::sys::clock::Seconds;

/// Moods that a side may close with, gravest first; the gravest one becomes the result.
const MOODS_BY_GRAVITY: [&str; 3] = ["scary", "errory", "lonely"];

/// Why a nameplate or mailbox ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The last side released or closed it.
    Left,
    /// It expired.
    Pruned,
}

/// Rounds a time down to a multiple of `blur` seconds, if blurring is on.
pub fn blurred(time: Seconds, blur: Option<Seconds>) -> Seconds {
    match blur {
        Some(blur) if blur > 0.0 => blur * (time / blur).floor(),
        _ => time,
    }
}

/// The record of a nameplate that ends now; none if no side ever came.
pub fn nameplate(
    app: &Rc<str>,
    sides: &Sides,
    now: Seconds,
    ending: Ending,
    blur: Option<Seconds>,
) -> Option<UsageRecord> {
    let times = Times::of(sides, now)?;
    Some(UsageRecord::Nameplate {
        app: app.clone(),
        started: blurred(times.started, blur),
        waiting_time: times.waiting,
        total_time: times.total,
        result: overriding_result(sides, ending).unwrap_or(default_result(sides)),
    })
}

/// The record of a mailbox that ends now; none if no side ever came.
pub fn mailbox(
    app: &Rc<str>,
    for_nameplate: bool,
    sides: &Sides,
    now: Seconds,
    ending: Ending,
    blur: Option<Seconds>,
) -> Option<UsageRecord> {
    let times = Times::of(sides, now)?;
    let gravest = MOODS_BY_GRAVITY
        .into_iter()
        .find(|mood| sides.iter().any(|side| side.mood.as_deref() == Some(*mood)));
    Some(UsageRecord::Mailbox {
        app: app.clone(),
        for_nameplate,
        started: blurred(times.started, blur),
        waiting_time: times.waiting,
        total_time: times.total,
        result: overriding_result(sides, ending).or(gravest).unwrap_or(default_result(sides)),
    })
}

/// Results that count whatever the sides felt.
fn overriding_result(sides: &Sides, ending: Ending) -> Option<&'static str> {
    if sides.iter().count() > SIDES_MAX {
        Some("crowded")
    } else if ending == Ending::Pruned {
        Some("pruney")
    } else {
        None
    }
}

fn default_result(sides: &Sides) -> &'static str {
    if sides.iter().count() == SIDES_MAX { "happy" } else { "lonely" }
}

struct Times {
    started: Seconds,
    waiting: Option<Seconds>,
    total: Seconds,
}

impl Times {
    fn of(sides: &Sides, now: Seconds) -> Option<Times> {
        let mut added: Vec<Seconds> = sides.iter().map(|side| side.added).collect();
        added.sort_by(Seconds::total_cmp);
        let started = *added.first()?;
        let waiting = added.get(1).map(|second| second - started);
        Some(Times { started, waiting, total: now - started })
    }
}
