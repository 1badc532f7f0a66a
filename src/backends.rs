//! The composition root: the one place that names concrete adapters.

mod bus;
#[cfg(feature = "servers")]
mod verified;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidelog_command::Clock;
use tidelog_command::store::{EventStore, InMemoryEventStore, OpenError};
use tidelog_eventbus::{EventBus, Retry, StreamReader};
use tidelog_http::Part;
use tidelog_query::store::{DividedReadStore, InMemoryReadStore, ReadError, ReadStore};
use tokio::time::{Instant, sleep};

use crate::App;
#[cfg(feature = "servers")]
use crate::checks::{Check, Complaint, Found, UnfitServer};
#[cfg(feature = "servers")]
use crate::settings::{Backend, shown_url};
use crate::settings::{IN_MEMORY, InvalidSettings, Role, Settings, flag, variable};
pub(crate) use bus::{open_bus, open_messaging};
#[cfg(feature = "servers")]
pub(crate) use verified::verified;

/// How long a server may take to say who it is.
#[cfg(any(
    feature = "redis",
    feature = "nats",
    feature = "kafka",
    feature = "mongodb"
))]
const PATIENCE: Duration = Duration::from_secs(3);

/// The pause between two looks whether a store of the program's own answers.
const PAUSE: Duration = Duration::from_millis(250);

/// How long the log's server may take, when it has to be migrated too. That it answers at all, its adapter makes sure of within 3 s.
#[cfg(feature = "mysql")]
const MIGRATION_PATIENCE: Duration = Duration::from_secs(600);

/// Why a backend could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// A setting is missing or contradicts another.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    /// A server is not what its setting says.
    #[cfg(feature = "servers")]
    #[error(transparent)]
    Server(Box<UnfitServer>),
    /// The log cannot be opened.
    #[error("the log in {place} cannot be opened")]
    Log {
        /// Where it is, for people.
        place: String,
        /// Why.
        source: OpenError,
    },
    /// The read models' store cannot be opened.
    #[error("the read models' store cannot be opened")]
    ReadStore(#[from] ReadError),
    /// The store that the program gives a view cannot be used.
    #[error("the store of the view {view} cannot be used")]
    StoreOfView {
        /// The view.
        view: String,
        /// Why.
        source: ReadError,
    },
    /// A directory cannot be made.
    #[error(
        "the directory {path} cannot be made (setting `data_dir`, or the path in `database_url`)"
    )]
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

#[cfg(feature = "servers")]
impl From<UnfitServer> for BackendError {
    fn from(error: UnfitServer) -> Self {
        Self::Server(Box::new(error))
    }
}

/// The backends of a process: those that its role needs.
#[derive(Default)]
pub(crate) struct Backends {
    /// The log; the roles query and gateway do without.
    pub(crate) log: Option<Opened<dyn EventStore>>,
    /// The event bus; the roles query and gateway do without.
    pub(crate) bus: Option<Opened<dyn EventBus>>,
    /// The read models' store; the roles command and gateway do without.
    pub(crate) reads: Option<Opened<dyn ReadStore>>,
}

/// A backend that is there.
pub(crate) struct Opened<T: ?Sized> {
    pub(crate) backend: Arc<T>,
    /// What it is, for people.
    pub(crate) description: String,
    /// What its operator should change.
    pub(crate) warnings: Vec<String>,
}

impl<T: ?Sized> Opened<T> {
    /// A backend that there is nothing to warn of.
    fn new(backend: Arc<T>, description: String) -> Self {
        Self {
            backend,
            description,
            warnings: Vec::new(),
        }
    }

    /// Tells the log of the process what was opened.
    fn announce(self) -> Self {
        tracing::info!("{}", self.description);
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        self
    }
}

impl<T: EventStore + 'static> From<Opened<T>> for Opened<dyn EventStore> {
    fn from(opened: Opened<T>) -> Self {
        Self {
            backend: opened.backend,
            description: opened.description,
            warnings: opened.warnings,
        }
    }
}

