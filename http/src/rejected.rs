//! Counting who was turned away.

use metrics::Counter;

/// What the requests and connections are counted by that `service` turned away for `reason`.
pub(crate) fn rejected(service: &'static str, reason: &'static str) -> Counter {
    metrics::counter!("tidelog_http_rejected_total", "service" => service, "reason" => reason)
}
