//! `make simulate`: topologies under faults, on one seed after the other.

#[cfg(feature = "planted")]
mod planted;
mod report;
mod sometimes;
#[cfg(test)]
mod tests;
mod workload;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use tidegate::durability::Durability;
use tidegate::testkit::{Exploration, TestCluster};

#[cfg(feature = "planted")]
pub use planted::find_planted;
pub use report::{Failed, Report};

/// Seeds between two signs of life.
const PROGRESS: u64 = 1_000;
/// Chapters of a run; after each of them everything must have come right.
const CHAPTERS: u64 = 3;
/// Savepoints of a run from which an application is started.
const FORKS: usize = 3;

/// Runs the engine on the embedded log while everything goes wrong that may, and checks that every input counts exactly once.
#[derive(Clone, Debug, Parser)]
#[command(name = "simulate")]
pub struct Options {
    /// Number of seeds.
    #[arg(long, default_value_t = 1_000)]
    pub seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// Threads, each of which runs a seed at a time; 0 for one per processor.
    #[arg(long, default_value_t = 0)]
    pub jobs: usize,
    /// What makes state durable.
    #[arg(long, default_value = "changelog", value_parser = strategy)]
    pub strategy: Durability,
    /// Somebody takes savepoints all the while; in the end an application is started from each of the last ones and must come to the same.
    #[arg(long)]
    pub savepoints: bool,
    /// The strategy is changed now and then, to one that the seed decides on.
    #[arg(long)]
    pub change: bool,
    /// Prints what happened in each seed.
    #[arg(long)]
    pub story: bool,
    /// Ends with the first seed that fails.
    #[arg(long)]
    pub first: bool,
    /// Leaves the faults of failed runs as they were.
    #[arg(long)]
    pub keep: bool,
    /// Plants one bug after the other and looks how many seeds it takes to find it.
    #[cfg(feature = "planted")]
    #[arg(long)]
    pub planted: bool,
    /// Plants only the bug of this name.
    #[cfg(feature = "planted")]
    #[arg(long)]
    pub bug: Option<String>,
}

/// Reads the word for a strategy.
pub fn strategy(word: &str) -> Result<Durability, String> {
    Durability::of_word(word).ok_or_else(|| format!("{word:?} is not changelog, snapshot or changelog+snapshot"))
}

/// The run of one seed: the cluster that the seed decides on, and what is done with it.
pub struct Simulation {
    seed: u64,
    workload: &'static str,
    cluster: TestCluster,
    with_savepoints: bool,
}

impl Simulation {
    /// The run of a seed under a strategy.
    pub fn new(seed: u64, durability: Durability) -> Self {
        let (name, workload) = workload::of_seed(seed);
        let choice = seed / 4;
        let intervals_ms = [1, 10, 100, 1_000];
        // With the shortest of them a thread that stands still has its tasks taken while its transaction is open.
        let revocations = [
            Duration::from_millis(100),
            Duration::from_secs(1),
            Duration::from_secs(20),
        ];
        let cluster = TestCluster::new(workload.topology())
            .durability(durability)
            .instances(1 + (choice % 4) as usize)
            .partitions(1 + (choice / 4 % 4) as i32)
            .settings(|settings| {
                settings.workers = 1 + (choice / 16 % 3) as usize;
                settings.commit_interval = Duration::from_millis(intervals_ms[(choice / 48 % 4) as usize]);
                settings.revoke_timeout = revocations[(choice / 5 % 3) as usize];
                // Small enough that it happens in a run.
                settings.purge_interval = Duration::from_secs(1);
                settings.snapshots.spill = matches!(choice % 5, 1 | 2);
                workload.adapt(settings);
            });
        let cluster = match choice % 3 {
            0 => cluster.static_members(),
            _ => cluster,
        };
        Self {
            seed,
            workload: name,
            cluster,
            with_savepoints: false,
        }
    }

    /// The same while savepoints are taken.
    #[must_use]
    pub fn savepoints(mut self) -> Self {
        self.cluster = self.cluster.savepoints();
        self.with_savepoints = true;
        self
    }

    /// The same while the strategy changes now and then.
    #[must_use]
    pub fn changes(mut self) -> Self {
        self.cluster = self.cluster.durability_changes();
        self
    }

    fn tell(cluster: &mut TestCluster, seed: u64, with_savepoints: bool) {
        let (_, mut workload) = workload::of_seed(seed);
        for chapter in 0..CHAPTERS {
            workload.chapter(cluster, chapter);
        }
        if with_savepoints {
            check_savepoints(cluster, workload.speaks_in_order());
        }
    }

    /// Runs it once.
    pub fn run(&self) -> Exploration {
        self.cluster.explore(self.seed, |cluster| {
            Self::tell(cluster, self.seed, self.with_savepoints)
        })
    }

    /// Runs it with ever fewer faults, as long as it fails.
    pub fn shrink(&self, failed: Exploration) -> Exploration {
        self.cluster.shrink(self.seed, failed, |cluster| {
            Self::tell(cluster, self.seed, self.with_savepoints)
        })
    }
}

/// Starts an application from each of the last savepoints and compares it with the one that they were taken of.
fn check_savepoints(cluster: &mut TestCluster, in_order: bool) {
    let taken = cluster.savepoints_taken();
    for name in taken.iter().rev().take(FORKS) {
        let mut fork = cluster.fork(name, &format!("fork-{name}"));
        fork.settle();
        cluster.assert_same_as(&mut fork, in_order);
    }
}

/// Runs all seeds.
#[allow(clippy::disallowed_methods)] // The program tells its own speed.
pub fn run(options: &Options) -> Report {
    let started = Instant::now();
    let next = AtomicU64::new(options.from);
    let end = options.from.saturating_add(options.seeds);
    let report = Mutex::new(Report {
        strategy: options.strategy,
        savepoints: options.savepoints,
        change: options.change,
        ..Report::default()
    });
    let jobs = match options.jobs {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        jobs => jobs,
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= end {
                        return;
                    }
                    let failed = run_seed(seed, options, &report);
                    if failed && options.first {
                        next.store(end, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let mut report = report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    report.took = started.elapsed();
    report
}

/// Runs one seed; answers whether it failed.
fn run_seed(seed: u64, options: &Options, report: &Mutex<Report>) -> bool {
    let mut simulation = Simulation::new(seed, options.strategy);
    if options.savepoints {
        simulation = simulation.savepoints();
    }
    if options.change {
        simulation = simulation.changes();
    }
    let exploration = simulation.run();
    if options.story {
        println!("{}", exploration.story);
    }
    let failed = exploration.failure.is_some();
    if let (Some(failure), false) = (&exploration.failure, options.keep) {
        eprintln!("seed {seed} ({}) failed: {failure}", simulation.workload);
    }
    let happened = exploration.happened.clone();
    let failure = failed.then(|| Failed {
        seed,
        workload: simulation.workload,
        smallest: match options.keep {
            true => exploration,
            false => simulation.shrink(exploration),
        },
    });
    let mut report = report.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    report.add(&happened, failure);
    if report.seeds.is_multiple_of(PROGRESS) && !options.keep {
        eprintln!("{} seeds, {} failed", report.seeds, report.failed.len());
    }
    failed
}
