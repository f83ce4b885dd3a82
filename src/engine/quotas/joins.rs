//! Which joins of nameplates kept another side out, and which have not shown that they are honest.
//!
//! A client that claims each new nameplate before its receiver makes every transfer fail, and does
//! so within all limits of rates. What tells it from an honest receiver is that it cannot show
//! itself: without the code it does not get as far as messages in both directions.
//!
//! A join is the claim of a nameplate that another side began. It is *shown* when both sides have
//! added [`JOIN_MESSAGES_MIN`] messages and neither has closed as `scary` or `errory` within
//! [`JOIN_PROBATION`] after. Of messages with the same phase one counts: a client's first phase
//! without the code can be valid, but not the second. Messages of the side that was there before
//! count only from its own address: the joiner could speak for it, too.
//!
//! A join *kept a side out* in these cases:
//!
//! | what happens | before the messages | in the probation | once it is shown |
//! |---|---|---|---|
//! | a third side is refused as `crowded` | kept out | kept out | see below |
//! | a side closes as `scary` | kept out | kept out | see below |
//! | a side closes as `errory` | kept out | it is never shown | |
//! | the nameplate is gone, and another side claims it, in vain | kept out | | |
//!
//! Once it is shown, it kept a side out if both come: a third side was refused, and one closed as
//! `scary`. Pure; `join_limits` charges the address.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use crate::limits::{JOIN_MESSAGES_MIN, JOIN_PROBATION};
use crate::message::handover::{JoinProgress, JoinRecord, JoinState};
use crate::message::{Holder, Outcome, hash_of};
use crate::sorted::sorted;

/// The joins of mailboxes that exist.
#[derive(Debug, Default)]
pub struct Joins {
    by_mailbox: HashMap<Rc<str>, Join>,
    /// The mailbox of the last join of each nameplate.
    by_nameplate: HashMap<NameplateHash, Rc<str>>,
    /// The ends of probations, in order.
    probations: VecDeque<(Instant, Rc<str>)>,
    charges: Vec<Charge>,
}

/// Stands for an app and the name of a nameplate in it.
type NameplateHash = u64;

/// A change to what a holder is charged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// A join counts as not shown, from now on.
    Unshown(Holder),
    /// A join that counted as not shown does so no more.
    Settled(Holder),
    KeptOut(Holder),
}

#[derive(Debug)]
struct Join {
    holder: Holder,
    /// The creator of the nameplate; none if it is exempt or unknown.
    beginner: Option<Holder>,
    /// When its probation ends, if that has begun.
    probation_end: Option<Instant>,
    progress: JoinProgress,
}

impl Joins {
    /// Begins a join of a nameplate, by its app and name; a further claim of it is none.
    pub fn begin(
        &mut self,
        mailbox: &Rc<str>,
        joiner: &Rc<str>,
        holder: Holder,
        beginner: Option<Holder>,
        nameplate: (&str, &str),
    ) {
        if self.by_mailbox.contains_key(mailbox) {
            return;
        }
        let nameplate = hash_of(nameplate);
        self.by_nameplate.insert(nameplate, mailbox.clone());
        let joiner = joiner.clone();
        let progress = JoinProgress { nameplate, joiner, ..JoinProgress::default() };
        let join = Join { holder, beginner, probation_end: None, progress };
        self.by_mailbox.insert(mailbox.clone(), join);
        self.charges.push(Charge::Unshown(holder));
    }

