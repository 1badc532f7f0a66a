//! Sequences that are set aside, so that all others go on: which events wait with them, and what becomes of them when they
//! are tried again.
//!
//! Pure: the subscription and the exhaustive model call the same functions.
//!
//! - A *sequence* is what keeps its order: a stream for a reaction, a document for a projection. An event may belong to several.
//! - An event that belongs to a sequence that waits, waits too, and so do all *its* sequences from there on. (A document that two
//!   streams feed remembers one position of the partition: passing over one event and applying a later one would make the
//!   first look applied.) Nothing waits across partitions, as between them no order is promised.
//! - What is kept are pointers: the first event that waits. The log has the events.
//! - To try sequences again, the log is gone through from the first that waits. They are set free when that has come to where the
//!   subscription is; until then later events of theirs go on waiting.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tidelog_domain::Position;

/// The most characters of an error that are kept.
pub const MAX_ERROR_CHARS: usize = 1_000;

/// A sequence that is set aside: its events from `first` on wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ParkedSequence {
    /// The sequence: a stream (`category/id`) for a reaction, a document's key for a projection.
    pub sequence: String,
    /// The first event that waits. While the sequence is being tried again, nothing before it waits any more.
    pub first: Position,
    /// The last event that was seen to wait.
    pub last: Position,
    /// Why: the error and its causes, at most [`MAX_ERROR_CHARS`]. Empty while it waits for another sequence, and once it goes on.
    pub error: String,
    /// How often the first event was tried.
    pub attempts: u32,
    /// What it waits for.
    pub state: ParkedState,
    /// Since when it is set aside.
    pub since: DateTime<Utc>,
    /// When its handler wants to see it again, at the earliest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<DateTime<Utc>>,
}

impl ParkedSequence {
    /// Whether `first` is an event of it, and not just the place after the last one that was handled.
    #[must_use]
    pub fn first_is_known(&self) -> bool {
        !self.error.is_empty() || matches!(self.state, ParkedState::Waiting { .. })
    }
}

/// What a sequence that is set aside waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
#[non_exhaustive]
pub enum ParkedState {
    /// Its next try, which comes by itself.
    Retrying,
    /// An operator.
    Parked,
    /// Another sequence: its first event belongs to that one too.
    Waiting {
        /// Which.
        behind: String,
    },
}

/// Why an event is set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The error and its causes.
    pub error: String,
    /// Whether it was an attempt that counts.
    pub counts: bool,
    /// What its sequences wait for from now on.
    pub state: ParkedState,
    /// When it is to be tried again at the earliest, if the handler said so.
    pub not_before: Option<DateTime<Utc>>,
    /// Now.
    pub at: DateTime<Utc>,
}

impl Why {
    /// Because the event belongs to the sequence `behind` too, which waits.
    #[must_use]
    pub fn behind(behind: &str, at: DateTime<Utc>) -> Self {
        Self {
            error: String::new(),
            counts: false,
            state: ParkedState::Waiting {
                behind: behind.to_owned(),
            },
            not_before: None,
            at,
        }
    }
}

/// The sequences of one partition that are set aside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Parked(
    /// By sequence, ascending.
    Vec<ParkedSequence>,
);

/// What becomes of an event while sequences are tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is none of theirs.
    Pass,
    /// It is theirs, and comes next: handle it, with all its sequences [joined](Parked::join).
    Apply,
    /// It is theirs, but belongs to another sequence too, which waits since earlier: they [wait behind](Parked::wait_behind) that
    /// one now.
    Blocked {
        /// Which.
        behind: String,
    },
}

impl Parked {
    /// All of them, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ParkedSequence> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sequence of this name.
    #[must_use]
    pub fn get(&self, sequence: &str) -> Option<&ParkedSequence> {
        self.place(sequence).ok().and_then(|at| self.0.get(at))
    }

    /// The sequence behind which an event of `sequences` at `position` has to wait; `None` when it can be handled.
    #[must_use]
    pub fn behind(&self, position: Position, sequences: &[String]) -> Option<&ParkedSequence> {
        let mut parked = sequences.iter().filter_map(|sequence| self.get(sequence));
        parked.find(|parked| parked.first <= position)
    }

    /// Whether `own`, one of these, waits for another one of them. It waits for one that began to wait before it: what names each
    /// other (keys that changed can lead to that) does not stand still for good.
    #[must_use]
    pub fn waits_for_another(&self, own: &ParkedSequence) -> bool {
        let ParkedState::Waiting { behind } = &own.state else {
            return false;
        };
        let order = |own: &ParkedSequence| (own.first, own.sequence.clone());
        self.get(behind)
            .is_some_and(|other| order(other) < order(own))
    }

    /// How many sequences more there would be with all of `sequences`.
    #[must_use]
    pub fn growth(&self, sequences: &[String]) -> usize {
        let new = sequences.iter().filter(|name| self.place(name).is_err());
        new.count()
    }

