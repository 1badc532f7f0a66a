//! Appending, by a task that owns the one connection that writes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;

use chrono::{DateTime, SubsecRound, Utc};
use serde_json::json;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, Row as _, query};
use tidelog_domain::{Append, Partition, Partitions, Position, StreamId, Version};
use tokio::sync::mpsc;

use super::reader::signed;
use crate::store::failure::Failure;
use crate::store::keys::{KeyRow, Keys, ScopedKey, keys};
use crate::store::lane::{self, Job, Lane, Verdicts};
use crate::store::plan::{Place, Plan, Row, Taint, partitions_to_lock, streams};

/// How many rows an INSERT has: few shapes, so that each stays prepared. As each statement is a trip to the thread that SQLite runs
/// on, a batch takes few of them.
const INSERT_ROWS: [usize; 4] = [64, 16, 4, 1];

/// Moves heads: the statement's value is made by [`moved_heads`].
const MOVE_HEADS: &str = "UPDATE log_head SET next_position = moved.value ->> 1, last_recorded_at = moved.value ->> 2 \
     FROM json_each(?) AS moved WHERE partition_no = moved.value ->> 0";

/// Where the rows of a plan go.
type Places = BTreeMap<Partition, Place>;

/// Starts the task that appends by `connection`. It holds `lock` until it ends, which it does when the last handle
/// of its lane is gone.
pub(super) fn start(connection: SqliteConnection, lock: File, partitions: Partitions) -> Lane {
    let (lane, jobs) = Lane::new();
    let writer = Writer {
        connection,
        partitions,
    };
    tokio::spawn(async move {
        writer.run(jobs).await;
        drop(lock);
    });
    lane
}

/// The one who writes.
struct Writer {
    connection: SqliteConnection,
    partitions: Partitions,
}

impl lane::Writer for Writer {
    async fn append_together(
        &mut self,
        batch: &[Append],
        taint: Taint,
    ) -> Result<(Verdicts, Taint), Failure> {
        match self.decide(batch, taint).await {
            Ok((plan, places)) => {
                self.commit(&plan, &places).await?;
                let tainted = plan.taint.clone();
                Ok((plan.settle(&places), tainted))
            }
            Err(failure) => {
                self.roll_back().await;
                Err(failure)
            }
        }
    }
}

