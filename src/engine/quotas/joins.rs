//! Which joins of nameplates kept another side out, and which have not shown that they are honest.
//!
//! A client that claims each new nameplate before its receiver makes every transfer fail, and does
//! so within all limits of rates. What tells it from an honest receiver is that it cannot show
//! itself: without the code it does not get as far as messages in both directions.
//!
//! A join is the claim of a nameplate that another side began. It is *shown* when both sides have
//! added [`JOIN_MESSAGES_MIN`] messages and neither has closed as `scary` or `errory` within
//! [`JOIN_PROBATION`] after. Of messages with the same phase one counts: a client's first phase
//! without the code can be valid, but not the second. It *kept a side out* if a third side was
//! refused as `crowded` before it was shown, or at any time if a side closed as `scary`; and if it
//! ended the exchange for the side that began it, before another could come: a side closed as
//! `scary` before it was shown, or as `errory` before the messages. Pure; [`Quotas`] charges the
//! address.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::usage::Action;
use super::{Quotas, whole_seconds};
use crate::limits::{JOIN_MESSAGES_MIN, JOIN_PROBATION};
use crate::message::handover::{CountedAddress, JoinRecord, JoinState};
use crate::message::outcome::Mood;
use crate::message::{ConnId, Refusal, Throttled};
use crate::store::{Change, Row};

/// The joins of mailboxes that exist. `S` is the source that is charged for a join.
#[derive(Debug)]
pub struct Joins<S> {
    by_mailbox: HashMap<Rc<str>, Join<S>>,
    /// The ends of probations, in order.
    probations: VecDeque<(Instant, Rc<str>)>,
    charges: Vec<Charge<S>>,
}

/// A change to what a source is charged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge<S> {
    /// A join counts as not shown, from now on.
    Unshown(S),
    /// A join that counted as not shown does so no more.
    Settled(S),
    KeptOut(S),
}

#[derive(Debug)]
struct Join<S> {
    source: S,
    joiner: Rc<str>,
    /// Messages of the joiner, and of the side that was there before, each in a phase of its own.
    messages: [usize; 2],
    /// Hashes of the phases of their last messages.
    last_phases: [Option<u64>; 2],
    state: State,
    /// A third side was refused.
    is_crowded: bool,
    is_scary: bool,
    /// It has been charged as having kept a side out.
    is_charged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unshown,
    /// Both sides have added their messages.
    Probation {
        end: Instant,
    },
    /// A side closed as `scary` or `errory`: it will not be shown.
    Failed,
    Shown,
}

impl<S> Default for Joins<S> {
    fn default() -> Joins<S> {
        Joins { by_mailbox: HashMap::new(), probations: VecDeque::new(), charges: Vec::new() }
    }
}

impl<S: Copy> Joins<S> {
    /// Begins a join; a further claim of the same nameplate is none.
    pub fn begin(&mut self, mailbox: &Rc<str>, joiner: &Rc<str>, source: S) {
        if self.by_mailbox.contains_key(mailbox) {
            return;
        }
        let join = Join {
            source,
            joiner: joiner.clone(),
            messages: [0, 0],
            last_phases: [None, None],
            state: State::Unshown,
            is_crowded: false,
            is_scary: false,
            is_charged: false,
        };
        self.by_mailbox.insert(mailbox.clone(), join);
        self.charges.push(Charge::Unshown(source));
    }

    /// A side added a message.
    pub fn note_message(&mut self, mailbox: &Rc<str>, side: &str, phase: &str, now: Instant) {
        self.end_probations(now);
        let Some(join) = self.by_mailbox.get_mut(mailbox) else { return };
        if join.state != State::Unshown {
            return;
        }
        let sender = usize::from(*join.joiner != *side);
        let mut hasher = DefaultHasher::new();
        phase.hash(&mut hasher);
        if join.last_phases[sender].replace(hasher.finish()) != join.last_phases[sender] {
            join.messages[sender] += 1;
        }
        let is_complete = join.messages.iter().all(|count| *count >= JOIN_MESSAGES_MIN);
        if is_complete {
            let end = now + JOIN_PROBATION;
            join.state = State::Probation { end };
            self.probations.push_back((end, mailbox.clone()));
        }
    }

