//! What no server that is at hand does: librdkafka's broker for tests refuses, and is slow, as it is told to.

use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tidelog_domain::{HistoryId, Partition, Partitions, Position, RecordedEvent};
use uuid::Uuid;

use super::KafkaEventBus;
use crate::bus::{BusError, EventBus};
use crate::sample;

const P0: Partition = Partition::new(0);

/// A broker, and a bus with a topic on it. It makes no topics itself.
struct Place {
    broker: MockCluster<'static, DefaultProducerContext>,
    bus: KafkaEventBus,
    history: HistoryId,
}

impl Place {
    fn new() -> Self {
        let broker = MockCluster::new(1).unwrap();
        let url = format!("kafka://{}", broker.bootstrap_servers());
        let bus = KafkaEventBus::new(&url, "app", Partitions::new(1).unwrap()).unwrap();
        let history = HistoryId::new(Uuid::from_u128(1));
        broker.create_topic(&bus.topic(history), 1, 1).unwrap();
        Self {
            broker,
            bus,
            history,
        }
    }

    /// The bus, which believes in its topic. A failure makes it doubt.
    fn bus(&self) -> &KafkaEventBus {
        self.bus.topics.believe_in(self.history);
        &self.bus
    }

    async fn publish(&self, positions: std::ops::RangeInclusive<u64>) -> Result<(), BusError> {
        let events = sample::events(0, positions);
        self.bus().publish(self.history, P0, &events).await
    }

    async fn read(&self, after: u64) -> Result<Vec<RecordedEvent>, BusError> {
        let after = [(P0, Position::new(after))];
        let read = self
            .bus()
            .read(self.history, &after, 100, Duration::from_millis(1));
        read.await
    }
}

#[tokio::test]
async fn an_event_that_its_topic_refuses_does_not_hold_up_what_comes_after_it() {
    let place = Place::new();
    place.publish(1..=2).await.unwrap();
    let refusals = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE; 100];
    place
        .broker
        .request_errors(RDKafkaApiKey::Produce, &refusals);
    place.publish(3..=5).await.unwrap();
    place.broker.clear_request_errors(RDKafkaApiKey::Produce);
    place.publish(6..=7).await.unwrap();
    let last = place.bus().last(place.history, P0).await.unwrap();
    assert_eq!(last.map(|last| last.position), Some(Position::new(7)));
    assert_eq!(place.read(2).await.unwrap(), sample::events(0, 6..=7));
}

#[tokio::test]
async fn a_reader_on_a_slow_line_has_in_the_end_what_comes_bit_by_bit() {
    let place = Place::new();
    for position in 1..=12 {
        place.publish(position..=position).await.unwrap();
    }
    // One batch of a publish at a time, so that all takes longer than an answer may.
    let delay = Duration::from_millis(400);
    place.broker.broker_round_trip_time(1, delay).unwrap();
    assert_eq!(place.read(0).await.unwrap(), sample::events(0, 1..=12));
}
