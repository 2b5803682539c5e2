//! What to do with a local disk, given what the last commit says (invariants I9, I14).

use crate::ids::{Epoch, Lineage};
use crate::planted::{Bug, planted};
use crate::state::StateMeta;
use crate::time::Millis;

use super::Pointer;
use super::changelog::DELETIONS_KEPT_MS;

/// A disk whose last epoch is older is not brought up to date by a replay: compaction removes the record of a deletion
/// after [`DELETIONS_KEPT_MS`], and a row that nobody deletes any more would stay for ever. A tenth is left for the replay.
const REPLAY_MAX_AGE_MS: Millis = DELETIONS_KEPT_MS / 10 * 9;

/// What happens to local state before a task runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing was ever committed and nothing is there: start a new lineage.
    Fresh,
    /// The disk is exactly at the last commit: nothing is read.
    Current,
    /// The disk holds an earlier epoch of the same lineage: the difference is replayed.
    Replay {
        /// The epoch on disk.
        from: Epoch,
        /// The committed epoch.
        to: Epoch,
    },
    /// The disk cannot be used: it is cleared, and everything is replayed.
    Rebuild {
        /// Why, for the log.
        reason: String,
    },
}

/// Why a task must not start (invariant I14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is local state, but the group has no committed offsets for the task.
    OffsetsGone {
        /// Lineage on disk.
        lineage: Lineage,
        /// Epoch on disk.
        epoch: Epoch,
    },
}

/// Compares the disk with the committed pointer. `None` for `pointer`: the group has no offsets for the task. At `now_ms`
/// (wall clock, milliseconds since the Unix epoch) a disk that is behind may be too old to be brought up to date.
///
/// # Errors
/// [`Refusal`] where starting would mean to start empty although there was state.
pub fn decide(local: Option<&StateMeta>, pointer: Option<&Pointer>, now_ms: Millis) -> Result<Decision, Refusal> {
    match (local, pointer) {
        (None, None) => Ok(Decision::Fresh),
        (Some(local), None) if local.epoch == Epoch(0) => Ok(Decision::Fresh),
        (Some(local), None) => Err(Refusal::OffsetsGone {
            lineage: local.lineage,
            epoch: local.epoch,
        }),
        (None, Some(_)) => Ok(Decision::Rebuild {
            reason: "there is no local state".into(),
        }),
        (Some(local), Some(pointer)) if local.lineage != pointer.lineage => Ok(Decision::Rebuild {
            reason: format!(
                "the disk is of lineage {}, the committed state of lineage {}",
                local.lineage, pointer.lineage
            ),
        }),
        (Some(local), Some(pointer)) if local.epoch > pointer.epoch => Ok(Decision::Rebuild {
            reason: format!(
                "the disk is at epoch {}, ahead of the committed epoch {}",
                local.epoch, pointer.epoch
            ),
        }),
        (Some(local), Some(pointer)) if local.epoch == pointer.epoch => Ok(Decision::Current),
        (Some(_), Some(_)) if planted(Bug::BehindIsCurrent) => Ok(Decision::Current),
        (Some(local), Some(_)) if now_ms.saturating_sub(local.ended_ms) >= REPLAY_MAX_AGE_MS => Ok(Decision::Rebuild {
            reason: format!(
                "the disk was last written more than {} h ago: the changelog may have forgotten which of its rows were deleted since",
                REPLAY_MAX_AGE_MS / 3_600_000
            ),
        }),
        (Some(local), Some(pointer)) => Ok(Decision::Replay {
            from: local.epoch,
            to: pointer.epoch,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::durability::Durability;
    use crate::durability::snapshot::StateRef;

    const NOW_MS: Millis = 1_700_000_000_000;

    fn disk(lineage: u64, epoch: u64) -> StateMeta {
        StateMeta {
            lineage: Lineage(lineage),
            epoch: Epoch(epoch),
            ended_ms: NOW_MS - 1_000,
            cut: BTreeMap::new(),
            changelog: BTreeMap::new(),
        }
    }

    fn committed(lineage: u64, epoch: u64) -> Pointer {
        Pointer {
            lineage: Lineage(lineage),
            epoch: Epoch(epoch),
            plan: String::new(),
            durability: Durability::Changelog,
            state: StateRef::default(),
            since: None,
        }
    }

    #[test]
    fn a_disk_is_used_as_far_as_it_agrees_with_the_commit() {
        let at = |local: Option<StateMeta>, pointer: Option<Pointer>| decide(local.as_ref(), pointer.as_ref(), NOW_MS);
        assert_eq!(at(None, None), Ok(Decision::Fresh));
        assert_eq!(at(Some(disk(1, 5)), Some(committed(1, 5))), Ok(Decision::Current));
        let replay = Decision::Replay {
            from: Epoch(4),
            to: Epoch(5),
        };
        assert_eq!(at(Some(disk(1, 4)), Some(committed(1, 5))), Ok(replay));
        for (local, says) in [(disk(1, 6), "ahead"), (disk(2, 5), "lineage")] {
            match at(Some(local), Some(committed(1, 5))) {
                Ok(Decision::Rebuild { reason }) => assert!(reason.contains(says), "{reason}"),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(at(None, Some(committed(1, 5))), Ok(Decision::Rebuild { .. })));
    }

    #[test]
    fn a_disk_that_is_behind_is_rebuilt_once_deletions_may_be_forgotten() {
        let aged = |epoch, age_ms| StateMeta {
            ended_ms: NOW_MS - age_ms,
            ..disk(1, epoch)
        };
        let decide = |local: StateMeta| decide(Some(&local), Some(&committed(1, 5)), NOW_MS);
        assert!(matches!(
            decide(aged(4, REPLAY_MAX_AGE_MS - 1)),
            Ok(Decision::Replay { .. })
        ));
        match decide(aged(4, REPLAY_MAX_AGE_MS)) {
            Ok(Decision::Rebuild { reason }) => assert!(reason.contains("deleted"), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(
            decide(aged(5, 2 * DELETIONS_KEPT_MS)),
            Ok(Decision::Current),
            "a disk that lacks nothing can have any age"
        );
    }

    #[test]
    fn state_without_committed_offsets_never_starts_empty() {
        let refused = decide(Some(&disk(1, 3)), None, NOW_MS);
        assert_eq!(
            refused,
            Err(Refusal::OffsetsGone {
                lineage: Lineage(1),
                epoch: Epoch(3)
            })
        );
        assert_eq!(
            decide(Some(&disk(1, 0)), None, NOW_MS),
            Ok(Decision::Fresh),
            "an interrupted first restore holds nothing committed"
        );
    }
}
