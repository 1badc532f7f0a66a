//! Events of several aggregates, read as one set.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

extern crate tidelog_domain as tidelog;

use tidelog::prelude::*;
use tidelog::testing::given_log;
use tidelog::{DecodeError, EventFilter, EventReader};

#[events("order", upcasters = upcasters)]
enum OrderEvent {
    #[version(2)]
    Placed {
        item: String,
    },
    Cancelled,
}

#[events("payment")]
enum PaymentEvent {
    Received { cents: u64 },
}

#[event_set]
enum Sale {
    Order(OrderEvent),
    Payment(PaymentEvent),
}

/// Orders were once for things, and called otherwise.
fn upcasters() -> Vec<Upcaster> {
    let item = |old: Value| json!({"item": old["thing"]});
    vec![
        Upcaster::new("order.placed", 1, item),
        Upcaster::new("order.made", 1, item).renamed("order.placed", 2),
    ]
}

/// A log with events of the set in all their shapes, and one that is not of it.
const LOG: &str = r#"
    {"stream": "order/1", "event_type": "order.made", "schema_version": 1, "payload": {"thing": "hat"}, "metadata": {"actor": "ann"}, "recorded_at": "2024-05-01T12:00:00Z"}
    {"stream": "order/1", "event_type": "order.placed", "schema_version": 2, "payload": {"item": "cap"}, "metadata": {}, "recorded_at": "2024-05-01T12:00:00Z"}
    {"stream": "payment/7", "event_type": "payment.received", "schema_version": 1, "payload": {"cents": 5}, "metadata": {}, "recorded_at": "2024-05-01T12:00:00Z"}
    {"stream": "order/1", "event_type": "order.cancelled", "schema_version": 1, "payload": {}, "metadata": {}, "recorded_at": "2024-05-01T12:00:00Z"}
    {"stream": "user/1", "event_type": "user.joined", "schema_version": 1, "payload": {}, "metadata": {}, "recorded_at": "2024-05-01T12:00:00Z"}
"#;

#[test]
fn a_set_has_the_names_of_all_its_events_and_wants_the_older_ones_too() {
    assert_eq!(
        Sale::NAMES,
        ["order.placed", "order.cancelled", "payment.received"]
    );
    let names = [
        "order.cancelled",
        "order.made",
        "order.placed",
        "payment.received",
    ];
    let names = names.map(str::to_owned).to_vec();
    let reader = EventReader::<Sale>::new();
    assert_eq!(*reader.filter(), EventFilter::Types(names));
    reader.upcasters().check().unwrap();
}

#[test]
fn an_event_of_a_set_is_read_in_todays_shape_with_its_envelope() {
    let reader = EventReader::<Sale>::new();
    let log = given_log(LOG);
    let wanted = log.events().iter().filter(|e| reader.filter().matches(e));
    let read: Vec<_> = wanted.map(|event| reader.read(event).unwrap()).collect();
    let placed = |item: &str| {
        let item = item.to_owned();
        Sale::Order(OrderEvent::Placed { item })
    };
    let events: Vec<_> = read.iter().map(|recorded| &recorded.event).collect();
    assert_eq!(
        events,
        [
            &placed("hat"),
            &placed("cap"),
            &Sale::Payment(PaymentEvent::Received { cents: 5 }),
            &Sale::Order(OrderEvent::Cancelled),
        ]
    );
    assert_eq!(read[0].stream_id, "1");
    assert_eq!(read[0].metadata.actor.as_deref(), Some("ann"));
    assert_eq!(read[0].id, log.events()[0].id);
}

#[test]
fn an_event_that_is_not_of_the_set_is_not_read() {
    let log = given_log(LOG);
    let error = EventReader::<Sale>::new().read(&log.events()[4]);
    assert!(
        matches!(error, Err(DecodeError::UnknownType { .. })),
        "{error:?}"
    );
}
