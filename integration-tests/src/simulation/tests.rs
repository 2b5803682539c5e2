//! The simulation itself.

use std::collections::BTreeMap;

use tidegate::durability::Durability;

use super::{Simulation, sometimes};

#[test]
fn the_same_seed_tells_the_same_story_byte_for_byte() {
    for strategy in Durability::ALL {
        for seed in 0..40 {
            let run = || Simulation::new(seed, strategy).run();
            let (first, second) = (run(), run());
            assert_eq!(first.story, second.story, "seed {seed}, {strategy:?}");
            assert_eq!(first.happened, second.happened, "seed {seed}, {strategy:?}");
        }
    }
}

/// Each of them fails where the bug of that name is planted, or found the one that is described.
#[test]
fn seeds_that_find_bugs_of_the_past_find_none() {
    use Durability::{Changelog, ChangelogAndSnapshot, Snapshot};
    let seeds = [
        (420, Changelog, "RestoreBeyondCut"),
        (1486, Changelog, "TakenOverIsLost"),
        (56, Changelog, "PurgedIsGone"),
        (2, Changelog, "HeldIsRefused"),
        (44, Changelog, "SleepIsStall"),
        (
            144_680,
            Changelog,
            "a worker that still waits for a task that it has lost",
        ),
        (32, Snapshot, "NothingIsNoRestorePoint"),
        (533, Snapshot, "CollectBeforeListing"),
        (662, Snapshot, "sleep counted as a store that does not answer"),
        (
            1896,
            Snapshot,
            "increments without a base that do not say how many there are before them",
        ),
        (218, ChangelogAndSnapshot, "TrimmedIsGone"),
        (
            372,
            ChangelogAndSnapshot,
            "a snapshot of the committed epoch itself is written to once more",
        ),
    ];
    for (seed, strategy, bug) in seeds {
        let run = Simulation::new(seed, strategy).run();
        assert_eq!(run.failure, None, "{bug} is back: {}", run.story);
    }
}

#[test]
fn a_long_run_in_which_something_never_happened_fails() {
    let nothing = BTreeMap::new();
    assert!(sometimes::missing(999, Durability::Snapshot, &nothing).is_empty());
    assert!(sometimes::missing(1_000, Durability::Changelog, &nothing).contains(&"a static member was fenced"));
    let of_store = "objects were collected";
    assert!(sometimes::missing(1_000, Durability::Snapshot, &nothing).contains(&of_store));
    assert!(!sometimes::missing(1_000, Durability::Changelog, &nothing).contains(&of_store));
}
