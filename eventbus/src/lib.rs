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

mod backoff;
mod bus;
#[cfg(feature = "conformance")]
pub mod conformance;
mod gate;
mod heads;
mod in_process;
mod log;
mod outage;
#[cfg(feature = "redis")]
mod redis_streams;
mod relay;
mod retry;
#[cfg(any(test, feature = "conformance"))]
mod sample;
mod signal;
mod state;
mod subscription;
mod tail;
pub mod wire;

pub use backoff::Backoff;
pub use bus::{BusError, EventBus};
pub use gate::{Gate, gate};
pub use in_process::InProcessEventBus;
pub use log::{LogError, LogIdentity, LogReader};
#[cfg(feature = "redis")]
pub use redis_streams::{InvalidRedisBus, RedisConnectError, RedisEventBus, RedisServer};
pub use relay::{Relay, RelayOptions, RelayPartition, RelayState, RelayStatus};
pub use retry::Retry;
pub use signal::CommitSignal;
pub use state::{Checkpoint, Claim, ParkedSequence, StateError, StateRecord, StateStore};
pub use subscription::{
    CatchUp, CatchUpError, CatchUpProgress, Cause, Handler, HandlerError, PartitionState,
    PartitionStatus, Subscription, SubscriptionEnd, SubscriptionOptions, SubscriptionStatus,
};
pub use tail::{Tail, TailOptions, TailState, TailStatus};
