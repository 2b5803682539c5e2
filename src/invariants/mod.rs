//! The invariants of the protocol as predicates: one function each, over plain facts.
//!
//! The exhaustive models, the simulation and the engine's own assertions ask the same functions, so that none of them checks
//! something else under the same number. A predicate that holds allocates nothing.

mod commit;
mod restore;
mod snapshot;

use std::fmt;

pub use commit::{
    Handle, all_acknowledged_before_first_send, commits_only_for_what_was_served, every_input_is_committed,
    metadata_fences, offsets_follow_confirmed_end, offsets_read_behind_the_producer, outputs_visible_iff_committed,
    pointed_state_is_durable, settings_never_change_results,
};
pub use restore::{disk_is_committed_prefix, restore_is_complete, starts_empty_only_if_told};
pub use snapshot::{
    deleted_after_grace, nothing_referenced_is_deleted, objects_are_immutable, snapshot_is_committed_prefix,
    trim_only_behind_verified,
};

/// The invariants of the protocol, by their number in `ARCHITECTURE.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// Outputs are visible if and only if offsets and pointer are committed.
    I1,
    /// What a pointer names is durable before the commit.
    I2,
    /// Offsets follow the confirmed end of the epoch before.
    I3,
    /// Acknowledgements of an epoch precede the first send of the next.
    I4,
    /// All inputs of a task are in every commit, with one epoch.
    I5,
    /// A commit carries the whole group metadata, as served.
    I6,
    /// Offsets are read behind the producer's initialisation and pending transactions.
    I7,
    /// A restore ends at the high watermark of a read_uncommitted client.
    I8,
    /// The disk holds a committed prefix.
    I9,
    /// Objects are immutable and belong to one attempt.
    I10,
    /// Nothing that is referenced is deleted.
    I11,
    /// A changelog is trimmed only behind a verified snapshot.
    I12,
    /// A snapshot is the committed prefix up to its cut.
    I13,
    /// A task never starts empty unless told to.
    I14,
    /// Settings never change results.
    I15,
}

impl Invariant {
    /// All of them, in the order of their numbers.
    pub const ALL: [Invariant; 15] = [
        Invariant::I1,
        Invariant::I2,
        Invariant::I3,
        Invariant::I4,
        Invariant::I5,
        Invariant::I6,
        Invariant::I7,
        Invariant::I8,
        Invariant::I9,
        Invariant::I10,
        Invariant::I11,
        Invariant::I12,
        Invariant::I13,
        Invariant::I14,
        Invariant::I15,
    ];

    /// The number, from 1.
    pub fn number(self) -> u8 {
        self as u8 + 1
    }

    /// What holds, in one sentence.
    pub fn statement(self) -> &'static str {
        match self {
            Invariant::I1 => {
                "outputs of an epoch are visible if and only if its offsets and its state pointer are committed"
            }
            Invariant::I2 => {
                "what a pointer names is complete and durable before the transaction that holds it is ended"
            }
            Invariant::I3 => "offsets of an epoch are not sent before the end of the one before is confirmed",
            Invariant::I4 => "every acknowledgement of an epoch precedes the first send of the next",
            Invariant::I5 => "all input partitions of a task are in every commit of it, with the same epoch",
            Invariant::I6 => {
                "a commit carries the group metadata that was captured whole when the last event was served"
            }
            Invariant::I7 => {
                "producers are initialised before offsets are read, and reading waits for pending transactions"
            }
            Invariant::I8 => {
                "a restore ends when the consumer's position reaches the high watermark of a read_uncommitted client"
            }
            Invariant::I9 => "the disk holds a committed prefix and says which",
            Invariant::I10 => "objects are immutable, and each belongs to one attempt",
            Invariant::I11 => {
                "nothing that a retained manifest, a savepoint or a restoring reader refers to is deleted"
            }
            Invariant::I12 => "a changelog is trimmed only up to the oldest retained, verified snapshot",
            Invariant::I13 => "a snapshot at a cut is exactly the committed prefix up to that cut",
            Invariant::I14 => "without a valid restore point a task stops loudly; it never starts empty unless told to",
            Invariant::I15 => "commit interval, number of workers and of instances never change results",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "I{}", self.number())
    }
}

/// An invariant that does not hold, and what was found in its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant} is violated ({}): {found}", .invariant.statement())]
pub struct Violation {
    /// The invariant.
    pub invariant: Invariant,
    /// What was found.
    pub found: String,
}

/// `Ok` where `holds`; else a violation with what `found` says, which is asked only then.
fn check(invariant: Invariant, holds: bool, found: impl FnOnce() -> String) -> Result<(), Violation> {
    match holds {
        true => Ok(()),
        false => Err(Violation {
            invariant,
            found: found(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_agree_and_no_two_invariants_say_the_same() {
        for (index, invariant) in Invariant::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(invariant.number()), index + 1);
            assert_eq!(invariant.to_string(), format!("{invariant:?}"));
            let same = |other: &&Invariant| other.statement() == invariant.statement();
            assert_eq!(Invariant::ALL.iter().filter(same).count(), 1);
        }
    }

    #[test]
    fn a_violation_names_the_invariant_and_what_was_found() {
        let violation = check(Invariant::I9, false, || "epoch 3".to_owned()).expect_err("it does not hold");
        assert_eq!(
            violation.to_string(),
            "I9 is violated (the disk holds a committed prefix and says which): epoch 3"
        );
        assert_eq!(
            check(Invariant::I9, true, || unreachable!("nothing is to be said")),
            Ok(())
        );
    }
}
