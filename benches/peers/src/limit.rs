//! What the database can do: bare INSERTs of the rows that tidelog writes, into the table that tidelog makes.

use std::fmt::Write;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection};
use tidelog_command::store::{MySqlEventStore, MySqlOptions};
use tokio::task::JoinSet;

use crate::database::Database;
use crate::post::{changed, created};

/// How many rows one INSERT, which is one transaction, has.
pub(crate) const BATCHES: [usize; 3] = [128, 256, 512];

/// How many connections insert at once: as many as tidelog has lanes.
pub(crate) const CONNECTIONS: usize = 2;

/// Metadata as long as tidelog's.
const METADATA: &str = r#"{"correlation_id":"019f3a52-7b1c-7000-8000-0123456789ab","causation_id":"019f3a52-7b1c-7000-8000-0123456789ab"}"#;

/// Rows a second, `batch` an INSERT.
///
/// # Errors
///
/// When the database refuses.
pub(crate) async fn measure(
    database: &Database,
    batch: usize,
    time: Duration,
) -> anyhow::Result<f64> {
    let url = database.mysql()?;
    drop(MySqlEventStore::connect(MySqlOptions::from_url(url)?).await?);
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(MySqlConnection::connect(url).await?);
    }
    let end = Instant::now() + time;
    let mut running = JoinSet::new();
    for (partition, mut connection) in connections.into_iter().enumerate() {
        running.spawn(async move {
            let mut rows = 0;
            while Instant::now() < end {
                let insert = insert(partition, rows, batch)?;
                connection.execute(AssertSqlSafe(insert)).await?;
                rows += batch;
            }
            anyhow::Ok(rows)
        });
    }
    let mut rows = 0;
    for inserted in running.join_all().await {
        rows += inserted?;
    }
    Ok(rows as f64 / time.as_secs_f64())
}

/// One INSERT of `batch` rows, after the first `rows` of the partition: posts, four events each.
fn insert(partition: usize, rows: usize, batch: usize) -> anyhow::Result<String> {
    let mut sql = String::with_capacity(batch * 700);
    sql.push_str(
        "INSERT INTO events (partition_no, position, stream, version, event_id, event_type, schema_version, payload, \
         metadata, recorded_at) VALUES ",
    );
    for row in rows..rows + batch {
        let (post, version) = (row / 4, row % 4 + 1);
        let (event_type, payload) = if version == 1 {
            ("post.created", serde_json::to_string(&created(row))?)
        } else {
            ("post.changed", serde_json::to_string(&changed(row))?)
        };
        let comma = if row == rows { "" } else { "," };
        let event_id = uuid::Uuid::now_v7().simple();
        // Nothing in these texts needs quoting.
        write!(
            sql,
            "{comma}({partition},{},'post-{post:010}-{partition:04}',{version},X'{event_id}','{event_type}',1,\
             '{payload}','{METADATA}',NOW(6))",
            row + 1
        )?;
    }
    Ok(sql)
}
