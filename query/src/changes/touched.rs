//! Which documents the events of the log touch.

use std::collections::{BTreeMap, HashMap};

use tidelog_domain::{RecordedEvent, ViewDefinition, document_key};

use super::place::{Place, Touch};
use crate::projector::MAX_KEY_BYTES;
use crate::replay::guarded_keys;

/// The documents that some events touch, each by the last event that does.
#[derive(Default)]
pub(super) struct Touched(HashMap<String, Touch>);

impl Touched {
    /// Adds what `event` touches, as far as it `counts`. What waits at `place` has not been changed by it yet.
    pub(super) fn add(
        &mut self,
        view: &dyn ViewDefinition,
        event: &RecordedEvent,
        place: &Place,
        counts: impl Fn(&Touch, &str) -> bool,
    ) {
        let ids = touched_by(view, event);
        let count = ids.len();
        for (index, id) in (0_u32..).zip(ids) {
            let touch = Touch {
                partition: event.partition,
                position: event.position,
                index,
                is_last: usize::try_from(index).is_ok_and(|index| index + 1 == count),
            };
            if counts(&touch, &id) && !place.waits(event.partition, event.position, &id) {
                self.0.insert(id, touch);
            }
        }
    }

    /// All of them, in the order in which they are told.
    pub(super) fn in_order(self) -> BTreeMap<Touch, String> {
        let touched = self.0.into_iter();
        touched.map(|(id, touch)| (touch, id)).collect()
    }
}

/// The documents that `event` touches, each once; none where that cannot be told, as then it has changed nothing.
fn touched_by(view: &dyn ViewDefinition, event: &RecordedEvent) -> Vec<String> {
    if !view.filter().matches(event) {
        return Vec::new();
    }
    // An event at which the view panics is set aside, as one that it cannot read.
    let mut keys = guarded_keys(view, event).unwrap_or_default();
    keys.retain(|key| !document_key(key).is_empty() && key.len() <= MAX_KEY_BYTES);
    keys
}
