//! Spans of what is done about events, each in the trace of the request that the event goes back to.

use std::borrow::Cow;

use chrono::{TimeDelta, Utc};
use serde::Deserialize;
use tidelog_domain::{Position, RecordedEvent};
use tidelog_telemetry::{adopt, is_on, is_sampled};
use tracing::Span;

/// How many events of a batch have a span, at most: enough to see a request by, and no more than a batch can bear.
const MAX_SPANS: usize = 64;

/// For how long an event has spans. Nobody waits any more for the trace of an older one, and who reads the log from its beginning
/// would bury the collector.
const RECENT: TimeDelta = TimeDelta::minutes(15);

/// Which events have spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those of the last 15 minutes.
    Recent,
    /// Of whatever age: they are tried again.
    All,
}

impl Which {
    fn has(self, event: &RecordedEvent) -> bool {
        self == Self::All || Utc::now() - event.recorded_at < RECENT
    }
}

/// Spans of a batch of events. There are none where traces are not exported.
#[derive(Default)]
pub(crate) struct Spans(Vec<(Position, Span)>);

impl Spans {
    /// A span, made by `begin`, for each of `events` that is of a trace which is recorded; 64 at most.
    pub(crate) fn of<'e>(
        events: impl IntoIterator<Item = &'e RecordedEvent>,
        which: Which,
        begin: impl Fn(&RecordedEvent) -> Span,
    ) -> Self {
        if !is_on() {
            return Self::default();
        }
        let spans = events.into_iter().filter_map(|event| {
            let traceparent = traceparent(event)?;
            if !is_sampled(&traceparent) || !which.has(event) {
                return None;
            }
            let span = begin(event);
            adopt(&span, &traceparent);
            Some((event.position, span))
        });
        Self(spans.take(MAX_SPANS).collect())
    }

    /// It is done; `outcome` says what became of each event.
    pub(crate) fn end(self, outcome: impl Fn(Position) -> &'static str) {
        for (position, span) in self.0 {
            told(&span, outcome(position));
        }
    }
}

/// The span, made by `begin`, of what is done about `event` alone: whatever is done in it belongs to the trace of the event, recorded or
/// not. None where there is no trace, or none is exported.
pub(crate) fn span_of(event: &RecordedEvent, begin: impl FnOnce() -> Span) -> Span {
    let recent = is_on() && Which::Recent.has(event);
    match recent.then(|| traceparent(event)).flatten() {
        Some(traceparent) => {
            let span = begin();
            adopt(&span, &traceparent);
            span
        }
        None => Span::none(),
    }
}

/// What was done came to `outcome`: `handled`, `published`, `skipped`, or an error.
pub(crate) fn told(span: &Span, outcome: &'static str) {
    span.record("outcome", outcome);
    if !matches!(outcome, "handled" | "published" | "skipped") {
        span.record("otel.status_code", "ERROR");
    }
}

/// The trace that an event goes back to, as its metadata says.
fn traceparent(event: &RecordedEvent) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Traced<'a> {
        #[serde(borrow, default)]
        traceparent: Option<Cow<'a, str>>,
    }
    // What cannot be read is no trace; whoever needs the metadata says so.
    let metadata: Traced<'_> = serde_json::from_slice(event.metadata.as_bytes()).ok()?;
    metadata.traceparent
}

#[cfg(test)]
mod tests {
    use tidelog_domain::Payload;

    use super::*;
    use crate::sample::event;

    #[test]
    fn the_trace_of_an_event_is_in_its_metadata() {
        let mut one = event(0, 1);
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let metadata = serde_json::json!({"correlation_id": "traceparent", "traceparent": text});
        one.metadata = Payload::of(&metadata).unwrap();
        assert_eq!(traceparent(&one).as_deref(), Some(text));
        for none in [
            serde_json::json!({"correlation_id": "c"}),
            serde_json::json!([]),
        ] {
            one.metadata = Payload::of(&none).unwrap();
            assert_eq!(traceparent(&one), None);
        }
    }

    #[test]
    fn events_of_long_ago_have_no_spans_but_when_they_are_tried_again() {
        let mut one = event(0, 1);
        one.recorded_at = Utc::now() - TimeDelta::minutes(14);
        assert!(Which::Recent.has(&one));
        one.recorded_at = Utc::now() - TimeDelta::minutes(16);
        assert!(!Which::Recent.has(&one) && Which::All.has(&one));
    }
}
