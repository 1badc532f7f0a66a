//! Replay: building a view anew from the log, beside the version that is read, and switching to it.
//!
//! # The protocol
//!
//! N is the version that is read, N+1 the one that is built. Everything that matters is in records that are changed by
//! compare-and-set: the view's alias, and the state records of each version.
//!
//! | step | what happens | if the replayer dies here |
//! |---|---|---|
//! | 1 claim | the alias says who replays, into which collection (a name that was never used) | the claim expires |
//! | 2 build | N+1 is folded from the log up to its heads, partitions side by side; the claim beats | the claim expires |
//! | 3 announce | the alias says that N may be paused | the claim expires, N is woken |
//! | 4 rest | N's state records are paused; their owners finish their batch and give them back | the claim expires, N is woken |
//! | 5 catch up | the log's heads are read *now*; N+1 reaches them in every partition | the claim expires, N is woken |
//! | 6 compare | the documents of both are counted | the claim expires, N is woken |
//! | 7 switch | one compare-and-set: the alias leads to N+1, N is kept, N-1 is retired | before: as above; after: all is done |
//!
//! - *Nothing that was seen is lost.* What a reader saw in N was applied before N came to rest, so it is at or below the
//!   heads of step 5, and N+1 has it. (An owner that hangs for longer than its lease, and then wakes and writes, can
//!   show in N what N+1 shows a moment later.)
//! - *A claim expires* when its beat has not changed for [`ReplayOptions::lease`], listened to on the observer's own clock. The
//!   views' own loop (see [`Views`](crate::Views)) and the next replay both listen. Who finds a claim expired
//!   wakes N, then clears the claim and retires N+1's collection, in this order: so N never stays paused for good.
//! - *Two replays at once:* the alias has room for one claim. The other is told [`ReplayError::AlreadyRunning`].
//! - *A replayer that was thought dead* finds its claim gone at its next beat, and at the switch, which then fails. Its
//!   collection has a name of its own, so it cannot write into what others build; and it cannot pause N again, because the records
//!   that it knows were all written anew when it was given up.
//! - *Collections are dropped* by the views' own loop, a grace period after nobody is led to them any more.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidelog_domain::{Position, ViewDefinition};
use tidelog_eventbus::{
    Backoff, CatchUp, CatchUpError, CatchUpProgress, LogError, LogReader, Retry,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

mod alias;
mod claim;
mod rest;
mod silence;
#[cfg(test)]
mod tests;

pub(crate) use alias::change;
pub(crate) use claim::give_up;
pub(crate) use silence::{Sign, Silence};

use crate::causes::causes;
use crate::projector::Projector;
use crate::store::{Query, ReadError, ReadStore};
use claim::{Claim, Lost};
use rest::bring_to_rest;

/// The first and the longest wait between tries while something is unavailable.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// How often the growing log is run after before the version that is read is paused for the last stretch.
const MAX_LAPS: usize = 16;

/// So few events may be left when the version that is read is paused.
const LAST_STRETCH_EVENTS: u64 = 2_000;

/// How long a replay that failed may take to clear up behind itself; what is left is found by others.
const CLEAR_UP: Duration = Duration::from_secs(5);

/// The bounds and times of a replay.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// How many events are read and folded at once, a partition. 5,000.
    pub page_max_events: usize,
    /// How many partitions are folded side by side. 4.
    pub concurrent_partitions: usize,
    /// How long nothing may be heard of a replay before it counts as dead. 5 s.
    pub lease: Duration,
    /// How often it says that it lives. 1 s.
    pub beat: Duration,
    /// How long the documents of both versions may take to be counted, while the old one rests. 2 s.
    pub compare_timeout: Duration,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        Self {
            page_max_events: 5_000,
            concurrent_partitions: 4,
            lease: Duration::from_secs(5),
            beat: Duration::from_secs(1),
            compare_timeout: Duration::from_secs(2),
        }
    }
}

/// A replay that went well.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Replayed {
    /// The view.
    pub view: String,
    /// The collection that is read now.
    pub collection: String,
    /// The number of that version.
    #[serde(rename = "version")]
    pub number: u64,
    /// The collection that was read before; it is kept for a rollback.
    pub previous: String,
    /// How many events were read.
    pub events: u64,
    /// How many documents there are now, deleted ones aside; `None` when counting took too long.
    pub documents: Option<u64>,
    /// How many there were in the version before. It need not be the same: that version may have been behind, damaged, or
    /// built by another definition.
    pub documents_before: Option<u64>,
}

/// How a replay is going on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum ReplayProgress<'a> {
    /// So many of so many events are folded. The log may grow meanwhile.
    Folded {
        /// Events that are folded.
        events: u64,
        /// Events that the log has, as far as is known.
        of: u64,
    },
    /// Something is unavailable, and tried again without end.
    Waiting {
        /// The error and its causes.
        reason: &'a str,
    },
    /// All is folded; the new version takes over.
    Switching,
}

