//! The log as its database has it, read past the program.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, MySqlConnection};
use tidelog_command::store::{MySqlEventStore, MySqlOptions};
use tidelog_domain::Partitions;
use tidelog_test_support::grants::administrator;
use tidelog_test_support::{Server, SqlUsers, fresh_mysql_database};

/// A row of the table `events`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) partition: i64,
    pub(crate) position: i64,
    pub(crate) stream: String,
    pub(crate) version: i64,
    pub(crate) event_id: String,
    pub(crate) event_type: String,
    pub(crate) payload: Value,
    /// Microseconds since 1970.
    pub(crate) recorded_at: i64,
}

/// What of `events` makes a [`Row`], in MySQL and MariaDB.
const MYSQL: &str = "SELECT CAST(partition_no AS SIGNED), CAST(position AS SIGNED), CAST(stream AS CHAR), \
     CAST(version AS SIGNED), LOWER(HEX(event_id)), CAST(event_type AS CHAR), CAST(payload AS CHAR), \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', recorded_at) FROM events ORDER BY 1, 2";

/// The same in SQLite.
const SQLITE: &str = "SELECT partition_no, position, stream, version, LOWER(HEX(event_id)), event_type, \
     CAST(payload AS TEXT), recorded_at FROM events ORDER BY 1, 2";

/// A row as the database gives it.
type Columns = (i64, i64, String, i64, String, String, String, i64);

/// All rows of the log at `url`, by partition and position.
pub(crate) async fn read(url: &str) -> Vec<Row> {
    let rows: Vec<Columns> = match url.strip_prefix("sqlite://") {
        Some(path) => {
            let options = SqliteConnectOptions::new().filename(path).read_only(true);
            let mut connection = options.connect().await.expect("the SQLite file opens");
            let rows = sqlx::query_as(SQLITE).fetch_all(&mut connection).await;
            connection.close().await.expect("the SQLite file closes");
            rows.expect("the log can be read")
        }
        None => {
            let mut connection = connect(url).await;
            let rows = sqlx::query_as(MYSQL).fetch_all(&mut connection).await;
            rows.expect("the log can be read")
        }
    };
    rows.into_iter().map(row).collect()
}

/// The rows of one stream, by version.
pub(crate) async fn read_stream(url: &str, stream: &str) -> Vec<Row> {
    let mut rows = read(url).await;
    rows.retain(|row| row.stream == stream);
    rows.sort_by_key(|row| row.version);
    rows
}

/// A log in a database of its own on `server`, made by who may make it; and the database's users, who have the rights of `deploy/mysql/`.
pub(crate) async fn fresh_log(server: &Server, partitions: Partitions) -> SqlUsers {
    let users = SqlUsers::of(&fresh_mysql_database(server).await).await;
    let mut options = MySqlOptions::from_url(&users.migrate).expect("a MySQL URL");
    options.partitions = partitions;
    MySqlEventStore::connect(options)
        .await
        .expect("the log is made");
    users.grant().await;
    users
}

/// A connection of the administrator to the MySQL or MariaDB at `url`, whoever's it is.
pub(crate) async fn connect(url: &str) -> MySqlConnection {
    let options: MySqlConnectOptions = administrator(url).parse().expect("a MySQL URL");
    options
        .ssl_mode(MySqlSslMode::Disabled)
        .connect()
        .await
        .expect("MySQL answers")
}

fn row(columns: Columns) -> Row {
    let (partition, position, stream, version, event_id, event_type, payload, recorded_at) =
        columns;
    let payload = serde_json::from_str(&payload).expect("a payload is JSON");
    Row {
        partition,
        position,
        stream,
        version,
        event_id,
        event_type,
        payload,
        recorded_at,
    }
}

impl Row {
    /// The entity's fields after this event.
    pub(crate) fn state(&self) -> &Map<String, Value> {
        self.payload["state"]
            .as_object()
            .expect("an entity's event has its state")
    }

    /// The id of the entity.
    pub(crate) fn id(&self) -> &str {
        self.stream
            .split_once('/')
            .expect("a stream is category/id")
            .1
    }
}

/// Checks the invariants of every log: positions dense in each partition and versions dense in each stream, both from 1;
/// time never backwards in a partition; each event's id once.
pub(crate) fn assert_dense(rows: &[Row]) {
    let mut heads: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    let mut versions: BTreeMap<&str, i64> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for row in rows {
        let (position, recorded_at) = heads.entry(row.partition).or_default();
        assert_eq!(row.position, *position + 1, "a gap before {row:?}");
        assert!(
            row.recorded_at >= *recorded_at,
            "time runs backwards at {row:?}"
        );
        (*position, *recorded_at) = (row.position, row.recorded_at);
        // A stream lives in one partition, so its events come here in their order.
        let version = versions.entry(&row.stream).or_default();
        assert_eq!(row.version, *version + 1, "a gap in the stream of {row:?}");
        *version = row.version;
        assert!(
            ids.insert(&row.event_id),
            "the id of {row:?} is there twice"
        );
    }
}

/// A document as the fold of the log makes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Folded {
    pub(crate) state: Map<String, Value>,
    pub(crate) version: i64,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    pub(crate) deleted: bool,
}

/// The default view of the entity `category`, made from nothing but the rows: the meaning of "equals the fold of the log".
pub(crate) fn fold(rows: &[Row], category: &str) -> BTreeMap<String, Folded> {
    let mut view: BTreeMap<String, Folded> = BTreeMap::new();
    let mut rows: Vec<_> = rows
        .iter()
        .filter(|row| row.stream.starts_with(&format!("{category}/")))
        .collect();
    rows.sort_by_key(|row| (&row.stream, row.version));
    for row in rows {
        let created_at = view
            .get(row.id())
            .map_or(row.recorded_at, |document| document.created_at);
        let document = Folded {
            state: row.state().clone(),
            version: row.version,
            created_at,
            updated_at: row.recorded_at,
            deleted: row.event_type.ends_with(".deleted"),
        };
        view.insert(row.id().to_owned(), document);
    }
    view
}