    /// A side added a message, by a connection of `holder`.
    pub fn note_message(
        &mut self,
        mailbox: &Rc<str>,
        side: &str,
        phase: &str,
        holder: Option<Holder>,
        now: Instant,
    ) {
        let Some(join) = self.by_mailbox.get_mut(mailbox) else { return };
        let may_speak_for_beginner = join.may_speak_for_beginner(holder);
        let progress = &mut join.progress;
        let sender = usize::from(*progress.joiner != *side);
        let may_speak = sender == 0 || may_speak_for_beginner;
        if progress.state != JoinState::Unshown || !may_speak {
            return;
        }
        let phase = hash_of(phase);
        if progress.last_phases[sender].replace(phase) != Some(phase) {
            progress.messages[sender] += 1;
        }
        if progress.messages.iter().all(|count| *count >= JOIN_MESSAGES_MIN) {
            progress.state = JoinState::Probation;
            let end = now + JOIN_PROBATION;
            join.probation_end = Some(end);
            self.probations.push_back((end, mailbox.clone()));
        }
    }

    /// A side closed the mailbox.
    pub fn note_close(&mut self, mailbox: &str, mood: Option<Outcome>) {
        let Some(join) = self.by_mailbox.get_mut(mailbox) else { return };
        let (is_scary, is_errory) = (mood == Some(Outcome::Scary), mood == Some(Outcome::Errory));
        join.progress.is_scary |= is_scary;
        let state = join.progress.state;
        if state == JoinState::Shown || !(is_scary || is_errory) {
            return;
        }
        join.progress.state = JoinState::Failed;
        if is_scary || state == JoinState::Unshown {
            self.charges.extend(join.keep_out());
        }
    }

    /// A third side was refused.
    pub fn note_crowded(&mut self, mailbox: &str) {
        let Some(join) = self.by_mailbox.get_mut(mailbox) else { return };
        join.progress.is_crowded = true;
        if join.progress.state != JoinState::Shown {
            self.charges.extend(join.keep_out());
        }
    }

    /// A side claimed a nameplate that had ended: whoever released it before their messages has
    /// left the receiver to wait in vain.
    pub fn note_claimed_anew(&mut self, nameplate: (&str, &str)) {
        let mailbox = self.by_nameplate.remove(&hash_of(nameplate));
        let join = mailbox.and_then(|mailbox| self.by_mailbox.get_mut(&mailbox));
        if let Some(join) = join.filter(|join| join.progress.state == JoinState::Unshown) {
            self.charges.extend(join.keep_out());
        }
    }

    /// The mailbox is deleted.
    pub fn end(&mut self, mailbox: &str) {
        let Some(mut join) = self.by_mailbox.remove(mailbox) else { return };
        let JoinProgress { nameplate, state, is_scary, is_crowded, .. } = join.progress;
        if self.by_nameplate.get(&nameplate).is_some_and(|last| **last == *mailbox) {
            self.by_nameplate.remove(&nameplate);
        }
        if state != JoinState::Shown {
            self.charges.push(Charge::Settled(join.holder));
        }
        if is_scary && is_crowded {
            self.charges.extend(join.keep_out());
        }
    }

    /// Ends the joins of mailboxes that are not stored.
    pub fn retain(&mut self, is_stored: impl Fn(&str) -> bool) {
        let known: Vec<Rc<str>> = self.by_mailbox.keys().cloned().collect();
        known.iter().filter(|mailbox| !is_stored(mailbox)).for_each(|it| self.end(it));
    }

    /// The charges since the last call.
    pub fn take_charges(&mut self) -> Vec<Charge> {
        std::mem::take(&mut self.charges)
    }

    /// Ends the probations whose time is up. To be called before what happens at that time.
    pub fn end_probations(&mut self, now: Instant) {
        while self.probations.front().is_some_and(|(end, _)| *end <= now) {
            let Some((end, mailbox)) = self.probations.pop_front() else { return };
            // The mailbox may be gone, and another may have its id.
            if let Some(join) = self.by_mailbox.get_mut(&mailbox)
                && join.progress.state == JoinState::Probation
                && join.probation_end == Some(end)
            {
                join.progress.state = JoinState::Shown;
                self.charges.push(Charge::Settled(join.holder));
            }
        }
    }

