//! What to do with a local disk, given what the last commit says (invariants I9, I14).

use crate::ids::{Epoch, Lineage};
use crate::state::StateMeta;

use super::Pointer;

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

/// Compares the disk with the committed pointer. `None` for `pointer`: the group has no offsets for the task.
///
/// # Errors
/// [`Refusal`] where starting would mean to start empty although there was state.
pub fn decide(local: Option<&StateMeta>, pointer: Option<&Pointer>) -> Result<Decision, Refusal> {
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

    fn disk(lineage: u64, epoch: u64) -> StateMeta {
        StateMeta {
            lineage: Lineage(lineage),
            epoch: Epoch(epoch),
            cut: BTreeMap::new(),
            changelog: BTreeMap::new(),
        }
    }

    fn committed(lineage: u64, epoch: u64) -> Pointer {
        Pointer {
            lineage: Lineage(lineage),
            epoch: Epoch(epoch),
            plan: String::new(),
        }
    }

    #[test]
    fn a_disk_is_used_as_far_as_it_agrees_with_the_commit() {
        let at = |local: Option<StateMeta>, pointer: Option<Pointer>| decide(local.as_ref(), pointer.as_ref());
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
    fn state_without_committed_offsets_never_starts_empty() {
        let refused = decide(Some(&disk(1, 3)), None);
        assert_eq!(
            refused,
            Err(Refusal::OffsetsGone {
                lineage: Lineage(1),
                epoch: Epoch(3)
            })
        );
        assert_eq!(
            decide(Some(&disk(1, 0)), None),
            Ok(Decision::Fresh),
            "an interrupted first restore holds nothing committed"
        );
    }
}
