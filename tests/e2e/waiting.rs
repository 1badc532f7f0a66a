//! Waiting for a condition instead of for a time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// What has not come true by then will not. It is generous, because it only matters when a test fails.
pub(crate) const BOUND: Duration = Duration::from_secs(90);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(25);

/// Asks `condition` until it gives a value, and returns that. Panics with its last reason when it never does.
pub(crate) async fn eventually<T>(what: &str, condition: impl AsyncFn() -> Result<T, String>) -> T {
    let deadline = Instant::now() + BOUND;
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(reason) if Instant::now() > deadline => {
                panic!("waited for {what} in vain: {reason}")
            }
            Err(_) => sleep(POLL).await,
        }
    }
}
