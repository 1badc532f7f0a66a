//! What waits for one client: the latest state of each document that changed since it was last told.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::place::{LiveId, Touch};
use crate::store::{Document, Filter, matches, may_match};

/// The most documents that wait for one client.
pub(crate) const MAX_PENDING: usize = 1_000;

/// The most bytes of documents that wait for one client: 4 MiB.
pub(crate) const MAX_PENDING_BYTES: usize = 4 * 1024 * 1024;

/// What a client wants to hear of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Interest {
    /// One document.
    Document(String),
    /// All documents that meet this.
    Fitting(Filter),
}

/// A client's interest, and whether it wants to see tombstones.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) interest: Interest,
    pub(crate) deleted: bool,
}

impl Wanted {
    /// Whether it is about `document` as it is now.
    pub(crate) fn shows(&self, document: &Document) -> bool {
        let fits = match &self.interest {
            Interest::Document(id) => *id == document.id,
            Interest::Fitting(filter) => matches(document, filter),
        };
        fits && (self.deleted || !document.deleted)
    }

    /// Whether it may be about the document `id`. Of others nothing is told, also not that they are gone: they may be another tenant's.
    pub(super) fn may_be(&self, id: &str) -> bool {
        match &self.interest {
            Interest::Document(own) => own == id,
            Interest::Fitting(filter) => may_match(id, filter),
        }
    }
}

/// Where a client is once it was told a change: between two places.
#[derive(Clone, Debug)]
pub(crate) struct At {
    /// Everything up to here was told before.
    pub(super) before: Arc<LiveId>,
    /// Everything up to here is told with it, or comes.
    pub(super) after: Arc<LiveId>,
    /// The last event that touched it; what was set aside and waits no longer has none.
    pub(super) touched: Option<Touch>,
    /// Everything up to here was told before the first of the events that touched it and are told with it: it may have been passed
    /// over, or waited, when earlier ones came.
    pub(super) since: Arc<LiveId>,
}

impl At {
    /// What the client goes on from. The changes between the two places are told partition by partition.
    pub(super) fn id(&self) -> LiveId {
        let Some(touched) = &self.touched else {
            return LiveId::clone(&self.before);
        };
        let mut id = LiveId::clone(&self.after);
        id.told_at(touched, &self.before);
        id
    }
}

/// A document that changed.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(super) id: String,
    /// What it is now; `None` where there is none.
    pub(super) document: Option<Arc<Document>>,
    /// About how many bytes it is.
    pub(super) bytes: usize,
    pub(super) at: At,
}

/// Why nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// The view is read from another version now.
    Reset,
    /// Too much waited.
    Slow,
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Next {
    Change(Change),
    Closed(Closed),
    /// Nothing waits.
    Nothing,
}

/// The changes that wait for one client, each document once. Bounded: who does not take them loses them all, and is told so.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(super) wanted: Wanted,
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    changes: BTreeMap<u64, Change>,
    /// Where the change of each document is.
    places: HashMap<String, u64>,
    count: u64,
    bytes: usize,
    closed: Option<Closed>,
}

impl Mailbox {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            waiting: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    /// Puts a change behind all others, in place of an earlier one of the same document.
    pub(super) fn put(&self, change: &Change) {
        if !self.wanted.may_be(&change.id) {
            return;
        }
        let mut change = change.clone();
        change.document = change
            .document
            .filter(|document| self.wanted.shows(document));
        if change.document.is_none() {
            change.bytes = change.id.len();
        }
        let mut waiting = self.lock();
        if waiting.closed.is_some() {
            return;
        }
        waiting.put(change);
        if waiting.changes.len() > MAX_PENDING || waiting.bytes > MAX_PENDING_BYTES {
            *waiting = Waiting {
                closed: Some(Closed::Slow),
                ..Waiting::default()
            };
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Nothing that waits counts any more: the view is read from another version.
    pub(super) fn reset(&self) {
        let mut waiting = self.lock();
        let closed = waiting.closed.unwrap_or(Closed::Reset);
        *waiting = Waiting {
            closed: Some(closed),
            ..Waiting::default()
        };
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Takes what comes next.
    pub(super) fn take(&self) -> Next {
        let mut waiting = self.lock();
        if let Some(closed) = waiting.closed {
            return Next::Closed(closed);
        }
        match waiting.changes.pop_first() {
            None => Next::Nothing,
            Some((_, change)) => {
                waiting.places.remove(&change.id);
                waiting.bytes = waiting.bytes.saturating_sub(change.bytes);
                Next::Change(change)
            }
        }
    }

    /// Waits until there may be something to take.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn put(&mut self, mut change: Change) {
        if let Some(earlier) = self.places.remove(&change.id)
            && let Some(earlier) = self.changes.remove(&earlier)
        {
            self.bytes = self.bytes.saturating_sub(earlier.bytes);
            change.at.since = earlier.at.since;
        }
        self.count += 1;
        self.bytes += change.bytes;
        self.places.insert(change.id.clone(), self.count);
        self.changes.insert(self.count, change);
    }
}

#[cfg(test)]
mod tests {
    use tidelog_domain::{Cursor, HistoryId, Partition, Position};
    use uuid::Uuid;

    use super::super::place::Place;
    use super::*;

    /// Where everything up to `position` of the one partition was told.
    fn told(position: u64) -> Arc<LiveId> {
        let cursor = Cursor {
            position: Position::new(position),
            event_id: None,
        };
        Arc::new(LiveId::at(&Place {
            collection: "post_v1".to_owned(),
            history: HistoryId::new(Uuid::nil()),
            cursors: [(Partition::new(0), cursor)].into(),
            parked: BTreeMap::new(),
        }))
    }

    fn change(position: u64) -> Change {
        let at = At {
            before: told(position - 1),
            after: told(position),
            touched: None,
            since: told(position - 1),
        };
        Change::of("p".to_owned(), None, at)
    }

    #[test]
    fn a_change_in_place_of_an_earlier_one_tells_since_when_it_waits() {
        let mailbox = Mailbox::new(Wanted {
            interest: Interest::Document("p".to_owned()),
            deleted: false,
        });
        for position in [7, 8, 9] {
            mailbox.put(&change(position));
        }
        let Next::Change(change) = mailbox.take() else {
            panic!("there is one");
        };
        assert_eq!((change.at.before, change.at.since), (told(8), told(6)));
        assert!(matches!(mailbox.take(), Next::Nothing));
    }
}
