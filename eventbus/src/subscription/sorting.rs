//! Sorting a batch into what is handled, and what waits behind a sequence that is set aside.

use std::borrow::Cow;

use chrono::Utc;
use tidelog_domain::{Cursor, Position, RecordedEvent};

use super::delivery::{Undelivered, sequences};
use super::handler::Handler;
use crate::parking::{Parked, Why};

/// A batch, sorted.
pub(super) struct Sorted<'e> {
    /// What is handled, in order.
    pub(super) handle: Cow<'e, [RecordedEvent]>,
    /// What is set aside, in order. It is not yet: that happens when the cursor passes it.
    aside: Vec<Aside>,
    /// At the last event that was looked at; nothing when it was none.
    pub(super) end: Option<Cursor>,
    /// Why the rest of the batch was not looked at.
    pub(super) stop: Option<Stop>,
}

/// An event that is set aside.
#[derive(Debug)]
pub(super) struct Aside {
    pub(super) position: Position,
    pub(super) sequences: Vec<String>,
    pub(super) why: Why,
}

/// Why a batch is not sorted to its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// There is no room for this many sequences more.
    Full(usize),
    /// It cannot be told whether this event waits.
    Unkeyed(Position, Undelivered),
}

/// Sorts `batch`, where `parked` waits already and may grow to `max_parked`. Where nothing waits, nothing is asked.
pub(super) fn sort<'e>(
    handler: &dyn Handler,
    batch: &'e [RecordedEvent],
    parked: &Parked,
    max_parked: usize,
) -> Sorted<'e> {
    let end = batch.last().map(RecordedEvent::cursor);
    if parked.is_empty() {
        return Sorted {
            handle: Cow::Borrowed(batch),
            aside: Vec::new(),
            end,
            stop: None,
        };
    }
    let mut parked = parked.clone();
    let mut sorted = Sorted {
        handle: Cow::Owned(Vec::with_capacity(batch.len())),
        aside: Vec::new(),
        end: None,
        stop: None,
    };
    for event in batch {
        match sequences(handler, event) {
            Err(failure) => {
                sorted.stop = Some(Stop::Unkeyed(event.position, failure));
                return sorted;
            }
            Ok(None) => {}
            Ok(Some(names)) => match parked.behind(event.position, &names) {
                None => sorted.handle.to_mut().push(event.clone()),
                Some(behind) => {
                    let why = Why::behind(&behind.sequence, Utc::now());
                    let growth = parked.growth(&names);
                    if growth > 0 && parked.len() + growth > max_parked {
                        sorted.stop = Some(Stop::Full(growth));
                        return sorted;
                    }
                    parked.set_aside(event.position, &names, &why);
                    sorted.aside.push(Aside {
                        position: event.position,
                        sequences: names,
                        why,
                    });
                }
            },
        }
        sorted.end = Some(event.cursor());
    }
    sorted
}

impl Sorted<'_> {
    /// Sets aside in `parked` what comes up to `position`.
    pub(super) fn pass(&mut self, position: Position, parked: &mut Parked) {
        let passed = self.aside.partition_point(|own| own.position <= position);
        for aside in self.aside.drain(..passed) {
            parked.set_aside(aside.position, &aside.sequences, &aside.why);
        }
    }

    /// Sets this event aside too.
    pub(super) fn add(&mut self, aside: Aside) {
        let place = self
            .aside
            .partition_point(|own| own.position < aside.position);
        self.aside.insert(place, aside);
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tidelog_domain::Partition;

    use super::super::handler::{Handled, HandlerError};
    use super::*;
    use crate::parking::ParkedState;
    use crate::sample::events;

    /// Each event belongs to a sequence of its position's last digit.
    struct Digits;

    #[async_trait]
    impl Handler for Digits {
        fn wants(&self, event: &RecordedEvent) -> bool {
            event.position.number() != 14
        }

        fn sequences(&self, event: &RecordedEvent) -> Result<Vec<String>, HandlerError> {
            match event.position.number() {
                19 => Err(HandlerError::permanent(event, "whose?")),
                number => Ok(vec![(number % 10).to_string()]),
            }
        }

        async fn handle(&self, _: Partition, _: &[RecordedEvent]) -> Result<Handled, HandlerError> {
            Ok(Handled::default())
        }
    }

    fn parked() -> Parked {
        let mut parked = Parked::default();
        let why = Why {
            error: "poison".to_owned(),
            counts: true,
            state: ParkedState::Parked,
            not_before: None,
            at: Utc::now(),
        };
        parked.set_aside(Position::new(3), &["3".to_owned()], &why);
        parked
    }

    #[test]
    fn where_nothing_waits_the_batch_is_handled_as_it_is() {
        let batch = events(0, 11..=19);
        let sorted = sort(&Digits, &batch, &Parked::default(), 10);
        assert!(matches!(sorted.handle, Cow::Borrowed(all) if all.len() == 9));
        assert!(sorted.stop.is_none());
    }

    #[test]
    fn what_waits_is_set_aside_when_the_cursor_passes_it() {
        let batch = events(0, 11..=18);
        let mut parked = parked();
        let mut sorted = sort(&Digits, &batch, &parked, 10);
        let handled = sorted.handle.iter().map(|event| event.position.number());
        assert_eq!(handled.collect::<Vec<_>>(), [11, 12, 15, 16, 17, 18]);
        sorted.pass(Position::new(12), &mut parked);
        assert_eq!(parked.get("3").unwrap().last, Position::new(3));
        sorted.pass(Position::new(13), &mut parked);
        assert_eq!(parked.get("3").unwrap().last, Position::new(13));
    }

    #[test]
    fn an_event_of_unknown_sequences_stops_where_some_wait() {
        let batch = events(0, 18..=20);
        let sorted = sort(&Digits, &batch, &parked(), 10);
        assert!(matches!(sorted.stop, Some(Stop::Unkeyed(at, _)) if at.number() == 19));
        assert_eq!(sorted.end.unwrap().position.number(), 18);
    }
}