    /// A side closed the mailbox.
    pub fn note_close(&mut self, mailbox: &str, mood: Option<Mood>, now: Instant) {
        self.end_probations(now);
        let Some(join) = self.by_mailbox.get_mut(mailbox) else { return };
        join.is_scary |= mood == Some(Mood::Scary);
        let ends_exchange = match mood {
            Some(Mood::Scary) => join.state != State::Shown,
            Some(Mood::Errory) => join.state == State::Unshown,
            _ => false,
        };
        if matches!(mood, Some(Mood::Scary | Mood::Errory)) && join.state != State::Shown {
            join.state = State::Failed;
        }
        if ends_exchange && !join.is_charged {
            join.is_charged = true;
            self.charges.push(Charge::KeptOut(join.source));
        }
    }

    /// A third side was refused.
    pub fn note_crowded(&mut self, mailbox: &str, now: Instant) {
        self.end_probations(now);
        let Some(join) = self.by_mailbox.get_mut(mailbox) else { return };
        join.is_crowded = true;
        if join.state != State::Shown && !join.is_charged {
            join.is_charged = true;
            self.charges.push(Charge::KeptOut(join.source));
        }
    }

    /// The mailbox is deleted.
    pub fn end(&mut self, mailbox: &str, now: Instant) {
        self.end_probations(now);
        let Some(join) = self.by_mailbox.remove(mailbox) else { return };
        if join.state != State::Shown {
            self.charges.push(Charge::Settled(join.source));
        }
        if join.is_scary && join.is_crowded && !join.is_charged {
            self.charges.push(Charge::KeptOut(join.source));
        }
    }

    /// What has changed by `now`, since the last call.
    pub fn take_charges(&mut self, now: Instant) -> Vec<Charge<S>> {
        self.end_probations(now);
        std::mem::take(&mut self.charges)
    }

    fn end_probations(&mut self, now: Instant) {
        while self.probations.front().is_some_and(|(end, _)| *end <= now) {
            let Some((end, mailbox)) = self.probations.pop_front() else { return };
            // The mailbox may be gone, and another may have its id.
            if let Some(join) = self.by_mailbox.get_mut(&mailbox)
                && join.state == (State::Probation { end })
            {
                join.state = State::Shown;
                self.charges.push(Charge::Settled(join.source));
            }
        }
    }
}

impl<S: Copy + Into<CountedAddress>> Joins<S> {
    /// The joins, for another process to go on with.
    pub fn export(&self, now: Instant) -> Vec<JoinRecord> {
        let records = self.by_mailbox.iter().map(|(mailbox, join)| JoinRecord {
            mailbox: mailbox.to_string(),
            source: join.source.into(),
            joiner: join.joiner.to_string(),
            messages: join.messages.map(|count| count as u64),
            last_phases: join.last_phases,
            state: match join.state {
                State::Unshown => JoinState::Unshown,
                State::Probation { end } => {
                    JoinState::Probation { left: end.saturating_duration_since(now) }
                }
                State::Failed => JoinState::Failed,
                State::Shown => JoinState::Shown,
            },
            is_crowded: join.is_crowded,
            is_scary: join.is_scary,
            is_charged: join.is_charged,
        });
        let mut records: Vec<_> = records.collect();
        // As probations are in the order of their ends, so they must be restored.
        records.sort_by_key(|record| match record.state {
            JoinState::Probation { left } => left,
            _ => Duration::ZERO,
        });
        records
    }

    /// Goes on with a join of another process, of this source.
    pub fn restore(&mut self, record: JoinRecord, source: S, now: Instant) {
        let mailbox = Rc::from(record.mailbox);
        let state = match record.state {
            JoinState::Unshown => State::Unshown,
            JoinState::Probation { left } => {
                let end = now + left.min(JOIN_PROBATION);
                self.probations.push_back((end, Rc::clone(&mailbox)));
                State::Probation { end }
            }
            JoinState::Failed => State::Failed,
            JoinState::Shown => State::Shown,
        };
        if state != State::Shown {
            self.charges.push(Charge::Unshown(source));
        }
        let join = Join {
            source,
            joiner: record.joiner.into(),
            messages: record.messages.map(|count| usize::try_from(count).unwrap_or(usize::MAX)),
            last_phases: record.last_phases,
            state,
            is_crowded: record.is_crowded,
            is_scary: record.is_scary,
            is_charged: record.is_charged,
        };
        self.by_mailbox.insert(mailbox, join);
    }
}

