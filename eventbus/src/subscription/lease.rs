//! Holding a state record: every change of it is a compare-and-set against what is known of it.

use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::{Cursor, Partition};
use tokio::time::Instant;

use crate::state::{StateError, StateRecord, StateStore};

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

    /// When the record was written last.
    pub(super) const fn written_at(&self) -> Instant {
        self.written_at
    }

    /// Writes that everything up to `cursor` is done; with the cursor that is there, it only keeps the lease alive.
    pub(super) async fn checkpoint_at(&mut self, cursor: Cursor) -> Result<Held, StateError> {
        for _ in 0..MAX_TRIES {
            let next = self.record.advanced_to(cursor);
            if self.try_write(next).await? {
                return Ok(self.held());
            }
            let held = self.reload().await?;
            if held != Held::Yes {
                return Ok(held);
            }
        }
        Ok(Held::Lost)
    }

    /// How a record that is ours is held.
    const fn held(&self) -> Held {
        if self.record.paused {
            Held::Paused
        } else {
            Held::Yes
        }
    }

    /// Gives the record back with everything up to `cursor` done, if it still is ours.
    pub(super) async fn release(&mut self, cursor: Cursor) -> Result<(), StateError> {
        for _ in 0..MAX_TRIES {
            let next = self.record.advanced_to(cursor).released();
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
