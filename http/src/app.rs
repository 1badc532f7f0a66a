//! What every service does with every request: name the conversation, catch panics, count it, answer the unknown.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tracing::Instrument;

use crate::context::{CORRELATION_ID, RequestContext};
use crate::observed::{Measures, observe, request_span};
use crate::problem::{Problem, ProblemKind};

/// The most characters of a client's text that are repeated to it in a detail.
pub(crate) const MAX_QUOTED: usize = 64;

/// Makes `router` a whole service: what it does not know is answered with a problem document, and
/// [`with_context`] applies to all of it.
pub fn app(router: Router) -> Router {
    with_context(
        router
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed),
    )
}

/// Gives each request of `router` a [`RequestContext`] and a tracing span that names its correlation id, echoes the id,
/// and turns a panic into a problem document.
///
/// Applied twice, it does nothing the second time. Routes and fallbacks that are added later are not covered.
pub fn with_context(router: Router) -> Router {
    router.layer(from_fn_with_state(None, in_context))
}

/// The same as [`with_context`], which also measures each request as one to `service`: how many there are, how they are answered and how
/// long that takes.
pub fn with_context_of(service: &'static str, router: Router) -> Router {
    router.layer(from_fn_with_state(Some(Measures::of(service)), in_context))
}

async fn in_context(
    State(measures): State<Option<Measures>>,
    request: Request,
    next: Next,
) -> Response {
    let measured = measures.map(|measures| measures.begin(&request));
    let response = answer(request, next).await;
    if let Some(measured) = measured {
        measured.end(response.status());
    }
    response
}

async fn answer(mut request: Request, next: Next) -> Response {
    if request.extensions().get::<RequestContext>().is_some() {
        return next.run(request).await;
    }
    let (context, malformed) = match RequestContext::from_headers(request.headers()) {
        Ok(context) => (context, None),
        Err(problem) => (RequestContext::new(), Some(problem)),
    };
    let mut response = match malformed {
        Some(problem) => problem.into_response(),
        None => {
            request.extensions_mut().insert(context.clone());
            run(request, next, &context).await
        }
    };
    if let Ok(id) = HeaderValue::from_str(context.correlation_id()) {
        response.headers_mut().insert(CORRELATION_ID, id);
    }
    response
}

/// Handles the request in a span of its own.
async fn run(request: Request, next: Next, context: &RequestContext) -> Response {
    let span = request_span(&request, context);
    let response = async {
        AssertUnwindSafe(next.run(request))
            .catch_unwind()
            .await
            .unwrap_or_else(|panic| panicked(panic.as_ref()))
    }
    .instrument(span.clone())
    .await;
    observe(&span, response.status());
    response
}

/// Logs a panic (in the request's span, so under its correlation id) and hides it from the client.
fn panicked(panic: &(dyn Any + Send)) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(
        panic = text.unwrap_or("of an unknown kind"),
        "a request handler panicked"
    );
    Problem::internal().into_response()
}

async fn not_found(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(MAX_QUOTED).collect();
    Problem::new(
        ProblemKind::NotFound,
        format!("Nothing is served at {path}. Check the path and that this is the right service."),
    )
}

async fn method_not_allowed(method: Method) -> Problem {
    Problem::new(
        ProblemKind::MethodNotAllowed,
        format!("{method} is not possible here. The header Allow names what is."),
    )
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::header;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;
    use crate::body::tests::problem;

    fn service() -> Router {
        app(Router::new()
            .route(
                "/fine",
                get(|context: RequestContext| async move { context.correlation_id().to_owned() }),
            )
            .route("/broken", get(broken)))
    }

    #[allow(clippy::panic, reason = "what happens to a panic is the test")]
    async fn broken() {
        panic!("secret");
    }

    async fn send(method: &str, path: &str, correlation: Option<&str>) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(id) = correlation {
            request = request.header(CORRELATION_ID, id);
        }
        let request = request.body(Body::empty()).unwrap();
        service().oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn the_correlation_id_reaches_the_handler_and_comes_back() {
        let response = send("GET", "/fine", Some("mine")).await;
        assert_eq!(response.headers()[CORRELATION_ID], "mine");
        let body = axum::body::to_bytes(response.into_body(), 1024).await;
        assert_eq!(body.unwrap(), "mine");
    }

    #[tokio::test]
    async fn an_unknown_path_is_a_problem_that_names_it() {
        let response = send("GET", "/nowhere", None).await;
        assert!(response.headers().contains_key(CORRELATION_ID));
        let (status, body) = problem(response).await;
        assert_eq!(
            (status, body["type"].as_str().unwrap()),
            (404, "urn:tidelog:problem:not-found")
        );
        assert!(body["detail"].as_str().unwrap().contains("/nowhere"));
    }

    #[tokio::test]
    async fn a_wrong_method_is_a_problem_that_allows_the_right_ones() {
        let response = send("DELETE", "/fine", None).await;
        assert_eq!(response.headers()[header::ALLOW], "GET,HEAD");
        let (status, body) = problem(response).await;
        assert_eq!(
            (status, body["type"].as_str().unwrap()),
            (405, "urn:tidelog:problem:method-not-allowed")
        );
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_that_tells_nothing() {
        let response = send("GET", "/broken", Some("mine")).await;
        assert_eq!(response.headers()[CORRELATION_ID], "mine");
        let (status, body) = problem(response).await;
        assert_eq!(
            (status, body["type"].as_str().unwrap()),
            (500, "urn:tidelog:problem:internal")
        );
        assert!(!body.to_string().contains("secret"));
    }

    #[tokio::test]
    async fn a_bad_correlation_id_is_a_problem_under_a_new_one() {
        let response = send("GET", "/fine", Some("a b")).await;
        assert_ne!(response.headers()[CORRELATION_ID], "a b");
        assert_eq!(problem(response).await.0, 400);
    }
}
