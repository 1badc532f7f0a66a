//! Appending, by a task that owns the one connection that writes.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;

use chrono::{DateTime, SubsecRound, Utc};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Row as _, query};
use tidelog_domain::{Append, Partition, Partitions, Position, StreamId, Version};
use tokio::sync::mpsc;

use super::reader::signed;
use crate::store::failure::Failure;
use crate::store::keys::{KeyRow, Keys, ScopedKey, keys};
use crate::store::lane::{self, Job, Lane, Verdicts};
use crate::store::plan::{Place, Plan, Row, Taint, partitions_to_lock, streams};

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
        let mut versions = HashMap::new();
        for stream in streams(batch) {
            versions.insert(stream, self.version(stream).await?);
        }
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
        let mut places = BTreeMap::new();
        for partition in partitions_to_lock(batch, self.partitions) {
            places.insert(partition, self.place(partition, now).await?);
        }
        for row in &plan.rows {
            if let Some(place) = places.get(&row.partition) {
                self.insert(row, *place).await?;
            }
        }
        for (partition, count) in &plan.counts {
            if let Some(place) = places.get(partition) {
                self.move_head(*partition, *place, *count).await?;
            }
        }
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

    async fn version(&mut self, stream: &StreamId) -> Result<Version, Failure> {
        let row = query("SELECT coalesce(max(version), 0) FROM events WHERE stream = ?")
            .bind(stream.as_str())
            .fetch_one(&mut self.connection)
            .await?;
        Ok(Version::new(row.try_get(0)?))
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

    /// Where the next events of `partition` go, at `now` or, when the clock was set back, at the last event's time.
    async fn place(&mut self, partition: Partition, now: DateTime<Utc>) -> Result<Place, Failure> {
        let row =
            query("SELECT next_position, last_recorded_at FROM log_head WHERE partition_no = ?")
                .bind(partition.number())
                .fetch_optional(&mut self.connection)
                .await?
                .ok_or_else(|| Failure::Corrupt(format!("partition {partition} has no head")))?;
        let last = DateTime::from_timestamp_micros(row.try_get(1)?).unwrap_or_default();
        Ok(Place {
            base: Position::new(row.try_get(0)?),
            recorded_at: now.max(last),
        })
    }

    async fn insert(&mut self, row: &Row<'_>, place: Place) -> Result<(), Failure> {
        query(
            "INSERT INTO events (partition_no, position, stream, version, event_id, event_type, schema_version, \
             payload, metadata, recorded_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(row.partition.number())
        .bind(signed(place.base.plus(row.offset).number()))
        .bind(row.stream.as_str())
        .bind(signed(row.version.number()))
        .bind(&row.event.id.uuid().as_bytes()[..])
        .bind(&*row.event.event_type)
        .bind(row.event.schema_version)
        .bind(row.event.payload.as_bytes())
        .bind(row.event.metadata.as_bytes())
        .bind(place.recorded_at.timestamp_micros())
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    async fn move_head(
        &mut self,
        partition: Partition,
        place: Place,
        count: u64,
    ) -> Result<(), Failure> {
        query("UPDATE log_head SET next_position = ?, last_recorded_at = ? WHERE partition_no = ?")
            .bind(signed(place.base.plus(count).number()))
            .bind(place.recorded_at.timestamp_micros())
            .bind(partition.number())
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
