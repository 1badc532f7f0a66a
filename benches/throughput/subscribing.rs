//! Events a second through a subscription whose handler does nothing, from the log and from Redis; how soon after its commit an event
//! is handled; and whether memory stays flat.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tidelog_domain::{Cursor, EventId, HistoryId, Partition, Partitions, Position, RecordedEvent};
use tidelog_eventbus::{
    BusError, CommitSignal, EventBus, Handled, Handler, HandlerError, InProcessEventBus, LogError,
    LogIdentity, LogReader, PartitionState, PartitionStatus, RedisEventBus, Relay, RelayOptions,
    StateStore, Subscription, SubscriptionStatus, Tail, TailOptions,
};
use tidelog_test_support::{Engine, Server, fresh_mysql_database};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::posts::Posts;
use crate::projecting::{rate, write};

/// How often it is looked whether a subscription is there.
pub(crate) const PAUSE: Duration = Duration::from_millis(1);

/// How many commands a second are followed to the handler.
const PACE: u64 = 1_000;

/// How many of the followed commands warm up, and do not count.
const WARM_UP: usize = 1_000;

/// Longer than any run: what is not to happen by time.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// Handles at least `events` events in each way, follows single ones for `time`, and prints what it found.
pub(crate) async fn measure(events: usize, time: Duration) {
    let mysql = Server::start(Engine::MySql).await;
    let redis = Server::start(Engine::Redis).await;
    let posts = Arc::new(Posts::on(&fresh_mysql_database(&mysql).await).await);
    write(&posts, events).await;
    println!("A subscription whose handler does nothing; its state in MySQL\n");
    println!("| | events/s | read from the log |\n|---|---|---|");
    let rate = from_log(&posts).await;
    println!("| from the log | {rate:.0} | all |");
    let (rate, share) = from_redis(&posts, &redis).await;
    println!("| from Redis Streams | {rate:.0} | {share:.1} % |\n");
    let mut took = followed(&posts, &redis, time).await;
    took.sort_unstable();
    let at = |thousandth: usize| took[(took.len() - 1) * thousandth / 1_000];
    println!(
        "{} commits, {PACE} a second: at the handler of another process' subscription after (from the command's answer), over \
         Redis\n",
        took.len()
    );
    println!("| p50 | p90 | p99 | most |\n|---|---|---|---|");
    println!(
        "| {:.2?} | {:.2?} | {:.2?} | {:.2?} |\n",
        at(500),
        at(900),
        at(990),
        at(1_000)
    );
    crate::handing_over::measure(&posts, &redis).await;
}

/// Counts, and remembers when the events came that somebody waits for.
#[derive(Default)]
pub(crate) struct Counting {
    pub(crate) events: AtomicU64,
    pub(crate) came: Option<Mutex<HashMap<(Partition, Position), Instant>>>,
}

#[async_trait]
impl Handler for Counting {
    async fn handle(
        &self,
        partition: Partition,
        events: &[RecordedEvent],
    ) -> Result<Handled, HandlerError> {
        let count = u64::try_from(events.len()).unwrap();
        self.events.fetch_add(count, Ordering::Relaxed);
        if let Some(came) = &self.came {
            let now = Instant::now();
            let mut came = came.lock().unwrap();
            came.extend(
                events
                    .iter()
                    .map(|event| ((partition, event.position), now)),
            );
        }
        Ok(Handled::default())
    }
}

/// A log that seems empty until it is shown, and then to have what the bus has brought, as where nobody is behind. Counts the events
/// that are read from it.
struct Hidden {
    log: Arc<dyn LogReader>,
    is_shown: AtomicBool,
    brought: Arc<Mutex<Vec<Position>>>,
    read: AtomicU64,
}

#[async_trait]
impl LogReader for Hidden {
    async fn identity(&self) -> Result<LogIdentity, LogError> {
        self.log.identity().await
    }

    async fn heads(&self) -> Result<Vec<Position>, LogError> {
        Ok(self.brought.lock().unwrap().clone())
    }

    async fn read(
        &self,
        partition: Partition,
        cursor: Cursor,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        if !self.is_shown.load(Ordering::SeqCst) {
            return Ok(Vec::new());
        }
        let mut events = self.log.read(partition, cursor, limit).await?;
        let brought = self.brought.lock().unwrap()[partition.index()];
        events.retain(|event| event.position <= brought);
        let count = u64::try_from(events.len()).unwrap();
        self.read.fetch_add(count, Ordering::Relaxed);
        Ok(events)
    }
}