impl Quotas {
    /// Checks the limits of joining a nameplate that another side began.
    pub fn check_join(&mut self, conn: ConnId, now: Instant) -> Result<(), Refusal> {
        self.charge_joins(now);
        let Some(&source) = self.connections.get(&conn) else { return Ok(()) };
        let wait = self.wait(source, Action::KeepOut, now);
        let has_room = self.all(source, now, |limits, usage| {
            usage.unshown_joins < limits.address_connections_max.saturating_mul(usage.factor)
        });
        let wait = if has_room { wait } else { wait.max(JOIN_PROBATION) };
        if wait > Duration::ZERO {
            let (command, retry_seconds) = (Throttled::Claim, whole_seconds(wait));
            return Err(Refusal::TooFast { command, retry_seconds });
        }
        Ok(())
    }

    /// Counts the joins in the changes of a command, and what becomes of earlier ones.
    pub(super) fn note_joins(&mut self, conn: ConnId, changes: &[Change], now: Instant) {
        let is_join = |change: &Change| {
            matches!(change, Change::Insert(Row::NameplateSide { claimed: true, .. }))
        };
        let is_new = |change: &Change| matches!(change, Change::Insert(Row::Nameplate { .. }));
        let joins = changes.iter().any(is_join) && !changes.iter().any(is_new);
        for change in changes {
            match change {
                Change::Insert(Row::MailboxSide { mailbox, opened: false, .. }) => {
                    self.joins.note_crowded(mailbox, now);
                }
                Change::Insert(Row::MailboxSide { mailbox, side, .. }) if joins => {
                    if let Some(&source) = self.connections.get(&conn) {
                        self.joins.begin(mailbox, side, source);
                        self.joined.push(mailbox.clone());
                    }
                }
                Change::Insert(Row::Message { mailbox, message, .. }) => {
                    self.joins.note_message(mailbox, &message.side, &message.phase(), now);
                }
                Change::CloseMailboxSide { mailbox, mood, .. } => {
                    let mood = mood.as_deref().map(Mood::from_name);
                    self.joins.note_close(mailbox, mood, now);
                }
                _ => {}
            }
        }
    }

