//! The subscriptions of a program by name, for the library, the admin listener and the command line: one implementation.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tidelog_command::store::EventStore;
use tidelog_domain::causes;
#[cfg(feature = "feed-client")]
use tidelog_eventbus::FeedLogReader;
use tidelog_eventbus::{
    Answer, Asked, LogReader, OperationError, Operations, RestartError, Skip, Start, StateStore,
    SubscriptionStatus, restart,
};
use tidelog_query::store::{ReadError, ReadStore};
use tokio::time::{Instant, sleep};

use crate::app::Reacting;
use crate::settings::Settings;
use crate::{App, StartError};

pub(crate) mod http;
mod model;
#[cfg(test)]
mod tests;

pub(crate) use http::router;
pub use model::{
    Outcome, ParkedEntry, ParkedEventEntry, PartitionEntry, SequenceState, ShownEvent,
    SkippedEntry, SubscriptionEntry, SubscriptionKind, WorkState,
};

/// How long a partition that is behind may stand still before it counts as stalled.
pub(crate) const STALL_PATIENCE: Duration = Duration::from_secs(5);

/// How long it is waited for what came of a pause, a retry or a skip.
const ANSWER_PATIENCE: Duration = Duration::from_secs(3);

/// How often it is looked whether partitions move that run elsewhere.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The subscriptions of a program, for whoever operates it: [`Running::subscriptions`](crate::Running::subscriptions).
///
/// It works by the state records, so it does not matter in which processes the subscriptions run. Cloning gives another
/// handle to the same.
///
/// ```
/// use tidelog::{App, settings::Settings};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let running = App::new("blog").mount(Settings::in_memory()).await?;
/// let subscriptions = running.subscriptions().ok_or("it runs no subscriptions")?;
/// for subscription in subscriptions.list().await {
///     println!("{} is {} events behind", subscription.name, subscription.lag_events());
/// }
/// # while subscriptions.pause("post", "").await.is_err() { tokio::task::yield_now().await }
/// subscriptions.pause("post", "its service is being moved").await?;
/// subscriptions.resume("post").await?;
/// // Nothing could not be handled.
/// assert!(subscriptions.parked(None).await?.is_empty());
/// assert!(running.stop().await);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Subscriptions {
    shared: Arc<Shared>,
}

struct Shared {
    known: Vec<Known>,
    /// What can be seen of those that run in this process.
    statuses: Statuses,
}

/// A subscription of the program.
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) kind: SubscriptionKind,
    /// The log that it follows.
    pub(crate) log: Arc<dyn LogReader>,
    pub(crate) records: Records,
}

/// Where the records of a subscription are.
pub(crate) enum Records {
    /// Beside the documents of the version that the view's alias leads to.
    OfView(Arc<dyn ReadStore>),
    /// In this store, under the subscription's own name.
    Named(Arc<dyn StateStore>),
}

/// The subscriptions that run in this process, by name, as they are now.
pub(crate) type Statuses = Arc<dyn Fn() -> Vec<(String, SubscriptionStatus)> + Send + Sync>;

