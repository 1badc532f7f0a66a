//! Problem documents (RFC 9457): the one form of every error that a client sees.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tidelog_domain::FieldError;

/// The kinds of problem, as HTTP.md's table has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// 400: not JSON, too deep, a bad id or header.
    MalformedRequest,
    /// 400: a parameter, field or operator that is not known.
    UnknownParameter,
    /// 401: nobody is signed in.
    Unauthenticated,
    /// 403: who asks may not do this, or the request may not be theirs.
    Forbidden,
    /// 404: no such aggregate, command, view or document.
    NotFound,
    /// 405: with `Allow`.
    MethodNotAllowed,
    /// 406: no representation that the client accepts.
    NotAcceptable,
    /// 409: the stream kept changing.
    Conflict,
    /// 409: the id is taken.
    AlreadyExists,
    /// 409: the same idempotency key is being worked on.
    RequestInProgress,
    /// 410: a command to a deleted aggregate.
    Deleted,
    /// 410: a cursor of a past that the log no longer has.
    HistoryChanged,
    /// 412: `If-Match` or `If-None-Match` did not hold.
    PreconditionFailed,
    /// 413: the body, or an event, is too large.
    TooLarge,
    /// 415: the body is of another type than JSON.
    UnsupportedMediaType,
    /// 422: the body does not fit the schema.
    Invalid,
    /// 422: the domain says no.
    Rejected,
    /// 422: the idempotency key belongs to another request.
    IdempotencyKeyReused,
    /// 429: more requests of one client than it may send.
    RateLimited,
    /// 500: a defect of ours, or data that cannot be read.
    Internal,
    /// 503: too much to do.
    Overloaded,
    /// 503: a backend is gone.
    Unavailable,
    /// 503: committed, not yet projected.
    NotYetProjected,
    /// 504: whether it was committed is not known.
    InDoubt,
}

impl ProblemKind {
    /// Name, status and title.
    const fn parts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::MalformedRequest => (
                "malformed-request",
                StatusCode::BAD_REQUEST,
                "The request is malformed",
            ),
            Self::UnknownParameter => (
                "unknown-parameter",
                StatusCode::BAD_REQUEST,
                "A parameter is not known",
            ),
            Self::Unauthenticated => (
                "unauthenticated",
                StatusCode::UNAUTHORIZED,
                "Nobody is signed in",
            ),
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "This is not permitted"),
            Self::NotFound => ("not-found", StatusCode::NOT_FOUND, "There is no such thing"),
            Self::MethodNotAllowed => (
                "method-not-allowed",
                StatusCode::METHOD_NOT_ALLOWED,
                "The method is not allowed here",
            ),
            Self::NotAcceptable => (
                "not-acceptable",
                StatusCode::NOT_ACCEPTABLE,
                "No acceptable representation",
            ),
            Self::Conflict => (
                "conflict",
                StatusCode::CONFLICT,
                "The aggregate kept changing",
            ),
            Self::AlreadyExists => ("already-exists", StatusCode::CONFLICT, "The id is taken"),
            Self::RequestInProgress => (
                "request-in-progress",
                StatusCode::CONFLICT,
                "The same request is in progress",
            ),
            Self::Deleted => ("deleted", StatusCode::GONE, "The aggregate is deleted"),
            Self::HistoryChanged => (
                "history-changed",
                StatusCode::GONE,
                "The log has another past",
            ),
            Self::PreconditionFailed => (
                "precondition-failed",
                StatusCode::PRECONDITION_FAILED,
                "A precondition failed",
            ),
            Self::TooLarge => ("too-large", StatusCode::PAYLOAD_TOO_LARGE, "Too large"),
            Self::UnsupportedMediaType => (
                "unsupported-media-type",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The body's type is not supported",
            ),
            Self::Invalid => (
                "invalid",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The body is not valid",
            ),
            Self::Rejected => (
                "rejected",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The command was rejected",
            ),
            Self::IdempotencyKeyReused => (
                "idempotency-key-reused",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The idempotency key belongs to another request",
            ),
            Self::RateLimited => (
                "rate-limited",
                StatusCode::TOO_MANY_REQUESTS,
                "Too many requests of this client",
            ),
            Self::Internal
            | Self::Overloaded
            | Self::Unavailable
            | Self::NotYetProjected
            | Self::InDoubt => self.parts_of_failure(),
        }
    }

    /// The same of those that are not the client's.
    const fn parts_of_failure(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::Overloaded => (
                "overloaded",
                StatusCode::SERVICE_UNAVAILABLE,
                "Too much to do",
            ),
            Self::Unavailable => (
                "unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "Temporarily unavailable",
            ),
            Self::NotYetProjected => (
                "not-yet-projected",
                StatusCode::SERVICE_UNAVAILABLE,
                "Committed, not yet projected",
            ),
            Self::InDoubt => (
                "in-doubt",
                StatusCode::GATEWAY_TIMEOUT,
                "Whether it was committed is not known",
            ),
            _ => (
                "internal",
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something went wrong here",
            ),
        }
    }

    /// Its name: the last part of a problem document's `type`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.parts().0
    }

    /// Its HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.parts().1
    }

    /// What it is, for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.parts().2
    }

    /// The `type` of its problem documents.
    #[must_use]
    pub fn urn(self) -> String {
        format!("urn:tidelog:problem:{}", self.name())
    }
}

/// An error as a client sees it: `application/problem+json`.
///
/// It never carries a cause's internals (SQL, hosts, stack); those go to the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    kind: ProblemKind,
    detail: String,
    extensions: Vec<(String, Value)>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// The media type of every problem document.
    pub const MEDIA_TYPE: &'static str = "application/problem+json";

    /// A problem of `kind`; `detail` says what happened, to which thing, and what to do.
    #[must_use]
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            extensions: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// A defect of ours, about which the client learns nothing: the cause belongs into the log.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(
            ProblemKind::Internal,
            "The request could not be handled because of a defect of this service. Its log has the cause under the \
             correlation id.",
        )
    }

    /// The same with `errors`, a line for each field that is wrong.
    #[must_use]
    pub fn with_errors(self, errors: &[FieldError]) -> Self {
        self.with("errors", json!(errors))
    }

    /// The same with another member.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.extensions.push((name.to_owned(), value));
        self
    }

    /// The same with a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The same with `Retry-After`, in whole seconds, at least one.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        self.with_header(
            header::RETRY_AFTER,
            HeaderValue::from(after.as_secs().max(1)),
        )
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// Its HTTP status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// What happened, to which thing, and what to do.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.kind.status();
        let mut body = json!({
            "type": self.kind.urn(),
            "title": self.kind.title(),
            "status": status.as_u16(),
            "detail": self.detail,
            "instance": format!("urn:uuid:{}", uuid::Uuid::now_v7()),
        });
        if let Value::Object(members) = &mut body {
            members.extend(self.extensions);
        }
        let mut response = (status, body.to_string()).into_response();
        // For layers, and callers within the process, that go by the kind.
        response.extensions_mut().insert(self.kind);
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(Self::MEDIA_TYPE),
        );
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}