/// A bus that nothing is read from until it is opened, and then no faster than `reader` handles it: the tail keeps only so much, and who
/// is behind that reads the log.
struct Gated {
    bus: Arc<dyn EventBus>,
    open: watch::Sender<bool>,
    reader: OnceLock<SubscriptionStatus>,
    /// The last position of each partition that was read.
    brought: Arc<Mutex<Vec<Position>>>,
}

impl Gated {
    /// Waits until the tail has room for what is read next after these positions.
    async fn room(&self, after: &[(Partition, Position)], limit: usize) {
        let room = TailOptions::default().ring_max_events - limit;
        let room = u64::try_from(room).unwrap();
        let Some(reader) = self.reader.get() else {
            return;
        };
        let has_room = || {
            let at = reader.partitions();
            let mut read = after.iter();
            read.all(|(partition, last)| {
                let handled = at[partition.index()].cursor.position;
                last.number() <= handled.number() + room
            })
        };
        while !has_room() {
            sleep(PAUSE / 4).await;
        }
    }
}

#[async_trait]
impl EventBus for Gated {
    async fn publish(
        &self,
        history: HistoryId,
        partition: Partition,
        events: &[RecordedEvent],
    ) -> Result<(), BusError> {
        self.bus.publish(history, partition, events).await
    }

    async fn last(
        &self,
        history: HistoryId,
        partition: Partition,
    ) -> Result<Option<Cursor>, BusError> {
        self.bus.last(history, partition).await
    }