    /// The joins, for another process to go on with.
    pub fn export(&self, now: Instant) -> Vec<JoinRecord> {
        // As probations are in the order of their ends, so they must be restored.
        let ends = self.by_mailbox.iter().map(|(mailbox, join)| (join.probation_end, mailbox));
        let records = sorted(ends).into_iter().map(|(end, mailbox)| {
            let join = &self.by_mailbox[mailbox];
            JoinRecord {
                mailbox: mailbox.clone(),
                holder: join.holder.address,
                beginner: join.beginner.map(|beginner| beginner.address),
                probation: end.map(|end| end.saturating_duration_since(now)),
                progress: join.progress.clone(),
            }
        });
        records.collect()
    }

    /// Goes on with a join of another process, of this holder.
    pub fn restore(
        &mut self,
        record: JoinRecord,
        holder: Holder,
        beginner: Option<Holder>,
        now: Instant,
    ) {
        let JoinRecord { mailbox, probation, progress, .. } = record;
        let probation_end = probation.map(|left| now + left.min(JOIN_PROBATION));
        self.probations.extend(probation_end.map(|end| (end, mailbox.clone())));
        self.by_nameplate.insert(progress.nameplate, mailbox.clone());
        if progress.state != JoinState::Shown {
            self.charges.push(Charge::Unshown(holder));
        }
        self.by_mailbox.insert(mailbox, Join { holder, beginner, probation_end, progress });
    }
}

impl Join {
    /// Whether messages of the side that was there before count from that holder.
    fn may_speak_for_beginner(&self, holder: Option<Holder>) -> bool {
        match self.beginner {
            Some(_) => holder == self.beginner,
            None => holder != Some(self.holder),
        }
    }

