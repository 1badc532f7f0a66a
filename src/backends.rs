//! The composition root: the one place that names concrete adapters.

use std::path::PathBuf;
use std::sync::Arc;

use tidelog_command::store::{EventStore, OpenError};
use tidelog_eventbus::{EventBus, InProcessEventBus};
use tidelog_http::Part;
use tidelog_query::store::{ReadError, ReadStore};

use crate::checks::{Found, UnfitServer, check};
use crate::settings::{InvalidSettings, Role, Setting, Settings};

/// Why a backend could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// A setting is missing or contradicts another.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    /// A server is not what its setting says.
    #[error(transparent)]
    Server(#[from] UnfitServer),
    /// The log cannot be opened.
    #[error("the log cannot be opened")]
    Log(#[from] OpenError),
    /// The read models' store cannot be opened.
    #[error("the read models' store cannot be opened")]
    ReadStore(#[from] ReadError),
    /// A directory cannot be made.
    #[error("the directory {path} cannot be made (setting `data_dir`, or the path in `database_url`)")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The program was built without what the settings ask for.
    #[error("this program was built without the feature `{feature}`, which {key} asks for")]
    NotBuilt {
        /// The Cargo feature.
        feature: &'static str,
        /// The setting.
        key: &'static str,
    },
    /// One file cannot serve several processes.
    #[error(
        "{key} names an SQLite file, which only one process can use: run `serve --role all`, or use a MySQL database"
    )]
    OneProcess {
        /// The setting.
        key: &'static str,
    },
}

/// The backends of a process: those that its role needs.
pub(crate) struct Backends {
    /// The log; the query role does without.
    pub(crate) log: Option<Arc<dyn EventStore>>,
    /// The event bus; the query role does without.
    pub(crate) bus: Option<Arc<dyn EventBus>>,
    /// The read models' store; the command role does without.
    pub(crate) reads: Option<Arc<dyn ReadStore>>,
}

impl Backends {
    /// Opens what the settings' role needs, in order, and says on `part` what it is at.
    ///
    /// # Errors
    ///
    /// [`BackendError`] for the first that cannot be had.
    pub(crate) async fn open(
        settings: &Settings,
        app: &str,
        part: &Part,
    ) -> Result<Self, BackendError> {
        let role = settings.role;
        let mut backends = Self { log: None, bus: None, reads: None };
        if role != Role::Query {
            part.not_ready("opening the log");
            backends.log = Some(open_log(settings).await?);
            part.not_ready("reaching the event bus");
            backends.bus = Some(open_bus(settings, app).await?);
        }
        if role != Role::Command {
            part.not_ready("opening the read models' store");
            backends.reads = Some(open_read_store(settings).await?);
        }
        Ok(backends)
    }
}

/// Where the log is.
enum LogPlace<'a> {
    Sqlite(PathBuf),
    MySql(&'a str),
}

/// Where the log of `settings` is.
fn log_place(settings: &Settings) -> Result<LogPlace<'_>, BackendError> {
    let url = settings.database_url.as_deref();
    let url = url.ok_or_else(|| missing("database_url", "the log needs a database"))?;
    match url.strip_prefix("sqlite:") {
        Some(_) if settings.role != Role::All => {
            Err(BackendError::OneProcess { key: "database_url" })
        }
        Some(path) => {
            let path = path.strip_prefix("//").unwrap_or(path);
            Ok(LogPlace::Sqlite(path.split('?').next().unwrap_or(path).into()))
        }
        None => Ok(LogPlace::MySql(url)),
    }
}

/// Opens the log, after making or migrating it where that is needed.
///
/// # Errors
///
/// [`BackendError`].
pub(crate) async fn open_log(settings: &Settings) -> Result<Arc<dyn EventStore>, BackendError> {
    match log_place(settings)? {
        LogPlace::Sqlite(path) => open_sqlite_log(path, settings).await,
        LogPlace::MySql(url) => open_mysql_log(url, settings).await,
    }
}

#[cfg(feature = "sqlite")]
async fn open_sqlite_log(
    path: PathBuf,
    settings: &Settings,
) -> Result<Arc<dyn EventStore>, BackendError> {
    use tidelog_command::store::{SqliteEventStore, SqliteOptions};
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory)
            .map_err(|source| BackendError::Directory { path: directory.to_path_buf(), source })?;
    }
    let options = SqliteOptions { partitions: settings.partitions, ..SqliteOptions::new(path) };
    Ok(Arc::new(SqliteEventStore::open(options).await?))
}

#[cfg(not(feature = "sqlite"))]
async fn open_sqlite_log(_: PathBuf, _: &Settings) -> Result<Arc<dyn EventStore>, BackendError> {
    Err(BackendError::NotBuilt { feature: "sqlite", key: "database_url" })
}

