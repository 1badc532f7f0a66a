//! What a decision may know besides the state: time, identities, who asks.

use std::sync::atomic::{AtomicU32, Ordering};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::event::Metadata;

/// What comes into a decision from outside, so that the decision itself is pure.
#[derive(Debug)]
pub struct Context {
    command_id: Uuid,
    now: DateTime<Utc>,
    metadata: Metadata,
    ids: AtomicU32,
}

impl Context {
    /// The context of the command `command_id`, decided at `now`.
    #[must_use]
    pub const fn new(command_id: Uuid, now: DateTime<Utc>, metadata: Metadata) -> Self {
        Self {
            command_id,
            now,
            metadata,
            ids: AtomicU32::new(0),
        }
    }

    /// The command's identity: what its events name as their cause.
    #[must_use]
    pub const fn command_id(&self) -> Uuid {
        self.command_id
    }

    /// The time of the decision.
    #[must_use]
    pub const fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// Correlation, actor, tenant and trace of the command.
    #[must_use]
    pub const fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Who asks; `None` where nobody signed in.
    #[must_use]
    pub fn actor(&self) -> Option<&str> {
        self.metadata.actor.as_deref()
    }

    /// For whom it is asked; `None` without tenancy.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.metadata.tenant.as_deref()
    }

    /// A new identity: the n-th call gives the same one each time the same command is decided.
    #[must_use]
    pub fn new_id(&self) -> Uuid {
        let n = self.ids.fetch_add(1, Ordering::Relaxed);
        Uuid::new_v5(&self.command_id, &n.to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_that_is_made_again_gets_the_same_ids() {
        let context = || {
            Context::new(
                Uuid::from_u128(7),
                DateTime::UNIX_EPOCH,
                Metadata::default(),
            )
        };
        let (first, again) = (context(), context());
        let ids = [first.new_id(), first.new_id()];
        assert_eq!(ids, [again.new_id(), again.new_id()]);
        assert_ne!(ids[0], ids[1]);
    }
}
