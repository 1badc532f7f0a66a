//! Messages and replies as entries in the form of NestJS: one field for each key of an object, or each place of an array, and a header.

use std::borrow::Cow;
use std::fmt;

use redis::{Cmd, Value};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use super::header::{HEADER, Header, Own, ReplyKind};
use super::{MAX_RESPONSES, NestPatterns, RESPONSES};
use crate::messaging::envelope::{self, Head, Message, ReplyHead, ReplyTo};
use crate::messaging::error::{MessageBusError, ReplyError};
use crate::messaging::names::{Channel, Group};

/// The field of a reply that is an error.
const ERROR: &str = "error";

/// The code of an error that says that the handler's reply cannot be carried.
const UNFIT: &str = "unfit";

/// The source that a message from there names.
const SOURCE: &str = "nestjs";

/// What ids are made in that are made of a message's place.
const IDS: Uuid = Uuid::from_u128(0x6d0f_5a1e_7b0c_4c55_9d0e_2f6a_94d1_83b7);

/// The form, as the bus on Redis has it.
pub(in crate::messaging) struct NestForm {
    patterns: NestPatterns,
}

/// A message that was read: in our form, and the one group that it is for.
pub(in crate::messaging) struct Read {
    pub(in crate::messaging) body: Vec<u8>,
    pub(in crate::messaging) only: Option<String>,
}

impl NestForm {
    pub(in crate::messaging) fn new(patterns: NestPatterns) -> Self {
        Self { patterns }
    }

    /// The stream of a channel.
    pub(in crate::messaging) fn key(&self, channel: &Channel) -> String {
        self.patterns.key(channel)
    }

    /// Adds the fields of a message in our form to `xadd`.
    ///
    /// # Errors
    ///
    /// [`MessageBusError::Unfit`].
    pub(in crate::messaging) fn write(
        &self,
        xadd: &mut Cmd,
        message: &[u8],
        only: Option<&Group>,
    ) -> Result<(), MessageBusError> {
        let message = envelope::decode(message).map_err(MessageBusError::unfit)?;
        let fields = Fields::of(envelope::or_null(message.data))?;
        fields.add_to(xadd);
        let mut header = header(&message);
        header.is_array = fields.is_array;
        header.tidelog.group = only.map(ToString::to_string);
        add_header(xadd, &header)
    }

    /// The message of an entry, in our form.
    pub(in crate::messaging) fn read(
        &self,
        channel: &Channel,
        id: &str,
        fields: Vec<Value>,
    ) -> Read {
        let (fields, header) = split(fields);
        let header = header.unwrap_or_default();
        let own = &header.tidelog;
        let place = || Uuid::new_v5(&IDS, format!("{}/{id}", self.key(channel)).as_bytes());
        let id = header.correlation_id.as_ref().or(own.id.as_ref()).cloned();
        let id = id.unwrap_or_else(|| place().to_string());
        let head = Head {
            app: SOURCE,
            id: &id,
            subject: channel.subject(),
            metadata: &own.metadata(),
            reply_to: header.correlation_id.is_some().then(|| ReplyTo {
                address: RESPONSES,
                timeout_ms: own.timeoutms.unwrap_or(u32::MAX),
            }),
        };
        let is_array = header.is_array;
        Read {
            // What was read as JSON can be written.
            body: envelope::encode(&head, &Fields { fields, is_array }).unwrap_or_default(),
            only: header.tidelog.group,
        }
    }

