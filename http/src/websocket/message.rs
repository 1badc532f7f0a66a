//! What a client says over a socket.

use std::fmt;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::context::{CORRELATION_ID, TRACEPARENT};
use crate::problem::{Problem, ProblemKind};

/// The most bytes of an id.
const MAX_ID_BYTES: usize = 128;

/// The media type of live queries.
pub(super) const LIVE: &str = "text/event-stream";

/// The id of the last event that a client has.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What a message may say in headers: what is about the request itself. Who asks, and from where, the handshake has said for all of them.
const HEADERS: [HeaderName; 8] = [
    CONTENT_TYPE,
    IF_MATCH,
    IF_NONE_MATCH,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("consistency-token"),
    HeaderName::from_static("prefer"),
    CORRELATION_ID,
    TRACEPARENT,
];

/// What a client says over a socket, in one text message: `docs/websocket.md` has the forms.
#[derive(Clone, Debug)]
pub enum SocketMessage {
    /// Tell a live query.
    Subscribe {
        /// What the client calls it.
        id: String,
        /// As in `GET <path>`.
        path: PathAndQuery,
        /// The event that the client goes on from.
        after: Option<HeaderValue>,
        /// More of the request.
        headers: HeaderMap,
    },
    /// Tell it no more.
    Unsubscribe {
        /// What the client calls it.
        id: String,
    },
    /// Do something.
    Command {
        /// What the client calls it.
        id: String,
        /// What it is.
        command: CommandMessage,
    },
    /// Say this back.
    Ping(Box<RawValue>),
}

/// A command in a message: a request to the command service.
#[derive(Clone, Debug)]
pub struct CommandMessage {
    /// `POST`, `PATCH` or `DELETE`.
    pub method: Method,
    /// Its path.
    pub path: PathAndQuery,
    /// What is about it.
    pub headers: HeaderMap,
    /// Its body, byte by byte as the client wrote it.
    pub body: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    id: Option<String>,
    subscribe: Option<String>,
    after: Option<String>,
    headers: Option<Headers>,
    unsubscribe: Option<bool>,
    #[serde(borrow)]
    command: Option<Call<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    ping: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call<'a> {
    method: String,
    path: String,
    headers: Option<Headers>,
    #[serde(borrow, default, deserialize_with = "present")]
    body: Option<&'a RawValue>,
}

/// A value that is there, `null` included.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// Headers, each of [`HEADERS`] once at most.
struct Headers(HeaderMap);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(HeadersVisitor)
    }
}

struct HeadersVisitor;

impl<'de> Visitor<'de> for HeadersVisitor {
    type Value = Headers;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an object of headers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
        let mut headers = HeaderMap::new();
        while let Some((name, value)) = map.next_entry::<String, String>()? {
            let known = HeaderName::from_bytes(name.as_bytes()).ok();
            let known = known.filter(|name| HEADERS.contains(name)).ok_or_else(|| {
                let names = HEADERS.each_ref().map(HeaderName::as_str).join(", ");
                A::Error::custom(format_args!("a message may have the headers {names}"))
            })?;
            let value = HeaderValue::from_str(&value).map_err(|_| {
                A::Error::custom(format_args!("the value of {known} is none of a header"))
            })?;
            if headers.insert(&known, value).is_some() {
                return Err(A::Error::custom(format_args!("{known} is there twice")));
            }
        }
        Ok(Headers(headers))
    }
}

impl SocketMessage {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// [`ProblemKind::MalformedRequest`], which says what is wrong.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let envelope: Envelope<'_> = serde_json::from_str(text)
            .map_err(|error| malformed(&format!("The message cannot be read: {error}.")))?;
        let Envelope {
            id,
            subscribe,
            after,
            headers,
            unsubscribe,
            command,
            ping,
        } = envelope;
        match (subscribe, unsubscribe, command, ping) {
            (Some(path), None, None, None) => Ok(Self::Subscribe {
                id: named(id)?,
                path: path_of(&path)?,
                after: after.map(|after| last_event(&after)).transpose()?,
                headers: headers.map(|headers| headers.0).unwrap_or_default(),
            }),
            (None, Some(true), None, None) if after.is_none() && headers.is_none() => {
                Ok(Self::Unsubscribe { id: named(id)? })
            }
            (None, None, Some(call), None) if after.is_none() && headers.is_none() => {
                Ok(Self::Command {
                    id: named(id)?,
                    command: CommandMessage::of(call)?,
                })
            }
            (None, None, None, Some(ping))
                if id.is_none() && after.is_none() && headers.is_none() =>
            {
                Ok(Self::Ping(ping.to_owned()))
            }
            _ => Err(malformed(
                "A message has just one of subscribe, unsubscribe: true, command and ping, and nothing that is not its own: after and \
                 headers stand beside subscribe, a command has its headers inside.",
            )),
        }
    }

    /// The id in a message that cannot be read as a whole, so that its client can tell which one it was.
    pub(super) fn id_of(text: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct Named {
            id: Option<String>,
        }
        let named: Named = serde_json::from_str(text).ok()?;
        named.id.filter(|id| is_id(id))
    }

    /// The message as a text, as [`parse`](Self::parse) reads it.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            Self::Subscribe {
                id,
                path,
                after,
                headers,
            } => {
                let mut message =
                    json!({"id": id, "subscribe": path.as_str(), "headers": written(headers)});
                if let (Some(after), Some(members)) = (after, message.as_object_mut()) {
                    members.insert("after".to_owned(), text_of(after));
                }
                message.to_string()
            }
            Self::Unsubscribe { id } => json!({"id": id, "unsubscribe": true}).to_string(),
            Self::Command { id, command } => {
                let (id, command) = (json!(id), command.to_json());
                format!("{{\"id\":{id},\"command\":{command}}}")
            }
            Self::Ping(value) => format!("{{\"ping\":{value}}}"),
        }
    }
}