    /// Sets the event at `position` aside, with all its sequences: those that wait already go on waiting where they do.
    pub fn set_aside(&mut self, position: Position, sequences: &[String], why: &Why) {
        for sequence in sequences {
            match self.place(sequence) {
                Ok(at) => {
                    if let Some(parked) = self.0.get_mut(at) {
                        parked.last = parked.last.max(position);
                    }
                }
                Err(at) => self.0.insert(
                    at,
                    ParkedSequence {
                        sequence: sequence.clone(),
                        first: position,
                        last: position,
                        error: shortened(&why.error),
                        attempts: u32::from(why.counts),
                        state: why.state.clone(),
                        since: why.at,
                        not_before: why.not_before,
                    },
                ),
            }
        }
    }

    /// What becomes of the event at `position`, of `sequences`, while `members` are tried again. The events come in order, from the
    /// lowest `first` of the members on; everything before it was handled, or failed again.
    #[must_use]
    pub fn step(
        &self,
        members: &BTreeSet<String>,
        position: Position,
        sequences: &[String],
    ) -> Step {
        let waits = |name: &String| self.get(name).is_some_and(|own| own.first <= position);
        if !sequences
            .iter()
            .any(|name| members.contains(name) && waits(name))
        {
            return Step::Pass;
        }
        let earlier = |name: &&String| {
            !members.contains(*name) && self.get(name).is_some_and(|own| own.first < position)
        };
        match sequences.iter().find(earlier) {
            Some(behind) => Step::Blocked {
                behind: behind.clone(),
            },
            None => Step::Apply,
        }
    }

    /// The event of `sequences` [comes next](Step::Apply): all of them that are set aside are `members` from here on.
    pub fn join(&self, members: &mut BTreeSet<String>, sequences: &[String]) {
        let parked = sequences.iter().filter(|name| self.get(name).is_some());
        members.extend(parked.cloned());
    }

    /// The event at `position` is [blocked](Step::Blocked): those of its `sequences` that are `members` are no more, and wait there.
    /// Never while an event before it is being handled: should that one not come to an end, it would be lost.
    pub fn wait_behind(
        &mut self,
        members: &mut BTreeSet<String>,
        position: Position,
        sequences: &[String],
        behind: &str,
    ) {
        for name in sequences {
            if members.remove(name)
                && let Some(own) = self.get_mut(name)
            {
                own.first = position;
                own.state = ParkedState::Waiting {
                    behind: behind.to_owned(),
                };
            }
        }
    }

    /// The event at `position` was handled, or skipped: nothing of `sequences` waits before the next one. Whoever goes on after a
    /// crash tries them again by himself.
    pub fn applied(&mut self, position: Position, sequences: &[String]) {
        for name in sequences {
            if let Some(own) = self.get_mut(name) {
                own.first = own.first.max(position.next());
                own.error.clear();
                own.attempts = 0;
                own.state = ParkedState::Retrying;
                own.not_before = None;
            }
        }
    }

    /// The event at `position` failed again: its sequences wait there, and are no `members` any more.
    pub fn failed(
        &mut self,
        members: &mut BTreeSet<String>,
        position: Position,
        sequences: &[String],
        why: &Why,
    ) {
        for name in sequences {
            members.remove(name);
            if let Some(own) = self.get_mut(name) {
                own.first = position;
                own.last = own.last.max(position);
                own.error = shortened(&why.error);
                own.attempts = own.attempts.saturating_add(u32::from(why.counts));
                own.state = why.state.clone();
                own.not_before = why.not_before;
            }
        }
    }

    /// `members` were tried again up to where the subscription is: they are free.
    pub fn set_free(&mut self, members: &BTreeSet<String>) {
        self.0.retain(|own| !members.contains(&own.sequence));
    }

    fn get_mut(&mut self, sequence: &str) -> Option<&mut ParkedSequence> {
        let at = self.place(sequence).ok()?;
        self.0.get_mut(at)
    }

    fn place(&self, sequence: &str) -> Result<usize, usize> {
        self.0
            .binary_search_by(|parked| parked.sequence.as_str().cmp(sequence))
    }
}

