//! The request that begins a WebSocket: whether it is one, and what it brings (RFC 6455, section 4).

use axum::extract::Request;
use axum::http::header::{
    AUTHORIZATION, CONNECTION, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::cors::CorsOrigins;
use crate::problem::{Problem, ProblemKind};

/// The protocol that is spoken over the socket, and its version.
pub(super) const PROTOCOL: &str = "tidelog.v1";

/// What stands before a token among the protocols that are offered.
const TOKEN_PREFIX: &str = "bearer.";

/// How many bytes a handshake's key has.
const KEY_BYTES: usize = 16;

/// Takes the token out of the protocols that a handshake offers (`bearer.<token>`), and puts it where every other request has it: a page in a
/// browser can set no header on a WebSocket but this one. It stands before the sign-in.
///
/// A request that brings two tokens is left with both, which no sign-in accepts.
pub async fn offered_token(mut request: Request, next: Next) -> Response {
    promote(request.headers_mut());
    next.run(request).await
}

fn promote(headers: &mut HeaderMap) {
    let offered = protocols(headers);
    let is_token = |one: &String| one.starts_with(TOKEN_PREFIX);
    if !offered.iter().any(is_token) {
        return;
    }
    let (tokens, others): (Vec<_>, Vec<_>) = offered.into_iter().partition(is_token);
    for token in tokens {
        let token = token.trim_start_matches(TOKEN_PREFIX);
        if let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {token}")) {
            value.set_sensitive(true);
            headers.append(AUTHORIZATION, value);
        }
    }
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if let (false, Ok(others)) = (others.is_empty(), HeaderValue::from_str(&others.join(", "))) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, others);
    }
}