impl CommandMessage {
    fn of(call: Call<'_>) -> Result<Self, Problem> {
        let method = match call.method.as_str() {
            "POST" => Method::POST,
            "PATCH" => Method::PATCH,
            "DELETE" => Method::DELETE,
            _ => {
                let what = "The method of a command is POST, PATCH or DELETE.";
                return Err(malformed(what));
            }
        };
        Ok(Self {
            method,
            path: path_of(&call.path)?,
            headers: call.headers.map(|headers| headers.0).unwrap_or_default(),
            body: call.body.map(ToOwned::to_owned),
        })
    }

    fn to_json(&self) -> String {
        let (method, path) = (json!(self.method.as_str()), json!(self.path.as_str()));
        let headers = Value::Object(written(&self.headers));
        let body = self.body.as_ref();
        let body = body.map_or_else(String::new, |body| format!(",\"body\":{body}"));
        format!("{{\"method\":{method},\"path\":{path},\"headers\":{headers}{body}}}")
    }

    /// The same as a request of HTTP.
    pub(super) fn into_request(self) -> Request {
        let Self {
            method,
            path,
            mut headers,
            body,
        } = self;
        let body = body.map(|body| String::from(Box::<str>::from(body)));
        if let Some(body) = &body {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            let json = HeaderValue::from_static("application/json");
            headers.entry(CONTENT_TYPE).or_insert(json);
        }
        request(
            method,
            path,
            headers,
            body.map_or_else(Body::empty, Body::from),
        )
    }
}

/// What a subscription asks for, as a request of HTTP.
pub(super) fn live_request(
    path: PathAndQuery,
    after: Option<HeaderValue>,
    mut headers: HeaderMap,
) -> Request {
    headers.insert(ACCEPT, HeaderValue::from_static(LIVE));
    if let Some(after) = after {
        headers.insert(LAST_EVENT_ID, after);
    }
    request(Method::GET, path, headers, Body::empty())
}

fn request(method: Method, path: PathAndQuery, headers: HeaderMap, body: Body) -> Request {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = path.into();
    *request.headers_mut() = headers;
    request
}

fn is_id(id: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len())
}

/// The id of a message that needs one.
fn named(id: Option<String>) -> Result<String, Problem> {
    let what = format!(
        "The message needs an id of 1 to {MAX_ID_BYTES} bytes, by which its answers are told."
    );
    id.filter(|id| is_id(id)).ok_or_else(|| malformed(&what))
}

fn path_of(text: &str) -> Result<PathAndQuery, Problem> {
    let path = text.parse().ok();
    path.filter(|_| text.starts_with('/')).ok_or_else(|| {
        malformed("The path must be one as in a request of HTTP, and begin with a slash.")
    })
}

fn last_event(text: &str) -> Result<HeaderValue, Problem> {
    let what = "What `after` says is not the id of an event: send back, unchanged, the last one.";
    // As a header it would mean nothing, and the client begin anew without knowing it.
    let value = HeaderValue::from_str(text).ok();
    value
        .filter(|_| !text.trim().is_empty())
        .ok_or_else(|| malformed(what))
}

/// Headers as a message has them.
fn written(headers: &HeaderMap) -> Map<String, Value> {
    let lines = headers.iter();
    lines
        .map(|(name, value)| (name.as_str().to_owned(), text_of(value)))
        .collect()
}

fn text_of(value: &HeaderValue) -> Value {
    json!(String::from_utf8_lossy(value.as_bytes()))
}

