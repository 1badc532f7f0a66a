//! What is told of each request: its span, and the counts and times of its service.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use tidelog_telemetry::{NOT_EXPORTED, adopt, is_on, trace_id, traceparent};
use tracing::Span;
use tracing::field::Empty;

use crate::context::RequestContext;

/// What is asked every few seconds by whoever watches a process. No trace is made of it.
const WATCHED: [&str; 3] = ["/health/live", "/health/ready", "/metrics"];

/// What stands for a path that is served by no route, and for a method that is none of the usual ones: clients can think of many.
const OTHER: &str = "other";

/// The span of a request. Where traces are exported, it is part of the client's trace, if there is one.
pub(crate) fn request_span(request: &Request, context: &RequestContext) -> Span {
    let (method, correlation_id) = (request.method(), context.correlation_id());
    if WATCHED.contains(&request.uri().path()) {
        return tracing::info_span!(target: NOT_EXPORTED, "request", %method, correlation_id);
    }
    if !is_on() {
        return tracing::info_span!("request", %method, correlation_id);
    }
    let span = tracing::info_span!(
        "request", %method, correlation_id, otel.kind = "server", http.route = route(request), trace_id = Empty,
        status = Empty, otel.status_code = Empty
    );
    if let Some(trace) = context.traceparent() {
        adopt(&span, trace);
    }
    if let Some(own) = traceparent(&span) {
        span.record("trace_id", trace_id(&own));
    }
    span
}

/// Says in the span of a request how it was answered.
pub(crate) fn observe(span: &Span, status: StatusCode) {
    if is_on() {
        span.record("status", status.as_u16());
        if status.is_server_error() {
            span.record("otel.status_code", "ERROR");
        }
    }
}

/// A request that is measured.
pub(crate) struct Measured {
    service: &'static str,
    route: String,
    method: &'static str,
    began: Instant,
}

impl Measured {
    /// A request to `service`, from now on.
    pub(crate) fn begin(service: &'static str, request: &Request) -> Self {
        Self {
            service,
            route: route(request).to_owned(),
            method: method(request.method()),
            began: Instant::now(),
        }
    }

    /// It is answered with `status`; its body may still be on the way.
    pub(crate) fn end(self, status: StatusCode) {
        let took = self.began.elapsed();
        let Self {
            service,
            route,
            method,
            ..
        } = self;
        let status = status.as_str().to_owned();
        metrics::histogram!("tidelog_http_request_duration_seconds", "service" => service, "route" => route.clone())
            .record(took);
        metrics::counter!(
            "tidelog_http_requests_total", "service" => service, "method" => method, "route" => route, "status" => status
        )
        .increment(1);
    }
}

/// The route that serves a request: a pattern, so that there are few.
fn route(request: &Request) -> &str {
    let route = request.extensions().get::<MatchedPath>();
    route.map_or(OTHER, MatchedPath::as_str)
}

/// A method by its name.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_a_client_made_up_is_no_label_of_its_own() {
        let made_up = Method::from_bytes(b"PLEASE").unwrap();
        assert_eq!([method(&Method::PATCH), method(&made_up)], ["PATCH", OTHER]);
    }

    #[test]
    fn a_path_that_no_route_serves_is_no_label_of_its_own() {
        let request = Request::get("/wp-login.php").body(axum::body::Body::empty());
        assert_eq!(route(&request.unwrap()), OTHER);
    }
}
