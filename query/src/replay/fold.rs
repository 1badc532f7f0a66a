//! A plain fold of the log, event by event: no batches, no conditions, no cache. It has nothing in common with the projector, so that
//! the one can be compared with the other.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Map, Value};
use tidelog_domain::{Folding, RecordedEvent, Version, ViewDefinition, causes};

use crate::projector::ProjectError;
use crate::store::Document;

/// A document, folded.
#[derive(Clone, Debug)]
pub(super) struct Folded {
    /// As the events make it; its revision is 0.
    pub(super) document: Document,
    /// Whether that can be told: not, where an event that it needs cannot be read.
    pub(super) is_known: bool,
    /// The first event of it that cannot be read, and why.
    pub(super) unreadable: Option<String>,
}

/// The document `key` after `event`.
pub(super) fn next(
    view: &dyn ViewDefinition,
    before: Option<Folded>,
    key: &str,
    event: &RecordedEvent,
) -> Folded {
    let was_known = before.as_ref().is_none_or(|before| before.is_known);
    let (before, unreadable) = match before {
        Some(before) => (Some(before.document), before.unreadable),
        None => (None, None),
    };
    let (state, unreadable) = match view.folding() {
        // What is made from the document before cannot be told any more once that could not.
        Folding::ReadAndFold if !was_known => (None, unreadable),
        _ => match guarded(|| state(view, before.as_ref(), key, event)) {
            Ok(state) => (Some(state), unreadable),
            Err(why) => (None, unreadable.or(Some(why))),
        },
    };
    let is_known = state.is_some();
    let (data, deleted) = state.unwrap_or_default();
    let at = event.recorded_at;
    let earlier = before.as_ref();
    let count = earlier.map_or(Version::NONE, |document| document.version);
    let mut applied = earlier.map_or_else(BTreeMap::new, |document| document.applied.clone());
    applied.insert(event.partition, event.position);
    let document = Document {
        id: key.to_owned(),
        data,
        version: match view.category() {
            Some(_) => event.version,
            None => count.next(),
        },
        created_at: earlier.map_or(at, |document| document.created_at.min(at)),
        updated_at: earlier.map_or(at, |document| document.updated_at.max(at)),
        deleted,
        applied,
        revision: 0,
    };
    Folded {
        document,
        is_known,
        unreadable,
    }
}

/// The keys of the documents that `event` touches, each once; why not, where that cannot be told.
pub(crate) fn keys(
    view: &dyn ViewDefinition,
    event: &RecordedEvent,
) -> Result<Vec<String>, String> {
    let keys = guarded(|| {
        view.keys(event)
            .map_err(|source| causes(&ProjectError::unreadable(view.name(), event, source)))
    });
    let mut keys = keys?;
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

/// The data of the document after `event`, and whether it is deleted; why not, where that cannot be told.
fn state(
    view: &dyn ViewDefinition,
    before: Option<&Document>,
    key: &str,
    event: &RecordedEvent,
) -> Result<(Map<String, Value>, bool), String> {
    let unreadable = |source| causes(&ProjectError::unreadable(view.name(), event, source));
    let live = before.filter(|document| !document.deleted);
    let live = live.map(|document| document.data.clone());
    let after = view.project(live, key, event).map_err(unreadable)?;
    match (after, view.folding()) {
        (Some(data), _) => Ok((data, false)),
        (None, Folding::FullState) => Ok((view.last_state(event).map_err(unreadable)?, true)),
        // It keeps its last state, which over several partitions depends on their order.
        (None, Folding::ReadAndFold) => {
            Ok((before.map(|doc| doc.data.clone()).unwrap_or_default(), true))
        }
    }
}

/// What `code` of a user's gives, also where it panics.
fn guarded<T>(code: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let done = catch_unwind(AssertUnwindSafe(code));
    done.unwrap_or_else(|panic| Err(format!("the view panicked: {}", said(&*panic))))
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}
