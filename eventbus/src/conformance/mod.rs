//! The conformance suites of the event bus and of the state store: what every adapter must do, one public function a case.
//!
//! An adapter runs all of them with [`event_bus_conformance!`](crate::event_bus_conformance) or
//! [`state_store_conformance!`](crate::state_store_conformance). Each case has a history
//! or a subscription of its own, so that they can run at once on one server. They panic when something is not as it must be.

mod publishing;
mod reading;
mod sample;
mod states;

use std::sync::Arc;

use async_trait::async_trait;
use tidelog_domain::{HistoryId, Partition};

use crate::bus::EventBus;

pub use publishing::*;
pub use reading::*;
pub use states::*;

/// Gives a case the bus that it tests.
#[async_trait]
pub trait EventBusFactory: Send + Sync {
    /// A bus that works, and keeps at least the last `keep` events of a partition and at most about 200 more. Each case
    /// asks once.
    async fn bus(&self, keep: usize) -> Arc<dyn EventBus>;

    /// Loses all that the bus which was given last has of `partition`, as a bus may at any moment.
    async fn lose(&self, history: HistoryId, partition: Partition);
}

/// Runs the event bus' conformance suite: `event_bus_conformance!(module, factory)` makes a module with one test a
/// case. `factory` is an expression that gives an [`EventBusFactory`](crate::conformance::EventBusFactory); it is
/// evaluated once a case. The crate that calls it needs tokio with `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! event_bus_conformance {
    ($module:ident, $factory:expr) => {
        $crate::event_bus_conformance!(@cases $module, $factory,
            what_is_published_comes_in_order_and_to_the_byte,
            what_two_publishers_publish_comes_once,
            publishers_that_race_leave_each_position_once_and_in_order,
            a_zombies_late_publish_is_turned_down,
            a_publish_that_overlaps_adds_what_is_new,
            the_last_event_is_known,
            an_empty_partition_has_no_last_event,
            the_last_event_is_known_after_trimming,
            a_lost_partition_has_no_last_event_and_goes_on_where_it_is_told,
            trimming_keeps_the_tail,
            histories_are_separate,
            a_publish_of_nothing_does_nothing,
            a_read_begins_after_the_position,
            a_read_may_meet_holes_but_no_disorder,
            a_read_from_before_what_is_kept_begins_at_what_is_kept,
            a_waiting_read_wakes_when_something_is_published,
            a_read_that_waits_for_nothing_comes_back_empty_in_time,
            several_partitions_are_read_at_once,
            a_read_waits_on_all_of_its_partitions,
            the_limit_is_for_each_partition,
            readers_do_not_hold_each_other_up,
            a_reader_that_goes_away_leaves_the_bus_as_it_was,
        );
    };
    (@cases $module:ident, $factory:expr, $($case:ident,)*) => {
        mod $module {
            #[allow(unused_imports, reason = "the factory may be named by its path")]
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    $crate::conformance::$case(&$factory).await;
                }
            )*
        }
    };
}
