//! The conformance suite of the read store: what every adapter must do, one public function a case.
//!
//! An adapter runs all of them with [`read_store_conformance!`](crate::read_store_conformance). The cases use collections of
//! their own, so that they can run at once on one server.

mod aliases;
mod collections;
mod exactness;
mod filters;
mod generated;
mod indexes;
mod language;
#[cfg(any(feature = "mongodb", feature = "sqlite"))]
mod parsing;
mod reads;
mod sample;
mod states;
mod writes;

use std::sync::Arc;

use async_trait::async_trait;

use super::ReadStore;

pub use aliases::*;
pub use collections::*;
pub use exactness::*;
pub use filters::*;
pub use generated::*;
pub use indexes::*;
pub use language::*;
#[cfg(any(feature = "mongodb", feature = "sqlite"))]
pub use parsing::a_request_is_understood_or_refused;
pub use reads::*;
pub use states::*;
#[doc(hidden)]
pub use tidelog_eventbus::state_store_conformance;
pub use writes::*;

/// Gives a case the store that it tests.
#[async_trait]
pub trait ReadStoreFactory: Send + Sync {
    /// A store that works. Each case asks once; the stores of two cases may share their data.
    async fn store(&self) -> Arc<dyn ReadStore>;
}

/// Runs the read store's conformance suite: `read_store_conformance!(module, factory)` makes a module with one test a
/// case, those of the state store among them. `factory` is an expression that gives a
/// [`ReadStoreFactory`](crate::store::conformance::ReadStoreFactory). The crate that calls it needs tokio with `macros`
/// and `rt-multi-thread`.
#[macro_export]
macro_rules! read_store_conformance {
    ($module:ident, $factory:expr) => {
        $crate::read_store_conformance!(@cases $module, $factory,
            a_document_is_inserted_once,
            an_insert_over_a_tombstone_is_unmet,
            a_document_is_replaced_only_at_its_revision,
            a_document_advances_only_past_the_position_that_it_has,
            an_advance_keeps_when_the_document_was_created,
            a_batch_says_of_each_write_in_order_whether_it_was_made,
            a_large_batch_is_written_as_a_whole,
            of_racing_inserts_of_one_id_just_one_is_made,
            no_racing_replacement_is_lost,
            of_racing_advances_to_one_position_just_one_is_made,
            a_document_that_cannot_be_stored_is_named_and_nothing_is_changed,
            tombstones_are_hidden_unless_they_are_asked_for,
            ids_that_are_missing_or_doubled_do_not_disturb_a_get,
            how_far_documents_are_is_told_as_a_get_tells_it,
            documents_come_in_the_bytewise_order_of_their_ids,
            pages_follow_each_other_without_gap_or_repeat,
            a_limit_of_nothing_gives_nothing,
            a_collection_that_is_not_there_reads_as_empty,
            a_filter_compares_by_type_and_value,
            a_missing_field_is_null,
            a_list_or_an_object_equals_only_the_same,
            a_path_goes_through_objects_only,
            unusual_names_of_fields_can_be_filtered_by,
            the_envelope_can_be_filtered_by,
            all_filters_must_hold_and_pages_are_full,
            a_page_ends_with_the_document_that_fills_it,
            the_query_language_means_what_its_table_says,
            a_page_goes_on_where_the_last_one_ended_whatever_became_of_its_end,
            a_query_to_a_collection_that_is_not_there_finds_nothing,
            an_index_changes_nothing_of_what_is_found,
            indexes_are_made_once_and_dropped_when_they_are_not_wanted,
            generated_filters_find_what_their_definition_says,
            generated_queries_find_what_their_definition_says,
            generated_data_comes_back_as_it_was,
            numbers_come_back_as_they_were,
            texts_come_back_as_they_were,
            fields_come_back_in_their_order,
            unusual_names_of_fields_come_back_or_are_refused,
            deeply_nested_data_comes_back_as_it_was,
            a_document_of_a_megabyte_comes_back_as_it_was,
            times_are_kept_to_the_microsecond,
            state_records_are_never_among_the_documents,
            a_dropped_collection_takes_its_documents_and_state_with_it,
            making_and_dropping_a_collection_can_be_repeated,
            a_name_that_could_be_misread_is_refused,
            an_alias_changes_only_at_its_revision,
            of_racing_changes_of_an_alias_just_one_is_made,
        );
    };
    (@cases $module:ident, $factory:expr, $($case:ident,)*) => {
        mod $module {
            #[allow(unused_imports, reason = "the factory may be named by its path")]
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    $crate::store::conformance::$case(&$factory).await;
                }
            )*

            $crate::store::conformance::state_store_conformance!(
                states,
                $crate::store::conformance::StatesOf($factory)
            );
        }
    };
}