#[cfg(feature = "mysql")]
async fn open_mysql_log(
    url: &str,
    settings: &Settings,
) -> Result<Arc<dyn EventStore>, BackendError> {
    use tidelog_command::store::{MySqlEventStore, MySqlOptions};
    let mut options = MySqlOptions::new(url);
    options.partitions = settings.partitions;
    let patience = settings.wait_for_backends;
    let ask = || MySqlEventStore::server(url);
    let server = check("database_url", url, Found::MySql, patience, ask).await?;
    tracing::info!(server = %server, "the log's server answers");
    let store = MySqlEventStore::open(options).await?;
    for warning in store.warnings() {
        tracing::warn!("{warning}");
    }
    Ok(Arc::new(store))
}

#[cfg(not(feature = "mysql"))]
async fn open_mysql_log(_: &str, _: &Settings) -> Result<Arc<dyn EventStore>, BackendError> {
    Err(BackendError::NotBuilt { feature: "mysql", key: "database_url" })
}

/// Opens the event bus of `app`. The command role starts while it is down; a server of another kind, or one that refuses us,
/// is an error in any case.
///
/// # Errors
///
/// [`BackendError`].
pub(crate) async fn open_bus(
    settings: &Settings,
    app: &str,
) -> Result<Arc<dyn EventBus>, BackendError> {
    let Some(url) = settings.bus_url.as_deref() else {
        return if settings.role == Role::All {
            Ok(Arc::new(InProcessEventBus::new()))
        } else {
            let why = format!("the role {} shares a bus with the others", settings.role.name());
            Err(missing("bus_url", &why))
        };
    };
    open_redis_bus(url, settings, app).await
}

#[cfg(feature = "redis")]
async fn open_redis_bus(
    url: &str,
    settings: &Settings,
    app: &str,
) -> Result<Arc<dyn EventBus>, BackendError> {
    use tidelog_eventbus::RedisEventBus;
    let without = settings.role == Role::Command;
    let unusable = |reason: String| {
        BackendError::Settings(InvalidSettings::unusable("bus_url", url, &reason))
    };
    let bus = RedisEventBus::new(url, app).map_err(|error| unusable(error.to_string()))?;
    let patience = if without { std::time::Duration::ZERO } else { settings.wait_for_backends };
    match check("bus_url", url, Found::Redis, patience, || bus.server()).await {
        Ok(server) => {
            tracing::info!(server = %server.name, version = %server.version, "the event bus answers");
            server.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        }
        Err(error) if without && error.is_unreachable() => {
            tracing::warn!("starting without the event bus, which the log stands in for: {error}");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Arc::new(bus))
}

#[cfg(not(feature = "redis"))]
async fn open_redis_bus(
    _: &str,
    _: &Settings,
    _: &str,
) -> Result<Arc<dyn EventBus>, BackendError> {
    Err(BackendError::NotBuilt { feature: "redis", key: "bus_url" })
}

/// Opens the read models' store: MongoDB, or the log's SQLite file. The log MUST have been opened before it.
///
/// # Errors
///
/// [`BackendError`].
pub(crate) async fn open_read_store(
    settings: &Settings,
) -> Result<Arc<dyn ReadStore>, BackendError> {
    if let Some(url) = settings.mongodb_url.as_deref() {
        return open_mongo(url, settings).await;
    }
    match settings.database_url.as_deref().map(|_| log_place(settings)) {
        Some(Ok(LogPlace::Sqlite(path))) => open_sqlite_read_store(path).await,
        Some(Err(error)) => Err(error),
        _ => Err(missing("mongodb_url", "the read models need a store")),
    }
}

#[cfg(feature = "sqlite")]
async fn open_sqlite_read_store(path: PathBuf) -> Result<Arc<dyn ReadStore>, BackendError> {
    Ok(Arc::new(tidelog_query::store::SqliteReadStore::open(&path).await?))
}

#[cfg(not(feature = "sqlite"))]
async fn open_sqlite_read_store(_: PathBuf) -> Result<Arc<dyn ReadStore>, BackendError> {
    Err(BackendError::NotBuilt { feature: "sqlite", key: "database_url" })
}

#[cfg(feature = "mongodb")]
async fn open_mongo(url: &str, settings: &Settings) -> Result<Arc<dyn ReadStore>, BackendError> {
    use tidelog_query::store::MongoReadStore;
    let store = MongoReadStore::connect(url).await?;
    let patience = settings.wait_for_backends;
    let server = check("mongodb_url", url, Found::MongoDb, patience, || store.server()).await?;
    tracing::info!(version = %server.version, "the read models' server answers");
    Ok(Arc::new(store))
}

#[cfg(not(feature = "mongodb"))]
async fn open_mongo(_: &str, _: &Settings) -> Result<Arc<dyn ReadStore>, BackendError> {
    Err(BackendError::NotBuilt { feature: "mongodb", key: "mongodb_url" })
}

/// The setting `key` has no value, which is needed because of `why`.
fn missing(key: &'static str, why: &str) -> BackendError {
    let setting = Setting::find(key);
    BackendError::Settings(InvalidSettings::Missing {
        key,
        env: setting.and_then(|setting| setting.env.first().copied()).unwrap_or(key),
        flag: setting.map(Setting::flag).unwrap_or_default(),
        why: why.to_owned(),
    })
}
