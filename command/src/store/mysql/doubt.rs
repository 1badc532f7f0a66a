//! Finding out whether a commit happened whose answer was lost.

use std::time::{Duration, Instant};

use chrono::DateTime;
use sqlx::Row as _;
use sqlx::mysql::MySqlRow;
use tidelog_domain::{Partition, Position};
use uuid::Uuid;

use super::script::Script;
use super::session::Session;
use super::writer::{Places, Writer};
use crate::store::failure::{Cause, Failure};
use crate::store::plan::{Place, Plan, Row};

/// The pause before it is asked again.
const PAUSE: Duration = Duration::from_millis(100);

impl Writer {
    /// Where the rows of `plan` are, when the lost session `id` committed them after all; `None` when it did not, and never will.
    ///
    /// # Errors
    ///
    /// [`Failure::InDoubt`] when it cannot be found out in time.
    pub(super) async fn find_out(
        &mut self,
        plan: &Plan<'_>,
        id: Uuid,
        cause: Cause,
    ) -> Result<Option<Places>, Failure> {
        let give_up = Instant::now() + self.shared.in_doubt_timeout;
        while Instant::now() < give_up {
            if let Ok(mut session) = self.connect().await {
                match look(&mut session, plan, id).await {
                    Ok(Some(found)) => {
                        self.session = Some(session).filter(Session::is_usable);
                        return found;
                    }
                    // The old session is not over yet, or this one was lost too.
                    Ok(None) | Err(_) => session.close().await,
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Failure::InDoubt(cause))
    }
}

/// What became of `plan`, once it is certain that the session `id` is over; `None` when it is not.
async fn look(
    session: &mut Session,
    plan: &Plan<'_>,
    id: Uuid,
) -> Result<Option<Result<Option<Places>, Failure>>, sqlx::Error> {
    if !session.make_sure_of_the_end(id).await? {
        return Ok(None);
    }
    if plan.rows.is_empty() {
        // It recorded nothing but keys. Whether it did, the next try finds out: it looks the keys up.
        return Ok(Some(Ok(None)));
    }
    let firsts: Vec<Row<'_>> = plan
        .rows
        .iter()
        .filter(|row| row.offset == 0)
        .copied()
        .collect();
    let mut script = Script::default();
    script
        .statement("START TRANSACTION")
        .wait_for_heads(plan.counts.keys())
        .find(&firsts)
        .statement("ROLLBACK");
    let trip = session.run(script).await;
    if trip.outcome.is_err() {
        session.roll_back().await;
    }
    Ok(Some(ours(&trip.outcome?, &firsts)?))
}

/// The places of our events among those found. They were written in one transaction: all are there, or none.
fn ours(
    rows: &[MySqlRow],
    firsts: &[Row<'_>],
) -> Result<Result<Option<Places>, Failure>, sqlx::Error> {
    let mut places = Places::new();
    for row in rows {
        let n = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
        let event_id: &[u8] = row.try_get(1)?;
        if let Some(first) = firsts.get(n)
            && first.event.id.uuid().as_bytes() == event_id
        {
            let (partition, place) = place(row, first)?;
            places.insert(partition, place);
        }
    }
    Ok(match places.len() {
        0 => Ok(None),
        found if found == firsts.len() => Ok(Some(places)),
        _ => Err(Failure::Corrupt(
            "only a part of a transaction is in the log".to_owned(),
        )),
    })
}

/// Where the rows of the partition of `first` are.
fn place(row: &MySqlRow, first: &Row<'_>) -> Result<(Partition, Place), sqlx::Error> {
    let position: u64 = row.try_get(2)?;
    let micros: i64 = row.try_get(3)?;
    let place = Place {
        base: Position::new(position),
        recorded_at: DateTime::from_timestamp_micros(micros).unwrap_or_default(),
    };
    Ok((first.partition, place))
}