/// Told of each step of a replay.
pub type OnProgress<'a> = &'a (dyn Fn(ReplayProgress<'_>) + Send + Sync);

/// Why a view was not replayed. The version that was read before is read on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// Another replay of the view runs, or ran until a moment ago.
    #[error("the view {view} is being replayed already, by {owner}")]
    AlreadyRunning {
        /// The view.
        view: String,
        /// Who replays it.
        owner: String,
    },
    /// The view has no version yet: the role eventbus builds the first one.
    #[error("the view {view} has not been built yet; start the role eventbus, which builds it")]
    NotBuilt {
        /// The view.
        view: String,
    },
    /// Nothing was heard of this replay for so long that others gave it up.
    #[error("the replay was given up by others, because nothing was heard of it for too long")]
    Superseded,
    /// It was cancelled.
    #[error("the replay was cancelled")]
    Cancelled,
    /// An event could not be folded, or the log has another history now.
    #[error("the events could not be folded")]
    Fold(#[source] CatchUpError),
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Log(#[from] LogError),
    /// The read store failed.
    #[error("the read store failed")]
    Store(#[from] ReadError),
}

impl From<Lost> for ReplayError {
    fn from(_: Lost) -> Self {
        Self::Superseded
    }
}

impl ReplayError {
    /// Whether the same may go well when it is tried again later.
    fn is_transient(&self) -> bool {
        match self {
            Self::Log(error) => error.retry() == Retry::AfterBackoff,
            Self::Store(error) => error.retry() == Retry::AfterBackoff,
            _ => false,
        }
    }
}

/// Replays views: from any process that reaches the log and the read store, beside the ones that serve.
#[derive(Clone)]
pub struct Replay {
    store: Arc<dyn ReadStore>,
    log: Arc<dyn LogReader>,
    options: ReplayOptions,
}

impl Replay {
    /// Replays from `log` into `store`.
    #[must_use]
    pub fn new(store: Arc<dyn ReadStore>, log: Arc<dyn LogReader>) -> Self {
        Self {
            store,
            log,
            options: ReplayOptions::default(),
        }
    }

    /// With other bounds and times than the defaults.
    #[must_use]
    pub fn with_options(mut self, options: ReplayOptions) -> Self {
        self.options = options;
        self
    }

    /// Builds `view` anew and switches to it.
    ///
    /// Once it has begun, something unavailable is tried again until `cancel`. When the future is dropped, it is as if the
    /// process had died: others clear up after the lease.
    ///
    /// # Errors
    ///
    /// [`ReplayError`]; what was built is given up, and the version that was read goes on.
    pub async fn run(
        &self,
        view: &Arc<dyn ViewDefinition>,
        progress: OnProgress<'_>,
        cancel: &CancellationToken,
    ) -> Result<Replayed, ReplayError> {
        let owner = format!("replay-{}", Uuid::now_v7());
        let store = self.store.clone();
        let claim = Claim::make(store, view.name(), &owner, self.options.lease);
        let claim = tokio::select! {
            claim = claim => claim?,
            () = cancel.cancelled() => return Err(ReplayError::Cancelled),
        };
        let building = &claim.building.collection;
        tracing::info!(view = view.name(), collection = %building, "a replay begins");
        let run = Run {
            replay: self,
            claim: &claim,
            view,
            progress,
            cancel,
        };
        let replayed = tokio::select! {
            replayed = run.build_and_switch() => replayed,
            lost = claim.beat(self.options.beat) => match lost {
                Err(lost) => Err(lost.into()),
            },
        };
        match &replayed {
            Ok(done) => tracing::info!(
                view = view.name(), collection = %done.collection, events = done.events, documents = done.documents,
                documents_before = done.documents_before, "a replay took over"
            ),
            Err(error) => {
                tracing::warn!(view = view.name(), error = causes(error), "a replay failed");
                run.clear_up().await;
            }
        }
        replayed
    }
}

/// A replay that has its claim.
struct Run<'a> {
    replay: &'a Replay,
    claim: &'a Claim,
    view: &'a Arc<dyn ViewDefinition>,
    progress: OnProgress<'a>,
    cancel: &'a CancellationToken,
}

impl Run<'_> {
    async fn build_and_switch(&self) -> Result<Replayed, ReplayError> {
        let Replay { store, log, .. } = self.replay;
        let building = &self.claim.building;
        self.persist(|| async { Ok(store.create_collection(&building.collection).await?) })
            .await?;
        let folding = self.folding();
        let mut done = 0;
        for _ in 0..MAX_LAPS {
            let heads = self.persist(|| async { Ok(log.heads().await?) }).await?;
            let end = total(&heads);
            if end.saturating_sub(done) <= LAST_STRETCH_EVENTS {
                break;
            }
            self.fold(&folding, &heads).await?;
            done = end;
        }
        (self.progress)(ReplayProgress::Switching);
        let announced = self.persist(|| async { Ok(self.claim.begin_to_switch().await?) });
        let read = announced.await?.ok_or(Lost)?.collection;
        let rest = self.persist(|| async {
            Ok(bring_to_rest(self.claim, &read, self.replay.options.lease).await?)
        });
        if !rest.await? {
            return Err(Lost.into());
        }
        let heads = self.persist(|| async { Ok(log.heads().await?) }).await?;
        self.fold(&folding, &heads).await?;
        let documents_before = self.count(&read).await;
        let documents = self.count(&building.collection).await;
        let fingerprint = self.view.fingerprint();
        let switched = self.persist(|| async { Ok(self.claim.switch(&fingerprint).await?) });
        switched.await?.ok_or(Lost)?;
        Ok(Replayed {
            view: self.view.name().to_owned(),
            collection: building.collection.clone(),
            number: building.number,
            previous: read,
            events: folding.events.load(Ordering::Relaxed),
            documents,
            documents_before,
        })
    }

    /// What folds the log into the collection that is built.
    fn folding(&self) -> Folding {
        let Replay {
            store,
            log,
            options,
        } = self.replay;
        let collection = &self.claim.building.collection;
        let projector = Projector::new(self.view.clone(), store.clone(), collection);
        Folding {
            catch_up: CatchUp {
                name: collection.clone(),
                owner: self.claim.owner.clone(),
                handler: Arc::new(projector),
                states: store.clone(),
                log: log.clone(),
                page_max_events: options.page_max_events,
                concurrent_partitions: options.concurrent_partitions,
            },
            events: AtomicU64::new(0),
        }
    }

    /// Folds everything up to `heads`.
    async fn fold(&self, folding: &Folding, heads: &[Position]) -> Result<(), ReplayError> {
        let of = total(heads);
        let report = |told: CatchUpProgress<'_>| match told {
            CatchUpProgress::Reached { events, .. } => {
                let events = folding.add(events);
                (self.progress)(ReplayProgress::Folded { events, of });
            }
            CatchUpProgress::Retrying { reason, .. } => {
                (self.progress)(ReplayProgress::Waiting { reason });
            }
            _ => {}
        };
        self.persist(|| async {
            let folded = folding.catch_up.run_to(heads, &report, self.cancel).await;
            folded.map_err(|error| match error {
                CatchUpError::Cancelled => ReplayError::Cancelled,
                CatchUpError::TakenOver { .. } => ReplayError::Superseded,
                CatchUpError::Log(error) => ReplayError::Log(error),
                CatchUpError::State(error) => ReplayError::Store(error.into()),
                other => ReplayError::Fold(other),
            })
        })
        .await
    }

    /// How many documents `collection` has, tombstones aside; `None` when that takes too long or fails.
    async fn count(&self, collection: &str) -> Option<u64> {
        let everything = Query::default();
        let count = self.replay.store.count(collection, &everything);
        match timeout(self.replay.options.compare_timeout, count).await {
            Ok(Ok(count)) => Some(count),
            Ok(Err(error)) => {
                tracing::warn!(
                    collection,
                    error = causes(&error),
                    "the documents could not be counted"
                );
                None
            }
            Err(_) => {
                tracing::info!(
                    collection,
                    "there are too many documents to count them during the switch"
                );
                None
            }
        }
    }

    /// Does `step` until it goes well, fails for good, or the replay is cancelled.
    async fn persist<T, F: Future<Output = Result<T, ReplayError>>>(
        &self,
        step: impl Fn() -> F,
    ) -> Result<T, ReplayError> {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let done = tokio::select! {
                done = step() => done,
                () = self.cancel.cancelled() => return Err(ReplayError::Cancelled),
            };
            match done {
                Err(error) if error.is_transient() => {
                    let reason = causes(&error);
                    (self.progress)(ReplayProgress::Waiting { reason: &reason });
                    tokio::time::sleep(backoff.next_wait()).await;
                }
                done => return done,
            }
        }
    }

    /// Wakes the version that is read and retires what was built. Where that fails, the lease ends by itself.
    async fn clear_up(&self) {
        match timeout(CLEAR_UP, self.claim.give_up()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error = causes(&error);
                tracing::warn!(
                    view = self.claim.view,
                    error,
                    "a failed replay is left for others to clear up"
                );
            }
            Err(_) => {
                tracing::warn!(
                    view = self.claim.view,
                    "a failed replay is left for others to clear up"
                );
            }
        }
    }
}

/// The folding of the log into the new version, and how many events it has had.
struct Folding {
    catch_up: CatchUp,
    events: AtomicU64,
}

impl Folding {
    fn add(&self, events: usize) -> u64 {
        let events = u64::try_from(events).unwrap_or(u64::MAX);
        self.events.fetch_add(events, Ordering::Relaxed) + events
    }
}

/// How many events a log with these heads has.
fn total(heads: &[Position]) -> u64 {
    let numbers = heads.iter().map(|head| head.number());
    numbers.fold(0, u64::saturating_add)
}
