//! Which pages of other origins a browser lets speak to a service.

use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::context::{CORRELATION_ID, TRACEPARENT};

/// The most origins that may be listed.
const MAX_ORIGINS: usize = 64;

/// How long a browser need not ask again what is allowed.
const MAX_AGE: Duration = Duration::from_mins(10);

/// What a page may send beside what browsers always let through.
const REQUEST_HEADERS: [HeaderName; 10] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("consistency-token"),
    HeaderName::from_static("prefer"),
    HeaderName::from_static("last-event-id"),
    CORRELATION_ID,
    TRACEPARENT,
];

/// What a page may read of an answer beside what browsers always let through.
pub(crate) const EXPOSED_HEADERS: [HeaderName; 9] = [
    header::ETAG,
    header::LOCATION,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("consistency-token"),
    HeaderName::from_static("projection-lag"),
    HeaderName::from_static("preference-applied"),
    HeaderName::from_static("idempotency-replayed"),
    CORRELATION_ID,
];

/// Which pages of other origins may speak to a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorsOrigins(Allowed);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Allowed {
    #[default]
    None,
    Any,
    Listed(Vec<HeaderValue>),
}

impl CorsOrigins {
    /// None, which is so unless said otherwise.
    #[must_use]
    pub const fn none() -> Self {
        Self(Allowed::None)
    }

    /// Those of any origin: right for what everybody may read, and write where commands are taken.
    #[must_use]
    pub const fn any() -> Self {
        Self(Allowed::Any)
    }

    /// Reads a list of origins, as `https://shop.example, http://localhost:8080`, or `*` for any; an empty text for none.
    ///
    /// Each MUST be written as browsers do: a scheme and a host in lower case, a port where it is not the scheme's own, and
    /// nothing after it. `None` where one is not, or where there are more than 64.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "" => Some(Self::none()),
            "*" => Some(Self::any()),
            listed => {
                let origins: Option<Vec<_>> =
                    listed.split(',').map(|one| origin(one.trim())).collect();
                let origins = origins.filter(|origins| origins.len() <= MAX_ORIGINS);
                origins.map(|origins| Self(Allowed::Listed(origins)))
            }
        }
    }

    /// Whether pages of `origin` may speak to a service, as browsers write it in the header `Origin`.
    #[must_use]
    pub fn allow(&self, origin: &HeaderValue) -> bool {
        match &self.0 {
            Allowed::None => false,
            Allowed::Any => true,
            Allowed::Listed(origins) => origins.contains(origin),
        }
    }
}

/// An origin as browsers write it.
fn origin(text: &str) -> Option<HeaderValue> {
    let (scheme, host) = text.split_once("://")?;
    let own_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.chars().all(|c| plain(c) || "+-.".contains(c));
    let is_host = host.starts_with(|c| plain(c) || c == '[')
        && host.chars().all(|c| plain(c) || "-.:[]_".contains(c))
        && (own_port.is_empty() || !host.ends_with(own_port));
    let fits = is_scheme && is_host;
    HeaderValue::from_str(text).ok().filter(|_| fits)
}

