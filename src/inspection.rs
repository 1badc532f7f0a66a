//! A look at the log that the settings name, which makes, changes and locks nothing.

use tidelog_command::store::Inspection;

use crate::backends::{BackendError, LogPlace, log_place};
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
