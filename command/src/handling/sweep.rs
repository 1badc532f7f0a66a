//! The sweep: idempotency keys that are too old are forgotten, a few at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::EventStore;

/// How long a key is kept at least: 24 hours. After that a sweep may forget it, and the same request is a new one.
pub const KEYS_KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The pause between sweeps, on average.
const INTERVAL: Duration = Duration::from_secs(60);

/// The pause between two batches of one sweep, so that appends have the log to themselves most of the time.
const PAUSE: Duration = Duration::from_millis(50);

/// How many keys are forgotten at once.
const BATCH: usize = 500;

/// How many batches a sweep has at most.
const MAX_BATCHES: usize = 10_000;

/// Sweeps until `stop`. Any number of processes may.
pub(super) async fn run(store: Arc<dyn EventStore>, stop: CancellationToken) {
    loop {
        // Random, so that processes that were started together do not sweep together.
        let pause = INTERVAL.mul_f64(0.5 + rand::random::<f64>());
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sweep(store.as_ref(), KEYS_KEPT_FOR, BATCH) => {}
        }
    }
}

/// Forgets all keys that are older than `age`, `batch` at a time. What fails is left to the next sweep.
async fn sweep(store: &dyn EventStore, age: Duration, batch: usize) {
    let mut forgotten = 0;
    for _ in 0..MAX_BATCHES {
        match store.forget_keys(age, batch).await {
            Ok(count) => {
                forgotten += count;
                if count < batch {
                    break;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "old idempotency keys could not be forgotten; the next sweep tries again");
                break;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    if forgotten > 0 {
        tracing::debug!(forgotten, "forgot old idempotency keys");
    }
}

#[cfg(test)]
mod tests {
    use tidelog_domain::{Append, ExpectedVersion, IdempotencyKey, StreamId};

    use super::*;
    use crate::store::InMemoryEventStore;

    #[tokio::test(start_paused = true)]
    async fn a_sweep_forgets_all_that_is_old_and_nothing_else() {
        let store = InMemoryEventStore::default();
        let check = |n: u8| {
            let stream = StreamId::new("thing", "1").unwrap();
            let key = IdempotencyKey {
                scoped: [n; 32],
                fingerprint: [1; 32],
            };
            Append::one(stream, ExpectedVersion::NoStream, Vec::new()).with_key(key)
        };
        let batch: Vec<Append> = (0..7).map(check).collect();
        let known = async || {
            let verdicts = store.append(0, batch.clone().into()).await;
            verdicts.iter().filter(|verdict| verdict.is_err()).count()
        };
        assert_eq!(known().await, 0);
        sweep(&store, KEYS_KEPT_FOR, 2).await;
        assert_eq!(known().await, 7);
        sweep(&store, Duration::ZERO, 2).await;
        assert_eq!(known().await, 0);
    }
}
