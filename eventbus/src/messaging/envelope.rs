//! The wire form of a message and of a reply: CloudEvents 1.0 in JSON, structured mode. `docs/messaging.md` says it to other programs.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidelog_domain::Metadata;
use uuid::Uuid;

use super::error::ReplyError;

const SPEC_VERSION: &str = "1.0";

/// The type of a reply that is a value, or the end mark.
const REPLY: &str = "tidelog.reply";

/// The type of a reply that is an error.
const ERROR: &str = "tidelog.error";

/// A message to be written. The attributes that have no value are left out.
#[derive(Serialize)]
struct Written<'a, D> {
    specversion: &'a str,
    id: &'a str,
    source: Source<'a>,
    #[serde(rename = "type")]
    subject: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    correlationid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    causationid: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replyto: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeoutms: Option<u32>,
    data: D,
}

/// `/<app>`, without a copy.
struct Source<'a>(&'a str);

impl Serialize for Source<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("/{}", self.0))
    }
}

/// Who waits for the replies to a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyTo<'a> {
    /// The address of the inbox.
    pub(super) address: &'a str,
    /// How long is waited.
    pub(super) timeout_ms: u32,
}

/// What a message says besides its payload.
pub(super) struct Head<'a> {
    pub(super) app: &'a str,
    pub(super) id: &'a str,
    pub(super) subject: &'a str,
    pub(super) metadata: &'a Metadata,
    pub(super) reply_to: Option<ReplyTo<'a>>,
}

/// Writes a message.
pub(super) fn encode<D: Serialize + ?Sized>(
    head: &Head<'_>,
    data: &D,
) -> Result<Vec<u8>, serde_json::Error> {
    let metadata = head.metadata;
    serde_json::to_vec(&Written {
        specversion: SPEC_VERSION,
        id: head.id,
        source: Source(head.app),
        subject: head.subject,
        correlationid: &metadata.correlation_id,
        causationid: metadata.causation_id,
        actor: metadata.actor.as_deref(),
        tenant: metadata.tenant.as_deref(),
        traceparent: metadata.traceparent.as_deref(),
        replyto: head.reply_to.map(|to| to.address),
        timeoutms: head.reply_to.map(|to| to.timeout_ms),
        data,
    })
}

/// A message that was read. What other programs may leave out has a default.
#[derive(Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) source: Cow<'a, str>,
    #[serde(default)]
    pub(super) correlationid: String,
    #[serde(default)]
    pub(super) causationid: Option<Uuid>,
    #[serde(default)]
    pub(super) actor: Option<String>,
    #[serde(default)]
    pub(super) tenant: Option<String>,
    #[serde(default)]
    pub(super) traceparent: Option<String>,
    #[serde(default)]
    pub(super) replyto: Option<String>,
    #[serde(default)]
    pub(super) timeoutms: Option<u32>,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
}

/// Reads a message.
pub(super) fn decode(text: &[u8]) -> Result<Message<'_>, serde_json::Error> {
    serde_json::from_slice(text)
}

/// The JSON of a payload that is not there.
pub(super) fn or_null(data: Option<&RawValue>) -> &RawValue {
    data.unwrap_or(RawValue::NULL)
}

/// One of the replies to a request.
#[derive(Debug)]
pub(super) struct Reply {
    /// Which request it is to.
    pub(super) request: String,
    /// Which of its replies it is, from 1; where there is only one it need not say so.
    pub(super) sequence: u32,
    /// Whether it is the last one.
    pub(super) last: bool,
    /// The value, none in an end mark; or an error.
    pub(super) content: Result<Option<Box<RawValue>>, ReplyError>,
}

#[derive(Serialize)]
struct WrittenReply<'a, D> {
    specversion: &'a str,
    id: ReplyId<'a>,
    source: Source<'a>,
    #[serde(rename = "type")]
    kind: &'a str,
    requestid: &'a str,
    sequence: u32,
    last: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<D>,
}

/// `<request>:<sequence>`, without a copy.
struct ReplyId<'a>(&'a str, u32);

impl Serialize for ReplyId<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}:{}", self.0, self.1))
    }
}

/// Who replies to what.
#[derive(Clone, Copy)]
pub(super) struct ReplyHead<'a> {
    pub(super) app: &'a str,
    pub(super) request: &'a str,
    pub(super) sequence: u32,
    pub(super) last: bool,
}

