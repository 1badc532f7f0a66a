//! The reader of JSON bodies: bounded in size, time, depth and numbers.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use futures_util::StreamExt;
use serde_json::Value;
use tidelog_domain::json;

use crate::problem::{Problem, ProblemKind};

/// How large a body may be, and how long it may take to arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// The most bytes; 1 MiB unless said otherwise.
    pub max_bytes: usize,
    /// The longest time from the head of a request to the end of its body, in milliseconds; 30 s unless said otherwise.
    pub read_timeout_ms: u64,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self {
            max_bytes: 1024 * 1024,
            read_timeout_ms: 30_000,
        }
    }
}

/// A body that was read: its exact bytes, and what they mean.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonBody {
    /// The bytes as they came.
    pub bytes: Bytes,
    /// The JSON; `None` when the body is empty.
    pub value: Option<Value>,
}

/// Reads the body of a request as JSON. An empty body needs no content type.
///
/// `accepted` are the media types that it may have, the preferred one first.
///
/// # Errors
///
/// [`ProblemKind::UnsupportedMediaType`], [`ProblemKind::TooLarge`], or [`ProblemKind::MalformedRequest`] when it is not JSON,
/// is nested too deeply, has an integer outside of 64 bits, or does not arrive in time.
pub async fn read_json(
    headers: &HeaderMap,
    body: Body,
    accepted: &[&str],
    limits: BodyLimits,
) -> Result<JsonBody, Problem> {
    if declared_length(headers).is_some_and(|length| length > limits.max_bytes) {
        return Err(too_large(limits.max_bytes));
    }
    let typed = headers.contains_key(header::CONTENT_TYPE);
    if typed {
        check_type(headers, accepted)?;
    }
    let within = Duration::from_millis(limits.read_timeout_ms);
    let bytes = tokio::time::timeout(within, collect(body, limits.max_bytes))
        .await
        .map_err(|_| malformed("The body did not arrive in time. Send it again."))??;
    if bytes.is_empty() {
        return Ok(JsonBody { bytes, value: None });
    }
    if !typed {
        return Err(unsupported(accepted, "The body has no Content-Type."));
    }
    let value = parse(&bytes)?;
    Ok(JsonBody {
        bytes,
        value: Some(value),
    })
}

fn declared_length(headers: &HeaderMap) -> Option<usize> {
    let length = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    // A length that does not even fit is larger than every limit.
    Some(length.parse().unwrap_or(usize::MAX))
}

async fn collect(body: Body, max_bytes: usize) -> Result<Bytes, Problem> {
    let mut chunks = body.into_data_stream();
    let mut first = Bytes::new();
    let mut all: Vec<u8> = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            tracing::debug!(%error, "a body broke off");
            malformed("The body broke off before its end. Send it again.")
        })?;
        if first.len() + all.len() + chunk.len() > max_bytes {
            return Err(too_large(max_bytes));
        }
        // Most bodies come in one piece, which is then not copied.
        if first.is_empty() && all.is_empty() {
            first = chunk;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&chunk);
        }
    }
    Ok(if all.is_empty() { first } else { all.into() })
}

/// Whether the body's type is one of `accepted`, in UTF-8 and not compressed.
fn check_type(headers: &HeaderMap, accepted: &[&str]) -> Result<(), Problem> {
    if headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(unsupported(
            accepted,
            "The body is encoded (Content-Encoding).",
        ));
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(Ok(text)), None) = (types.next().map(HeaderValue::to_str), types.next()) else {
        return Err(unsupported(accepted, "The Content-Type cannot be read."));
    };
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    if !accepted.iter().any(|one| media.eq_ignore_ascii_case(one)) {
        return Err(unsupported(accepted, "The body is of another type."));
    }
    let foreign = parts
        .filter_map(|parameter| parameter.split_once('='))
        .any(|(name, value)| {
            name.eq_ignore_ascii_case("charset")
                && !value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        });
    if foreign {
        return Err(unsupported(accepted, "The body is not in UTF-8."));
    }
    Ok(())
}

fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    json::check(bytes, json::MAX_DEPTH).map_err(|problem| {
        malformed(&format!(
            "The body is refused: {problem}. Correct it and send it again."
        ))
    })?;
    serde_json::from_slice(bytes).map_err(|error| {
        malformed(&format!(
            "The body is not JSON: {error}. Correct it and send it again."
        ))
    })
}

fn unsupported(accepted: &[&str], what: &str) -> Problem {
    let types = accepted.join(", ");
    let problem = Problem::new(
        ProblemKind::UnsupportedMediaType,
        format!("{what} Send JSON in UTF-8 as {}.", accepted.join(" or ")),
    );
    // RFC 9110, 15.5.16: the answer says what would have been accepted.
    match HeaderValue::from_str(&types) {
        Ok(types) => problem.with_header(HeaderName::from_static("accept"), types),
        Err(_) => problem,
    }
}

fn too_large(max_bytes: usize) -> Problem {
    Problem::new(
        ProblemKind::TooLarge,
        format!("The body is larger than {max_bytes} bytes, which is the limit. Send less."),
    )
}

fn malformed(detail: &str) -> Problem {
    Problem::new(ProblemKind::MalformedRequest, detail)
}

#[cfg(test)]
pub(crate) mod tests {
    use axum::response::Response;
    use futures_util::stream;
    use serde_json::json;

