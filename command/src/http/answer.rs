//! What a command that was done is answered.

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tidelog_domain::Lifecycle;

use crate::handling::{CommandOutcome, MultiStreamOutcome};

use super::idempotency::IDEMPOTENCY_REPLAYED;
use super::route::Call;

/// The header with what a read must have seen.
const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");

/// The answer to a command: the state after it, its version, and the token for reads. `reads_at` is where the query
/// service is.
pub(super) fn done(call: &Call<'_>, done: CommandOutcome, reads_at: Option<&str>) -> Response {
    let mut headers = HeaderMap::new();
    let mut add = |name: HeaderName, value: String| {
        // All of them are ASCII by construction.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    add(header::ETAG, format!("\"{}\"", done.version));
    add(CONSISTENCY_TOKEN, done.token.to_string());
    if done.replayed {
        add(IDEMPOTENCY_REPLAYED, "true".to_owned());
    }
    let created = call.spec.lifecycle == Lifecycle::Missing && done.appended;
    let status = if created {
        let base = reads_at.unwrap_or_default().trim_end_matches('/');
        let location = format!("{base}/{}/{}", call.category, done.id);
        add(header::LOCATION, location);
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    (status, headers, Json(json!({ "data": data(done) }))).into_response()
}

/// The answer to a command over several aggregates: the state of each after it, and the token for reads of all.
pub(super) fn all_done(done: MultiStreamOutcome) -> Response {
    let mut headers = HeaderMap::new();
    // ASCII by construction.
    if let Ok(token) = HeaderValue::from_str(&done.token.to_string()) {
        headers.insert(CONSISTENCY_TOKEN, token);
    }
    if done.replayed {
        headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    let all: Vec<Value> = done.aggregates.into_iter().map(data).collect();
    (headers, Json(json!({ "data": all }))).into_response()
}

/// The id and the version, then the state, which cannot replace them.
fn data(done: CommandOutcome) -> Value {
    let mut data = Map::new();
    data.insert("id".to_owned(), done.id.into());
    data.insert("version".to_owned(), done.version.number().into());
    if let Value::Object(state) = done.data {
        for (name, value) in state {
            data.entry(name).or_insert(value);
        }
    }
    Value::Object(data)
}
