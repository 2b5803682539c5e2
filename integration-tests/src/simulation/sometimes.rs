//! What must have happened in a run of enough seeds: a simulation that never comes to where it is difficult proves nothing.

use std::collections::BTreeMap;

use tidegate::durability::Durability;

/// Seeds from which on everything must have happened.
const ENOUGH: u64 = 1_000;

/// The kinds of events.
const SOMETIMES: &[&str] = &[
    "a call timed out",
    "a commit timed out",
    "a late end of a transaction was carried out",
    "a late request was refused",
    "a power failure took applied epochs",
    "a process ended in the midst of a turn",
    "a producer was fenced",
    "a producer's queue was full",
    "a rebalance was forced for orphaned partitions",
    "a record was restored",
    "a static member was fenced",
    "a task started fresh",
    "a task was opened with a current disk",
    "a task's disk was brought up to date",
    "a task's disk was rebuilt",
    "a transaction was aborted",
    "a wall clock jumped",
    "an epoch was aborted",
    "committed offsets were asked for while pending",
    "outputs parked behind a failed commit were dropped",
    "partitions were assigned",
    "partitions were lost",
    "partitions were revoked",
    "the answer to a commit was lost, which was carried out",
    "the answer to a commit was lost, which was refused",
    "the group moved while a task was restored",
    "the outcome of a commit was unknown",
];

/// The kinds that only a cluster with an object store has.
const SOMETIMES_WITH_STORE: &[&str] = &[
    "a base snapshot came to nothing",
    "a base snapshot was made",
    "a listing of the object store was behind",
    "a write to the object store arrived late",
    "a write to the object store was carried out without an answer",
    "an upload ended in the midst",
    "objects were collected",
    "state was fetched from the repository",
    "the object store did not answer",
];

/// The kinds that only a run with savepoints has.
const SOMETIMES_WITH_SAVEPOINTS: &[&str] = &["a savepoint was given up", "a savepoint was taken"];

/// Seeds with savepoints from which on both must have happened.
const ENOUGH_WITH_SAVEPOINTS: u64 = 100;

/// What of savepoints never happened in a run of `seeds` seeds and should have.
pub fn missing_of_savepoints(seeds: u64, happened: &BTreeMap<&'static str, u64>) -> Vec<&'static str> {
    let kinds = SOMETIMES_WITH_SAVEPOINTS.iter().copied();
    kinds
        .filter(|kind| seeds >= ENOUGH_WITH_SAVEPOINTS && !happened.contains_key(kind))
        .collect()
}

/// The kinds that only a run has in which the strategy changes.
const SOMETIMES_WITH_CHANGES: &[&str] = &["a task changed its strategy", "a change of strategy began anew"];

/// Seeds with changes from which on all of these must have happened.
const ENOUGH_WITH_CHANGES: u64 = 100;

/// What of changes never happened in a run of `seeds` seeds and should have.
pub fn missing_of_changes(seeds: u64, happened: &BTreeMap<&'static str, u64>) -> Vec<&'static str> {
    let kinds = SOMETIMES_WITH_CHANGES.iter().copied();
    kinds
        .filter(|kind| seeds >= ENOUGH_WITH_CHANGES && !happened.contains_key(kind))
        .collect()
}

/// The kinds that only increments in the object store have.
const SOMETIMES_WITH_PACKS: &[&str] = &[
    "a spilled increment was restored",
    "increments were spilled",
    "increments were stored",
];

/// What never happened in a run of `seeds` seeds and should have.
pub fn missing(seeds: u64, durability: Durability, happened: &BTreeMap<&'static str, u64>) -> Vec<&'static str> {
    if seeds < ENOUGH {
        return Vec::new();
    }
    let of_store = if durability.has_snapshots() {
        SOMETIMES_WITH_STORE
    } else {
        &[]
    };
    let of_packs = if durability.has_packs() {
        SOMETIMES_WITH_PACKS
    } else {
        &[]
    };
    let kinds = SOMETIMES.iter().chain(of_store).chain(of_packs).copied();
    kinds.filter(|kind| !happened.contains_key(kind)).collect()
}
