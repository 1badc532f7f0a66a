//! What a process tells of itself while it runs: its log, and its traces.

use std::io::IsTerminal;
#[cfg(feature = "otlp")]
use std::time::Duration;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::backends::BackendError;
use crate::settings::{LogFormat, Settings};

/// What drivers log by themselves when a server goes away: the adapters say it once, in words of ours.
const QUIET: &str = "sqlx=error";

/// How long the last traces may take to be exported: a collector that hangs must not keep the process.
#[cfg(feature = "otlp")]
const LAST_TRACES: Duration = Duration::from_secs(2);

type Layers = Vec<Box<dyn Layer<Registry> + Send + Sync>>;

/// What a process tells of itself, until it is [ended](Telemetry::end).
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    #[cfg(feature = "otlp")]
    traces: Option<tidelog_telemetry::Exporting>,
}

impl Telemetry {
    /// Begins to log to standard error.
    pub(crate) fn logging(settings: &Settings) -> Self {
        listen(vec![log(settings)]);
        Self::default()
    }

    /// Begins to log, and to export the traces of the program `app` where the settings say where to. A provider of cryptography for
    /// `rustls` MUST be installed before.
    ///
    /// # Errors
    ///
    /// [`BackendError`] when the settings want what cannot be.
    pub(crate) fn of_services(app: &str, settings: &Settings) -> Result<Self, BackendError> {
        let mut layers = vec![log(settings)];
        let told = Self::export(app, settings, &mut layers)?;
        listen(layers);
        Ok(told)
    }

    #[cfg(feature = "otlp")]
    fn export(app: &str, settings: &Settings, layers: &mut Layers) -> Result<Self, BackendError> {
        use crate::settings::{InvalidSettings, variable};
        let Some(endpoint) = settings.otlp_endpoint.clone() else {
            return Ok(Self::default());
        };
        let export = tidelog_telemetry::Export {
            endpoint: endpoint.clone(),
            sample: settings.trace_sample.part(),
            service: app.to_owned(),
            instance: crate::service::owner(settings.role),
            role: settings.role.name(),
        };
        let unusable = |error| InvalidSettings::Unusable {
            key: "otlp_endpoint",
            env: variable("otlp_endpoint"),
            found: endpoint,
            reason: tidelog_domain::causes(&error),
        };
        let (layer, traces) = export.begin().map_err(unusable)?;
        layers.push(layer.boxed());
        Ok(Self {
            traces: Some(traces),
        })
    }

    #[cfg(not(feature = "otlp"))]
    fn export(_: &str, settings: &Settings, _: &mut Layers) -> Result<Self, BackendError> {
        match settings.otlp_endpoint {
            None => Ok(Self::default()),
            Some(_) => Err(BackendError::NotBuilt {
                feature: "otlp",
                key: "otlp_endpoint",
            }),
        }
    }

    /// Exports the last traces.
    pub(crate) fn end(self) {
        #[cfg(feature = "otlp")]
        if self.traces.is_some_and(|traces| !traces.end(LAST_TRACES)) {
            tracing::warn!("the last traces could not be exported in time");
        }
    }
}

/// The log, on standard error.
fn log(settings: &Settings) -> Box<dyn Layer<Registry> + Send + Sync> {
    let filter = |directives: &str| EnvFilter::try_new(format!("{QUIET},{directives}"));
    let filter = filter(&settings.log).unwrap_or_else(|_| EnvFilter::new(format!("{QUIET},info")));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            lines.with_ansi(colours).with_filter(filter).boxed()
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false);
            lines.with_filter(filter).boxed()
        }
    }
}

/// A second start in the same process (tests) keeps what the first one began.
fn listen(layers: Layers) {
    let _ = tracing_subscriber::registry().with(layers).try_init();
}
