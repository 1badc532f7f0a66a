//! The reactions of a process, and what can be seen of them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tidelog_eventbus::{
    CommitSignal, LogReader, PartitionState, PartitionStatus, ReactionDefinition, StateStore,
    Subscription, SubscriptionEnd, SubscriptionOptions, SubscriptionStatus, Tail,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether a reaction that is held may go on.
const HELD_INTERVAL: Duration = Duration::from_secs(1);

/// What a reaction of this process is doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReactionState {
    /// It has not begun: the program that it follows was not reached yet.
    Starting,
    /// It runs: this is how far.
    Running(SubscriptionStatus),
    /// Its state is of another history of the log than the log has now: nothing is done until an operator says where it goes on.
    Held(SubscriptionStatus),
}

/// What can be seen of a reaction of this process.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReactionStatus {
    /// What its subscription is called: its name, and where it follows another program `@` and the name of that.
    pub name: String,
    /// What it is doing.
    pub state: ReactionState,
    /// Why the program that it follows cannot be reached now; it is tried again without end.
    pub unreachable: Option<String>,
}

/// What can be seen of the reactions of this process. Cloning gives another handle to the same.
#[derive(Clone, Default)]
pub(super) struct Reactions(Arc<RwLock<BTreeMap<String, ReactionStatus>>>);

impl Reactions {
    /// All of them, by name.
    pub(super) fn all(&self) -> Vec<ReactionStatus> {
        let statuses = self.0.read().unwrap_or_else(PoisonError::into_inner);
        statuses.values().cloned().collect()
    }

    /// What can be seen of the subscriptions of those that have begun, each with its name.
    pub(super) fn statuses(&self) -> Vec<(String, SubscriptionStatus)> {
        let status = |reaction: ReactionStatus| match reaction.state {
            ReactionState::Starting => None,
            ReactionState::Running(status) | ReactionState::Held(status) => {
                Some((reaction.name, status))
            }
        };
        self.all().into_iter().filter_map(status).collect()
    }

    /// Whether all that react to the program's own events were given what is committed.
    pub(super) fn have_seen(&self, commits: &CommitSignal) -> bool {
        let has_seen = |status: &SubscriptionStatus| {
            let partitions = status.partitions();
            let seen = |one: &PartitionStatus| one.cursor.position >= commits.head(one.partition);
            partitions.iter().all(seen)
        };
        self.own().all(|reaction| match reaction.state {
            ReactionState::Running(status) => has_seen(&status),
            _ => false,
        })
    }

    /// Those that react to the program's own events.
    fn own(&self) -> impl Iterator<Item = ReactionStatus> {
        let all = self.all().into_iter();
        all.filter(|reaction| !reaction.name.contains('@'))
    }

    /// Changes what can be seen of the reaction `name`.
    pub(super) fn set(&self, name: &str, change: impl FnOnce(&mut ReactionStatus)) {
        let mut statuses = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let status = statuses.entry(name.to_owned());
        change(status.or_insert_with(|| ReactionStatus {
            name: name.to_owned(),
            state: ReactionState::Starting,
            unreachable: None,
        }));
    }
}

/// Keeps one reaction running.
pub(super) struct Keeper {
    /// What its subscription is called.
    pub(super) name: String,
    /// This process.
    pub(super) owner: String,
    pub(super) reaction: Arc<dyn ReactionDefinition>,
    /// Where its state is kept.
    pub(super) states: Arc<dyn StateStore>,
    pub(super) live: Reactions,
    /// Whether no other process can run it.
    pub(super) is_alone: bool,
}

impl Keeper {
    /// Has the reaction react to `log` until `stop`, at most so many partitions at once; again after it was held.
    pub(super) async fn run(
        self,
        log: Arc<dyn LogReader>,
        tail: Tail,
        concurrent_partitions: usize,
        stop: CancellationToken,
    ) {
        let options = SubscriptionOptions::default();
        let options = SubscriptionOptions {
            live_batch_max_events: self.reaction.batch_max_events(),
            log_page_max_events: self.reaction.batch_max_events(),
            concurrent_partitions: options.concurrent_partitions.min(concurrent_partitions),
            policy: self.reaction.policy(),
            take_over_at_start: self.is_alone,
            ..options
        };
        loop {
            let (name, owner) = (self.name.clone(), self.owner.clone());
            let (handler, states) = (Arc::clone(&self.reaction), Arc::clone(&self.states));
            let subscription =
                Subscription::new(name, owner, handler, states, Arc::clone(&log), tail.clone())
                    .starting(self.reaction.start())
                    .with_options(options.clone());
            let status = subscription.status();
            self.is(ReactionState::Running(status.clone()));
            if subscription.run(stop.clone()).await != SubscriptionEnd::HistoryChanged {
                return;
            }
            tracing::error!(
                reaction = self.name,
                "the reaction is held: its state belongs to another history of the log than the log has now, as after a restore. \
                 What has happened since may be done twice or never, so nothing is done until you say where it goes on, with \
                 `restart {} --from now` (or beginning, or a time)",
                self.name
            );
            self.is(ReactionState::Held(status));
            if stop
                .run_until_cancelled(self.released(&*log))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    fn is(&self, state: ReactionState) {
        self.live.set(&self.name, |status| status.state = state);
    }

    /// Waits until all its state is of the log's history.
    async fn released(&self, log: &dyn LogReader) {
        loop {
            sleep(HELD_INTERVAL).await;
            // What cannot be read now is looked at again.
            let (Ok(states), Ok(log)) = (
                self.states.load_states(&self.name).await,
                log.identity().await,
            ) else {
                continue;
            };
            let mut histories = states.iter().map(|(.., record)| record.checkpoint.history);
            if !states.is_empty() && histories.all(|history| history == log.history) {
                return;
            }
        }
    }
}

/// Whether the log went back in time before a reaction of this program's own events.
pub(super) fn diverged(reactions: &Reactions) -> Option<String> {
    let has = |state: &PartitionState| matches!(state, PartitionState::Diverged { .. });
    let found = reactions.own().find(|reaction| match &reaction.state {
        ReactionState::Running(status) => status.partitions().iter().any(|one| has(&one.state)),
        _ => false,
    });
    found.map(|reaction| format!("the reaction {}", reaction.name))
}
