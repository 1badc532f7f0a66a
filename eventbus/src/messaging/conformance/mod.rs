//! The conformance suite of the message bus: what every engine must do, one public function a case.
//!
//! An engine runs all of them with [`message_bus_conformance!`](crate::message_bus_conformance). Each case has an app's name of its own, or a
//! bus of its own, so that they can run at once on one server. They panic when something is not as it must be.

#![allow(
    clippy::indexing_slicing,
    reason = "a case panics when something is not as it must be"
)]

mod consuming;
mod dying;
mod replying;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::bus::{Consumer, Delivery, MessageBus, Settlement};
use super::names::{Channel, Group, Subject};

pub use consuming::*;
pub use dying::*;
pub use replying::*;

/// Gives a case the bus that it tests.
#[async_trait]
pub trait MessageBusFactory: Send + Sync {
    /// A bus that works, and has nothing on it. Each case asks once.
    async fn bus(&self) -> Arc<dyn MessageBus>;
}

/// Runs the message bus' conformance suite: `message_bus_conformance!(module, factory)` makes a module with one test a case. `factory` is
/// an expression that gives a [`MessageBusFactory`](crate::messaging::conformance::MessageBusFactory); it is evaluated once a case. The crate
/// that calls it needs tokio with `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! message_bus_conformance {
    ($module:ident, $factory:expr) => {
        $crate::message_bus_conformance!(@cases $module, $factory,
            what_was_published_before_the_group_comes_to_it_in_order_and_to_the_byte,
            what_is_published_before_the_last_is_there_comes_after_it,
            each_message_goes_to_one_consumer_of_each_group,
            channels_are_separate,
            no_more_is_taken_than_was_asked_for,
            a_wait_for_nothing_ends_in_time,
            a_wait_ends_when_something_comes,
            a_call_that_is_dropped_loses_nothing,
            what_failed_is_tried_again_when_it_is_due_and_holds_nothing_up,
            a_try_that_does_not_count_is_not_counted,
            what_is_done_never_comes_again,
            what_a_dead_consumer_held_goes_to_another_as_its_next_try,
            what_a_living_consumer_holds_stays_with_it,
            what_waits_at_a_dead_consumer_is_not_lost,
            what_is_held_at_the_end_goes_back_at_once_and_uncounted,
            who_stops_keeps_what_it_is_at_and_gives_back_the_rest_at_once,
            who_was_away_too_long_takes_nothing_back,
            what_came_to_who_stood_still_is_handled_by_another_alone,
            what_was_put_off_is_not_taken_from_its_new_owner,
            what_was_given_back_is_taken_at_once_by_who_has_little_room,
            a_dead_letter_can_be_listed_and_tried_again_by_its_group_alone,
            a_dead_letter_can_be_discarded,
            a_request_to_nobody_is_refused_and_leaves_nothing,
            a_request_that_was_taken_back_does_not_come,
            replies_come_to_their_inbox_once_and_in_order,
            a_reply_to_an_inbox_that_is_gone_leaves_nothing,
            an_address_that_is_none_keeps_no_request,
        );
    };
    (@cases $module:ident, $factory:expr, $($case:ident,)*) => {
        mod $module {
            #[allow(unused_imports, reason = "the factory may be named by its path")]
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    $crate::messaging::conformance::$case(&$factory).await;
                }
            )*
        }
    };
}

/// How long a case waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// The idle bound of consumers that must not die in a case.
const LONG: Duration = Duration::from_secs(60);

/// The idle bound of consumers that do.
const SHORT: Duration = Duration::from_millis(400);

fn channel(name: &'static str) -> Channel {
    Subject::<()>::new(name).channel()
}

fn group(name: &str) -> Group {
    Group::new(name).unwrap_or_else(|error| panic!("{error}"))
}

fn body(number: usize) -> Vec<u8> {
    format!("{{\"id\":\"{number}\",\"data\":\"\\u0000 ä {number}\"}}").into_bytes()
}

async fn publish(
    bus: &dyn MessageBus,
    channel: &Channel,
    numbers: impl IntoIterator<Item = usize>,
) {
    let messages: Vec<_> = numbers.into_iter().map(body).collect();
    let entries = bus.publish(channel, &messages).await;
    let entries = entries.unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(entries.len(), messages.len());
}

async fn join(
    bus: &dyn MessageBus,
    name: &str,
    channels: &[Channel],
    idle: Duration,
) -> Arc<dyn Consumer> {
    let joined = bus.join(&group(name), channels, idle).await;
    joined.unwrap_or_else(|error| panic!("{error:?}"))
}

/// Takes until there are `count`.
async fn take(consumer: &dyn Consumer, count: usize) -> Vec<Delivery> {
    let mut all: Vec<Delivery> = Vec::new();
    let taking = async {
        while all.len() < count {
            let wait = Duration::from_millis(100);
            let taken = consumer.take(count - all.len(), wait).await;
            all.extend(taken.unwrap_or_else(|error| panic!("{error:?}")));
        }
    };
    let taken = tokio::time::timeout(PATIENCE, taking).await;
    assert!(taken.is_ok(), "{} of {count} came", all.len());
    all
}

/// Nothing comes for a while.
async fn nothing(consumer: &dyn Consumer, wait: Duration) {
    let taken = consumer.take(10, wait).await;
    let taken = taken.unwrap_or_else(|error| panic!("{error:?}"));
    assert!(taken.is_empty(), "{taken:?} came");
}

fn bodies(deliveries: &[Delivery]) -> Vec<Vec<u8>> {
    deliveries.iter().map(|one| one.body.to_vec()).collect()
}

async fn settle(consumer: &dyn Consumer, delivery: &Delivery, outcome: Settlement<'_>) {
    let settled = consumer.settle(&delivery.taken, outcome).await;
    settled.unwrap_or_else(|error| panic!("{error:?}"));
}

async fn done(consumer: &dyn Consumer, deliveries: &[Delivery]) {
    for delivery in deliveries {
        let done = Settlement::Done {
            reply: None,
            remove: false,
        };
        settle(consumer, delivery, done).await;
    }
}

fn again(after: Duration, counted: bool) -> Settlement<'static> {
    Settlement::Retry { after, counted }
}

async fn tend(consumer: &dyn Consumer) {
    let tended = consumer.tend().await;
    tended.unwrap_or_else(|error| panic!("{error:?}"));
}

async fn close(consumer: &dyn Consumer) {
    let closed = consumer.close().await;
    closed.unwrap_or_else(|error| panic!("{error:?}"));
}
