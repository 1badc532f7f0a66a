//! How far a view's changes have been told: a place in the log, and the id that a client hands back to go on from there.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tidelog_domain::{Cursor, HistoryId, Partition, Position};
use tidelog_eventbus::{Parked, ParkedSequence};
use twox_hash::XxHash64;
use uuid::Uuid;

/// The most characters that an id may have: one number of ten bytes for each partition of a large log.
const MAX_CHARS: usize = 64 * 1024;

/// A position for each partition; one that is not named is at its start.
pub(super) type Positions = BTreeMap<Partition, Position>;

/// One event of the log, as far as it touches one of its documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Touch {
    pub(super) partition: Partition,
    pub(super) position: Position,
    /// Which of the documents that the event touches, in their order.
    pub(super) index: u32,
    /// Whether it is the last of them.
    pub(super) is_last: bool,
}

/// How far one version of a view is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The version: its collection.
    pub(super) collection: String,
    /// The history of the log that the positions are of.
    pub(super) history: HistoryId,
    /// The last event of each partition that was applied, or set aside.
    pub(super) cursors: BTreeMap<Partition, Cursor>,
    /// What is set aside of that.
    pub(super) parked: BTreeMap<Partition, Arc<Parked>>,
}

impl Place {
    /// Where it is in `partition`.
    pub(super) fn cursor(&self, partition: Partition) -> Cursor {
        let cursor = self.cursors.get(&partition);
        cursor.copied().unwrap_or(Cursor::START)
    }

    pub(super) fn positions(&self) -> Positions {
        let cursors = self.cursors.iter();
        cursors.map(|(p, cursor)| (*p, cursor.position)).collect()
    }

    /// Whether it is of the same version of the view as `other`, and of the same past.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        (&self.collection, self.history) == (&other.collection, other.history)
    }

    /// Whether what is applied in `applied` is all up to here.
    pub(super) fn covers(&self, applied: &Positions) -> bool {
        let covered =
            |(p, position): (&Partition, &Position)| self.cursor(*p).position >= *position;
        applied.iter().all(covered)
    }

    /// Whether the event at `position` of `partition` waits, as far as it is about the document `id`.
    pub(super) fn waits(&self, partition: Partition, position: Position, id: &str) -> bool {
        let parked = self.parked.get(&partition);
        let own = parked.and_then(|parked| parked.get(id));
        own.is_some_and(|own| own.first <= position)
    }

    /// The documents that waited here and that wait no longer, or for less, at `later`.
    pub(super) fn released_by(&self, later: &Self) -> Vec<String> {
        let is_released = |(partition, one): &(Partition, &ParkedSequence)| {
            let still = later.parked.get(partition);
            let still = still.and_then(|parked| parked.get(&one.sequence));
            still.is_none_or(|still| still.first > one.first)
        };
        let released = self.waiting().filter(is_released);
        released.map(|(_, one)| one.sequence.clone()).collect()
    }

    /// All that is set aside.
    fn waiting(&self) -> impl Iterator<Item = (Partition, &ParkedSequence)> {
        let parked = self.parked.iter();
        parked.flat_map(|(partition, parked)| parked.iter().map(|one| (*partition, one)))
    }

    /// What tells one set of waiting documents from another; 0 where none waits.
    pub(super) fn parked_mark(&self) -> u64 {
        let waiting = self.waiting();
        let waiting = waiting.map(|(partition, one)| (partition, &*one.sequence, one.first));
        let mut waiting: Vec<_> = waiting.collect();
        if waiting.is_empty() {
            return 0;
        }
        waiting.sort_unstable();
        let mut hash = XxHash64::with_seed(0);
        for (partition, sequence, first) in waiting {
            hash.write(&partition.number().to_be_bytes());
            hash.write(&first.number().to_be_bytes());
            hash.write(&sequence.len().to_be_bytes());
            hash.write(sequence.as_bytes());
        }
        hash.finish().max(1)
    }
}

/// Up to where a client has been told: `1.<history>.<question>.<parked>.<positions>[.<partition>-<document>…]`.
///
/// With it any process goes on telling: it remembers nothing of its clients. An id of another version of the view, of another question or
/// of another history leads nowhere, and the client begins anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveId {
    pub(super) history: HistoryId,
    /// The hash of the version of the view, and of what the client asked; 0 where that is not known yet.
    pub(super) question: u64,
    /// [`Place::parked_mark`] of where it is.
    pub(super) parked: u64,
    /// Every change up to here was told.
    pub(super) positions: Positions,
    /// Of the next event of a partition, where it touches several documents: the last of them that was told.
    pub(super) within: BTreeMap<Partition, u32>,
}

/// A text that is no id of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidLiveId;

impl LiveId {
    /// Everything up to `place` was told.
    pub(super) fn at(place: &Place) -> Self {
        Self {
            history: place.history,
            question: 0,
            parked: place.parked_mark(),
            positions: place.positions(),
            within: BTreeMap::new(),
        }
    }

    /// Everything up to `touch` was told of its partition, and of those before it all that is here.
    pub(super) fn told_at(&mut self, touch: &Touch, before: &Self) {
        for (partition, place) in &mut self.positions {
            if *partition > touch.partition {
                *place = before.position(*partition);
            } else if *partition == touch.partition {
                *place = touch.position;
                if !touch.is_last {
                    *place = Position::new(touch.position.number().saturating_sub(1));
                    self.within.insert(*partition, touch.index);
                }
            }
        }
        let later = before.within.range(touch.partition..);
        let later = later.filter(|(partition, _)| **partition > touch.partition);
        self.within.extend(later);
    }

