//! Redis' memory: what the streams may take of it, and what happens when there is no more.

use std::sync::Arc;

use tidelog_domain::{
    EventId, HistoryId, Metadata, Partition, Partitions, Payload, Position, RecordedEvent,
    StreamId, Version,
};
use tidelog_eventbus::{BusError, EventBus, RedisEventBus, RelayStatus};
use tidelog_test_support::{Durability, Engine, Server, ServerOptions};
use uuid::Uuid;

use super::{Service, info, redis};
use crate::bus::kit::{eventually, partitions, redis_at};

const MIB: u64 = 1024 * 1024;

/// What the streams may take.
const BOUND: u64 = 16 * MIB;

/// What Redis needs beside them: for itself, and for the client that publishes a mebibyte at a time.
const BESIDE: u64 = 8 * MIB;

/// An event whose payload has so many bytes.
fn event(partition: Partition, position: u64, bytes: usize) -> RecordedEvent {
    RecordedEvent {
        stream: StreamId::parse("sample/s").unwrap(),
        version: Version::new(position),
        partition,
        position: Position::new(position),
        id: EventId::new(Uuid::from_u128(u128::from(position))),
        event_type: "sample.made".into(),
        schema_version: 1,
        payload: Payload::from_stored(format!("\"{}\"", "x".repeat(bytes)).as_bytes()),
        metadata: Payload::of(&Metadata::default()).unwrap(),
        recorded_at: std::time::UNIX_EPOCH.into(),
    }
}

/// How much memory the server has taken.
async fn used(server: &Server) -> u64 {
    let memory = info(server, "memory").await;
    let used = memory
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    used.unwrap().trim().parse().unwrap()
}

/// A publisher that goes on from where it is.
struct Publisher {
    bus: RedisEventBus,
    history: HistoryId,
    partitions: Partitions,
    position: u64,
}

impl Publisher {
    fn on(server: &Server, bytes: u64) -> Self {
        let bus = RedisEventBus::new(server.url(), "app").unwrap();
        Self {
            bus: bus.keeping(10_000_000).keeping_bytes(bytes, partitions()),
            history: HistoryId::new(Uuid::now_v7()),
            partitions: partitions(),
            position: 0,
        }
    }

