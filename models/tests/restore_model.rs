//! Restoring from a changelog: the protocol over all states, and what goes wrong without each of its rules.

use tidegate_models::checking::{check_everything, find_violation};
use tidegate_models::restore::properties::{ENDS, I8, STATE};
use tidegate_models::restore::{Model, Rules};

/// With the one rule off that `switch` names, every property in `expected` is violated.
fn violates(switch: fn(&mut Rules) -> &mut bool, expected: &[&'static str]) {
    let mut rules = Rules::ALL;
    *switch(&mut rules) = false;
    for property in expected {
        let steps = find_violation(Model { rules }, property).unwrap_or_else(|holds| panic!("{holds}"));
        println!("{property}, {} steps:\n{}", steps.len(), steps.join("\n"));
    }
}

#[test]
fn a_restore_ends_and_has_exactly_the_committed_state() {
    let figures = check_everything(|| Model { rules: Rules::ALL }).unwrap_or_else(|found| panic!("{found}"));
    println!("{} states, {} steps deep", figures.states, figures.depth);
    assert!(figures.states > 50_000, "{figures:?}");
    let kinds = [
        "put",
        "delete",
        "abort",
        "orphan",
        "end orphan",
        "compact",
        "forget deletions",
        "trim",
        "leave disk",
        "begin",
        "fetch one",
        "fetch all",
        "finish",
        "crash",
    ];
    for kind in kinds {
        assert!(figures.kinds.contains_key(kind), "{kind} never happens");
    }
    assert_eq!(figures.dead_end, None, "from every state the end can be reached");
}

#[test]
fn the_last_stable_offset_is_too_low_an_end_beside_an_orphan() {
    violates(|rules| &mut rules.ends_at_high_watermark, &[I8, STATE]);
}

#[test]
fn the_record_before_the_end_may_not_exist() {
    violates(|rules| &mut rules.ends_by_position, &[ENDS]);
}

#[test]
fn partition_eof_comes_at_the_last_stable_offset() {
    violates(|rules| &mut rules.ignores_partition_eof, &[I8, STATE]);
}

#[test]
fn a_position_behind_the_end_is_never_equal_to_it() {
    violates(|rules| &mut rules.compares_at_least, &[ENDS]);
}

#[test]
fn reading_on_at_the_first_offset_that_is_left_loses_what_was_trimmed() {
    violates(|rules| &mut rules.out_of_range_is_an_error, &[STATE]);
}

#[test]
fn a_disk_marked_before_the_replay_is_complete_lies_after_a_crash() {
    violates(|rules| &mut rules.marks_the_disk_last, &[STATE]);
}

#[test]
fn a_disk_older_than_the_retention_of_deletions_keeps_rows_for_ever() {
    violates(|rules| &mut rules.rebuilds_old_disks, &[STATE]);
}