impl Writer {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.recv().await {
            let verdicts = lane::Writer::append(&mut self, &job.batch).await;
            // Whoever asked may be gone; the batch is in the log all the same.
            let _ = job.answer.send(verdicts);
        }
        // The file is whole without a tidy end: the write-ahead log is read at the next opening.
        let _ = self.connection.close().await;
    }

    /// Begins the transaction, decides what becomes of the batch, and writes all but what [`Writer::commit`] does.
    async fn decide<'a>(
        &mut self,
        batch: &'a [Append],
        taint: Taint,
    ) -> Result<(Plan<'a>, Places), Failure> {
        let streams = streams(batch);
        let partitions = partitions_to_lock(batch, self.partitions);
        let rows = self.begin(&streams, &partitions).await?;
        let (versions, heads) = rows
            .split_at_checked(streams.len())
            .ok_or_else(|| Failure::Corrupt("a stream has no version".to_owned()))?;
        let mut known = HashMap::with_capacity(streams.len());
        for (stream, row) in streams.into_iter().zip(versions) {
            known.insert(stream, Version::new(row.try_get(0)?));
        }
        let now = Utc::now().trunc_subsecs(6);
        let places = places(heads, &partitions, now)?;
        let mut used = Keys::new();
        for key in keys(batch) {
            if let Some(row) = self.key_row(&key.scoped).await? {
                used.insert(key.scoped, row);
            }
        }
        let plan = Plan::new(batch, self.partitions, known, &used, taint);
        for (key, row) in &plan.keys {
            self.insert_key(key, row, now).await?;
        }
        let (_, before) = last_insert(&plan.rows);
        for rows in before {
            bind(query(AssertSqlSafe(insert(rows.len()))), rows, &places)?
                .execute(&mut self.connection)
                .await?;
        }
        Ok((plan, places))
    }

    /// Writes the last rows, moves the heads and commits, in one trip. When that fails, looks whether it happened all the same.
    async fn commit(&mut self, plan: &Plan<'_>, places: &Places) -> Result<(), Failure> {
        let (last, _) = last_insert(&plan.rows);
        let sql = match last {
            [] => "COMMIT".to_owned(),
            last => format!("{}; {MOVE_HEADS}; COMMIT", insert(last.len())),
        };
        let written = match bind(query(AssertSqlSafe(sql)), last, places) {
            Ok(write) => {
                let write = write.bind(moved_heads(plan, places));
                let written = write.execute(&mut self.connection).await;
                written.map_err(Failure::from)
            }
            Err(failure) => Err(failure),
        };
        let Err(failure) = written else {
            return Ok(());
        };
        self.roll_back().await;
        let happened = match (plan.rows.first(), plan.keys.first_key_value()) {
            (Some(first), _) => {
                let id = self.id_at(first).await;
                id.map(|id| id.as_deref() == Some(first.event.id.uuid().as_bytes()))
            }
            // The key was free within the transaction, and nobody else writes.
            (None, Some((key, _))) => self.key_row(key).await.map(|row| row.is_some()),
            (None, None) => return Ok(()),
        };
        match (happened, failure) {
            (Ok(true), _) => Ok(()),
            (Ok(false), failure) => Err(failure),
            (Err(_), Failure::Unavailable(cause)) => Err(Failure::InDoubt(cause)),
            (Err(other), _) => Err(other),
        }
    }

    /// Ends the transaction, if one is open. When even that fails, the next BEGIN does too, and says why.
    async fn roll_back(&mut self) {
        let _ = query("ROLLBACK").execute(&mut self.connection).await;
    }

    /// Begins the transaction and asks, in the same trip, for the versions of `streams`, each by one look at the end of its index
    /// entries, and then for the heads of `partitions`.
    async fn begin(
        &mut self,
        streams: &BTreeSet<&StreamId>,
        partitions: &BTreeSet<Partition>,
    ) -> Result<Vec<SqliteRow>, Failure> {
        let names: Vec<&str> = streams.iter().map(|stream| stream.as_str()).collect();
        let numbers: Vec<u16> = partitions.iter().map(|one| one.number()).collect();
        let rows = query(
            "BEGIN IMMEDIATE; \
             SELECT (SELECT coalesce(max(version), 0) FROM events WHERE stream = asked.value) \
             FROM json_each(?) AS asked ORDER BY asked.key; \
             SELECT partition_no, next_position, last_recorded_at FROM log_head \
             WHERE partition_no IN (SELECT value FROM json_each(?))",
        )
        .bind(json!(names).to_string())
        .bind(json!(numbers).to_string())
        .fetch_all(&mut self.connection)
        .await?;
        Ok(rows)
    }

    /// What is recorded under `key`.
    async fn key_row(&mut self, key: &ScopedKey) -> Result<Option<KeyRow>, Failure> {
        let row = query(
            "SELECT fingerprint, outcome, streams FROM idempotency_keys WHERE scoped_key = ?",
        )
        .bind(&key[..])
        .fetch_optional(&mut self.connection)
        .await?;
        row.map(|row| KeyRow::from_columns(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
            .transpose()
    }

    async fn insert_key(
        &mut self,
        key: &ScopedKey,
        row: &KeyRow,
        now: DateTime<Utc>,
    ) -> Result<(), Failure> {
        query(
            "INSERT INTO idempotency_keys (scoped_key, fingerprint, outcome, streams, recorded_at) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(&key[..])
        .bind(&row.fingerprint[..])
        .bind(row.outcome())
        .bind(row.streams())
        .bind(now.timestamp_micros())
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    /// The id of the event that has the stream and version of `row`.
    async fn id_at(&mut self, row: &Row<'_>) -> Result<Option<Vec<u8>>, Failure> {
        let found = query("SELECT event_id FROM events WHERE stream = ? AND version = ?")
            .bind(row.stream.as_str())
            .bind(signed(row.version.number()))
            .fetch_optional(&mut self.connection)
            .await?;
        Ok(found.map(|found| found.try_get(0)).transpose()?)
    }
}

/// Where the next events of each of `partitions` go, whose `heads` were asked for: at `now` or, when the clock was set back, at the
/// last event's time.
fn places(
    heads: &[SqliteRow],
    partitions: &BTreeSet<Partition>,
    now: DateTime<Utc>,
) -> Result<Places, Failure> {
    let mut places = Places::new();
    for row in heads {
        let last = DateTime::from_timestamp_micros(row.try_get(2)?).unwrap_or_default();
        let place = Place {
            base: Position::new(row.try_get(1)?),
            recorded_at: now.max(last),
        };
        places.insert(Partition::new(row.try_get(0)?), place);
    }
    match partitions.iter().find(|one| !places.contains_key(one)) {
        Some(missing) => Err(Failure::Corrupt(format!("partition {missing} has no head"))),
        None => Ok(places),
    }
}

/// The rows of the last INSERT, and those of each INSERT before it.
fn last_insert<'r, 'a>(rows: &'r [Row<'a>]) -> (&'r [Row<'a>], Vec<&'r [Row<'a>]>) {
    let mut inserts = Vec::new();
    let mut left = rows;
    while let Some(size) = INSERT_ROWS.iter().find(|size| **size <= left.len()) {
        let (rows, later) = left.split_at(*size);
        inserts.push(rows);
        left = later;
    }
    (inserts.pop().unwrap_or_default(), inserts)
}

/// An INSERT of this many events.
fn insert(rows: usize) -> String {
    let values = vec!["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"; rows].join(", ");
    format!(
        "INSERT INTO events (partition_no, position, stream, version, event_id, event_type, schema_version, \
         payload, metadata, recorded_at) VALUES {values}"
    )
}

/// Gives `write`, which begins with an [`insert`], the values of `rows`.
fn bind<'q>(
    mut write: Query<'q, Sqlite, SqliteArguments>,
    rows: &[Row<'_>],
    places: &Places,
) -> Result<Query<'q, Sqlite, SqliteArguments>, Failure> {
    for row in rows {
        let place = places
            .get(&row.partition)
            .copied()
            .ok_or_else(|| Failure::Corrupt(format!("partition {} has no place", row.partition)))?;
        write = write
            .bind(row.partition.number())
            .bind(signed(place.base.plus(row.offset).number()))
            .bind(row.stream.as_str().to_owned())
            .bind(signed(row.version.number()))
            .bind(row.event.id.uuid().as_bytes().to_vec())
            .bind(row.event.event_type.to_string())
            .bind(row.event.schema_version)
            .bind(row.event.payload.as_bytes().to_vec())
            .bind(row.event.metadata.as_bytes().to_vec())
            .bind(place.recorded_at.timestamp_micros());
    }
    Ok(write)
}

/// Where the heads are after the rows of `plan`, for [`MOVE_HEADS`].
fn moved_heads(plan: &Plan<'_>, places: &Places) -> String {
    let moved = plan.counts.iter().filter_map(|(partition, count)| {
        let place = places.get(partition)?;
        let next = signed(place.base.plus(*count).number());
        let at = place.recorded_at.timestamp_micros();
        Some((i64::from(partition.number()), next, at))
    });
    json!(moved.collect::<Vec<_>>()).to_string()
}
