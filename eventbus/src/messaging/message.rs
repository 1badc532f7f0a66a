//! What a sender says about a message, and what a handler sees of it.

use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::Metadata;
use tokio::time::Instant;

use super::names::{Channel, MessageId};

/// How long a request waits for its reply, unless it says otherwise: 5 s.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// What a sender says about one message.
#[derive(Clone, Debug, Default)]
pub struct MessageOptions {
    /// Its id; a unique one unless given.
    pub id: Option<MessageId>,
    /// Tenant, actor, correlation, cause and trace. Without a `traceparent` it belongs to the trace of the sender's span.
    pub metadata: Metadata,
    /// For a request: how long its caller waits for the reply, and how long it may be begun with. For a stream of values: how long
    /// for the next one. [`SEND_TIMEOUT`] unless given; at most 24 days.
    pub timeout: Option<Duration>,
}

impl MessageOptions {
    /// With this id.
    #[must_use]
    pub fn id(mut self, id: MessageId) -> Self {
        self.id = Some(id);
        self
    }

    /// With this metadata.
    #[must_use]
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// With this time-out.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// What a handler sees of a message besides its payload. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MessageContext(pub(super) Arc<Context>);

#[derive(Debug)]
pub(super) struct Context {
    pub(super) id: MessageId,
    pub(super) source: String,
    pub(super) channel: Channel,
    pub(super) metadata: Metadata,
    pub(super) attempt: u32,
    /// The inbox of who waits for a reply, and until when that is.
    pub(super) reply_to: Option<(String, Instant)>,
}

impl MessageContext {
    /// The message's id: the same at every try, and where it was sent twice. The sender chooses it: of two messages it may be the same where
    /// their sources or subjects are not.
    #[must_use]
    pub fn id(&self) -> &MessageId {
        &self.0.id
    }

    /// Who sent it, as the sender says: `/<app>` of one with this library; empty where it does not say.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Its subject, and the shard.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.0.channel
    }

    /// Tenant, actor, correlation, cause and trace, as the sender says.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// Which try this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// Whether somebody waits for the reply.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.0.reply_to.is_some()
    }

    /// How much longer that is.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let (_, deadline) = self.0.reply_to.as_ref()?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }
}
