use std::sync::Mutex;

use async_trait::async_trait;
use futures_util::FutureExt;
use tidelog_domain::{EventFilter, Partitions, Upcasters};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::bus::EventBus;
use crate::in_process::InProcessEventBus;
use crate::log::LogIdentity;
use crate::sample::event;
use crate::tail::TailOptions;

const PARTITIONS: u16 = 2;

/// The samples whose position is not a multiple of three, each as its position.
#[derive(Debug, PartialEq)]
struct Sample(u64);

impl EventSet for Sample {
    const NAMES: &'static [&'static str] = &["sample.made"];

    fn evolution() -> Upcasters {
        Upcasters::new([("sample.made", 2)], [])
    }

    fn read(event: &RecordedEvent) -> Result<Self, DecodeError> {
        Ok(Self(event.position.number()))
    }
}

/// A log that a test appends samples to.
#[derive(Default)]
struct Log {
    history: Mutex<u128>,
    heads: Mutex<[u64; PARTITIONS as usize]>,
    is_down: Mutex<bool>,
}

impl Log {
    /// Appends an event, which is not of the set at every third position.
    fn append(&self, partition: u16, count: u64) {
        self.heads.lock().unwrap()[usize::from(partition)] += count;
    }

    fn event(partition: u16, position: u64) -> RecordedEvent {
        let sample = event(partition, position);
        match position % 3 {
            0 => RecordedEvent {
                event_type: "other.made".into(),
                ..sample
            },
            _ => sample,
        }
    }

    fn history(&self) -> HistoryId {
        HistoryId::new(Uuid::from_u128(*self.history.lock().unwrap()))
    }
}

#[async_trait]
impl LogReader for Log {
    async fn identity(&self) -> Result<LogIdentity, LogError> {
        Ok(LogIdentity {
            history: self.history(),
            partitions: Partitions::new(PARTITIONS).unwrap(),
        })
    }

    async fn heads(&self) -> Result<Vec<Position>, LogError> {
        Ok(self.heads.lock().unwrap().map(Position::new).to_vec())
    }

    async fn read(
        &self,
        partition: Partition,
        cursor: Cursor,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        if std::mem::take(&mut *self.is_down.lock().unwrap()) {
            return Err(LogError::Unavailable("as the test wants it".into()));
        }
        let head = self.heads.lock().unwrap()[partition.index()];
        let after = cursor.position.number();
        if after > head {
            let position = cursor.position;
            return Err(LogError::Diverged {
                partition,
                position,
            });
        }
        let events = (after + 1..=head).take(limit);
        Ok(events
            .map(|position| Self::event(partition.number(), position))
            .collect())
    }
}

/// A log, a bus, and a tail of both that runs until this is dropped.
struct Bench {
    log: Arc<Log>,
    bus: Arc<InProcessEventBus>,
    tail: Tail,
    stop: CancellationToken,
}

impl Bench {
    fn new() -> Self {
        let (log, bus) = (Arc::new(Log::default()), Arc::new(InProcessEventBus::new()));
        let options = TailOptions {
            poll_interval: Duration::from_millis(5),
            ..TailOptions::default()
        };
        let partitions = Partitions::new(PARTITIONS).unwrap();
        let tail = Tail::new(partitions, bus.clone(), log.clone(), None, options);
        let stop = CancellationToken::new();
        let (running, stopped) = (tail.clone(), stop.clone());
        tokio::spawn(async move { running.run(stopped).await });
        Self {
            log,
            bus,
            tail,
            stop,
        }
    }

    async fn stream(&self, from: Start) -> Result<EventStream<Sample>, StreamError> {
        EventStream::begin(&self.tail, self.log.clone(), &from).await
    }