    /// Publishes one page of events of so many bytes to each partition, and says how many bytes that were.
    async fn page(&mut self, bytes: usize) -> u64 {
        let events = (100_000 / bytes).clamp(1, 500);
        for partition in self.partitions.iter() {
            let page: Vec<_> = (1..=events as u64)
                .map(|n| event(partition, self.position + n, bytes))
                .collect();
            self.bus
                .publish(self.history, partition, &page)
                .await
                .unwrap();
        }
        self.position += events as u64;
        (events * bytes) as u64 * u64::from(self.partitions.count())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_stays_flat_however_much_and_whatever_is_published() {
    let server = redis(Durability::Relaxed).await;
    let base = used(&server).await;
    let mut publisher = Publisher::on(&server, BOUND);
    // Small ones, large ones, very large ones, small ones again.
    for bytes in [200, 5_000, 1_000_000, 60_000, 300] {
        let (mut published, mut most) = (0, 0);
        while published < 6 * BOUND {
            published += publisher.page(bytes).await;
            most = used(&server).await.max(most);
        }
        let took = most - base;
        assert!(
            took < BOUND + BOUND / 4 + BESIDE,
            "{took} bytes of memory for events of {bytes}, not {BOUND}"
        );
        let left = used(&server).await - base;
        assert!(left > BOUND / 2, "{left} bytes are too little of {BOUND}");
    }
}

/// Ten million events, with the bounds that a program has when nobody says.
#[tokio::test(flavor = "multi_thread")]
async fn the_memory_stays_flat_over_a_long_run() {
    if std::env::var_os("TIDELOG_TEST_LONG").is_none() {
        return;
    }
    let server = redis(Durability::Full).await;
    let mut publisher = Publisher {
        bus: RedisEventBus::new(server.url(), "app")
            .unwrap()
            .keeping_bytes(512 * MIB, Partitions::DEFAULT),
        history: HistoryId::new(Uuid::now_v7()),
        partitions: Partitions::DEFAULT,
        position: 0,
    };
    let mut most_by_then = Vec::new();
    for tenth in 1..=10 {
        let mut most = 0;
        while publisher.position * 16 < tenth * 1_000_000 {
            publisher.page(200).await;
            most = used(&server).await.max(most);
        }
        most_by_then.push(most);
    }
    let (early, late) = (most_by_then[3], most_by_then[9]);
    assert!(
        late < early + early / 10 && late < 640 * MIB,
        "{most_by_then:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_fills_up_says_so_and_is_used_again_when_it_has_room() {
    let options = ServerOptions {
        durability: Durability::Relaxed,
        arguments: ["--maxmemory", "6mb", "--maxmemory-policy", "noeviction"]
            .map(str::to_owned)
            .to_vec(),
    };
    let server = Server::start_with(Engine::Redis, options).await;
    let service = Service::start(server.url()).await;
    let is_full = |(_, status): &(_, RelayStatus)| {
        let partitions = status.partitions();
        partitions
            .iter()
            .any(|p| format!("{:?}", p.state).contains("the event bus is full"))
    };
    eventually("it is full", || async {
        service.log.append(500).await;
        service.relays.iter().any(is_full)
    })
    .await;
    service.works().await;
    let mut config = redis::cmd("CONFIG");
    config.arg("SET").arg("maxmemory").arg("64mb");
    let _: String = config
        .query_async(&mut redis_at(server.url()).await)
        .await
        .unwrap();
    service.is_well_again().await;
}

/// Who made the bound larger than the memory, and corrects that, needs no more memory for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_is_trimmed_when_what_may_be_kept_gets_less() {
    let options = ServerOptions {
        durability: Durability::Relaxed,
        arguments: ["--maxmemory", "12mb"].map(str::to_owned).to_vec(),
    };
    let server = Server::start_with(Engine::Redis, options).await;
    let too_much = RedisEventBus::new(server.url(), "app").unwrap();
    let too_much = too_much.keeping_bytes(64 * MIB, partitions());
    let (history, partition) = (HistoryId::new(Uuid::now_v7()), Partition::new(0));
    let mut position = 0;
    let full = loop {
        position += 1;
        let page = [event(partition, position, 10_000)];
        if let Err(error) = too_much.publish(history, partition, &page).await {
            break error;
        }
    };
    assert!(matches!(full, BusError::Full(_)), "{full:?}");

    let less = RedisEventBus::new(server.url(), "app").unwrap();
    let less: Arc<dyn EventBus> = Arc::new(less.keeping_bytes(8 * MIB, partitions()));
    let page = [event(partition, position, 10_000)];
    // This one is turned down too; the next one is not.
    drop(less.publish(history, partition, &page).await);
    less.publish(history, partition, &page).await.unwrap();
    let last = less.last(history, partition).await.unwrap().unwrap();
    assert_eq!(last.position.number(), position);
}

#[tokio::test]
async fn a_memory_that_is_too_small_for_what_may_be_kept_is_warned_of() {
    let options = ServerOptions {
        durability: Durability::Relaxed,
        arguments: ["--maxmemory", "16mb"].map(str::to_owned).to_vec(),
    };
    let server = Server::start_with(Engine::Redis, options).await;
    for (keep, warnings) in [(12, 0), (13, 1)] {
        let bus = RedisEventBus::new(server.url(), "app").unwrap();
        let bus = bus.keeping_bytes(keep * MIB, partitions());
        let said = bus.server().await.unwrap().warnings;
        assert_eq!(said.len(), warnings, "{said:?}");
        assert!(
            said.iter()
                .all(|warning| warning.contains("bus_keep_bytes"))
        );
    }
}
