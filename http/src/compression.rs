//! Answers compressed for clients that accept it.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

/// Answers with fewer bytes are sent as they are: they fit a packet anyway.
const MIN_BYTES: u64 = 1024;

/// What the entity tag of a compressed answer ends with.
const SUFFIX: &str = "-gzip";

/// Compresses the answers of `router` with gzip for clients that accept it, from 1 KiB on; never images and server-sent
/// events.
///
/// A strong entity tag names one representation, byte by byte: so the tag of a compressed answer to a GET ends in `-gzip`, and
/// `If-None-Match` takes either. (What a command answers is tagged with the version that it made, however it is sent.)
pub fn compressed(router: Router) -> Router {
    let worth_it = SizeAbove::new(MIN_BYTES)
        .and(NotForContentType::IMAGES)
        .and(NotForContentType::SSE);
    // The fastest level takes JSON down to a fifth or so; the others cost several times the work for little more.
    let gzip = CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(worth_it);
    router.layer(gzip).layer(from_fn(by_representation))
}

/// Keeps apart, by their tags, what is compressed and what is not.
async fn by_representation(mut request: Request, next: Next) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let headers = request.headers_mut();
    let accepts_gzip = accepts_gzip(headers);
    // The header is read here alone: to who refuses everything the layer would say 406, when a command is done already.
    headers.remove(header::ACCEPT_ENCODING);
    let mut known = Vec::new();
    if accepts_gzip {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        if is_read {
            known = without_suffixes(headers);
        }
    }
    let mut response = next.run(request).await;
    if is_read {
        let status = response.status();
        name(status, response.headers_mut(), &known);
    }
    response
}

/// Whether gzip is accepted, and no less than what is not compressed (RFC 9110, section 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut others, mut identity) = (None, None, None);
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter();
    let codings = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    for coding in codings {
        let (coding, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = Some(weight(parameters));
        match coding.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = weight,
            "identity" => identity = weight,
            "*" => others = weight,
            _ => {}
        }
    }
    let gzip: f32 = gzip.or(others).unwrap_or_default();
    gzip > 0.0 && gzip >= identity.unwrap_or_default()
}

/// The weight in the parameters of a coding: 1 where there is none, 0 where it cannot be read.
fn weight(parameters: &str) -> f32 {
    let Some((name, weight)) = parameters.split_once('=') else {
        return 1.0;
    };
    let weight = weight.trim().parse().unwrap_or_default();
    if name.trim().eq_ignore_ascii_case("q") {
        weight
    } else {
        0.0
    }
}

/// Takes the suffix off the tags of `If-None-Match`, and gives the lines as they were.
fn without_suffixes(headers: &mut HeaderMap) -> Vec<HeaderValue> {
    let lines: Vec<HeaderValue> = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .cloned()
        .collect();
    headers.remove(header::IF_NONE_MATCH);
    for line in &lines {
        let plain = line.to_str().ok().and_then(|text| {
            let text = text.replace(&format!("{SUFFIX}\""), "\"");
            HeaderValue::from_str(&text).ok()
        });
        headers.append(header::IF_NONE_MATCH, plain.unwrap_or_else(|| line.clone()));
    }
    lines
}

