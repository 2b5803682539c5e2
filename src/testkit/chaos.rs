//! Runs of a scenario on a cluster in which things go wrong, and the way from a run that failed to one that a person can read.

use std::any::Any;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Once};

use super::cluster::TestCluster;
use super::world::World;

/// Runs that shrinking makes at most.
const SHRINKING_RUNS: u32 = 200;

/// What one run under faults came to.
#[derive(Debug)]
pub struct Exploration {
    /// What the scenario, or an instance, failed with.
    pub failure: Option<String>,
    /// What happened, a line each: time since the start in seconds, who, what. The same seed tells the same, byte for byte.
    pub story: String,
    /// How often events of each kind happened.
    pub happened: BTreeMap<&'static str, u64>,
    /// The faults that were allowed to happen, by their number in the story.
    pub faults: BTreeSet<u32>,
}

impl TestCluster {
    /// Runs `scenario` once for each seed, on a cluster in which things go wrong: instances crash in the midst of a step and come back
    /// later, with their disk, with a part of it or without; they stand still for longer than their session and their
    /// transaction, as a whole or one thread of them; they are stopped in order, cut off, or replaced while they stand still; answers are lost,
    /// disks run full, and time jumps. Every [`settle`](Self::settle) ends with all instances back, so what a scenario asserts after
    /// it must hold whatever happened.
    ///
    /// ```
    /// # use tidegate::codec::{I64Be, Utf8};
    /// # use tidegate::record::Record;
    /// # use tidegate::testkit::TestCluster;
    /// # use tidegate::topology::{Builder, Topic};
    /// # let words = Topic::new("words", Utf8, Utf8);
    /// # let counts = Topic::new("counts", Utf8, I64Be);
    /// # let builder = Builder::new();
    /// # builder.stream(&words).group_by_key().count("count").to_stream().to(&counts);
    /// # let topology = builder.build()?;
    /// TestCluster::new(topology).instances(3).partitions(2).chaos(0..3, |cluster| {
    ///     for time_ms in 0..20 {
    ///         cluster.pipe(&words, Record::new("hail".to_owned(), String::new(), time_ms));
    ///     }
    ///     cluster.settle();
    ///     let seen: Vec<i64> = cluster.read(&counts).into_iter().filter_map(|record| record.value).collect();
    ///     assert_eq!(seen, (1..=20).collect::<Vec<_>>());
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// As the scenario does, after the story of the failed run with as few faults as it still fails with. The same seed fails in
    /// the same way.
    pub fn chaos(self, seeds: impl IntoIterator<Item = u64>, scenario: impl Fn(&mut TestCluster)) {
        for seed in seeds {
            let run = self.run(seed, None, &scenario);
            let Some(panic) = run.panic else { continue };
            let shrunk = self.shrink(seed, run.exploration, &scenario);
            let faults = shrunk.faults.len();
            eprintln!(
                "chaos: seed {seed} failed, and still does so with {faults} faults; what happened:\n{}",
                shrunk.story
            );
            eprintln!("chaos: seed {seed}: {}", shrunk.failure.unwrap_or_default());
            resume_unwind(panic);
        }
    }

    /// Runs `scenario` once, as [`chaos`](Self::chaos) does, and answers what happened instead of panicking.
    pub fn explore(&self, seed: u64, scenario: impl Fn(&mut TestCluster)) -> Exploration {
        self.run(seed, None, &scenario).exploration
    }

    /// Looks for a run of a seed that fails with fewer faults than `failed` did, by leaving out ever fewer of them at a time
    /// (delta debugging: Zeller and Hildebrandt, 2002).
    pub fn shrink(&self, seed: u64, failed: Exploration, scenario: impl Fn(&mut TestCluster)) -> Exploration {
        let mut smallest = failed;
        let mut runs = 0;
        let mut size = smallest.faults.len().div_ceil(2);
        while size > 0 {
            let faults: Vec<u32> = smallest.faults.iter().copied().collect();
            let mut shrunk = false;
            for left_out in faults.chunks(size) {
                if runs == SHRINKING_RUNS {
                    return smallest;
                }
                runs += 1;
                let rest = faults.iter().filter(|fault| !left_out.contains(fault));
                let run = self.run(seed, Some(rest.copied().collect()), &scenario);
                if run.panic.is_some() {
                    smallest = run.exploration;
                    shrunk = true;
                    break;
                }
            }
            if !shrunk {
                size /= 2;
            }
        }
        smallest
    }

    fn run(&self, seed: u64, only: Option<BTreeSet<u32>>, scenario: &impl Fn(&mut TestCluster)) -> Run {
        let mut setup = self.setup.clone();
        setup.seed = seed;
        setup.faults = Some(only.clone().map(Arc::new));
        let mut cluster = TestCluster { setup, world: None };
        let outcome = quietly(|| {
            scenario(&mut cluster);
            cluster.world().end();
        });
        let world = cluster.world.as_ref();
        let story = world.map(World::story);
        let failure = outcome.as_ref().err().map(|panic| message(&**panic));
        Run {
            exploration: Exploration {
                failure,
                story: story.as_ref().map_or_else(String::new, |story| story.text()),
                happened: story.map_or_else(BTreeMap::new, |story| story.counts()),
                faults: only.unwrap_or_else(|| (1..=world.map_or(0, World::faults_drawn)).collect()),
            },
            panic: outcome.err(),
        }
    }
}

struct Run {
    exploration: Exploration,
    panic: Option<Box<dyn Any + Send>>,
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Catches a panic of `work` without the usual words on standard error: it is told once, with its story.
fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    QUIET.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(false);
    outcome
}
