//! The newest events of one partition, without holes, bounded.

use std::collections::VecDeque;

use tidelog_domain::{Position, RecordedEvent};

use crate::gate::{Gate, gate};

/// A dense run of the newest events of one partition.
///
/// An event that does not follow the last one begins a new run: who needs what is missing reads it from the log.
#[derive(Debug, Default)]
pub(super) struct Ring {
    events: VecDeque<RecordedEvent>,
    bytes: usize,
}

/// The most that a ring keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

/// What a ring has for a consumer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The next events.
    Events(Vec<RecordedEvent>),
    /// Something is missing before the first event that it has: read the log.
    ReadLog,
    /// Nothing after the cursor has come yet.
    Nothing,
}

impl Ring {
    /// The last position that came; [`Position::START`] when none did.
    pub(super) fn last(&self) -> Position {
        self.events
            .back()
            .map_or(Position::START, |event| event.position)
    }

    /// Takes in what the bus brought.
    pub(super) fn push(&mut self, event: RecordedEvent, bounds: Bounds) {
        if !self.events.is_empty() {
            match gate(self.last(), event.position) {
                Gate::Apply => {}
                Gate::Skip => return,
                Gate::ReadLog => self.clear(),
            }
        }
        self.bytes += size(&event);
        self.events.push_back(event);
        while self.events.len() > bounds.events || self.bytes > bounds.bytes {
            let Some(oldest) = self.events.pop_front() else {
                return;
            };
            self.bytes -= size(&oldest);
        }
    }

    /// The next events for a consumer that has applied everything up to `cursor`, at most `limit`.
    pub(super) fn take(&self, cursor: Position, limit: usize) -> Taken {
        let Some(first) = self.events.front() else {
            return Taken::Nothing;
        };
        // The run is dense, so what the gate would skip can be counted.
        let behind = (cursor.number() + 1).saturating_sub(first.position.number());
        let behind = usize::try_from(behind).unwrap_or(usize::MAX);
        let Some(next) = self.events.get(behind) else {
            return Taken::Nothing;
        };
        match gate(cursor, next.position) {
            Gate::ReadLog => Taken::ReadLog,
            Gate::Skip => Taken::Nothing,
            Gate::Apply => Taken::Events(
                self.events
                    .iter()
                    .skip(behind)
                    .take(limit)
                    .cloned()
                    .collect(),
            ),
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.events.clear();
        self.bytes = 0;
    }
}

/// About how many bytes an event takes.
fn size(event: &RecordedEvent) -> usize {
    const ENVELOPE: usize = 200;
    ENVELOPE + event.payload.as_bytes().len() + event.metadata.as_bytes().len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sample::event;

    const BOUNDS: Bounds = Bounds {
        events: 4,
        bytes: usize::MAX,
    };

    fn ring(positions: &[u64]) -> Ring {
        let mut ring = Ring::default();
        for position in positions {
            ring.push(event(0, *position), BOUNDS);
        }
        ring
    }

    fn taken(ring: &Ring, cursor: u64, limit: usize) -> Option<Vec<u64>> {
        match ring.take(Position::new(cursor), limit) {
            Taken::Events(events) => Some(events.iter().map(|e| e.position.number()).collect()),
            Taken::ReadLog => None,
            Taken::Nothing => Some(Vec::new()),
        }
    }

    #[test]
    fn consumers_take_what_comes_next_for_each() {
        let ring = ring(&[5, 6, 7]);
        assert_eq!(taken(&ring, 4, 10), Some(vec![5, 6, 7]));
        assert_eq!(taken(&ring, 5, 1), Some(vec![6]));
        assert_eq!(taken(&ring, 7, 10), Some(vec![]));
        assert_eq!(taken(&ring, 900, 10), Some(vec![]));
        assert_eq!(taken(&ring, 3, 10), None, "4 is missing");
        assert_eq!(taken(&ring, 0, 10), None);
    }

    #[test]
    fn a_hole_begins_a_new_run() {
        let ring = ring(&[5, 6, 9, 10]);
        assert_eq!(taken(&ring, 4, 10), None);
        assert_eq!(taken(&ring, 6, 10), None);
        assert_eq!(taken(&ring, 8, 10), Some(vec![9, 10]));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_too_large() {
        let mut by_count = ring(&[1, 2, 3, 4, 5, 6]);
        assert_eq!(taken(&by_count, 1, 10), None);
        assert_eq!(taken(&by_count, 2, 10), Some(vec![3, 4, 5, 6]));
        let bounds = Bounds {
            events: 100,
            bytes: 2 * size(&event(0, 1)),
        };
        by_count.push(event(0, 7), bounds);
        assert_eq!(taken(&by_count, 4, 10), None);
        assert_eq!(taken(&by_count, 5, 10), Some(vec![6, 7]));
    }

    proptest! {
        /// Whatever the bus brings (holes, repeats, old entries) and whatever a ring drops: a consumer that goes on by
        /// the ring and the log applies every event once and in order.
        #[test]
        fn every_consumer_applies_each_event_once_and_in_order(
            arrivals in proptest::collection::vec((1_u64..40, 1_u64..6), 1..40),
            takes in proptest::collection::vec((1_usize..5, 0_usize..3), 1..60),
            bound in 1_usize..8,
        ) {
            let bounds = Bounds { events: bound, bytes: usize::MAX };
            let mut ring = Ring::default();
            let (mut cursor, mut head) = (0_u64, 0_u64);
            let mut arrivals = arrivals.into_iter();
            for (limit, batches) in takes {
                for _ in 0..batches {
                    if let Some((from, count)) = arrivals.next() {
                        for position in from..from + count {
                            ring.push(event(0, position), bounds);
                            // The log has what the bus has, and all before it.
                            head = head.max(position);
                        }
                    }
                }
                match ring.take(Position::new(cursor), limit) {
                    Taken::Events(events) => {
                        prop_assert!(!events.is_empty() && events.len() <= limit);
                        for event in events {
                            prop_assert_eq!(event.position.number(), cursor + 1);
                            cursor += 1;
                        }
                    }
                    Taken::ReadLog => {
                        prop_assert!(cursor < head, "the log would have nothing");
                        cursor += 1;
                    }
                    Taken::Nothing => {}
                }
            }
            // What is left once nothing more comes: it ends at the ring's end.
            while cursor < ring.last().number() {
                match ring.take(Position::new(cursor), 3) {
                    Taken::Events(events) => cursor += events.len() as u64,
                    Taken::ReadLog => cursor += 1,
                    Taken::Nothing => prop_assert!(false, "stuck at {}", cursor),
                }
            }
        }
    }
}
