//! Live queries: what changes in a view, for whoever listens.
//!
//! Which documents changed is a pure function of the log: the keys of the events between two places. So nothing is written for it, nothing is
//! remembered of a client, and any process can go on where another ended. One task a view ([`feed`]) looks how far the view is, reads the
//! events since, reads the documents that they touch, and puts each into the [`mailbox`] of every client that it is about; a [`session`]
//! tells one client.
//!
//! What was told up to a [`place`] is told for good: a document is told by its last event of a round, partition by partition, and
//! one whose stored state is already ahead of the view's checkpoints is left to the later round that has its later event.

mod feed;
mod mailbox;
mod place;
mod session;
#[cfg(test)]
mod tests;
mod touched;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidelog_domain::{HistoryId, ViewDefinition};
use tidelog_eventbus::{LogError, LogReader};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::live::LiveViews;
use crate::store::{Document, ReadError, ReadStore};
use crate::versions::Versions;
use feed::{Feed, GET_DOCUMENTS, Join};
use mailbox::{Mailbox, Wanted};
use place::Place;

pub(crate) use place::LiveId;
pub(crate) use session::{Asked, MAX_LIST_BYTES, Message, Refused, Session, Shown};

/// How many clients look at a time for what they missed. Each holds up to some tens of megabytes meanwhile, where documents are large.
const MAX_RESUMES: usize = 8;

/// Tells changes of views. Cloning gives another handle to the same tasks.
#[derive(Clone)]
pub(crate) struct Changes {
    shared: Arc<Shared>,
}

/// What all tasks and sessions share.
pub(crate) struct Shared {
    store: Arc<dyn ReadStore>,
    versions: Versions,
    live: LiveViews,
    log: Arc<dyn LogReader>,
    /// Turns of those who look for what they missed.
    resumes: Arc<Semaphore>,
    /// How to join those who listen to a view, by its name: one task a view, while somebody listens.
    feeds: Mutex<HashMap<String, mpsc::UnboundedSender<Join>>>,
}

/// Why changes cannot be told now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangesError {
    /// The view has no version that is read.
    #[error("the view has not been built yet")]
    NotBuilt,
    /// The read store cannot be read.
    #[error("the read store cannot be read")]
    Store(#[source] ReadError),
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Log(#[source] LogError),
    /// It was found out for somebody else.
    #[error("changes cannot be looked for: {0}")]
    Shared(String),
}

impl ChangesError {
    /// The same for somebody else.
    fn again(&self) -> Self {
        match self {
            Self::NotBuilt => Self::NotBuilt,
            other => Self::Shared(tidelog_domain::causes(other)),
        }
    }
}

/// Somebody who listens now.
#[derive(Debug)]
pub(crate) struct Joined {
    /// What comes.
    mailbox: Arc<Mailbox>,
    /// It comes after this.
    place: Arc<Place>,
    /// Up to where everything has been put into the mailbox.
    told: watch::Receiver<Arc<Place>>,
}

impl Changes {
    /// Tells the changes of the views in `store`, whose events are in `log`; `live` has those whose subscriptions run here.
    pub(crate) fn new(
        store: Arc<dyn ReadStore>,
        versions: Versions,
        live: LiveViews,
        log: Arc<dyn LogReader>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                store,
                versions,
                live,
                log,
                resumes: Arc::new(Semaphore::new(MAX_RESUMES)),
                feeds: Mutex::default(),
            }),
        }
    }

    /// How many tasks run: one a view that somebody listens to.
    #[cfg(test)]
    fn feeds(&self) -> usize {
        self.shared.feeds().len()
    }

    /// Listens to `view` from now on.
    async fn join(
        &self,
        view: &Arc<dyn ViewDefinition>,
        wanted: Wanted,
    ) -> Result<Joined, ChangesError> {
        let (answer, joined) = oneshot::channel();
        self.shared.clone().enter(view, Join { wanted, answer });
        let gone = |_| ChangesError::Shared("the task that looks has ended".to_owned());
        joined.await.map_err(gone)?
    }
}

impl Shared {
    fn feeds(&self) -> MutexGuard<'_, HashMap<String, mpsc::UnboundedSender<Join>>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands `join` to the task of `view`, which is started where there is none.
    fn enter(self: Arc<Self>, view: &Arc<dyn ViewDefinition>, join: Join) {
        let mut feeds = self.feeds();
        // The task is taken off under this lock before it ends, so who is sent to it is seen; one that has panicked is not there any more.
        let join = match feeds.get(view.name()) {
            Some(feed) => match feed.send(join) {
                Ok(()) => return,
                Err(mpsc::error::SendError(join)) => join,
            },
            None => join,
        };
        // The bound on those who wait is that on live connections.
        let (sender, joins) = mpsc::unbounded_channel();
        let _ = sender.send(join);
        feeds.insert(view.name().to_owned(), sender);
        drop(feeds);
        let feed = Feed::new(Arc::clone(&self), view.clone(), joins);
        tokio::spawn(feed.run());
    }

    /// The documents of `ids`, tombstones included, by id.
    async fn documents<'a>(
        &self,
        collection: &str,
        ids: impl Iterator<Item = &'a str>,
    ) -> Result<HashMap<String, Arc<Document>>, ChangesError> {
        let ids: Vec<&str> = ids.collect();
        let mut found = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(GET_DOCUMENTS) {
            let documents = self.store.get(collection, ids).await;
            for document in documents.map_err(ChangesError::Store)? {
                found.insert(document.id.clone(), Arc::new(document));
            }
        }
        Ok(found)
    }

    /// How far `collection` is, by its state records.
    async fn recorded(&self, collection: String) -> Result<Place, ChangesError> {
        let states = self.store.load_states(&collection).await;
        let states = states.map_err(|error| ChangesError::Store(error.into()))?;
        let history = match states.first() {
            Some((_, _, first)) => first.checkpoint.history,
            // Nothing was ever applied to it.
            None => self.history().await?,
        };
        let mut place = Place {
            collection,
            history,
            cursors: std::collections::BTreeMap::new(),
            parked: std::collections::BTreeMap::new(),
        };
        for (partition, _, record) in states {
            if record.checkpoint.history == history {
                place.cursors.insert(partition, record.checkpoint.cursor);
                place.parked.insert(partition, Arc::new(record.parked));
            }
        }
        Ok(place)
    }

    async fn history(&self) -> Result<HistoryId, ChangesError> {
        let identity = self.log.identity().await.map_err(ChangesError::Log)?;
        Ok(identity.history)
    }
}
