//! A look at the log that the settings name, which makes, changes and locks nothing.

use tidelog_command::store::Inspection;
#[cfg(any(feature = "redis", feature = "mongodb"))]
use tidelog_domain::causes;

#[cfg(any(feature = "mysql", feature = "redis", feature = "mongodb"))]
use crate::backends::verified;
use crate::backends::{BackendError, LogPlace, log_place};
#[cfg(any(feature = "mysql", feature = "redis", feature = "mongodb"))]
use crate::settings::Backend;
use crate::settings::{InvalidSettings, Settings, variable};

/// What can be seen of the log of `settings`. One that is in memory is not there to be looked at.
///
/// # Errors
///
/// [`BackendError`].
pub(crate) async fn inspect(settings: &Settings) -> Result<Inspection, BackendError> {
    match log_place(settings)? {
        LogPlace::Memory => Err(unusable(
            "memory:".to_owned(),
            "a log in memory is gone with its process".to_owned(),
        )),
        LogPlace::Sqlite(path) => sqlite(path, settings).await,
        LogPlace::MySql(url) => mysql(url, settings).await,
    }
}

/// What can be seen of the Redis of `settings`, as a program called `app` has it; `None` where the bus is none.
#[cfg(feature = "redis")]
pub(crate) async fn inspect_bus(
    settings: &Settings,
    app: &str,
    history: tidelog_domain::HistoryId,
) -> Option<Result<tidelog_eventbus::RedisInspection, String>> {
    let url = settings.bus_url.as_deref()?;
    if !url.starts_with("redis") {
        return None;
    }
    if let Err(error) = verified(Backend::Redis, "bus_url", url, settings) {
        return Some(Err(error.to_string()));
    }
    let bus = tidelog_eventbus::RedisEventBus::new(url, app);
    Some(match bus {
        Ok(bus) => bus
            .inspect(history)
            .await
            .map_err(|error| causes(&error).to_string()),
        Err(error) => Err(causes(&error).to_string()),
    })
}

/// What can be seen of the MongoDB of `settings`; `None` without one.
#[cfg(feature = "mongodb")]
pub(crate) async fn inspect_read_store(
    settings: &Settings,
) -> Option<Result<tidelog_query::store::MongoServerInfo, String>> {
    use tidelog_query::store::{MongoOptions, MongoReadStore};
    let url = settings.mongodb_url.as_deref()?;
    if let Err(error) = verified(Backend::MongoDb, "mongodb_url", url, settings) {
        return Some(Err(error.to_string()));
    }
    let store = MongoReadStore::connect(url, &MongoOptions::default()).await;
    Some(match store {
        Ok(store) => store
            .inspect()
            .await
            .map_err(|error| causes(&error).to_string()),
        Err(error) => Err(causes(&error).to_string()),
    })
}

fn unusable(found: String, reason: String) -> BackendError {
    BackendError::Settings(InvalidSettings::Unusable {
        key: "database_url",
        env: variable("database_url"),
        found,
        reason,
    })
}

#[cfg(feature = "sqlite")]
async fn sqlite(path: std::path::PathBuf, settings: &Settings) -> Result<Inspection, BackendError> {
    use tidelog_command::store::{SqliteEventStore, SqliteOptions};
    let place = path.display().to_string();
    let options = SqliteOptions {
        partitions: settings.partitions,
        ..SqliteOptions::new(path)
    };
    let inspection = SqliteEventStore::inspect(&options).await;
    inspection.map_err(|source| BackendError::Log { place, source })
}

#[cfg(not(feature = "sqlite"))]
async fn sqlite(_: std::path::PathBuf, _: &Settings) -> Result<Inspection, BackendError> {
    Err(BackendError::NotBuilt {
        feature: "sqlite",
        key: "database_url",
    })
}

#[cfg(feature = "mysql")]
async fn mysql(url: &str, settings: &Settings) -> Result<Inspection, BackendError> {
    use crate::settings::shown_url;
    use tidelog_command::store::{MySqlEventStore, MySqlOptions, OpenError};
    verified(Backend::MySql, "database_url", url, settings)?;
    let in_database = |source| BackendError::Log {
        place: format!("the database {}", shown_url(url)),
        source,
    };
    let mut options = MySqlOptions::from_url(url).map_err(|error| match error {
        OpenError::Url { reason } => unusable(shown_url(url), reason),
        source => in_database(source),
    })?;
    options.partitions = settings.partitions;
    MySqlEventStore::inspect(&options)
        .await
        .map_err(in_database)
}

#[cfg(not(feature = "mysql"))]
async fn mysql(_: &str, _: &Settings) -> Result<Inspection, BackendError> {
    Err(BackendError::NotBuilt {
        feature: "mysql",
        key: "database_url",
    })
}
