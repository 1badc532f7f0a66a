//! The event bus: which one it is, the scheme of its URL says.

use std::sync::Arc;
#[cfg(any(feature = "redis", feature = "nats", feature = "kafka"))]
use std::time::Duration;

#[cfg(feature = "servers")]
use tidelog_domain::causes;
use tidelog_eventbus::messaging::Messaging;
use tidelog_eventbus::{EventBus, InProcessEventBus};

use super::{BackendError, Opened, missing};
#[cfg(any(feature = "redis", feature = "nats", feature = "kafka"))]
use super::{PATIENCE, unusable, verified};
#[cfg(any(feature = "redis", feature = "nats", feature = "kafka"))]
use crate::checks::{Check, Complaint, Found};
#[cfg(feature = "servers")]
use crate::settings::Backend;
use crate::settings::{Role, Settings};

/// Opens the event bus of `app`. The command role starts while it is down; a server of another kind, or one that refuses us,
/// is an error in any case.
///
/// # Errors
///
/// [`BackendError`].
pub(crate) async fn open_bus(
    settings: &Settings,
    app: &str,
) -> Result<Opened<dyn EventBus>, BackendError> {
    let Some(url) = settings.bus_url.as_deref() else {
        return if settings.role == Role::All {
            let bus = Arc::new(InProcessEventBus::new());
            Ok(Opened::new(
                bus,
                "the event bus is inside the process".to_owned(),
            ))
        } else {
            let why = format!(
                "the role {} shares a bus with the others",
                settings.role.name()
            );
            Err(missing("bus_url", &why))
        };
    };
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    let opened = match scheme {
        "nats" | "nats+tls" | "tls" => open_nats(url, settings, app).await,
        "kafka" => open_kafka(url, settings, app).await,
        _ => open_redis(url, settings, app).await,
    };
    opened.map(Opened::announce)
}

/// Messaging for `app` over the bus of `settings`, which is connected when it is needed; `None` where the bus is inside the process.
///
/// # Errors
///
/// [`BackendError`]: no messages go over such a bus, or it is not spoken to as it should be.
#[cfg(feature = "servers")]
pub(crate) fn open_messaging(
    settings: &Settings,
    app: &str,
) -> Result<Option<Messaging>, BackendError> {
    let Some(url) = settings.bus_url.as_deref() else {
        return Ok(None);
    };
    let messaging = Messaging::connect(url, app);
    let messaging = messaging.map_err(|error| super::unusable("bus_url", url, causes(&error)))?;
    let backend = match url.split_once("://") {
        Some(("nats" | "nats+tls" | "tls", _)) => Backend::Nats,
        _ => Backend::Redis,
    };
    if let Some(warning) = super::verified(backend, "bus_url", url, settings)? {
        tracing::warn!("{warning}");
    }
    Ok(Some(messaging))
}

#[cfg(not(feature = "servers"))]
pub(crate) fn open_messaging(
    settings: &Settings,
    _: &str,
) -> Result<Option<Messaging>, BackendError> {
    let not_built = BackendError::NotBuilt {
        feature: "redis",
        key: "bus_url",
    };
    settings
        .bus_url
        .as_ref()
        .map_or(Ok(None), |_| Err(not_built))
}

/// A bus on a server, before the server was asked who it is.
#[cfg(any(feature = "redis", feature = "nats", feature = "kafka"))]
struct Candidate<'a, B> {
    bus: Arc<B>,
    url: &'a str,
    expected: Found,
    /// What there is to warn of already.
    unverified: Option<String>,
}

