//! Commit × rebalance × zombie: the protocol over all states, and what goes wrong without each of its rules.

use tidegate_models::checking::{Figures, check_everything, find_violation};
use tidegate_models::commit::properties::{EXACTLY_ONCE, I1, I3, I6, I7, I9};
use tidegate_models::commit::{Kind, Membership, Model, Rules};

fn model(membership: Membership, rules: Rules) -> Model {
    Model {
        rules,
        membership,
        inputs: 2,
        faults: 1,
    }
}

fn everything(model: Model) -> Figures {
    let figures = check_everything(|| model).unwrap_or_else(|found| panic!("{found}"));
    let membership = model.membership;
    println!(
        "{membership:?}: {} states, {} steps deep",
        figures.states, figures.depth
    );
    figures
}

/// With the one rule off that `switch` names, every property in `expected` is violated.
fn violates(mut model: Model, switch: fn(&mut Rules) -> &mut bool, expected: &[&'static str]) {
    *switch(&mut model.rules) = false;
    for property in expected {
        let steps = find_violation(model, property).unwrap_or_else(|holds| panic!("{holds}"));
        println!("{property}, {} steps:\n{}", steps.len(), steps.join("\n"));
    }
}

#[test]
fn every_input_counts_once_whatever_members_and_faults_do() {
    let figures = everything(model(Membership::Dynamic, Rules::ALL));
    assert!(figures.states > 500_000, "{figures:?}");
    for kind in Kind::ALL {
        assert!(figures.kinds.contains_key(kind.name()), "{kind:?} never happens");
    }
    assert_eq!(figures.dead_end, None, "from every state the end can be reached");
}

#[test]
fn two_processes_with_one_static_identity_count_every_input_once() {
    let figures = everything(model(Membership::Static, Rules::ALL));
    assert!(figures.states > 200_000, "{figures:?}");
    assert_eq!(figures.dead_end, None, "from every state the end can be reached");
}

#[test]
fn the_metadata_that_was_served_is_safe_to_send_without_comparing_it() {
    let rules = Rules {
        compares_before_sealing: false,
        ..Rules::ALL
    };
    let figures = everything(model(Membership::Static, rules));
    assert_eq!(figures.dead_end, None, "from every state the end can be reached");
}

#[test]
fn metadata_fresher_than_the_served_events_commits_for_tasks_of_others() {
    violates(
        model(Membership::Dynamic, Rules::ALL),
        |rules| &mut rules.sends_what_was_served,
        &[I6, EXACTLY_ONCE],
    );
}

#[test]
fn metadata_in_the_name_of_nobody_is_not_fenced() {
    violates(
        model(Membership::Dynamic, Rules::ALL),
        |rules| &mut rules.sends_only_fencing_metadata,
        &[I6, EXACTLY_ONCE],
    );
}

#[test]
fn an_equal_generation_says_nothing_after_a_static_restart() {
    // One process takes the identity, the other takes it back.
    let model = Model {
        inputs: 1,
        faults: 2,
        ..model(Membership::Static, Rules::ALL)
    };
    violates(model, |rules| &mut rules.compares_member_ids, &[I6, EXACTLY_ONCE]);
}

#[test]
fn a_cut_read_before_the_producer_is_initialised_is_overtaken() {
    violates(
        model(Membership::Dynamic, Rules::ALL),
        |rules| &mut rules.initialises_before_reading,
        &[I7, EXACTLY_ONCE],
    );
}

#[test]
fn a_cut_read_beside_pending_transactions_is_overtaken() {
    violates(
        model(Membership::Dynamic, Rules::ALL),
        |rules| &mut rules.reads_stable_offsets,
        &[I7, EXACTLY_ONCE],
    );
}

#[test]
fn offsets_sent_before_the_end_of_the_epoch_before_lose_its_successor() {
    violates(
        model(Membership::Dynamic, Rules::ALL),
        |rules| &mut rules.confirms_before_next_offsets,
        &[I3, I1, EXACTLY_ONCE],
    );
}

#[test]
fn a_disk_that_leads_the_commit_holds_what_was_never_committed() {
    violates(
        model(Membership::Dynamic, Rules::ALL),
        |rules| &mut rules.applies_after_commit,
        &[I9],
    );
}

#[test]
fn a_commit_that_timed_out_is_not_a_failure() {
    violates(
        model(Membership::Dynamic, Rules::ALL),
        |rules| &mut rules.timed_out_is_no_failure,
        &[EXACTLY_ONCE],
    );
}

#[test]
fn a_commit_that_timed_out_is_not_a_success() {
    violates(
        model(Membership::Dynamic, Rules::ALL),
        |rules| &mut rules.timed_out_is_no_success,
        &[EXACTLY_ONCE, I9],
    );
}

#[test]
fn parked_outputs_are_worth_nothing_after_an_abort() {
    violates(
        model(Membership::Dynamic, Rules::ALL),
        |rules| &mut rules.drops_parked_outputs,
        &[I1, EXACTLY_ONCE],
    );
}

#[test]
fn a_client_that_joins_again_before_its_loss_is_completed_passes_for_the_owner() {
    violates(
        model(Membership::Dynamic, Rules::ALL),
        |rules| &mut rules.client_waits_for_loss,
        &[EXACTLY_ONCE],
    );
}
