//! Snapshot files, their owners and their deletion: the protocol over all states, and what goes wrong without each rule.

use tidegate_models::checking::{check_everything, find_violation};
use tidegate_models::snapshots::properties::{I10, I11, I12, I13, I14, RESTORABLE};
use tidegate_models::snapshots::{Model, Rules};

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
fn whatever_is_referred_to_stays_and_there_is_always_a_restore_point() {
    let figures = check_everything(|| Model { rules: Rules::ALL }).unwrap_or_else(|found| panic!("{found}"));
    println!("{} states, {} steps deep", figures.states, figures.depth);
    assert!(figures.states > 50_000, "{figures:?}");
    let kinds = [
        "commit",
        "begin",
        "upload",
        "upload torn",
        "create",
        "give up",
        "verify",
        "retire",
        "save",
        "read",
        "end read",
        "age",
        "list",
        "delete",
        "trim",
        "damage",
        "open",
    ];
    for kind in kinds {
        assert!(figures.kinds.contains_key(kind), "{kind} never happens");
    }
    assert_eq!(figures.dead_end, None, "from every state the end can be reached");
}

#[test]
fn without_a_grace_a_file_goes_before_its_manifest_comes() {
    violates(|rules| &mut rules.waits_for_the_grace, &[I11]);
}

#[test]
fn files_named_by_number_alone_stand_for_two_contents() {
    violates(|rules| &mut rules.names_say_the_content, &[I10]);
}

#[test]
fn files_named_by_content_alone_are_collected_while_they_are_taken_for_uploaded() {
    violates(|rules| &mut rules.names_say_the_attempt, &[I11]);
}

#[test]
fn a_collector_that_looks_at_the_newest_manifest_only_deletes_what_others_refer_to() {
    violates(|rules| &mut rules.looks_at_all_manifests, &[I11]);
}

#[test]
fn a_collector_that_forgets_savepoints_deletes_what_they_own() {
    violates(|rules| &mut rules.keeps_savepoints, &[I11]);
}

#[test]
fn a_collector_that_forgets_readers_deletes_what_they_read() {
    violates(|rules| &mut rules.keeps_what_is_read, &[I11]);
}

#[test]
fn a_manifest_retired_behind_an_unverified_one_was_the_last_restore_point() {
    violates(|rules| &mut rules.retires_behind_verified, &[RESTORABLE]);
}

#[test]
fn a_changelog_trimmed_behind_an_unverified_snapshot_is_gone() {
    violates(|rules| &mut rules.trims_behind_verified, &[I12, RESTORABLE]);
}

#[test]
fn a_task_whose_last_restore_point_is_damaged_must_not_start_empty() {
    violates(|rules| &mut rules.refuses_to_start_empty, &[I14]);
}

#[test]
fn a_snapshot_verified_by_the_names_of_its_files_may_hold_anything() {
    violates(|rules| &mut rules.compares_checksums, &[I13, RESTORABLE]);
}
