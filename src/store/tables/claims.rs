//! Claiming and releasing nameplates: the rules of contract section 3 for the numbers people type.
//!
//! The part of `Tables` that deals in nameplates; its parent has the mailboxes.

use std::rc::Rc;

use super::{Tables, digits_class, take_row};
use crate::message::Refusal;
use crate::store::change::{Change, Effects};
use crate::store::nameplate::{Nameplate, Nameplates};
use crate::store::sides::{Side, Sides};
use crate::store::usage::{self, Ending};
use crate::sys::clock::Timestamp;
use crate::sys::entropy::Entropy;

/// Alphabet of base32, in lower case (mailbox ids, contract section 3).
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Bits of a mailbox id.
const MAILBOX_ID_BITS: u32 = 64;

impl Tables {
    /// A free nameplate, by the contract's order of preference.
    pub fn pick_free(&self, app: &str, random: u64, now: Timestamp) -> Option<Rc<str>> {
        let cools = self.cooling.of(app, now, self.settings.nameplate_cooldown);
        match self.apps.get(app) {
            Some(app) => app.nameplates.pick_free(random, cools),
            None => Nameplates::default().pick_free(random, cools),
        }
    }

    /// Claims a nameplate for a side and opens its mailbox for it; gives the mailbox's id.
    pub fn claim(
        &mut self,
        app: &Rc<str>,
        name: &Rc<str>,
        side: &Rc<str>,
        now: Timestamp,
        entropy: &mut dyn Entropy,
        effects: &mut Effects,
    ) -> Result<Rc<str>, Refusal> {
        let known = self.apps.get(app).and_then(|app| app.nameplates.get(name));
        let Some(nameplate) = known else {
            return self.create_nameplate(app, name, side, now, entropy, effects);
        };
        let mailbox = nameplate.mailbox.clone();
        let claimed = nameplate.sides.get(side).map(|side| side.holds);
        let nameplate_admits = nameplate.sides.admits(side);
        let mailbox_admits =
            self.mailboxes.get(&mailbox).is_some_and(|mailbox| mailbox.sides.admits(side));
        if !nameplate_admits {
            self.claim_side(app, name, side, false, now, effects);
        }
        if !mailbox_admits {
            self.record_stranger(&mailbox, side, now, effects);
        }
        if !nameplate_admits || !mailbox_admits {
            return Err(Refusal::Crowded);
        }
        match claimed {
            Some(false) => return Err(Refusal::Reclaimed),
            Some(true) => {}
            None => self.claim_side(app, name, side, true, now, effects),
        }
        self.open_side(&mailbox, side, now, effects);
        Ok(mailbox)
    }

    fn create_nameplate(
        &mut self,
        app: &Rc<str>,
        name: &Rc<str>,
        side: &Rc<str>,
        now: Timestamp,
        entropy: &mut dyn Entropy,
        effects: &mut Effects,
    ) -> Result<Rc<str>, Refusal> {
        self.check_room()?;
        let mailbox: Rc<str> = mailbox_id(entropy.next_u64()).into();
        if self.mailboxes.contains_key(&mailbox) {
            return Err(Refusal::MailboxNotAvailable); // once in 2^64
        }
        self.create_mailbox(app, &mailbox, true, now, effects);
        let row = take_row(&mut self.next_rows.nameplate);
        effects.changes.push(Change::CreateNameplate {
            row,
            app: app.clone(),
            name: name.clone(),
            mailbox: mailbox.clone(),
        });
        self.insert_nameplate(
            app.clone(),
            name.clone(),
            Nameplate { row, mailbox: mailbox.clone(), sides: Sides::default() },
        );
        self.claim_side(app, name, side, true, now, effects);
        self.open_side(&mailbox, side, now, effects);
        Ok(mailbox)
    }

    /// Puts a side on the nameplate's record, claiming it or (a stranger) not.
    fn claim_side(
        &mut self,
        app: &str,
        name: &str,
        side: &Rc<str>,
        claimed: bool,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(nameplate) = self.apps.get_mut(app).and_then(|app| app.nameplates.get_mut(name))
        else {
            return;
        };
        if !claimed && !nameplate.sides.wants_record_of(side) {
            return;
        }
        let row = take_row(&mut self.next_rows.nameplate_side);
        nameplate.sides.push(Side {
            row,
            side: side.clone(),
            added: now,
            holds: claimed,
            mood: None,
        });
        effects.changes.push(Change::AddNameplateSide {
            row,
            nameplate: nameplate.row,
            claimed,
            side: side.clone(),
            added: now,
        });
    }

    /// Releases a side's claim; the nameplate goes with its last claim.
    pub fn release(
        &mut self,
        app: &Rc<str>,
        name: &str,
        side: &Rc<str>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(nameplate) = self.apps.get_mut(app).and_then(|app| app.nameplates.get_mut(name))
        else {
            return;
        };
        let Some(known) = nameplate.sides.get_mut(side).filter(|known| known.holds) else {
            return;
        };
        known.holds = false;
        effects.changes.push(Change::ReleaseNameplateSide {
            row: known.row,
            nameplate: nameplate.row,
            side: side.clone(),
        });
        if !nameplate.sides.held() {
            self.delete_nameplate(app, name, now, Some(Ending::Left), effects);
        }
    }

    /// Deletes a nameplate as of `now`, with a usage record if `ending` says why it ended.
    pub(super) fn delete_nameplate(
        &mut self,
        app: &Rc<str>,
        name: &str,
        now: Timestamp,
        ending: Option<Ending>,
        effects: &mut Effects,
    ) {
        let Some(nameplate) = self.apps.get_mut(app).and_then(|app| app.nameplates.remove(name))
        else {
            return;
        };
        self.totals.nameplates[digits_class(name)] -= 1;
        if let Some(mailbox) = self.mailboxes.get_mut(&nameplate.mailbox) {
            mailbox.nameplates.retain(|known| **known != *name);
        }
        effects
            .changes
            .push(Change::DeleteNameplate { row: nameplate.row, sides: nameplate.sides.rows() });
        self.cooling.begin(app, name, now, self.settings.nameplate_cooldown);
        if let Some(ending) = ending {
            effects.usage.extend(usage::nameplate(
                app,
                &nameplate.sides,
                now,
                ending,
                self.settings.blur,
            ));
        }
        self.forget_app_if_unused(app);
    }
}

/// A mailbox id: eight random bytes in base32, as upstream makes them.
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
