//! What holds of commits: invariants I1 to I7, and I15.

use std::fmt::Display;

use crate::ids::{Epoch, TaskId};

use super::{Invariant, Violation, check};

/// What a broker fences a commit by: generation and member id of the group at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle<'a> {
    /// The generation; negative before the first join.
    pub generation: i32,
    /// The member id; empty when not (any more) a member.
    pub member_id: &'a str,
}

/// I1: outputs of an epoch are visible if and only if its offsets and its state pointer are committed.
///
/// # Errors
/// [`Violation`] of I1.
pub fn outputs_visible_iff_committed(
    epoch: Epoch,
    outputs_visible: bool,
    offsets_committed: bool,
    pointer_committed: bool,
) -> Result<(), Violation> {
    let holds = outputs_visible == offsets_committed && offsets_committed == pointer_committed;
    check(Invariant::I1, holds, || {
        format!(
            "epoch {epoch}: outputs visible: {outputs_visible}, offsets committed: {offsets_committed}, pointer committed: {pointer_committed}"
        )
    })
}

/// I2: what a pointer names is complete and durable before the transaction that holds it is ended. `durable` is the last
/// epoch whose increments are all acknowledged (changelog) or verified (snapshot).
///
/// # Errors
/// [`Violation`] of I2.
pub fn pointed_state_is_durable(pointed: Epoch, durable: Epoch) -> Result<(), Violation> {
    check(Invariant::I2, pointed <= durable, || {
        format!("the pointer names epoch {pointed}, durable is epoch {durable}")
    })
}

/// I3: offsets of an epoch are not sent before the end of the one before is confirmed. `confirmed` is the last epoch of the
/// task whose commit was confirmed, or read back from the group.
///
/// # Errors
/// [`Violation`] of I3.
pub fn offsets_follow_confirmed_end(confirmed: Epoch, sending: Epoch) -> Result<(), Violation> {
    check(Invariant::I3, sending == confirmed.next(), || {
        format!("offsets of epoch {sending} are sent, confirmed is epoch {confirmed}")
    })
}

/// I4: every acknowledgement of an epoch precedes the first send of the next. `unacknowledged` counts the records of
/// `ended` that the broker has not acknowledged.
///
/// # Errors
/// [`Violation`] of I4.
pub fn all_acknowledged_before_first_send(unacknowledged: usize, ended: Epoch) -> Result<(), Violation> {
    check(Invariant::I4, unacknowledged == 0, || {
        format!("{unacknowledged} records of epoch {ended} are not acknowledged, and the next epoch sends")
    })
}

/// I5: all input partitions of a task are in every commit of it, with the same epoch.
///
/// # Errors
/// [`Violation`] of I5.
pub fn every_input_is_committed<P: PartialEq + Display>(
    inputs: &[P],
    committed: &[(P, Epoch)],
) -> Result<(), Violation> {
    let is_committed = |input: &&P| committed.iter().any(|(partition, _)| partition == *input);
    if let Some(missing) = inputs.iter().find(|input| !is_committed(input)) {
        return check(Invariant::I5, false, || format!("{missing} is not in the commit"));
    }
    let Some((_, epoch)) = committed.first() else {
        return Ok(());
    };
    let other = committed.iter().find(|(_, other)| other != epoch);
    other.map_or(Ok(()), |(partition, other)| {
        check(Invariant::I5, false, || {
            format!("{partition} is committed with epoch {other}, another input with epoch {epoch}")
        })
    })
}

/// I6, first part: the metadata of a commit is such that a broker fences it. Kafka accepts the offsets of a transaction in the
/// name of nobody (generation -1, no member id) without any fence.
///
/// # Errors
/// [`Violation`] of I6.
pub fn metadata_fences(handle: Handle<'_>) -> Result<(), Violation> {
    let holds = handle.generation >= 0 && !handle.member_id.is_empty();
    check(Invariant::I6, holds, || {
        format!(
            "generation {} and member id {:?} are not fenced",
            handle.generation, handle.member_id
        )
    })
}

/// I6, second part: a commit carries the metadata that was captured whole when the last event was served, and is for
/// tasks that were held then. Brokers fence member and generation, never the ownership of a partition; a fresher handle
/// would commit for tasks that belong to somebody else.
///
/// # Errors
/// [`Violation`] of I6.
pub fn commits_only_for_what_was_served(
    served: Handle<'_>,
    sent: Handle<'_>,
    held: &[TaskId],
    committed: &[TaskId],
) -> Result<(), Violation> {
    if let Some(foreign) = committed.iter().find(|task| !held.contains(task)) {
        return check(Invariant::I6, false, || {
            format!("the commit is for task {foreign}, which is not held")
        });
    }
    check(Invariant::I6, served == sent, || {
        format!(
            "served were generation {} and member id {:?}, sent are {} and {:?}",
            served.generation, served.member_id, sent.generation, sent.member_id
        )
    })
}

/// I7: producers are initialised before offsets are read, and reading waits for pending transactions. `pending` counts the
/// transactions that hold offsets of the asked partitions at the time of the answer.
///
/// # Errors
/// [`Violation`] of I7.
pub fn offsets_read_behind_the_producer(producer_is_initialised: bool, pending: usize) -> Result<(), Violation> {
    check(Invariant::I7, producer_is_initialised && pending == 0, || {
        format!(
            "offsets were read with the producer initialised: {producer_is_initialised}, transactions pending: {pending}"
        )
    })
}