impl Backends {
    /// Opens what the settings' role needs, in order, and says on `part` what it is at.
    ///
    /// # Errors
    ///
    /// [`BackendError`] for the first that cannot be had.
    pub(crate) async fn open(
        settings: &Settings,
        app: &App,
        part: &Part,
    ) -> Result<Self, BackendError> {
        let role = settings.role;
        let mut backends = Self::default();
        let is_gateway = role == Role::Gateway;
        if role != Role::Query && !is_gateway {
            part.not_ready("opening the log");
            backends.log = Some(open_log_with(settings, app.clock()).await?);
            part.not_ready("reaching the event bus");
            backends.bus = Some(open_bus(settings, app.name()).await?);
        }
        if role != Role::Command && !is_gateway {
            part.not_ready("opening the read models' store");
            backends.reads = Some(open_read_stores(settings, app).await?);
        }
        Ok(backends)
    }
}

/// Where the log is.
pub(crate) enum LogPlace<'a> {
    Memory,
    Sqlite(PathBuf),
    MySql(&'a str),
}

/// Where the log of `settings` is.
pub(crate) fn log_place(settings: &Settings) -> Result<LogPlace<'_>, BackendError> {
    let url = settings.database_url.as_deref();
    let url = url.ok_or_else(|| missing("database_url", "the log needs a database"))?;
    if url == IN_MEMORY {
        return Ok(LogPlace::Memory);
    }
    match url.strip_prefix("sqlite:") {
        Some(_) if settings.role != Role::All => Err(BackendError::OneProcess {
            key: "database_url",
        }),
        Some(path) => {
            let path = path.strip_prefix("//").unwrap_or(path);
            Ok(LogPlace::Sqlite(
                path.split('?').next().unwrap_or(path).into(),
            ))
        }
        None => Ok(LogPlace::MySql(url)),
    }
}

/// Whether the log is in this process or its file: then no other process can run a subscription.
pub(crate) fn is_embedded(settings: &Settings) -> bool {
    matches!(
        log_place(settings),
        Ok(LogPlace::Memory | LogPlace::Sqlite(_))
    )
}

/// Whether the settings name a log on a server: one that several processes can read.
pub(crate) fn is_on_server(settings: &Settings) -> bool {
    matches!(log_place(settings), Ok(LogPlace::MySql(_)))
}

/// How many connections a process that only answers queries reads the log with.
#[cfg(feature = "mysql")]
const QUERY_CONNECTIONS: u32 = 3;

/// Opens the log for a process that only reads it, once, without waiting for a server that is not there.
///
/// # Errors
///
/// [`BackendError`].
#[cfg(feature = "mysql")]
pub(crate) async fn open_log_for_queries(
    settings: &Settings,
) -> Result<Arc<dyn StreamReader>, BackendError> {
    let settings = Settings {
        wait_for_backends: Duration::ZERO,
        ..settings.clone()
    };
    match log_place(&settings)? {
        LogPlace::MySql(url) => {
            let log = open_mysql_log(url, &settings, Some(QUERY_CONNECTIONS)).await?;
            Ok(log.announce().backend)
        }
        LogPlace::Memory | LogPlace::Sqlite(_) => Err(BackendError::OneProcess {
            key: "database_url",
        }),
    }
}

#[cfg(not(feature = "mysql"))]
pub(crate) async fn open_log_for_queries(
    _: &Settings,
) -> Result<Arc<dyn StreamReader>, BackendError> {
    Err(BackendError::NotBuilt {
        feature: "mysql",
        key: "database_url",
    })
}

/// Opens the log, after making or migrating it where that is needed.
///
/// # Errors
///
/// [`BackendError`].
pub(crate) async fn open_log(settings: &Settings) -> Result<Opened<dyn EventStore>, BackendError> {
    open_log_with(settings, &Clock::default()).await
}

/// The same; a log in memory records by `clock`.
async fn open_log_with(
    settings: &Settings,
    clock: &Clock,
) -> Result<Opened<dyn EventStore>, BackendError> {
    let log = match log_place(settings)? {
        LogPlace::Memory => Ok(Opened::new(
            Arc::new(InMemoryEventStore::new(settings.partitions).with_clock(clock.clone()))
                as Arc<dyn EventStore>,
            "the log is in memory, and gone with the process".to_owned(),
        )),
        LogPlace::Sqlite(path) => open_sqlite_log(path, settings).await,
        LogPlace::MySql(url) => {
            let opened = open_mysql_log(url, settings, None).await?;
            Ok(opened.into())
        }
    };
    log.map(Opened::announce)
}

