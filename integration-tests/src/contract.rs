//! What every adapter of the log port must do, as functions over a log: the same assertions run on real Kafka and on
//! the embedded log, so that neither drifts away from the other. [`contract_tests`](crate::contract_tests) makes a test
//! of each.

mod cleaning;
mod groups;
mod pending;
mod reading;
mod topics;
mod transactions;
mod writing;

pub use cleaning::*;
pub use groups::*;
pub use pending::*;
pub use reading::*;
pub use topics::*;
pub use transactions::*;
pub use writing::*;

/// Makes one test per assertion of the contract, on the log that `$log` gives; behind `writing:` only those that are about
/// producers and their transactions.
#[macro_export]
macro_rules! contract_tests {
    (writing: $log:expr, halfway: $halves:expr) => {
        $crate::contract_tests!(@writing $log);
        $crate::contract_tests!(@halfway_each $halves);
    };
    (@writing $log:expr) => {
        $crate::contract_tests!(@each $log,
            offsets_metadata_and_records_commit_together
            an_aborted_transaction_leaves_no_trace
            empty_transactions_commit_and_abort
            an_increment_arrives_with_its_transaction
            a_second_commit_is_refused_while_one_runs
            a_new_producer_fences_the_old_one_and_ends_its_transaction
            an_unfenced_commit_is_refused
            an_older_generation_cannot_commit
            a_member_that_left_cannot_commit
            each_transaction_takes_one_offset_for_its_marker_in_each_partition
            an_empty_transaction_leaves_no_marker
            the_last_stable_offset_is_that_of_the_oldest_open_transaction
            an_aborted_transaction_takes_nothing_of_its_neighbour_with_it
            an_orphan_transaction_holds_readers_until_its_id_is_initialised_again
            what_was_committed_outlives_its_producer
            producers_of_different_ids_do_not_fence_each_other
            every_earlier_producer_of_an_id_is_fenced
            a_fenced_producer_cannot_abort_either
            a_fenced_producer_commits_no_offsets
            offsets_commit_without_any_record
            committed_offsets_may_go_back
            metadata_of_more_than_512_bytes_is_refused
            increments_follow_the_records_sent_before
            the_group_never_checks_who_owns_a_partition
            a_second_begin_is_refused
            made_up_generations_and_member_ids_cannot_commit
            the_generation_moves_before_the_event_is_served_and_fresh_metadata_still_commits
            a_producer_learns_the_partition_counts_in_order
        );
    };
    (@halfway_each $halves:expr) => {
        $crate::contract_tests!(@halfway $halves,
            a_pending_offset_holds_up_its_partition_and_nothing_else
            whoever_waits_for_a_pending_offset_gets_what_its_end_decides
            of_two_pending_offsets_the_later_written_wins
            the_end_of_a_transaction_does_not_undo_what_was_written_after_it
            a_transaction_that_times_out_is_aborted_and_its_producer_fenced
            offsets_of_a_transaction_that_times_out_are_not_committed
            a_trimmed_transaction_can_be_aborted
            a_commit_that_is_given_up_may_be_carried_out_and_initialising_its_id_settles_it
        );
    };
    (@halfway $halves:expr, $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                $crate::contract::$name(&$halves);
            }
        )*
    };
    (@each $log:expr, $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                $crate::contract::$name(&*$log);
            }
        )*
    };
    ($log:expr) => {
        $crate::contract_tests!(@writing $log);
        $crate::contract_tests!(@each $log,
            a_record_comes_back_as_it_was_sent
            records_come_in_order_and_in_runs
            aborted_records_are_seen_only_by_who_reads_uncommitted
            an_open_transaction_holds_committed_readers_back
            the_position_passes_control_records_and_aborted_records
            the_position_of_an_empty_read_is_its_start
            a_new_assignment_never_delivers_records_of_an_older_one
            a_paused_partition_loses_nothing
            an_offset_that_is_not_there_is_an_error
            a_missing_topic_is_named
            topics_are_created_described_and_deleted
            a_setting_of_a_topic_changes_and_the_others_stay
            records_are_deleted_only_where_the_policy_allows_it
            partitions_move_one_event_at_a_time
            a_static_member_comes_back_with_the_same_generation_and_another_member_id
            what_a_static_member_was_giving_up_stays_with_nobody_until_the_next_join
            without_a_transaction_the_member_commits
            records_without_a_transaction_have_no_marker
            records_without_a_transaction_wait_behind_an_open_one
            reading_from_the_midst_of_a_transaction_gives_its_rest
            reading_from_the_midst_of_an_aborted_transaction_gives_nothing_of_it
            the_position_passes_a_marker_that_it_starts_at
            a_reader_at_the_end_gets_what_comes_later
            partitions_are_read_from_places_of_their_own
            a_paused_partition_does_not_hold_up_another
            deleting_records_behind_a_reader_does_not_disturb_it
            each_group_gets_every_partition
            three_members_share_evenly
            a_member_without_partitions_takes_over_when_the_owner_leaves
            a_dynamic_member_comes_back_as_somebody_else
            committed_offsets_outlive_the_members
            an_unknown_group_has_neither_offsets_nor_members
            the_state_of_a_group_names_what_was_given_out
            a_member_of_two_topics_gets_the_partitions_of_both
            members_get_partitions_of_their_own_topics_only
            a_second_process_with_the_same_instance_id_ends_the_first
            a_member_that_vanishes_is_replaced_when_its_session_ends
            the_watermarks_of_an_empty_partition_are_zero
            a_topic_has_kafkas_defaults
            impossible_topics_are_refused
            deleting_records_never_moves_the_start_back
            records_may_be_deleted_beyond_the_last_stable_offset
            compaction_leaves_the_last_record_of_each_key
            a_reader_behind_compaction_goes_on_over_the_holes
            compaction_takes_aborted_records_and_offsets_stay_taken
            a_tombstone_is_kept_by_the_first_cleaning_that_meets_it
            a_tombstone_stays_for_its_time
            a_key_that_comes_back_replaces_its_tombstone
            compaction_stops_at_an_open_transaction
            a_compacted_topic_refuses_records_without_a_key
            retention_by_time_moves_the_start_of_the_log
            retention_may_leave_nothing_but_the_end
            retention_by_size_keeps_at_least_that_much
            a_compacted_topic_has_no_retention
            impossible_settings_of_cleaning_are_refused
            a_trimmed_log_is_compacted_from_its_new_start
        );
    };
    // Cases that also leave transactions halfway, or need a time-out of their own.
    ($log:expr, halfway: $halves:expr) => {
        $crate::contract_tests!($log);
        $crate::contract_tests!(@halfway_each $halves);
    };
}
