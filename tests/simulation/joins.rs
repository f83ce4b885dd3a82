//! The model's limits of prefixes and of joins (manual: limits 2).

use std::time::{Duration, Instant};

use crate::faults::Fault;
use crate::model::{Model, Refused};
use crate::rows::{Name, Stored};
use crate::sessions::Client;
use crate::world::FIRST_IPV6;

/// Tokens of the limit of joins; a binary fraction, so that sums of it are exact.
pub const JOINS_PER_SECOND: f64 = 1.0 / 128.0;

const PROBATION: Duration = Duration::from_secs(10);

/// Who has limits: an IPv4 address, or an IPv6 prefix of that many bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Holder {
    Address(u8),
    Prefix(u8),
}

#[derive(Clone, Debug, Default)]
pub struct Joins {
    joins: Vec<Join>,
    /// How many joins of a holder may still keep a side out, and when that was so.
    tokens: Vec<(Holder, f64, Instant)>,
}

#[derive(Clone, Debug)]
struct Join {
    mailbox: Name,
    nameplate: (Name, Name),
    source: u8,
    joiner: Name,
    beginner: Option<u8>,
    /// Phases of the joiner, and of the other side; of equal ones in a row, one.
    phases: [Vec<Name>; 2],
    /// Since when both have two.
    complete: Option<Instant>,
    has_failed: bool,
    is_crowded: bool,
    is_scary: bool,
    is_charged: bool,
    /// Nothing is learnt any more from its nameplate.
    is_left: bool,
}

impl Join {
    fn is_shown(&self, now: Instant) -> bool {
        !self.has_failed && self.complete.is_some_and(|since| since + PROBATION <= now)
    }

    fn is_open(&self) -> bool {
        self.complete.is_none() && !self.has_failed
    }
}

/// A nameplate and its mailbox before a claim.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    New,
    /// The side is on neither record.
    Joinable,
    Known,
}

impl Model {
    /// The holders that an address counts for, each with the multiple of the limits that it has.
    pub fn holders(&self, address: u8) -> Vec<(Holder, usize)> {
        let own = (Holder::Address(address), 1);
        match address < FIRST_IPV6 || self.fault == Some(Fault::PrefixesAreFree) {
            true => vec![own],
            false => vec![own, (Holder::Prefix(56), 4), (Holder::Prefix(48), 16)],
        }
    }

    pub fn counts_for(&self, address: u8, holder: Holder) -> bool {
        self.holders(address).iter().any(|(its, _)| *its == holder)
    }

    fn tokens(&mut self, holder: Holder, factor: usize) -> &mut f64 {
        let (now, factor) = (self.times.instant, factor as f64);
        let most = factor * self.settings.address_join_burst as f64;
        let tokens = &mut self.joins.tokens;
        let place = tokens.iter().position(|(its, ..)| *its == holder).unwrap_or_else(|| {
            tokens.push((holder, most, now));
            tokens.len() - 1
        });
        let (_, left, since) = &mut tokens[place];
        let seconds = (now - std::mem::replace(since, now)).as_secs_f64();
        *left = (*left + factor * JOINS_PER_SECOND * seconds).min(most);
        left
    }

    /// Whether an address may join a nameplate, if the claim is a join.
    pub fn check_join(&mut self, client: &Client, address: u8, name: &Name) -> Result<(), Refused> {
        let Some((app, side)) = &client.bound else { return Ok(()) };
        let Some(nameplate) = self.nameplate(app, name) else { return Ok(()) };
        let knows = nameplate.sides.iter().any(|known| known.side == *side);
        if knows || nameplate.sides.len() >= 2 {
            return Ok(());
        }
        let holders = self.holders(address).into_iter();
        match holders.map(|(holder, factor)| *self.tokens(holder, factor)).any(|left| left < 1.0) {
            true => Err("too many 'claim' from your address…".into()),
            false => Ok(()),
        }
    }

    pub fn place_of(&mut self, app: &Name, name: &Name, side: &Name) -> Place {
        let Some(nameplate) = self.nameplate(app, name) else { return Place::New };
        let knows = nameplate.sides.iter().any(|known| known.side == *side);
        let id = nameplate.mailbox.clone();
        let opened =
            self.mailbox(&id).is_some_and(|it| it.sides.iter().any(|its| its.side == *side));
        if knows || opened { Place::Known } else { Place::Joinable }
    }

