//! Holding a state record: every change of it is a compare-and-set against what is known of it.

use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::{Cursor, Partition};
use tokio::time::Instant;

use super::observer::Seen;
use crate::state::{Progress, Request, StateError, StateRecord, StateStore};

/// How often a change is tried against a record that others change at the same time.
const MAX_TRIES: usize = 16;

/// Whose state records they are, and where.
#[derive(Clone)]
pub(super) struct Records {
    pub(super) states: Arc<dyn StateStore>,
    pub(super) subscription: Arc<str>,
    /// The process that holds them, when it does.
    pub(super) owner: Arc<str>,
}

/// The record of one partition, held by this process.
pub(super) struct Lease {
    records: Records,
    partition: Partition,
    revision: u64,
    record: StateRecord,
    /// When it was written last, on our clock, counted from before the write.
    written_at: Instant,
}

/// What became of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// It still is ours.
    Yes,
    /// Somebody paused it; it still is ours, to be given back.
    Paused,
    /// Another process asks for it; it still is ours, to be given back.
    Wanted,
    /// Somebody else took it, or it is gone together with the data beside it.
    Lost,
}

impl Records {
    /// The stored record of `partition` with its revision; 0 and nothing when there is none.
    pub(super) async fn load(
        &self,
        partition: Partition,
    ) -> Result<(u64, Option<StateRecord>), StateError> {
        let stored = self.states.load_states(&self.subscription).await?;
        let of_it = stored.into_iter().find(|(of, ..)| *of == partition);
        Ok(of_it.map_or((0, None), |(_, revision, record)| (revision, Some(record))))
    }

    /// Asks for a partition as it was seen; nothing happens when its record has changed since.
    pub(super) async fn ask_for(
        &self,
        partition: Partition,
        seen: &Seen,
    ) -> Result<(), StateError> {
        let Some(record) = &seen.record else {
            return Ok(());
        };
        let record = record.wanted_by(&self.owner);
        self.states
            .compare_and_set_state(&self.subscription, partition, seen.revision, &record)
            .await?;
        Ok(())
    }

    /// Takes the record that has `revision` (0: there is none); `None` when it changed meanwhile.
    pub(super) async fn take(
        &self,
        partition: Partition,
        revision: u64,
        record: &StateRecord,
    ) -> Result<Option<Lease>, StateError> {
        let record = record.taken_by(&self.owner);
        let written_at = Instant::now();
        let taken = self
            .states
            .compare_and_set_state(&self.subscription, partition, revision, &record)
            .await?;
        Ok(taken.then(|| Lease {
            records: self.clone(),
            partition,
            revision: revision.saturating_add(1),
            record,
            written_at,
        }))
    }
}

impl Lease {
    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }

    /// How far the record says that it is.
    pub(super) const fn checkpoint(&self) -> Cursor {
        self.record.checkpoint.cursor
    }

    /// Whether the record says all of `progress` that others may want to know.
    pub(super) fn tells(&self, progress: &Progress) -> bool {
        self.checkpoint() == progress.cursor && self.record.trouble == progress.trouble
    }

    /// When the record was written last.
    pub(super) const fn written_at(&self) -> Instant {
        self.written_at
    }

    /// What the record says of its owner's progress.
    pub(super) fn progress(&self) -> Progress {
        self.record.progress()
    }

    /// What the owner is asked to do.
    pub(super) fn requests(&self) -> &[Request] {
        &self.record.requests
    }

    /// Writes how far its owner is.
    pub(super) async fn write(&mut self, progress: &Progress) -> Result<Held, StateError> {
        for _ in 0..MAX_TRIES {
            let next = self.record.with_progress(progress);
            if self.try_write(next).await? {
                return Ok(self.held());
            }
            let held = self.reload().await?;
            if held == Held::Lost {
                return Ok(held);
            }
        }
        Ok(Held::Lost)
    }

    /// Writes the record as it is, so that it does not look abandoned.
    pub(super) async fn renew(&mut self) -> Result<Held, StateError> {
        for _ in 0..MAX_TRIES {
            if self.try_write(self.record.clone()).await? {
                return Ok(self.held());
            }
            // What is stored may be a write of ours whose answer was lost: what we knew before must not come back.
            if self.reload().await? == Held::Lost {
                break;
            }
        }
        Ok(Held::Lost)
    }

    /// How a record that is ours is held.
    fn held(&self) -> Held {
        if self.record.is_paused() {
            Held::Paused
        } else if self.record.wanted_by.is_some() {
            Held::Wanted
        } else {
            Held::Yes
        }
    }

    /// Gives the record back with its owner's progress, if it still is ours.
    pub(super) async fn release(&mut self, progress: &Progress) -> Result<(), StateError> {
        for _ in 0..MAX_TRIES {
            let next = self.record.with_progress(progress).released();
            if self.try_write(next).await? || self.reload().await? == Held::Lost {
                break;
            }
        }
        Ok(())
    }

    async fn try_write(&mut self, next: StateRecord) -> Result<bool, StateError> {
        let Records {
            states,
            subscription,
            ..
        } = &self.records;
        let written_at = Instant::now();
        let written = states
            .compare_and_set_state(subscription, self.partition, self.revision, &next)
            .await?;
        if written {
            self.revision = self.revision.saturating_add(1);
            self.record = next;
            self.written_at = written_at;
        }
        Ok(written)
    }

    /// Looks what became of the record.
    pub(super) async fn reload(&mut self) -> Result<Held, StateError> {
        let (revision, stored) = self.records.load(self.partition).await?;
        Ok(self.meet(revision, stored))
    }

    /// Goes on with what is stored now, if it still is ours: it may be a write of ours whose answer was lost, or
    /// somebody paused it. One that went back in time was restored together with the data beside it: what we have
    /// handled since is gone from there, and our cursor with it.
    fn meet(&mut self, revision: u64, stored: Option<StateRecord>) -> Held {
        let written = self.record.checkpoint.cursor.position;
        match stored {
            Some(stored)
                if revision >= self.revision
                    && stored.checkpoint.cursor.position >= written
                    && stored.is_held_by(&self.records.owner, self.record.epoch) =>
            {
                self.revision = revision;
                self.record = stored;
                self.held()
            }
            _ => Held::Lost,
        }
    }
}

/// How long after its last write a lease is renewed, so that two renewals may fail before it ends.
pub(super) fn renewal(lease: Duration) -> Duration {
    lease / 3
}
