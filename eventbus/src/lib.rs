//! tidelog's event bus: the log reader and bus ports with their adapters, the relay, the gate, subscriptions.
//!
//! The log is the truth and the bus a disposable accelerator: a subscription applies an event only when the
//! [`gate()`] says that it is the next one, and reads the log whenever the bus has a hole.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "tests fail loudly"
    )
)]

#[cfg(any(feature = "redis", feature = "nats", feature = "kafka"))]
mod app_name;
mod backoff;
mod bus;
#[cfg(feature = "conformance")]
pub mod conformance;
mod event_stream;
mod failure;
mod feed;
mod gate;
mod group;
mod heads;
mod in_process;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(any(feature = "redis", feature = "nats", feature = "kafka"))]
mod lock;
mod log;
pub mod messaging;
#[cfg(feature = "nats")]
mod nats;
mod operations;
mod outage;
mod parking;
mod reaction;
#[cfg(feature = "redis")]
mod redis_streams;
mod relay;
mod restart;
mod retry;
#[cfg(any(test, feature = "conformance"))]
mod sample;
mod search;
mod signal;
mod start;
mod state;
mod subscription;
mod tail;
mod traces;
pub mod wire;

pub use backoff::Backoff;
pub use bus::{BusError, EventBus};
pub use event_stream::{EventStream, StreamError};
pub use failure::{Classify, Failure, FailureKind, FailurePolicy};
#[cfg(feature = "feed-client")]
pub use feed::{FeedAccess, FeedLogReader};
pub use feed::{FeedCursor, FeedUrl, InvalidFeedUrl};
pub use gate::{Gate, gate};
pub use group::{Share, has_share, to_ask_for};
pub use in_process::InProcessEventBus;
#[cfg(feature = "kafka")]
pub use kafka::{InvalidKafkaBus, KafkaConnectError, KafkaEventBus, KafkaServer};
pub use log::{LogError, LogIdentity, LogReader, StreamReader};
#[cfg(feature = "nats")]
pub use nats::{InvalidNatsBus, NatsConnectError, NatsEventBus, NatsServer};
pub use operations::{
    Answer, Asked, MAX_REASON_CHARS, OperationError, Operations, ParkedEvent, PartitionOverview,
    Skip,
};
pub use parking::{MAX_ERROR_CHARS, Parked, ParkedSequence, ParkedState, Step, Why};
pub use reaction::{Reaction, ReactionDefinition, ReactionHandler, STREAMS_AT_ONCE};
#[cfg(feature = "redis")]
pub use redis_streams::{
    InvalidRedisBus, RedisConnectError, RedisEventBus, RedisInspection, RedisServer,
};
pub use relay::{Relay, RelayOptions, RelayPartition, RelayState, RelayStatus};
pub use restart::{RestartError, restart};
pub use retry::Retry;
pub use search::{EventQuery, Found, LogSearch};
pub use signal::CommitSignal;
pub use start::{Start, StartError};
pub use state::{
    Ask, Checkpoint, Claim, MAX_REQUESTS, MAX_SKIPPED, Pause, Progress, Request, SkippedEvent,
    StateError, StateRecord, StateStore, Trouble, TroubleKind,
};
pub use subscription::{
    CatchUp, CatchUpError, CatchUpProgress, Cause, EventFailure, Handled, Handler, HandlerError,
    HandlerKind, PartitionState, PartitionStatus, Permission, Subscription, SubscriptionEnd,
    SubscriptionOptions, SubscriptionStatus, Throttle,
};
pub use tail::{Tail, TailOptions, TailState, TailStatus};
