//! Dead letters, for operators.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::bus::{DeadEntry, EntryId, MessageBus};
use super::envelope;
use super::error::MessageBusError;
use super::names::{Channel, Group, InvalidName};

/// The messages that a group could not handle. They stay until somebody has them retried or discards them.
#[derive(Clone)]
pub struct DeadLetters {
    bus: Arc<dyn MessageBus>,
    group: Group,
    channel: Channel,
}

/// A message that could not be handled.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Where it is: what it is retried and discarded by.
    pub entry: EntryId,
    /// The message's id, where it has one.
    pub id: Option<String>,
    /// The payload's JSON, where the message can be read; else the message as it is.
    pub payload: String,
    /// Why the last try failed.
    pub error: String,
    /// After how many tries.
    pub attempts: u32,
    /// Since when, by the bus' clock.
    pub since: DateTime<Utc>,
}

impl DeadLetters {
    pub(super) fn new(
        bus: Arc<dyn MessageBus>,
        group: &str,
        channel: Channel,
    ) -> Result<Self, InvalidName> {
        let group = Group::new(group)?;
        Ok(Self {
            bus,
            group,
            channel,
        })
    }

    /// The oldest of them, those after `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`MessageBusError`].
    pub async fn list(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, MessageBusError> {
        let listed = self
            .bus
            .dead_letters(&self.group, &self.channel, after, limit);
        Ok(listed.await?.into_iter().map(letter).collect())
    }

    /// Has one handled again by this group, from its first try, with the id that it has; whether it was there.
    ///
    /// # Errors
    ///
    /// [`MessageBusError`].
    pub async fn retry(&self, entry: &EntryId) -> Result<bool, MessageBusError> {
        self.bus.retry_dead(&self.group, &self.channel, entry).await
    }

    /// Throws one away for good; whether it was there.
    ///
    /// # Errors
    ///
    /// [`MessageBusError`].
    pub async fn discard(&self, entry: &EntryId) -> Result<bool, MessageBusError> {
        self.bus
            .discard_dead(&self.group, &self.channel, entry)
            .await
    }
}

fn letter(dead: DeadEntry) -> DeadLetter {
    let (id, payload) = match envelope::decode(&dead.body) {
        Ok(message) => (
            Some(message.id.into_owned()),
            envelope::or_null(message.data).get().to_owned(),
        ),
        Err(_) => (None, String::from_utf8_lossy(&dead.body).into_owned()),
    };
    let since = i64::try_from(dead.since_ms).ok();
    DeadLetter {
        entry: dead.entry,
        id,
        payload,
        error: dead.error,
        attempts: dead.attempts,
        since: since
            .and_then(DateTime::from_timestamp_millis)
            .unwrap_or_default(),
    }
}
