//! One app id: its nameplates by name, and which number `allocate` hands out next.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::rc::Rc;

use super::change::NameplateId;
use super::sides::Sides;
use crate::limits::NAMEPLATE_STEPS_MAX;
use crate::sorted::sorted;

/// Numbers handed out while any is free, fewest digits first.
const SHORT_RANGES: [RangeInclusive<usize>; 3] = [1..=9, 10..=99, 100..=999];

/// Numbers handed out when all short ones are taken.
const LONG_RANGE: RangeInclusive<u64> = 1_000..=999_999;

/// Length of the set of short numbers, zero included.
const SHORT_NUMBERS: usize = 1_000;

const WORD_BITS: usize = u64::BITS as usize;

/// A pointer to a mailbox, held by the sides that claim it.
#[derive(Debug)]
pub(super) struct Nameplate {
    pub id: NameplateId,
    /// Exists as long as the nameplate does.
    pub mailbox: Rc<str>,
    pub sides: Sides,
}

/// The nameplates of one app id.
#[derive(Debug, Default)]
pub(super) struct App {
    /// Sessions bound to it. An app is forgotten when it has neither these nor nameplates.
    pub sessions: usize,
    /// In the order of `list`: sorted as strings. Changed by `insert` and `remove` only, which keep
    /// `listed` and `taken` in step.
    pub by_name: BTreeMap<Rc<str>, Box<Nameplate>>,
    /// The names, as last listed; none after a change. Listing again without a change is free.
    listed: Option<Rc<[Rc<str>]>>,
    /// Which short numbers are taken, one bit each, so that allocating costs the same however many
    /// there are.
    taken: [u64; SHORT_NUMBERS.div_ceil(WORD_BITS)],
}

impl App {
    /// Inserts a nameplate; returns the one of that name that it replaces.
    pub fn insert(&mut self, name: Rc<str>, nameplate: Nameplate) -> Option<Box<Nameplate>> {
        self.listed = None;
        if let Some((word, bit)) = short_number(&name).map(place) {
            self.taken[word] |= bit;
        }
        self.by_name.insert(name, Box::new(nameplate))
    }

    /// Removes a nameplate, whose number can be allocated again.
    pub fn remove(&mut self, name: &str) -> Option<Box<Nameplate>> {
        self.listed = None;
        if let Some((word, bit)) = short_number(name).map(place) {
            self.taken[word] &= !bit;
        }
        self.by_name.remove(name)
    }

    /// All names, sorted as strings.
    pub fn list(&mut self) -> Rc<[Rc<str>]> {
        self.listed.get_or_insert_with(|| self.by_name.keys().cloned().collect()).clone()
    }

    /// A number that is neither taken nor cooling, chosen by `random` among those of the fewest
    /// digits, `digits_min` at least.
    pub fn pick_free(
        &self,
        random: u64,
        digits_min: u32,
        cools: impl Fn(u64) -> bool,
    ) -> Option<Rc<str>> {
        let first = 10_u64.pow(digits_min - 1);
        for range in SHORT_RANGES.into_iter().filter(|range| *range.start() as u64 >= first) {
            let is_free = |number: &usize| {
                let (word, bit) = place(*number);
                self.taken[word] & bit == 0 && !cools(*number as u64)
            };
            let free = || range.clone().filter(is_free);
            if let Some(count) = NonZeroU64::new(free().count() as u64) {
                return free()
                    .nth((random % count) as usize)
                    .map(|number| number.to_string().into());
            }
        }
        // From a random start, the next free one: a short walk unless nearly all are taken.
        let walk = |range: RangeInclusive<u64>| {
            let count = range.end() - range.start() + 1;
            (0..NAMEPLATE_STEPS_MAX)
                .map(|step| range.start() + (random % count + step) % count)
                .filter(|number| !cools(*number))
                .map(|number| number.to_string())
                .find(|name| !self.by_name.contains_key(name.as_str()))
                .map(Rc::from)
        };
        if first < *LONG_RANGE.start() {
            return walk(LONG_RANGE);
        }
        walk(first..=10 * first - 1).or_else(|| walk(first..=*LONG_RANGE.end()))
    }
}

/// The word of [`App::taken`] that has a short number's bit, and the bit.
fn place(number: usize) -> (usize, u64) {
    (number / WORD_BITS, 1 << (number % WORD_BITS))
}

/// The place in the set of short numbers, for names that are such numbers.
fn short_number(name: &str) -> Option<usize> {
    let number = usize::try_from(numeric_name(name)?).ok()?;
    (number < SHORT_NUMBERS).then_some(number)
}

/// The number that `allocate` may hand out under this name ("7", not "007").
pub(super) fn numeric_name(name: &str) -> Option<u64> {
    if name.starts_with('0') || !name.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    name.parse().ok().filter(|number| number <= LONG_RANGE.end())
}

/// The fixed reply to `list` in decoy mode: every number from 1 to 999, sorted as strings, so that
/// a client that insists on finding its nameplate there finds it.
pub(super) fn decoys() -> Rc<[Rc<str>]> {
    let names = SHORT_RANGES.into_iter().flatten().map(|number| number.to_string().into());
    sorted::<Rc<str>>(names).into()
}
