//! Nameplates, the short numbers that people type: `list`, `allocate`, `claim` and `release`.

use std::rc::Rc;

use super::app::{self, Nameplate};
use super::change::{Change, Row, SideId, UsageKind};
use super::room::{Growth, mailbox_bytes, nameplate_bytes, side_bytes};
use super::session::{Identity, required};
use super::sides::Sides;
use super::tables::Tables;
use super::usage::{self, Ending};
use super::{Act, Answer, Listing};
use crate::message::{Field, Flag, Refusal, Response, Rule, Session};
use crate::sys::entropy::BASE32;

/// Bits of a mailbox id.
const MAILBOX_ID_BITS: u32 = 64;

impl Tables {
    /// The app's nameplates; none to those that may not begin anything.
    pub fn list(&mut self, session: &Session, may_begin: bool) -> Answer {
        let me = session.identity()?;
        let names = match self.listing {
            _ if !may_begin => None,
            Listing::Real => self.apps.get_mut(&me.app).map(|app| app.list()),
            Listing::Empty => None,
            Listing::Decoy => Some(self.decoys.get_or_insert_with(app::decoys).clone()),
        };
        Ok(Some(Response::Nameplates(names.unwrap_or_default())))
    }

    /// Claims a free number, once a connection.
    pub fn allocate(&mut self, session: &mut Session, act: &mut Act<'_>) -> Answer {
        let me = session.identity()?;
        if session.allocated {
            return Err(Refusal::AlreadyAllocated);
        }
        if !act.may_begin {
            return Err(Refusal::MembersOnly);
        }
        let random = act.entropy.next_u64();
        let cools = self.cooling.of(&me.app, act.now, self.rules.nameplate_cooldown);
        let digits_min = self.rules.nameplate_digits_min;
        let app = self.apps.get(&me.app); // there is one, as this session is bound to it
        let name = app.and_then(|app| app.pick_free(random, digits_min, cools));
        let name = name.ok_or(Refusal::NoFreeNameplate)?;
        self.claim_for(&me, &name, act)?;
        session.allocated = true;
        Ok(Some(Response::Allocated(name)))
    }

    /// Claims a nameplate, which is created if needed, once a connection.
    pub fn claim(
        &mut self,
        session: &mut Session,
        nameplate: &Field<'_>,
        allocate: Flag,
        act: &mut Act<'_>,
    ) -> Answer {
        const COMMAND: &str = "claim";
        let me = session.identity()?;
        if *nameplate == Field::Absent {
            return Err(Refusal::Requires { command: COMMAND, field: "nameplate" });
        }
        if session.claimed.is_some() {
            return Err(Refusal::OnlyOneClaim);
        }
        let name: Rc<str> = required(COMMAND, "nameplate", nameplate)?.into();
        if self.rules.claim_without_allocate {
            match allocate {
                Flag::Invalid => {
                    let (field, rule) = ("allocate", Rule::Boolean);
                    return Err(Refusal::Invalid { command: COMMAND, field, rule });
                }
                Flag::Set(false) if self.nameplate(&me.app, &name).is_none() => {
                    return Err(Refusal::Unallocated);
                }
                _ => {}
            }
        }
        let outcome = if self.rules.is_crowded {
            Err(Refusal::Crowded)
        } else {
            self.claim_for(&me, &name, act)
        };
        if matches!(outcome, Ok(_) | Err(Refusal::Crowded | Refusal::Reclaimed)) {
            // A crowded or reclaimed attempt uses up the one claim, and can be released.
            session.claimed = Some(name);
        }
        outcome.map(|mailbox| Some(Response::Claimed(mailbox)))
    }

    /// Claims a nameplate for a side and opens its mailbox for it; returns the mailbox's id.
    fn claim_for(
        &mut self,
        me: &Identity,
        name: &Rc<str>,
        act: &mut Act<'_>,
    ) -> Result<Rc<str>, Refusal> {
        let Some(nameplate) = self.nameplate(&me.app, name) else {
            return self.create_nameplate(me, name, act);
        };
        let mailbox = nameplate.mailbox.clone();
        let Some(known) = self.mailboxes.get(&mailbox) else {
            return Err(Refusal::MailboxNotAvailable);
        };
        let claimed = nameplate.sides.get(&me.side).map(|side| side.holds);
        let both = [&nameplate.sides, &known.sides];
        let [nameplate_admits, mailbox_admits] = both.map(|sides| sides.admits(&me.side));
        let new_to = both.iter().filter(|sides| sides.is_new(&me.side)).count();
        if !nameplate_admits {
            self.record_nameplate_side(me, name, act);
        }
        if !mailbox_admits {
            self.record_mailbox_side(&mailbox, me, act);
        }
        if !nameplate_admits || !mailbox_admits {
            return Err(Refusal::Crowded);
        }
        if new_to > 0 {
            let (holder, bytes) = (me.holder, new_to * side_bytes(&me.side));
            let growth = Growth { holder, mailbox: Some(&mailbox), bytes, is_ordinary: true };
            self.make_room(growth, act)?;
        }
        match claimed {
            Some(false) => return Err(Refusal::Reclaimed),
            Some(true) => {}
            None => self.record_nameplate_side(me, name, act),
        }
        self.open_side(&mailbox, me, act);
        Ok(mailbox)
    }

