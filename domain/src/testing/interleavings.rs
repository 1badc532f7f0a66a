//! The orders in which the events of several streams may be projected.

use crate::event::RecordedEvent;
use crate::stream::StreamId;

/// As many orders are tried; where there are no more than these, all of them.
const MOST_ORDERS: usize = 256;

/// As many events are folded for a document, over all its orders: a long log is tried in fewer.
const MOST_EVENTS: usize = 100_000;

/// As many orders are tried however long the log is.
const FEWEST_ORDERS: usize = 16;

/// Orders of `events` that keep the order within each stream. The first is the one given.
///
/// No order is promised between partitions, and any two streams may live in two: so each stream counts as a partition of
/// its own, wherever its name puts it. Where there are too many orders, it is these: stream by stream, the same backwards, in turns, and others
/// by chance, which are the same in each run.
pub(super) fn interleavings<'a>(events: &[&'a RecordedEvent]) -> Vec<Vec<&'a RecordedEvent>> {
    let most = (MOST_EVENTS / events.len().max(1)).clamp(FEWEST_ORDERS, MOST_ORDERS);
    let streams = streams(events);
    let mut turns: Vec<usize> = (0..)
        .zip(&streams)
        .flat_map(|(stream, events)| vec![stream; events.len()])
        .collect();
    let orders = all_orders(turns.clone(), most).unwrap_or_else(|| some_orders(&mut turns, most));
    let orders = orders.iter().map(|turns| in_turns(&streams, turns));
    std::iter::once(events.to_vec()).chain(orders).collect()
}

/// The events of each stream, in order.
fn streams<'a>(events: &[&'a RecordedEvent]) -> Vec<Vec<&'a RecordedEvent>> {
    let mut streams: Vec<(&StreamId, Vec<&RecordedEvent>)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for &event in events {
        let place = *places.entry(&event.stream).or_insert(streams.len());
        match streams.get_mut(place) {
            Some((_, events)) => events.push(event),
            None => streams.push((&event.stream, vec![event])),
        }
    }
    streams.into_iter().map(|(_, events)| events).collect()
}

/// The events in this order: the next one of the stream whose turn it is.
fn in_turns<'a>(streams: &[Vec<&'a RecordedEvent>], turns: &[usize]) -> Vec<&'a RecordedEvent> {
    let mut rest: Vec<_> = streams.iter().map(|events| events.iter()).collect();
    let next = |&stream: &usize| rest.get_mut(stream).and_then(Iterator::next).copied();
    turns.iter().filter_map(next).collect()
}

/// All orders of these turns, which come sorted; `None` where there are more than `most`.
fn all_orders(mut turns: Vec<usize>, most: usize) -> Option<Vec<Vec<usize>>> {
    let mut orders = vec![turns.clone()];
    while next_order(&mut turns) {
        if orders.len() == most {
            return None;
        }
        orders.push(turns.clone());
    }
    Some(orders)
}

/// Turns `turns` into the order after it by the alphabet; `false` at the last one.
fn next_order(turns: &mut [usize]) -> bool {
    let Some(last_rise) = turns
        .windows(2)
        .rposition(|pair| pair.is_sorted_by(|a, b| a < b))
    else {
        return false;
    };
    let (head, tail) = turns.split_at_mut(last_rise + 1);
    tail.reverse();
    if let Some(low) = head.last_mut()
        && let Some(higher) = tail.iter_mut().find(|turn| **turn > *low)
    {
        std::mem::swap(low, higher);
    }
    true
}

/// As many orders of these turns, which come sorted: the extremes, and others by chance.
fn some_orders(turns: &mut [usize], most: usize) -> Vec<Vec<usize>> {
    let backwards = turns.iter().rev().copied().collect();
    let mut orders = vec![turns.to_vec(), backwards, round_robin(turns)];
    let mut random = XorShift(0x9e37_79b9_7f4a_7c15);
    while orders.len() < most {
        for unmixed in (1..turns.len()).rev() {
            turns.swap(unmixed, random.up_to(unmixed));
        }
        orders.push(turns.to_vec());
    }
    orders
}

