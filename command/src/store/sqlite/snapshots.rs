//! Snapshots, by connections of the pool: they are no part of an append.

use sqlx::sqlite::SqliteConnection;
use sqlx::{Row, query};
use tidelog_domain::{EventId, Payload, Position, StreamId, Version};
use uuid::Uuid;

use super::reader::signed;
use crate::store::Snapshot;
use crate::store::failure::Failure;

/// The snapshot of a stream, if it is of this history and the log has its event.
const FIND: &str = "SELECT s.version, s.event_id, s.state, e.position FROM snapshots AS s \
     JOIN log_meta AS m ON m.history = s.history \
     JOIN events AS e ON e.stream = s.stream AND e.version = s.version AND e.event_id = s.event_id \
     WHERE s.stream = ? AND s.fingerprint = ?";

/// Keeps a snapshot, unless a later one of the same fingerprint and history is there.
const KEEP: &str = "INSERT INTO snapshots (stream, version, event_id, history, fingerprint, state) \
     SELECT ?, ?, ?, history, ?, ? FROM log_meta WHERE TRUE \
     ON CONFLICT (stream) DO UPDATE SET version = excluded.version, event_id = excluded.event_id, \
     history = excluded.history, fingerprint = excluded.fingerprint, state = excluded.state \
     WHERE excluded.version > snapshots.version OR excluded.fingerprint <> snapshots.fingerprint \
     OR excluded.history <> snapshots.history";

/// The snapshot of `stream` with `fingerprint`, and the position of its event.
pub(super) async fn find(
    connection: &mut SqliteConnection,
    stream: &StreamId,
    fingerprint: &str,
) -> Result<Option<(Snapshot, Position)>, Failure> {
    let row = query(FIND)
        .bind(stream.as_str())
        .bind(fingerprint)
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let id = Uuid::from_slice(row.try_get(1)?)
        .map_err(|_| Failure::Corrupt(format!("the snapshot of {stream} names no event")))?;
    let snapshot = Snapshot {
        stream: stream.clone(),
        version: Version::new(row.try_get(0)?),
        event_id: EventId::new(id),
        fingerprint: fingerprint.into(),
        state: Payload::from_stored(row.try_get(2)?),
    };
    Ok(Some((snapshot, Position::new(row.try_get(3)?))))
}

/// Keeps `snapshots`, each by itself: the file is locked for as short as can be.
pub(super) async fn keep(
    connection: &mut SqliteConnection,
    snapshots: &[Snapshot],
) -> Result<(), Failure> {
    for snapshot in snapshots {
        query(KEEP)
            .bind(snapshot.stream.as_str())
            .bind(signed(snapshot.version.number()))
            .bind(snapshot.event_id.uuid().as_bytes().to_vec())
            .bind(&*snapshot.fingerprint)
            .bind(snapshot.state.as_bytes())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
