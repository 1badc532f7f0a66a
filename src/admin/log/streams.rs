//! `/api/streams`: the streams by name, and the events of one.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::json;
use tidelog_domain::{StreamId, Version};
use tidelog_http::{Problem, ProblemKind, require_json_answer};

use super::entry::entry;
use super::events::{flag, page_limit, version};
use super::search::last_version;
use super::{Answer, LogView, answer, malformed, problem};
use crate::subscriptions::http::{Parameters, known};

/// How many streams, or events of one, a page has when nobody says.
const DEFAULT_LIMIT: usize = 100;

/// `GET /api/streams?prefix=&after=&limit=`. A prefix without a `/` is a whole category.
pub(super) async fn list(
    State(view): State<LogView>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Answer {
    require_json_answer(&headers)?;
    let [prefix, after, limit] = known(parameters, ["prefix", "after", "limit"])?;
    let mut prefix = prefix.unwrap_or_default();
    if !prefix.is_empty() && !prefix.contains('/') {
        prefix.push('/');
    }
    let after = after.map(|name| StreamId::parse(&name)).transpose();
    let after = after.map_err(|_| malformed("after", "the name of a stream, such as post/7f3a"))?;
    let limit = page_limit(limit)?.unwrap_or(DEFAULT_LIMIT);
    let found = view.log.streams(&prefix, after.as_ref(), limit).await;
    let found = found.map_err(problem)?;
    let next = found.last().filter(|_| found.len() == limit);
    let next = next.map(|(stream, _)| stream.to_string());
    let stream = |(stream, version): &(StreamId, Version)| json!({"stream": stream.as_str(), "version": version});
    let data: Vec<_> = found.iter().map(stream).collect();
    answer(json!({"data": data, "next": next}))
}

/// `GET /api/streams/{category}/{id}?after=&limit=&payload=`: the events of a stream, oldest first.
pub(super) async fn show(
    State(view): State<LogView>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Answer {
    require_json_answer(&headers)?;
    let [after, limit, payload] = known(parameters, ["after", "limit", "payload"])?;
    let no_stream = || Problem::new(ProblemKind::NotFound, "The log has no such stream.");
    let Ok(Path((category, id))) = path else {
        return Err(no_stream());
    };
    let stream = StreamId::new(&category, &id).map_err(|_| no_stream())?;
    let after = version("after", after)?.unwrap_or(0);
    let limit = page_limit(limit)?.unwrap_or(DEFAULT_LIMIT);
    let with_payload = flag("payload", payload)?.unwrap_or(false);
    let last = last_version(&*view.log, &stream).await?;
    if last == Version::NONE {
        return Err(no_stream());
    }
    let read = view.log.read_stream(&stream, Version::new(after), limit);
    let events = read.await.map_err(problem)?;
    let next = events.last().map(|event| event.version);
    let next = next.filter(|version| *version < last);
    let events = events.iter();
    let events: Vec<_> = events
        .map(|event| entry(&view.app, event, with_payload))
        .collect();
    answer(json!({
        "data": {"stream": stream.as_str(), "version": last, "events": events},
        "next": next,
    }))
}
