//! What a watcher saw, and what it says of a token.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidelog_domain::{ConsistencyToken, HistoryId, Partition, Position};
use tidelog_eventbus::{Parked, StateRecord, SubscriptionStatus};

use super::{ConsistencyError, ReadOf};
use crate::store::ReadError;
use crate::versions::shared;

/// What the watcher saw last.
#[derive(Clone)]
pub(super) enum Look {
    /// It has not looked yet.
    Pending,
    /// The view has no version yet, or nothing has been applied to it.
    Nothing,
    /// So far is the version that is read now, or a later one.
    Reached(HistoryId, BTreeMap<Partition, Reached>),
    /// It could not look.
    Failed(Arc<ReadError>),
}

/// How far a view is in one partition.
#[derive(Clone)]
pub(super) struct Reached {
    /// Everything up to here is in it, or set aside.
    position: Position,
    /// What of that is set aside.
    parked: Arc<Parked>,
}

impl Look {
    pub(super) fn of_status(history: HistoryId, status: &SubscriptionStatus) -> Self {
        let partitions = status.partitions().into_iter();
        let reached = partitions.map(|status| {
            let reached = Reached {
                position: status.cursor.position,
                parked: status.parked,
            };
            (status.partition, reached)
        });
        Self::Reached(history, reached.collect())
    }

    pub(super) fn of_states(states: &[(Partition, u64, StateRecord)]) -> Self {
        let Some((_, _, first)) = states.first() else {
            return Self::Nothing;
        };
        let history = first.checkpoint.history;
        let reached = states
            .iter()
            .filter(|(_, _, record)| record.checkpoint.history == history)
            .map(|(partition, _, record)| {
                let reached = Reached {
                    position: record.checkpoint.cursor.position,
                    parked: Arc::new(record.parked.clone()),
                };
                (*partition, reached)
            });
        Self::Reached(history, reached.collect())
    }

    /// Whether all that `token` names has been applied to what is read.
    pub(super) fn judge(&self, read_of: ReadOf<'_>, token: &ConsistencyToken) -> Verdict<()> {
        let passed = |reached: &BTreeMap<_, Reached>,
                      (partition, position): &(Partition, Position)| {
            let reached = reached.get(partition);
            reached.is_some_and(|reached| reached.position >= *position)
        };
        let set_aside = |reached: &BTreeMap<_, Reached>,
                         (partition, position): &(Partition, Position)| {
            let reached = reached.get(partition);
            reached.is_some_and(|reached| is_set_aside(&reached.parked, *position, read_of))
        };
        match self {
            Self::Failed(error) => Verdict::Failed(shared(error)),
            Self::Pending => Verdict::Missing(|| ConsistencyError::Store(unanswered())),
            Self::Nothing => Verdict::Missing(|| ConsistencyError::NotYetProjected),
            Self::Reached(history, _) if *history != token.history => {
                Verdict::Missing(|| ConsistencyError::OtherHistory)
            }
            Self::Reached(_, reached) if !token.positions.iter().all(|at| passed(reached, at)) => {
                Verdict::Missing(|| ConsistencyError::NotYetProjected)
            }
            Self::Reached(_, reached)
                if token.positions.iter().any(|at| set_aside(reached, at)) =>
            {
                Verdict::Missing(|| ConsistencyError::SetAside)
            }
            Self::Reached(..) => Verdict::Seen(()),
        }
    }
}

/// Whether the event at `position`, which was passed, is set aside, as far as it concerns what is read.
fn is_set_aside(parked: &Parked, position: Position, read_of: ReadOf<'_>) -> bool {
    match read_of {
        ReadOf::Document(id) => parked.get(id).is_some_and(|own| own.first <= position),
        ReadOf::Any => {
            let mut parked = parked.iter();
            parked.any(|own| own.first == position || own.last == position)
        }
    }
}

/// What a look says of a token.
pub(super) enum Verdict<S> {
    /// All of it has been applied.
    Seen(S),
    /// Not yet; this is what to say if it stays so.
    Missing(fn() -> ConsistencyError),
    /// That cannot be told.
    Failed(ReadError),
}

impl<S> Verdict<S> {
    pub(super) fn map<T>(self, seen: impl FnOnce(S) -> T) -> Verdict<T> {
        match self {
            Self::Seen(so) => Verdict::Seen(seen(so)),
            Self::Missing(missing) => Verdict::Missing(missing),
            Self::Failed(error) => Verdict::Failed(error),
        }
    }
}

/// The store did not answer as long as somebody was willing to wait.
fn unanswered() -> ReadError {
    ReadError::Unavailable("it did not answer in time".into())
}
