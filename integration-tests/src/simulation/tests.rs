//! The simulation itself.

use std::collections::BTreeMap;

use super::{Simulation, sometimes};

#[test]
fn the_same_seed_tells_the_same_story_byte_for_byte() {
    for seed in 0..40 {
        let (first, second) = (Simulation::new(seed).run(), Simulation::new(seed).run());
        assert_eq!(first.story, second.story, "seed {seed}");
        assert_eq!(first.happened, second.happened, "seed {seed}");
    }
}

/// Each of them fails where the bug of that name is planted.
#[test]
fn seeds_that_find_bugs_of_the_past_find_none() {
    let seeds: [(u64, &str); 6] = [
        (420, "RestoreBeyondCut"),
        (1486, "TakenOverIsLost"),
        (56, "PurgedIsGone"),
        (2, "HeldIsRefused"),
        (44, "SleepIsStall"),
        (144_680, "a worker that still waits for a task that it has lost"),
    ];
    for (seed, bug) in seeds {
        let run = Simulation::new(seed).run();
        assert_eq!(run.failure, None, "{bug} is back: {}", run.story);
    }
}

#[test]
fn a_long_run_in_which_something_never_happened_fails() {
    let nothing = BTreeMap::new();
    assert!(sometimes::missing(999, &nothing).is_empty());
    assert!(sometimes::missing(1_000, &nothing).contains(&"a static member was fenced"));
}
