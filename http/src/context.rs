//! What a request brings besides its message: the conversation that it belongs to, and its trace.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use tidelog_domain::Metadata;
use uuid::Uuid;

use crate::caller::Caller;
use crate::problem::{Problem, ProblemKind};

/// The header that names the conversation.
pub const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// The header of the W3C trace context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The most characters that a correlation id may have.
const MAX_CORRELATION_ID: usize = 128;

/// The most characters that a trace context may have: version 0 has 55, later ones may have more.
const MAX_TRACEPARENT: usize = 128;

/// The correlation id and the trace of a request. Cloning is cheap.
///
/// As an extractor it never fails: where the middleware of [`with_context`](crate::with_context) has not run, it
/// is made from the headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestContext {
    correlation_id: Arc<str>,
    traceparent: Option<Arc<str>>,
}

impl RequestContext {
    /// A new conversation without a trace.
    #[must_use]
    pub fn new() -> Self {
        Self {
            correlation_id: Uuid::now_v7().to_string().into(),
            traceparent: None,
        }
    }

    /// What the headers say; a new conversation where they name none.
    ///
    /// An invalid `traceparent` is left out, as its specification wants it.
    ///
    /// # Errors
    ///
    /// A [`ProblemKind::MalformedRequest`] when the correlation id is given twice, is longer than 128 characters, or has
    /// others than printable ASCII without blanks, quotes and backslashes.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut given = headers.get_all(&CORRELATION_ID).iter();
        let correlation_id = match (given.next(), given.next()) {
            (None, _) => Uuid::now_v7().to_string(),
            (Some(id), None) => id
                .to_str()
                .ok()
                .filter(|id| is_correlation_id(id))
                .ok_or_else(bad_correlation_id)?
                .to_owned(),
            (Some(_), Some(_)) => return Err(bad_correlation_id()),
        };
        Ok(Self {
            correlation_id: correlation_id.into(),
            traceparent: traceparent(headers).map(Arc::from),
        })
    }

    /// What is recorded with what comes of a request of `caller`.
    #[must_use]
    pub fn metadata(&self, caller: &Caller) -> Metadata {
        Metadata {
            correlation_id: self.correlation_id().to_owned(),
            traceparent: self.traceparent().map(str::to_owned),
            actor: caller.principal().map(str::to_owned),
            tenant: caller.tenant().map(|tenant| tenant.as_str().to_owned()),
            ..Metadata::default()
        }
    }

    /// The same for a message that a request of `caller` becomes: where spans are exported, it belongs under that of the request.
    #[must_use]
    pub fn metadata_of_message(&self, caller: &Caller) -> Metadata {
        let mut metadata = self.metadata(caller);
        if tidelog_telemetry::is_on() {
            metadata.traceparent = None;
        }
        metadata
    }

    /// What all messages of one conversation share.
    #[must_use]
    pub fn correlation_id(&self) -> &str {
        &self.correlation_id
    }

    /// The trace that the request is part of, when it brought a valid one.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
    }
}

impl Default for RequestContext {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let known = parts.extensions.get::<Self>().cloned();
        Ok(known.unwrap_or_else(|| Self::from_headers(&parts.headers).unwrap_or_default()))
    }
}

/// Whether `id` may go into logs, events and answers as it is.
fn is_correlation_id(id: &str) -> bool {
    (1..=MAX_CORRELATION_ID).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\' | b'<' | b'>'))
}

fn bad_correlation_id() -> Problem {
    Problem::new(
        ProblemKind::MalformedRequest,
        format!(
            "The header X-Correlation-Id must be one text of 1 to {MAX_CORRELATION_ID} printable ASCII characters \
             without blanks, quotes, angle brackets and backslashes; leave it out to get a new one."
        ),
    )
}

/// The trace context, when there is just one and it is well-formed.
fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(&TRACEPARENT).iter();
    let (Some(text), None) = (given.next(), given.next()) else {
        return None;
    };
    text.to_str().ok().filter(|text| is_traceparent(text))
}

/// Whether `text` is `version-trace-parent-flags` of <https://www.w3.org/TR/trace-context/>.
fn is_traceparent(text: &str) -> bool {
    let mut parts = text.splitn(5, '-');
    let hex = |part: Option<&str>, length: usize| {
        part.is_some_and(|part| {
            part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let zero = |part: &str| part.bytes().all(|b| b == b'0');
    let [version, trace, parent, flags] = [(); 4].map(|()| parts.next());
    let more = parts.next().is_some();
    text.len() <= MAX_TRACEPARENT
        && (hex(version, 2) && hex(trace, 32) && hex(parent, 16) && hex(flags, 2))
        && version != Some("ff")
        && !(version == Some("00") && more)
        && !trace.is_some_and(zero)
        && !parent.is_some_and(zero)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn a_correlation_id_is_made_when_it_is_missing_and_kept_when_it_is_given() {
        let made = RequestContext::from_headers(&HeaderMap::new()).unwrap();
        let id = Uuid::try_parse(made.correlation_id()).unwrap();
        assert_eq!(id.get_version_num(), 7);
        let given = RequestContext::from_headers(&headers(&[(CORRELATION_ID, "order:7/a")]));
        assert_eq!(given.unwrap().correlation_id(), "order:7/a");
    }

    #[test]
    fn a_correlation_id_that_could_not_be_logged_as_it_is_is_refused() {
        let long = "x".repeat(MAX_CORRELATION_ID + 1);
        for id in ["", "a b", "a\"b", "a\\b", "<b>", &long] {
            let refused = RequestContext::from_headers(&headers(&[(CORRELATION_ID, id)]));
            assert_eq!(
                refused.unwrap_err().kind(),
                ProblemKind::MalformedRequest,
                "{id:?}"
            );
        }
        let mut twice = headers(&[(CORRELATION_ID, "a")]);
        twice.append(CORRELATION_ID, HeaderValue::from_static("b"));
        assert!(RequestContext::from_headers(&twice).is_err());
    }

    #[test]
    fn a_trace_is_kept_when_it_is_valid_and_left_out_when_it_is_not() {
        let trace = |text: &str| {
            let context = RequestContext::from_headers(&headers(&[(TRACEPARENT, text)])).unwrap();
            context.traceparent().map(str::to_owned)
        };
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(trace(valid).as_deref(), Some(valid));
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes";
        assert_eq!(trace(later).as_deref(), Some(later));
        for invalid in [
            "",
            "00",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert_eq!(trace(invalid), None, "{invalid}");
        }
    }
}