/// Lets browsers send requests with `methods` to `router` for pages of `origins`, and show them the answers. Without origins
/// it changes nothing.
///
/// No credentials are shared: a browser sends no cookies along. It is no protection of the service either, which answers everybody
/// that is not a page in a browser.
pub fn cross_origin(router: Router, origins: &CorsOrigins, methods: &[Method]) -> Router {
    let origins = match &origins.0 {
        Allowed::None => return router,
        Allowed::Any => AllowOrigin::any(),
        Allowed::Listed(origins) => AllowOrigin::list(origins.iter().cloned()),
    };
    router.layer(
        CorsLayer::new()
            .allow_origin(origins)
            .allow_methods(methods.to_vec())
            .allow_headers(REQUEST_HEADERS)
            .expose_headers(EXPOSED_HEADERS)
            .max_age(MAX_AGE),
    )
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use axum::http::HeaderMap;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;
    use crate::app;

    const SHOP: &str = "https://shop.example";

    /// The status and the headers of the answer to a page of `origin`.
    async fn send(
        origins: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (u16, HeaderMap) {
        let origins = CorsOrigins::parse(origins).unwrap();
        let router = app(Router::new().route("/fine", get(async || "fine")));
        let router = cross_origin(router, &origins, &[Method::GET, Method::PATCH]);
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        (response.status().as_u16(), response.headers().clone())
    }

    fn allowed(headers: &HeaderMap) -> Option<&str> {
        let origin = headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN)?;
        origin.to_str().ok()
    }

    #[tokio::test]
    async fn a_listed_origin_may_and_another_may_not() {
        let origins = "https://shop.example, http://localhost:8080";
        let (status, headers) = send(origins, "GET", "/fine", &[("origin", SHOP)]).await;
        assert_eq!((status, allowed(&headers)), (200, Some(SHOP)));
        assert_eq!(headers[header::VARY], "origin");
        let exposed = &headers[header::ACCESS_CONTROL_EXPOSE_HEADERS];
        let exposed = exposed.to_str().unwrap();
        for name in ["consistency-token", "retry-after", "www-authenticate"] {
            assert!(exposed.contains(name), "no {name}");
        }
        for other in ["https://evil.example", "http://shop.example", "null"] {
            let (_, headers) = send(origins, "GET", "/fine", &[("origin", other)]).await;
            assert_eq!(allowed(&headers), None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_browser_that_asks_first_is_told_what_it_may_send() {
        let asks = [("origin", SHOP), ("access-control-request-method", "PATCH")];
        let (status, headers) = send(SHOP, "OPTIONS", "/fine", &asks).await;
        assert_eq!((status, allowed(&headers)), (200, Some(SHOP)));
        let told = |name| headers.get(name).and_then(|value| value.to_str().ok());
        assert_eq!(
            told(header::ACCESS_CONTROL_ALLOW_METHODS),
            Some("GET,PATCH")
        );
        assert_eq!(told(header::ACCESS_CONTROL_MAX_AGE), Some("600"));
        let sent = told(header::ACCESS_CONTROL_ALLOW_HEADERS).unwrap();
        for name in [
            "authorization",
            "if-match",
            "idempotency-key",
            "last-event-id",
            "traceparent",
        ] {
            assert!(sent.contains(name), "no {name} in {sent}");
        }
        assert_eq!(told(header::ACCESS_CONTROL_ALLOW_CREDENTIALS), None);
    }

    #[tokio::test]
    async fn what_is_not_found_can_be_read_as_such() {
        let (status, headers) = send(SHOP, "GET", "/nowhere", &[("origin", SHOP)]).await;
        assert_eq!((status, allowed(&headers)), (404, Some(SHOP)));
    }

    #[tokio::test]
    async fn a_star_lets_every_origin() {
        let (_, headers) = send("*", "GET", "/fine", &[("origin", "https://any.example")]).await;
        assert_eq!(allowed(&headers), Some("*"));
        assert!(!headers.contains_key(header::VARY));
    }

    #[tokio::test]
    async fn without_origins_nothing_is_said() {
        let (status, headers) = send("", "OPTIONS", "/fine", &[("origin", SHOP)]).await;
        assert_eq!((status, allowed(&headers)), (405, None));
    }

    #[test]
    fn origins_are_written_as_browsers_do() {
        for good in [
            "*",
            "",
            "http://localhost:8080",
            "https://a.example,https://b.example",
            "http://[::1]:3000",
            "capacitor://localhost",
        ] {
            assert!(CorsOrigins::parse(good).is_some(), "{good}");
        }
        for bad in [
            "shop.example",
            "https://shop.example/",
            "https://Shop.example",
            "https://shop.example:443",
            "http://shop.example:80",
            "https://user@shop.example",
            "https://",
            "null",
            "*, https://shop.example",
            "https://*.example",
            "https://a.example,,https://b.example",
        ] {
            assert_eq!(CorsOrigins::parse(bad), None, "{bad}");
        }
        let many = ["https://a.example"; MAX_ORIGINS + 1].join(",");
        assert_eq!(CorsOrigins::parse(&many), None);
    }
}