    async fn read(
        &self,
        history: HistoryId,
        after: &[(Partition, Position)],
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<RecordedEvent>, BusError> {
        let _ = self.open.subscribe().wait_for(|open| *open).await;
        self.room(after, limit).await;
        let events = self.bus.read(history, after, limit, wait).await?;
        let mut brought = self.brought.lock().unwrap();
        for event in &events {
            brought[event.partition.index()] = event.position;
        }
        Ok(events)
    }
}

/// A subscription that runs, with a tail of its own.
pub(crate) struct Subscribed {
    pub(crate) status: SubscriptionStatus,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Subscribed {
    /// As the process `owner`.
    pub(crate) fn start(
        owner: &str,
        name: &str,
        handler: Arc<dyn Handler>,
        states: Arc<dyn StateStore>,
        log: Arc<dyn LogReader>,
        tail: Tail,
    ) -> Self {
        let stop = CancellationToken::new();
        let subscription = Subscription::new(name, owner, handler, states, log, tail.clone());
        let status = subscription.status();
        let (tail_stop, subscription_stop) = (stop.clone(), stop.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { tail.run(tail_stop).await });
        tasks.spawn(async move {
            subscription.run(subscription_stop).await;
        });
        Self {
            status,
            stop,
            tasks,
        }
    }

    pub(crate) async fn reached(&self, heads: &[Position]) {
        let is_there = || {
            let partitions = self.status.partitions();
            let mut both = partitions.iter().zip(heads);
            both.all(|(at, head)| at.cursor.position >= *head)
        };
        while !is_there() {
            sleep(PAUSE).await;
        }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.tasks.join_all().await;
    }
}

fn sum(heads: &[Position]) -> usize {
    let sum: u64 = heads.iter().map(|head| head.number()).sum();
    usize::try_from(sum).unwrap()
}

/// Events a second of a subscription that is far behind, and has no bus.
async fn from_log(posts: &Posts) -> f64 {
    let heads = posts.log.heads().await.unwrap();
    let bus: Arc<dyn EventBus> = Arc::new(InProcessEventBus::new());
    let log: Arc<dyn LogReader> = posts.log.clone();
    let tail = Tail::new(
        Partitions::DEFAULT,
        bus,
        log.clone(),
        None,
        TailOptions::default(),
    );
    let handler = Arc::new(Counting::default());
    let began = Instant::now();
    let subscribed = Subscribed::start(
        "bench",
        "from-log",
        handler.clone(),
        posts.log.clone(),
        log,
        tail,
    );
    subscribed.reached(&heads).await;
    let rate = rate(sum(&heads), began);
    subscribed.stop().await;
    let handled = handler.events.load(Ordering::Relaxed);
    assert_eq!(usize::try_from(handled).unwrap(), sum(&heads));
    rate
}

/// Events a second of a subscription for which all is on the bus already; and how much of it was read from the log, in percent.
async fn from_redis(posts: &Posts, redis: &Server) -> (f64, f64) {
    let heads = posts.log.heads().await.unwrap();
    let history = posts.log.identity().await.unwrap().history;
    let bus: Arc<dyn EventBus> = Arc::new(RedisEventBus::new(redis.url(), "from-redis").unwrap());
    let brought = Arc::new(Mutex::new(vec![Position::START; heads.len()]));
    let gated = Arc::new(Gated {
        bus: bus.clone(),
        open: watch::Sender::new(false),
        reader: OnceLock::new(),
        brought: brought.clone(),
    });
    let log = Arc::new(Hidden {
        log: posts.log.clone(),
        is_shown: AtomicBool::new(false),
        brought,
        read: AtomicU64::new(0),
    });
    // It hears of events by the bus alone: what is published after it has begun.
    let options = TailOptions {
        poll_interval: NEVER,
        ..TailOptions::default()
    };
    let tail = Tail::new(
        Partitions::DEFAULT,
        gated.clone(),
        log.clone(),
        None,
        options,
    );
    let handler = Arc::new(Counting::default());
    let states = posts.log.clone();
    let subscribed = Subscribed::start(
        "bench",
        "from-redis",
        handler.clone(),
        states,
        log.clone(),
        tail,
    );
    let is_live = |own: &PartitionStatus| own.state == PartitionState::Live;
    while !subscribed.status.partitions().iter().all(is_live) {
        sleep(PAUSE).await;
    }
    for partition in Partitions::DEFAULT.iter() {
        let mut cursor = Cursor::START;
        loop {
            let page = posts.log.read(partition, cursor, 1_000).await.unwrap();
            let Some(last) = page.last() else { break };
            cursor = last.cursor();
            bus.publish(history, partition, &page).await.unwrap();
        }
    }
    log.is_shown.store(true, Ordering::SeqCst);
    drop(gated.reader.set(subscribed.status.clone()));
    let began = Instant::now();
    gated.open.send_replace(true);
    subscribed.reached(&heads).await;
    let rate = rate(sum(&heads), began);
    subscribed.stop().await;
    let handled = handler.events.load(Ordering::Relaxed);
    assert_eq!(usize::try_from(handled).unwrap(), sum(&heads));
    let read = f64::from(u32::try_from(log.read.load(Ordering::Relaxed)).unwrap());
    (
        rate,
        100.0 * read / f64::from(u32::try_from(handled).unwrap()),
    )
}

/// How long after its command's answer each event was at the handler of a subscription that hears of it by Redis alone.
async fn followed(posts: &Arc<Posts>, redis: &Server, time: Duration) -> Vec<Duration> {
    let bus: Arc<dyn EventBus> = Arc::new(RedisEventBus::new(redis.url(), "followed").unwrap());
    let relay = Relay::new(
        Partitions::DEFAULT,
        posts.log.clone(),
        bus.clone(),
        Some(posts.signal.clone()),
        RelayOptions::default(),
    );
    let stop = CancellationToken::new();
    let relaying = tokio::spawn(relay.run(stop.clone()));
    let handler = Arc::new(Counting {
        came: Some(Mutex::default()),
        ..Counting::default()
    });
    let log: Arc<dyn LogReader> = posts.log.clone();
    let tail = Tail::new(
        Partitions::DEFAULT,
        bus,
        log.clone(),
        None,
        TailOptions::default(),
    );
    let states = posts.log.clone();
    let subscribed = Subscribed::start("bench", "followed", handler.clone(), states, log, tail);
    let heads = posts.log.heads().await.unwrap();
    subscribed.reached(&heads).await;
    let answered = commit(posts, PACE, time + Duration::from_secs(1)).await;
    let heads = posts.log.heads().await.unwrap();
    subscribed.reached(&heads).await;
    subscribed.stop().await;
    stop.cancel();
    relaying.await.unwrap();
    let came = handler.came.as_ref().unwrap().lock().unwrap();
    let took = answered.into_iter().skip(WARM_UP);
    took.map(|(place, answered)| came[&place].saturating_duration_since(answered))
        .collect()
}

/// Commits `pace` commands a second for `time`, whatever becomes of them; where each one's event is, and when it was answered.
pub(crate) async fn commit(
    posts: &Arc<Posts>,
    pace: u64,
    time: Duration,
) -> Vec<((Partition, Position), Instant)> {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / u32::try_from(pace).unwrap());
    let mut commands = JoinSet::new();
    let until = Instant::now() + time;
    while Instant::now() < until {
        pace.tick().await;
        let posts = posts.clone();
        commands.spawn(async move {
            let place = posts.create().await;
            (place, Instant::now())
        });
    }
    commands.join_all().await
}

/// Relays and handles `events` events of a log that makes them up as it goes, and prints what memory it took on the way.
pub(crate) async fn soak(events: u64) {
    let mysql = Server::start(Engine::MySql).await;
    let redis = Server::start(Engine::Redis).await;
    let posts = Posts::on(&fresh_mysql_database(&mysql).await).await;
    let made_up = Arc::new(MadeUp::of(&posts).await);
    let bus: Arc<dyn EventBus> = Arc::new(
        RedisEventBus::new(redis.url(), "soak")
            .unwrap()
            .keeping(10_000),
    );
    let signal = CommitSignal::new(Partitions::DEFAULT);
    let log: Arc<dyn LogReader> = made_up.clone();
    let relay = Relay::new(
        Partitions::DEFAULT,
        log.clone(),
        bus.clone(),
        Some(signal.clone()),
        RelayOptions::default(),
    );
    let relayed = relay.status();
    let stop = CancellationToken::new();
    let relaying = tokio::spawn(relay.run(stop.clone()));
    let tail = Tail::new(
        Partitions::DEFAULT,
        bus,
        log.clone(),
        Some(signal.clone()),
        TailOptions::default(),
    );
    let handler = Arc::new(Counting::default());
    let states: Arc<dyn StateStore> = posts.log.clone();
    let subscribed = Subscribed::start("bench", "soak", handler.clone(), states, log, tail);
    println!("{events} events, relayed onto Redis (10,000 a partition are kept) and handled\n");
    println!("| events | events/s | this process | Redis |\n|---|---|---|---|");
    let partitions = u64::from(Partitions::DEFAULT.count());
    let step = events.div_ceil(10 * partitions);
    for round in 1..=10 {
        let began = Instant::now();
        // Some at a time, so that it is followed live.
        for part in 1..=100 {
            let head = Position::new((round - 1) * step + step * part / 100);
            made_up.head.store(head.number(), Ordering::SeqCst);
            let heads = vec![head; Partitions::DEFAULT.iter().count()];
            signal.committed((0..).map(Partition::new).zip(heads.iter().copied()));
            subscribed.reached(&heads).await;
            while relayed.partitions().iter().any(|own| own.published < head) {
                sleep(PAUSE).await;
            }
        }
        let count = usize::try_from(step * partitions).unwrap();
        println!(
            "| {} | {:.0} | {:.1} MiB | {:.1} MiB |",
            round * step * partitions,
            rate(count, began),
            resident("self"),
            used(&redis).await
        );
    }
    println!();
    subscribed.stop().await;
    stop.cancel();
    relaying.await.unwrap();
}

/// A log of 16 partitions of one stream each, whose events are all the same but for their places.
struct MadeUp {
    identity: LogIdentity,
    event: RecordedEvent,
    head: AtomicU64,
}

impl MadeUp {
    async fn of(posts: &Posts) -> Self {
        let (partition, _) = posts.create().await;
        let event = posts.log.read(partition, Cursor::START, 1).await.unwrap();
        Self {
            identity: posts.log.identity().await.unwrap(),
            event: event.into_iter().next().unwrap(),
            head: AtomicU64::new(0),
        }
    }

