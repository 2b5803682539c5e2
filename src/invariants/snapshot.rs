//! What holds of snapshots: invariants I10 to I13.

use std::fmt::Display;
use std::time::Duration;

use crate::ids::Epoch;

use super::{Invariant, Violation, check};

/// I10: objects are immutable, and each belongs to one attempt: a name never stands for two contents. `stored` is the
/// checksum of what has that name already.
///
/// # Errors
/// [`Violation`] of I10.
pub fn objects_are_immutable(name: &dyn Display, stored: Option<u64>, written: u64) -> Result<(), Violation> {
    let holds = stored.is_none_or(|stored| stored == written);
    check(Invariant::I10, holds, || {
        format!("{name} holds something else than what is written under that name")
    })
}

/// I11: nothing that a retained manifest, a savepoint or a restoring reader refers to is deleted.
///
/// # Errors
/// [`Violation`] of I11.
pub fn nothing_referenced_is_deleted<N: PartialEq + Display>(deleted: &N, referenced: &[N]) -> Result<(), Violation> {
    check(Invariant::I11, !referenced.contains(deleted), || {
        format!("{deleted} is deleted and referred to")
    })
}

/// I11, for objects that nobody refers to yet: they are deleted only after a grace that is longer than the longest attempt
/// to write a snapshot.
///
/// # Errors
/// [`Violation`] of I11.
pub fn deleted_after_grace(unreferenced_for: Duration, grace: Duration) -> Result<(), Violation> {
    check(Invariant::I11, unreferenced_for >= grace, || {
        format!("an object was deleted {unreferenced_for:?} after its last reference, the grace is {grace:?}")
    })
}

/// I12: a changelog is trimmed only up to the oldest retained, verified snapshot, whose place in the changelog is
/// `oldest_verified`; `None`: there is none.
///
/// # Errors
/// [`Violation`] of I12.
pub fn trim_only_behind_verified(trim_to: i64, oldest_verified: Option<i64>) -> Result<(), Violation> {
    let holds = oldest_verified.is_some_and(|oldest| trim_to <= oldest);
    check(Invariant::I12, holds, || match oldest_verified {
        Some(oldest) => format!("the changelog is trimmed to {trim_to}, the oldest verified snapshot is at {oldest}"),
        None => format!("the changelog is trimmed to {trim_to} without a verified snapshot"),
    })
}

/// I13: a snapshot at a cut is exactly the committed prefix up to that cut. Both are digests of the state at `cut`.
///
/// # Errors
/// [`Violation`] of I13.
pub fn snapshot_is_committed_prefix(cut: Epoch, snapshot: u64, committed_prefix: u64) -> Result<(), Violation> {
    check(Invariant::I13, snapshot == committed_prefix, || {
        format!("the snapshot of epoch {cut} has digest {snapshot:016x}, the committed state {committed_prefix:016x}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(outcome: Result<(), Violation>, invariant: Invariant) {
        assert_eq!(outcome.expect_err("it is refused").invariant, invariant);
    }

    #[test]
    fn a_name_stands_for_one_content() {
        assert_eq!(objects_are_immutable(&"a.sst", None, 1), Ok(()));
        assert_eq!(objects_are_immutable(&"a.sst", Some(1), 1), Ok(()));
        refused(objects_are_immutable(&"a.sst", Some(2), 1), Invariant::I10);
    }

    #[test]
    fn what_is_referred_to_stays() {
        assert_eq!(nothing_referenced_is_deleted(&"a.sst", &["b.sst"]), Ok(()));
        refused(
            nothing_referenced_is_deleted(&"a.sst", &["b.sst", "a.sst"]),
            Invariant::I11,
        );
    }

    #[test]
    fn an_object_goes_when_the_grace_is_over() {
        let seconds = Duration::from_secs;
        assert_eq!(deleted_after_grace(seconds(60), seconds(60)), Ok(()));
        refused(deleted_after_grace(seconds(59), seconds(60)), Invariant::I11);
    }

    #[test]
    fn a_changelog_is_kept_from_the_oldest_verified_snapshot_on() {
        assert_eq!(trim_only_behind_verified(5, Some(5)), Ok(()));
        refused(trim_only_behind_verified(6, Some(5)), Invariant::I12);
        refused(trim_only_behind_verified(0, None), Invariant::I12);
    }

    #[test]
    fn a_snapshot_with_other_contents_than_the_prefix_is_refused() {
        assert_eq!(snapshot_is_committed_prefix(Epoch(3), 7, 7), Ok(()));
        refused(snapshot_is_committed_prefix(Epoch(3), 7, 8), Invariant::I13);
    }
}