    /// The command that puts a reply in our form on the response stream. One that the form cannot carry is an error that says so.
    pub(in crate::messaging) fn reply(&self, reply: &[u8]) -> Cmd {
        let (request, content) = match envelope::decode_reply(reply) {
            Ok(reply) => (reply.request, reply.content),
            // It is none of ours.
            Err(error) => (
                String::new(),
                Err(ReplyError::new(UNFIT, error.to_string())),
            ),
        };
        let value = content
            .as_ref()
            .map(|value| envelope::or_null(value.as_deref()));
        let (fields, kind) = match value {
            Ok(value) if value.get() == "null" => (Fields::default(), Some(ReplyKind::Null)),
            Ok(value) => match Fields::of(value) {
                Ok(fields) => (fields, None),
                Err(unfit) => {
                    tracing::warn!(request, %unfit, "a reply is an error instead");
                    let told = ReplyError::new(UNFIT, unfit.to_string());
                    (Fields::error(&told), Some(ReplyKind::Error))
                }
            },
            Err(error) => (Fields::error(error), Some(ReplyKind::Error)),
        };
        let mut xadd = redis::cmd("XADD");
        xadd.arg(RESPONSES)
            .arg("MAXLEN")
            .arg("~")
            .arg(MAX_RESPONSES);
        xadd.arg("*");
        fields.add_to(&mut xadd);
        let header = Header {
            correlation_id: Some(request),
            is_array: fields.is_array,
            tidelog: Own {
                reply: kind,
                ..Own::default()
            },
        };
        // A header of texts can be written.
        let _written = add_header(&mut xadd, &header);
        xadd
    }

    /// The reply of an entry of the response stream, in our form; none where it is no reply.
    pub(super) fn read_reply(fields: Vec<Value>) -> Option<Vec<u8>> {
        let (fields, header) = split(fields);
        let header = header?;
        let head = ReplyHead {
            app: SOURCE,
            request: header.correlation_id.as_deref()?,
            sequence: 1,
            last: true,
        };
        let written = match header.tidelog.reply {
            Some(ReplyKind::Null) => envelope::encode_reply(head, Some(&())),
            Some(ReplyKind::Error) => {
                let error = fields.iter().find(|(name, _)| name == ERROR);
                let error = error.and_then(|(_, error)| serde_json::from_str(error.get()).ok());
                let error = error.unwrap_or_else(|| ReplyError::new(ReplyError::FAILED, ""));
                envelope::encode_error(head, &error)
            }
            None => {
                let is_array = header.is_array;
                envelope::encode_reply(head, Some(&Fields { fields, is_array }))
            }
        };
        written.ok()
    }
}

/// What the header of a message in our form says in theirs.
fn header(message: &Message<'_>) -> Header {
    let is_request = message.replyto.is_some();
    let id = message.id.to_string();
    let said = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Header {
        correlation_id: is_request.then(|| id.clone()),
        is_array: false,
        tidelog: Own {
            id: (!is_request).then_some(id),
            group: None,
            timeoutms: message.timeoutms.filter(|_| is_request),
            reply: None,
            correlationid: said(&message.correlationid),
            causationid: message.causationid,
            actor: message.actor.clone(),
            tenant: message.tenant.clone(),
            traceparent: message.traceparent.clone(),
        },
    }
}

fn add_header(xadd: &mut Cmd, header: &Header) -> Result<(), MessageBusError> {
    let header = serde_json::to_vec(header).map_err(MessageBusError::unfit)?;
    xadd.arg(HEADER).arg(header);
    Ok(())
}

/// The fields of an entry, and its header.
fn split(entry: Vec<Value>) -> (Vec<Field<'static>>, Option<Header>) {
    let (mut fields, mut header) = (Vec::with_capacity(entry.len() / 2), None);
    let mut entry = entry.into_iter().map(|part| match part {
        Value::BulkString(bytes) => bytes,
        _ => Vec::new(),
    });
    while let (Some(name), Some(value)) = (entry.next(), entry.next()) {
        if name == HEADER.as_bytes() {
            header = Some(Header::read(&value));
        } else {
            let name = String::from_utf8_lossy(&name).into_owned();
            fields.push((name.into(), Cow::Owned(json(&value))));
        }
    }
    if header.as_ref().is_some_and(|header| header.is_array) {
        fields.sort_by_key(|(place, _): &Field<'_>| place.parse().unwrap_or(usize::MAX));
    }
    (fields, header)
}

/// A field's value. What is no JSON is text, as the transport reads it.
fn json(value: &[u8]) -> Box<RawValue> {
    let read = serde_json::from_slice::<Box<RawValue>>(value);
    read.unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(value);
        to_raw_value(&text).unwrap_or_else(|_| RawValue::NULL.to_owned())
    })
}

type Field<'a> = (Cow<'a, str>, Cow<'a, RawValue>);

