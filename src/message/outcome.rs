//! How nameplates and mailboxes end: `result` in the usage database, the metrics and the status
//! page. The mood of a `close` is the outcome that a side reports.

/// The `result` of a usage record. First those that a mood can report, by gravity: the gravest mood
/// of a mailbox decides its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Happy,
    Lonely,
    Errory,
    Scary,
    Pruney,
    Crowded,
}

/// One row an outcome, in the order of the enum: its name in files and metrics, and its meaning.
const OUTCOMES: [(Outcome, &str, &str); Outcome::COUNT] = [
    (Outcome::Happy, "happy", "both sides came and reported no failure"),
    (Outcome::Lonely, "lonely", "the other side never came"),
    (Outcome::Errory, "errory", "a side reported an error"),
    (Outcome::Scary, "scary", "a side had a wrong code"),
    (Outcome::Pruney, "pruney", "left behind, and expired"),
    (Outcome::Crowded, "crowded", "a third side tried to join"),
];

impl Outcome {
    pub const COUNT: usize = 6;

    /// All outcomes, in the order of the enum.
    pub fn all() -> impl Iterator<Item = Outcome> {
        OUTCOMES.into_iter().map(|(outcome, ..)| outcome)
    }

    /// The outcome that a usage database names so.
    pub fn from_name(name: &str) -> Option<Outcome> {
        OUTCOMES.into_iter().find(|(_, known, _)| *known == name).map(|(outcome, ..)| outcome)
    }

    /// The outcome that a mood reports; none if the protocol does not define the mood.
    pub fn of_mood(mood: &str) -> Option<Outcome> {
        Outcome::from_name(mood).filter(|outcome| *outcome <= Outcome::Scary)
    }

    /// Its name in files and metrics.
    pub fn name(self) -> &'static str {
        OUTCOMES[self as usize].1
    }

    /// A short explanation for the status page.
    pub fn meaning(self) -> &'static str {
        OUTCOMES[self as usize].2
    }

    /// Whether it suggests that a side without the code took part.
    pub fn is_hostile(self) -> bool {
        matches!(self, Outcome::Scary | Outcome::Crowded)
    }
}

/// How often each outcome occurred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutcomeCounts([u64; Outcome::COUNT]);

impl OutcomeCounts {
    pub fn add(&mut self, outcome: Outcome, count: u64) {
        self.0[outcome as usize] += count;
    }

    pub fn get(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// All outcomes in the order of the enum, those that did not occur with 0.
    pub fn iter(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::all().zip(self.0)
    }

    /// Adds the counts of another period.
    pub fn merge(&mut self, other: &OutcomeCounts) {
        other.iter().for_each(|(outcome, count)| self.add(outcome, count));
    }

    /// The counts added since `earlier`, a copy of the same counts.
    pub fn since(&self, earlier: &OutcomeCounts) -> OutcomeCounts {
        let mut difference = *self;
        difference.0.iter_mut().zip(earlier.0).for_each(|(count, earlier)| *count -= earlier);
        difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_row() {
        for (index, outcome) in Outcome::all().enumerate() {
            assert_eq!(outcome as usize, index);
            assert_eq!(Outcome::from_name(outcome.name()), Some(outcome));
        }
        assert_eq!(Outcome::from_name("sleepy"), None);
    }

    #[test]
    fn the_gravest_mood_decides() {
        let gravest = |moods: &[&str]| moods.iter().filter_map(|it| Outcome::of_mood(it)).max();
        assert_eq!(gravest(&["errory", "scary", "happy"]), Some(Outcome::Scary));
        assert_eq!(gravest(&["lonely", "errory"]), Some(Outcome::Errory));
        assert_eq!(gravest(&["happy", "sleepy", "lonely"]), Some(Outcome::Lonely));
        assert_eq!(gravest(&["happy", "pruney", "crowded"]), Some(Outcome::Happy));
        assert_eq!(gravest(&["sleepy", "other"]), None);
    }
}
