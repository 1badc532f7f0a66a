//! What is known of the log's heads, by poll, by signal and by what the bus brought: one watch a partition.

use std::convert::Infallible;

use tidelog_domain::{HistoryId, Partition, Partitions, Position};
use tokio::sync::watch;

use crate::log::{LogError, LogReader};
use crate::signal::CommitSignal;

/// What is known of the head of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The highest position that anybody told of.
    pub(crate) known: Position,
    /// What the log itself said last; it may be a moment old.
    pub(crate) polled: Position,
    /// How often the log was asked.
    pub(crate) polls: u64,
    /// The last position that the bus brought.
    pub(crate) arrived: Position,
}

impl Head {
    /// Whether the log was asked since `seen_polls`, and says that it ends before `cursor`: either the answer is a
    /// moment old, or the log went back in time. A read at the cursor tells.
    pub(crate) fn is_below(&self, cursor: Position, seen_polls: u64) -> bool {
        self.polls > seen_polls && self.polled < cursor
    }
}

/// The heads of all partitions.
pub(crate) struct Heads {
    partitions: Box<[watch::Sender<Head>]>,
}

/// What a look at the log gave.
pub(crate) enum Look {
    /// The heads are up to date.
    Seen,
    /// The log has another history.
    AnotherHistory,
}

impl Heads {
    pub(crate) fn new(partitions: Partitions) -> Self {
        Self {
            partitions: partitions
                .iter()
                .map(|_| watch::Sender::default())
                .collect(),
        }
    }

    pub(crate) fn watch(&self, partition: Partition) -> Option<watch::Receiver<Head>> {
        self.partitions
            .get(partition.index())
            .map(watch::Sender::subscribe)
    }

    /// The bus brought everything that it has up to `position`.
    pub(crate) fn arrived(&self, partition: Partition, position: Position) {
        if let Some(head) = self.partitions.get(partition.index()) {
            head.send_modify(|head| {
                head.known = head.known.max(position);
                head.arrived = position;
            });
        }
    }

    /// Somebody told that `partition` has `position`.
    pub(crate) fn raise(&self, partition: Partition, position: Position) {
        if let Some(head) = self.partitions.get(partition.index()) {
            head.send_if_modified(|head| {
                let higher = position > head.known;
                head.known = head.known.max(position);
                higher
            });
        }
    }

    /// Forgets everything: another history begins.
    pub(crate) fn reset(&self) {
        for head in &self.partitions {
            head.send_replace(Head::default());
        }
    }

    /// Asks the log. It has the last word on what was told before: a position that it does not have was another history's.
    pub(crate) async fn look(
        &self,
        log: &dyn LogReader,
        history: HistoryId,
    ) -> Result<Look, LogError> {
        let identity = log.identity().await?;
        if identity.history != history {
            return Ok(Look::AnotherHistory);
        }
        let told: Vec<_> = self.partitions.iter().map(|h| h.borrow().known).collect();
        let polled = log.heads().await?;
        for ((head, told), position) in self.partitions.iter().zip(told).zip(polled) {
            head.send_if_modified(|head| {
                let news = position > head.known || position < head.polled || head.polls == 0;
                // What was told meanwhile may be newer than the answer.
                if head.known == told {
                    head.known = position;
                }
                head.known = head.known.max(position);
                head.polled = position;
                head.polls += 1;
                news
            });
        }
        Ok(Look::Seen)
    }

    /// Follows a signal, for ever. What it told before is left to the poll: it may be another history's.
    pub(crate) async fn follow(&self, signal: Option<&CommitSignal>) -> Infallible {
        let Some(signal) = signal else {
            return std::future::pending().await;
        };
        let mut changed = signal.subscribe();
        let partitions = || (0..).map(Partition::new).zip(&self.partitions);
        let mut told: Vec<_> = partitions().map(|(p, _)| signal.head(p)).collect();
        loop {
            for ((partition, _), told) in partitions().zip(&mut told) {
                let head = signal.head(partition);
                if head > *told {
                    *told = head;
                    self.raise(partition, head);
                }
            }
            if changed.changed().await.is_err() {
                // The signal cannot be gone while it is held here.
                return std::future::pending().await;
            }
        }
    }
}
