//! What is counted and timed on the way, by the facade `metrics`, and kept for Prometheus.

use std::sync::OnceLock;

use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// The bounds of times, in seconds: from an append in memory to what somebody gives up on.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Begins to keep what is recorded in this process. Where the program keeps it by a recorder of its own, it is there and not here.
pub(super) fn begin() {
    let _ = kept();
}

/// All of it, in Prometheus' text format.
pub(super) fn page() -> String {
    kept().map_or_else(String::new, PrometheusHandle::render)
}

/// Puts in order what was recorded. To be called every few seconds: until then each time that was taken is kept by itself.
pub(super) fn upkeep() {
    if let Some(kept) = kept() {
        kept.run_upkeep();
    }
}

fn kept() -> Option<&'static PrometheusHandle> {
    static KEPT: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let kept = KEPT.get_or_init(|| {
        let seconds = Matcher::Suffix("_seconds".to_owned());
        let builder = PrometheusBuilder::new().set_buckets_for_metric(seconds, &SECONDS);
        let recorder = builder.unwrap_or_default().build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok()?;
        describe();
        Some(handle)
    });
    kept.as_ref()
}

/// Says what each is.
fn describe() {
    describe_counter!(
        "tidelog_http_requests_total",
        "Requests that were answered."
    );
    describe_histogram!(
        "tidelog_http_request_duration_seconds",
        "How long it took until an answer began."
    );
    describe_counter!(
        "tidelog_http_rejected_total",
        "Requests and connections that were turned away for the sake of the others."
    );
    describe_gauge!("tidelog_http_connections", "Connections that are open.");
    describe_gauge!("tidelog_http_sockets", "WebSockets that are open.");
    describe_gauge!(
        "tidelog_http_socket_subscriptions",
        "Live queries that are told over WebSockets."
    );
    describe_counter!(
        "tidelog_http_sockets_ended_total",
        "WebSockets that have ended, by why."
    );
    describe_counter!("tidelog_commands_total", "Commands, by how they came out.");
    describe_histogram!(
        "tidelog_append_duration_seconds",
        "How long a command took from the queue to its answer."
    );
    describe_counter!(
        "tidelog_admin_actions_total",
        "Operators' actions, by how they came out."
    );
    describe_counter!(
        "tidelog_sign_ins_refused_total",
        "Requests of callers who were not signed in, by why."
    );
    describe_counter!(
        "tidelog_events_appended_total",
        "Events that were appended to the log."
    );
    describe_counter!(
        "tidelog_subscription_events_total",
        "Events that were given to a view or a reaction, by what became of them; again where they were given to it again."
    );
}
