//! The documents of a view over a log, provided that they do not depend on chance.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::events::unreadable;
use super::interleavings::interleavings;
use crate::event::RecordedEvent;
use crate::projection::{Folding, ViewDefinition};

/// What a document is after some events; `None` for no document.
type Document = Option<Map<String, Value>>;

/// So many events of an order are shown from where it differs from another.
const MOST_SHOWN: usize = 20;

/// The documents of `view` over `log`, by key.
///
/// Each is made again in other orders that the partitions of a log could bring its events in.
///
/// # Panics
///
/// When an event cannot be read, or when a document comes out differently in another order, or in the same order again.
#[track_caller]
pub(super) fn documents(
    view: &dyn ViewDefinition,
    log: &[RecordedEvent],
) -> BTreeMap<String, Map<String, Value>> {
    let mut documents = BTreeMap::new();
    for (key, events) in by_document(view, log) {
        let document = fold(view, &key, &events);
        for order in interleavings(&events) {
            let other = fold(view, &key, &order);
            if other != document {
                refuse(&key, (&events, &document), (&order, &other));
            }
        }
        documents.extend(document.map(|document| (key, document)));
    }
    documents
}

/// The events that touch each document, in the order of the log.
#[track_caller]
fn by_document<'a>(
    view: &dyn ViewDefinition,
    log: &'a [RecordedEvent],
) -> BTreeMap<String, Vec<&'a RecordedEvent>> {
    let mut touching: BTreeMap<String, Vec<&RecordedEvent>> = BTreeMap::new();
    for event in log.iter().filter(|event| view.filter().matches(event)) {
        let keys = view
            .keys(event)
            .unwrap_or_else(|error| unreadable(event, &error));
        for key in keys.into_iter().collect::<BTreeSet<_>>() {
            touching.entry(key).or_default().push(event);
        }
    }
    touching
}

#[track_caller]
fn fold(view: &dyn ViewDefinition, key: &str, events: &[&RecordedEvent]) -> Document {
    let mut document = None;
    for event in events {
        let before = document
            .take()
            .filter(|_| view.folding() == Folding::ReadAndFold);
        document = view
            .project(before, key, event)
            .unwrap_or_else(|error| unreadable(event, &error));
    }
    document
}

/// Says what a document is after its events in one order, and what after them in another.
#[track_caller]
fn refuse(
    key: &str,
    (events, document): (&[&RecordedEvent], &Document),
    (order, other): (&[&RecordedEvent], &Document),
) -> ! {
    let same = |(a, b): &(&&RecordedEvent, &&RecordedEvent)| a.id == b.id;
    let alike = events.iter().zip(order).take_while(same).count();
    let after = match alike {
        0 => String::new(),
        alike => format!(" after the same {alike}"),
    };
    assert!(
        alike < events.len(),
        "folding the same events again made another document {key}: the projection depends on something else\n\
         first: {}\nagain: {}",
        json(document),
        json(other)
    );
    panic!(
        "the projection depends on the order between partitions: each stream may live in one of its own, so that both orders \
         can happen\ndocument {key}{after}\n{}: {}\n{}: {}",
        listed(events, alike),
        json(document),
        listed(order, alike),
        json(other)
    );
}

fn json(document: &Document) -> String {
    match document {
        Some(document) => Value::Object(document.clone()).to_string(),
        None => "none".to_owned(),
    }
}

/// Events from the one at `first` on, by stream and version.
fn listed(events: &[&RecordedEvent], first: usize) -> String {
    let rest = events.iter().skip(first);
    let mut listed: Vec<String> = rest
        .take(MOST_SHOWN)
        .map(|event| format!("{}@{}", event.stream, event.version))
        .collect();
    if events.len() > first + MOST_SHOWN {
        listed.push("…".to_owned());
    }
    listed.join(", ")
}