/// The answer to a handshake that goes well.
///
/// # Errors
///
/// [`ProblemKind::Forbidden`] for a page of an origin that is not among `origins`, [`ProblemKind::MalformedRequest`] for what is no handshake
/// of this protocol.
pub(super) fn accept(headers: &HeaderMap, origins: &CorsOrigins) -> Result<Response, Problem> {
    if headers
        .get_all(ORIGIN)
        .iter()
        .any(|origin| !origins.allow(origin))
    {
        let detail = "Pages of this origin may not open a WebSocket here. An operator names those that may with the setting cors_origins.";
        return Err(Problem::new(ProblemKind::Forbidden, detail));
    }
    if !names(headers, &CONNECTION, "upgrade") || !names(headers, &UPGRADE, "websocket") {
        return Err(malformed(
            "This is a WebSocket: ask for it with the headers Connection: Upgrade and Upgrade: websocket.",
        ));
    }
    if only(headers, &SEC_WEBSOCKET_VERSION) != Some(b"13") {
        let problem = malformed("The version of WebSocket is 13: say so in Sec-WebSocket-Version.");
        return Err(problem.with_header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
    }
    let key = only(headers, &SEC_WEBSOCKET_KEY).filter(|key| {
        STANDARD
            .decode(key)
            .is_ok_and(|bytes| bytes.len() == KEY_BYTES)
    });
    let key = key.ok_or_else(|| {
        malformed("The header Sec-WebSocket-Key must be 16 random bytes, in base64.")
    })?;
    let accepted = HeaderValue::from_str(&derive_accept_key(key));
    let accepted = accepted.map_err(|_| Problem::internal())?;
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    let offered = protocols(headers);
    if offered.iter().any(|one| one == PROTOCOL) {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    } else if !offered.is_empty() {
        return Err(malformed(&format!(
            "None of the protocols in Sec-WebSocket-Protocol is spoken here: offer {PROTOCOL}."
        )));
    }
    Ok(response)
}

/// The protocols that are offered, in order.
fn protocols(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let offered = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    let offered = offered.map(str::trim).filter(|one| !one.is_empty());
    offered.map(str::to_owned).collect()
}

/// Whether the list in the header `name` has `value`, in any case.
fn names(headers: &HeaderMap, name: &HeaderName, value: &str) -> bool {
    let lines = headers.get_all(name).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .any(|one| one.trim().eq_ignore_ascii_case(value))
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(HeaderValue::as_bytes);
    value.filter(|_| values.next().is_none())
}

fn malformed(detail: &str) -> Problem {
    Problem::new(ProblemKind::MalformedRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: [(&str, &str); 5] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "other, tidelog.v1"),
    ];

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    /// The answer to a right handshake but for one header.
    fn answer(but: Option<(&str, Option<&str>)>) -> Result<Response, ProblemKind> {
        let mut asked = headers(&RIGHT);
        if let Some((name, value)) = but {
            asked.remove(name);
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            if let Some(value) = value {
                asked.insert(name, HeaderValue::from_str(value).unwrap());
            }
        }
        let origins = CorsOrigins::parse("https://shop.example").unwrap();
        accept(&asked, &origins).map_err(|problem| problem.kind())
    }

    #[test]
    fn a_handshake_is_answered_as_the_standard_says() {
        let response = answer(None).unwrap();
        assert_eq!(response.status(), 101);
        // The example of RFC 6455, section 1.3.
        assert_eq!(
            response.headers()[SEC_WEBSOCKET_ACCEPT],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "tidelog.v1");
        let without = answer(Some(("sec-websocket-protocol", None))).unwrap();
        assert!(!without.headers().contains_key(SEC_WEBSOCKET_PROTOCOL));
    }

    #[test]
    fn what_is_no_handshake_is_told_what_is_missing() {
        for but in [
            ("connection", None),
            ("connection", Some("close")),
            ("upgrade", Some("h2c")),
            ("sec-websocket-version", Some("8")),
            ("sec-websocket-version", None),
            ("sec-websocket-key", None),
            ("sec-websocket-key", Some("c2hvcnQ=")),
            ("sec-websocket-protocol", Some("graphql-ws")),
        ] {
            let refused = answer(Some(but)).err();
            assert_eq!(refused, Some(ProblemKind::MalformedRequest), "{but:?}");
        }
    }

    #[test]
    fn a_page_of_another_origin_gets_no_socket() {
        assert!(answer(Some(("origin", Some("https://shop.example")))).is_ok());
        for other in ["https://evil.example", "null", "http://shop.example"] {
            let refused = answer(Some(("origin", Some(other)))).err();
            assert_eq!(refused, Some(ProblemKind::Forbidden), "{other}");
        }
        // However many there are, all must be.
        let mut both = headers(&RIGHT);
        both.append(ORIGIN, HeaderValue::from_static("https://shop.example"));
        both.append(ORIGIN, HeaderValue::from_static("https://evil.example"));
        let listed = CorsOrigins::parse("https://shop.example").unwrap();
        assert!(accept(&both, &listed).is_err());
        let mine = headers(&[&RIGHT[..], &[("origin", "http://localhost")]].concat());
        assert!(accept(&mine, &CorsOrigins::none()).is_err());
        assert!(accept(&mine, &CorsOrigins::any()).is_ok());
    }

    #[test]
    fn a_token_among_the_protocols_stands_where_the_sign_in_looks_and_is_not_seen_again() {
        let mut offered = headers(&[("sec-websocket-protocol", "tidelog.v1, bearer.a.b-_c")]);
        promote(&mut offered);
        assert_eq!(offered[AUTHORIZATION], "Bearer a.b-_c");
        assert!(offered[AUTHORIZATION].is_sensitive());
        assert_eq!(offered[SEC_WEBSOCKET_PROTOCOL], "tidelog.v1");
        let mut alone = headers(&[("sec-websocket-protocol", "bearer.x")]);
        promote(&mut alone);
        assert!(!alone.contains_key(SEC_WEBSOCKET_PROTOCOL));
        let mut twice = headers(&[
            ("authorization", "Bearer a"),
            ("sec-websocket-protocol", "bearer.b"),
        ]);
        promote(&mut twice);
        assert_eq!(twice.get_all(AUTHORIZATION).iter().count(), 2);
    }
}
