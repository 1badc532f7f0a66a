//! The API, asked from inside the process by whoever looks at a page.

use axum::body::{Body, to_bytes};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, Method, Request, header};
use axum::response::IntoResponse;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidelog_domain::causes;
use tidelog_http::{Problem, RequestContext};
use tower::ServiceExt;

use super::{Refusal, Site};
use crate::admin::access::Principal;

/// The most bytes that an answer may have.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Who asks, in which conversation.
pub(super) struct Asker {
    pub(super) principal: Principal,
    pub(super) context: RequestContext,
}

impl<S: Sync> FromRequestParts<S> for Asker {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Ok(context) = RequestContext::from_request_parts(parts, state).await;
        // Nobody gets here without: pages are behind a door.
        let principal = parts.extensions.get::<Principal>().cloned();
        let principal = principal.ok_or_else(Problem::internal)?;
        Ok(Self { principal, context })
    }
}

impl Site {
    /// What the API says at `/api/{segments…}`.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        asker: &Asker,
        segments: &[&str],
        parameters: &[(&str, &str)],
    ) -> Result<T, Refusal> {
        data(self.answer(asker, segments, parameters).await?)
    }

    /// The same of a list that has pages, and where the next one begins.
    pub(super) async fn read_page<T: DeserializeOwned>(
        &self,
        asker: &Asker,
        segments: &[&str],
        parameters: &[(&str, &str)],
    ) -> Result<(Vec<T>, Value), Refusal> {
        let mut answer = self.answer(asker, segments, parameters).await?;
        let next = answer.get_mut("next").map(Value::take);
        Ok((data(answer)?, next.unwrap_or_default()))
    }

    /// The whole answer, or the problem document where it was asked for something that is not there or makes no sense.
    pub(super) async fn try_answer(
        &self,
        asker: &Asker,
        segments: &[&str],
        parameters: &[(&str, &str)],
    ) -> Result<Result<Value, Value>, Refusal> {
        match self.answer(asker, segments, parameters).await {
            Ok(answer) => Ok(Ok(answer)),
            Err(Refusal(response)) if response.status().is_client_error() => {
                Ok(Err(super::said(*response).await))
            }
            Err(refusal) => Err(refusal),
        }
    }

    async fn answer(
        &self,
        asker: &Asker,
        segments: &[&str],
        parameters: &[(&str, &str)],
    ) -> Result<Value, Refusal> {
        let mut path = path(segments);
        if !parameters.is_empty() {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(parameters);
            path = format!("{path}?{}", query.finish());
        }
        let request = Request::builder().method(Method::GET).uri(path);
        self.ask(asker, request, Body::empty()).await
    }

    /// Has the API do what is POSTed to `/api/{segments…}`; with `at_once`, it answers before it is done.
    pub(super) async fn act(
        &self,
        asker: &Asker,
        segments: &[&str],
        body: &Value,
        at_once: bool,
    ) -> Result<Value, Refusal> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path(segments))
            .header(header::CONTENT_TYPE, "application/json");
        if at_once {
            request = request.header(HeaderName::from_static("prefer"), "respond-async");
        }
        let answer = self
            .ask(asker, request, Body::from(body.to_string()))
            .await?;
        data(answer)
    }

    /// What the query service says.
    pub(super) async fn query(&self, path: &str) -> Result<(u16, Value), Refusal> {
        let request = Request::get(path).body(Body::empty()).map_err(defect)?;
        let response = match self.queries.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), MAX_ANSWER_BYTES).await;
        let body = body.map_err(defect)?;
        Ok((status, serde_json::from_slice(&body).map_err(defect)?))
    }

    async fn ask(
        &self,
        asker: &Asker,
        request: axum::http::request::Builder,
        body: Body,
    ) -> Result<Value, Refusal> {
        let mut request = request.body(body).map_err(defect)?;
        request.extensions_mut().insert(asker.principal.clone());
        request.extensions_mut().insert(asker.context.clone());
        let response = match self.api.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        if !response.status().is_success() {
            return Err(Refusal(Box::new(response.into_response())));
        }
        let body = to_bytes(response.into_body(), MAX_ANSWER_BYTES).await;
        serde_json::from_slice(&body.map_err(defect)?).map_err(defect)
    }
}

/// The data of an answer.
pub(super) fn data<T: DeserializeOwned>(mut answer: Value) -> Result<T, Refusal> {
    let data = answer.get_mut("data").map(Value::take).unwrap_or_default();
    serde_json::from_value(data).map_err(defect)
}

/// The path of these segments.
fn path(segments: &[&str]) -> String {
    let mut path = "/api".to_owned();
    for segment in segments {
        path.push('/');
        path.push_str(&super::text::segment(segment));
    }
    path
}

/// Something that cannot be.
pub(super) fn defect(error: impl std::error::Error + 'static) -> Refusal {
    tracing::error!(error = causes(&error), "a page could not ask for its data");
    Problem::internal().into()
}
