//! `make simulate`: one scenario under faults, on one seed after the other.

mod scenario;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use clap::Parser;

pub use scenario::Scenario;

/// Runs the engine on the embedded log, with instances that crash, stand still and stop, and checks that every input counts exactly once.
#[derive(Clone, Debug, Parser)]
#[command(name = "simulate")]
pub struct Options {
    /// Number of seeds.
    #[arg(long, default_value_t = 1_000)]
    pub seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    pub from: u64,
}

/// What a simulation came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Number of seeds that ran.
    pub seeds: u64,
    /// Those that failed.
    pub failed: Vec<u64>,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for seed in &self.failed {
            writeln!(f, "FAILED               again by: make simulate SEEDS=1 FROM={seed}")?;
        }
        let rate = self.seeds as f64 / self.took.as_secs_f64().max(f64::EPSILON);
        writeln!(f, "seeds                {}", self.seeds)?;
        writeln!(f, "seeds/s              {rate:.1}")?;
        write!(f, "failed               {}", self.failed.len())
    }
}

/// Runs all seeds; those that fail say on standard error what happened in them.
#[allow(clippy::disallowed_methods)] // The program tells its own speed.
pub fn run(options: &Options) -> Report {
    let started = Instant::now();
    let mut report = Report::default();
    for seed in options.from..options.from.saturating_add(options.seeds) {
        let scenario = Scenario::new(seed);
        if catch_unwind(AssertUnwindSafe(|| scenario.run())).is_err() {
            report.failed.push(seed);
        }
        report.seeds += 1;
    }
    report.took = started.elapsed();
    report
}