/// As much of a text as is kept.
pub(crate) fn shortened(error: &str) -> String {
    error.chars().take(MAX_ERROR_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn set(members: &[&str]) -> BTreeSet<String> {
        names(members).into_iter().collect()
    }

    fn poison() -> Why {
        Why {
            error: "poison".to_owned(),
            counts: true,
            state: ParkedState::Parked,
            not_before: None,
            at: DateTime::UNIX_EPOCH,
        }
    }

    fn at(position: u64) -> Position {
        Position::new(position)
    }

    /// What a subscription does with an event that comes live.
    fn live(parked: &mut Parked, position: u64, sequences: &[&str]) -> bool {
        let sequences = names(sequences);
        let behind = parked.behind(at(position), &sequences);
        let why = behind.map(|own| Why::behind(&own.sequence, DateTime::UNIX_EPOCH));
        if let Some(why) = &why {
            parked.set_aside(at(position), &sequences, why);
        }
        why.is_none()
    }

    /// What a subscription does with an event when `members` are tried again.
    fn take(
        parked: &mut Parked,
        members: &mut BTreeSet<String>,
        position: Position,
        sequences: &[String],
    ) -> Step {
        let step = parked.step(members, position, sequences);
        match &step {
            Step::Pass => {}
            Step::Apply => parked.join(members, sequences),
            Step::Blocked { behind } => parked.wait_behind(members, position, sequences, behind),
        }
        step
    }

    fn firsts(parked: &Parked) -> Vec<(&str, u64)> {
        let pairs = parked.iter();
        pairs
            .map(|own| (own.sequence.as_str(), own.first.number()))
            .collect()
    }

    #[test]
    fn an_event_of_a_parked_sequence_waits_with_all_its_sequences() {
        let mut parked = Parked::default();
        parked.set_aside(at(5), &names(&["a"]), &poison());
        assert!(live(&mut parked, 6, &["b"]));
        assert!(!live(&mut parked, 7, &["a", "b"]));
        assert!(!live(&mut parked, 8, &["b", "c"]));
        assert!(live(&mut parked, 9, &["d"]));
        assert_eq!(firsts(&parked), [("a", 5), ("b", 7), ("c", 8)]);
        // What came before a sequence began to wait is handled, should it be seen once more.
        assert!(live(&mut parked, 6, &["b"]));
    }

    #[test]
    fn those_that_wait_behind_a_sequence_are_set_free_with_it() {
        let mut parked = Parked::default();
        parked.set_aside(at(5), &names(&["a"]), &poison());
        live(&mut parked, 7, &["a", "b"]);
        live(&mut parked, 8, &["b", "c"]);
        let mut members = set(&["a"]);
        let log: [(u64, &[&str]); 4] =
            [(5, &["a"]), (6, &["b"]), (7, &["a", "b"]), (8, &["b", "c"])];
        let mut applied = Vec::new();
        for (position, sequences) in log {
            let sequences = names(sequences);
            if take(&mut parked, &mut members, at(position), &sequences) == Step::Apply {
                parked.applied(at(position), &sequences);
                applied.push(position);
            }
        }
        // The one of `b` before `b` began to wait was handled when it came.
        assert_eq!(applied, [5, 7, 8]);
        parked.set_free(&members);
        assert!(parked.is_empty());
    }

    #[test]
    fn a_sequence_waits_behind_another_that_still_waits() {
        let mut parked = Parked::default();
        parked.set_aside(at(3), &names(&["b"]), &poison());
        parked.set_aside(at(5), &names(&["a"]), &poison());
        live(&mut parked, 7, &["a", "b"]);
        let mut members = set(&["a"]);
        assert_eq!(
            take(&mut parked, &mut members, at(5), &names(&["a"])),
            Step::Apply
        );
        parked.applied(at(5), &names(&["a"]));
        let both = names(&["a", "b"]);
        assert_eq!(
            take(&mut parked, &mut members, at(7), &both),
            Step::Blocked {
                behind: "b".to_owned()
            }
        );
        assert_eq!(members, set(&[]));
        assert_eq!(firsts(&parked), [("a", 7), ("b", 3)]);
        // The other one takes it along.
        let mut members = set(&["b"]);
        assert_eq!(
            take(&mut parked, &mut members, at(3), &names(&["b"])),
            Step::Apply
        );
        parked.applied(at(3), &names(&["b"]));
        assert_eq!(
            take(&mut parked, &mut members, at(5), &names(&["a"])),
            Step::Pass
        );
        assert_eq!(take(&mut parked, &mut members, at(7), &both), Step::Apply);
        parked.applied(at(7), &both);
        parked.set_free(&members);
        assert!(parked.is_empty());
    }

    #[test]
    fn an_event_that_fails_again_keeps_all_its_sequences_there() {
        let mut parked = Parked::default();
        parked.set_aside(at(5), &names(&["a", "b"]), &poison());
        let mut members = set(&["a"]);
        let both = names(&["a", "b"]);
        assert_eq!(take(&mut parked, &mut members, at(5), &both), Step::Apply);
        assert_eq!(members, set(&["a", "b"]));
        parked.failed(&mut members, at(5), &both, &poison());
        assert_eq!(members, set(&[]));
        let attempts = parked.iter().map(|own| own.attempts);
        assert_eq!(attempts.collect::<Vec<_>>(), [2, 2]);
        assert_eq!(firsts(&parked), [("a", 5), ("b", 5)]);
    }
}
