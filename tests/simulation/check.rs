//! The checkers: what must hold after each tick.

use wormhole_mailbox::message::ConnId;

use crate::commands::{Ask, Reply};
use crate::database::Disk;
use crate::driver::Event;
use crate::model::Model;
use crate::sessions::Opened;

/// Every connection got what the model says, in that order, and nothing else.
pub fn replies(
    found: &mut [(ConnId, Reply)],
    expected: &mut [(ConnId, Reply)],
) -> Result<(), String> {
    // Between connections no order is promised.
    found.sort_by_key(|(conn, _)| *conn);
    expected.sort_by_key(|(conn, _)| *conn);
    for index in 0..found.len().max(expected.len()) {
        let fits = match (found.get(index), expected.get(index)) {
            (Some((conn, reply)), Some((to, wanted))) => conn == to && reply.fits(wanted),
            _ => false,
        };
        if !fits {
            let (found, expected) = (found.get(index), expected.get(index));
            return Err(format!("replies: found {found:?}, expected {expected:?}"));
        }
    }
    Ok(())
}

/// The database holds what the model says is durable, and nothing was written that it would not
/// have taken. And the model itself has met nothing that the manual does not allow.
pub fn rows(disk: &Disk, model: &mut Model) -> Result<(), String> {
    if let Some(violation) = disk.violations.first() {
        return Err(format!("database: {violation}"));
    }
    if let Some(complaint) = model.complaints.pop() {
        return Err(format!("model: {complaint}"));
    }
    match disk.rows().difference(&model.rows) {
        Some(difference) => Err(difference),
        None => invariants(model),
    }
}

/// The house's invariants, of the state that server and model agree on.
fn invariants(model: &Model) -> Result<(), String> {
    for nameplate in &model.rows.nameplates {
        let mailbox = model.rows.mailboxes.iter().find(|mailbox| mailbox.id == nameplate.mailbox);
        let is_claimed = nameplate.sides.iter().take(2).any(|side| side.holds);
        let strangers_hold = nameplate.sides.iter().skip(2).any(|side| side.holds);
        if !is_claimed || strangers_hold || mailbox.is_none_or(|it| it.app != nameplate.app) {
            return Err(format!("a nameplate is held by nobody, or by a stranger: {nameplate:?}"));
        }
    }
    for mailbox in &model.rows.mailboxes {
        let is_open = mailbox.sides.iter().take(2).any(|side| side.holds);
        let strangers_hold = mailbox.sides.iter().skip(2).any(|side| side.holds);
        if !is_open || strangers_hold || mailbox.sides.len() > 3 {
            return Err(format!("a mailbox is open for nobody, or for a stranger: {mailbox:?}"));
        }
    }
    Ok(())
}

/// Those who are closed after a failed commit: all who took part, and else only such whose
/// mailbox some command of the tick may have ended.
pub fn affected(
    events: &[(ConnId, Event)],
    affected: &[ConnId],
    model: &Model,
) -> Result<(), String> {
    let took_part = |conn: &ConnId| {
        events.iter().any(|(who, event)| who == conn && !matches!(event, Event::Ping))
    };
    // A close ends mailboxes, an open replaces subscribers, and what needs room may end mailboxes.
    let may_end = events.iter().any(|(_, event)| {
        matches!(event, Event::Text(sent) if matches!(
            sent.ask,
            Ask::Close { .. } | Ask::Open(_) | Ask::Claim(..) | Ask::Allocate | Ask::Add { .. }
        ))
    });
    let may_be_orphan = |conn: &ConnId| {
        may_end && model.client(*conn).is_some_and(|client| client.opened == Opened::Yes)
    };
    if let Some((conn, _)) =
        events.iter().find(|(conn, _)| took_part(conn) && !affected.contains(conn))
    {
        return Err(format!("{conn} took part in a failed tick and is not closed"));
    }
    match affected.iter().find(|conn| !took_part(conn) && !may_be_orphan(conn)) {
        Some(conn) => Err(format!("{conn} is closed and has nothing to do with the failure")),
        None => Ok(()),
    }
}
