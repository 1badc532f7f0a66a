//! A stream of typed events, for those who want a loop of their own.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt};
use tidelog_domain::{
    ConsistencyToken, Cursor, DecodeError, EventReader, EventSet, HistoryId, Partition, Position,
    Recorded, RecordedEvent, causes,
};
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::gate::{Gate, gate};
use crate::log::{LogError, LogReader};
use crate::outage::Outage;
use crate::start::{Start, StartError};
use crate::tail::{Next, PartitionTail, Tail};

/// How many events of a partition are held at once, at most. (A page of large events from the log has fewer: about 16 MiB.)
const PAGE_MAX_EVENTS: usize = 100;

/// The first wait after the log could not be read, at most.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);

/// The longest one.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How long to wait when the log does not have yet what the bus has.
const LOG_BEHIND: Duration = Duration::from_millis(50);

/// The events of a set, as they are recorded: a [`Stream`] that does not end by itself.
///
/// - The events of a partition come in order, and none is left out. Between partitions there is no order.
/// - Nothing is read ahead of who polls it but a page a partition, and nothing is persisted: who wants to go on later keeps the
///   [`token`](EventStream::token) and starts with [`Start::After`] it.
/// - While the log or the bus is unavailable, it waits, and says so in the log of the process. After an error it has ended.
pub struct EventStream<E> {
    events: Pin<Box<dyn Stream<Item = Result<RecordedEvent, StreamError>> + Send>>,
    reader: EventReader<E>,
    token: ConsistencyToken,
    has_failed: bool,
}

/// Why a stream has ended, or could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// This process does not read the log.
    #[error("a process of this role does not read the log")]
    NotHere,
    /// It cannot be told where it begins.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The log cannot be read any further.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log has another history: what came before may not have happened.
    #[error(
        "the log has a new history, {log}: it was restored or replaced, and what the stream gave may not have happened"
    )]
    HistoryChanged {
        /// The history that it has now.
        log: HistoryId,
    },
    /// An event cannot be read by this program.
    #[error("the event at position {position} of partition {partition} cannot be read")]
    Unreadable {
        /// Its partition.
        partition: Partition,
        /// Its position.
        position: Position,
        /// Why.
        source: DecodeError,
    },
}

impl<E: EventSet> EventStream<E> {
    /// The events of `log` from `from` on, by way of `tail`, which must [run](Tail::run).
    ///
    /// # Errors
    ///
    /// [`StreamError::Start`] and [`StreamError::Log`].
    pub async fn begin(
        tail: &Tail,
        log: Arc<dyn LogReader>,
        from: &Start,
    ) -> Result<Self, StreamError> {
        let history = log.identity().await?.history;
        let cursors = from.cursors(&*log, history).await?;
        let partitions = || tail.partitions().iter().zip(&cursors);
        let positions = partitions().map(|(partition, cursor)| (partition, cursor.position));
        let positions = positions.collect();
        let outage = Arc::new(Outage::new("stream of events"));
        let readers = partitions().filter_map(|(partition, cursor)| {
            Some(PartitionReader {
                tail: tail.of_partition(history, partition)?,
                log: Arc::clone(&log),
                partition,
                cursor: *cursor,
                page: Vec::new().into_iter(),
                reads_log: true,
                backoff: Backoff::new(BACKOFF_FIRST, BACKOFF_MAX),
                outage: Arc::clone(&outage),
            })
        });
        let partitions = readers.map(|reader| {
            let read = |mut reader: PartitionReader| async move {
                let event = reader.event().await;
                Some((event, reader))
            };
            stream::unfold(reader, read).boxed()
        });
        let changed = stream::once(another_history(tail.history(), history)).boxed();
        Ok(Self {
            events: stream::select_all(partitions.chain([changed])).boxed(),
            reader: EventReader::new(),
            token: ConsistencyToken {
                history,
                positions,
                tenant: None,
            },
            has_failed: false,
        })
    }
}

