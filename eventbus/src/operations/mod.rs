//! What an operator does with a subscription: sees how far it is, stops it and lets it go on, and deals with the sequences that
//! are set aside.
//!
//! All of it goes by the state records and the log, so it can be done from any process. What is asked for is executed by who
//! works on the partition, in order with the events; where nobody does, as soon as somebody will.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tidelog_domain::{HistoryId, Partition};
use tokio::time::Instant;

mod asking;
mod error;
mod overview;
mod parked;
#[cfg(test)]
mod tests;

pub use asking::{Answer, Asked, Skip};
pub use error::OperationError;
pub use overview::PartitionOverview;
pub use parked::ParkedEvent;

use crate::log::LogReader;
use crate::state::{Pause, SkippedEvent, StateRecord, StateStore};

/// The most characters that the reason for a pause or a skip may have.
pub const MAX_REASON_CHARS: usize = 1_000;

/// How often a change is tried against a record that its owner changes at the same time.
const MAX_TRIES: usize = 64;

/// How often it is looked whether something that was asked for is done.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What an operator does with one subscription. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct Operations {
    /// What its records are kept under.
    subscription: Arc<str>,
    states: Arc<dyn StateStore>,
    log: Arc<dyn LogReader>,
}

/// A state record as it was loaded.
struct Stored {
    partition: Partition,
    revision: u64,
    record: StateRecord,
}

impl Operations {
    /// On the subscription whose records are in `states` under the name `subscription`, and which follows `log`.
    #[must_use]
    pub fn new(
        subscription: impl Into<Arc<str>>,
        states: Arc<dyn StateStore>,
        log: Arc<dyn LogReader>,
    ) -> Self {
        Self {
            subscription: subscription.into(),
            states,
            log,
        }
    }

    /// What its records are kept under.
    #[must_use]
    pub fn subscription(&self) -> &str {
        &self.subscription
    }

    /// Stops it in all partitions, in whatever processes it runs and will run, until it is [resumed](Self::resume). Its owners
    /// finish the batches in flight first. One that is stopped already stays so, with its first reason.
    ///
    /// # Errors
    ///
    /// [`OperationError`]. After any but [`OperationError::Reason`] and [`OperationError::NotStarted`] it may be stopped in some
    /// partitions: do it again.
    pub async fn pause(&self, reason: &str) -> Result<(), OperationError> {
        check_length(reason)?;
        let pause = Pause {
            reason: reason.to_owned(),
            since: Utc::now(),
        };
        let stored = self.started().await?;
        let known = stored.iter().map(|stored| stored.partition);
        let known: Vec<_> = known.collect();
        let history = stored.first().map(|own| own.record.checkpoint.history);
        for stored in stored {
            let stop = |record: &StateRecord| match &record.pause {
                Some(_) => Ok(None),
                None => Ok(Some(record.with_pause(Some(pause.clone())))),
            };
            self.change(stored, stop).await?;
        }
        // Where nobody has begun yet: he would not know.
        let partitions = self.log.identity().await?.partitions;
        for partition in partitions.iter().filter(|own| !known.contains(own)) {
            self.pause_unstarted(partition, history, &pause).await?;
        }
        Ok(())
    }

    /// Makes the record of a partition that nobody has begun with yet.
    async fn pause_unstarted(
        &self,
        partition: Partition,
        history: Option<HistoryId>,
        pause: &Pause,
    ) -> Result<(), OperationError> {
        let Some(history) = history else {
            return Ok(());
        };
        let record = StateRecord::at_start(history).with_pause(Some(pause.clone()));
        let states = &self.states;
        let made = states.compare_and_set_state(&self.subscription, partition, 0, &record);
        if made.await? {
            return Ok(());
        }
        let Some(stored) = self.load(partition).await? else {
            return Err(OperationError::Contended { partition });
        };
        let stop = |record: &StateRecord| Ok(Some(record.with_pause(Some(pause.clone()))));
        self.change(stored, stop).await
    }

    /// Whether it is at rest: paused, and given back by all its owners, so that nothing is handled any more. It waits for
    /// that, at most for `patience`.
    ///
    /// # Errors
    ///
    /// [`OperationError::States`].
    pub async fn rests(&self, patience: Duration) -> Result<bool, OperationError> {
        let deadline = Instant::now() + patience;
        loop {
            let rests = |own: &Stored| own.record.is_paused() && own.record.owner.is_none();
            let all_rest = self.all().await?.iter().all(rests);
            if all_rest || Instant::now() >= deadline {
                return Ok(all_rest);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Lets it go on in all partitions. One that is not stopped goes on as it does.
    ///
    /// # Errors
    ///
    /// [`OperationError`]. It may go on in some partitions then: do it again.
    pub async fn resume(&self) -> Result<(), OperationError> {
        for stored in self.started().await? {
            let go_on = |record: &StateRecord| match &record.pause {
                Some(_) => Ok(Some(record.with_pause(None))),
                None => Ok(None),
            };
            self.change(stored, go_on).await?;
        }
        Ok(())
    }

    /// The events that were skipped, in each partition the latest; the oldest first.
    ///
    /// # Errors
    ///
    /// [`OperationError::States`].
    pub async fn skipped(&self) -> Result<Vec<(Partition, SkippedEvent)>, OperationError> {
        let stored = self.all().await?.into_iter();
        let skipped = stored.flat_map(
            |Stored {
                 partition, record, ..
             }| {
                let skipped = record.skipped.into_iter();
                skipped.map(move |skipped| (partition, skipped))
            },
        );
        Ok(skipped.collect())
    }

    /// The records, by partition.
    async fn all(&self) -> Result<Vec<Stored>, OperationError> {
        let stored = self.states.load_states(&self.subscription).await?;
        let stored = stored
            .into_iter()
            .map(|(partition, revision, record)| Stored {
                partition,
                revision,
                record,
            });
        Ok(stored.collect())
    }

    /// The records, of which there has to be one.
    async fn started(&self) -> Result<Vec<Stored>, OperationError> {
        let stored = self.all().await?;
        if stored.is_empty() {
            return Err(OperationError::NotStarted);
        }
        Ok(stored)
    }

    async fn load(&self, partition: Partition) -> Result<Option<Stored>, OperationError> {
        let mut stored = self.all().await?.into_iter();
        Ok(stored.find(|stored| stored.partition == partition))
    }

    /// Changes a record by `step`, which says what becomes of it; nothing, where nothing is to be done.
    async fn change(
        &self,
        stored: Stored,
        step: impl Fn(&StateRecord) -> Result<Option<StateRecord>, OperationError>,
    ) -> Result<(), OperationError> {
        let partition = stored.partition;
        let mut stored = stored;
        for _ in 0..MAX_TRIES {
            let Some(next) = step(&stored.record)? else {
                return Ok(());
            };
            let (name, states) = (&self.subscription, &self.states);
            let written = states.compare_and_set_state(name, partition, stored.revision, &next);
            if written.await? {
                return Ok(());
            }
            let now = self.load(partition).await?;
            stored = now.ok_or(OperationError::NotStarted)?;
        }
        Err(OperationError::Contended { partition })
    }
}

/// Turns down a reason that is too long to be kept.
fn check_length(reason: &str) -> Result<(), OperationError> {
    if reason.chars().count() > MAX_REASON_CHARS {
        return Err(OperationError::Reason {
            why: "is too long: 1,000 characters at most",
        });
    }
    Ok(())
}