/// The first turn of each, then the second of each.
fn round_robin(sorted: &[usize]) -> Vec<usize> {
    let mut rounds: Vec<(usize, usize)> = sorted
        .chunk_by(|a, b| a == b)
        .flat_map(|turns| turns.iter().copied().enumerate())
        .collect();
    rounds.sort_unstable();
    rounds.into_iter().map(|(_, stream)| stream).collect()
}

/// Marsaglia's generator: chance that is the same in each run.
struct XorShift(u64);

impl XorShift {
    /// A number from 0 to `most`.
    fn up_to(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let choices = u64::try_from(most).map_or(u64::MAX, |most| most.saturating_add(1));
        usize::try_from(self.0 % choices).unwrap_or(most)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{MOST_ORDERS, all_orders, interleavings, some_orders};
    use crate::testing::{GivenEvents, given_log};

    /// A log with these events, each by the name of its stream.
    fn log(streams: &[&str]) -> GivenEvents {
        let lines = streams.iter().map(|stream| {
            format!(
                r#"{{"stream": "s/{stream}", "event_type": "s.told", "schema_version": 1, "payload": {{}}, "metadata": {{}}, "recorded_at": "2024-05-01T12:00:00Z"}}"#
            )
        });
        given_log(&lines.collect::<Vec<_>>().join("\n"))
    }

    /// Each order in words: `a1 b1 a2`.
    fn orders_of(streams: &[&str]) -> Vec<String> {
        let log = log(streams);
        let events: Vec<_> = log.events().iter().collect();
        interleavings(&events)
            .iter()
            .map(|order| {
                let words = order
                    .iter()
                    .map(|event| format!("{}{}", event.stream.id(), event.version));
                words.collect::<Vec<_>>().join(" ")
            })
            .collect()
    }

    #[test]
    fn few_events_are_tried_in_every_order_that_keeps_each_stream() {
        let orders = orders_of(&["b", "a", "b"]);
        assert_eq!(
            orders,
            ["b1 a1 b2", "b1 b2 a1", "b1 a1 b2", "a1 b1 b2"],
            "the one given, then all"
        );
        assert_eq!(orders_of(&["a", "a"]), ["a1 a2", "a1 a2"]);
        assert_eq!(orders_of(&[]), ["", ""]);
        let five: BTreeSet<String> = orders_of(&["a", "b", "c", "d", "e"]).into_iter().collect();
        assert_eq!(five.len(), 120);
    }

    #[test]
    fn many_events_are_tried_in_the_extreme_orders_and_in_many_others() {
        let streams: Vec<&str> = ["a", "b", "c", "d", "e", "f"].repeat(2);
        let orders = orders_of(&streams);
        assert_eq!(orders.len(), 1 + MOST_ORDERS);
        let has = |order: &str| orders.iter().any(|one| one == order);
        assert!(has("a1 a2 b1 b2 c1 c2 d1 d2 e1 e2 f1 f2"));
        assert!(has("f1 f2 e1 e2 d1 d2 c1 c2 b1 b2 a1 a2"));
        assert!(has("a1 b1 c1 d1 e1 f1 a2 b2 c2 d2 e2 f2"));
        let different: BTreeSet<_> = orders.iter().collect();
        assert!(different.len() > MOST_ORDERS / 2, "{}", different.len());
        for order in &orders {
            let words: BTreeSet<&str> = order.split(' ').collect();
            assert_eq!(words.len(), 12, "{order}");
            for stream in streams.iter().take(6) {
                let first = order.find(&format!("{stream}1"));
                assert!(first < order.find(&format!("{stream}2")), "{order}");
            }
        }
    }

    #[test]
    fn a_long_log_is_tried_in_fewer_orders() {
        assert_eq!(orders_of(&["a", "b"].repeat(5_000)).len(), 1 + 16);
    }

    #[test]
    fn all_orders_are_given_up_where_there_are_too_many() {
        assert_eq!(
            all_orders(vec![0, 1, 2], 6).map(|orders| orders.len()),
            Some(6)
        );
        assert_eq!(all_orders(vec![0, 1, 2], 5), None);
        assert_eq!(some_orders(&mut [0, 0, 1], 5).len(), 5);
    }
}