#[cfg(feature = "sqlite")]
async fn open_sqlite_log(
    path: PathBuf,
    settings: &Settings,
) -> Result<Opened<dyn EventStore>, BackendError> {
    use tidelog_command::store::{SqliteEventStore, SqliteOptions};
    if let Some(directory) = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
    {
        std::fs::create_dir_all(directory).map_err(|source| BackendError::Directory {
            path: directory.to_path_buf(),
            source,
        })?;
    }
    let place = path.display().to_string();
    let description = format!("the log is the SQLite file {place}");
    let options = SqliteOptions {
        partitions: settings.partitions,
        ..SqliteOptions::new(path)
    };
    let store = SqliteEventStore::open(options).await;
    let store = store.map_err(|source| BackendError::Log { place, source })?;
    Ok(Opened::new(Arc::new(store), description))
}

#[cfg(not(feature = "sqlite"))]
async fn open_sqlite_log(_: PathBuf, _: &Settings) -> Result<Opened<dyn EventStore>, BackendError> {
    Err(BackendError::NotBuilt {
        feature: "sqlite",
        key: "database_url",
    })
}

#[cfg(feature = "mysql")]
async fn open_mysql_log(
    url: &str,
    settings: &Settings,
    read_connections: Option<u32>,
) -> Result<Opened<tidelog_command::store::MySqlEventStore>, BackendError> {
    use tidelog_command::store::{MySqlEventStore, MySqlOptions};
    let unverified = verified(Backend::MySql, "database_url", url, settings)?;
    let in_database = |source| BackendError::Log {
        place: format!("the database {}", shown_url(url)),
        source,
    };
    let mut options = MySqlOptions::from_url(url).map_err(|error| match error {
        OpenError::Url { reason } => unusable("database_url", url, reason),
        source => in_database(source),
    })?;
    options.partitions = settings.partitions;
    options.read_connections = read_connections.unwrap_or(options.read_connections);
    // What is wrong with the server is the check's to tell, what is wrong with the log in it is not.
    let ask = || async {
        match MySqlEventStore::connect(options.clone()).await {
            Err(error @ (OpenError::Unreachable(_) | OpenError::OtherServer { .. })) => {
                Err(Complaint::of(&error, true))
            }
            Err(error @ OpenError::Denied(_)) => Err(Complaint::of(&error, false)),
            opened => Ok(opened),
        }
    };
    let check = Check {
        key: "database_url",
        url,
        expected: Found::MySql,
        try_for: MIGRATION_PATIENCE,
        keep_trying: settings.wait_for_backends,
    };
    let store = check.until_answered(ask).await?.map_err(in_database)?;
    let description = format!("the log is on MySQL or MariaDB {}", store.server_version());
    let warnings = store.warnings().iter().cloned().chain(unverified);
    Ok(Opened {
        warnings: warnings.collect(),
        backend: Arc::new(store),
        description,
    })
}

#[cfg(not(feature = "mysql"))]
async fn open_mysql_log(
    _: &str,
    _: &Settings,
    _: Option<u32>,
) -> Result<Opened<InMemoryEventStore>, BackendError> {
    Err(BackendError::NotBuilt {
        feature: "mysql",
        key: "database_url",
    })
}

/// Opens the read models' stores: that of the settings, and those that `app` has for some views. The log MUST have been opened before
/// them.
///
/// # Errors
///
/// [`BackendError`].
pub(crate) async fn open_read_stores(
    settings: &Settings,
    app: &App,
) -> Result<Opened<dyn ReadStore>, BackendError> {
    let opened = open_read_store(settings).await?;
    let own = app.stores();
    if own.is_empty() {
        return Ok(opened);
    }
    for (view, store) in own {
        until_it_answers(view, &**store, settings.wait_for_backends).await?;
    }
    let views: Vec<_> = own.keys().map(String::as_str).collect();
    let views = views.join(", ");
    tracing::info!(views, "these views are in stores of the program's own");
    Ok(Opened {
        backend: Arc::new(DividedReadStore::new(opened.backend, own.clone())),
        description: format!(
            "{}; but these are in stores of the program's own: {views}",
            opened.description
        ),
        warnings: opened.warnings,
    })
}