/// Waits until the log is known to have another history.
async fn another_history(
    mut known: watch::Receiver<Option<HistoryId>>,
    history: HistoryId,
) -> Result<RecordedEvent, StreamError> {
    let other = |known: &Option<HistoryId>| known.is_some_and(|known| known != history);
    let log = match known.wait_for(other).await {
        Ok(known) => *known,
        // The tail is gone, and with it who could know.
        Err(_) => None,
    };
    match log {
        Some(log) => Err(StreamError::HistoryChanged { log }),
        None => std::future::pending().await,
    }
}

impl<E> EventStream<E> {
    /// How far the stream is: up to the event that it gave last, and past those before it that are not of the set. To go on after
    /// it, [`Start::After`] it.
    #[must_use]
    pub const fn token(&self) -> &ConsistencyToken {
        &self.token
    }

    /// It has come to `event`.
    fn reached(&mut self, event: &RecordedEvent) {
        if let Some((_, position)) = self.token.positions.get_mut(event.partition.index()) {
            *position = event.position;
        }
    }
}

impl<E: EventSet> Stream for EventStream<E> {
    type Item = Result<Recorded<E>, StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while !this.has_failed {
            let event = match ready!(this.events.as_mut().poll_next(cx)) {
                Some(Ok(event)) => event,
                Some(Err(error)) => {
                    this.has_failed = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => break,
            };
            if !this.reader.filter().matches(&event) {
                this.reached(&event);
                continue;
            }
            let read = this.reader.read(&event);
            match &read {
                Ok(_) => this.reached(&event),
                Err(_) => this.has_failed = true,
            }
            return Poll::Ready(Some(read.map_err(|source| StreamError::Unreadable {
                partition: event.partition,
                position: event.position,
                source,
            })));
        }
        Poll::Ready(None)
    }
}

/// Reads one partition, event by event.
struct PartitionReader {
    tail: PartitionTail,
    log: Arc<dyn LogReader>,
    partition: Partition,
    /// The last event that was given.
    cursor: Cursor,
    page: std::vec::IntoIter<RecordedEvent>,
    /// Whether the next page comes from the log, whatever the tail has: the first does, to compare the cursor.
    reads_log: bool,
    backoff: Backoff,
    outage: Arc<Outage>,
}

impl PartitionReader {
    /// The next event, however long that takes.
    async fn event(&mut self) -> Result<RecordedEvent, StreamError> {
        loop {
            let Some(event) = self.page.next() else {
                self.page = self.next_page().await?.into_iter();
                continue;
            };
            match gate(self.cursor.position, event.position) {
                Gate::Apply => {
                    self.cursor = event.cursor();
                    return Ok(event);
                }
                Gate::Skip => {}
                Gate::ReadLog => {
                    self.page = Vec::new().into_iter();
                    self.reads_log = true;
                }
            }
        }
    }

    async fn next_page(&mut self) -> Result<Vec<RecordedEvent>, StreamError> {
        // Where nothing ever has to wait (all is in memory), others on the thread have their turn here.
        tokio::task::consume_budget().await;
        if std::mem::take(&mut self.reads_log) {
            return self.read_log().await;
        }
        match self.tail.next(self.cursor.position, PAGE_MAX_EVENTS).await {
            Next::Events(events) => Ok(events),
            Next::ReadLog => self.read_log().await,
        }
    }

    async fn read_log(&mut self) -> Result<Vec<RecordedEvent>, StreamError> {
        loop {
            let read = self.log.read(self.partition, self.cursor, PAGE_MAX_EVENTS);
            match read.await {
                Ok(page) => {
                    self.backoff.reset();
                    self.outage.recovered(Some(self.partition));
                    if page.is_empty() && self.tail.head() > self.cursor.position {
                        tokio::time::sleep(LOG_BEHIND).await;
                    }
                    return Ok(page);
                }
                Err(error @ LogError::Unavailable(_)) => {
                    self.outage.failed(Some(self.partition), &causes(&error));
                    tokio::time::sleep(self.backoff.next_wait()).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
