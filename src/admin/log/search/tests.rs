use std::sync::Arc;
use std::time::Duration as StdDuration;

use chrono::TimeDelta;
use tidelog_command::Clock;
use tidelog_command::store::InMemoryEventStore;
use tidelog_domain::{Append, EventId, ExpectedVersion, NewEvent, Partitions, Payload};

use super::*;

const EVENTS: usize = 120;

/// A log whose events, of five streams, were recorded some at the same time and some a second apart; and when the first was.
async fn log() -> (InMemoryEventStore, DateTime<Utc>) {
    let begin = DateTime::UNIX_EPOCH + TimeDelta::days(1);
    let clock = Clock::at(begin);
    let partitions = Partitions::new(4).unwrap();
    let log = InMemoryEventStore::new(partitions).with_clock(clock.clone());
    for n in 0..EVENTS {
        let event = NewEvent {
            id: EventId::new(uuid::Uuid::now_v7()),
            event_type: if n % 7 == 0 { "rare" } else { "usual" }.into(),
            schema_version: 1,
            payload: Payload::from_stored(n.to_string().as_bytes()),
            metadata: Payload::from_stored(b"{}"),
        };
        let stream = StreamId::new("thing", &(n % 5).to_string()).unwrap();
        let one = Append::one(stream, ExpectedVersion::Any, vec![event]);
        assert!(log.append(0, Arc::new([one])).await[0].is_ok());
        if n % 3 == 0 {
            clock.advance(StdDuration::from_secs(1));
        }
    }
    (log, begin)
}

fn search(newest_first: bool, limit: usize) -> Search {
    Search {
        newest_first,
        limit,
        ..Search::default()
    }
}

/// All that `search` finds, page by page.
async fn all(log: &InMemoryEventStore, mut search: Search) -> Vec<RecordedEvent> {
    let mut found = Vec::new();
    for _ in 0..=EVENTS {
        let page = search.run(log).await.unwrap();
        assert!(page.events.len() <= search.limit);
        found.extend(page.events);
        search.after = Some(page.next);
        if !page.more {
            return found;
        }
    }
    panic!("it does not end");
}

/// Checks that `found` is in the order of time, and has each event once.
fn in_order(found: &[RecordedEvent], newest_first: bool) {
    for pair in found.windows(2) {
        let [a, b] = [&pair[0], &pair[1]].map(|event| event.recorded_at);
        assert!(if newest_first { a >= b } else { a <= b }, "{a} before {b}");
    }
    let ids: std::collections::HashSet<_> = found.iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), found.len());
}

#[tokio::test]
async fn pages_of_any_size_give_each_event_once_in_the_order_of_time() {
    let (log, _) = log().await;
    for newest_first in [true, false] {
        for limit in [1, 2, 7, 1_000] {
            let found = all(&log, search(newest_first, limit)).await;
            in_order(&found, newest_first);
            assert_eq!(found.len(), EVENTS, "{limit}");
            let mut rare = search(newest_first, limit);
            rare.wanted.event_type = Some("rare".to_owned());
            let found = all(&log, rare).await;
            in_order(&found, newest_first);
            assert_eq!(found.len(), EVENTS.div_ceil(7), "{limit}");
        }
    }
}

#[tokio::test]
async fn a_search_that_is_cut_off_goes_on_without_a_gap() {
    let (log, _) = log().await;
    for newest_first in [true, false] {
        for stream in [None, StreamId::new("thing", "1").ok()] {
            let (mut rare, mut found) = (search(newest_first, 2), Vec::new());
            rare.wanted.event_type = Some("rare".to_owned());
            rare.stream = stream.clone();
            rare.bounds.max_looked_at = 3;
            let mut pages = 0;
            loop {
                let page = rare.run(&log).await.unwrap();
                pages += 1;
                assert!(pages <= EVENTS, "it does not end");
                found.extend(page.events);
                rare.after = Some(page.next);
                if !page.more {
                    break;
                }
            }
            in_order(&found, newest_first);
            let of_it = (0..EVENTS)
                .step_by(7)
                .filter(|n| stream.is_none() || n % 5 == 1);
            assert_eq!(found.len(), of_it.count(), "{stream:?}");
        }
    }
}

#[tokio::test]
async fn a_span_of_time_has_its_begin_and_not_its_end() {
    let (log, begin) = log().await;
    let (since, until) = (
        begin + TimeDelta::seconds(10),
        begin + TimeDelta::seconds(20),
    );
    let whole = all(&log, search(false, 50)).await;
    let expected = whole
        .iter()
        .filter(|event| event.recorded_at >= since && event.recorded_at < until);
    let expected: Vec<_> = expected.map(|event| event.id).collect();
    assert!(expected.len() > 20);
    for newest_first in [true, false] {
        for stream in [None, StreamId::new("thing", "1").ok()] {
            let found = all(
                &log,
                Search {
                    since: Some(Start::Time(since)),
                    until: Some(until),
                    stream: stream.clone(),
                    ..search(newest_first, 3)
                },
            )
            .await;
            in_order(&found, newest_first);
            let of_it = whole
                .iter()
                .filter(|event| stream.as_ref().is_none_or(|own| *own == event.stream));
            let of_it = of_it.filter(|event| expected.contains(&event.id)).count();
            assert!(of_it > 0);
            assert_eq!(found.len(), of_it, "{stream:?}");
        }
    }
}

#[tokio::test]
async fn whoever_begins_now_sees_what_comes_after() {
    let (log, _) = log().await;
    let mut follow = Search {
        since: Some(Start::Now),
        ..search(false, 10)
    };
    let page = follow.run(&log).await.unwrap();
    assert_eq!((page.events.len(), page.more), (0, false));
    follow.since = None;
    follow.after = Some(page.next);
    let event = NewEvent {
        id: EventId::new(uuid::Uuid::now_v7()),
        event_type: "new".into(),
        schema_version: 1,
        payload: Payload::from_stored(b"{}"),
        metadata: Payload::from_stored(b"{}"),
    };
    let stream = StreamId::new("thing", "7").unwrap();
    let one = Append::one(stream.clone(), ExpectedVersion::Any, vec![event]);
    assert!(log.append(0, Arc::new([one])).await[0].is_ok());
    let page = follow.run(&log).await.unwrap();
    assert_eq!(page.events.len(), 1);
    assert_eq!(page.events[0].stream, stream);
    follow.after = Some(page.next);
    assert!(follow.run(&log).await.unwrap().events.is_empty());
}

#[tokio::test]
async fn a_page_says_how_far_it_has_looked() {
    let (log, _) = log().await;
    let page = search(true, 10).run(&log).await.unwrap();
    assert!(page.more);
    assert_eq!(
        page.looked_to,
        page.events.last().map(|event| event.recorded_at)
    );
    let whole = search(true, 1_000).run(&log).await.unwrap();
    assert_eq!((whole.more, whole.looked_to), (false, None));
    assert_eq!(whole.looked_at, u64::try_from(EVENTS).unwrap());
}
