//! What requests say beside their message: one line each, `name: value`.

use tidelog::axum::body::Body;
use tidelog::axum::http::{HeaderName, HeaderValue, Method, Request};
use tidelog_http::RequestContext;

use super::fuzz;
use super::inputs::Target;
use super::requests::{Part, Site};

const HEADERS: Target = Target {
    name: "headers",
    examples: &[
        "if-match: \"1\"\nidempotency-key: \"8e03978e-40d5-43dd-bc93-6894a57f9324\"",
        "if-match: *\nprefer: return=minimal",
        "if-match: \"1\", W/\"2.x\", \"3.representation\"",
        "if-none-match: \"1.abc\"",
        "prefer: wait=0, respond-async\nprefer: handling=lenient; a=\"x, y\"",
        "consistency-token: 1.0190a4f1b2c37d4e8f9012345678abcd.3-17.4-1",
        "accept: text/event-stream",
        "last-event-id: 1.0190a4f1b2c37d4e8f9012345678abcd.3-17",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\ntracestate: a=b",
        "x-correlation-id: order:7/a",
        "accept: application/json;q=0.5, */*\naccept-encoding: gzip;q=1, br",
        "content-type: application/merge-patch+json; charset=\"utf-8\"",
        "authorization: Bearer eyJhbGciOiJub25lIn0.e30.\norigin: https://shop.example",
    ],
    near: &[
        "if-match: \"a,b\"",
        "if-match: \"1",
        "if-match: 1",
        "if-none-match: \"*\"",
        "idempotency-key: \"a\" \"b\"",
        "idempotency-key: \"a\\\"",
        "prefer: wait=-1",
        "accept: text/event-stream\nlast-event-id: 1.0190a4f1b2c37d4e8f9012345678abcd.3-17",
        "content-type: application/json; charset=latin1",
        "content-length: 99999999999999999999",
        "x-correlation-id: a b",
        "traceparent: 00-0-0-0",
        "consistency-token: 1",
    ],
    words: &[
        "if-match: ",
        "if-none-match: ",
        "idempotency-key: ",
        "prefer: ",
        "consistency-token: ",
        "last-event-id: ",
        "traceparent: ",
        "x-correlation-id: ",
        "accept: ",
        "content-type: ",
        "content-length: ",
        "authorization: ",
        "origin: ",
        "range: ",
        "\n",
        "\"",
        "W/",
        "*",
        ", ",
        "wait=",
        "return=minimal",
        "text/event-stream",
        "application/json",
        "00-",
        "-01",
        "q=",
        ";",
        "Bearer ",
        "Basic ",
    ],
};

/// The lines as headers; those that no server would take for one are left out.
fn lines(bytes: &[u8]) -> Vec<(HeaderName, HeaderValue)> {
    let line = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = line[colon + 1..].trim_ascii();
        Some((name, HeaderValue::from_bytes(value).ok()?))
    };
    bytes
        .split(|byte| *byte == b'\n')
        .filter_map(line)
        .collect()
}

/// A request with these headers. The first preference is not to wait: for what a token names may never come.
fn request(
    method: Method,
    path: &str,
    own: &[(HeaderName, HeaderValue)],
    body: &str,
) -> Request<Body> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("prefer", "wait=0");
    if !body.is_empty() && !own.iter().any(|(name, _)| name == "content-type") {
        request = request.header("content-type", "application/merge-patch+json");
    }
    for (name, value) in own {
        request = request.header(name, value);
    }
    request.body(Body::from(body.to_owned())).unwrap()
}

#[test]
fn headers() {
    let (mut site, mut tried) = (Site::new(), 0);
    fuzz(&HEADERS, move |bytes| {
        let own = lines(bytes);
        if let Ok(context) = RequestContext::from_headers(&own.iter().cloned().collect()) {
            // Both are written into logs and events.
            assert!((1..=128).contains(&context.correlation_id().len()));
            let trace = context.traceparent().and_then(tidelog_telemetry::trace_id);
            assert_eq!(trace.is_some(), context.traceparent().is_some());
        }
        let patch = "{\"stars\": 7}";
        let requests = [
            (Part::Queries, Method::GET, "/note/a", ""),
            (Part::Commands, Method::PATCH, "/note/a", patch),
            (Part::Queries, Method::GET, "/notes", ""),
            (Part::Commands, Method::PATCH, "/note/nobody", patch),
            (Part::Commands, Method::GET, "/events?partition=0", ""),
            (Part::Admin, Method::GET, "/admin/api/streams", ""),
        ];
        tried += 1;
        // The examples are for all of them; then each input is for one, so that there are more of them.
        let (first, count) = match tried <= HEADERS.examples.len() {
            true => (0, requests.len()),
            false => (tried % requests.len(), 1),
        };
        let mut understood = false;
        for (part, method, path, body) in requests.into_iter().skip(first).take(count) {
            understood |= site.ask(part, request(method, path, &own, body));
        }
        understood && !own.is_empty()
    });
}
