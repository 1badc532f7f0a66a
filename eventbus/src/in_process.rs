//! The bus within one process.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tidelog_domain::{Cursor, HistoryId, Partition, Position, RecordedEvent};
use tokio::sync::watch;

use crate::bus::{BusError, EventBus};

/// How many histories are kept at once: the one of the log, and those that late readers may still look at.
const MAX_HISTORIES: usize = 4;

/// An event bus in memory, for programs that are one process.
///
/// ```
/// use std::time::Duration;
/// use tidelog_domain::{HistoryId, Partition};
/// use tidelog_eventbus::{EventBus, InProcessEventBus};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = InProcessEventBus::new();
/// let history = HistoryId::new(uuid::Uuid::now_v7());
/// assert_eq!(bus.last(history, Partition::new(0)).await?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct InProcessEventBus {
    keep: usize,
    histories: Mutex<VecDeque<(HistoryId, Vec<Tail>)>>,
    published: watch::Sender<()>,
}

/// The newest events of one partition.
#[derive(Debug, Default)]
struct Tail {
    last: Option<Cursor>,
    events: VecDeque<RecordedEvent>,
}

impl InProcessEventBus {
    /// How many events of a partition are kept, unless told otherwise. They are shared with those who read them.
    pub const DEFAULT_KEEP: usize = 4_096;

    /// A bus that keeps the last [`InProcessEventBus::DEFAULT_KEEP`] events of each partition.
    #[must_use]
    pub fn new() -> Self {
        Self::keeping(Self::DEFAULT_KEEP)
    }

    /// A bus that keeps the last `keep` events of each partition.
    #[must_use]
    pub fn keeping(keep: usize) -> Self {
        Self {
            keep,
            histories: Mutex::default(),
            published: watch::Sender::new(()),
        }
    }

    /// Loses all that it has of `partition`, as a bus may at any moment.
    pub fn lose(&self, history: HistoryId, partition: Partition) {
        if let Some(tail) = tail_mut(&mut self.lock(), history, partition) {
            *tail = Tail::default();
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(HistoryId, Vec<Tail>)>> {
        // Nothing panics while it is held, and no state of it would be invalid if something did.
        self.histories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is after the positions now.
    fn after(
        &self,
        history: HistoryId,
        after: &[(Partition, Position)],
        limit: usize,
    ) -> Vec<RecordedEvent> {
        let mut histories = self.lock();
        let mut found = Vec::new();
        for &(partition, position) in after {
            if let Some(tail) = tail_mut(&mut histories, history, partition) {
                let first = tail
                    .events
                    .partition_point(|event| event.position <= position);
                found.extend(tail.events.range(first..).take(limit).cloned());
            }
        }
        found
    }
}

impl Default for InProcessEventBus {
    fn default() -> Self {
        Self::new()
    }
}

/// The tail of `partition`, if there is one.
fn tail_mut(
    histories: &mut VecDeque<(HistoryId, Vec<Tail>)>,
    history: HistoryId,
    partition: Partition,
) -> Option<&mut Tail> {
    let (_, tails) = histories.iter_mut().find(|(id, _)| *id == history)?;
    tails.get_mut(partition.index())
}

/// The tail of `partition`, made if it is not there.
fn tail_or_new(
    histories: &mut VecDeque<(HistoryId, Vec<Tail>)>,
    history: HistoryId,
    partition: Partition,
) -> Option<&mut Tail> {
    if !histories.iter().any(|(id, _)| *id == history) {
        histories.truncate(MAX_HISTORIES - 1);
        histories.push_front((history, Vec::new()));
    }
    let (_, tails) = histories.iter_mut().find(|(id, _)| *id == history)?;
    if tails.len() <= partition.index() {
        tails.resize_with(partition.index() + 1, Tail::default);
    }
    tails.get_mut(partition.index())
}

#[async_trait]
impl EventBus for InProcessEventBus {
    async fn publish(
        &self,
        history: HistoryId,
        partition: Partition,
        events: &[RecordedEvent],
    ) -> Result<(), BusError> {
        if let Some(tail) = tail_or_new(&mut self.lock(), history, partition) {
            for event in events {
                if tail.last.is_none_or(|last| event.position > last.position) {
                    tail.last = Some(event.cursor());
                    tail.events.push_back(event.clone());
                }
            }
            let surplus = tail.events.len().saturating_sub(self.keep);
            tail.events.drain(..surplus);
        }
        self.published.send_replace(());
        Ok(())
    }

    async fn last(
        &self,
        history: HistoryId,
        partition: Partition,
    ) -> Result<Option<Cursor>, BusError> {
        Ok(tail_mut(&mut self.lock(), history, partition).and_then(|tail| tail.last))
    }

    async fn read(
        &self,
        history: HistoryId,
        after: &[(Partition, Position)],
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<RecordedEvent>, BusError> {
        let mut published = self.published.subscribe();
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            published.mark_unchanged();
            let found = self.after(history, after, limit);
            if !found.is_empty() {
                return Ok(found);
            }
            let Ok(changed) = tokio::time::timeout_at(deadline, published.changed()).await else {
                return Ok(Vec::new());
            };
            // The sender is in `self`: it cannot be gone.
            if changed.is_err() {
                return Ok(Vec::new());
            }
        }
    }
}

#[cfg(all(test, feature = "conformance"))]
mod tests {
    use std::sync::{Arc, OnceLock};

    use super::*;
    use crate::conformance::EventBusFactory;

    #[derive(Default)]
    struct Factory {
        bus: OnceLock<Arc<InProcessEventBus>>,
    }

    #[async_trait]
    impl EventBusFactory for Factory {
        async fn bus(&self, keep: usize) -> Arc<dyn EventBus> {
            let bus = Arc::new(InProcessEventBus::keeping(keep));
            self.bus.set(Arc::clone(&bus)).unwrap();
            bus
        }

        async fn lose(&self, history: HistoryId, partition: Partition) {
            self.bus.get().unwrap().lose(history, partition);
        }
    }

    crate::event_bus_conformance!(conformance, Factory::default());
}
