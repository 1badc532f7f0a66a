//! What is told of subscriptions: by the library as values, on the admin listener as JSON.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidelog_domain::{Partition, RecordedEvent};
use tidelog_eventbus::{
    Answer, ParkedEvent, ParkedSequence, ParkedState, PartitionOverview, PartitionState,
    PartitionStatus, SkippedEvent, TroubleKind,
};

use super::STALL_PATIENCE;

/// What a subscription does with events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SubscriptionKind {
    /// It folds them into the documents of a view.
    View,
    /// It reacts to them.
    Reaction,
}

impl SubscriptionKind {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Reaction => "reaction",
        }
    }
}

/// A subscription, and how far it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SubscriptionEntry {
    /// Its name: the view's, or the reaction's.
    pub name: String,
    /// What it does with events.
    pub kind: SubscriptionKind,
    /// Why its records or its log cannot be read now, where that is so; then only what this process itself knows is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Its partitions, ascending; empty while nobody has begun with it.
    pub partitions: Vec<PartitionEntry>,
}

/// What a partition of a subscription is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum WorkState {
    /// It has handled all that there is.
    Live,
    /// It is behind, and reads the log.
    CatchingUp,
    /// It has not begun.
    Starting,
    /// An operator has paused it, or a replay for a moment.
    Paused,
    /// Nobody works on it.
    Unowned,
    /// Something is unavailable; it is tried again, without end.
    BackingOff,
    /// As many sequences are set aside as may be: it waits until some are retried or skipped.
    Full,
    /// It waits at an event that cannot be handled, and of which cannot be told what it belongs to.
    Failed,
    /// The log was restored or replaced.
    HistoryChanged,
}

impl WorkState {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::CatchingUp => "catching-up",
            Self::Starting => "starting",
            Self::Paused => "paused",
            Self::Unowned => "unowned",
            Self::BackingOff => "backing-off",
            Self::Full => "full",
            Self::Failed => "failed",
            Self::HistoryChanged => "history-changed",
        }
    }

    /// What a process itself says that works on it; `None` where it leaves that to another, or has ended.
    #[must_use]
    pub(crate) fn told(state: &PartitionState) -> Option<(Self, Option<String>)> {
        Some(match state {
            PartitionState::Starting => (Self::Starting, None),
            PartitionState::Live => (Self::Live, None),
            PartitionState::CatchingUp => (Self::CatchingUp, None),
            PartitionState::BackingOff { reason, .. } => (Self::BackingOff, Some(reason.clone())),
            PartitionState::Paused => (Self::Paused, None),
            PartitionState::Full { parked, max } => {
                let reason = format!("{parked} sequences are set aside, of {max} that may be");
                (Self::Full, Some(reason))
            }
            PartitionState::Failed {
                position, reason, ..
            } => (
                Self::Failed,
                Some(format!("at position {position}: {reason}")),
            ),
            PartitionState::Diverged { .. } | PartitionState::HistoryChanged { .. } => {
                let reason = "the log was restored or replaced".to_owned();
                (Self::HistoryChanged, Some(reason))
            }
            _ => return None,
        })
    }
}

/// One partition of a subscription.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PartitionEntry {
    /// Its number.
    pub partition: u16,
    /// What it is doing, as far as its record tells; more exactly where it runs in the process that is asked.
    pub state: WorkState,
    /// Why, where there is a reason: the error, or why it was paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether it is behind and has not come any further for five seconds, though nobody has paused it.
    pub stalled: bool,
    /// The process that works on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The log's last position.
    pub head: u64,
    /// The last position that was handled, set aside or passed over.
    pub checkpoint: u64,
    /// How many events it is behind.
    pub lag_events: u64,
    /// How old the oldest event is that is not handled, in seconds; 0 where there is none.
    pub lag_seconds: f64,
    /// How long ago its record was seen to change, in seconds, where the process that is asked runs the subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_seconds: Option<f64>,
    /// How many sequences are set aside.
    pub parked: usize,
    /// How many requests of operators are not done yet.
    pub requests: usize,
    /// Since when it is paused by an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_since: Option<DateTime<Utc>>,
    /// Whether it is to be watched whether it moves: only its record is known here.
    #[serde(skip)]
    is_watched: bool,
}

impl SubscriptionEntry {
    /// How many events it is behind, over all partitions.
    #[must_use]
    pub fn lag_events(&self) -> u64 {
        self.partitions.iter().map(|own| own.lag_events).sum()
    }

    /// How old the oldest event is that is not handled, in seconds.
    #[must_use]
    pub fn lag_seconds(&self) -> f64 {
        let lags = self.partitions.iter().map(|own| own.lag_seconds);
        lags.fold(0.0, f64::max)
    }

