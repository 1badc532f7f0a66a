//! `/openapi.json`, and the page `/docs` that shows it.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::Value;

/// The page: one file, which loads nothing but the document beside it.
const PAGE: &str = include_str!("page.html");

/// What the page may do: run what is in it, and talk to its own service.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /openapi.json`: `document`. `GET /docs`: a page that shows it, and needs no network but its own service.
///
/// The page finds the document beside itself, wherever the router is mounted.
pub fn docs_router(document: &Value) -> Router {
    let document = axum::body::Bytes::from(document.to_string());
    Router::new()
        .route(
            "/openapi.json",
            get(async move || answer("application/json", document)),
        )
        .route(
            "/docs",
            get(async || answer("text/html; charset=utf-8", PAGE)),
        )
}

fn answer(media_type: &'static str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] as [(HeaderName, &'static str); 4]
    {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::extract::Request;
    use serde_json::json;
    use tower::ServiceExt;

    use super::*;

    async fn get(router: Router, path: &str) -> (Response<()>, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
        let bytes = to_bytes(body, 1 << 20).await.unwrap();
        (
            Response::from_parts(parts, ()),
            String::from_utf8(bytes.to_vec()).unwrap(),
        )
    }

    #[tokio::test]
    async fn the_document_and_its_page_are_served_wherever_they_are_mounted() {
        let document = json!({"openapi": "3.1.1"});
        let mounted = Router::new().nest("/api", docs_router(&document));
        let (response, body) = get(mounted.clone(), "/api/openapi.json").await;
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(body, document.to_string());
        let (response, body) = get(mounted, "/api/docs").await;
        assert_eq!(
            response.headers()["content-type"],
            "text/html; charset=utf-8"
        );
        assert_eq!(body, PAGE);
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        for outside in ["http://", "https://", "src=", "@import", "url(", "<link"] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
        // What a service says must never become markup.
        for markup in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!PAGE.contains(markup), "{markup}");
        }
    }
}
