//! Exporting traces by OTLP over HTTP, and what only a process that does so knows of its spans.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::{Layer, Registry};

use crate::NOT_EXPORTED;
use crate::traceparent::parts;

/// Where OTLP over HTTP takes traces, below the address of a collector.
const TRACES: &str = "v1/traces";

/// Libraries whose spans and events are not part of a trace: those of drivers, which may know more than they should tell, and
/// those of the exporter, which would export itself.
const LEFT_OUT: [&str; 12] = [
    NOT_EXPORTED,
    "h2",
    "hyper",
    "hyper_util",
    "mongodb",
    "opentelemetry",
    "opentelemetry_otlp",
    "opentelemetry_sdk",
    "redis",
    "reqwest",
    "rustls",
    "sqlx",
];

/// Whether this process exports traces.
static ON: AtomicBool = AtomicBool::new(false);

/// Whether this process exports traces. Then spans are worth making.
#[must_use]
#[inline]
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Makes `span`, which nobody has entered yet, part of the trace that `traceparent` names, as a child of the span there.
///
/// What is no `traceparent` changes nothing.
pub fn adopt(span: &Span, traceparent: &str) {
    let Some(remote) = is_on().then(|| read(traceparent)).flatten() else {
        return;
    };
    // A span that a filter has left out, or that was entered before, keeps the parent that it has.
    let _ = span.set_parent(Context::new().with_remote_span_context(remote));
}

/// What names `span` and its trace to other processes; `None` where nothing is exported.
#[must_use]
pub fn traceparent(span: &Span) -> Option<String> {
    if !is_on() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let own = span.span_context();
    own.is_valid().then(|| {
        let flags = own.trace_flags() & TraceFlags::SAMPLED;
        format!("00-{}-{}-{flags:02x}", own.trace_id(), own.span_id())
    })
}

fn read(traceparent: &str) -> Option<SpanContext> {
    let (trace, parent, flags) = parts(traceparent)?;
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let (trace, parent) = (
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(parent).ok()?,
    );
    let context = SpanContext::new(trace, parent, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

/// What is exported, and where to.
#[derive(Clone, Debug)]
pub struct Export {
    /// The address of a collector that takes OTLP over HTTP: `http://127.0.0.1:4318`.
    ///
    /// Headers that it wants come from the environment, in `OTEL_EXPORTER_OTLP_HEADERS`, as for every program that exports by OTLP.
    pub endpoint: String,
    /// Which part of the traces that begin here is recorded, from 0 to 1. A trace that goes on here is recorded if it was before.
    pub sample: f64,
    /// What the program is called.
    pub service: String,
    /// What this process is called.
    pub instance: String,
    /// What it runs.
    pub role: &'static str,
}

/// Why traces cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be exported")]
pub struct ExportError(#[from] opentelemetry_otlp::ExporterBuildError);

/// The export of this process' traces, which goes on until it is [ended](Exporting::end).
#[derive(Debug)]
pub struct Exporting {
    provider: SdkTracerProvider,
}

impl Export {
    /// Begins to export: what goes by way of the layer, at level `info` and above, whatever else is logged.
    ///
    /// It does not wait for the collector. While that cannot be reached, traces are lost, at most one line in the log says so, and
    /// nothing else waits for it. A provider of cryptography for `rustls` MUST be installed before.
    ///
    /// # Errors
    ///
    /// [`ExportError`]: the endpoint is no address, or a standard variable of the environment makes no sense.
    pub fn begin(self) -> Result<(impl Layer<Registry> + Send + Sync, Exporting), ExportError> {
        let endpoint = format!("{}/{TRACES}", self.endpoint.trim_end_matches('/'));
        let exporter = OtlpExporter::builder().with_http();
        let exporter = exporter.with_endpoint(endpoint).build()?;
        let resource = Resource::builder()
            .with_service_name(self.service)
            .with_attributes([
                KeyValue::new("service.instance.id", self.instance),
                KeyValue::new("tidelog.role", self.role),
            ])
            .build();
        let roots = Sampler::TraceIdRatioBased(self.sample);
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(Told {
                exporter,
                is_failing: AtomicBool::new(false),
            })
            .with_sampler(Sampler::ParentBased(Box::new(roots)))
            .with_resource(resource)
            .build();
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("tidelog"))
            // The current span of `tracing` is enough to find a parent by.
            .with_context_activation(false)
            .with_tracked_inactivity(false)
            .with_threads(false)
            .with_location(false);
        let left_out = LEFT_OUT.map(|target| (target, LevelFilter::OFF));
        let filter = Targets::new().with_default(LevelFilter::INFO);
        ON.store(true, Ordering::Relaxed);
        let layer = layer.with_filter(filter.with_targets(left_out));
        Ok((layer, Exporting { provider }))
    }
}

impl Exporting {
    /// Exports what is left, for which there is so much time, and ends. Says whether all of it was exported.
    #[must_use]
    pub fn end(self, within: Duration) -> bool {
        ON.store(false, Ordering::Relaxed);
        self.provider.shutdown_with_timeout(within).is_ok()
    }
}

/// An exporter that says once when it begins to fail, and once when it works again.
#[derive(Debug)]
struct Told<E> {
    exporter: E,
    is_failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exported = self.exporter.export(batch).await;
        let failed_before = self.is_failing.swap(exported.is_err(), Ordering::Relaxed);
        match &exported {
            Err(error) if !failed_before => {
                tracing::warn!(%error, "traces cannot be exported: they are lost until they can be again");
            }
            Ok(()) if failed_before => tracing::info!("traces are exported again"),
            _ => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_and_written_the_same() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read = read(text).unwrap();
        assert!(read.is_remote() && read.is_sampled());
        assert_eq!(
            format!(
                "00-{}-{}-{:02x}",
                read.trace_id(),
                read.span_id(),
                read.trace_flags()
            ),
            text
        );
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        for text in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        ] {
            assert!(read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_process_that_does_not_export_names_no_span() {
        assert!(!is_on());
        assert_eq!(traceparent(&tracing::info_span!("one")), None);
        assert!(crate::traced!("one").is_disabled());
    }
}
