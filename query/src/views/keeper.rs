//! Keeping one view: which version, by which subscription, and when to build it anew.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tidelog_domain::{Partition, ViewDefinition};
use tidelog_eventbus::{
    Backoff, CatchUpError, Retry, Subscription, SubscriptionEnd, SubscriptionStatus,
};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::steward::{Seen, Steward};
use crate::indexes::usable_indexes;
use crate::live::ViewState;
use crate::projector::Projector;
use crate::replay::{Replay, ReplayError, ReplayProgress, change};
use crate::store::{Alias, Progress, ReadError};
use tidelog_domain::causes;

/// The first and the longest wait between tries while something is unavailable.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// The longest wait between tries to make indexes.
const INDEX_BACKOFF: Duration = Duration::from_secs(60);

/// How long to wait while another process replays the view, before looking again.
const OTHERS_REPLAY: Duration = Duration::from_secs(1);

/// Keeps one view.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    view: Arc<dyn ViewDefinition>,
    seen: watch::Sender<Seen>,
    /// Somebody wants the alias to be looked at now.
    look_now: Notify,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, view: Arc<dyn ViewDefinition>) -> Self {
        Self {
            shared,
            view,
            seen: watch::Sender::default(),
            look_now: Notify::new(),
        }
    }

    /// Keeps the view until `shutdown`.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        self.set_state(ViewState::Starting);
        tokio::select! {
            never = self.look_after_alias() => match never {},
            () = self.keep(&shutdown) => {}
        }
    }

    /// Looks at the alias again and again.
    async fn look_after_alias(&self) -> Infallible {
        let mut steward = Steward::default();
        loop {
            if let Some(seen) = steward.look(&self.shared, self.view.name()).await {
                self.seen.send_replace(seen);
            }
            tokio::select! {
                () = sleep(self.shared.options.alias_poll) => {}
                () = self.look_now.notified() => {}
            }
        }
    }

    async fn keep(&self, shutdown: &CancellationToken) {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        // Whether the version that is read was once one of our definition, since this program started.
        let mut ours_once = false;
        while let Some(known) = until(shutdown, self.known()).await {
            let Some(alias) = known else {
                until(shutdown, self.found()).await;
                continue;
            };
            let is_ours = alias.fingerprint == self.view.fingerprint();
            let why = if is_ours {
                ours_once = true;
                let ended = self.follow(&alias, shutdown).await;
                if ended != SubscriptionEnd::HistoryChanged {
                    continue;
                }
                "the log has another history than the view"
            } else if ours_once {
                self.wait("another program has built it with another definition");
                until(shutdown, self.led_elsewhere(&alias.collection)).await;
                continue;
            } else if alias.refused.contains(&self.view.fingerprint()) {
                self.wait("an operator has rolled back from this program's definition; a replay on demand ends that");
                until(shutdown, self.led_elsewhere(&alias.collection)).await;
                continue;
            } else {
                "the view has another definition than its version"
            };
            self.build_anew(&alias, why, &mut backoff, shutdown).await;
        }
    }

    /// The alias as it was seen last, once it was.
    async fn known(&self) -> Option<Arc<Alias>> {
        let mut seen = self.seen.subscribe();
        let looked = seen.wait_for(|seen| !matches!(seen, Seen::Pending)).await;
        match looked.as_deref() {
            Ok(Seen::Alias(alias)) => Some(alias.clone()),
            // The sender lives in `self`, so there always is something to see.
            Ok(Seen::Nothing | Seen::Pending) | Err(_) => None,
        }
    }

    /// Waits until the alias names another collection. No alias names none.
    async fn led_elsewhere(&self, collection: &str) {
        let mut seen = self.seen.subscribe();
        let elsewhere = |seen: &Seen| match seen {
            Seen::Pending => false,
            Seen::Nothing => true,
            Seen::Alias(alias) => alias.collection != collection,
        };
        let _ = seen.wait_for(elsewhere).await;
    }

    /// Says that the view's first version is being built, unless somebody did.
    async fn found(&self) {
        let Shared { store, .. } = &*self.shared;
        let view = self.view.name();
        let alias = Alias::founded(view, &self.view.fingerprint());
        // At once, because readers wait for the first version: either may take some databases a while.
        tokio::join!(
            self.persist(|| store.compare_and_set_alias(view, 0, &alias)),
            self.persist(|| store.create_collection(&alias.collection)),
        );
        self.look_now.notify_one();
        let mut seen = self.seen.subscribe();
        let _ = seen.wait_for(|seen| matches!(seen, Seen::Alias(_))).await;
    }

    /// Builds the view anew, because the version that `alias` names is of another history or definition: by a replay beside it
    /// where it is read, in another collection where it is not.
    async fn build_anew(
        &self,
        alias: &Alias,
        why: &str,
        backoff: &mut Backoff,
        shutdown: &CancellationToken,
    ) {
        let Shared { store, .. } = &*self.shared;
        let view = self.view.name();
        let fingerprint = self.view.fingerprint();
        let begun = self.persist(async || {
            let begin = |now: &Alias| now.founded_anew(view, &alias.collection, &fingerprint);
            let begun = change(&**store, view, begin).await?;
            let now = match begun {
                Some(_) => None,
                None => store.load_alias(view).await?,
            };
            // Whether it is read, and still the one that is.
            Ok::<_, ReadError>(now.is_some_and(|now| now.collection == alias.collection))
        });
        match until(shutdown, begun).await {
            None => {}
            Some(true) => self.rebuild(alias, why, backoff, shutdown).await,
            Some(false) => {
                tracing::info!(view, why, "the first version of the view is begun anew");
                self.look_now.notify_one();
                until(shutdown, self.led_elsewhere(&alias.collection)).await;
            }
        }
    }

    /// Runs the subscription that writes the collection of `alias`, until `shutdown`, until the alias names another one, or
    /// until the log has another history. Where nobody is led to it yet, they are when it has caught up.
    async fn follow(&self, alias: &Alias, shutdown: &CancellationToken) -> SubscriptionEnd {
        let Shared {
            store,
            log,
            tail,
            owner,
            live,
            options,
            ..
        } = &*self.shared;
        let collection = alias.collection.as_str();
        let created = self.persist(|| store.create_collection(collection));
        if until(shutdown, created).await.is_none() {
            return SubscriptionEnd::Stopped;
        }
        let projector = Projector::new(self.view.clone(), store.clone(), collection);
        let subscription = Subscription::new(
            collection,
            owner,
            Arc::new(projector),
            store.clone(),
            log.clone(),
            tail.clone(),
        )
        .with_options(options.subscription_of(self.view.name()));
        let status = subscription.status();
        live.insert(self.view.name(), status.clone());
        let mut is_read = alias.built;
        self.set_state(if is_read {
            ViewState::Following {
                collection: collection.to_owned(),
            }
        } else {
            ViewState::Building {
                collection: collection.to_owned(),
            }
        });
        let stop = shutdown.child_token();
        let running = subscription.run(stop.clone());
        let indexing = self.make_indexes(collection);
        tokio::pin!(running, indexing);
        let mut is_indexed = false;
        let ended = loop {
            tokio::select! {
                ended = &mut running => break ended,
                () = &mut indexing, if !is_indexed => is_indexed = true,
                () = self.open(&status), if !is_read => is_read = true,
                () = self.led_elsewhere(collection) => {
                    stop.cancel();
                    break running.await;
                }
            }
        };
        live.remove(collection);
        ended
    }

    /// Makes the indexes of `collection`, beside everything else: nobody needs them but to be fast.
    async fn make_indexes(&self, collection: &str) {
        let indexes = usable_indexes(&*self.view);
        let mut backoff = Backoff::new(BACKOFF.0, INDEX_BACKOFF);
        while let Err(error) = self.shared.store.ensure_indexes(collection, &indexes).await {
            let is_final = error.retry() == Retry::Never;
            if is_final || backoff.attempts() == 0 {
                let error = causes(&error);
                tracing::warn!(
                    collection,
                    error,
                    is_final,
                    "the indexes of the view could not be made; its searches are slow"
                );
            }
            if is_final {
                return;
            }
            sleep(backoff.next_wait()).await;
        }
    }

    /// Leads readers to the first version once it has all that the log had when it began.
    async fn open(&self, status: &SubscriptionStatus) {
        let Shared { store, log, .. } = &*self.shared;
        let heads = self.persist(|| log.heads()).await;
        let reached = (0_u16..).map(Partition::new).zip(heads);
        let reached = reached.map(|(partition, head)| status.reached(partition, head));
        join_all(reached).await;
        let view = self.view.name();
        let opened = self.persist(|| change(&**store, view, |alias| alias.opened(status.name())));
        if opened.await.is_some() {
            tracing::info!(
                view,
                collection = status.name(),
                "the first version of the view is built"
            );
        }
        self.look_now.notify_one();
        let mut seen = self.seen.subscribe();
        let is_open = |seen: &Seen| matches!(seen, Seen::Alias(alias) if alias.built);
        let _ = seen.wait_for(is_open).await;
        self.set_state(ViewState::Following {
            collection: status.name().to_owned(),
        });
    }

    /// Replays the view once; where the version before is one of its definition, goes back to that. After an error a while passes, so that the caller can look and try again.
    async fn rebuild(
        &self,
        alias: &Alias,
        why: &str,
        backoff: &mut Backoff,
        shutdown: &CancellationToken,
    ) {
        let Shared {
            store,
            log,
            options,
            ..
        } = &*self.shared;
        tracing::info!(
            view = self.view.name(),
            why,
            "the view is replayed by itself"
        );
        self.set_state(ViewState::Replaying { events: 0, of: 0 });
        let progress = |told: ReplayProgress<'_>| match told {
            ReplayProgress::Folded(Progress { events, of, .. }) => {
                self.set_state(ViewState::Replaying { events, of });
            }
            ReplayProgress::Waiting { reason } => self.wait(reason),
            ReplayProgress::Comparing(_) | ReplayProgress::Switching => {}
        };
        let replay = Replay::new(store.clone(), log.clone())
            .with_options(options.replay_of(self.view.name()));
        let is_before = alias.previous_fingerprint.as_ref() == Some(&self.view.fingerprint())
            && alias.fingerprint != self.view.fingerprint();
        let replayed = if is_before {
            let back = replay.roll_back(&self.view, false, &progress, shutdown);
            back.await
        } else {
            replay.run(&self.view, &progress, shutdown).await
        };
        let pause = match replayed {
            Ok(_) => {
                backoff.reset();
                self.look_now.notify_one();
                until(shutdown, self.led_elsewhere(&alias.collection)).await;
                return;
            }
            Err(ReplayError::Cancelled) => return,
            Err(ReplayError::AlreadyRunning { .. }) => {
                self.wait("another process replays the view");
                OTHERS_REPLAY
            }
            // The version before has gone meanwhile.
            Err(ReplayError::NothingBefore { .. }) => OTHERS_REPLAY,
            // An event stands in the way, and will again: the whole log is not to be folded in vain all the time.
            Err(
                error @ ReplayError::Fold(CatchUpError::Handler { .. } | CatchUpError::Full { .. }),
            ) => {
                self.wait(&causes(&error));
                options.subscription.policy.max_delay
            }
            Err(error) => {
                self.wait(&causes(&error));
                backoff.next_wait()
            }
        };
        let paused = async {
            tokio::select! {
                () = sleep(pause) => {}
                () = self.led_elsewhere(&alias.collection) => {}
            }
        };
        until(shutdown, paused).await;
    }

    /// Does `step` until it goes well: there is nothing else to do for the view without it.
    async fn persist<T, E, F>(&self, step: impl Fn() -> F) -> T
    where
        E: std::error::Error + 'static,
        F: Future<Output = Result<T, E>>,
    {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            match step().await {
                Ok(done) => return done,
                Err(error) => {
                    let reason = causes(&error);
                    if backoff.attempts() == 0 {
                        tracing::warn!(
                            view = self.view.name(),
                            error = reason,
                            "the view waits; trying again"
                        );
                    }
                    self.wait(&reason);
                    sleep(backoff.next_wait()).await;
                }
            }
        }
    }

    fn wait(&self, reason: &str) {
        self.set_state(ViewState::Waiting {
            reason: reason.to_owned(),
        });
    }

    fn set_state(&self, state: ViewState) {
        self.shared.live.set_state(self.view.name(), state);
    }
}

/// What `work` gives, unless `shutdown` comes first.
async fn until<T>(shutdown: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = shutdown.cancelled() => None,
    }
}
