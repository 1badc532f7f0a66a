//! The alarm when a subscription stands still: a line in the log when it begins, and one when it goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tidelog_eventbus::{PartitionStatus, SubscriptionStatus};
use tidelog_query::LiveViews;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::waits::Waits;
use crate::subscriptions::{STALL_PATIENCE, Subscriptions, WorkState};

/// How often it looks: with the patience before, an alarm comes within ten seconds.
const INTERVAL: Duration = Duration::from_secs(1);

// What is promised: an alarm comes within ten seconds, with the second in which a head or a checkpoint is heard of.
const _: () = assert!(STALL_PATIENCE.as_secs() + INTERVAL.as_secs() < 10);

/// Watches the subscriptions that run in this process, and the `views` that it cannot run one for, until `stop`.
pub(super) async fn watch(subscriptions: Subscriptions, views: LiveViews, stop: CancellationToken) {
    let mut alarms = Alarms::default();
    let mut waits = Waits::default();
    while stop.run_until_cancelled(sleep(INTERVAL)).await.is_some() {
        let running = subscriptions.running().into_iter();
        let running = running.map(|(name, _, status)| (name, status));
        for change in alarms.look(running) {
            change.tell();
        }
        for change in waits.look(views.states(), Instant::now()) {
            change.tell();
        }
    }
}

/// The alarms that are on, by subscription.
#[derive(Default)]
struct Alarms(BTreeMap<String, Alarm>);

struct Alarm {
    since: Instant,
    /// What was told: each way of standing still once.
    told: BTreeSet<Option<WorkState>>,
}

/// What has changed.
#[derive(Debug)]
enum Change {
    Stalled(Stalled),
    GoesOn {
        subscription: String,
        after: Duration,
    },
}

/// Partitions of a subscription that stand still in the same way.
#[derive(Debug)]
struct Stalled {
    subscription: String,
    /// What they are doing; `None` where another process works on them.
    state: Option<WorkState>,
    partitions: Vec<u16>,
    events: u64,
    lag_time: Duration,
    /// The first reason that there is.
    reason: Option<String>,
    /// Who works on the first of them.
    owner: Option<String>,
}

impl Alarms {
    /// What has changed since the last look. A subscription that does not run here any more has no alarm.
    fn look(&mut self, running: impl Iterator<Item = (String, SubscriptionStatus)>) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut seen = BTreeSet::new();
        for (name, status) in running {
            seen.insert(name.clone());
            let stalled = by_state(&name, &status.partitions(), Utc::now());
            if stalled.is_empty() {
                if let Some(alarm) = self.0.remove(&name) {
                    changes.push(Change::GoesOn {
                        subscription: name,
                        after: alarm.since.elapsed(),
                    });
                }
                continue;
            }
            let alarm = self.0.entry(name).or_insert_with(|| Alarm {
                since: Instant::now(),
                told: BTreeSet::new(),
            });
            let new = stalled.into_values();
            changes.extend(
                new.filter(|own| alarm.told.insert(own.state))
                    .map(Change::Stalled),
            );
        }
        self.0.retain(|name, _| seen.contains(name));
        changes
    }
}

/// The partitions that stand still, by what they are doing.
fn by_state(
    name: &str,
    partitions: &[PartitionStatus],
    now: DateTime<Utc>,
) -> BTreeMap<Option<WorkState>, Stalled> {
    let mut stalled: BTreeMap<_, Stalled> = BTreeMap::new();
    for own in partitions
        .iter()
        .filter(|own| own.is_stalled(STALL_PATIENCE))
    {
        let (state, reason) = WorkState::told(&own.state).unzip();
        let of_state = stalled.entry(state).or_insert_with(|| Stalled {
            subscription: name.to_owned(),
            state,
            partitions: Vec::new(),
            events: 0,
            lag_time: Duration::ZERO,
            reason: reason.flatten(),
            owner: own.owner.clone(),
        });
        of_state.partitions.push(own.partition.number());
        of_state.events = of_state.events.saturating_add(own.lag());
        of_state.lag_time = of_state.lag_time.max(own.lag_time(now));
    }
    stalled
}

impl Change {
    fn tell(&self) {
        match self {
            Self::Stalled(stalled) => {
                let Stalled {
                    subscription,
                    partitions,
                    events,
                    ..
                } = stalled;
                tracing::error!(
                    subscription,
                    ?partitions,
                    events_behind = events,
                    seconds_behind = stalled.lag_time.as_secs(),
                    state = stalled.state.map_or("standby", WorkState::name),
                    reason = stalled.reason,
                    owner = stalled.owner,
                    "a subscription is stalled: {}",
                    stalled.advice()
                );
            }
            Self::GoesOn {
                subscription,
                after,
            } => tracing::info!(
                subscription,
                stalled_seconds = after.as_secs(),
                "the subscription goes on"
            ),
        }
    }
}

impl Stalled {
    /// What to do about it.
    fn advice(&self) -> &'static str {
        match self.state {
            Some(WorkState::BackingOff) => {
                "what it needs is unavailable (see the reason): bring that back, and it goes on by itself"
            }
            Some(WorkState::Full) => {
                "too much is set aside: see what with `parked`, mend the cause, then `parked retry` or `parked skip`"
            }
            Some(WorkState::Failed) => {
                "an event cannot be handled, nor be told what it belongs to (see the reason): mend the code that handles it"
            }
            Some(WorkState::HistoryChanged) => {
                "the log was restored or replaced: stop the services, then run `doctor --new-history`"
            }
            Some(WorkState::Starting) => "its state records cannot be read: look at their database",
            Some(_) => {
                "what handles its events does not come to an end: look at what that waits for, or start this process again"
            }
            None if self.owner.is_some() => {
                "another process works on it (see owner): look at its log; if it is gone, another takes over in seconds"
            }
            None => "nobody works on it: start a process with the role eventbus",
        }
    }
}