fn malformed(detail: &str) -> Problem {
    Problem::new(ProblemKind::MalformedRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let problem = SocketMessage::parse(text).unwrap_err();
        assert_eq!(problem.kind(), ProblemKind::MalformedRequest);
        problem.detail().to_owned()
    }

    #[test]
    fn a_command_keeps_its_body_byte_by_byte() {
        let text = r#"{"id":"7","command":{"method":"POST","path":"/post?x=1","headers":{"Idempotency-Key":"k"},"body":{"b": 1.0,  "a":2}}}"#;
        let SocketMessage::Command { id, command } = SocketMessage::parse(text).unwrap() else {
            unreachable!("it is a command")
        };
        assert_eq!(
            (id.as_str(), command.headers["idempotency-key"].as_bytes()),
            ("7", &b"k"[..])
        );
        assert_eq!(
            command.body.as_deref().unwrap().get(),
            r#"{"b": 1.0,  "a":2}"#
        );
        let request = command.into_request();
        assert_eq!(request.uri(), "/post?x=1");
        assert_eq!(request.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(request.headers()[CONTENT_LENGTH], "18");
    }

    #[test]
    fn each_message_has_one_form() {
        for right in [
            r#"{"id":"1","subscribe":"/posts?author=ann"}"#,
            r#"{"id":"1","subscribe":"/post/1","after":"x.1","headers":{"consistency-token":"t"}}"#,
            r#"{"id":"1","unsubscribe":true}"#,
            r#"{"id":"1","command":{"method":"DELETE","path":"/post/1"}}"#,
            r#"{"ping":null}"#,
            r#"{"ping":{"at":[1]}}"#,
        ] {
            let read = SocketMessage::parse(right).unwrap();
            let again = SocketMessage::parse(&read.to_json()).unwrap();
            assert_eq!(read.to_json(), again.to_json(), "{right}");
        }
        for wrong in [
            "",
            "{}",
            "[]",
            "null",
            "{\"id\":\"1\"}",
            r#"{"id":"1","subscribe":"/a","unsubscribe":true}"#,
            r#"{"id":"1","unsubscribe":false}"#,
            r#"{"id":"1","unsubscribe":true,"after":"1"}"#,
            r#"{"subscribe":"/a"}"#,
            r#"{"id":"","subscribe":"/a"}"#,
            r#"{"id":1,"subscribe":"/a"}"#,
            r#"{"id":"1","subscribe":"posts"}"#,
            r#"{"id":"1","subscribe":"http://evil.example/posts"}"#,
            r#"{"id":"1","subscribe":"/a b"}"#,
            r#"{"id":"1","subscribe":"/a","after":""}"#,
            r#"{"id":"1","subscribe":"/a","after":"a\nb"}"#,
            r#"{"id":"1","subscribe":"/a","more":1}"#,
            r#"{"id":"1","id":"2","subscribe":"/a"}"#,
            r#"{"id":"1","command":{"method":"GET","path":"/a"}}"#,
            r#"{"id":"1","command":{"method":"post","path":"/a"}}"#,
            r#"{"id":"1","command":{"method":"POST"}}"#,
            r#"{"id":"1","ping":1}"#,
        ] {
            refused(wrong);
        }
        let long = "x".repeat(MAX_ID_BYTES + 1);
        refused(&json!({"id": long, "unsubscribe": true}).to_string());
    }

    #[test]
    fn a_message_cannot_say_who_sends_it_and_no_header_twice() {
        let with = |headers: &str| {
            format!(r#"{{"id":"1","command":{{"method":"POST","path":"/a","headers":{headers}}}}}"#)
        };
        for headers in [
            r#"{"authorization":"Bearer x"}"#,
            r#"{"x-forwarded-for":"1.2.3.4"}"#,
            r#"{"host":"evil"}"#,
            r#"{"cookie":"a=b"}"#,
            r#"{"if-match":"1","If-Match":"2"}"#,
            r#"{"if-match":"1\r\nhost: evil"}"#,
            r#"{"if-match":1}"#,
            r#"{"":""}"#,
        ] {
            refused(&with(headers));
        }
        assert!(SocketMessage::parse(&with(r#"{"If-Match":"\"1\"","PREFER":"wait=1"}"#)).is_ok());
    }

    #[test]
    fn the_id_of_what_cannot_be_read_is_told_where_there_is_one() {
        assert_eq!(
            SocketMessage::id_of(r#"{"id":"7","x":1}"#).as_deref(),
            Some("7")
        );
        for none in ["{", r#"{"id":7}"#, r#"{"id":""}"#, "[]"] {
            assert_eq!(SocketMessage::id_of(none), None, "{none}");
        }
    }
}
