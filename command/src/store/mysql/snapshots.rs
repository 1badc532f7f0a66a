//! Keeping snapshots, by connections of the pool: they are no part of an append.

use sqlx::Connection;
use sqlx::mysql::MySqlConnection;
use sqlx::query;

use crate::store::Snapshot;
use crate::store::failure::Failure;

/// Keeps a snapshot, unless a later one of the same fingerprint and history is there.
///
/// The assignments are made from left to right, each on what those before it left: the first one says by the event's id whether the
/// new one takes the place. (Where the ids were the same before, so are version, fingerprint and history, or it does.)
const KEEP: &str = "INSERT INTO snapshots (stream,version,event_id,history,fingerprint,state) \
     SELECT * FROM (SELECT ? AS stream,? AS version,? AS event_id,history,? AS fingerprint,? AS state FROM log_meta) AS new \
     ON DUPLICATE KEY UPDATE \
     event_id=IF(new.version>snapshots.version OR new.fingerprint<>snapshots.fingerprint OR new.history<>snapshots.history,\
     new.event_id,snapshots.event_id),\
     state=IF(snapshots.event_id=new.event_id,new.state,snapshots.state),\
     version=IF(snapshots.event_id=new.event_id,new.version,snapshots.version),\
     history=IF(snapshots.event_id=new.event_id,new.history,snapshots.history),\
     fingerprint=IF(snapshots.event_id=new.event_id,new.fingerprint,snapshots.fingerprint)";

/// Keeps `snapshots` in one transaction, so that it is one sync to the disk. Whoever does so takes them in the same order.
pub(super) async fn keep(
    connection: &mut MySqlConnection,
    mut snapshots: Vec<Snapshot>,
) -> Result<(), Failure> {
    snapshots.sort_by(|one, other| one.stream.cmp(&other.stream));
    let mut transaction = connection.begin().await?;
    for snapshot in &snapshots {
        query(KEEP)
            .bind(snapshot.stream.as_str().as_bytes())
            .bind(snapshot.version.number())
            .bind(snapshot.event_id.uuid().as_bytes().to_vec())
            .bind(snapshot.fingerprint.as_bytes())
            .bind(snapshot.state.as_bytes())
            .execute(&mut *transaction)
            .await?;
    }
    Ok(transaction.commit().await?)
}
