//! Traces: what one request sets going, as one tree of spans, in all processes that have a part in it.
//!
//! Spans are those of `tracing`. From one process to the next a trace goes by its W3C `traceparent`: in a header, and in the metadata
//! of the events that a command appends. Whoever handles such an event [adopts](adopt) it.
//!
//! Without the feature `otlp`, and in a process that does not export, nothing here does anything: [`is_on`] is false, and
//! [`traced!`] makes no span.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "tests fail loudly"
    )
)]

#[cfg_attr(not(feature = "otlp"), path = "off.rs")]
mod otlp;
mod traceparent;

#[cfg(feature = "otlp")]
pub use otlp::{Export, ExportError, Exporting};
pub use otlp::{adopt, is_on, traceparent};
pub use traceparent::{is_sampled, trace_id};
#[doc(hidden)]
pub use tracing;

/// The target of spans that are never exported: those of requests that ask how a process is, every few seconds.
pub const NOT_EXPORTED: &str = "tidelog_telemetry::not_exported";

/// A span as `tracing::info_span!` makes it, where this process [exports](is_on) traces; else none at all.
#[macro_export]
macro_rules! traced {
    ($($span:tt)*) => {
        if $crate::is_on() {
            $crate::tracing::info_span!($($span)*)
        } else {
            $crate::tracing::Span::none()
        }
    };
}
