//! What can be seen of a subscription while it runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tidelog_domain::{Cursor, HistoryId, Partition, Partitions, Position};
use tokio::sync::watch;

use crate::parking::Parked;

/// What one partition of a subscription is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartitionState {
    /// It has not begun.
    Starting,
    /// It has handled all that is known of.
    Live,
    /// It is behind, and reads the log.
    CatchingUp,
    /// Something is unavailable; it is tried again, without end.
    BackingOff {
        /// The error and its causes.
        reason: String,
        /// How often it failed in a row.
        attempts: u32,
    },
    /// An operator, or a replay that is about to take over, has paused it.
    Paused,
    /// Another process works on it.
    Standby {
        /// Which.
        owner: String,
    },
    /// As many sequences are set aside as may be: nothing goes on until some are retried or skipped.
    Full {
        /// How many are set aside.
        parked: usize,
        /// How many may be.
        max: usize,
    },
    /// An event cannot be handled, and it cannot be told what it belongs to: nothing is skipped, and it is tried again at a
    /// slow pace.
    Failed {
        /// The event's position.
        position: Position,
        /// The error and its causes.
        reason: String,
        /// How often it failed in a row.
        attempts: u32,
    },
    /// The log went back in time: nothing goes on until it has a new history.
    Diverged {
        /// The partition where it was noticed.
        partition: Partition,
        /// The position that the log has no longer, or with another event.
        position: Position,
    },
    /// The checkpoint belongs to another history of the log than the one that there is.
    HistoryChanged {
        /// The history that there is.
        log: HistoryId,
    },
    /// It was told to stop, and has.
    Stopped,
}

/// What can be seen of one partition of a subscription.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PartitionStatus {
    /// The partition.
    pub partition: Partition,
    /// How far it is: the last event handled or passed over. What is stored may lag behind it by a moment.
    pub cursor: Cursor,
    /// The log's head as far as this process knows.
    pub head: Position,
    /// What it is doing.
    pub state: PartitionState,
    /// Since when.
    pub since: Instant,
    /// The sequences that are set aside of what is up to the cursor.
    pub parked: Arc<Parked>,
    /// Who works on it, as its record said when it was looked at last; `None` when nobody does.
    pub owner: Option<String>,
    /// When its record was last seen to change, which a living owner makes it do every third of a lease; `None` before the first
    /// look.
    pub heartbeat: Option<Instant>,
    /// When it last came further, or had nothing to do.
    pub progressed: Instant,
    /// Since when it has been behind the log without a pause, by this machine's clock; `None` while it is not.
    pub behind_since: Option<DateTime<Utc>>,
    /// When the event at the cursor was recorded, where this process handled it.
    pub recorded_at: Option<DateTime<Utc>>,
}

impl PartitionStatus {
    /// How many events it is behind.
    #[must_use]
    pub const fn lag(&self) -> u64 {
        self.head
            .number()
            .saturating_sub(self.cursor.position.number())
    }

    /// How long, at `now`, the oldest event that is not handled has been waiting for it: zero where there is none. (It was recorded
    /// after the one at the cursor, and after it began to be behind.)
    #[must_use]
    pub fn lag_time(&self, now: DateTime<Utc>) -> Duration {
        let Some(behind_since) = self.behind_since else {
            return Duration::ZERO;
        };
        let oldest = self
            .recorded_at
            .map_or(behind_since, |at| at.max(behind_since));
        (now - oldest).to_std().unwrap_or(Duration::ZERO)
    }

    /// Whether it has been behind for `patience` without coming any further: what somebody has to look at. One that is quiet because
    /// there is nothing to do is not, nor is one that an operator paused.
    #[must_use]
    pub fn is_stalled(&self, patience: Duration) -> bool {
        self.lag() > 0
            && self.progressed.elapsed() >= patience
            && !matches!(self.state, PartitionState::Paused | PartitionState::Stopped)
    }

    /// Takes in what is known of both ends.
    fn see(&mut self, cursor: Cursor, head: Position) {
        let was_behind = self.lag() > 0;
        let moved = self.cursor != cursor;
        (self.cursor, self.head) = (cursor, head);
        let is_behind = self.lag() > 0;
        if moved || !is_behind || !was_behind {
            self.progressed = Instant::now();
        }
        if !is_behind {
            self.behind_since = None;
        } else if self.behind_since.is_none() {
            self.behind_since = Some(Utc::now());
        }
    }
}

/// What can be seen of a subscription: one status a partition, always up to date.
///
/// Cloning gives another look at the same subscription; it stays readable after the subscription has ended.
#[derive(Clone, Debug)]
pub struct SubscriptionStatus {
    name: Arc<str>,
    partitions: Arc<[watch::Sender<PartitionStatus>]>,
}

