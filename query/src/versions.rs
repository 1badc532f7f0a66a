//! Which version of each view is read: the aliases, looked up at most a few times a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidelog_eventbus::Retry;

use crate::store::{Alias, ReadError, ReadStore};

/// How old an alias may be that a read goes by.
pub const ALIAS_MAX_AGE: Duration = Duration::from_millis(500);

/// How long a collection stays after its last reader was led elsewhere, at least.
///
/// Far above [`ALIAS_MAX_AGE`] and the time that a read may take, so that no reader ever sees a collection vanish.
pub const DROP_GRACE: Duration = Duration::from_secs(60);

/// The aliases of the views, each at most [`ALIAS_MAX_AGE`] old.
///
/// Cloning gives another handle to the same.
#[derive(Clone)]
pub struct Versions {
    store: Arc<dyn ReadStore>,
    slots: Arc<Mutex<HashMap<String, Slot>>>,
}

/// What is known of one alias; locked while it is loaded, so that all who want it share one look-up.
type Slot = Arc<tokio::sync::Mutex<Option<Looked>>>;

/// The outcome of one look-up.
#[derive(Clone)]
struct Looked {
    begun: Instant,
    ended: Instant,
    alias: Result<Option<Arc<Alias>>, Arc<ReadError>>,
}

/// An alias, and when it was true.
#[derive(Clone, Debug)]
pub struct Current {
    /// The alias.
    pub alias: Arc<Alias>,
    /// It was looked up after this moment.
    pub as_of: Instant,
}

impl Versions {
    /// The aliases in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn ReadStore>) -> Self {
        Self {
            store,
            slots: Arc::default(),
        }
    }

    /// The alias of `view`; `None` while the view has no version yet.
    ///
    /// # Errors
    ///
    /// [`ReadError`], the same for all who waited for the one look-up.
    pub async fn current(&self, view: &str) -> Result<Option<Current>, ReadError> {
        let now = Instant::now();
        self.look(view, now.checked_sub(ALIAS_MAX_AGE).unwrap_or(now), now)
            .await
    }

    /// The alias of `view` as it is now: looked up after this call.
    ///
    /// # Errors
    ///
    /// As [`Versions::current`].
    pub async fn latest(&self, view: &str) -> Result<Option<Current>, ReadError> {
        let now = Instant::now();
        self.look(view, now, now).await
    }

    /// The alias of `view`, if it leads elsewhere now than `seen`, and `seen` is so old that its collection may have been
    /// dropped since.
    ///
    /// # Errors
    ///
    /// As [`Versions::current`].
    pub async fn moved_on(&self, view: &str, seen: &Current) -> Result<Option<Current>, ReadError> {
        if seen.as_of.elapsed() < DROP_GRACE / 2 {
            return Ok(None);
        }
        let latest = self.latest(view).await?;
        Ok(latest.filter(|latest| latest.alias.collection != seen.alias.collection))
    }

    /// An alias that was looked up after `newer_than`, or a failure that came after `arrived`.
    async fn look(
        &self,
        view: &str,
        newer_than: Instant,
        arrived: Instant,
    ) -> Result<Option<Current>, ReadError> {
        let slot = self.slot(view);
        let mut slot = slot.lock().await;
        let fits = |looked: &&Looked| match looked.alias {
            Ok(_) => looked.begun >= newer_than,
            // Who queued behind a look-up that failed fails with it, and does not wait for a failure of his own.
            Err(_) => looked.ended >= arrived,
        };
        if let Some(looked) = slot.as_ref().filter(fits) {
            return looked.outcome();
        }
        let begun = Instant::now();
        let alias = self.store.load_alias(view).await;
        let looked = Looked {
            begun,
            ended: Instant::now(),
            alias: alias.map(|alias| alias.map(Arc::new)).map_err(Arc::new),
        };
        let outcome = looked.outcome();
        *slot = Some(looked);
        outcome
    }

    fn slot(&self, view: &str) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        match slots.get(view) {
            Some(slot) => slot.clone(),
            None => slots.entry(view.to_owned()).or_default().clone(),
        }
    }
}

impl Looked {
    fn outcome(&self) -> Result<Option<Current>, ReadError> {
        match &self.alias {
            Ok(alias) => Ok(alias.as_ref().map(|alias| Current {
                alias: alias.clone(),
                as_of: self.begun,
            })),
            Err(error) => Err(shared(error)),
        }
    }
}

/// The same error once more, for somebody else who waited.
pub(crate) fn shared(error: &Arc<ReadError>) -> ReadError {
    match error.retry() {
        Retry::Never => ReadError::Corrupt {
            what: error.to_string(),
        },
        Retry::AfterReload | Retry::AfterBackoff => {
            ReadError::Unavailable(Box::new(Shared(error.clone())))
        }
    }
}

/// An error that several wait for.
#[derive(Debug, thiserror::Error)]
#[error("it was looked up for several readers at once")]
struct Shared(#[source] Arc<ReadError>);
