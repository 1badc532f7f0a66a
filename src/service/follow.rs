//! Following another program: its log, by way of its feed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::Partitions;
use tidelog_eventbus::{Backoff, FeedLogReader, InProcessEventBus, LogReader, Tail, TailOptions};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::reactions::Keeper;

/// The first wait before another try to reach the program, at most.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// The longest one.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How many partitions are read at once: a feed has two readers at a time, and turns more down.
const CONCURRENT_PARTITIONS: usize = 2;

/// Has `keeper` react to the events of `feed` until `stop`, asking for news every `interval`.
pub(super) async fn follow(
    keeper: Keeper,
    feed: Arc<FeedLogReader>,
    interval: Duration,
    stop: CancellationToken,
) {
    let (name, live) = (keeper.name.clone(), keeper.live.clone());
    let mut problem = feed.problem();
    let watching = async {
        loop {
            let unreachable = problem.borrow_and_update().clone();
            live.set(&name, |status| status.unreachable = unreachable);
            if problem.changed().await.is_err() {
                // The feed lives as long as the reaction, which is polled beside this.
                return std::future::pending::<Infallible>().await;
            }
        }
    };
    tokio::select! {
        () = react(keeper, &feed, interval, stop) => {}
        never = watching => match never {},
    }
}

async fn react(
    keeper: Keeper,
    feed: &Arc<FeedLogReader>,
    interval: Duration,
    stop: CancellationToken,
) {
    let Some(partitions) = stop
        .run_until_cancelled(partitions(&keeper.name, feed))
        .await
    else {
        return;
    };
    let options = TailOptions {
        poll_interval: interval,
        // There is nothing else that could bring an event.
        stall_after: Duration::ZERO,
        ..TailOptions::default()
    };
    let no_bus = Arc::new(InProcessEventBus::keeping(0));
    let tail = Tail::new(partitions, no_bus, feed.clone(), None, options);
    let ended = CancellationToken::new();
    let reacting = async {
        keeper
            .run(feed.clone(), tail.clone(), CONCURRENT_PARTITIONS, stop)
            .await;
        ended.cancel();
    };
    tokio::join!(reacting, tail.run(ended.clone()));
}

/// How many partitions the other program's log has; waits until it can be reached.
async fn partitions(reaction: &str, feed: &FeedLogReader) -> Partitions {
    let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX);
    loop {
        let error = match feed.identity().await {
            Ok(identity) => return identity.partitions,
            Err(error) => error,
        };
        let wait = backoff.next_wait();
        if backoff.attempts() == 1 {
            tracing::warn!(
                reaction,
                reason = tidelog_domain::causes(&error),
                "the program that the reaction follows cannot be reached, and is tried again until it can"
            );
        }
        sleep(wait).await;
    }
}
