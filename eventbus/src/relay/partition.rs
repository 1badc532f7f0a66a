//! The relay of one partition.

use std::time::Duration;

use tidelog_domain::{Cursor, HistoryId, Partition, Position};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::field::Empty;

use super::Shared;
use super::status::RelayState;
use crate::backoff::Backoff;
use crate::bus::BusError;
use crate::heads::Head;
use crate::log::LogError;
use crate::traces::{Spans, Which};
use tidelog_domain::causes;

/// The first wait after a failure, at most.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);

/// Publishes one partition of one history.
pub(super) struct PartitionRelay<'a> {
    pub(super) shared: &'a Shared,
    pub(super) history: HistoryId,
    pub(super) partition: Partition,
    pub(super) head: watch::Receiver<Head>,
}

/// The log went back in time.
pub(super) struct Diverged {
    pub(super) partition: Partition,
    pub(super) position: Position,
}

/// Why publishing stopped.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl PartitionRelay<'_> {
    /// Publishes until the log turns out to have gone back in time.
    pub(super) async fn run(mut self) -> Diverged {
        let mut backoff = Backoff::new(BACKOFF_FIRST, self.shared.options.backoff_max);
        // A partition that the bus has nothing of begins at the log's head, which must be known for it.
        let _ = self.head.wait_for(|head| head.polls > 0).await;
        let mut reached = None;
        loop {
            let failure = match self.publish_for_a_while(reached, &mut backoff).await {
                Ok(cursor) => {
                    reached = Some(cursor);
                    continue;
                }
                Err(failure) => failure,
            };
            reached = None;
            if let Failure::Log(LogError::Diverged {
                partition,
                position,
            }) = failure
            {
                return Diverged {
                    partition,
                    position,
                };
            }
            let reason = causes(&failure);
            let wait = backoff.next_wait();
            self.shared.outage.failed(Some(self.partition), &reason);
            let attempts = backoff.attempts();
            let state = RelayState::BackingOff { reason, attempts };
            self.shared.status.set(self.partition, state);
            tokio::time::sleep(wait).await;
        }
    }

    /// Publishes until a failure, or until it is time to ask the bus again where it is. (A publish alone does not
    /// notice that somebody else's entry has taken all later places.) Where it is then, it is told again as `reached`.
    async fn publish_for_a_while(
        &mut self,
        reached: Option<Cursor>,
        backoff: &mut Backoff,
    ) -> Result<Cursor, Failure> {
        let mut cursor = self.start(reached).await?;
        let ask_again_at = Instant::now() + self.shared.options.recheck_interval;
        while Instant::now() < ask_again_at {
            let seen_polls = self.head.borrow_and_update().polls;
            let before = cursor.position;
            cursor = self.publish_page(cursor).await?;
            backoff.reset();
            self.shared.outage.recovered(Some(self.partition));
            self.shared
                .status
                .published(self.partition, cursor.position);
            let moved = cursor.position > before;
            self.wait_for_work(cursor.position, seen_polls, moved).await;
        }
        Ok(cursor)
    }

    /// Where the bus is; for a partition that it has nothing of, where this relay had come to without a failure, or the log's
    /// head. (The head alone would leave out what was committed since: all of it, where that is less often than the bus is asked.)
    async fn start(&mut self, reached: Option<Cursor>) -> Result<Cursor, BusError> {
        let _permit = self.shared.permits.acquire().await;
        let last = self.shared.bus.last(self.history, self.partition).await?;
        Ok(last.or(reached).unwrap_or_else(|| Cursor {
            position: self.head.borrow().polled,
            event_id: None,
        }))
    }

    /// Publishes one page after `cursor`, and says where the bus is then. The read compares the event at the cursor.
    async fn publish_page(&self, cursor: Cursor) -> Result<Cursor, Failure> {
        let Shared {
            log,
            bus,
            options,
            permits,
            ..
        } = self.shared;
        let _permit = permits.acquire().await;
        let page = log
            .read(self.partition, cursor, options.page_max_events)
            .await?;
        let Some(last) = page.last() else {
            return Ok(cursor);
        };
        let spans = Spans::of(&page, Which::Recent, |event| {
            tracing::info_span!(
                "relay", partition = %event.partition, position = %event.position,
                outcome = Empty, otel.status_code = Empty
            )
        });
        let published = bus.publish(self.history, self.partition, &page).await;
        spans.end(|_| match &published {
            Ok(()) => "published",
            Err(_) => "failed",
        });
        published?;
        Ok(last.cursor())
    }

    /// Returns when there may be something after `cursor`, or nothing there any more. When the last read did not move
    /// the cursor, whatever is known by now did not help: only news does.
    async fn wait_for_work(&mut self, cursor: Position, seen_polls: u64, moved: bool) {
        let mut news = moved || self.head.has_changed().unwrap_or(false);
        loop {
            let head = *self.head.borrow_and_update();
            self.shared.status.seen(self.partition, head.known);
            if news && (head.known > cursor || head.is_below(cursor, seen_polls)) {
                return;
            }
            if self.head.changed().await.is_err() {
                // The heads live as long as the relay; without them there is nothing to wait for.
                return std::future::pending().await;
            }
            news = true;
        }
    }
}
