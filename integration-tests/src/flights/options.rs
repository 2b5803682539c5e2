//! The command line of the flights check.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tidegate::durability::Durability;
use tidegate::time::HumanDuration;

use crate::simulation::strategy;

/// Runs the flights topology on Kafka and compares all it commits with an independent evaluation of the CSV.
///
/// Without any of --commit, --workers, --partitions and --grace every combination of 10ms, 100ms and 2s, 1 and 3
/// workers, 1 and 3 partitions, 2h and 24h is run. With one of them there is a single run, and the others are 100ms, 1, 1 and 24h.
#[derive(Clone, Debug, Parser)]
#[command(name = "flights-check")]
pub struct Options {
    /// What makes state durable: changelog, snapshot or changelog+snapshot. The last two have an object store in a container.
    #[arg(long, default_value = "changelog", value_parser = strategy)]
    pub strategy: Durability,
    /// Directory with flights.csv(.gz) and planes.csv(.gz); without it the sample of the source tree.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Commit interval, for example 100ms.
    #[arg(long)]
    commit: Option<HumanDuration>,
    /// Number of worker threads.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: Option<u16>,
    /// Number of partitions of every topic.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    partitions: Option<u16>,
    /// Grace of the departures' windows, for example 24h.
    #[arg(long)]
    grace: Option<HumanDuration>,
    /// Directory that gets the three outputs as CSV; of all combinations, in a directory each, where several are run.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Address of a broker that runs already; its topics of this topology are DELETED. Without it one is started in a container.
    #[arg(long)]
    pub bootstrap: Option<String>,
    /// The service's binary; without it the one beside this program.
    #[arg(long)]
    pub tidegate: Option<PathBuf>,
    /// How long the service may take for one combination, in seconds.
    #[arg(long, default_value_t = 600)]
    patience_seconds: u64,
}

/// One run of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Combination {
    /// Partitions of every topic.
    pub partitions: u16,
    /// Grace of the windows.
    pub grace: HumanDuration,
    /// Commit interval.
    pub commit: HumanDuration,
    /// Worker threads.
    pub workers: u16,
}

impl Combination {
    /// The grace in hours where it is whole hours, as people speak of it.
    pub fn grace_text(&self) -> String {
        const HOUR_MS: i64 = 3_600_000;
        match self.grace.as_millis() {
            grace_ms if grace_ms % HOUR_MS == 0 => format!("{}h", grace_ms / HOUR_MS),
            _ => self.grace.to_string(),
        }
    }

    /// A name fit for a directory, a group and a topic.
    pub fn name(&self) -> String {
        let Combination {
            partitions,
            commit,
            workers,
            ..
        } = self;
        let grace = self.grace_text();
        format!("partitions-{partitions}-grace-{grace}-commit-{commit}-workers-{workers}")
    }

    /// The settings as shipped: 100 ms, one worker, one partition, 24 hours of grace.
    pub fn as_shipped() -> Self {
        Self {
            partitions: 1,
            grace: HumanDuration(Duration::from_secs(24 * 3_600)),
            commit: HumanDuration(Duration::from_millis(100)),
            workers: 1,
        }
    }
}

impl Options {
    /// The combinations to run, those with equal partitions in a row.
    pub fn combinations(&self) -> Vec<Combination> {
        let shipped = Combination::as_shipped();
        let is_single =
            self.commit.is_some() || self.workers.is_some() || self.partitions.is_some() || self.grace.is_some();
        if is_single {
            return vec![Combination {
                partitions: self.partitions.unwrap_or(shipped.partitions),
                grace: self.grace.unwrap_or(shipped.grace),
                commit: self.commit.unwrap_or(shipped.commit),
                workers: self.workers.unwrap_or(shipped.workers),
            }];
        }
        let mut all = Vec::new();
        for partitions in [1, 3] {
            for hours in [24, 2] {
                for commit_ms in [10, 100, 2_000] {
                    for workers in [1, 3] {
                        all.push(Combination {
                            partitions,
                            grace: HumanDuration(Duration::from_secs(hours * 3_600)),
                            commit: HumanDuration(Duration::from_millis(commit_ms)),
                            workers,
                        });
                    }
                }
            }
        }
        all
    }

    /// The directory with the data set.
    pub fn data(&self) -> PathBuf {
        let sample = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../topologies/data"));
        self.data.clone().unwrap_or_else(sample)
    }

    /// How long one combination may take.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.patience_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_settings_the_whole_matrix_is_run() {
        let combinations = Options::parse_from(["flights-check"]).combinations();
        assert_eq!(combinations.len(), 24);
        assert!(combinations.contains(&Combination::as_shipped()));
        assert!(combinations.is_sorted_by_key(|combination| combination.partitions));
    }

    #[test]
    fn with_a_setting_the_others_are_as_shipped() {
        let options = Options::parse_from(["flights-check", "--grace", "2h", "--workers", "3"]);
        let combination = Combination {
            grace: HumanDuration(Duration::from_secs(7_200)),
            workers: 3,
            ..Combination::as_shipped()
        };
        assert_eq!(options.combinations(), [combination]);
        assert_eq!(combination.name(), "partitions-1-grace-2h-commit-100ms-workers-3");
        assert!(Combination::as_shipped().name().contains("grace-24h"));
    }
}
