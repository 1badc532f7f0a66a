//! The header field of an entry.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidelog_domain::Metadata;
use uuid::Uuid;

/// The field that has it.
pub(super) const HEADER: &str = "x-nestjs-redis-stream-header";

/// What an entry says besides its payload. The transport reads the first two, and passes over the third.
#[derive(Debug, Default, Serialize)]
pub(super) struct Header {
    #[serde(rename = "correlationId", skip_serializing_if = "Option::is_none")]
    pub(super) correlation_id: Option<String>,
    #[serde(rename = "isArray", skip_serializing_if = "is_no")]
    pub(super) is_array: bool,
    pub(super) tidelog: Own,
}

/// What only this library writes, and reads.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Own {
    /// The id of a message that nobody waits for a reply to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    /// The one group that it is for: it was a dead letter of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timeoutms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reply: Option<ReplyKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) correlationid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) causationid: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) actor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) traceparent: Option<String>,
}

/// What a reply is that the form has no way to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ReplyKind {
    /// `null`: the entry has no fields.
    Null,
    /// An error: the entry has the field `error`.
    Error,
}

fn is_no(flag: &bool) -> bool {
    !flag
}

impl Header {
    /// Reads what is of the right type, as the transport does, which looks at nothing else.
    pub(super) fn read(text: &[u8]) -> Self {
        let mut read: Value = serde_json::from_slice(text).unwrap_or_default();
        let own = read.get_mut("tidelog").map(Value::take);
        Self {
            correlation_id: read
                .get("correlationId")
                .and_then(Value::as_str)
                .map(ToOwned::to_owned),
            is_array: read.get("isArray").and_then(Value::as_bool) == Some(true),
            tidelog: own
                .and_then(|own| serde_json::from_value(own).ok())
                .unwrap_or_default(),
        }
    }
}

impl Own {
    /// The metadata that it has.
    pub(super) fn metadata(&self) -> Metadata {
        Metadata {
            correlation_id: self.correlationid.clone().unwrap_or_default(),
            causation_id: self.causationid,
            actor: self.actor.clone(),
            tenant: self.tenant.clone(),
            traceparent: self.traceparent.clone(),
            key_id: None,
        }
    }
}
