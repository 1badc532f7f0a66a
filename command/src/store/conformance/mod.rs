//! The conformance suite of the event store: what every adapter must do, one public function a case.
//!
//! An adapter of your own runs it by implementing [`StoreFactory`] for one fresh log and calling
//! [`event_store_conformance!`](crate::event_store_conformance) in a test. The cases panic on what is wrong, as tests do.
//!
//! ```text
//! tidelog_command::event_store_conformance!(my_store, MyLog::fresh().await, durable, shared, spoilable);
//! ```

mod batches;
mod bytes;
mod cancelling;
mod durability;
mod expecting;
mod keys;
mod ordering;
mod reading;
mod searching;
mod sharing;
mod snapshots;
mod states;
mod support;
mod tenants;

use std::sync::Arc;

use async_trait::async_trait;
use tidelog_domain::{Partition, Partitions, Position};

use super::EventStore;

pub use batches::*;
pub use bytes::*;
pub use cancelling::*;
pub use durability::*;
pub use expecting::*;
pub use keys::*;
pub use ordering::*;
pub use reading::*;
pub use searching::*;
pub use sharing::*;
pub use snapshots::*;
pub use states::*;
pub use tenants::*;
#[doc(hidden)]
pub use tidelog_eventbus::state_store_conformance;

/// How many partitions the logs of the suite have: few enough that they meet.
pub const PARTITIONS: u16 = 4;

/// One log, empty at first, that a case opens stores on. Each case gets a fresh one.
#[async_trait]
pub trait StoreFactory: Send + Sync {
    /// Opens a store on the log, as a program does that is configured for `partitions`; the first time it makes the log.
    ///
    /// The cases `durable` drop a store before they open the next; the cases `shared` open two at once. Without them it
    /// is called once.
    ///
    /// # Errors
    ///
    /// When the log refuses to be opened so.
    async fn open(
        &self,
        partitions: Partitions,
    ) -> Result<Arc<dyn EventStore>, Box<dyn std::error::Error + Send + Sync>>;
}

/// A log whose rows can be spoilt: on disk anything may happen to them.
#[async_trait]
pub trait SpoilableLog: StoreFactory {
    /// Makes the row of the event at `position` of `partition` unreadable: its stream is `garbage`, which is no stream's name.
    async fn spoil(&self, partition: Partition, position: Position);
}

/// Makes a module with one test for each case of the event store's conformance suite, those of the state store among them.
///
/// The first argument names the module, the second is an expression that makes a [`StoreFactory`] for a fresh log (it may
/// `.await`). `durable` adds the cases for stores that outlive the process, `shared` those for stores that may be opened twice
/// at the same time, `spoilable` those for a [`SpoilableLog`]. The crate needs `tokio` with its macros and its multi-threaded runtime.
#[macro_export]
macro_rules! event_store_conformance {
    ($module:ident, $factory:expr $(, $extra:ident)* $(,)?) => {
        mod $module {
            #[allow(unused_imports, reason = "the factory may come from there")]
            use super::*;

            $crate::event_store_conformance!(@cases $factory;
                positions_are_dense_and_in_the_order_of_commits,
                versions_are_dense_under_concurrent_appends,
                lanes_work_in_parallel_without_deadlock,
                time_never_runs_backwards_in_a_partition,
                each_expected_version_is_checked,
                an_exact_version_too_high_is_a_conflict_and_leaves_no_gap,
                an_append_that_is_repeated_is_not_written_again,
                a_check_appends_nothing,
                an_append_to_several_streams_happens_as_a_whole,
                an_append_may_depend_on_a_stream_that_it_does_not_write,
                the_appends_of_a_batch_build_on_each_other,
                the_losers_of_a_batch_are_named_one_by_one,
                what_was_decided_on_a_loser_loses_too,
                an_oversized_event_spoils_no_other_append,
                a_malformed_append_is_turned_down_by_itself,
                an_append_without_writes_and_a_batch_without_appends_are_fine,
                payloads_come_back_byte_for_byte,
                the_largest_event_fits,
                the_largest_appends_fit_in_one_batch,
                names_of_events_that_hardly_differ_come_back_as_they_were,
                streams_whose_names_hardly_differ_are_different,
                a_partition_is_read_page_by_page,
                pages_of_large_events_lose_none,
                a_cursor_that_does_not_fit_is_noticed,
                streams_are_read_from_a_version_or_from_their_end,
                many_streams_are_read_at_once,
                a_stream_is_read_page_by_page,
                the_heads_are_those_of_the_log,
                a_history_is_renewed,
                events_are_found_by_what_is_asked_for,
                a_range_is_searched_from_either_end,
                a_search_of_large_events_loses_none,
                streams_are_listed_by_name,
                a_dropped_append_leaves_nothing_open,
                calls_that_nobody_polls_hold_up_no_other,
                a_used_key_is_answered_by_what_it_came_to,
                a_key_is_not_for_two_requests,
                checks_and_appends_to_several_streams_record_their_keys,
                what_does_not_happen_records_no_key,
                a_key_counts_once_in_a_batch,
                used_keys_spoil_no_other_append,
                old_keys_are_forgotten_a_few_at_a_time,
                a_snapshot_comes_back_as_it_was,
                a_stream_goes_on_after_its_snapshot,
                a_later_snapshot_wins,
                a_snapshot_of_another_fingerprint_is_left_alone,
                a_snapshot_of_another_history_is_left_alone,
                a_snapshot_whose_event_is_gone_is_left_alone,
                the_largest_snapshot_fits,
                snapshots_and_events_fit_together,
                the_streams_of_tenants_are_different,
                the_longest_name_of_a_stream_fits,
            );
            $crate::store::conformance::state_store_conformance!(
                states,
                $crate::store::conformance::StatesOf($factory)
            );
            $( $crate::event_store_conformance!(@$extra $factory); )*
        }
    };
    (@durable $factory:expr) => {
        $crate::event_store_conformance!(@cases $factory;
            a_log_survives_its_store,
            another_number_of_partitions_is_refused,
            a_key_survives_its_store,
            a_snapshot_survives_its_store,
            a_state_record_survives_its_store,
        );
    };
    (@shared $factory:expr) => {
        $crate::event_store_conformance!(@cases $factory;
            two_stores_on_one_log_never_both_win,
            a_store_notices_what_another_appended,
            two_stores_keep_the_order_of_commits,
            a_renewed_history_is_seen_by_the_other_store,
            two_stores_use_each_key_once,
            two_stores_never_both_change_a_state_record,
        );
    };
    (@spoilable $factory:expr) => {
        $crate::event_store_conformance!(@cases $factory;
            an_unreadable_row_holds_back_no_event_before_it,
            a_search_names_an_unreadable_row_and_goes_on,
        );
    };
    (@cases $factory:expr; $($case:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $case() {
                let factory = $factory;
                $crate::store::conformance::$case(&factory).await;
            }
        )*
    };
}