impl SubscriptionStatus {
    pub(crate) fn new(name: &str, partitions: Partitions) -> Self {
        let starting = |partition| PartitionStatus {
            partition,
            cursor: Cursor::START,
            head: Position::START,
            state: PartitionState::Starting,
            since: Instant::now(),
            parked: Arc::default(),
            owner: None,
            heartbeat: None,
            progressed: Instant::now(),
            behind_since: None,
            recorded_at: None,
        };
        Self {
            name: name.into(),
            partitions: partitions
                .iter()
                .map(|partition| watch::Sender::new(starting(partition)))
                .collect(),
        }
    }

    /// The subscription's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All partitions, ascending.
    #[must_use]
    pub fn partitions(&self) -> Vec<PartitionStatus> {
        self.partitions
            .iter()
            .map(|partition| partition.borrow().clone())
            .collect()
    }

    /// How many events it is behind, over all partitions.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.partitions
            .iter()
            .map(|partition| partition.borrow().lag())
            .fold(0, u64::saturating_add)
    }

    /// A watch on one partition, to wait for its progress; `None` when there is no such partition.
    #[must_use]
    pub fn watch(&self, partition: Partition) -> Option<watch::Receiver<PartitionStatus>> {
        self.partitions
            .get(partition.index())
            .map(watch::Sender::subscribe)
    }

    /// Waits until `partition` has handled everything up to `position`. Returns at once for a partition that
    /// there is not; bound the wait with a time limit.
    pub async fn reached(&self, partition: Partition, position: Position) {
        if let Some(mut watch) = self.watch(partition) {
            // The sender lives in `self`, so the wait cannot end without the condition.
            let _ = watch
                .wait_for(|status| status.cursor.position >= position)
                .await;
        }
    }

    pub(super) fn set(&self, partition: Partition, state: PartitionState) {
        if let Some(partition) = self.partitions.get(partition.index()) {
            set_state(partition, state);
        }
    }

    pub(super) fn set_all(&self, state: &PartitionState) {
        for partition in self.partitions.iter() {
            set_state(partition, state.clone());
        }
    }

    /// The state records cannot be read: those partitions that wait for them say so.
    pub(super) fn waits_for_records(&self, reason: &str, attempts: u32) {
        for partition in self.partitions.iter() {
            let waits = matches!(
                partition.borrow().state,
                PartitionState::Starting | PartitionState::BackingOff { .. }
            );
            if waits {
                let reason = reason.to_owned();
                set_state(partition, PartitionState::BackingOff { reason, attempts });
            }
        }
    }

    /// The log is known to have `head`.
    pub(super) fn head(&self, partition: Partition, head: Position) {
        if let Some(partition) = self.partitions.get(partition.index()) {
            partition.send_if_modified(|status| {
                let news = head > status.head;
                let head = status.head.max(head);
                status.see(status.cursor, head);
                news
            });
        }
    }

    /// `partition` has come to `cursor` with these sequences set aside, and the log is known to have `head`. All in one, so that
    /// nobody takes for applied what is set aside.
    pub(super) fn reached_by(
        &self,
        partition: Partition,
        cursor: Cursor,
        parked: &Parked,
        head: Position,
    ) {
        if let Some(partition) = self.partitions.get(partition.index()) {
            partition.send_if_modified(|status| {
                let head = head.max(cursor.position).max(status.head);
                let parks = *status.parked != *parked;
                let news = parks || status.cursor != cursor || status.head != head;
                if parks {
                    status.parked = Arc::new(parked.clone());
                }
                status.see(cursor, head);
                news
            });
        }
    }

    /// The event at the cursor of `partition` was recorded at this time.
    pub(super) fn recorded(&self, partition: Partition, at: DateTime<Utc>) {
        if let Some(partition) = self.partitions.get(partition.index()) {
            partition.send_if_modified(|status| {
                status.recorded_at = Some(at);
                false
            });
        }
    }

    /// The record of `partition` has changed, and `owner` has it.
    pub(super) fn heard_of(&self, partition: Partition, owner: Option<&str>, at: Instant) {
        if let Some(partition) = self.partitions.get(partition.index()) {
            partition.send_if_modified(|status| {
                status.heartbeat = Some(at);
                let news = status.owner.as_deref() != owner;
                if news {
                    status.owner = owner.map(str::to_owned);
                }
                news
            });
        }
    }
}

/// Sets the state, with the time when it is another one than before.
fn set_state(partition: &watch::Sender<PartitionStatus>, state: PartitionState) {
    partition.send_if_modified(|status| {
        if status.state == state {
            return false;
        }
        if std::mem::discriminant(&status.state) != std::mem::discriminant(&state) {
            status.since = Instant::now();
        }
        if status.state == PartitionState::Paused {
            // It could not come any further while it was paused.
            status.progressed = Instant::now();
        }
        status.state = state;
        true
    });
}