/// An object, or an array.
#[derive(Default)]
struct Fields<'a> {
    fields: Vec<Field<'a>>,
    is_array: bool,
}

impl<'a> Fields<'a> {
    /// The fields of a payload.
    fn of(payload: &'a RawValue) -> Result<Self, MessageBusError> {
        let read: Self = serde_json::from_str(payload.get()).map_err(|_| {
            let shown: String = payload.get().chars().take(40).collect();
            MessageBusError::unfit(format!("the form of NestJS has objects and arrays, and this is {shown}: put it into an object"))
        })?;
        if read.fields.iter().any(|(name, _)| name == HEADER) {
            return Err(MessageBusError::unfit(format!(
                "a payload has the key {HEADER}, which is the form's own: name it otherwise"
            )));
        }
        Ok(read)
    }

    /// An error as a payload.
    fn error(error: &ReplyError) -> Fields<'static> {
        let error = to_raw_value(error).unwrap_or_else(|_| RawValue::NULL.to_owned());
        Fields {
            fields: vec![(ERROR.into(), Cow::Owned(error))],
            is_array: false,
        }
    }

    fn add_to(&self, xadd: &mut Cmd) {
        for (name, value) in &self.fields {
            xadd.arg(&**name).arg(value.get());
        }
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let count = Some(self.fields.len());
        if self.is_array {
            let mut array = serializer.serialize_seq(count)?;
            for (_, value) in &self.fields {
                array.serialize_element(&**value)?;
            }
            return array.end();
        }
        let mut object = serializer.serialize_map(count)?;
        for (name, value) in &self.fields {
            object.serialize_entry(name, &**value)?;
        }
        object.end()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
            fields.push((name.into(), Cow::Borrowed(value)));
        }
        Ok(Fields {
            fields,
            is_array: false,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Fields<'de>, A::Error> {
        let mut fields: Vec<Field<'de>> = Vec::new();
        while let Some(value) = array.next_element::<&'de RawValue>()? {
            fields.push((fields.len().to_string().into(), Cow::Borrowed(value)));
        }
        Ok(Fields {
            fields,
            is_array: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::messaging::Subject;

    fn channel() -> Channel {
        Subject::<()>::new("users.create").channel()
    }

    fn form() -> NestForm {
        let subject: Subject<()> = Subject::new("users.create");
        let patterns = NestPatterns::default();
        NestForm::new(patterns.with(&subject, "users:create").unwrap())
    }

    fn entry(fields: &[&str]) -> Vec<Value> {
        let field = |text: &&str| Value::BulkString(text.as_bytes().to_vec());
        fields.iter().map(field).collect()
    }

    /// A message of ours as an entry's fields.
    fn written(message: &serde_json::Value) -> Result<Vec<String>, MessageBusError> {
        let mut xadd = redis::Cmd::new();
        form().write(&mut xadd, message.to_string().as_bytes(), None)?;
        Ok(texts(&xadd))
    }

    fn texts(command: &Cmd) -> Vec<String> {
        let texts = command.args_iter().map(|arg| match arg {
            redis::Arg::Simple(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            _ => String::new(),
        });
        texts.collect()
    }

    fn read(fields: &[&str]) -> serde_json::Value {
        let read = form().read(&channel(), "1-0", entry(fields));
        serde_json::from_slice(&read.body).unwrap()
    }

    #[test]
    fn a_request_has_one_field_a_key_and_its_id_in_the_header() {
        let message = json!({"id": "m-1", "replyto": "x", "timeoutms": 5, "data": {"a": [1, null], "b": "c"}});
        assert_eq!(
            written(&message).unwrap(),
            [
                "a",
                "[1,null]",
                "b",
                "\"c\"",
                HEADER,
                r#"{"correlationId":"m-1","tidelog":{"timeoutms":5}}"#
            ]
        );
    }

    #[test]
    fn an_array_has_its_places_as_keys_and_says_so() {
        let message = json!({"id": "m-1", "tenant": "acme", "data": [true, {"a": 1}]});
        assert_eq!(
            written(&message).unwrap(),
            [
                "0",
                "true",
                "1",
                r#"{"a":1}"#,
                HEADER,
                r#"{"isArray":true,"tidelog":{"id":"m-1","tenant":"acme"}}"#
            ]
        );
    }

    #[test]
    fn what_is_neither_object_nor_array_is_refused_and_so_is_the_forms_own_key() {
        for data in [
            json!(true),
            json!("abc"),
            json!(null),
            json!(7),
            json!({HEADER: 1}),
        ] {
            let error = written(&json!({"id": "m-1", "data": data})).unwrap_err();
            assert!(
                matches!(error, MessageBusError::Unfit(_)),
                "{data}: {error:?}"
            );
        }
    }

    #[test]
    fn an_emit_without_a_header_is_read_and_has_the_same_id_each_time() {
        let fields = [
            "a",
            "1",
            "b",
            "{\"c\":[true]}",
            "text",
            "no JSON",
            "empty",
            "",
        ];
        let message = read(&fields);
        assert_eq!(
            message["data"].to_string(),
            r#"{"a":1,"b":{"c":[true]},"text":"no JSON","empty":""}"#
        );
        assert_eq!(message["id"], read(&fields)["id"]);
        let other = form().read(&channel(), "1-1", entry(&fields));
        let other: serde_json::Value = serde_json::from_slice(&other.body).unwrap();
        assert_ne!(message["id"], other["id"]);
        assert!(message.get("replyto").is_none());
    }

    #[test]
    fn a_request_of_nestjs_is_read() {
        let message = read(&[
            "1",
            "2",
            "0",
            "\"a\"",
            "10",
            "[]",
            HEADER,
            r#"{"correlationId":"c-1","isArray":true}"#,
        ]);
        assert_eq!(
            (&message["id"], &message["replyto"]),
            (&json!("c-1"), &json!(RESPONSES))
        );
        assert_eq!(message["data"], json!(["a", 2, []]));
        let empty = read(&[HEADER, r#"{"correlationId":"c-1"}"#]);
        assert_eq!(empty["data"], json!({}));
    }

    #[test]
    fn an_odd_header_is_none() {
        for odd in [
            "",
            "[]",
            "7",
            "text",
            r#"{"correlationId":7,"isArray":"yes","tidelog":{"id":[]}}"#,
        ] {
            let message = read(&["a", "1", HEADER, odd]);
            assert_eq!(message["data"], json!({"a": 1}), "{odd}");
            assert!(message.get("replyto").is_none(), "{odd}");
        }
    }

    #[test]
    fn a_reply_is_read_as_it_was_written() {
        let head = ReplyHead {
            app: "shop",
            request: "c-1",
            sequence: 1,
            last: true,
        };
        let round = |reply: &[u8]| {
            let texts = texts(&form().reply(reply));
            assert_eq!(
                texts[..6],
                ["XADD", RESPONSES, "MAXLEN", "~", "100000", "*"]
            );
            let fields: Vec<_> = texts[6..].iter().map(String::as_str).collect();
            let reply = NestForm::read_reply(entry(&fields)).unwrap();
            let reply = envelope::decode_reply(&reply).unwrap();
            assert_eq!((&*reply.request, reply.last), ("c-1", true));
            reply.content.map(|value| value.unwrap().get().to_owned())
        };
        for value in [
            json!({"a": [1]}),
            json!([]),
            json!({}),
            json!([[null], "x"]),
            json!(null),
        ] {
            let reply = envelope::encode_reply(head, Some(&value)).unwrap();
            assert_eq!(round(&reply).unwrap(), value.to_string());
        }
        let error = ReplyError::new("sold-out", "there are none left");
        let reply = envelope::encode_error(head, &error).unwrap();
        assert_eq!(round(&reply).unwrap_err(), error);
        let reply = envelope::encode_reply(head, Some(&true)).unwrap();
        let unfit = round(&reply).unwrap_err();
        assert!(
            unfit.code == "unfit" && unfit.detail.contains("true"),
            "{unfit:?}"
        );
    }

    #[test]
    fn what_is_no_reply_is_passed_over() {
        for odd in [&["a", "1"][..], &[HEADER, "{}"], &[HEADER, "x"]] {
            assert!(NestForm::read_reply(entry(odd)).is_none());
        }
    }
}
