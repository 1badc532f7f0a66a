//! Handling a message once: its id is recorded in the transaction of its effects.
//!
//! A worker gets a message [at least once](tidelog_eventbus::messaging). With a record of the message's id beside the effects, both are there or
//! neither is, whatever dies in the middle: a second try finds the record and does nothing. Two tries at the same time wait for each other on it.
//!
//! The records of a group are kept for a window, 7 days unless told otherwise, and swept after it. A message that comes again later than that
//! is handled again: a dead letter that is retried after more than a week, say.
//!
//! ```no_run
//! use tidelog_command::handled::MySqlHandled;
//! use tidelog_eventbus::messaging::{HandlerError, Messaging, Subject};
//!
//! const PAID: Subject<u64> = Subject::new("shop.paid");
//!
//! # async fn example(pool: sqlx::MySqlPool, messaging: Messaging) -> Result<(), Box<dyn std::error::Error>> {
//! let handled = MySqlHandled::new("ledger")?;
//! handled.create_table(&pool).await?;
//! messaging.worker("ledger").handle(&PAID, move |amount, message| {
//!     let (pool, handled) = (pool.clone(), handled.clone());
//!     async move {
//!         let mut transaction = pool.begin().await?;
//!         if handled.is_first(&mut transaction, message.id()).await? {
//!             sqlx::query("UPDATE ledger SET balance = balance + ?")
//!                 .bind(amount)
//!                 .execute(&mut *transaction)
//!                 .await?;
//!         }
//!         transaction.commit().await?;
//!         Ok(())
//!     }
//! });
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "mysql")]
pub use mysql::MySqlHandled;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteHandled;

/// How long the record of a message is kept, unless told otherwise: 7 days.
pub const DEFAULT_WINDOW: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How many records are swept in one statement, so that none holds others up for long.
const SWEEP_AT_ONCE: u32 = 1_000;

/// Whether a record was made, or was there.
fn is_new<T>(inserted: Result<T, sqlx::Error>) -> Result<bool, sqlx::Error> {
    match inserted {
        Ok(_) => Ok(true),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
        Err(error) => Err(error),
    }
}
