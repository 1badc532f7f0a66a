//! Replay: building a view anew from the log, beside the version that is read, and switching to it.
//!
//! # The protocol
//!
//! N is the version that is read, N+1 the one that is built. Everything that matters is in records that are changed by
//! compare-and-set: the view's alias, and the state records of each version.
//!
//! | step | what happens | if the replayer dies here |
//! |---|---|---|
//! | 1 claim | the alias says who replays, what, and into which collection (a name that was never used) | the claim expires |
//! | 2 build | N+1 is folded from the log up to its heads, partitions side by side; the claim beats | the claim expires |
//! | 2b verify | where that is wanted: N+1 is compared with an independent fold of the log, up to N+1's checkpoints (see [`Compare`]); N goes on | the claim expires |
//! | 2c index | the indexes that the view declares are made in N+1; where that fails, it goes on without | the claim expires |
//! | 3 announce | the alias says that N may be paused | the claim expires, N is woken |
//! | 4 rest | N's state records are paused; their owners finish their batch and give them back | the claim expires, N is woken |
//! | 5 catch up | the log's heads are read *now*; N+1 reaches them in every partition | the claim expires, N is woken |
//! | 6 count | the documents of both are counted | the claim expires, N is woken |
//! | 7 switch | one compare-and-set: the alias leads to N+1, N is kept, N-1 is retired | before: as above; after: all is done |
//!
//! - *Nothing that was seen is lost.* What a reader saw in N was applied before N came to rest, so it is at or below the
//!   heads of step 5, and N+1 has it. (An owner that hangs for longer than its lease, and then wakes and writes, can
//!   show in N what N+1 shows a moment later.)
//! - *A claim expires* when its beat has not changed for [`ReplayOptions::lease`], listened to on the observer's own clock. The
//!   views' own loop (see [`Views`](crate::Views)) and the next replay both listen.
//!
//! Another replay goes on with an expired claim of the same definition and history, from N+1's own checkpoints:
//!
//! | step | what happens | if who takes over dies here |
//! |---|---|---|
//! | R1 take over | one compare-and-set: the claim has a new owner, and nothing else is changed | its claim expires |
//! | R2 wake | where N may have been paused, all its records are written anew, awake; then the claim says that N is not paused | the same: the next one wakes it again |
//! | R3 go on | with step 2 | as there |
//!
//! Going back to the version before is the same with N and N+1 changing places, and another step 2:
//!
//! | step | what happens | if who goes back dies here |
//! |---|---|---|
//! | B1 claim | the alias says who goes back, to which version: it stays the one before until B4 | the claim expires, and is cleared without retiring that version |
//! | B2 wake | that version's records are written anew, awake: nobody is led to it, so nobody works on it but the claim's owner | the same; it is awake or not, which matters to nobody |
//! | B3 catch up | where the program has its definition: steps 2 to 5, it being N+1; else nothing | as there |
//! | B4 switch | one compare-and-set: both change places, with number and fingerprint | before: as above; after: all is done |
//!
//! - The version that is kept goes after [`ViewsOptions::rollback_grace`] unless it is to be kept, by the views' own loop; never while a rollback to
//!   it is claimed, as both are in the alias.
//! - The views' own loop takes an expired claim away from its owner and gives it to nobody (R1, R2): N goes on at once, and the next
//!   replay need not listen. A replay that is cancelled does the same with its own. After [`ViewsOptions::resume_grace`] without a
//!   successor the claim is cleared and N+1's collection is retired. So is one of another definition or history, by the next
//!   replay, and one whose replay failed for good, by that.
//! - *Two replays at once:* the alias has room for one claim. The other is told [`ReplayError::AlreadyRunning`].
//! - *A replayer that was thought dead* finds its claim gone at its next beat, before it takes another partition of N+1, and at
//!   the switch, which then fails. What it still writes into N+1 is conditional, as every write of a document is, and its
//!   checkpoints fail where somebody else has taken the partition. It cannot pause N again, because the records that it knows are all
//!   written anew *after* it lost its claim; and who was slow to wake N wakes nothing that a successor paused, for the same
//!   reason.
//! - *Collections are dropped* by the views' own loop, a grace period after nobody is led to them any more.
//!
//! [`ViewsOptions::rollback_grace`]: crate::ViewsOptions::rollback_grace
//! [`ViewsOptions::resume_grace`]: crate::ViewsOptions::resume_grace
//!
//! One document, or those of one aggregate, are made right in N itself, by another protocol: see `one.rs` and [`Replay::run_only`].

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::ViewDefinition;
use tidelog_eventbus::{CatchUpError, FailurePolicy, LogError, LogReader, Retry, StateError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

mod alias;
mod claim;
#[cfg(any(test, feature = "conformance"))]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests fail loudly"
)]
pub mod conformance;
mod fold;
mod one;
#[cfg(test)]
mod one_tests;
mod progress;
mod rest;
#[cfg(test)]
mod rollback_tests;
mod run;
mod silence;
#[cfg(test)]
mod tests;
mod verify;