#[cfg(any(feature = "redis", feature = "nats", feature = "kafka"))]
impl<B: EventBus + 'static> Candidate<'_, B> {
    /// Asks the server with `ask`, which gives what it is, for people, and what its operator should change.
    async fn open<F>(
        self,
        settings: &Settings,
        ask: impl Fn(Arc<B>) -> F,
    ) -> Result<Opened<dyn EventBus>, BackendError>
    where
        F: Future<Output = Result<(String, Vec<String>), Complaint>>,
    {
        let can_do_without = settings.role == Role::Command;
        let check = Check {
            key: "bus_url",
            url: self.url,
            expected: self.expected,
            try_for: PATIENCE,
            keep_trying: match can_do_without {
                true => Duration::ZERO,
                false => settings.wait_for_backends,
            },
        };
        let answer = check.until_answered(|| ask(Arc::clone(&self.bus))).await;
        let (description, warnings) = match answer {
            Ok(answer) => answer,
            Err(error) if can_do_without && error.may_pass() => {
                let warning =
                    format!("starting without the event bus, which the log stands in for: {error}");
                let description = "the event bus does not answer yet";
                (description.to_owned(), vec![warning])
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Opened {
            backend: self.bus,
            description,
            warnings: warnings.into_iter().chain(self.unverified).collect(),
        })
    }
}

#[cfg(feature = "redis")]
async fn open_redis(
    url: &str,
    settings: &Settings,
    app: &str,
) -> Result<Opened<dyn EventBus>, BackendError> {
    use tidelog_eventbus::RedisEventBus;
    let unverified = verified(Backend::Redis, "bus_url", url, settings)?;
    let bus = RedisEventBus::new(url, app)
        .map_err(|error| unusable("bus_url", url, causes(&error)))?
        .keeping(usize::try_from(settings.bus_keep_events).unwrap_or(usize::MAX))
        .keeping_bytes(settings.bus_keep_bytes, settings.partitions);
    let candidate = Candidate {
        bus: Arc::new(bus),
        url,
        expected: Found::Redis,
        unverified,
    };
    let ask = |bus: Arc<RedisEventBus>| async move {
        let server = bus.server().await;
        let server = server.map_err(|error| Complaint::of(&error, error.is_temporary()))?;
        let kind = match server.is_cluster {
            true => "a Redis Cluster",
            false => "Redis",
        };
        let description = format!(
            "the event bus is on {kind} ({} {})",
            server.name, server.version
        );
        Ok((description, server.warnings))
    };
    candidate.open(settings, ask).await
}

#[cfg(not(feature = "redis"))]
async fn open_redis(_: &str, _: &Settings, _: &str) -> Result<Opened<dyn EventBus>, BackendError> {
    Err(not_built("redis"))
}

#[cfg(feature = "nats")]
async fn open_nats(
    url: &str,
    settings: &Settings,
    app: &str,
) -> Result<Opened<dyn EventBus>, BackendError> {
    use tidelog_eventbus::NatsEventBus;
    let unverified = verified(Backend::Nats, "bus_url", url, settings)?;
    let bus = NatsEventBus::new(url, app)
        .map_err(|error| unusable("bus_url", url, causes(&error)))?
        .keeping(usize::try_from(settings.bus_keep_events).unwrap_or(usize::MAX))
        .keeping_bytes(settings.bus_keep_bytes, settings.partitions);
    let candidate = Candidate {
        bus: Arc::new(bus),
        url,
        expected: Found::Nats,
        unverified,
    };
    let ask = |bus: Arc<NatsEventBus>| async move {
        let server = bus.server().await;
        let server = server.map_err(|error| Complaint::of(&error, error.is_temporary()))?;
        let kind = match &server.cluster {
            Some(name) => format!("the NATS cluster {name}"),
            None => "NATS".to_owned(),
        };
        let description = format!("the event bus is on {kind} ({})", server.version);
        Ok((description, server.warnings))
    };
    candidate.open(settings, ask).await
}

#[cfg(not(feature = "nats"))]
async fn open_nats(_: &str, _: &Settings, _: &str) -> Result<Opened<dyn EventBus>, BackendError> {
    Err(not_built("nats"))
}

#[cfg(feature = "kafka")]
async fn open_kafka(
    url: &str,
    settings: &Settings,
    app: &str,
) -> Result<Opened<dyn EventBus>, BackendError> {
    use tidelog_eventbus::KafkaEventBus;
    let unverified = verified(Backend::Kafka, "bus_url", url, settings)?;
    let bus = KafkaEventBus::new(url, app, settings.partitions)
        .map_err(|error| unusable("bus_url", url, causes(&error)))?
        .keeping_bytes(settings.bus_keep_bytes);
    let candidate = Candidate {
        bus: Arc::new(bus),
        url,
        expected: Found::Kafka,
        unverified,
    };
    let ask = |bus: Arc<KafkaEventBus>| async move {
        let server = bus.server().await;
        let server = server.map_err(|error| Complaint::of(&error, error.is_temporary()))?;
        let brokers = server.brokers;
        let description = format!("the event bus is on Kafka ({brokers} brokers)");
        Ok((description, server.warnings))
    };
    candidate.open(settings, ask).await
}

#[cfg(not(feature = "kafka"))]
async fn open_kafka(_: &str, _: &Settings, _: &str) -> Result<Opened<dyn EventBus>, BackendError> {
    Err(not_built("kafka"))
}

#[cfg(not(all(feature = "redis", feature = "nats", feature = "kafka")))]
fn not_built(feature: &'static str) -> BackendError {
    BackendError::NotBuilt {
        feature,
        key: "bus_url",
    }
}