    /// The charge for keeping a side out; none if it was made before.
    fn keep_out(&mut self) -> Option<Charge> {
        let was_charged = std::mem::replace(&mut self.progress.is_charged, true);
        (!was_charged).then_some(Charge::KeptOut(self.holder))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use super::*;
    use crate::message::CountedAddress;

    const HOLDER: Holder = holder(7);
    const BEGINNER: Holder = holder(8);
    const NAMEPLATE: (&str, &str) = ("app", "4");

    const fn holder(last: u8) -> Holder {
        let ip = IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        Holder { address: CountedAddress::Ip(ip), onion_bits: None }
    }

    /// The events of one mailbox, and their time in seconds.
    struct Exchange {
        joins: Joins,
        mailbox: Rc<str>,
        start: Instant,
        phases: u32,
    }

    impl Exchange {
        fn new() -> Exchange {
            let (joins, start) = (Joins::default(), Instant::now());
            let mut exchange = Exchange { joins, mailbox: "m".into(), start, phases: 0 };
            let joiner = "joiner".into();
            exchange.begin(&joiner);
            assert_eq!(exchange.charges(0), [Charge::Unshown(HOLDER)]);
            // A claim repeated is no join.
            exchange.begin(&joiner);
            assert_eq!(exchange.charges(0), []);
            exchange
        }

        fn begin(&mut self, joiner: &Rc<str>) {
            self.joins.begin(&self.mailbox, joiner, HOLDER, Some(BEGINNER), NAMEPLATE);
        }

        fn at(&mut self, seconds: u64) -> &mut Joins {
            self.joins.end_probations(self.start + Duration::from_secs(seconds));
            &mut self.joins
        }

        fn charges(&mut self, seconds: u64) -> Vec<Charge> {
            self.at(seconds).take_charges()
        }

        /// Each message has a phase of its own.
        fn messages(&mut self, sides: &[&str], seconds: u64) {
            for side in sides {
                self.phases += 1;
                let phase = self.phases.to_string();
                self.message(side, &phase, seconds);
            }
        }

        fn message(&mut self, side: &str, phase: &str, seconds: u64) {
            let holder = if side == "sender" { BEGINNER } else { HOLDER };
            let now = self.start + Duration::from_secs(seconds);
            let mailbox = self.mailbox.clone();
            self.at(seconds).note_message(&mailbox, side, phase, Some(holder), now);
        }

        fn close(&mut self, mood: Outcome, seconds: u64) {
            self.at(seconds).note_close("m", Some(mood));
        }

        fn crowded(&mut self, seconds: u64) {
            self.at(seconds).note_crowded("m");
        }

        fn end(&mut self, seconds: u64) {
            self.at(seconds).end("m");
        }
    }

    const BOTH_TWICE: [&str; 4] = ["sender", "joiner", "sender", "joiner"];

    #[test]
    fn two_messages_of_both_sides_and_ten_quiet_seconds_show_a_join() {
        let mut exchange = Exchange::new();
        exchange.messages(&["sender", "joiner", "sender", "sender"], 1);
        assert_eq!(exchange.charges(1_000), []);
        exchange.messages(&["joiner"], 1_000);
        assert_eq!(exchange.charges(1_009), []);
        assert_eq!(exchange.charges(1_010), [Charge::Settled(HOLDER)]);
        // A side that it keeps out now is not charged.
        exchange.crowded(1_011);
        exchange.end(1_012);
        assert_eq!(exchange.charges(1_012), []);
        assert!(exchange.joins.by_mailbox.is_empty());
    }

    #[test]
    fn a_side_refused_before_the_join_is_shown_is_charged_once() {
        for messages in [&[][..], &["sender", "joiner"], &BOTH_TWICE] {
            let mut exchange = Exchange::new();
            exchange.messages(messages, 1);
            exchange.crowded(2);
            exchange.crowded(2);
            assert_eq!(exchange.charges(2), [Charge::KeptOut(HOLDER)]);
            exchange.close(Outcome::Scary, 3);
            exchange.end(3);
            assert_eq!(exchange.charges(3), [Charge::Settled(HOLDER)]);
        }
    }

    #[test]
    fn a_bad_close_in_the_probation_leaves_the_join_unshown() {
        let kept_out = &[Charge::KeptOut(HOLDER)][..];
        for (mood, at_once, later) in
            [(Outcome::Scary, kept_out, &[][..]), (Outcome::Errory, &[], kept_out)]
        {
            let mut exchange = Exchange::new();
            exchange.messages(&BOTH_TWICE, 1);
            exchange.close(mood, 10);
            assert_eq!(exchange.charges(1_000), at_once);
            exchange.crowded(1_000);
            assert_eq!(exchange.charges(1_000), later);
            exchange.end(1_001);
            assert_eq!(exchange.charges(1_001), [Charge::Settled(HOLDER)]);
        }
        for (mood, seconds) in [(Outcome::Happy, 10), (Outcome::Lonely, 10), (Outcome::Scary, 11)] {
            let mut exchange = Exchange::new();
            exchange.messages(&BOTH_TWICE, 1);
            exchange.close(mood, seconds);
            assert_eq!(exchange.charges(11), [Charge::Settled(HOLDER)], "{mood:?}");
        }
    }

    #[test]
    fn a_join_that_ends_the_exchange_before_its_messages_is_charged_though_no_third_side_comes() {
        for mood in [Outcome::Scary, Outcome::Errory] {
            let mut exchange = Exchange::new();
            exchange.messages(&["sender", "joiner", "sender"], 1);
            exchange.close(mood, 1);
            exchange.close(mood, 1);
            assert_eq!(exchange.charges(1), [Charge::KeptOut(HOLDER)], "{mood:?}");
            exchange.end(2);
            assert_eq!(exchange.charges(2), [Charge::Settled(HOLDER)], "{mood:?}");
        }
        for mood in [Outcome::Happy, Outcome::Lonely] {
            let mut exchange = Exchange::new();
            exchange.close(mood, 1);
            assert_eq!(exchange.charges(1), [], "{mood:?}");
        }
    }

    #[test]
    fn the_same_phase_again_does_not_show_a_join() {
        let mut exchange = Exchange::new();
        exchange.messages(&["sender", "sender"], 1);
        (0..10).for_each(|_| exchange.message("joiner", "pake", 1));
        assert_eq!(exchange.charges(1_000), []);
        exchange.message("joiner", "version", 1_000);
        assert_eq!(exchange.charges(1_010), [Charge::Settled(HOLDER)]);
    }

    #[test]
    fn the_joiner_cannot_speak_for_the_side_that_began() {
        let speak = |beginner, holder, seconds| {
            let mut exchange = Exchange::new();
            exchange.end(0);
            _ = exchange.charges(0);
            let joiner = "joiner".into();
            exchange.joins.begin(&exchange.mailbox, &joiner, HOLDER, beginner, NAMEPLATE);
            for (side, phase, of) in [
                ("joiner", "a", HOLDER),
                ("joiner", "b", HOLDER),
                ("sender", "a", holder),
                ("sender", "b", holder),
            ] {
                exchange.joins.note_message(
                    &exchange.mailbox,
                    side,
                    phase,
                    Some(of),
                    exchange.start,
                );
            }
            assert_eq!(exchange.charges(0), [Charge::Unshown(HOLDER)]);
            exchange.charges(seconds)
        };
        assert_eq!(speak(Some(BEGINNER), HOLDER, 1_000), []);
        assert_eq!(speak(None, HOLDER, 1_000), []);
        // Two of one address are an office.
        let shown = [Charge::Settled(HOLDER)];
        assert_eq!(speak(Some(HOLDER), HOLDER, 10), shown);
        assert_eq!(speak(None, BEGINNER, 10), shown);
    }

    #[test]
    fn a_nameplate_claimed_anew_shows_that_its_receiver_was_kept_out() {
        for (messages, expected) in
            [(&["sender", "joiner"][..], &[Charge::KeptOut(HOLDER)][..]), (&BOTH_TWICE, &[])]
        {
            let mut exchange = Exchange::new();
            exchange.messages(messages, 1);
            for _ in 0..2 {
                exchange.at(2).note_claimed_anew(("other app", "4"));
                assert_eq!(exchange.charges(2), []);
            }
            exchange.at(2).note_claimed_anew(NAMEPLATE);
            assert_eq!(exchange.charges(2), expected);
            exchange.at(2).note_claimed_anew(NAMEPLATE);
            exchange.end(3);
            assert_eq!(exchange.charges(3), [Charge::Settled(HOLDER)]);
            assert!(exchange.joins.by_nameplate.is_empty());
        }
    }

    #[test]
    fn a_shown_join_that_ends_scary_counts_again_if_it_kept_a_side_out() {
        for (is_crowded, expected) in [(true, &[Charge::KeptOut(HOLDER)][..]), (false, &[])] {
            let mut exchange = Exchange::new();
            exchange.messages(&BOTH_TWICE, 1);
            assert_eq!(exchange.charges(11), [Charge::Settled(HOLDER)]);
            if is_crowded {
                exchange.crowded(12);
            }
            exchange.close(Outcome::Scary, 13);
            exchange.end(13);
            assert_eq!(exchange.charges(13), expected);
        }
    }

    #[test]
    fn a_probation_does_not_pass_to_a_new_mailbox_of_the_same_id() {
        let mut exchange = Exchange::new();
        exchange.messages(&BOTH_TWICE, 1);
        exchange.end(2);
        assert_eq!(exchange.charges(2), [Charge::Settled(HOLDER)]);
        exchange.begin(&"joiner".into());
        assert_eq!(exchange.charges(3), [Charge::Unshown(HOLDER)]);
        exchange.messages(&BOTH_TWICE, 4);
        assert_eq!(exchange.charges(13), []);
        assert_eq!(exchange.charges(14), [Charge::Settled(HOLDER)]);
    }
}
