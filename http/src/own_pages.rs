//! A listener that nobody signs in to and that this machine alone reaches: its browser is kept from speaking to it for pages of others.
//!
//! Such a page may give its own name the listener's address, so that the browser takes the two for one (DNS rebinding), or have the browser send what
//! changes something and never read the answer (CSRF). A browser says what name it asked for, and whose page asked.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use crate::app::with_context;
use crate::cors::CorsOrigins;
use crate::problem::{Problem, ProblemKind};

/// The most characters of a client's text that are repeated to it.
const MAX_QUOTED_CHARS: usize = 64;

/// Whether this `Host` can only mean the listener, which is called `name` beside its addresses: another name that somebody gives out may be a
/// page's own. An address is nobody's to give.
#[must_use]
pub fn is_own_host(host: &str, name: &str) -> bool {
    let host = without_port(host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || (!name.is_empty() && host.eq_ignore_ascii_case(name))
        || bare.parse::<IpAddr>().is_ok()
}

/// A `Host` without its port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((before, port)) if port.bytes().all(|b| b.is_ascii_digit()) => before,
        _ => host,
    }
}

/// Turns down, with [`ProblemKind::Forbidden`], what a browser sends to `router` for a page of another site: for a name that is not the listener's
/// ([`is_own_host`]), and what changes something, or asks for another protocol, for a page that is neither its own nor of `origins`. A request
/// without a `Host` comes from no browser.
pub fn own_pages_alone(router: Router, name: &str, origins: &CorsOrigins) -> Router {
    let own = Own {
        name: name.into(),
        origins: origins.clone(),
    };
    with_context(router.layer(from_fn_with_state(own, check)))
}

/// Whose pages may ask.
#[derive(Clone)]
struct Own {
    name: Arc<str>,
    origins: CorsOrigins,
}

async fn check(State(own): State<Own>, request: Request, next: Next) -> Response {
    match own.refuses(&request) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

impl Own {
    fn refuses(&self, request: &Request) -> Option<Problem> {
        let headers = request.headers();
        let named = headers.get_all(header::HOST).iter();
        let named = named.map(|host| host.to_str().unwrap_or_default());
        let asked = request.uri().authority().map(|asked| asked.as_str());
        let foreign = named
            .chain(asked)
            .find(|host| !is_own_host(host, &self.name));
        if let Some(foreign) = foreign {
            let foreign: String = foreign.chars().take(MAX_QUOTED_CHARS).collect();
            return Some(not_called(&foreign));
        }
        let changes = !request.method().is_safe() || headers.contains_key(header::UPGRADE);
        let is_foreign = changes && !self.is_own_page(headers);
        is_foreign.then(of_another_site)
    }

    /// Whether a request with these headers comes from one of the pages that may ask, or from no page.
    fn is_own_page(&self, headers: &HeaderMap) -> bool {
        let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
        let mut origins = headers.get_all(header::ORIGIN).iter();
        origins.all(|origin| {
            let text = origin.as_bytes();
            let own = text
                .strip_prefix(b"http://")
                .or_else(|| text.strip_prefix(b"https://"));
            let is_own =
                matches!((own, host), (Some(own), Some(host)) if own.eq_ignore_ascii_case(host));
            is_own || self.origins.allow(origin)
        })
    }
}

fn not_called(foreign: &str) -> Problem {
    let detail = format!(
        "This listener is not called {foreign:?}, and nobody signs in here. Use its address, or localhost; or have callers sign in, or set \
         insecure_no_auth where something before it decides who gets here: then any name will do."
    );
    Problem::new(ProblemKind::Forbidden, detail)
}

fn of_another_site() -> Problem {
    let detail = "The request was sent by a page of another site, and nobody signs in here. Nothing was done. The setting cors_origins has the \
                  sites whose pages may ask.";
    Problem::new(ProblemKind::Forbidden, detail)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;
    use crate::app::app;
    use crate::context::CORRELATION_ID;

    #[test]
    fn a_listener_is_called_by_addresses_localhost_and_its_own_name() {
        for host in [
            "localhost:4000",
            "LocalHost",
            "127.0.0.1:4000",
            "[::1]:4000",
            "10.1.2.3",
            "Blog.internal:8080",
        ] {
            assert!(is_own_host(host, "blog.internal"), "{host}");
        }
        for host in [
            "evil.example:4000",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
            "127.0.0.1:4000@evil.example",
        ] {
            assert!(!is_own_host(host, "blog.internal"), "{host}");
            assert!(!is_own_host(host, ""), "{host}");
        }
    }

    #[tokio::test]
    async fn a_page_of_another_site_gets_nothing_done() {
        let fine = get(async || "fine").post(async || "done");
        let origins = CorsOrigins::parse("https://shop.example").unwrap();
        let service = own_pages_alone(
            app(Router::new().route("/", fine)),
            "blog.internal",
            &origins,
        );
        let (own, evil) = ("http://127.0.0.1:4000", "http://evil.example");
        let here = ("host", "127.0.0.1:4000");
        for (method, headers, status) in [
            ("POST", vec![], 200),
            ("POST", vec![here], 200),
            ("POST", vec![here, ("origin", own)], 200),
            ("POST", vec![here, ("origin", "https://shop.example")], 200),
            ("POST", vec![here, ("origin", evil)], 403),
            ("POST", vec![here, ("origin", "null")], 403),
            ("POST", vec![here, ("origin", own), ("origin", evil)], 403),
            ("POST", vec![("origin", evil)], 403),
            (
                "POST",
                vec![("host", "evil.example"), ("origin", evil)],
                403,
            ),
            ("POST", vec![here, ("host", "evil.example")], 403),
            ("GET", vec![("host", "evil.example")], 403),
            // What it may not read, it may ask: browsers see to that.
            ("GET", vec![here, ("origin", evil)], 200),
            (
                "GET",
                vec![here, ("origin", evil), ("upgrade", "websocket")],
                403,
            ),
            ("GET", vec![("host", "blog.internal:4000")], 200),
        ] {
            let mut request = Request::builder().method(method).uri("/");
            for (name, value) in &headers {
                request = request.header(*name, *value);
            }
            let request = request.body(Body::empty()).unwrap();
            let answer = service.clone().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), status, "{method} {headers:?}");
            assert!(answer.headers().contains_key(CORRELATION_ID));
        }
        let request = Request::get("http://evil.example/").header("host", "localhost");
        let request = request.body(Body::empty()).unwrap();
        let answer = service.oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 403);
    }
}