pub(crate) use alias::{change, view_of};
pub(crate) use claim::{calm_left, give_up, leave};
pub(crate) use fold::keys as guarded_keys;
pub use one::{Mended, Only, ReplayedDocument, ReplayedOnly};
pub(crate) use silence::{Sign, Silence};
pub use verify::{Compare, Compared};

use crate::store::{Alias, Kind, Progress, ReadError, ReadStore};
use alias::{Switch, What};
use claim::{Claim, Lost};
use progress::Meter;
use run::Run;
use tidelog_domain::causes;

/// The bounds and times of a replay.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// How many events are read and folded at once, a partition. 5,000.
    pub page_max_events: usize,
    /// How many partitions are folded side by side. 4.
    pub concurrent_partitions: usize,
    /// How many events it folds a second, at most, so that it leaves something to others; `None`: as many as it can. The
    /// last ones, while the version that is read rests, are folded as fast as can be. It MUST be well above what is written
    /// a second: else the replay never catches up, and the last stretch is long. `None`.
    pub max_events_per_second: Option<NonZeroU32>,
    /// How long nothing may be heard of a replay before it counts as dead. 5 s.
    pub lease: Duration,
    /// How often it says that it lives. 1 s.
    pub beat: Duration,
    /// How long the documents of both versions may take to be counted, while the old one rests. 2 s.
    pub compare_timeout: Duration,
    /// How what was built is compared before it is read; where it differs from the log, it never is. [`Compare::Counts`].
    pub compare: Compare,
    /// Whether the version that is read until then is kept until somebody says otherwise. False.
    pub keep: bool,
    /// What is done about events that cannot be folded: their documents are set aside, and tried again once the version is read.
    pub policy: FailurePolicy,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        Self {
            page_max_events: 5_000,
            concurrent_partitions: 4,
            max_events_per_second: None,
            lease: Duration::from_secs(5),
            beat: Duration::from_secs(1),
            compare_timeout: Duration::from_secs(2),
            compare: Compare::Counts,
            keep: false,
            policy: FailurePolicy::default(),
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
    /// How many events had been folded before, by a replay that went away; 0 where this one began anew.
    pub resumed: u64,
    /// How many documents there are now, deleted ones aside; `None` when counting took too long.
    pub documents: Option<u64>,
    /// How many there were in the version before. It need not be the same: that version may have been behind, damaged, or
    /// built by another definition.
    pub documents_before: Option<u64>,
    /// How many documents are set aside, because an event of theirs cannot be folded.
    pub parked: usize,
    /// What the comparison with a fold of the log came to, where one was made.
    pub compared: Option<Compared>,
}

