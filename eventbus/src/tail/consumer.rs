//! What one consumer of one partition sees of the tail.

use std::sync::Arc;

use tidelog_domain::{HistoryId, Partition, Position, RecordedEvent};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Shared;
use super::ring::Taken;
use crate::heads::Head;

/// One partition of the tail, for one consumer.
pub(crate) struct PartitionTail {
    shared: Arc<Shared>,
    history: HistoryId,
    partition: Partition,
    head: watch::Receiver<Head>,
    /// Up to which poll of the heads it was looked whether the log went back in time.
    seen_polls: u64,
    /// Since when the log is known to have more than the bus brought.
    behind_since: Option<Instant>,
}

/// What a consumer does next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Apply these: they follow its cursor.
    Events(Vec<RecordedEvent>),
    /// Read the log: something is missing, the bus stalls, or the log may have gone back in time.
    ReadLog,
}

impl PartitionTail {
    pub(super) fn new(
        shared: Arc<Shared>,
        history: HistoryId,
        partition: Partition,
        head: watch::Receiver<Head>,
    ) -> Self {
        Self {
            shared,
            history,
            partition,
            head,
            seen_polls: 0,
            behind_since: None,
        }
    }

    /// The log's head, as far as it is known.
    pub(crate) fn head(&self) -> Position {
        self.head.borrow().known
    }

    /// What comes next for a consumer that has applied everything up to `cursor`; at most `limit` events. Waits until
    /// there is something. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self, cursor: Position, limit: usize) -> Next {
        loop {
            let head = *self.head.borrow_and_update();
            match self.take(cursor, limit) {
                Taken::Events(events) => {
                    self.behind_since = None;
                    return Next::Events(events);
                }
                Taken::ReadLog => return self.read_log(head),
                Taken::Nothing => {}
            }
            if head.is_below(cursor, self.seen_polls) {
                return self.read_log(head);
            }
            if head.known <= cursor {
                self.behind_since = None;
                self.wait_for_news().await;
                continue;
            }
            let since = *self.behind_since.get_or_insert_with(Instant::now);
            let stalls_at = since + self.shared.options.stall_after;
            // Far behind, or without a bus, there is nothing to wait for.
            let far_behind = head.known > cursor.plus(u64::try_from(limit).unwrap_or(u64::MAX));
            if far_behind || self.shared.is_bus_down() || Instant::now() >= stalls_at {
                return self.read_log(head);
            }
            // Its end only means another look.
            drop(tokio::time::timeout_at(stalls_at, self.wait_for_news()).await);
        }
    }

    /// What the ring has. The one of another history has nothing for us.
    fn take(&self, cursor: Position, limit: usize) -> Taken {
        match self.shared.slot(self.partition) {
            Some(slot) if slot.history == Some(self.history) => slot.ring.take(cursor, limit),
            _ => Taken::Nothing,
        }
    }

    fn read_log(&mut self, head: Head) -> Next {
        self.seen_polls = head.polls;
        self.behind_since = None;
        Next::ReadLog
    }

    async fn wait_for_news(&mut self) {
        if self.head.changed().await.is_err() {
            // The heads live as long as the tail, which is held here.
            std::future::pending().await
        }
    }
}