    /// How many sequences are set aside.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.partitions.iter().map(|own| own.parked).sum()
    }

    /// Whether a partition is stalled.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.partitions.iter().any(|own| own.stalled)
    }

    /// Whether that is to be found out by watching.
    pub(super) fn may_stand_still(&self) -> bool {
        self.partitions.iter().any(|own| own.is_watched)
    }

    /// Does not watch any longer what has moved since it was as it `begun`.
    pub(super) fn compare(&mut self, begun: &[Self]) {
        let Some(begun) = begun.iter().find(|begun| begun.name == self.name) else {
            return;
        };
        for own in &mut self.partitions {
            let mut all = begun.partitions.iter();
            let before = all.find(|before| before.partition == own.partition);
            own.is_watched &= before
                .is_some_and(|before| before.is_watched && before.checkpoint == own.checkpoint);
        }
    }

    /// What was watched in vain is stalled.
    pub(super) fn conclude(&mut self) {
        for own in &mut self.partitions {
            own.stalled |= own.is_watched;
        }
    }
}

impl PartitionEntry {
    /// What the record and the log say, and, where the subscription runs here, its status.
    pub(super) fn of(
        overview: &PartitionOverview,
        here: &[PartitionStatus],
        now: DateTime<Utc>,
    ) -> Self {
        let here = here.iter().find(|own| own.partition == overview.partition);
        let (state, reason) = state_of(overview, here);
        let record = overview.record.as_ref();
        let lag_time = overview.lag_time(now);
        let may_stall = overview.lag() > 0 && state != WorkState::Paused;
        Self {
            partition: overview.partition.number(),
            state,
            reason,
            stalled: here.is_some_and(|own| own.is_stalled(STALL_PATIENCE)),
            owner: record.and_then(|record| record.owner.clone()),
            head: overview.head.number(),
            checkpoint: overview.checkpoint().number(),
            lag_events: overview.lag(),
            lag_seconds: lag_time.as_secs_f64(),
            heartbeat_seconds: here
                .and_then(|own| own.heartbeat)
                .map(|at| at.elapsed().as_secs_f64()),
            parked: record.map_or(0, |record| record.parked.len()),
            requests: record.map_or(0, |record| record.requests.len()),
            paused_since: record.and_then(|record| Some(record.pause.as_ref()?.since)),
            is_watched: here.is_none() && may_stall && lag_time >= STALL_PATIENCE,
        }
    }
}

impl PartitionEntry {
    /// What this process itself knows of a partition whose record cannot be read.
    pub(super) fn of_status(status: &PartitionStatus, now: DateTime<Utc>) -> Self {
        let told = WorkState::told(&status.state);
        // Another process works on it, or did.
        let (state, reason) = told.unwrap_or((WorkState::Unowned, None));
        Self {
            partition: status.partition.number(),
            state,
            reason,
            stalled: status.is_stalled(STALL_PATIENCE),
            owner: status.owner.clone(),
            head: status.head.number(),
            checkpoint: status.cursor.position.number(),
            lag_events: status.lag(),
            lag_seconds: status.lag_time(now).as_secs_f64(),
            heartbeat_seconds: status.heartbeat.map(|at| at.elapsed().as_secs_f64()),
            parked: status.parked.len(),
            requests: 0,
            paused_since: None,
            is_watched: false,
        }
    }
}

/// What a partition is doing: what its process says, where that is this one; else what the record tells.
fn state_of(
    overview: &PartitionOverview,
    here: Option<&PartitionStatus>,
) -> (WorkState, Option<String>) {
    let Some(record) = &overview.record else {
        return (WorkState::Starting, None);
    };
    if overview.is_of_other_history() {
        let reason = "the log has another history".to_owned();
        return (WorkState::HistoryChanged, Some(reason));
    }
    if record.is_paused() {
        let reason = record.pause.as_ref().map(|pause| pause.reason.clone());
        return (
            WorkState::Paused,
            reason.filter(|reason| !reason.is_empty()),
        );
    }
    // What this process says of a pause is older than the record.
    let told = here.and_then(|own| WorkState::told(&own.state));
    match told.filter(|(state, _)| *state != WorkState::Paused) {
        Some(told) => told,
        None if record.owner.is_none() => (WorkState::Unowned, None),
        None if let Some(trouble) = &record.trouble => {
            let state = match trouble.kind {
                TroubleKind::Full => WorkState::Full,
                TroubleKind::Failed => WorkState::Failed,
                _ => WorkState::BackingOff,
            };
            (state, Some(trouble.reason.clone()))
        }
        None if overview.lag() > 0 => (WorkState::CatchingUp, None),
        None => (WorkState::Live, None),
    }
}

/// What a sequence that is set aside waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SequenceState {
    /// Its next try, which comes by itself.
    Retrying,
    /// An operator.
    Parked,
    /// Another sequence.
    Waiting,
}

impl SequenceState {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retrying => "retrying",
            Self::Parked => "parked",
            Self::Waiting => "waiting",
        }
    }
}

