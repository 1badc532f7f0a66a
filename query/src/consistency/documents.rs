//! The documents that reads wait for, so that the watcher of their view looks at them too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidelog_domain::{ConsistencyToken, HistoryId};

use crate::store::Applied;

/// How many documents of a view are looked at. Reads of more wait for the view.
pub(super) const MAX_DOCUMENTS: usize = 256;

/// The documents that are waited for, by view and id, and by how many reads each.
#[derive(Clone, Default)]
pub(super) struct Documents(Arc<Mutex<HashMap<String, HashMap<String, usize>>>>);

impl Documents {
    /// The watcher of `view` looks at this document from now on, until what this gives is dropped; not where it has enough to look
    /// at already.
    pub(super) fn enter(&self, view: &str, id: &str) -> Option<Awaited> {
        let mut views = self.lock();
        let awaited = views.entry(view.to_owned()).or_default();
        if awaited.len() >= MAX_DOCUMENTS && !awaited.contains_key(id) {
            return None;
        }
        *awaited.entry(id.to_owned()).or_default() += 1;
        Some(Awaited {
            documents: self.clone(),
            view: view.to_owned(),
            id: id.to_owned(),
        })
    }

    /// The ids of those of `view`.
    pub(super) fn of(&self, view: &str) -> Vec<String> {
        let views = self.lock();
        let awaited = views.get(view);
        awaited.map_or_else(Vec::new, |awaited| awaited.keys().cloned().collect())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashMap<String, usize>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A read that waits for a document.
pub(super) struct Awaited {
    documents: Documents,
    view: String,
    id: String,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let mut views = self.documents.lock();
        let Some(awaited) = views.get_mut(&self.view) else {
            return;
        };
        if let Some(reads) = awaited.get_mut(&self.id) {
            *reads = reads.saturating_sub(1);
            if *reads == 0 {
                awaited.remove(&self.id);
            }
        }
        if awaited.is_empty() {
            views.remove(&self.view);
        }
    }
}

/// How far the documents were, when the watcher looked.
pub(super) struct Shown {
    pub(super) collection: String,
    /// The history of the log that the collection is built from.
    pub(super) history: HistoryId,
    pub(super) documents: HashMap<String, Applied>,
}

impl Shown {
    /// Whether this document has applied all that `token` names: then it has applied whatever of its own came before, too.
    pub(super) fn shows(&self, id: &str, token: &ConsistencyToken) -> bool {
        let applied = self.documents.get(id);
        self.history == token.history && applied.is_some_and(|applied| has_applied(applied, token))
    }
}

/// Whether a document that is so far has applied all that `token` names, which is of the same history.
pub(super) fn has_applied(applied: &Applied, token: &ConsistencyToken) -> bool {
    let passed = |(partition, position)| applied.get(partition) >= Some(position);
    token.positions.iter().map(|at| (&at.0, &at.1)).all(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_looked_at_as_long_as_a_read_waits_for_it() {
        let documents = Documents::default();
        let first = documents.enter("post", "p");
        let second = documents.enter("post", "p");
        let other = documents.enter("author", "a");
        assert_eq!(documents.of("post"), ["p"]);
        drop(first);
        assert_eq!(documents.of("post"), ["p"]);
        drop(second);
        assert!(documents.of("post").is_empty());
        assert_eq!(documents.of("author"), ["a"]);
        drop(other);
        assert!(documents.lock().is_empty());
    }

    #[test]
    fn no_more_than_its_bound_are_looked_at() {
        let documents = Documents::default();
        let enter = |number: usize| documents.enter("post", &number.to_string());
        let awaited: Vec<_> = (0..MAX_DOCUMENTS).map(enter).collect();
        assert!(awaited.iter().all(Option::is_some));
        assert!(enter(MAX_DOCUMENTS).is_none());
        assert!(enter(0).is_some(), "it is looked at anyway");
        drop(awaited);
        assert!(enter(MAX_DOCUMENTS).is_some());
    }
}
