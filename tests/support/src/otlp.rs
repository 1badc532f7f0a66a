//! A collector of traces, as far as a test needs one: it takes OTLP over HTTP and shows what came.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode as SpanStatus};
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The most bytes of one export.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// A collector of traces, which takes them until it is dropped.
#[derive(Debug)]
pub struct OtlpReceiver {
    endpoint: String,
    received: Arc<Mutex<Received>>,
    server: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Received {
    spans: Vec<ReceivedSpan>,
    /// All of it, as text, and the headers that came with it.
    text: String,
    headers: Vec<String>,
}

/// A span that was exported.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceivedSpan {
    /// What was done.
    pub name: String,
    /// Its trace, in hexadecimal digits.
    pub trace_id: String,
    /// Itself.
    pub span_id: String,
    /// The span that it is part of; empty for a root.
    pub parent_id: String,
    /// What is said of it.
    pub attributes: BTreeMap<String, String>,
    /// What is said of the process.
    pub resource: BTreeMap<String, String>,
    /// Whether it went wrong.
    pub is_error: bool,
    /// When it began and ended, in nanoseconds since 1970.
    pub time: (u64, u64),
}

impl ReceivedSpan {
    /// What the process runs.
    #[must_use]
    pub fn role(&self) -> &str {
        self.resource.get("tidelog.role").map_or("", String::as_str)
    }

    /// An attribute; empty where it has none of this name.
    #[must_use]
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

impl OtlpReceiver {
    /// Starts one on a port of its own.
    pub async fn start() -> Self {
        let listener = match TcpListener::bind("127.0.0.1:0").await {
            Ok(listener) => listener,
            Err(error) => panic!("no port for the collector: {error}"),
        };
        let endpoint = match listener.local_addr() {
            Ok(address) => format!("http://{address}"),
            Err(error) => panic!("the collector has no address: {error}"),
        };
        let received = Arc::<Mutex<Received>>::default();
        let router = Router::new()
            .route("/v1/traces", post(take))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(Arc::clone(&received));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                panic!("the collector broke off: {error}");
            }
        });
        Self {
            endpoint,
            received,
            server,
        }
    }

    /// Its address, for the setting `otlp_endpoint`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// All spans that came so far.
    #[must_use]
    pub fn spans(&self) -> Vec<ReceivedSpan> {
        self.lock().spans.clone()
    }

    /// The spans of one trace that came so far.
    #[must_use]
    pub fn spans_of(&self, trace_id: &str) -> Vec<ReceivedSpan> {
        let mut spans = self.spans();
        spans.retain(|span| span.trace_id == trace_id);
        spans
    }

    /// All that came so far, as one text, to look for what must not be in it.
    #[must_use]
    pub fn text(&self) -> String {
        self.lock().text.clone()
    }

    /// The headers of all that came so far, `name: value` each.
    #[must_use]
    pub fn headers(&self) -> Vec<String> {
        self.lock().headers.clone()
    }

    /// The tree of a trace: one line a span, with the role of its process, below the span that it is part of. Those of one parent are in
    /// the order of their lines, and whose parent did not come is at the left, as a root is.
    #[must_use]
    pub fn tree(&self, trace_id: &str) -> String {
        let spans = self.spans_of(trace_id);
        let is_known = |id: &str| spans.iter().any(|span| span.span_id == id);
        let mut tree = String::new();
        let roots = spans.iter().filter(|span| !is_known(&span.parent_id));
        draw(&mut tree, &spans, roots.collect(), 0);
        tree
    }

    fn lock(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OtlpReceiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn draw(tree: &mut String, all: &[ReceivedSpan], mut level: Vec<&ReceivedSpan>, depth: usize) {
    level.sort_by_key(|span| (span.name.clone(), span.role().to_owned(), span.time));
    for span in level {
        let indent = "  ".repeat(depth);
        let failed = if span.is_error { " failed" } else { "" };
        // Writing to a text cannot fail.
        let _ = writeln!(tree, "{indent}{} ({}){failed}", span.name, span.role());
        let below = all.iter().filter(|own| own.parent_id == span.span_id);
        draw(tree, all, below.collect(), depth + 1);
    }
}

async fn take(
    State(received): State<Arc<Mutex<Received>>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST;
    };
    let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
    // Writing to a text cannot fail.
    let _ = writeln!(received.text, "{request:?}");
    let lines = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value:?}"));
    received.headers.extend(lines);
    for of_process in request.resource_spans {
        let resource = of_process.resource.map(|own| own.attributes);
        let resource = texts(resource.unwrap_or_default());
        let spans = of_process.scope_spans.into_iter().flat_map(|own| own.spans);
        received
            .spans
            .extend(spans.map(|span| understood(span, &resource)));
    }
    StatusCode::OK
}

fn understood(span: Span, resource: &BTreeMap<String, String>) -> ReceivedSpan {
    ReceivedSpan {
        name: span.name,
        trace_id: hexadecimal(&span.trace_id),
        span_id: hexadecimal(&span.span_id),
        parent_id: hexadecimal(&span.parent_span_id),
        attributes: texts(span.attributes),
        resource: resource.clone(),
        is_error: span
            .status
            .is_some_and(|status| status.code() == SpanStatus::Error),
        time: (span.start_time_unix_nano, span.end_time_unix_nano),
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(is)) => is.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    let values = attributes.into_iter();
    let values = values.map(|own| (own.key, text(own.value.and_then(|own| own.value))));
    values.collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
