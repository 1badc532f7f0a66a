//! Tasks that are stopped together.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tasks that are stopped together.
#[derive(Clone, Default)]
pub(super) struct Group {
    /// Cancelled when the tasks have to end.
    pub(super) stop: CancellationToken,
    /// Cancelled when one of them has panicked.
    pub(super) broken: CancellationToken,
    tasks: TaskTracker,
}

impl Group {
    /// Runs a task that ends when it is told to.
    pub(super) fn spawn<F: Future<Output = ()> + Send + 'static>(
        &self,
        task: impl FnOnce(CancellationToken) -> F,
    ) {
        let task = AssertUnwindSafe(task(self.stop.clone())).catch_unwind();
        let broken = self.broken.clone();
        self.tasks.spawn(async move {
            // What it was, the panic has printed.
            if task.await.is_err() {
                broken.cancel();
            }
        });
    }

    /// Stops its tasks and waits for them, for `grace` at most. Says whether all ended.
    pub(super) async fn end(&self, grace: Duration) -> bool {
        self.stop.cancel();
        self.tasks.close();
        timeout(grace, self.tasks.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_noticed_and_does_not_hold_the_end() {
        let group = Group::default();
        group.spawn(async |stop| stop.cancelled().await);
        group.spawn(async |_| panic!("as the test wants it"));
        group.broken.cancelled().await;
        assert!(!group.stop.is_cancelled());
        assert!(group.end(Duration::from_secs(60)).await);
    }
}