/// A sequence that is set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ParkedEntry {
    /// The subscription.
    pub subscription: String,
    /// Where.
    pub partition: u16,
    /// The sequence: a document's id for a view, a stream for a reaction.
    pub sequence: String,
    /// What it waits for.
    pub state: SequenceState,
    /// The sequence that it waits behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<String>,
    /// The first event that waits.
    pub first: u64,
    /// The last event that was seen to wait.
    pub last: u64,
    /// How often the first was tried.
    pub attempts: u32,
    /// Why: the error and its causes.
    pub error: String,
    /// Since when.
    pub since: DateTime<Utc>,
}

impl ParkedEntry {
    pub(super) fn of(subscription: &str, partition: Partition, parked: ParkedSequence) -> Self {
        let (state, behind) = match parked.state {
            ParkedState::Retrying => (SequenceState::Retrying, None),
            ParkedState::Waiting { behind } => (SequenceState::Waiting, Some(behind)),
            _ => (SequenceState::Parked, None),
        };
        Self {
            subscription: subscription.to_owned(),
            partition: partition.number(),
            sequence: parked.sequence,
            state,
            behind,
            first: parked.first.number(),
            last: parked.last.number(),
            attempts: parked.attempts,
            error: parked.error,
            since: parked.since,
        }
    }
}

/// A sequence that is set aside, with the event that it waits at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ParkedEventEntry {
    /// The sequence.
    #[serde(flatten)]
    pub parked: ParkedEntry,
    /// The event; missing where the log has none there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<ShownEvent>,
}

/// An event, without its payload unless that was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ShownEvent {
    /// Its id.
    pub id: String,
    /// Its stored name.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The version of the payload's shape.
    pub schema_version: u32,
    /// The stream.
    pub stream: String,
    /// Its version in the stream.
    pub version: u64,
    /// Its position in the partition.
    pub position: u64,
    /// When it was recorded, by the log's clock.
    pub recorded_at: DateTime<Utc>,
    /// Why it happened; a text where what is stored is not JSON.
    pub metadata: Value,
    /// How many bytes the payload has.
    pub payload_bytes: usize,
    /// The event itself, where it was asked for; a text where what is stored is not JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
}

impl ParkedEventEntry {
    pub(super) fn of(subscription: &str, shown: ParkedEvent, with_payload: bool) -> Self {
        let event = shown.event.as_ref();
        Self {
            event: event.map(|event| ShownEvent::of(event, with_payload)),
            parked: ParkedEntry::of(subscription, shown.partition, shown.parked),
        }
    }
}

impl ShownEvent {
    fn of(event: &RecordedEvent, with_payload: bool) -> Self {
        Self {
            id: event.id.to_string(),
            event_type: event.event_type.to_string(),
            schema_version: event.schema_version,
            stream: event.stream.to_string(),
            version: event.version.number(),
            position: event.position.number(),
            recorded_at: event.recorded_at,
            metadata: json_or_text(event.metadata.as_bytes()),
            payload_bytes: event.payload.as_bytes().len(),
            payload: with_payload.then(|| json_or_text(event.payload.as_bytes())),
        }
    }
}

/// What is stored, as JSON if it is.
fn json_or_text(stored: &[u8]) -> Value {
    let json = serde_json::from_slice(stored);
    json.unwrap_or_else(|_| Value::String(String::from_utf8_lossy(stored).into_owned()))
}

/// An event that was skipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SkippedEntry {
    /// The subscription.
    pub subscription: String,
    /// Where.
    pub partition: u16,
    /// Where in the partition.
    pub position: u64,
    /// The sequences that it belongs to.
    pub sequences: Vec<String>,
    /// Why.
    pub reason: String,
    /// When.
    pub at: DateTime<Utc>,
}

impl SkippedEntry {
    pub(super) fn of(subscription: &str, partition: Partition, skipped: SkippedEvent) -> Self {
        Self {
            subscription: subscription.to_owned(),
            partition: partition.number(),
            position: skipped.position.number(),
            sequences: skipped.sequences,
            reason: skipped.reason,
            at: skipped.at,
        }
    }
}

/// What has come of a retry or a skip in one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Outcome {
    /// Where.
    pub partition: u16,
    /// Whether it is done. What is not yet, will be: the request is kept.
    pub done: bool,
    /// The process that is to do it; `None` when nobody works on the partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Whether the subscription is paused, so that nobody does it.
    pub paused: bool,
    /// What is set aside still, or again, of what was asked for: empty when all of it goes on.
    pub parked: Vec<ParkedEntry>,
}

impl Outcome {
    pub(super) fn of(subscription: &str, answer: Answer) -> Self {
        let partition = answer.partition;
        let parked = answer.parked.into_iter();
        Self {
            partition: partition.number(),
            done: answer.is_done,
            owner: answer.owner,
            paused: answer.is_paused,
            parked: parked
                .map(|own| ParkedEntry::of(subscription, partition, own))
                .collect(),
        }
    }
}