    fn id(partition: Partition, position: u64) -> EventId {
        EventId::new(uuid::Uuid::from_u64_pair(
            u64::from(partition.number()),
            position,
        ))
    }
}

#[async_trait]
impl LogReader for MadeUp {
    async fn identity(&self) -> Result<LogIdentity, LogError> {
        Ok(self.identity)
    }

    async fn heads(&self) -> Result<Vec<Position>, LogError> {
        let head = Position::new(self.head.load(Ordering::SeqCst));
        Ok(vec![head; usize::from(self.identity.partitions.count())])
    }

    async fn read(
        &self,
        partition: Partition,
        cursor: Cursor,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let first = cursor.position.number() + 1;
        let last = self.head.load(Ordering::SeqCst);
        let last = last.min(cursor.position.number() + u64::try_from(limit).unwrap());
        let event = |number| RecordedEvent {
            partition,
            position: Position::new(number),
            version: tidelog_domain::Version::new(number),
            id: Self::id(partition, number),
            ..self.event.clone()
        };
        Ok((first..=last).map(event).collect())
    }
}

/// The memory that a process has in use, in MiB; `self` is this one.
pub(crate) fn resident(process: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<f64>().ok()).unwrap() / 1024.0
}

/// The memory that Redis uses, in MiB.
async fn used(redis: &Server) -> f64 {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let info: String = redis::cmd("INFO")
        .arg("memory")
        .query_async(&mut connection)
        .await
        .unwrap();
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    used.unwrap().trim().parse::<f64>().unwrap() / 1024.0 / 1024.0
}
