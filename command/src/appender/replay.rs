//! A command that was done before, under the same key: its first answer, made again from the log.

use std::sync::Arc;

use tidelog_domain::{Partitions, Version};

use crate::store::{EventStore, Recorded};

use super::cache::{Held, StateCache};
use super::error::CommandError;
use super::load;
use super::work::{Outcome, StreamOutcome, Target};

/// What is needed to answer again.
pub(super) struct Replay {
    pub(super) targets: Vec<Target>,
    pub(super) recorded: Recorded,
}

/// What rebuilds answers: the log, and the states that are at hand.
#[derive(Clone)]
pub(super) struct Replayer {
    pub(super) store: Arc<dyn EventStore>,
    pub(super) partitions: Partitions,
    pub(super) cache: StateCache,
}

impl Replayer {
    /// The outcome that `replay` had the first time. It is made in the task of whoever asks: no lane waits for it.
    pub(super) async fn outcome(&self, replay: Replay) -> Result<Outcome, CommandError> {
        let Replay { targets, recorded } = replay;
        let mut streams = Vec::with_capacity(targets.len());
        if targets.len() != recorded.streams.len() {
            return Err(other_streams());
        }
        for (target, (stream, version)) in targets.into_iter().zip(recorded.streams) {
            if target.stream != stream {
                return Err(other_streams());
            }
            let held = self.state_at(&target, version).await?;
            streams.push(StreamOutcome {
                partition: stream.partition(self.partitions),
                stream,
                version,
                position: held.position,
                state: held.state,
            });
        }
        Ok(Outcome {
            streams,
            appended: recorded.appended,
            replayed: true,
        })
    }

    /// The state of `target` when it was at `version`.
    async fn state_at(&self, target: &Target, version: Version) -> Result<Held, CommandError> {
        match self.cache.get(&target.stream) {
            Some(held) if held.version == version => Ok(held),
            _ => load::at(target, version, self.store.as_ref()).await,
        }
    }
}

/// The request is the same, and so must be its streams.
fn other_streams() -> CommandError {
    CommandError::Corrupt {
        what: "an idempotency key is recorded with other streams than its request has".to_owned(),
    }
}