/// I15: commit interval, number of workers and of instances never change results. Both are digests of all committed
/// output, or of all state, of runs on the same input.
///
/// # Errors
/// [`Violation`] of I15.
pub fn settings_never_change_results(expected: u64, found: u64) -> Result<(), Violation> {
    check(Invariant::I15, expected == found, || {
        format!("digest {expected:016x} was expected, {found:016x} was found")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVED: Handle<'_> = Handle {
        generation: 3,
        member_id: "a",
    };

    fn task(partition: i32) -> TaskId {
        TaskId {
            sub_topology: 0,
            partition,
        }
    }

    fn refused(outcome: Result<(), Violation>, invariant: Invariant, says: &str) {
        let violation = outcome.expect_err("it is refused");
        assert_eq!(violation.invariant, invariant);
        assert!(violation.found.contains(says), "{violation}");
    }

    #[test]
    fn outputs_offsets_and_pointer_show_together_or_not_at_all() {
        for all in [true, false] {
            assert_eq!(outputs_visible_iff_committed(Epoch(1), all, all, all), Ok(()));
        }
        for [outputs, offsets, pointer] in [[true, false, false], [false, true, true], [true, true, false]] {
            let outcome = outputs_visible_iff_committed(Epoch(7), outputs, offsets, pointer);
            refused(outcome, Invariant::I1, "epoch 7");
        }
    }

    #[test]
    fn a_pointer_never_runs_ahead_of_what_is_durable() {
        assert_eq!(pointed_state_is_durable(Epoch(4), Epoch(4)), Ok(()));
        assert_eq!(pointed_state_is_durable(Epoch(4), Epoch(5)), Ok(()));
        refused(pointed_state_is_durable(Epoch(5), Epoch(4)), Invariant::I2, "epoch 5");
    }

    #[test]
    fn epochs_are_committed_one_after_the_other() {
        assert_eq!(offsets_follow_confirmed_end(Epoch(0), Epoch(1)), Ok(()));
        refused(
            offsets_follow_confirmed_end(Epoch(1), Epoch(3)),
            Invariant::I3,
            "epoch 3",
        );
        refused(
            offsets_follow_confirmed_end(Epoch(1), Epoch(1)),
            Invariant::I3,
            "epoch 1",
        );
    }

    #[test]
    fn the_next_epoch_sends_when_nothing_is_unacknowledged() {
        assert_eq!(all_acknowledged_before_first_send(0, Epoch(1)), Ok(()));
        refused(
            all_acknowledged_before_first_send(2, Epoch(1)),
            Invariant::I4,
            "2 records",
        );
    }

    #[test]
    fn a_commit_has_all_inputs_with_one_epoch() {
        let inputs = ["left", "right"];
        let both = [("right", Epoch(2)), ("left", Epoch(2))];
        assert_eq!(every_input_is_committed(&inputs, &both), Ok(()));
        assert_eq!(every_input_is_committed::<&str>(&[], &[]), Ok(()));
        refused(every_input_is_committed(&inputs, &both[..1]), Invariant::I5, "left");
        refused(every_input_is_committed(&inputs, &[]), Invariant::I5, "left");
        let torn = [("left", Epoch(2)), ("right", Epoch(1))];
        refused(every_input_is_committed(&inputs, &torn), Invariant::I5, "right");
    }

    #[test]
    fn metadata_without_generation_or_member_is_refused() {
        assert_eq!(metadata_fences(SERVED), Ok(()));
        let first = Handle {
            generation: 0,
            ..SERVED
        };
        assert_eq!(metadata_fences(first), Ok(()));
        let negative = Handle {
            generation: -1,
            ..SERVED
        };
        refused(metadata_fences(negative), Invariant::I6, "-1");
        let nobody = Handle {
            member_id: "",
            ..SERVED
        };
        refused(metadata_fences(nobody), Invariant::I6, "\"\"");
    }

    #[test]
    fn a_commit_carries_what_was_served_for_tasks_that_are_held() {
        let held = [task(0), task(1)];
        assert_eq!(
            commits_only_for_what_was_served(SERVED, SERVED, &held, &held[..1]),
            Ok(())
        );
        let fresher = Handle {
            generation: 4,
            ..SERVED
        };
        let renamed = Handle {
            member_id: "b",
            ..SERVED
        };
        for (sent, says) in [(fresher, "sent are 4"), (renamed, "\"b\"")] {
            let outcome = commits_only_for_what_was_served(SERVED, sent, &held, &held);
            refused(outcome, Invariant::I6, says);
        }
        let foreign = commits_only_for_what_was_served(SERVED, SERVED, &held, &[task(2)]);
        refused(foreign, Invariant::I6, "0_2");
    }

    #[test]
    fn offsets_are_read_by_who_has_a_producer_and_when_nothing_is_pending() {
        assert_eq!(offsets_read_behind_the_producer(true, 0), Ok(()));
        refused(offsets_read_behind_the_producer(false, 0), Invariant::I7, "false");
        refused(offsets_read_behind_the_producer(true, 1), Invariant::I7, "pending: 1");
    }

    #[test]
    fn different_digests_are_different_results() {
        assert_eq!(settings_never_change_results(5, 5), Ok(()));
        refused(settings_never_change_results(5, 6), Invariant::I15, "6");
    }
}
