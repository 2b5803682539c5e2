//! What a simulation came to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tidegate::durability::Durability;
use tidegate::testkit::Exploration;

use super::sometimes;

/// Failed runs whose story is kept.
const STORIES: usize = 3;

/// A seed that failed.
#[derive(Debug)]
pub struct Failed {
    /// The seed.
    pub seed: u64,
    /// What it ran.
    pub workload: &'static str,
    /// Its run with as few faults as it still fails with.
    pub smallest: Exploration,
}

/// What a simulation came to.
#[derive(Debug, Default)]
pub struct Report {
    /// What made state durable.
    pub strategy: Durability,
    /// Whether savepoints were taken.
    pub savepoints: bool,
    /// Whether the strategy changed now and then.
    pub change: bool,
    /// Number of seeds that ran.
    pub seeds: u64,
    /// Those that failed.
    pub failed: Vec<Failed>,
    /// How often events of each kind happened.
    pub happened: BTreeMap<&'static str, u64>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    pub(super) fn add(&mut self, happened: &BTreeMap<&'static str, u64>, failed: Option<Failed>) {
        self.seeds += 1;
        for (kind, times) in happened {
            *self.happened.entry(kind).or_default() += times;
        }
        if let Some(mut failed) = failed {
            if self.failed.len() >= STORIES {
                failed.smallest.story.clear();
            }
            self.failed.push(failed);
        }
    }

    /// What should have happened in a run of this size and did not.
    pub fn missing(&self) -> Vec<&'static str> {
        let mut missing = sometimes::missing(self.seeds, self.strategy, &self.happened);
        if self.savepoints {
            missing.extend(sometimes::missing_of_savepoints(self.seeds, &self.happened));
        }
        if self.change {
            missing.extend(sometimes::missing_of_changes(self.seeds, &self.happened));
        }
        missing
    }

    /// Whether nothing failed and nothing is missing.
    pub fn is_well(&self) -> bool {
        self.failed.is_empty() && self.missing().is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failed in &self.failed {
            write!(f, "{}", failed.smallest.story)?;
            let failure = failed.smallest.failure.as_deref().unwrap_or_default();
            writeln!(
                f,
                "FAILED               seed {} ({}): {failure}",
                failed.seed, failed.workload
            )?;
            writeln!(
                f,
                "                     again by: make simulate SEEDS=1 FROM={} STRATEGY={}{}{}",
                failed.seed,
                self.strategy.word(),
                if self.savepoints { " SAVEPOINTS=1" } else { "" },
                if self.change { " CHANGE=1" } else { "" },
            )?;
        }
        for (kind, times) in &self.happened {
            writeln!(f, "{times:>12}  {kind}")?;
        }
        for kind in self.missing() {
            writeln!(f, "NEVER                {kind}")?;
        }
        let rate = self.seeds as f64 / self.took.as_secs_f64().max(f64::EPSILON);
        writeln!(f, "seeds                {}", self.seeds)?;
        writeln!(f, "seeds/s              {rate:.1}")?;
        write!(f, "failed               {}", self.failed.len())
    }
}
