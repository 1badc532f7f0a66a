//! What is particular to the bus on Kafka: who the brokers are, duplicates, and what readers do when a topic is another one.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidelog_eventbus::{EventBus, KafkaConnectError, KafkaEventBus};
use tidelog_test_support::{free_port, shared};

use super::kit::{Bench, P0, delete_topic, kafka_at, partitions};
use crate::services::{Backends, Role, Service};

/// A bus that remembers nothing.
async fn bus(bench: &Bench) -> KafkaEventBus {
    let url = shared::kafka().await.url();
    KafkaEventBus::new(url, &bench.app, partitions()).unwrap()
}

/// Puts a record into the topic as anybody can.
async fn put(bench: &Bench, body: &str) {
    let url = shared::kafka().await.url();
    let brokers = url.trim_start_matches("kafka://");
    let config = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .clone();
    let producer: BaseProducer = config.create().unwrap();
    let topic = bus(bench).await.topic(bench.history);
    let record = BaseRecord::<str, str>::to(&topic)
        .partition(0)
        .payload(body);
    producer.send(record).unwrap();
    producer.flush(Duration::from_secs(10)).unwrap();
}

#[tokio::test]
async fn a_kafka_says_how_many_brokers_it_has() {
    let bench = Bench::new().await;
    let server = bus(&bench).await.server().await.unwrap();
    assert_eq!(server.brokers, 1);
}

#[tokio::test]
async fn where_no_kafka_is_nothing_can_be_reached() {
    let url = format!("kafka://127.0.0.1:{}", free_port());
    let bus = KafkaEventBus::new(&url, "app", partitions()).unwrap();
    let error = bus.server().await.unwrap_err();
    assert!(
        matches!(error, KafkaConnectError::Unreachable(_)) && error.is_temporary(),
        "{error:?}"
    );
}

#[tokio::test]
async fn another_kind_of_server_than_kafka_is_named() {
    let mut backends = Backends::fresh().await;
    backends.bus_url = format!("kafka://127.0.0.1:{}", shared::redis().await.port());
    let service = Service::launch(Role::EventBus, &backends.settings());
    let line = service.process().wait_for_line("error: ").await;
    for part in ["TIDELOG_BUS_URL", "a Kafka broker", "a Redis server"] {
        assert!(line.contains(part), "{line}");
    }
    backends.bus_url = format!("redis://127.0.0.1:{}", shared::kafka().await.port());
    let service = Service::launch(Role::EventBus, &backends.settings());
    let line = service.process().wait_for_line("error: ").await;
    assert!(line.contains("found a Kafka broker"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_kafka_get_each_position_once_though_several_programs_publish_at_once() {
    let bench = Bench::new().await;
    let all = bench.events.len();
    let publish = async |step: usize| {
        let bus = bus(&bench).await;
        for from in (0..all).step_by(step) {
            bench.publish(&bus, from..(from + step).min(all)).await;
        }
    };
    tokio::join!(publish(7), publish(16), publish(300));
    // Which of the first ones are on the bus depends on who was when; the log has them.
    let read = bench.read(&bus(&bench).await, 0).await;
    assert!(read.windows(2).all(|two| two[0].position < two[1].position));
    assert_eq!(read.last(), bench.events.last());
    let after = bench.read(&bus(&bench).await, all - 20).await;
    assert_eq!(after, bench.events[all - 20..]);
}

#[tokio::test]
async fn a_program_that_was_away_does_no_harm_to_readers_of_kafka() {
    let bench = Bench::new().await;
    let (one, other) = (bus(&bench).await, bus(&bench).await);
    bench.publish(&one, 0..5).await;
    bench.publish(&other, 5..20).await;
    // It does not know of the other's.
    bench.publish(&one, 5..9).await;
    bench.publish(&one, 9..21).await;
    assert_eq!(bench.read(&other, 0).await, bench.events[..21]);
    assert_eq!(bench.read(&other, 12).await, bench.events[12..21]);
    let last = bus(&bench).await.last(bench.history, P0).await.unwrap();
    assert_eq!(last, Some(bench.events[20].cursor()));
}

#[tokio::test]
async fn who_has_published_nothing_for_a_while_looks_whether_others_have() {
    let bench = Bench::new().await;
    let (one, other) = (bus(&bench).await, bus(&bench).await);
    bench.publish(&one, 0..5).await;
    // One by one, since the stand-in for Kafka tells the offset of a batch' first record.
    for event in 5..12 {
        bench.publish(&other, event..event + 1).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    bench.publish(&one, 5..12).await;
    put(&bench, "the thirteenth record").await;
    let error = bus(&bench).await.last(bench.history, P0).await.unwrap_err();
    assert!(error.to_string().contains("record 12"), "{error}");
}

#[tokio::test]
async fn a_topic_of_kafka_that_was_lost_is_made_anew_and_read_from_where_it_begins() {
    let bench = Bench::new().await;
    let (publisher, reader) = (bus(&bench).await, bus(&bench).await);
    bench.publish(&publisher, 0..10).await;
    assert_eq!(bench.read(&reader, 0).await, bench.events[..10]);
    let topic = publisher.topic(bench.history);
    delete_topic(shared::kafka().await.url(), &topic).await;
    // Whoever remembers the topic may fail once.
    let after = [(P0, bench.events[9].position)];
    for bus in [&publisher, &reader] {
        let wait = Duration::from_millis(1);
        drop(bus.read(bench.history, &after, 10, wait).await);
        drop(bus.last(bench.history, P0).await);
    }
    assert_eq!(publisher.last(bench.history, P0).await.unwrap(), None);
    bench.publish(&publisher, 12..30).await;
    assert_eq!(
        bench.read(&bus(&bench).await, 10).await,
        bench.events[12..30]
    );
    // Who was at the tenth record goes on there; what it does not see is in the log.
    let read = bench.read(&reader, 10).await;
    assert!(!read.is_empty() && bench.events[12..30].ends_with(&read));
}

#[tokio::test]
async fn a_topic_of_kafka_with_too_few_partitions_is_said_to_have_too_few() {
    let bench = Bench::new().await;
    let bus = bus(&bench).await;
    let name = bus.topic(bench.history);
    let topic = NewTopic::new(&name, 1, TopicReplication::Fixed(1));
    let admin = kafka_at(shared::kafka().await.url());
    let made = admin.create_topics([&topic], &AdminOptions::new()).await;
    made.unwrap().remove(0).unwrap();
    let published = bus.publish(bench.history, P0, &bench.events).await;
    let last = bus.last(bench.history, P0).await.map(drop);
    for refused in [published, last] {
        let said = tidelog_domain::causes(&refused.unwrap_err()).to_string();
        for part in [&*name, "has 1 partitions", "has 4", "delete it"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    // It is looked at again.
    delete_topic(shared::kafka().await.url(), &name).await;
    bench.publish(&bus, 0..5).await;
    assert_eq!(bench.read(&bus, 0).await, bench.events[..5]);
}

#[tokio::test]
async fn what_is_no_event_of_ours_on_kafka_is_said_to_be_corrupt() {
    let bench = Bench::new().await;
    let bus = bus(&bench).await;
    bench.publish(&bus, 0..3).await;
    put(&bench, "{}").await;
    let after = [(P0, bench.events[2].position)];
    let read = bus.read(bench.history, &after, 10, Duration::from_millis(1));
    let error = read.await.unwrap_err();
    assert!(error.to_string().contains("partition 0"), "{error}");
    let error = bus.last(bench.history, P0).await.unwrap_err();
    assert!(error.to_string().contains("record 3"), "{error}");
}