    use super::*;

    const JSON: &[&str] = &["application/merge-patch+json", "application/json"];

    /// The status and the document of an answer, which must be a problem.
    pub(crate) async fn problem(response: Response) -> (u16, Value) {
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .unwrap();
        let body: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(body["status"], status);
        (status, body)
    }

    fn typed(content_type: &str) -> HeaderMap {
        let value = HeaderValue::from_str(content_type).unwrap();
        HeaderMap::from_iter([(header::CONTENT_TYPE, value)])
    }

    async fn read(headers: &HeaderMap, body: impl Into<Body>) -> Result<JsonBody, ProblemKind> {
        read_json(headers, body.into(), JSON, BodyLimits::default())
            .await
            .map_err(|problem| problem.kind())
    }

    #[tokio::test]
    async fn a_json_body_is_read_with_its_exact_bytes() {
        for content_type in [
            "application/json",
            "APPLICATION/JSON; charset=UTF-8",
            "application/merge-patch+json;charset=\"utf-8\"",
        ] {
            let body = read(&typed(content_type), "{\"b\": 1, \"a\":2}")
                .await
                .unwrap();
            assert_eq!(body.bytes, "{\"b\": 1, \"a\":2}");
            assert_eq!(body.value, Some(json!({"b": 1, "a": 2})));
        }
    }

    #[tokio::test]
    async fn an_empty_body_is_no_json_and_needs_no_type() {
        for headers in [HeaderMap::new(), typed("application/json")] {
            assert_eq!(read(&headers, "").await.unwrap().value, None);
        }
    }

    #[tokio::test]
    async fn another_type_than_json_is_refused_and_the_right_ones_are_named() {
        for content_type in [
            "text/plain",
            "application/json; charset=latin1",
            "application/jsonx",
            "",
        ] {
            let refused = read(&typed(content_type), "{}").await;
            assert_eq!(
                refused,
                Err(ProblemKind::UnsupportedMediaType),
                "{content_type}"
            );
        }
        let untyped = HeaderMap::new();
        let refused = read_json(&untyped, Body::from("{}"), JSON, BodyLimits::default());
        let response = axum::response::IntoResponse::into_response(refused.await.unwrap_err());
        assert_eq!(
            response.headers()[header::ACCEPT],
            "application/merge-patch+json, application/json"
        );
        let mut zipped = typed("application/json");
        zipped.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(
            read(&zipped, "{}").await,
            Err(ProblemKind::UnsupportedMediaType)
        );
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_declared_or_not() {
        let limits = BodyLimits {
            max_bytes: 10,
            ..BodyLimits::default()
        };
        let mut declared = typed("application/json");
        declared.insert(header::CONTENT_LENGTH, HeaderValue::from_static("11"));
        let endless = Body::from_stream(stream::repeat_with(|| Ok::<_, std::io::Error>("[[[[")));
        for (headers, body) in [
            (declared, Body::empty()),
            (typed("application/json"), endless),
        ] {
            let refused = read_json(&headers, body, JSON, limits).await.unwrap_err();
            assert_eq!(refused.kind(), ProblemKind::TooLarge);
        }
        let pieces = Body::from_stream(stream::iter(
            ["[1,", "2,3", ",44]"].map(Ok::<_, std::io::Error>),
        ));
        let whole = read_json(&typed("application/json"), pieces, JSON, limits).await;
        assert_eq!(whole.unwrap().value, Some(json!([1, 2, 3, 44])));
    }

    #[tokio::test]
    async fn a_body_that_is_not_json_is_refused_with_the_place() {
        let headers = typed("application/json");
        for body in ["{\"a\": }", "{} {}", "\"\u{1}\"", "nul"] {
            assert_eq!(
                read(&headers, body).await,
                Err(ProblemKind::MalformedRequest),
                "{body}"
            );
        }
        let refused = read_json(
            &headers,
            Body::from("{\"a\": }"),
            JSON,
            BodyLimits::default(),
        );
        let response = axum::response::IntoResponse::into_response(refused.await.unwrap_err());
        let (_, document) = problem(response).await;
        assert!(
            document["detail"]
                .as_str()
                .unwrap()
                .contains("line 1 column 7")
        );
        assert_eq!(
            read(&headers, vec![b'"', 0xff, b'"']).await,
            Err(ProblemKind::MalformedRequest)
        );
    }

    #[tokio::test]
    async fn what_a_store_could_not_keep_exactly_is_refused() {
        let headers = typed("application/json");
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(&headers, nested(32)).await.is_ok());
        assert!(read(&headers, "9223372036854775807").await.is_ok());
        for body in [
            nested(33),
            nested(100_000),
            "9223372036854775808".to_owned(),
        ] {
            assert_eq!(
                read(&headers, body).await,
                Err(ProblemKind::MalformedRequest)
            );
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_refused() {
        let broken = Body::from_stream(stream::iter([
            Ok("{"),
            Err(std::io::Error::other("connection reset")),
        ]));
        assert_eq!(
            read(&typed("application/json"), broken).await,
            Err(ProblemKind::MalformedRequest)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_comes_is_given_up() {
        let silent = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(
            read(&typed("application/json"), silent).await,
            Err(ProblemKind::MalformedRequest)
        );
    }
}