/// Why an operation on a subscription was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscriptionError {
    /// The program has no such subscription.
    #[error("there is no subscription {name:?}; there are: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// Nobody has begun to build the view yet.
    #[error("the view {name} has not been built yet: the role eventbus builds it")]
    NotBuilt {
        /// Its name.
        name: String,
    },
    /// Which version of the view is read cannot be found out.
    #[error("which version of the view is read cannot be found out")]
    Views(#[source] ReadError),
    /// Only a reaction goes on where somebody says; a view is a fold of the whole log.
    #[error("the view {name} is no reaction: `replay {name}` builds it anew from the whole log")]
    NotAReaction {
        /// The view.
        name: String,
    },
    /// A reaction was not restarted, or not in all its partitions.
    #[error(transparent)]
    Restart(#[from] RestartError),
    /// The operation was not done.
    #[error(transparent)]
    Operation(#[from] OperationError),
}

impl Subscriptions {
    /// Those of `program` with these `settings`, whose log is `log` and whose views are in `store`. Those that run in this process are in `statuses`.
    ///
    /// # Errors
    ///
    /// [`StartError::Follow`] when no client can be made for another program that is followed.
    pub(crate) fn of(
        program: &App,
        settings: &Settings,
        log: &Arc<dyn EventStore>,
        store: &Arc<dyn ReadStore>,
        statuses: Statuses,
    ) -> Result<Self, StartError> {
        let views = program.views().iter().map(|view| {
            Ok(Known {
                name: view.name().to_owned(),
                kind: SubscriptionKind::View,
                log: log.clone(),
                records: Records::OfView(store.clone()),
            })
        });
        let reactions = program.reactions().iter().map(|reacting| {
            Ok(Known {
                name: reacting.subscription(),
                kind: SubscriptionKind::Reaction,
                log: followed(reacting, settings, log)?,
                records: Records::Named(log.clone()),
            })
        });
        let known = views.chain(reactions).collect::<Result<_, StartError>>()?;
        Ok(Self {
            shared: Arc::new(Shared { known, statuses }),
        })
    }

    /// What can be seen of those that run in this process, each with its name and kind.
    pub(crate) fn running(&self) -> Vec<(String, SubscriptionKind, SubscriptionStatus)> {
        let statuses = (self.shared.statuses)().into_iter();
        let known = |(name, status): (String, _)| {
            let mut known = self.shared.known.iter();
            let kind = known.find(|known| known.name == name)?.kind;
            Some((name, kind, status))
        };
        statuses.filter_map(known).collect()
    }

    /// All of them, with how far they are. Where one that runs in other processes is behind, it is watched for five seconds
    /// at most: that tells whether it stands still. Where the records of one, or its log, cannot be read, it says so.
    pub async fn list(&self) -> Vec<SubscriptionEntry> {
        let mut entries = self.look().await;
        let deadline = Instant::now() + STALL_PATIENCE;
        let begun = entries.clone();
        while entries.iter().any(SubscriptionEntry::may_stand_still) && Instant::now() < deadline {
            sleep(LOOK_AGAIN).await;
            entries = self.look().await;
            entries.iter_mut().for_each(|own| own.compare(&begun));
        }
        entries.iter_mut().for_each(SubscriptionEntry::conclude);
        entries
    }

    /// Their names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.shared.known.iter().map(|known| known.name.as_str())
    }

    /// One look at all of them, without waiting whether one moves.
    pub(crate) async fn glance(&self) -> Vec<SubscriptionEntry> {
        self.look().await
    }

    /// The `entries` of one look, of which those stand still that did not move since the look `before`.
    pub(crate) fn judged(
        mut entries: Vec<SubscriptionEntry>,
        before: &[SubscriptionEntry],
    ) -> Vec<SubscriptionEntry> {
        for own in &mut entries {
            own.compare(before);
            own.conclude();
        }
        entries
    }

    /// One look at all of them.
    async fn look(&self) -> Vec<SubscriptionEntry> {
        let statuses = (self.shared.statuses)();
        let mut entries = Vec::with_capacity(self.shared.known.len());
        for known in &self.shared.known {
            let mut here = statuses.iter().filter(|(name, _)| *name == known.name);
            let here = here.next().map(|(_, status)| status);
            let (partitions, problem) = match self.look_at(known, here).await {
                Ok(partitions) => (partitions, None),
                Err(SubscriptionError::NotBuilt { .. }) => (Vec::new(), None),
                Err(error) => {
                    let here = here.map(SubscriptionStatus::partitions).unwrap_or_default();
                    let known = here
                        .iter()
                        .map(|own| PartitionEntry::of_status(own, Utc::now()));
                    (known.collect(), Some(causes(&error)))
                }
            };
            entries.push(SubscriptionEntry {
                name: known.name.clone(),
                kind: known.kind,
                problem,
                partitions,
            });
        }
        entries
    }

    /// The partitions of one, of which this process knows more where it runs it.
    async fn look_at(
        &self,
        known: &Known,
        here: Option<&SubscriptionStatus>,
    ) -> Result<Vec<PartitionEntry>, SubscriptionError> {
        let operations = self.operations_of(known).await?;
        // A status of another version of a view says nothing of this one.
        let here = here.filter(|status| status.name() == operations.subscription());
        let here = here.map(SubscriptionStatus::partitions).unwrap_or_default();
        let overview = operations.overview().await?;
        let entry = |own| PartitionEntry::of(own, &here, Utc::now());
        Ok(overview.iter().map(entry).collect())
    }

    /// Stops a subscription, in whatever processes it runs, until it is resumed. What is being handled is finished first: it
    /// waits a moment for that, and says whether nothing is handled any more. One that is paused already stays so, with its
    /// first reason.
    ///
    /// A replay of a view builds a new version of it, which is not paused.
    ///
    /// # Errors
    ///
    /// [`SubscriptionError`].
    pub async fn pause(&self, name: &str, reason: &str) -> Result<bool, SubscriptionError> {
        let operations = self.operations(name).await?;
        operations.pause(reason).await?;
        Ok(operations.rests(ANSWER_PATIENCE).await?)
    }

    /// Lets a subscription go on that was paused.
    ///
    /// # Errors
    ///
    /// [`SubscriptionError`].
    pub async fn resume(&self, name: &str) -> Result<(), SubscriptionError> {
        Ok(self.operations(name).await?.resume().await?)
    }

    /// The sequences that are set aside: of one subscription, or of all.
    ///
    /// # Errors
    ///
    /// [`SubscriptionError`].
    pub async fn parked(&self, name: Option<&str>) -> Result<Vec<ParkedEntry>, SubscriptionError> {
        let known: Vec<_> = match name {
            Some(name) => vec![self.known(name)?],
            None => self.shared.known.iter().collect(),
        };
        let mut entries = Vec::new();
        for known in known {
            let operations = match self.operations_of(known).await {
                Err(SubscriptionError::NotBuilt { .. }) => continue,
                operations => operations?,
            };
            let parked = operations.parked().await?.into_iter();
            entries.extend(
                parked.map(|(partition, own)| ParkedEntry::of(&known.name, partition, own)),
            );
        }
        Ok(entries)
    }

    /// One sequence that is set aside, with the event that it waits at, in each partition where it is. The event's payload is
    /// left out unless `with_payload`.
    ///
    /// # Errors
    ///
    /// [`SubscriptionError`].
    pub async fn show(
        &self,
        name: &str,
        sequence: &str,
        with_payload: bool,
    ) -> Result<Vec<ParkedEventEntry>, SubscriptionError> {
        let shown = self.operations(name).await?.show(sequence).await?;
        let entry = |shown| ParkedEventEntry::of(name, shown, with_payload);
        Ok(shown.into_iter().map(entry).collect())
    }

    /// Asks for a sequence to be tried again, in order, and waits a moment for what comes of it.
    ///
    /// # Errors
    ///
    /// [`SubscriptionError`].
    pub async fn retry(
        &self,
        name: &str,
        sequence: &str,
    ) -> Result<Vec<Outcome>, SubscriptionError> {
        let operations = self.operations(name).await?;
        let asked = operations.retry(sequence).await?;
        outcomes(name, &operations, &asked).await
    }

    /// Asks for all that is set aside to be tried again, in order, and waits a moment for what comes of it: an outcome for each
    /// partition where something is.
    ///
    /// # Errors
    ///
    /// [`SubscriptionError`].
    pub async fn retry_all(&self, name: &str) -> Result<Vec<Outcome>, SubscriptionError> {
        let operations = self.operations(name).await?;
        let asked = operations.retry_all().await?;
        outcomes(name, &operations, &asked).await
    }

    /// Has the first event of a sequence that is set aside passed over, after which the sequence goes on, and waits a moment
    /// for what comes of it. The reason is kept.
    ///
    /// # Errors
    ///
    /// [`SubscriptionError`].
    pub async fn skip(
        &self,
        name: &str,
        skip: &Skip<'_>,
    ) -> Result<Vec<Outcome>, SubscriptionError> {
        let operations = self.operations(name).await?;
        let asked = operations.skip(skip).await?;
        outcomes(name, &operations, &[asked]).await
    }

    /// The events that were skipped, of each partition the latest hundred.
    ///
    /// # Errors
    ///
    /// [`SubscriptionError`].
    pub async fn skipped(&self, name: &str) -> Result<Vec<SkippedEntry>, SubscriptionError> {
        let skipped = self.operations(name).await?.skipped().await?.into_iter();
        let entry = |(partition, own)| SkippedEntry::of(name, partition, own);
        Ok(skipped.map(entry).collect())
    }

    /// Has the reaction `name` go on at `from`, in the history that its log has now: one that is held, or that is to do something
    /// again. What it had set aside is forgotten.
    ///
    /// # Errors
    ///
    /// [`SubscriptionError`].
    pub async fn restart(&self, name: &str, from: &Start) -> Result<(), SubscriptionError> {
        let known = self.known(name)?;
        let Records::Named(states) = &known.records else {
            let name = name.to_owned();
            return Err(SubscriptionError::NotAReaction { name });
        };
        Ok(restart(name, &**states, &*known.log, from).await?)
    }

    /// What an operator does with the subscription `name`.
    async fn operations(&self, name: &str) -> Result<Operations, SubscriptionError> {
        self.operations_of(self.known(name)?).await
    }

    fn known(&self, name: &str) -> Result<&Known, SubscriptionError> {
        let mut known = self.shared.known.iter();
        let found = known.find(|known| known.name == name);
        found.ok_or_else(|| {
            let known = self.shared.known.iter().map(|known| known.name.as_str());
            SubscriptionError::Unknown {
                name: name.chars().take(64).collect(),
                known: known.collect::<Vec<_>>().join(", "),
            }
        })
    }

    async fn operations_of(&self, known: &Known) -> Result<Operations, SubscriptionError> {
        let log = known.log.clone();
        match &known.records {
            Records::Named(states) => Ok(Operations::new(&*known.name, states.clone(), log)),
            Records::OfView(store) => {
                let alias = store.load_alias(&known.name).await;
                let alias = alias.map_err(SubscriptionError::Views)?;
                let alias = alias.ok_or_else(|| SubscriptionError::NotBuilt {
                    name: known.name.clone(),
                })?;
                Ok(Operations::new(alias.collection, store.clone(), log))
            }
        }
    }
}

/// What has come of what was asked for, after a moment.
async fn outcomes(
    name: &str,
    operations: &Operations,
    asked: &[Asked],
) -> Result<Vec<Outcome>, SubscriptionError> {
    let answers = operations
        .answers(asked, ANSWER_PATIENCE)
        .await?
        .into_iter();
    Ok(answers
        .map(|answer: Answer| Outcome::of(name, answer))
        .collect())
}

/// The log that a reaction follows: the program's own, or another's by way of its feed.
fn followed(
    reacting: &Reacting,
    #[cfg_attr(
        not(feature = "feed-client"),
        expect(unused, reason = "nothing is followed")
    )]
    settings: &Settings,
    log: &Arc<dyn EventStore>,
) -> Result<Arc<dyn LogReader>, StartError> {
    match &reacting.follows {
        None => Ok(log.clone()),
        #[cfg(feature = "feed-client")]
        Some(followed) => {
            let app = followed.app.clone();
            let access = settings.feed_access();
            let feed = FeedLogReader::with_access(&app, followed.feed.clone(), &access);
            let feed = feed.map_err(|source| StartError::Follow { app, source })?;
            Ok(Arc::new(feed))
        }
        // Without the feature there is no way to make one.
        #[cfg(not(feature = "feed-client"))]
        Some(_) => Ok(log.clone()),
    }
}