    pub(super) fn charge_joins(&mut self, now: Instant) {
        for charge in self.joins.take_charges(now) {
            match charge {
                Charge::Unshown(source) => self.update(source, |usage| usage.unshown_joins += 1),
                Charge::Settled(source) => self.update(source, |usage| {
                    usage.unshown_joins = usage.unshown_joins.saturating_sub(1);
                }),
                Charge::KeptOut(source) => {
                    self.wait(source, Action::KeepOut, now);
                    self.spend(source, Action::KeepOut);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{address, quotas};
    use super::*;
    use crate::limits::Limits;
    use crate::message::log::Message;

    const SOURCE: u32 = 7;

    /// The events of one mailbox, and their time in seconds.
    struct Exchange {
        joins: Joins<u32>,
        mailbox: Rc<str>,
        start: Instant,
        phases: u32,
    }

    impl Exchange {
        fn new() -> Exchange {
            let (joins, start) = (Joins::default(), Instant::now());
            let mut exchange = Exchange { joins, mailbox: "m".into(), start, phases: 0 };
            let joiner = "joiner".into();
            exchange.joins.begin(&exchange.mailbox, &joiner, SOURCE);
            assert_eq!(exchange.charges(0), [Charge::Unshown(SOURCE)]);
            // A claim repeated is no join.
            exchange.joins.begin(&exchange.mailbox, &joiner, SOURCE);
            assert_eq!(exchange.charges(0), []);
            exchange
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn charges(&mut self, seconds: u64) -> Vec<Charge<u32>> {
            self.joins.take_charges(self.at(seconds))
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
            self.joins.note_message(&self.mailbox, side, phase, self.at(seconds));
        }

        fn close(&mut self, mood: Mood, seconds: u64) {
            self.joins.note_close("m", Some(mood), self.at(seconds));
        }

        fn crowded(&mut self, seconds: u64) {
            self.joins.note_crowded("m", self.at(seconds));
        }

        fn end(&mut self, seconds: u64) {
            self.joins.end("m", self.at(seconds));
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
        assert_eq!(exchange.charges(1_010), [Charge::Settled(SOURCE)]);
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
            assert_eq!(exchange.charges(2), [Charge::KeptOut(SOURCE)]);
            exchange.close(Mood::Scary, 3);
            exchange.end(3);
            assert_eq!(exchange.charges(3), [Charge::Settled(SOURCE)]);
        }
    }

    #[test]
    fn a_bad_close_in_the_probation_leaves_the_join_unshown() {
        let kept_out = &[Charge::KeptOut(SOURCE)][..];
        for (mood, at_once, later) in
            [(Mood::Scary, kept_out, &[][..]), (Mood::Errory, &[], kept_out)]
        {
            let mut exchange = Exchange::new();
            exchange.messages(&BOTH_TWICE, 1);
            exchange.close(mood, 10);
            assert_eq!(exchange.charges(1_000), at_once);
            exchange.crowded(1_000);
            assert_eq!(exchange.charges(1_000), later);
            exchange.end(1_001);
            assert_eq!(exchange.charges(1_001), [Charge::Settled(SOURCE)]);
        }
        for (mood, seconds) in [(Mood::Happy, 10), (Mood::Lonely, 10), (Mood::Scary, 11)] {
            let mut exchange = Exchange::new();
            exchange.messages(&BOTH_TWICE, 1);
            exchange.close(mood, seconds);
            assert_eq!(exchange.charges(11), [Charge::Settled(SOURCE)], "{mood:?}");
        }
    }

    #[test]
    fn a_join_that_ends_the_exchange_before_its_messages_is_charged_though_no_third_side_comes() {
        for mood in [Mood::Scary, Mood::Errory] {
            let mut exchange = Exchange::new();
            exchange.messages(&["sender", "joiner", "sender"], 1);
            exchange.close(mood, 1);
            exchange.close(mood, 1);
            assert_eq!(exchange.charges(1), [Charge::KeptOut(SOURCE)], "{mood:?}");
            exchange.end(2);
            assert_eq!(exchange.charges(2), [Charge::Settled(SOURCE)], "{mood:?}");
        }
        for mood in [Mood::Happy, Mood::Lonely] {
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
        assert_eq!(exchange.charges(1_010), [Charge::Settled(SOURCE)]);
    }

    #[test]
    fn a_shown_join_that_ends_scary_counts_again_if_it_kept_a_side_out() {
        for (is_crowded, expected) in [(true, &[Charge::KeptOut(SOURCE)][..]), (false, &[])] {
            let mut exchange = Exchange::new();
            exchange.messages(&BOTH_TWICE, 1);
            assert_eq!(exchange.charges(11), [Charge::Settled(SOURCE)]);
            if is_crowded {
                exchange.crowded(12);
            }
            exchange.close(Mood::Scary, 13);
            exchange.end(13);
            assert_eq!(exchange.charges(13), expected);
        }
    }

    #[test]
    fn a_probation_does_not_pass_to_a_new_mailbox_of_the_same_id() {
        let mut exchange = Exchange::new();
        exchange.messages(&BOTH_TWICE, 1);
        exchange.end(2);
        assert_eq!(exchange.charges(2), [Charge::Settled(SOURCE)]);
        exchange.joins.begin(&exchange.mailbox.clone(), &"a".into(), SOURCE);
        assert_eq!(exchange.charges(3), [Charge::Unshown(SOURCE)]);
        exchange.messages(&["a", "b", "a", "b"], 4);
        assert_eq!(exchange.charges(13), []);
        assert_eq!(exchange.charges(14), [Charge::Settled(SOURCE)]);
    }

    fn mailbox_side(mailbox: &Rc<str>, side: &str, opened: bool) -> Change {
        Change::Insert(Row::MailboxSide {
            id: Default::default(),
            mailbox: mailbox.clone(),
            opened,
            side: side.into(),
            added: Default::default(),
            mood: None,
        })
    }

    fn joined(mailbox: &Rc<str>) -> [Change; 2] {
        let claim = Row::NameplateSide {
            id: Default::default(),
            nameplate: Default::default(),
            claimed: true,
            side: "joiner".into(),
            added: Default::default(),
        };
        [Change::Insert(claim), mailbox_side(mailbox, "joiner", true)]
    }

    fn message(mailbox: &Rc<str>, side: &str, phase: &str) -> Change {
        let message = Message::new(side.into(), phase, "", Default::default(), None);
        let (app, mailbox) = ("app".into(), mailbox.clone());
        Change::Insert(Row::Message { app, mailbox, message: message.into() })
    }

    fn deleted(mailbox: &Rc<str>) -> Change {
        let (app, mailbox, sides) = ("app".into(), mailbox.clone(), Vec::new());
        Change::DeleteMailbox { app, mailbox, sides, with_messages: false }
    }

    #[test]
    fn joins_that_keep_sides_out_have_a_burst_and_then_a_rate() {
        let (mut quotas, start) = (quotas(Limits::default()), Instant::now());
        for (conn, ip) in [(1, "192.0.2.1"), (2, "192.0.2.2")] {
            assert_eq!(quotas.connect(ConnId(conn), address(ip), start), Ok(()));
        }
        let mut count = 0;
        let mut join = |quotas: &mut Quotas, now, keeps_out| {
            quotas.check_join(ConnId(1), now)?;
            count += 1;
            let mailbox: Rc<str> = format!("mailbox {count}").into();
            quotas.note(ConnId(1), &joined(&mailbox), now);
            if keeps_out {
                quotas.note(ConnId(2), &[mailbox_side(&mailbox, "third", false)], now);
            }
            quotas.note_endings(&[deleted(&mailbox)], now);
            quotas.update_accounting(true, now);
            Ok(())
        };
        for _ in 0..1_000 {
            assert_eq!(join(&mut quotas, start, false), Ok(()));
        }
        for _ in 0..10 {
            assert_eq!(join(&mut quotas, start, true), Ok(()));
        }
        let refused = Err(Refusal::TooFast { command: Throttled::Claim, retry_seconds: 30 });
        assert_eq!(join(&mut quotas, start, false), refused);
        let later = start + Duration::from_secs(30);
        assert_eq!(join(&mut quotas, later, true), Ok(()));
        assert_eq!(join(&mut quotas, later, true), refused);
        assert_eq!(quotas.check_join(ConnId(2), start), Ok(()), "another address");
    }

    #[test]
    fn joins_that_are_not_shown_are_as_many_as_connections_and_come_back() {
        let limits = Limits { address_connections_max: 3, ..Limits::default() };
        let (mut quotas, mut now) = (quotas(limits), Instant::now());
        assert_eq!(quotas.connect(ConnId(1), address("192.0.2.1"), now), Ok(()));
        let mailboxes: [Rc<str>; 3] = ["1".into(), "2".into(), "3".into()];
        for _ in 0..2 {
            for mailbox in &mailboxes {
                assert_eq!(quotas.check_join(ConnId(1), now), Ok(()));
                quotas.note(ConnId(1), &joined(mailbox), now);
                quotas.update_accounting(true, now);
            }
            let refused = Err(Refusal::TooFast { command: Throttled::Claim, retry_seconds: 10 });
            assert_eq!(quotas.check_join(ConnId(1), now), refused);
            // One is shown, the others end.
            for phase in ["pake", "version"] {
                for side in ["sender", "joiner"] {
                    quotas.note(ConnId(1), &[message(&mailboxes[0], side, phase)], now);
                }
            }
            assert_eq!(quotas.check_join(ConnId(1), now), refused);
            now += Duration::from_secs(10);
            assert_eq!(quotas.check_join(ConnId(1), now), Ok(()));
            quotas.note_endings(&mailboxes.each_ref().map(deleted), now);
            // A join whose commit fails counts no more.
            quotas.note(ConnId(1), &joined(&mailboxes[0]), now);
            quotas.update_accounting(false, now);
        }
        quotas.check_join(ConnId(1), now).expect("all are back");
        quotas.disconnect(ConnId(1));
        quotas.sweep(now + Duration::from_secs(600));
        assert!(quotas.tables.v4.0.is_empty());
    }
}
