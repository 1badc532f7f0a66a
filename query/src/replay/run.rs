//! The steps of one replay, from its claim to the switch.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::{Position, ViewDefinition};
use tidelog_eventbus::{Backoff, CatchUp, CatchUpError, CatchUpProgress, StateError, Throttle};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::claim::{Claim, Lost};
use super::progress::Meter;
use super::rest::bring_to_rest;
use super::verify::{Compare, Compared};
use super::{OnProgress, Replay, ReplayError, ReplayProgress, Replayed};
use crate::indexes::usable_indexes;
use crate::projector::Projector;
use crate::store::{Kind, Query};
use tidelog_domain::causes;

/// The first and the longest wait between tries while something is unavailable.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// How often the growing log is run after before the version that is read is paused for the last stretch.
const MAX_LAPS: usize = 16;

/// So few events may be left when the version that is read is paused.
const LAST_STRETCH_EVENTS: u64 = 2_000;

/// How long a replay that failed may take to clear up behind itself; what is left is found by others.
const CLEAR_UP: Duration = Duration::from_secs(5);

/// A replay that has its claim.
pub(super) struct Run<'a> {
    pub(super) replay: &'a Replay,
    pub(super) claim: &'a Claim,
    pub(super) view: &'a Arc<dyn ViewDefinition>,
    pub(super) progress: OnProgress<'a>,
    pub(super) cancel: &'a CancellationToken,
    pub(super) meter: Meter,
}

