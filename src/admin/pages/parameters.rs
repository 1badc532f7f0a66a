//! What a request to a page brings: the parameters of its address, or the fields of a form.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header;
use axum::http::request::Parts;
use tidelog_http::{Problem, ProblemKind};
use tokio::time::timeout;
use url::form_urlencoded::parse;

use super::{Refusal, Site};
use crate::admin::access::Principal;

/// The largest form that is read.
const MAX_FORM_BYTES: usize = 64 * 1024;

/// How long a form may take to arrive: anybody may send the one to sign in with.
const PATIENCE: Duration = Duration::from_secs(5);

/// Names and their values.
#[derive(Default)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn of(text: &[u8]) -> Self {
        Self(parse(text).into_owned().collect())
    }

    /// The value of `name`; `None` where it is empty or missing.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.0.iter();
        let found = all.find(|(own, value)| own == name && !value.trim().is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// The value of `name` as a number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        let number = self.get(name).map(str::parse).transpose();
        number.map_err(|_| {
            Problem::new(
                ProblemKind::MalformedRequest,
                format!("The field {name} is no whole number."),
            )
        })
    }
}

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts.uri.query().unwrap_or_default().as_bytes()))
    }
}

/// The fields of a form that whoever sends it got from a page of theirs.
pub(super) struct Form(pub(super) Parameters);

impl FromRequest<Arc<Site>> for Form {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &Arc<Site>) -> Result<Self, Refusal> {
        let principal = request.extensions().get::<Principal>().cloned();
        let fields = fields(request).await?;
        let brought = fields.get("form").unwrap_or_default();
        if principal.is_some_and(|own| own.is_form_token(brought)) {
            return Ok(Self(fields));
        }
        let detail = "The form is not one of yours, or of an earlier start of this process: open its page again. Nothing was done.";
        Err(Problem::new(ProblemKind::Forbidden, detail).into())
    }
}

/// The fields of a form, whoever sent it.
pub(super) async fn fields(request: Request) -> Result<Parameters, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        let detail = "This takes a form: application/x-www-form-urlencoded.";
        return Err(Problem::new(ProblemKind::UnsupportedMediaType, detail));
    }
    let body = timeout(PATIENCE, to_bytes(request.into_body(), MAX_FORM_BYTES)).await;
    let body = body.map_err(|_| {
        let detail = "The form did not arrive in time. Send it again.";
        Problem::new(ProblemKind::MalformedRequest, detail)
    })?;
    let body = body.map_err(|_| {
        let detail = format!("The form has more than {MAX_FORM_BYTES} bytes.");
        Problem::new(ProblemKind::TooLarge, detail)
    })?;
    Ok(Parameters::of(&body))
}
