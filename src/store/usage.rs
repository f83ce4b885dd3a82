//! What is recorded of the use of nameplates and mailboxes: how long they lasted, and how they
//! ended.

use std::rc::Rc;

use super::Act;
use super::change::{UsageKind, UsageRecord};
use super::sides::Sides;
use super::tables::Tables;
use crate::limits::SIDES_MAX;
use crate::message::{Holder, Outcome};
use crate::sorted::sorted;
use crate::sys::clock::{Seconds, Timestamp};

/// Why a nameplate or mailbox ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The last side released or closed it.
    Left,
    /// It expired.
    Pruned,
}

/// Rounds a time down to a multiple of `blur` seconds, if blurring is on.
pub(super) fn blurred(time: Timestamp, blur: Option<Seconds>) -> Timestamp {
    match blur {
        Some(blur) if blur > 0.0 => Timestamp(blur * (time.0 / blur).floor()),
        _ => time,
    }
}

/// How a nameplate or mailbox ends; `gravest`: of the moods with which its sides closed it.
pub(super) fn outcome(sides: &Sides, ending: Ending, gravest: Option<Outcome>) -> Outcome {
    match sides.iter().len() {
        count if count > SIDES_MAX => Outcome::Crowded,
        _ if ending == Ending::Pruned => Outcome::Pruney,
        count => gravest.filter(|mood| *mood != Outcome::Happy).unwrap_or(match count {
            SIDES_MAX => Outcome::Happy,
            _ => Outcome::Lonely,
        }),
    }
}

impl Tables {
    /// Records the end of a nameplate or mailbox that `origin` began, unless it never had a side.
    pub fn record_end(
        &self,
        app: &Rc<str>,
        kind: UsageKind,
        sides: &Sides,
        result: Outcome,
        origin: Option<Holder>,
        act: &mut Act<'_>,
    ) {
        let added = sorted(sides.iter().map(|side| side.added));
        let Some(&first) = added.first() else { return };
        let record = UsageRecord::Ended {
            app: app.clone(),
            kind,
            started: blurred(first, self.rules.blur),
            waiting_time: added.get(1).map(|second| *second - first),
            total_time: act.now - first,
            result,
        };
        act.effects.usage.push((record, origin));
    }
}