/// Gives an answer the tag of its representation. A 304 is of the one that the client has.
fn name(status: StatusCode, headers: &mut HeaderMap, known: &[HeaderValue]) {
    let tag = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
    let suffixed = tag
        .filter(|tag| tag.starts_with('"'))
        .and_then(|tag| Some(format!("{}{SUFFIX}\"", tag.strip_suffix('"')?)));
    let is_compressed = match status {
        StatusCode::NOT_MODIFIED => suffixed.as_ref().is_some_and(|tag| {
            let mut lines = known.iter().filter_map(|line| line.to_str().ok());
            lines.any(|line| line.contains(tag.as_str()))
        }),
        _ => headers.contains_key(header::CONTENT_ENCODING),
    };
    if let Some(tag) = suffixed.filter(|_| is_compressed)
        && let Ok(tag) = HeaderValue::from_str(&tag)
    {
        headers.insert(header::ETAG, tag);
    }
    if status == StatusCode::NOT_MODIFIED {
        headers.append(header::VARY, header::ACCEPT_ENCODING.into());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use axum::body::{Body, to_bytes};
    use axum::response::IntoResponse;
    use axum::routing::get;
    use flate2::read::GzDecoder;
    use tower::ServiceExt;

    use super::*;

    const TAG: &str = "\"3.ab12\"";

    /// An answer of `bytes` bytes of `media_type`, tagged, or a 304 when the client has it.
    fn answer(headers: &HeaderMap, bytes: usize, media_type: &'static str) -> Response {
        let mut lines = headers.get_all(header::IF_NONE_MATCH).iter();
        let tag = [(header::ETAG, TAG)];
        if lines.any(|line| line.to_str().is_ok_and(|line| line.contains(TAG))) {
            return (StatusCode::NOT_MODIFIED, tag).into_response();
        }
        let body = "a".repeat(bytes);
        (tag, [(header::CONTENT_TYPE, media_type)], body).into_response()
    }

    fn service() -> Router {
        let large = |headers: HeaderMap| async move { answer(&headers, 4096, "application/json") };
        let small = |headers: HeaderMap| async move { answer(&headers, 1023, "application/json") };
        let events =
            |headers: HeaderMap| async move { answer(&headers, 4096, "text/event-stream") };
        compressed(
            Router::new()
                .route("/large", get(large).post(large))
                .route("/small", get(small))
                .route("/events", get(events)),
        )
    }

    /// The answer to a request with these headers: its status, headers, and its body in bytes.
    async fn send(
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (StatusCode, HeaderMap, Vec<u8>) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = service().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        (parts.status, parts.headers, body.to_vec())
    }

    const GZIP: (&str, &str) = ("accept-encoding", "gzip, deflate, br");

    #[tokio::test]
    async fn a_large_answer_is_compressed_for_who_accepts_it() {
        let (status, headers, body) = send("GET", "/large", &[GZIP]).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
        assert_eq!(headers[header::VARY], "accept-encoding");
        assert_eq!(headers[header::ETAG], "\"3.ab12-gzip\"");
        assert!(body.len() < 1024, "{} bytes", body.len());
        let mut text = String::new();
        GzDecoder::new(&*body).read_to_string(&mut text).unwrap();
        assert_eq!(text, "a".repeat(4096));
    }

    #[tokio::test]
    async fn it_is_sent_as_it_is_to_who_does_not_and_says_that_it_varies() {
        for headers in [&[][..], &[("accept-encoding", "br, gzip;q=0")]] {
            let (_, headers, body) = send("GET", "/large", headers).await;
            assert!(!headers.contains_key(header::CONTENT_ENCODING));
            assert_eq!(headers[header::VARY], "accept-encoding");
            assert_eq!(headers[header::ETAG], TAG);
            assert_eq!(body.len(), 4096);
        }
    }

    #[tokio::test]
    async fn small_answers_and_server_sent_events_are_never_compressed() {
        for (path, bytes) in [("/small", 1023), ("/events", 4096)] {
            let (_, headers, body) = send("GET", path, &[GZIP]).await;
            assert!(!headers.contains_key(header::CONTENT_ENCODING), "{path}");
            assert_eq!(headers[header::ETAG], TAG, "{path}");
            assert_eq!(body.len(), bytes, "{path}");
        }
    }

    #[tokio::test]
    async fn who_refuses_everything_is_answered_all_the_same() {
        let (status, headers, body) = send(
            "POST",
            "/large",
            &[("accept-encoding", "identity;q=0, *;q=0")],
        )
        .await;
        assert_eq!((status, body.len()), (StatusCode::OK, 4096));
        assert!(!headers.contains_key(header::CONTENT_ENCODING));
    }

    #[tokio::test]
    async fn the_tag_of_a_write_is_the_version_however_it_is_sent() {
        let (_, headers, _) = send("POST", "/large", &[GZIP]).await;
        assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
        assert_eq!(headers[header::ETAG], TAG);
    }

    #[tokio::test]
    async fn a_client_has_what_it_was_sent_compressed_or_not() {
        let known = |tags| ("if-none-match", tags);
        for (tags, expected) in [
            ("\"3.ab12-gzip\"", "\"3.ab12-gzip\""),
            ("\"1\", W/\"3.ab12-gzip\"", "\"3.ab12-gzip\""),
            (TAG, TAG),
        ] {
            let (status, headers, _) = send("GET", "/large", &[GZIP, known(tags)]).await;
            assert_eq!(status, StatusCode::NOT_MODIFIED, "{tags}");
            assert_eq!(headers[header::ETAG], expected, "{tags}");
            assert_eq!(headers[header::VARY], "accept-encoding", "{tags}");
        }
        let (status, ..) = send("GET", "/large", &[GZIP, known("\"3.ab13-gzip\"")]).await;
        assert_eq!(status, StatusCode::OK);
    }

    #[tokio::test]
    async fn what_is_compressed_is_not_what_a_client_has_that_cannot_read_it() {
        let known = ("if-none-match", "\"3.ab12-gzip\"");
        let (status, headers, body) = send("GET", "/large", &[known]).await;
        assert_eq!((status, body.len()), (StatusCode::OK, 4096));
        assert_eq!(headers[header::ETAG], TAG);
    }

    #[tokio::test]
    async fn a_head_is_headed_as_the_answer_to_a_get() {
        let (_, headers, body) = send("HEAD", "/large", &[GZIP]).await;
        assert_eq!(headers[header::ETAG], "\"3.ab12-gzip\"");
        assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
        assert_eq!(body.len(), 0);
    }

    #[test]
    fn a_client_says_what_it_accepts_by_weight() {
        let accepts = |line: &str| {
            let line = HeaderValue::from_str(line).unwrap();
            accepts_gzip(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, line)]))
        };
        for line in [
            "gzip",
            "GZIP;Q=0.5",
            "br;q=1, gzip; q=0.1",
            "*",
            "x-gzip",
            "gzip, identity",
            "identity;q=0, gzip;q=0.001",
        ] {
            assert!(accepts(line), "{line}");
        }
        for line in [
            "",
            "br",
            "identity",
            "gzip;q=0",
            "gzip;q=0, *",
            "*;q=0",
            "identity, gzip;q=0.5",
            "gzip;q=much",
            "gzip;q=nan",
        ] {
            assert!(!accepts(line), "{line}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
