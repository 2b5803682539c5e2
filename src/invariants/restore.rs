//! What holds of restoring and of local disks: invariants I8, I9 and I14.

use crate::ids::Epoch;

use super::{Invariant, Violation, check};

/// I8: a restore that ends has a *position* at or behind the high watermark that a read_uncommitted client reported when it
/// began. The last stable offset is too low while a transaction is open; a record with a certain offset may not exist.
///
/// # Errors
/// [`Violation`] of I8.
pub fn restore_is_complete(position: i64, read_uncommitted_high_watermark: i64) -> Result<(), Violation> {
    let holds = position >= read_uncommitted_high_watermark;
    check(Invariant::I8, holds, || {
        format!("the restore ended at position {position}, the high watermark was {read_uncommitted_high_watermark}")
    })
}

/// I9: the disk holds a committed prefix: never an epoch that is not committed. Both are epochs of one lineage; 0 is
/// nothing.
///
/// # Errors
/// [`Violation`] of I9.
pub fn disk_is_committed_prefix(disk: Epoch, committed: Epoch) -> Result<(), Violation> {
    check(Invariant::I9, disk <= committed, || {
        format!("the disk is at epoch {disk}, committed is epoch {committed}")
    })
}

/// I14: a task that had state starts empty only if it was told to.
///
/// # Errors
/// [`Violation`] of I14.
pub fn starts_empty_only_if_told(starts_empty: bool, had_state: bool, is_told_to: bool) -> Result<(), Violation> {
    let holds = !starts_empty || !had_state || is_told_to;
    check(Invariant::I14, holds, || {
        "the task starts empty although it had state".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(outcome: Result<(), Violation>, invariant: Invariant) {
        assert_eq!(outcome.expect_err("it is refused").invariant, invariant);
    }

    #[test]
    fn a_restore_may_end_at_or_behind_the_high_watermark() {
        assert_eq!(restore_is_complete(10, 10), Ok(()));
        assert_eq!(restore_is_complete(11, 10), Ok(()), "an abort marker came meanwhile");
        refused(restore_is_complete(9, 10), Invariant::I8);
    }

    #[test]
    fn a_disk_is_never_ahead_of_the_commit() {
        assert_eq!(disk_is_committed_prefix(Epoch(0), Epoch(0)), Ok(()));
        assert_eq!(disk_is_committed_prefix(Epoch(2), Epoch(3)), Ok(()));
        refused(disk_is_committed_prefix(Epoch(4), Epoch(3)), Invariant::I9);
    }

    #[test]
    fn only_a_task_that_had_nothing_or_was_told_to_starts_empty() {
        assert_eq!(starts_empty_only_if_told(true, false, false), Ok(()));
        assert_eq!(starts_empty_only_if_told(true, true, true), Ok(()));
        assert_eq!(starts_empty_only_if_told(false, true, false), Ok(()));
        refused(starts_empty_only_if_told(true, true, false), Invariant::I14);
    }
}
