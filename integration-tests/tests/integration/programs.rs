//! The programs behind `make flights-check` and `make ledger`, in small: the same proofs at the size of a test.

use std::process::Command;

use tidegate_integration_tests::Broker;

/// Runs a program of this package with the service's binary beside it; it must find what it was made to find.
fn passes(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

fn ledger(arguments: &[&str]) -> String {
    passes(env!("CARGO_BIN_EXE_ledger"), &[&["--rate", "500"], arguments].concat())
}

fn ledger_on_the_shared_broker(arguments: &[&str]) -> String {
    let broker = Broker::shared();
    ledger(&[&["--bootstrap", broker.address()], arguments].concat())
}

#[test]
fn the_flights_of_a_month_come_out_as_a_plain_evaluation_has_them() {
    let broker = Broker::shared();
    for settings in [
        [
            "--partitions",
            "3",
            "--workers",
            "3",
            "--commit",
            "100ms",
            "--grace",
            "2h",
        ],
        [
            "--partitions",
            "1",
            "--workers",
            "1",
            "--commit",
            "10ms",
            "--grace",
            "24h",
        ],
    ] {
        let arguments = [&["--bootstrap", broker.address()], &settings[..]].concat();
        passes(env!("CARGO_BIN_EXE_flights-check"), &arguments);
    }
}

#[test]
fn killed_instances_count_every_input_once_on_the_same_disk() {
    ledger_on_the_shared_broker(&["--kills", "4", "--disk", "same"]);
}

#[test]
fn killed_instances_count_every_input_once_on_an_empty_disk() {
    ledger_on_the_shared_broker(&["--kills", "3", "--disk", "wiped"]);
}

#[test]
fn an_instance_that_is_asked_to_stop_leaves_nothing_to_repeat() {
    ledger_on_the_shared_broker(&["--kills", "3", "--signal", "term"]);
}

#[test]
fn two_instances_take_over_from_each_other() {
    ledger_on_the_shared_broker(&["--kills", "3", "--instances", "2"]);
}

#[test]
fn killed_instances_count_every_input_once_with_increments_in_an_object_store() {
    ledger_on_the_shared_broker(&["--kills", "3", "--strategy", "snapshot"]);
}

#[test]
fn empty_disks_are_filled_from_base_snapshots_and_increments() {
    ledger_on_the_shared_broker(&["--kills", "2", "--disk", "wiped", "--strategy", "snapshot"]);
}

#[test]
fn empty_disks_are_filled_from_base_snapshots_and_trimmed_changelogs() {
    ledger_on_the_shared_broker(&["--kills", "2", "--disk", "wiped", "--strategy", "changelog+snapshot"]);
}

/// An outage that is longer than a commit may take to be stored.
const STORE_OUTAGE: [&str; 6] = ["--fault", "store", "--seconds", "8", "--held-seconds", "0"];

#[test]
fn an_object_store_that_goes_away_aborts_epochs_that_need_it_and_loses_nothing() {
    ledger_on_the_shared_broker(&[&STORE_OUTAGE[..], &["--strategy", "snapshot"]].concat());
}

#[test]
fn an_object_store_that_goes_away_holds_nothing_up_where_increments_are_spilled() {
    ledger_on_the_shared_broker(&[&STORE_OUTAGE[..], &["--strategy", "snapshot", "--spill", "1"]].concat());
}

#[test]
fn an_object_store_that_goes_away_holds_nothing_up_where_there_are_changelogs() {
    ledger_on_the_shared_broker(&[&STORE_OUTAGE[..], &["--strategy", "changelog+snapshot"]].concat());
}

#[test]
fn a_broker_that_goes_away_and_comes_back_costs_nothing_but_time() {
    // Held for longer than a session, so that the group gives the member up meanwhile.
    ledger(&["--fault", "broker", "--stopped-seconds", "5", "--held-seconds", "15"]);
}

/// What `make savepoints` shows, in small.
fn savepoints(arguments: &[&str]) {
    let broker = Broker::shared();
    let common = [
        "--bootstrap",
        broker.address(),
        "--rate",
        "300",
        "--seconds",
        "6",
        "--one-fork",
    ];
    passes(env!("CARGO_BIN_EXE_savepoints"), &[&common, arguments].concat());
}

#[test]
fn a_savepoint_under_load_starts_a_second_application_that_counts_every_input_once() {
    savepoints(&["--strategy", "snapshot"]);
}

#[test]
fn a_savepoint_of_rows_starts_a_second_application_with_changelogs() {
    savepoints(&["--strategy", "changelog", "--format", "canonical"]);
}
