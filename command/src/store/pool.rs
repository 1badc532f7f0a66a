//! The use of a pool's connections: the same for both databases.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::{Database, Pool};
use tokio::time::timeout;

use super::failure::{Cause, Failure};

/// Runs `work` on a connection of `pool`, [to its end](run_to_its_end).
pub(super) async fn to_its_end<DB: Database, T: Send + 'static>(
    pool: &Pool<DB>,
    patience: Duration,
    work: impl for<'c> FnOnce(&'c mut DB::Connection) -> BoxFuture<'c, Result<T, Failure>>
    + Send
    + 'static,
) -> Result<T, Failure> {
    let pool = pool.clone();
    run_to_its_end(async move { on_connection(&pool, patience, work).await }).await
}

/// Runs `work` to its end in a task of its own, even when whoever asked for it goes away, or does not poll.
///
/// The first would close a connection: one whose query was cut off in the middle cannot be used again. The second would keep a
/// connection, or a granted place in the queue for one, from all others: a loop over many reads at once polls none of them while
/// it does something else, and that may need a connection too.
pub(super) async fn run_to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|ended| Err(Failure::Unavailable(Cause::new(ended))))
}

/// Runs `work` on a connection of `pool`, for as long as `patience` at most, which begins when it has the connection.
pub(super) async fn on_connection<DB: Database, T>(
    pool: &Pool<DB>,
    patience: Duration,
    work: impl for<'c> FnOnce(&'c mut DB::Connection) -> BoxFuture<'c, Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut connection = pool.acquire().await?;
    match timeout(patience, work(&mut *connection)).await {
        Ok(done) => done,
        Err(elapsed) => {
            drop(connection.detach());
            Err(Failure::Unavailable(Cause::new(elapsed)))
        }
    }
}
