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

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tidelog_domain::{Cursor, RecordedEvent};

    use super::*;
    use crate::log::LogIdentity;

    const P0: Partition = Partition::new(0);

    /// A log of one partition with a head, and something that happens while it is asked.
    struct Asked<'a> {
        head: u64,
        meanwhile: Option<(&'a Heads, u64)>,
    }

    fn history() -> HistoryId {
        HistoryId::new(uuid::Uuid::from_u128(1))
    }

    #[async_trait]
    impl LogReader for Asked<'_> {
        async fn identity(&self) -> Result<LogIdentity, LogError> {
            Ok(LogIdentity {
                history: history(),
                partitions: Partitions::new(1).unwrap(),
            })
        }

        async fn heads(&self) -> Result<Vec<Position>, LogError> {
            if let Some((heads, position)) = self.meanwhile {
                heads.raise(P0, Position::new(position));
            }
            Ok(vec![Position::new(self.head)])
        }

        async fn read(
            &self,
            _: Partition,
            _: Cursor,
            _: usize,
        ) -> Result<Vec<RecordedEvent>, LogError> {
            Ok(Vec::new())
        }
    }

    async fn known_after(heads: &Heads, log: Asked<'_>) -> u64 {
        assert!(heads.look(&log, history()).await.is_ok());
        heads.watch(P0).unwrap().borrow().known.number()
    }

    #[tokio::test]
    async fn what_was_told_before_is_corrected_by_the_log() {
        let heads = Heads::new(Partitions::new(1).unwrap());
        heads.raise(P0, Position::new(10));
        let log = Asked {
            head: 4,
            meanwhile: None,
        };
        assert_eq!(known_after(&heads, log).await, 4);
    }

    #[tokio::test]
    async fn what_is_told_while_the_log_is_asked_stays() {
        let heads = Heads::new(Partitions::new(1).unwrap());
        let log = Asked {
            head: 4,
            meanwhile: Some((&heads, 5)),
        };
        assert_eq!(known_after(&heads, log).await, 5);
    }

    #[tokio::test]
    async fn a_signal_is_followed_from_now_on() {
        let heads = Heads::new(Partitions::new(1).unwrap());
        let signal = CommitSignal::new(Partitions::new(1).unwrap());
        signal.committed([(P0, Position::new(10))]);
        let mut head = heads.watch(P0).unwrap();
        let commit = async {
            // The signal is looked at first, as it comes first.
            signal.committed([(P0, Position::new(12))]);
            head.changed().await.unwrap();
            head.borrow().known.number()
        };
        tokio::select! {
            biased;
            never = heads.follow(Some(&signal)) => match never {},
            known = commit => assert_eq!(known, 12),
        }
    }
}