impl Run<'_> {
    /// Builds the next version, or catches the one before up, and leads readers to it: steps 2 to 7 of the protocol.
    pub(super) async fn build_and_switch(&self) -> Result<Replayed, ReplayError> {
        let building = &self.claim.building;
        let caught_up = match building.kind {
            Kind::Build => {
                let store = &self.replay.store;
                let created = || async { Ok(store.create_collection(&building.collection).await?) };
                self.persist(created).await?;
                self.catch_up_and_rest().await?
            }
            Kind::Rollback => {
                self.persist(|| async { Ok(self.claim.wake_building().await?) })
                    .await?;
                if building.fingerprint == self.view.fingerprint() {
                    self.catch_up_and_rest().await?
                } else {
                    // Only a program with its definition can: it goes on with it when it runs.
                    CaughtUp::default()
                }
            }
        };
        let documents = self.count(&building.collection).await;
        let parked = self.persist(|| async { Ok(self.parked().await?) }).await?;
        let switched = self.persist(|| async { Ok(self.claim.switch().await?) });
        let alias = switched.await?.ok_or(Lost)?;
        Ok(Replayed {
            view: self.view.name().to_owned(),
            collection: building.collection.clone(),
            number: building.number,
            previous: caught_up.read.or(alias.previous).unwrap_or_default(),
            events: self.meter.folded(),
            resumed: self.meter.before(),
            documents,
            documents_before: caught_up.documents_before,
            parked,
            compared: caught_up.compared,
        })
    }

    /// Catches the version up that is to be read, brings the one that is read to rest, and catches up again: steps 2 to 6.
    async fn catch_up_and_rest(&self) -> Result<CaughtUp, ReplayError> {
        let log = &self.replay.log;
        let catch_up = self.catch_up();
        let before = self.persist(|| async { Ok(self.folded_before().await?) });
        let before = before.await?;
        self.meter.go_on_from(before);
        self.run_after_log(&catch_up, before).await?;
        let compared = if self.replay.options.compare.reads_the_log() {
            // All of it, so that no document is too young to be compared.
            let heads = self.persist(|| async { Ok(log.heads().await?) }).await?;
            self.fold(&catch_up, &heads).await?;
            Some(self.verify().await?)
        } else {
            None
        };
        self.make_indexes().await?;
        let before = self.persist(|| async { Ok(self.folded_before().await?) });
        let before = before.await?;
        self.run_after_log(&catch_up, before).await?;
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
        // Nobody is to wait for longer than need be while the version that is read rests.
        let at_full_speed = CatchUp {
            throttle: None,
            ..catch_up
        };
        self.fold(&at_full_speed, &heads).await?;
        Ok(CaughtUp {
            documents_before: self.count(&read).await,
            read: Some(read),
            compared,
        })
    }

    /// Makes the indexes of what is built, so that readers are led to it when they are ready. It takes long, and beats meanwhile; where it
    /// fails, searches are slow until who keeps the view has made them.
    async fn make_indexes(&self) -> Result<(), ReplayError> {
        let indexes = usable_indexes(&**self.view);
        let collection = &self.claim.building.collection;
        let making = self.replay.store.ensure_indexes(collection, &indexes);
        let made = tokio::select! {
            made = making => made,
            () = self.cancel.cancelled() => return Err(ReplayError::Cancelled),
        };
        if let Err(error) = made {
            let error = causes(&error);
            tracing::warn!(
                collection,
                error,
                "the indexes could not be made before the switch"
            );
        }
        Ok(())
    }

    /// Folds what the log has, lap after lap, until little is left; `done` events were there before. Gives how many there are now.
    async fn run_after_log(&self, catch_up: &CatchUp, mut done: u64) -> Result<u64, ReplayError> {
        let log = &self.replay.log;
        for _ in 0..MAX_LAPS {
            let heads = self.persist(|| async { Ok(log.heads().await?) }).await?;
            let end = total(&heads);
            if end.saturating_sub(done) <= LAST_STRETCH_EVENTS {
                break;
            }
            self.fold(catch_up, &heads).await?;
            done = end;
        }
        Ok(done)
    }

    /// How many events the new version has already, from a replay that went away.
    async fn folded_before(&self) -> Result<u64, StateError> {
        let states = &self.replay.store;
        let states = states.load_states(&self.claim.building.collection).await?;
        let positions = states
            .iter()
            .map(|(.., record)| record.checkpoint.cursor.position);
        Ok(total(&positions.collect::<Vec<_>>()))
    }

    /// How many sequences the new version has set aside.
    async fn parked(&self) -> Result<usize, StateError> {
        let states = &self.replay.store;
        let states = states.load_states(&self.claim.building.collection).await?;
        Ok(states
            .iter()
            .map(|(_, _, record)| record.parked.len())
            .sum())
    }

    /// What folds the log into the collection that is built.
    fn catch_up(&self) -> CatchUp {
        let Replay {
            store,
            log,
            options,
        } = self.replay;
        let collection = &self.claim.building.collection;
        let projector = Projector::new(self.view.clone(), store.clone(), collection);
        CatchUp {
            name: collection.clone(),
            owner: self.claim.owner.clone(),
            handler: Arc::new(projector),
            states: store.clone(),
            log: log.clone(),
            page_max_events: options.page_max_events,
            concurrent_partitions: options.concurrent_partitions,
            policy: options.policy.clone(),
            permission: Some(Arc::new(self.claim.clone())),
            throttle: options.max_events_per_second.map(Throttle::new),
        }
    }

    /// Folds everything up to `heads`.
    async fn fold(&self, catch_up: &CatchUp, heads: &[Position]) -> Result<(), ReplayError> {
        self.meter.aim_at(total(heads));
        let report = |told: CatchUpProgress<'_>| match told {
            CatchUpProgress::Reached { events, .. } => {
                self.meter.add(events);
                (self.progress)(ReplayProgress::Folded(self.meter.progress()));
            }
            CatchUpProgress::Retrying { reason, .. } => {
                (self.progress)(ReplayProgress::Waiting { reason });
            }
            _ => {}
        };
        self.persist(|| async {
            let folded = catch_up.run_to(heads, &report, self.cancel).await;
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

    /// How many documents `collection` has, tombstones aside; `None` when that takes too long or fails, or is not wanted.
    async fn count(&self, collection: &str) -> Option<u64> {
        if self.replay.options.compare == Compare::Nothing {
            return None;
        }
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
    pub(super) async fn persist<T, F: Future<Output = Result<T, ReplayError>>>(
        &self,
        step: impl Fn() -> F,
    ) -> Result<T, ReplayError> {
        persist(self.progress, self.cancel, step).await
    }

    /// Wakes the version that is read, and retires what was built, unless another replay may go on with it. Where that fails, the
    /// lease ends by itself.
    pub(super) async fn clear_up(&self, error: &ReplayError) {
        let clearing = async {
            match error {
                ReplayError::Cancelled => self.claim.leave().await,
                _ => self.claim.give_up().await,
            }
        };
        match timeout(CLEAR_UP, clearing).await {
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

/// Does `step` until it goes well, fails for good, or `cancel`.
pub(super) async fn persist<T, F: Future<Output = Result<T, ReplayError>>>(
    progress: OnProgress<'_>,
    cancel: &CancellationToken,
    step: impl Fn() -> F,
) -> Result<T, ReplayError> {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    loop {
        let done = tokio::select! {
            done = step() => done,
            () = cancel.cancelled() => return Err(ReplayError::Cancelled),
        };
        match done {
            Err(error) if error.is_transient() => {
                let reason = causes(&error);
                progress(ReplayProgress::Waiting { reason: &reason });
                tokio::time::sleep(backoff.next_wait()).await;
            }
            done => return done,
        }
    }
}

/// The version that is to be read has all that the one has that rests now.
#[derive(Default)]
struct CaughtUp {
    /// The version that is read.
    read: Option<String>,
    /// How many documents it has.
    documents_before: Option<u64>,
    /// What a comparison came to.
    compared: Option<Compared>,
}

/// How many events a log with these heads has.
fn total(heads: &[Position]) -> u64 {
    let numbers = heads.iter().map(|head| head.number());
    numbers.fold(0, u64::saturating_add)
}