    /// Appends to the log, and publishes what is new.
    async fn publish(&self, partition: u16, count: u64) {
        let first = self.log.heads.lock().unwrap()[usize::from(partition)] + 1;
        self.log.append(partition, count);
        let events: Vec<_> = (first..first + count)
            .map(|at| Log::event(partition, at))
            .collect();
        let published = self
            .bus
            .publish(self.log.history(), Partition::new(partition), &events);
        published.await.unwrap();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The next events, each as its partition and position.
async fn next(stream: &mut EventStream<Sample>, count: usize) -> Vec<(u16, u64)> {
    let mut events = Vec::new();
    while events.len() < count {
        let recorded = stream.next().await.unwrap().unwrap();
        assert_eq!(recorded.event, Sample(recorded.position.number()));
        events.push((recorded.partition.number(), recorded.position.number()));
    }
    events
}

fn positions(stream: &EventStream<Sample>) -> Vec<u64> {
    let positions = stream.token().positions.iter();
    positions.map(|(_, position)| position.number()).collect()
}

#[tokio::test]
async fn each_partition_comes_in_order_without_a_hole_from_log_and_bus() {
    let bench = Bench::new();
    // More than a page from the log, then by the bus, then what the bus never brings.
    bench.log.append(0, 250);
    let mut stream = bench.stream(Start::Beginning).await.unwrap();
    let wanted = |from: u64, to: u64| (from..=to).filter(|at| at % 3 != 0).map(|at| (0, at));
    assert_eq!(
        next(&mut stream, 167).await,
        wanted(1, 250).collect::<Vec<_>>()
    );
    bench.publish(0, 10).await;
    assert_eq!(
        next(&mut stream, 7).await,
        wanted(251, 260).collect::<Vec<_>>()
    );
    bench.log.append(0, 10);
    assert_eq!(
        next(&mut stream, 6).await,
        wanted(261, 269).collect::<Vec<_>>()
    );
    bench.publish(1, 2).await;
    assert_eq!(next(&mut stream, 2).await, [(1, 1), (1, 2)]);
}

#[tokio::test]
async fn a_stream_goes_on_after_its_token() {
    let bench = Bench::new();
    bench.log.append(0, 4);
    bench.log.append(1, 1);
    let mut stream = bench.stream(Start::Beginning).await.unwrap();
    let mut all = next(&mut stream, 2).await;
    let token = stream.token().to_string().parse().unwrap();
    drop(stream);
    let mut again = bench.stream(Start::After(token)).await.unwrap();
    all.extend(next(&mut again, 2).await);
    all.sort_unstable();
    assert_eq!(all, [(0, 1), (0, 2), (0, 4), (1, 1)]);
    assert_eq!(positions(&again), [4, 1]);
    bench.log.append(1, 1);
    assert_eq!(next(&mut again, 1).await, [(1, 2)]);
}

#[tokio::test]
async fn what_is_not_of_the_set_moves_the_token_all_the_same() {
    let bench = Bench::new();
    bench.log.append(0, 3);
    let mut stream = bench.stream(Start::Beginning).await.unwrap();
    next(&mut stream, 2).await;
    assert!(stream.next().now_or_never().is_none());
    assert_eq!(positions(&stream), [3, 0]);
}

#[tokio::test]
async fn now_is_when_the_stream_was_made() {
    let bench = Bench::new();
    bench.log.append(0, 4);
    let mut stream = bench.stream(Start::Now).await.unwrap();
    assert_eq!(positions(&stream), [4, 0]);
    bench.log.append(0, 1);
    assert_eq!(next(&mut stream, 1).await, [(0, 5)]);
}

#[tokio::test]
async fn a_log_that_is_away_is_waited_for() {
    let bench = Bench::new();
    bench.log.append(0, 1);
    let mut stream = bench.stream(Start::Beginning).await.unwrap();
    *bench.log.is_down.lock().unwrap() = true;
    assert_eq!(next(&mut stream, 1).await, [(0, 1)]);
}

#[tokio::test]
async fn another_history_ends_it_and_its_token_no_longer_counts() {
    let bench = Bench::new();
    bench.log.append(0, 1);
    let mut stream = bench.stream(Start::Beginning).await.unwrap();
    next(&mut stream, 1).await;
    *bench.log.history.lock().unwrap() = 1;
    let ended = stream.next().await.unwrap();
    let log = bench.log.history();
    assert!(
        matches!(ended, Err(StreamError::HistoryChanged { log: found }) if found == log),
        "{ended:?}"
    );
    assert!(stream.next().await.is_none());
    let refused = bench.stream(Start::After(stream.token().clone())).await;
    assert!(matches!(
        refused.err(),
        Some(StreamError::Start(StartError::OtherHistory { .. }))
    ));
}

#[tokio::test]
async fn a_log_that_went_back_ends_it() {
    let bench = Bench::new();
    bench.log.append(0, 4);
    let mut stream = bench.stream(Start::Beginning).await.unwrap();
    next(&mut stream, 3).await;
    bench.log.heads.lock().unwrap()[0] = 1;
    let ended = stream.next().await.unwrap();
    assert!(
        matches!(ended, Err(StreamError::Log(LogError::Diverged { .. }))),
        "{ended:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_read_ends_it_before_the_event() {
    let bench = Bench::new();
    bench.log.append(0, 2);
    let log: Arc<dyn LogReader> = bench.log.clone();
    /// The samples in an older shape.
    #[derive(Debug)]
    struct Older;
    impl EventSet for Older {
        const NAMES: &'static [&'static str] = Sample::NAMES;
        fn read(_: &RecordedEvent) -> Result<Self, DecodeError> {
            Ok(Self)
        }
    }
    let stream = EventStream::<Older>::begin(&bench.tail, log, &Start::Beginning).await;
    let mut stream = stream.unwrap();
    let ended = stream.next().await.unwrap();
    let first = Position::new(1);
    assert!(
        matches!(ended, Err(StreamError::Unreadable { position, .. }) if position == first),
        "{ended:?}"
    );
    assert_eq!(stream.token().positions[0].1, Position::START);
    assert!(stream.next().await.is_none());
    assert!(matches!(
        EventReader::<Older>::new().filter(),
        EventFilter::Types(_)
    ));
}