    fn create_nameplate(
        &mut self,
        me: &Identity,
        name: &Rc<str>,
        act: &mut Act<'_>,
    ) -> Result<Rc<str>, Refusal> {
        if !act.may_begin {
            return Err(Refusal::MembersOnly);
        }
        let mailbox: Rc<str> = mailbox_id(act.entropy.next_u64()).into();
        if self.mailboxes.contains_key(&mailbox) || self.remains.contains(&mailbox) {
            return Err(Refusal::MailboxNotAvailable); // once in 2^64
        }
        let limits = &self.limits;
        let nameplate_bytes = nameplate_bytes(limits, &me.app, name);
        let bytes =
            nameplate_bytes + mailbox_bytes(limits, &me.app, &mailbox) + 2 * side_bytes(&me.side);
        let holder = me.holder;
        self.make_room(Growth { holder, mailbox: None, bytes, is_ordinary: true }, act)?;
        self.create_mailbox(me, &mailbox, true, act);
        if let Some(created) = self.mailboxes.get(&mailbox) {
            created.log.charge(holder, nameplate_bytes);
        }
        self.last_nameplate.0 += 1;
        let id = self.last_nameplate;
        let nameplate = Nameplate { id, mailbox: mailbox.clone(), sides: Sides::default() };
        self.insert_nameplate(me.app.clone(), name.clone(), nameplate);
        let (app, pointed_to) = (me.app.clone(), mailbox.clone());
        act.insert(Row::Nameplate { id, app, name: name.clone(), mailbox: pointed_to });
        self.record_nameplate_side(me, name, act);
        self.open_side(&mailbox, me, act);
        Ok(mailbox)
    }

    /// Puts a side on record with a nameplate, one that claims it or a refused one.
    fn record_nameplate_side(&mut self, me: &Identity, name: &str, act: &mut Act<'_>) {
        let id = SideId(self.last_side.0 + 1);
        let Some((known, log)) = self.nameplate_and_log(&me.app, name) else { return };
        let nameplate = known.id;
        let Some(added) = known.sides.record(id, me, act.now, log) else { return };
        let (claimed, side) = (added.holds, added.side.clone());
        act.insert(Row::NameplateSide { id, nameplate, claimed, side, added: act.now });
        self.last_side = id;
    }

    /// Releases a claim, once a connection.
    pub fn release(
        &mut self,
        session: &mut Session,
        nameplate: &Field<'_>,
        act: &mut Act<'_>,
    ) -> Answer {
        let me = session.identity()?;
        self.release_for(&me, session.nameplate_to_release(nameplate)?, act);
        session.released = true;
        Ok(Some(Response::Released))
    }

    /// Releases a side's claim; the nameplate ends with its last claim.
    fn release_for(&mut self, me: &Identity, name: &str, act: &mut Act<'_>) {
        let Some((nameplate, _)) = self.nameplate_and_log(&me.app, name) else { return };
        let Some(known) = nameplate.sides.get_mut(&me.side).filter(|known| known.holds) else {
            return;
        };
        known.holds = false;
        let id = known.id;
        // A row that goes with its nameplate need not be changed first.
        if nameplate.sides.held() {
            let (nameplate, side) = (nameplate.id, me.side.clone());
            act.effects.changes.push(Change::ReleaseNameplateSide { id, nameplate, side });
        } else {
            self.delete_nameplate(&me.app, name, Some(Ending::Left), act);
        }
    }

    /// Deletes a nameplate, with a usage record if `ending` says why it ended.
    pub fn delete_nameplate(
        &mut self,
        app: &Rc<str>,
        name: &str,
        ending: Option<Ending>,
        act: &mut Act<'_>,
    ) {
        let Some(ended) = self.remove_nameplate(app, name) else { return };
        let (id, sides) = (ended.id, ended.sides.ids());
        act.effects.changes.push(Change::DeleteNameplate { id, sides });
        self.cooling.begin(app, name, act.now, self.rules.nameplate_cooldown);
        let Some(ending) = ending else { return };
        let result = usage::outcome(&ended.sides, ending, None);
        let mailbox = self.mailboxes.get(&ended.mailbox);
        let origin = mailbox.and_then(|mailbox| mailbox.beginner());
        self.record_end(app, UsageKind::Nameplate, &ended.sides, result, origin, act);
    }
}

/// A mailbox id: eight random bytes in base32.
fn mailbox_id(random: u64) -> String {
    const BITS_PER_DIGIT: u32 = 5;
    let digits = MAILBOX_ID_BITS.div_ceil(BITS_PER_DIGIT);
    // The last digit carries the bits that remain, padded with zeros on the right.
    let padded = u128::from(random) << (digits * BITS_PER_DIGIT - MAILBOX_ID_BITS);
    (0..digits)
        .rev()
        .map(|digit| {
            char::from(BASE32[(padded >> (digit * BITS_PER_DIGIT)) as usize % BASE32.len()])
        })
        .collect()
}