/// Looks whether the store of `view` answers: once at least, and for as long as it is waited for backends.
async fn until_it_answers(
    view: &str,
    store: &dyn ReadStore,
    keep_trying: Duration,
) -> Result<(), BackendError> {
    let deadline = Instant::now() + keep_trying;
    loop {
        let Err(source) = store.load_alias(view).await else {
            return Ok(());
        };
        if source.retry() == Retry::Never || Instant::now() >= deadline {
            let view = view.to_owned();
            return Err(BackendError::StoreOfView { view, source });
        }
        sleep(PAUSE).await;
    }
}

/// Opens the settings' store of read models: MongoDB, or the log's SQLite file.
pub(crate) async fn open_read_store(
    settings: &Settings,
) -> Result<Opened<dyn ReadStore>, BackendError> {
    if let Some(url) = settings.mongodb_url.as_deref() {
        return open_mongo(url, settings).await.map(Opened::announce);
    }
    match settings
        .database_url
        .as_deref()
        .map(|_| log_place(settings))
    {
        Some(Ok(LogPlace::Memory)) => Ok(Opened::new(
            Arc::new(InMemoryReadStore::new()) as Arc<dyn ReadStore>,
            "the read models are in memory".to_owned(),
        )),
        Some(Ok(LogPlace::Sqlite(path))) => open_sqlite_read_store(path).await,
        Some(Err(error)) => Err(error),
        _ => Err(missing("mongodb_url", "the read models need a store")),
    }
}

#[cfg(feature = "sqlite")]
async fn open_sqlite_read_store(path: PathBuf) -> Result<Opened<dyn ReadStore>, BackendError> {
    let store = tidelog_query::store::SqliteReadStore::open(&path).await?;
    let description = format!("the read models are in the SQLite file {}", path.display());
    Ok(Opened::new(Arc::new(store), description))
}

#[cfg(not(feature = "sqlite"))]
async fn open_sqlite_read_store(_: PathBuf) -> Result<Opened<dyn ReadStore>, BackendError> {
    Err(BackendError::NotBuilt {
        feature: "sqlite",
        key: "database_url",
    })
}

#[cfg(feature = "mongodb")]
async fn open_mongo(url: &str, settings: &Settings) -> Result<Opened<dyn ReadStore>, BackendError> {
    use tidelog_query::store::{MongoOptions, MongoReadStore, MongoServerError};
    let unverified = verified(Backend::MongoDb, "mongodb_url", url, settings)?;
    let store = MongoReadStore::connect(url, &MongoOptions::default()).await;
    let store = store.map_err(|error| unusable("mongodb_url", url, error.to_string()))?;
    let check = Check {
        key: "mongodb_url",
        url,
        expected: Found::MongoDb,
        try_for: PATIENCE,
        keep_trying: settings.wait_for_backends,
    };
    let ask = || async {
        let may_pass = |error: &_| matches!(error, MongoServerError::Unreachable { .. });
        let answer = store.check().await;
        answer.map_err(|error| Complaint::of(&error, may_pass(&error)))
    };
    let server = check.until_answered(ask).await?;
    Ok(Opened {
        backend: Arc::new(store),
        description: format!("the read models are on MongoDB {}", server.version),
        warnings: unverified.into_iter().collect(),
    })
}

#[cfg(not(feature = "mongodb"))]
async fn open_mongo(_: &str, _: &Settings) -> Result<Opened<dyn ReadStore>, BackendError> {
    Err(BackendError::NotBuilt {
        feature: "mongodb",
        key: "mongodb_url",
    })
}

/// The value of `key` cannot be used.
#[cfg(feature = "servers")]
fn unusable(key: &'static str, url: &str, reason: String) -> BackendError {
    BackendError::Settings(InvalidSettings::Unusable {
        key,
        env: variable(key),
        found: shown_url(url),
        reason,
    })
}

/// The setting `key` has no value, which is needed because of `why`.
fn missing(key: &'static str, why: &str) -> BackendError {
    BackendError::Settings(InvalidSettings::Missing {
        key,
        env: variable(key),
        flag: flag(key),
        why: why.to_owned(),
    })
}
