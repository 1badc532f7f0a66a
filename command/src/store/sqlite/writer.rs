//! Appending, by a task that owns the one connection that writes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;

use chrono::{DateTime, SubsecRound, Utc};
use serde_json::json;
use sqlx::sqlite::SqliteConnection;
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
        query("BEGIN IMMEDIATE")
            .execute(&mut self.connection)
            .await?;
        match self.write(batch, taint).await {
            Ok((plan, places)) => {
                self.commit(&plan).await?;
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

    /// Decides what becomes of the batch, and writes it.
    async fn write<'a>(
        &mut self,
        batch: &'a [Append],
        taint: Taint,
    ) -> Result<(Plan<'a>, BTreeMap<Partition, Place>), Failure> {
        let versions = self.versions(streams(batch)).await?;
        let mut used = Keys::new();
        for key in keys(batch) {
            if let Some(row) = self.key_row(&key.scoped).await? {
                used.insert(key.scoped, row);
            }
        }
        let plan = Plan::new(batch, self.partitions, versions, &used, taint);
        let now = Utc::now().trunc_subsecs(6);
        for (key, row) in &plan.keys {
            self.insert_key(key, row, now).await?;
        }
        let places = self
            .places(&partitions_to_lock(batch, self.partitions), now)
            .await?;
        let mut left = plan.rows.as_slice();
        while let Some(rows) = INSERT_ROWS.iter().find(|rows| **rows <= left.len()) {
            let (rows, later) = left.split_at(*rows);
            self.insert(rows, &places).await?;
            left = later;
        }
        self.move_heads(&plan, &places).await?;
        Ok((plan, places))
    }

    /// Commits. When that fails, looks whether it happened all the same.
    async fn commit(&mut self, plan: &Plan<'_>) -> Result<(), Failure> {
        let Err(error) = query("COMMIT").execute(&mut self.connection).await else {
            return Ok(());
        };
        self.roll_back().await;
        let failure = Failure::from(error);
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

    /// The versions of `streams`, each by one look at the end of its index entries.
    async fn versions<'a>(
        &mut self,
        streams: BTreeSet<&'a StreamId>,
    ) -> Result<HashMap<&'a StreamId, Version>, Failure> {
        let names: Vec<&str> = streams.iter().map(|stream| stream.as_str()).collect();
        let rows = query(
            "SELECT (SELECT coalesce(max(version), 0) FROM events WHERE stream = asked.value) \
             FROM json_each(?) AS asked ORDER BY asked.key",
        )
        .bind(json!(names).to_string())
        .fetch_all(&mut self.connection)
        .await?;
        if rows.len() != streams.len() {
            return Err(Failure::Corrupt("a stream has no version".to_owned()));
        }
        let versions = streams.into_iter().zip(rows);
        versions
            .map(|(stream, row)| Ok((stream, Version::new(row.try_get(0)?))))
            .collect()
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

    /// Where the next events of each of `partitions` go, at `now` or, when the clock was set back, at the last event's time.
    async fn places(
        &mut self,
        partitions: &BTreeSet<Partition>,
        now: DateTime<Utc>,
    ) -> Result<BTreeMap<Partition, Place>, Failure> {
        let numbers: Vec<u16> = partitions.iter().map(|one| one.number()).collect();
        let rows = query(
            "SELECT partition_no, next_position, last_recorded_at FROM log_head \
             WHERE partition_no IN (SELECT value FROM json_each(?))",
        )
        .bind(json!(numbers).to_string())
        .fetch_all(&mut self.connection)
        .await?;
        let mut places = BTreeMap::new();
        for row in rows {
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

    /// Writes `rows`, by one statement.
    async fn insert(
        &mut self,
        rows: &[Row<'_>],
        places: &BTreeMap<Partition, Place>,
    ) -> Result<(), Failure> {
        let values = vec!["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"; rows.len()].join(", ");
        let mut insert = query(AssertSqlSafe(format!(
            "INSERT INTO events (partition_no, position, stream, version, event_id, event_type, schema_version, \
             payload, metadata, recorded_at) VALUES {values}"
        )));
        for row in rows {
            let place = places.get(&row.partition).copied().ok_or_else(|| {
                Failure::Corrupt(format!("partition {} has no place", row.partition))
            })?;
            insert = insert
                .bind(row.partition.number())
                .bind(signed(place.base.plus(row.offset).number()))
                .bind(row.stream.as_str())
                .bind(signed(row.version.number()))
                .bind(row.event.id.uuid().as_bytes().to_vec())
                .bind(&*row.event.event_type)
                .bind(row.event.schema_version)
                .bind(row.event.payload.as_bytes())
                .bind(row.event.metadata.as_bytes())
                .bind(place.recorded_at.timestamp_micros());
        }
        insert.execute(&mut self.connection).await?;
        Ok(())
    }

    /// Moves the heads past the rows of `plan`.
    async fn move_heads(
        &mut self,
        plan: &Plan<'_>,
        places: &BTreeMap<Partition, Place>,
    ) -> Result<(), Failure> {
        if plan.counts.is_empty() {
            return Ok(());
        }
        let heads: Vec<_> = plan
            .counts
            .iter()
            .filter_map(|(partition, count)| {
                let place = places.get(partition)?;
                let next = signed(place.base.plus(*count).number());
                let at = place.recorded_at.timestamp_micros();
                Some((i64::from(partition.number()), next, at))
            })
            .collect();
        query(
            "UPDATE log_head SET next_position = moved.value ->> 1, last_recorded_at = moved.value ->> 2 \
             FROM json_each(?) AS moved WHERE partition_no = moved.value ->> 0",
        )
        .bind(json!(heads).to_string())
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
