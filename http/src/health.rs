//! Health: whether the process lives, and whether everything it needs is there.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use crate::problem::{Problem, ProblemKind};

/// When to ask again whether a service is ready.
const READY_RETRY: Duration = Duration::from_secs(1);

/// What a service needs to do its work, part by part: ready, or why not. Cloning gives another handle to the same.
///
/// Without parts it is ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    parts: Arc<RwLock<BTreeMap<&'static str, Result<(), String>>>>,
}

/// The handle by which the owner of one part says how it is.
#[derive(Clone, Debug)]
pub struct Part {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Nothing is needed yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the part `name`: not ready, because it is starting.
    #[must_use]
    pub fn part(&self, name: &'static str) -> Part {
        let part = Part {
            name,
            readiness: self.clone(),
        };
        part.not_ready("starting");
        part
    }

    /// The parts that are not ready, each with the reason.
    #[must_use]
    pub fn missing(&self) -> Vec<(&'static str, String)> {
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        parts
            .iter()
            .filter_map(|(name, state)| Some((*name, state.as_ref().err()?.clone())))
            .collect()
    }

    /// Whether every part is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    /// Every part as clients see it: `ready`, or the reason why not.
    fn show(&self) -> Value {
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        let shown: Map<String, Value> = parts
            .iter()
            .map(|(name, state)| {
                let text = state.as_ref().map_or_else(String::as_str, |()| "ready");
                ((*name).to_owned(), json!(text))
            })
            .collect();
        Value::Object(shown)
    }

    fn set(&self, name: &'static str, state: Result<(), String>) {
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        parts.insert(name, state);
    }
}

impl Part {
    /// It is ready.
    pub fn ready(&self) {
        self.readiness.set(self.name, Ok(()));
    }

    /// It is not ready, for this reason. Clients of the admin listener read it: no password may be in it.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.readiness.set(self.name, Err(reason.into()));
    }
}

/// `GET /health/live`: 200 as long as the process answers. `GET /health/ready`: 200 when every part is ready, else
/// 503 with each part and what is wrong with it.
pub fn health_router(readiness: Readiness) -> Router {
    Router::new()
        .route(
            "/health/live",
            get(async || Json(json!({"status": "live"}))),
        )
        .route("/health/ready", get(ready))
        .with_state(readiness)
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    let missing = readiness.missing();
    if missing.is_empty() {
        return Json(json!({"status": "ready", "parts": readiness.show()})).into_response();
    }
    let reasons: Vec<String> = missing
        .iter()
        .map(|(name, reason)| format!("{name}: {reason}"))
        .collect();
    Problem::new(
        ProblemKind::Unavailable,
        format!("Not ready: {}.", reasons.join("; ")),
    )
    .with("parts", readiness.show())
    .retry_after(READY_RETRY)
    .into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use axum::http::header;
    use tower::ServiceExt;

    use super::*;
    use crate::body::tests::problem;

    async fn get(readiness: &Readiness, path: &str) -> Response {
        let request = Request::get(path).body(Body::empty()).unwrap();
        health_router(readiness.clone())
            .oneshot(request)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_service_is_ready_when_each_of_its_parts_is() {
        let readiness = Readiness::new();
        let (log, bus) = (readiness.part("log"), readiness.part("bus"));
        log.ready();
        bus.not_ready("no answer");
        let response = get(&readiness, "/health/ready").await;
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let (status, body) = problem(response).await;
        assert_eq!(
            (status, &body["parts"]),
            (503, &json!({"log": "ready", "bus": "no answer"}))
        );
        assert_eq!(get(&readiness, "/health/live").await.status(), 200);
        bus.ready();
        assert_eq!(get(&readiness, "/health/ready").await.status(), 200);
        log.not_ready("gone");
        assert!(!readiness.is_ready());
    }
}
