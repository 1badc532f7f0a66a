//! What is told of each request: its span, and the counts and times of its service.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use metrics::{Counter, Histogram};
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

/// What is measured of the requests to one service. Cloning gives another handle to the same.
#[derive(Clone)]
pub(crate) struct Measures {
    service: &'static str,
    /// By route. What they are counted by is looked up once: that takes longer than to count.
    routes: Arc<RwLock<HashMap<String, Arc<Route>>>>,
}

/// What is measured of the requests to one route.
struct Route {
    service: &'static str,
    name: String,
    took: Histogram,
    answers: RwLock<HashMap<(&'static str, u16), Counter>>,
}

/// A request that is measured.
pub(crate) struct Measured {
    route: Arc<Route>,
    method: &'static str,
    began: Instant,
}

impl Measures {
    /// Of `service`.
    pub(crate) fn of(service: &'static str) -> Self {
        Self {
            service,
            routes: Arc::default(),
        }
    }

    /// A request, from now on.
    pub(crate) fn begin(&self, request: &Request) -> Measured {
        Measured {
            route: self.route(route(request)),
            method: method(request.method()),
            began: Instant::now(),
        }
    }

    fn route(&self, name: &str) -> Arc<Route> {
        let known = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = known.get(name) {
            return Arc::clone(route);
        }
        drop(known);
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let route = routes.entry(name.to_owned()).or_insert_with(|| {
            let (service, name) = (self.service, name.to_owned());
            let took = metrics::histogram!(
                "tidelog_http_request_duration_seconds", "service" => service, "route" => name.clone()
            );
            Arc::new(Route {
                service,
                name,
                took,
                answers: RwLock::default(),
            })
        });
        Arc::clone(route)
    }
}

impl Measured {
    /// It is answered with `status`; its body may still be on the way.
    pub(crate) fn end(self, status: StatusCode) {
        self.route.took.record(self.began.elapsed());
        self.route.answered(self.method, status);
    }
}

impl Route {
    fn answered(&self, method: &'static str, status: StatusCode) {
        let key = (method, status.as_u16());
        let known = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = known.get(&key) {
            return counter.increment(1);
        }
        drop(known);
        let (service, route, status) =
            (self.service, self.name.clone(), status.as_str().to_owned());
        let counter = metrics::counter!(
            "tidelog_http_requests_total", "service" => service, "method" => method, "route" => route, "status" => status
        );
        counter.increment(1);
        let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
        answers.insert(key, counter);
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