    /// Whether the document of `touch` was told with it.
    pub(super) fn has_told(&self, touch: &Touch) -> bool {
        let told = self.position(touch.partition);
        touch.position <= told
            || touch.position == told.next()
                && self
                    .within
                    .get(&touch.partition)
                    .is_some_and(|index| touch.index <= *index)
    }

    /// Up to where all was told of `partition`.
    pub(super) fn position(&self, partition: Partition) -> Position {
        let position = self.positions.get(&partition);
        position.copied().unwrap_or(Position::START)
    }

    /// Whether all of `positions` is up to here.
    pub(super) fn covers(&self, positions: &Positions) -> bool {
        let covered = |(p, position): (&Partition, &Position)| self.position(*p) >= *position;
        positions.iter().all(covered)
    }

    /// Whether it can be gone on from at `place`, which may not have got as far yet, by who asks for `question`.
    ///
    /// Where documents waited then, and others do now, it is not known which were told.
    pub(super) fn fits(&self, place: &Place, question: u64) -> bool {
        let is_same = self.history == place.history && self.question == question;
        is_same && (self.parked == 0 || self.parked == place.parked_mark())
    }

    /// How many events `place` is ahead.
    pub(super) fn behind(&self, place: &Place) -> u64 {
        let behind = place.cursors.iter().map(|(partition, cursor)| {
            let told = self.position(*partition);
            cursor.position.number().saturating_sub(told.number())
        });
        behind.fold(0, u64::saturating_add)
    }
}

/// The hash of the version of a view, and of what is asked of it.
pub(super) fn mark(collection: &str, question: &str) -> u64 {
    let mut hash = XxHash64::with_seed(0);
    hash.write(collection.as_bytes());
    hash.write(&[0]);
    hash.write(question.as_bytes());
    hash.finish()
}

impl fmt::Display for LiveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.positions.keys().next_back();
        let partitions = last.map_or(0, |last| u32::from(last.number()) + 1);
        let mut bytes = Vec::new();
        for partition in (0..partitions).filter_map(|n| u16::try_from(n).ok()) {
            let position = self.positions.get(&Partition::new(partition));
            write_number(position.map_or(0, |position| position.number()), &mut bytes);
        }
        let positions = URL_SAFE_NO_PAD.encode(bytes);
        let (history, question, parked) = (self.history, self.question, self.parked);
        write!(f, "1.{history}.{question:016x}.{parked:x}.{positions}")?;
        let mut within = self.within.iter();
        within.try_for_each(|(partition, index)| write!(f, ".{partition}-{index}"))
    }
}

impl FromStr for LiveId {
    type Err = InvalidLiveId;

    fn from_str(text: &str) -> Result<Self, InvalidLiveId> {
        if text.len() > MAX_CHARS {
            return Err(InvalidLiveId);
        }
        let parts: Vec<&str> = text.split('.').collect();
        let &["1", history, question, parked, positions, ref within @ ..] = parts.as_slice() else {
            return Err(InvalidLiveId);
        };
        let within = within.iter().map(|pair| {
            let (partition, index) = pair.split_once('-')?;
            Some((Partition::new(partition.parse().ok()?), index.parse().ok()?))
        });
        let within: Option<BTreeMap<Partition, u32>> = within.collect();
        let hash = |text| u64::from_str_radix(text, 16).map_err(|_| InvalidLiveId);
        let history = Uuid::try_parse(history).map_err(|_| InvalidLiveId)?;
        let bytes = URL_SAFE_NO_PAD.decode(positions);
        let bytes = bytes.map_err(|_| InvalidLiveId)?;
        let (mut rest, mut read) = (bytes.as_slice(), Positions::new());
        for partition in 0..=u16::MAX {
            if rest.is_empty() {
                break;
            }
            let number = read_number(&mut rest).ok_or(InvalidLiveId)?;
            read.insert(Partition::new(partition), Position::new(number));
        }
        if !rest.is_empty() {
            return Err(InvalidLiveId);
        }
        Ok(Self {
            history: HistoryId::new(history),
            question: hash(question)?,
            parked: hash(parked)?,
            positions: read,
            within: within.ok_or(InvalidLiveId)?,
        })
    }
}

/// Writes a number in groups of seven bits, the lowest first.
fn write_number(mut number: u64, bytes: &mut Vec<u8>) {
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).unwrap_or_default() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap_or_default());
}

/// Reads what [`write_number`] wrote; `None` for anything else.
fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        let group = u64::from(first & 0x7f);
        if group.leading_zeros() < shift {
            return None;
        }
        number |= group << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_reads_back_as_it_was_written(positions: Vec<u64>, within: BTreeMap<u16, u32>, question: u64, parked: u64, history: u128) {
            let positions = positions.into_iter().enumerate().map(|(n, position)| {
                (Partition::new(u16::try_from(n).unwrap()), Position::new(position))
            });
            let id = LiveId {
                history: HistoryId::new(Uuid::from_u128(history)),
                question,
                parked,
                positions: positions.collect(),
                within: within.into_iter().map(|(p, n)| (Partition::new(p), n)).collect(),
            };
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(1\\.[0-9a-f]{32}\\.[0-9a-f]{1,17}\\.[0-9a-f]{1,17}\\.[A-Za-z0-9_-]{0,9}(\\.[0-9]{1,3}-[0-9]{1,3}){0,3})?[A-Za-z0-9_.-]{0,40}") {
            if let Ok(id) = text.parse::<LiveId>() {
                prop_assert_eq!(id.to_string().parse(), Ok(id));
            }
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "1",
            "7",
            "1.x.0.0.",
            "2.00000000000000000000000000000005.0.0.",
            "1.00000000000000000000000000000005.0.0.gA",
        ] {
            assert_eq!(text.parse::<LiveId>(), Err(InvalidLiveId), "{text}");
        }
    }
}
