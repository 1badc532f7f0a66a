//! What the server says over a socket.

use axum::body::to_bytes;
use axum::http::HeaderMap;
use axum::http::header::ALLOW;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::events::Event;
use crate::cors::EXPOSED_HEADERS;
use crate::problem::Problem;

/// The most bytes that the body of an answer may have.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// The answer to a message, as HTTP has it.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    status: u16,
    headers: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Box<RawValue>>,
}

/// An event of a subscription.
#[derive(Serialize)]
struct Told<'a> {
    id: &'a str,
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
}

/// The end of a subscription.
#[derive(Serialize)]
struct Ended<'a> {
    id: &'a str,
    ended: &'a str,
}

/// The answer to the message `id`, with the body of `response`.
pub(super) async fn answer(id: &str, response: Response) -> String {
    let (parts, body) = response.into_parts();
    let body = match to_bytes(body, MAX_BODY_BYTES).await {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::error!(%error, "the answer to a message has no end, or is too large");
            return problem(Some(id), Problem::internal()).await;
        }
    };
    text(&Answer {
        id: Some(id),
        status: parts.status.as_u16(),
        headers: shown(&parts.headers),
        body: (!body.is_empty()).then(|| json_of(String::from_utf8_lossy(&body).into_owned())),
    })
}

/// The answer to the subscription `id` whose events follow.
pub(super) fn subscribed(id: &str, response: &Response) -> String {
    text(&Answer {
        id: Some(id),
        status: response.status().as_u16(),
        headers: shown(response.headers()),
        body: None,
    })
}

/// The answer to a message that went no further than here.
pub(super) async fn problem(id: Option<&str>, problem: Problem) -> String {
    let (parts, body) = problem.into_response().into_parts();
    // It is made of a text that is there.
    let body = to_bytes(body, MAX_BODY_BYTES).await.unwrap_or_default();
    text(&Answer {
        id,
        status: parts.status.as_u16(),
        headers: shown(&parts.headers),
        body: Some(json_of(String::from_utf8_lossy(&body).into_owned())),
    })
}

/// An event of the subscription `id`. One without a name only says where it is: a `beat`.
pub(super) fn event(id: &str, event: Event) -> String {
    let is_beat = event.name.is_empty() && event.data.is_empty();
    let name = match event.name.as_str() {
        "" if is_beat => "beat",
        // As browsers call one that has none.
        "" => "message",
        name => name,
    };
    text(&Told {
        id,
        event: name,
        after: event.id.as_deref(),
        data: (!is_beat).then(|| json_of(event.data)),
    })
}

/// The end of the subscription `id`, because of `why`.
pub(super) fn ended(id: &str, why: &str) -> String {
    text(&Ended { id, ended: why })
}

/// The answer to a ping.
pub(super) fn pong(value: &RawValue) -> String {
    format!("{{\"pong\":{value}}}")
}

/// What a client may read of an answer's headers: what a page of another origin may, by their names in lower case.
fn shown(headers: &HeaderMap) -> Map<String, Value> {
    let names = EXPOSED_HEADERS.into_iter().chain([ALLOW]);
    names
        .filter_map(|name| {
            let value = headers.get(&name)?.to_str().ok()?;
            Some((name.as_str().to_owned(), Value::from(value)))
        })
        .collect()
}

/// JSON as it is; another text as a JSON string.
fn json_of(text: String) -> Box<RawValue> {
    let as_string = |text: &String| serde_json::value::to_raw_value(text).unwrap_or_default();
    // Line ends would not matter; but a message stays one line, as it was written.
    serde_json::from_str::<&RawValue>(&text).map_or_else(|_| as_string(&text), ToOwned::to_owned)
}

fn text(message: &impl Serialize) -> String {
    serde_json::to_string(message).unwrap_or_else(|error| {
        tracing::error!(%error, "a message of the server cannot be written");
        "{}".to_owned()
    })
}
