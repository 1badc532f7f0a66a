//! The events of a batch, document by document.

use std::collections::HashMap;

use tidelog_domain::{RecordedEvent, Version, ViewDefinition, document_key};
use tidelog_eventbus::HandlerError;

use super::{MAX_KEY_BYTES, ProjectError};

/// The events of a batch that touch one document, in order.
pub(super) struct Touched<'e> {
    /// The document.
    pub(super) key: String,
    /// The first of them.
    pub(super) first: &'e RecordedEvent,
    /// The others.
    pub(super) later: Vec<&'e RecordedEvent>,
}

impl<'e> Touched<'e> {
    /// All of them, in order.
    pub(super) fn events(&self) -> impl DoubleEndedIterator<Item = &'e RecordedEvent> {
        std::iter::once(self.first).chain(self.later.iter().copied())
    }

    /// Whether a stream begins with the first of them.
    pub(super) fn begins(&self) -> bool {
        self.first.version == Version::new(1)
    }

    /// The last of them.
    pub(super) fn last(&self) -> &'e RecordedEvent {
        self.later.last().copied().unwrap_or(self.first)
    }
}

/// Which documents `events` touch, in the order in which they are first touched, each named once.
///
/// # Errors
///
/// [`HandlerError::Permanent`] at the first event whose keys cannot be found out, or are none.
pub(super) fn by_document<'e>(
    view: &dyn ViewDefinition,
    events: &'e [RecordedEvent],
) -> Result<Vec<Touched<'e>>, HandlerError> {
    let mut documents: Vec<Touched<'e>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for event in events.iter().filter(|event| view.filter().matches(event)) {
        for key in keys(view, event)? {
            match places.get(&key).and_then(|place| documents.get_mut(*place)) {
                Some(document) => document.later.push(event),
                None => {
                    places.insert(key.clone(), documents.len());
                    documents.push(Touched {
                        key,
                        first: event,
                        later: Vec::new(),
                    });
                }
            }
        }
    }
    Ok(documents)
}

/// The keys of `event`, each once.
pub(super) fn keys(
    view: &dyn ViewDefinition,
    event: &RecordedEvent,
) -> Result<Vec<String>, HandlerError> {
    let mut keys = view
        .keys(event)
        .map_err(|source| ProjectError::unreadable(view.name(), event, source).at(event))?;
    keys.sort_unstable();
    keys.dedup();
    let bad = |key: &&String| document_key(key).is_empty() || key.len() > MAX_KEY_BYTES;
    match keys.iter().find(bad) {
        None => Ok(keys),
        Some(key) => Err(ProjectError::BadKey {
            view: view.name().to_owned(),
            stream: event.stream.to_string(),
            event: event.id,
            bytes: key.len(),
            max: MAX_KEY_BYTES,
        }
        .at(event)),
    }
}