    /// A claim was carried out; `place` is what it has found.
    pub fn note_claim(
        &mut self,
        client: &Client,
        place: Place,
        (app, name): (&Name, &Name),
        mailbox: &Name,
        side: &Name,
    ) {
        let nameplate = (app.clone(), name.clone());
        match (place, client.address) {
            (Place::New, _) => self.note_claimed_anew(&nameplate),
            (Place::Joinable, Some(source)) => {
                let mut creators = self.creators.iter();
                let creator =
                    creators.rfind(|(its_app, its_name, _)| its_app == app && its_name == name);
                self.joins.joins.push(Join {
                    mailbox: mailbox.clone(),
                    source,
                    joiner: side.clone(),
                    beginner: creator.and_then(|(.., by)| *by),
                    nameplate,
                    phases: [Vec::new(), Vec::new()],
                    complete: None,
                    has_failed: false,
                    is_crowded: false,
                    is_scary: false,
                    is_charged: false,
                    is_left: false,
                });
            }
            _ => {}
        }
    }

    fn note_claimed_anew(&mut self, nameplate: &(Name, Name)) {
        if self.fault == Some(Fault::ReleasesAreFree) {
            return;
        }
        let last = self.joins.joins.iter_mut().rfind(|join| join.nameplate == *nameplate);
        if let Some(join) = last.filter(|join| !join.is_left) {
            join.is_left = true;
            if join.is_open() {
                let mailbox = join.mailbox.clone();
                self.charge_join(&mailbox);
            }
        }
    }

    fn join(&mut self, mailbox: &Name) -> Option<&mut Join> {
        self.joins.joins.iter_mut().find(|join| join.mailbox == *mailbox)
    }

    /// The join of a mailbox has kept a side out.
    fn charge_join(&mut self, mailbox: &Name) {
        let is_free = self.fault == Some(Fault::JoinsAreFree);
        let Some(join) = self.join(mailbox).filter(|join| !join.is_charged && !is_free) else {
            return;
        };
        join.is_charged = true;
        let source = join.source;
        for (holder, factor) in self.holders(source) {
            *self.tokens(holder, factor) -= 1.0;
        }
    }

    pub fn join_message(&mut self, mailbox: &Name, message: &Stored, address: Option<u8>) {
        let now = self.times.instant;
        let Some(join) = self.join(mailbox).filter(|join| join.is_open()) else { return };
        let is_other = message.side != join.joiner;
        let may_speak = match join.beginner {
            Some(_) => address == join.beginner,
            None => address != Some(join.source),
        };
        if is_other && !may_speak {
            return;
        }
        let phases = &mut join.phases[usize::from(is_other)];
        if phases.last() != Some(&message.phase) {
            phases.push(message.phase.clone());
        }
        if join.phases.iter().all(|phases| phases.len() >= 2) {
            join.complete = Some(now);
        }
    }

    pub fn join_crowded(&mut self, mailbox: &Name) {
        let now = self.times.instant;
        let Some(join) = self.join(mailbox) else { return };
        join.is_crowded = true;
        if !join.is_shown(now) {
            self.charge_join(mailbox);
        }
    }

    pub fn join_closed(&mut self, mailbox: &Name, mood: Option<&str>) {
        let now = self.times.instant;
        let Some(join) = self.join(mailbox) else { return };
        join.is_scary |= mood == Some("scary");
        let (is_shown, is_open) = (join.is_shown(now), join.is_open());
        let ends = match mood {
            Some("scary") => !is_shown,
            Some("errory") => is_open,
            _ => false,
        };
        join.has_failed |= matches!(mood, Some("scary" | "errory")) && !is_shown;
        if ends {
            self.charge_join(mailbox);
        }
    }

    /// The mailbox is gone.
    pub fn join_ended(&mut self, mailbox: &Name) {
        if self.join(mailbox).is_some_and(|join| join.is_scary && join.is_crowded) {
            self.charge_join(mailbox);
        }
        self.joins.joins.retain(|join| join.mailbox != *mailbox);
    }
}