/// Writes a reply that is a value, or an end mark.
pub(super) fn encode_reply<D: Serialize + ?Sized>(
    head: ReplyHead<'_>,
    data: Option<&D>,
) -> Result<Vec<u8>, serde_json::Error> {
    written(head, REPLY, data)
}

/// Writes a reply that is an error.
pub(super) fn encode_error(
    head: ReplyHead<'_>,
    error: &ReplyError,
) -> Result<Vec<u8>, serde_json::Error> {
    written(head, ERROR, Some(error))
}

fn written<D: Serialize + ?Sized>(
    head: ReplyHead<'_>,
    kind: &str,
    data: Option<&D>,
) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&WrittenReply {
        specversion: SPEC_VERSION,
        id: ReplyId(head.request, head.sequence),
        source: Source(head.app),
        kind,
        requestid: head.request,
        sequence: head.sequence,
        last: head.last,
        data,
    })
}

/// Reads a reply. What is left out means the one and only reply.
pub(super) fn decode_reply(text: &[u8]) -> Result<Reply, serde_json::Error> {
    #[derive(Deserialize)]
    struct Read<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
        requestid: String,
        #[serde(default = "first")]
        sequence: u32,
        #[serde(default = "yes")]
        last: bool,
        // `null` is a value, and no `data` is none.
        #[serde(borrow, default, deserialize_with = "given")]
        data: Option<&'a RawValue>,
    }
    fn first() -> u32 {
        1
    }
    fn yes() -> bool {
        true
    }
    fn given<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<&'de RawValue>, D::Error> {
        <&RawValue>::deserialize(deserializer).map(Some)
    }
    let read: Read<'_> = serde_json::from_slice(text)?;
    let content = if read.kind == ERROR {
        Err(serde_json::from_str(or_null(read.data).get())?)
    } else {
        Ok(read.data.map(ToOwned::to_owned))
    };
    Ok(Reply {
        request: read.requestid,
        sequence: read.sequence,
        last: read.last,
        content,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let metadata = Metadata {
            correlation_id: "c".to_owned(),
            tenant: Some("acme".to_owned()),
            ..Metadata::default()
        };
        let head = Head {
            app: "shop",
            id: "m-1",
            subject: "order.placed",
            metadata: &metadata,
            reply_to: Some(ReplyTo {
                address: "{shop:replies:1}",
                timeout_ms: 5_000,
            }),
        };
        let text = encode(&head, &serde_json::json!({"n": [1, [null]]})).unwrap();
        assert_eq!(
            String::from_utf8(text.clone()).unwrap(),
            r#"{"specversion":"1.0","id":"m-1","source":"/shop","type":"order.placed","correlationid":"c","tenant":"acme","replyto":"{shop:replies:1}","timeoutms":5000,"data":{"n":[1,[null]]}}"#
        );
        let read = decode(&text).unwrap();
        assert_eq!((&*read.id, read.timeoutms), ("m-1", Some(5_000)));
        assert_eq!(read.data.unwrap().get(), r#"{"n":[1,[null]]}"#);
    }

    #[test]
    fn a_message_needs_no_more_than_an_id() {
        let read = decode(br#"{"id":"a","sOmething":1}"#).unwrap();
        assert_eq!(or_null(read.data).get(), "null");
        assert!(decode(b"{}").is_err() && decode(b"").is_err());
    }

    #[test]
    fn a_reply_of_null_is_told_from_an_end_mark() {
        let head = ReplyHead {
            app: "shop",
            request: "m-1",
            sequence: 2,
            last: false,
        };
        let value = encode_reply(head, Some(&())).unwrap();
        let value = decode_reply(&value).unwrap();
        assert_eq!((value.sequence, value.last), (2, false));
        assert_eq!(value.content.unwrap().unwrap().get(), "null");
        let end = encode_reply::<()>(ReplyHead { last: true, ..head }, None).unwrap();
        let end = decode_reply(&end).unwrap();
        assert!(end.last && end.content.unwrap().is_none());
    }

    #[test]
    fn a_reply_that_says_little_is_the_only_one() {
        let text = br#"{"type":"tidelog.reply","requestid":"m-1","data":"abc"}"#;
        let reply = decode_reply(text).unwrap();
        assert_eq!((reply.sequence, reply.last), (1, true));
        assert_eq!(reply.content.unwrap().unwrap().get(), "\"abc\"");
        let text = br#"{"type":"tidelog.error","requestid":"m-1","data":{"code":"no"}}"#;
        let error = decode_reply(text).unwrap().content.unwrap_err();
        assert_eq!(error, ReplyError::new("no", ""));
    }
}