/// How a replay is going on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum ReplayProgress<'a> {
    /// So many events are folded.
    Folded(Progress),
    /// So many events are read, to compare what was built with them.
    Comparing(Progress),
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
    /// No version before the one that is read is kept.
    #[error("no version of the view {view} is kept to go back to")]
    NothingBefore {
        /// The view.
        view: String,
    },
    /// Nothing was heard of this replay for so long that others took it over or gave it up.
    #[error("the replay was taken over by others, because nothing was heard of it for too long")]
    Superseded,
    /// It was cancelled. What was built stays for a while, for a replay that goes on with it.
    #[error("the replay was cancelled; the next one goes on where it was")]
    Cancelled,
    /// An event could not be folded, or the log has another history now.
    #[error("the events could not be folded")]
    Fold(#[source] CatchUpError),
    /// What was built is not what the log says. It is given up, and never read.
    #[error(
        "{differing} of {documents} documents that were built differ from what the log says: {}",
        named.join(", ")
    )]
    Differs {
        /// How many were compared.
        documents: u64,
        /// How many of them differ.
        differing: u64,
        /// The first of those, by id.
        named: Vec<String>,
    },
    /// The version that is read is another program's: only one with its definition can make a document of it anew.
    #[error(
        "the version of the view {view} that is read has another definition than this program's"
    )]
    OtherDefinition {
        /// The view.
        view: String,
    },
    /// The log has another history than the version that is read: it is replayed as a whole, by itself.
    #[error("the log was restored or replaced; the view {view} has to be replayed as a whole")]
    OtherHistory {
        /// The view.
        view: String,
    },
    /// An event that the document needs cannot be folded.
    #[error(
        "the document {document} of {view} is set aside, or will be, because an event of it cannot be folded; mend what reads it, then \
         retry the document, or skip the event: {reason}"
    )]
    SetAside {
        /// The view.
        view: String,
        /// The document.
        document: String,
        /// Which event it is, and why.
        reason: String,
    },
    /// No event of the view is of this aggregate.
    #[error(
        "the view {view} has nothing of {aggregate}: no event that it listens to is of that aggregate"
    )]
    NothingOf {
        /// The view.
        view: String,
        /// The aggregate, as it was named.
        aggregate: String,
    },
    /// So many documents are made from one aggregate that the whole view is better replayed.
    #[error(
        "{aggregate} makes more than {max} documents of the view {view}; replay the whole view"
    )]
    TooMany {
        /// The view.
        view: String,
        /// The aggregate.
        aggregate: String,
        /// How many there may be.
        max: usize,
    },
    /// The document was written by others again and again while it was replayed.
    #[error("the document {document} of {view} kept changing while it was replayed; try again")]
    KeptChanging {
        /// The view.
        view: String,
        /// The document.
        document: String,
    },
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Log(#[from] LogError),
    /// The read store failed.
    #[error("the read store failed")]
    Store(#[from] ReadError),
}

impl From<StateError> for ReplayError {
    fn from(error: StateError) -> Self {
        Self::Store(error.into())
    }
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

    /// The bounds and times.
    #[must_use]
    pub const fn options(&self) -> &ReplayOptions {
        &self.options
    }

    /// Builds `view` anew and switches to it. Where a replay of the same definition died or was cancelled, what that one built is gone
    /// on with.
    ///
    /// Once it has begun, something unavailable is tried again until `cancel`. When the future is dropped, it is as if the
    /// process had died: others find that after the lease.
    ///
    /// # Errors
    ///
    /// [`ReplayError`]; the version that was read goes on. What was built is given up, unless it was cancelled.
    pub async fn run(
        &self,
        view: &Arc<dyn ViewDefinition>,
        progress: OnProgress<'_>,
        cancel: &CancellationToken,
    ) -> Result<Replayed, ReplayError> {
        let switch = Switch {
            keep: self.options.keep,
            refuse: false,
        };
        self.claim_and_run(view, Kind::Build, switch, progress, cancel)
            .await
    }

    /// Leads readers back to the version before the one that is read, which is kept in its turn.
    ///
    /// Where `view` has the definition of the version before, that version is brought up to the log first, as a replay does it, and no reader
    /// sees less than before. Where it has another one, it is read as it was left, and goes on when a program with its
    /// definition runs.
    ///
    /// With `refuse`, programs with the definition of the version that is read until now do not replay the view by themselves when they
    /// start: until somebody replays it with theirs.
    ///
    /// # Errors
    ///
    /// [`ReplayError`]; the version that was read is read on.
    pub async fn roll_back(
        &self,
        view: &Arc<dyn ViewDefinition>,
        refuse: bool,
        progress: OnProgress<'_>,
        cancel: &CancellationToken,
    ) -> Result<Replayed, ReplayError> {
        let switch = Switch {
            keep: false,
            refuse,
        };
        self.claim_and_run(view, Kind::Rollback, switch, progress, cancel)
            .await
    }

    /// Lets go of the version of `view` that is kept for a rollback, and gives its collection; `None` when there is none. It is dropped a grace
    /// period later.
    ///
    /// # Errors
    ///
    /// [`ReplayError::AlreadyRunning`] while a rollback to it runs; [`ReplayError::NotBuilt`]; [`ReplayError::Store`].
    pub async fn clean(&self, view: &str) -> Result<Option<String>, ReplayError> {
        let before = self.store.load_alias(view).await?;
        let before = before.ok_or_else(|| ReplayError::NotBuilt {
            view: view.to_owned(),
        })?;
        let cleaned = change(&*self.store, view, Alias::cleaned).await?;
        match (cleaned, before.previous, before.replaying) {
            (Some(_), previous, _) => Ok(previous),
            (None, Some(_), Some(running)) => Err(ReplayError::AlreadyRunning {
                view: view.to_owned(),
                owner: running.owner,
            }),
            (None, ..) => Ok(None),
        }
    }

    async fn claim_and_run(
        &self,
        view: &Arc<dyn ViewDefinition>,
        kind: Kind,
        switch: Switch,
        progress: OnProgress<'_>,
        cancel: &CancellationToken,
    ) -> Result<Replayed, ReplayError> {
        let owner = format!("replay-{}", Uuid::now_v7());
        let claim = tokio::select! {
            claim = self.claim(view, &owner, kind, switch) => claim?,
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
            meter: Meter::new(),
        };
        let replayed = tokio::select! {
            replayed = run.build_and_switch() => replayed,
            lost = claim.beat(self.options.beat, &run.meter) => match lost {
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
                run.clear_up(error).await;
            }
        }
        replayed
    }

    /// Claims `view` for `owner`.
    async fn claim(
        &self,
        view: &Arc<dyn ViewDefinition>,
        owner: &str,
        kind: Kind,
        switch: Switch,
    ) -> Result<Claim, ReplayError> {
        let what = What {
            kind,
            fingerprint: view.fingerprint(),
            history: self.log.identity().await?.history,
        };
        let store = self.store.clone();
        let lease = self.options.lease;
        Claim::make(store, view.name(), owner, &what, switch, lease).await
    }
}
