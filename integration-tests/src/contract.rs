//! What every adapter of the log port must do, as functions over a log: the same assertions run on real Kafka and on
//! the embedded log, so that neither drifts away from the other. [`contract_tests`](crate::contract_tests) makes a test
//! of each.

mod groups;
mod reading;
mod topics;
mod writing;

pub use groups::*;
pub use reading::*;
pub use topics::*;
pub use writing::*;

/// Makes one test per assertion of the contract, on the log that `$log` gives.
#[macro_export]
macro_rules! contract_tests {
    ($log:expr) => {
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
            records_are_deleted_only_where_the_policy_allows_it
            offsets_metadata_and_records_commit_together
            an_aborted_transaction_leaves_no_trace
            empty_transactions_commit_and_abort
            an_increment_arrives_with_its_transaction
            a_second_commit_is_refused_while_one_runs
            a_new_producer_fences_the_old_one_and_ends_its_transaction
            an_unfenced_commit_is_refused
            an_older_generation_cannot_commit
            a_member_that_left_cannot_commit
            partitions_move_one_event_at_a_time
            a_static_member_comes_back_with_the_same_generation_and_another_member_id
            what_a_static_member_was_giving_up_stays_with_nobody_until_the_next_join
            without_a_transaction_the_member_commits
        );
    };
    (@each $log:expr, $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                $crate::contract::$name(&*$log);
            }
        )*
    };
}
