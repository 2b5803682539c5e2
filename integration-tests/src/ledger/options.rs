//! The command line of the ledger.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tidegate::durability::Durability;

use super::LedgerError;
use crate::simulation::strategy;

/// What is left on the disk when an instance is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Disk {
    /// Everything that the killed process had written.
    Same,
    /// Nothing: the state directory is removed each time.
    Wiped,
}

/// How an instance is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Signal {
    /// SIGKILL: nothing can be finished.
    Kill,
    /// SIGTERM: the instance commits and closes.
    Term,
}

/// What happens to the servers that the service depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// Nothing.
    None,
    /// The broker is stopped and started again under load; then the connection to it is held up.
    Broker,
    /// The object store is stopped and started again under load; then it is frozen for a while.
    Store,
}

/// How long the object store is stopped unless `--seconds` says so.
const STORE_STOPPED_SECONDS: u64 = 600;

/// What the service promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Guarantee {
    /// Every input counts once.
    ExactlyOnce,
    /// A crash may repeat output: the ledger must find that.
    AtLeastOnce,
}

/// Kills, stops and disturbs the service under load and proves that every input counts exactly once.
#[derive(Clone, Debug, Parser)]
#[command(name = "ledger")]
pub struct Options {
    /// How often an instance is stopped and started again.
    #[arg(long, default_value_t = 100)]
    pub kills: u32,
    /// What is left on the disk after a kill.
    #[arg(long, value_enum, ignore_case = true, default_value = "same")]
    pub disk: Disk,
    /// How an instance is stopped.
    #[arg(long, value_enum, ignore_case = true, default_value = "kill")]
    pub signal: Signal,
    /// Number of instances that share the work; one of them is stopped at a time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub instances: u8,
    /// What makes state durable: changelog, snapshot or changelog+snapshot. The last two have an object store in a container.
    #[arg(long, default_value = "changelog", value_parser = strategy)]
    pub strategy: Durability,
    /// With 1 an instance has another strategy each time it is started again, in turn; the object store is there all the time.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub change: u8,
    /// With 1 increments go to a spill topic while the object store is away; with strategy snapshot.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub spill: u8,
    /// What happens to the broker or to the object store; no instance is killed then.
    #[arg(long, value_enum, ignore_case = true, default_value = "none")]
    pub fault: Fault,
    /// How long the broker is stopped, in seconds.
    #[arg(long, default_value_t = 30)]
    pub stopped_seconds: u64,
    /// How long the connection is held up, or the object store is frozen, in seconds; with 0 the store is not frozen at all.
    #[arg(long, default_value_t = 60)]
    pub held_seconds: u64,
    /// Address of a broker that runs already; without it one is started in a container.
    #[arg(long)]
    pub bootstrap: Option<String>,
    /// Records per second that the generator writes.
    #[arg(long, default_value_t = 2_000)]
    pub rate: u32,
    /// Least duration of the load, in seconds; with `--fault store` how long the store is stopped, 600 unless given.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Seed of all random choices; without it one is taken from the clock and printed.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Commit interval of the service, in milliseconds.
    #[arg(long, default_value_t = 100)]
    pub commit_ms: u64,
    /// Guarantee of the service; `at_least_once` shows that the ledger finds what is not exact.
    #[arg(long, value_enum, default_value = "exactly_once")]
    pub guarantee: Guarantee,
    /// Worker threads of each instance.
    #[arg(long, default_value_t = 1)]
    pub workers: u16,
    /// Partitions of the input topic.
    #[arg(long, default_value_t = 4)]
    pub partitions: i32,
    /// The service's binary; without it the one beside this program.
    #[arg(long)]
    pub tidegate: Option<PathBuf>,
    /// Directory for configuration, state and logs, kept afterwards; without it a temporary one, kept where the run fails.
    #[arg(long)]
    pub work: Option<PathBuf>,
    /// How long an instance may take until its output is seen after a start, and the service until it has caught up, in seconds.
    #[arg(long, default_value_t = 120)]
    pub patience_seconds: u64,
}

impl Options {
    /// How long anything that has to happen may take.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.patience_seconds)
    }

    /// How long the load goes on at least.
    pub fn least_load(&self) -> Duration {
        match self.fault {
            Fault::Store => Duration::ZERO,
            Fault::None | Fault::Broker => Duration::from_secs(self.seconds.unwrap_or_default()),
        }
    }

    /// How long the object store is stopped.
    pub fn store_stopped(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(STORE_STOPPED_SECONDS))
    }

    /// Whether increments go to a spill topic while the object store is away.
    pub fn spills(&self) -> bool {
        self.spill > 0
    }

    /// Whether instances start again with another strategy.
    pub fn changes(&self) -> bool {
        self.change > 0
    }

    /// The strategy of an instance's start with this number, from 1: in six of them each follows each other one.
    pub fn strategy_of_start(&self, start: u32) -> Durability {
        const ROUND: [Durability; 6] = [
            Durability::Changelog,
            Durability::Snapshot,
            Durability::ChangelogAndSnapshot,
            Durability::Changelog,
            Durability::ChangelogAndSnapshot,
            Durability::Snapshot,
        ];
        match self.changes() {
            true => ROUND[(start.saturating_sub(1) % 6) as usize],
            false => self.strategy,
        }
    }

    /// What cannot be done together.
    ///
    /// # Errors
    /// Says what.
    pub fn check(&self) -> Result<(), LedgerError> {
        let reason = match self.fault {
            Fault::Broker if self.bootstrap.is_some() => {
                "--fault broker stops the broker, so it needs one of its own: leave --bootstrap out"
            }
            Fault::Store if !self.strategy.has_snapshots() => {
                "--fault store needs a strategy with an object store: --strategy snapshot or changelog+snapshot"
            }
            Fault::Store | Fault::Broker if self.changes() => {
                "--change 1 needs starts, and with --fault there are none"
            }
            _ if self.spills() && !self.strategy.has_packs() => "--spill 1 needs --strategy snapshot",
            _ => return Ok(()),
        };
        Err(LedgerError::Broken(reason.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_in_upper_and_lower_case() {
        let options = Options::parse_from(["ledger", "--signal", "TERM", "--disk", "wiped", "--kills", "3"]);
        assert_eq!(
            (options.signal, options.disk, options.kills),
            (Signal::Term, Disk::Wiped, 3)
        );
        assert!(Options::try_parse_from(["ledger", "--instances", "0"]).is_err());
        assert!(Options::try_parse_from(["ledger", "--strategy", "hope"]).is_err());
    }

    #[test]
    fn faults_of_what_is_not_there_are_refused() {
        let check = |arguments: &[&str]| Options::parse_from([&["ledger"], arguments].concat()).check();
        assert!(check(&["--fault", "store"]).is_err());
        assert!(check(&["--fault", "store", "--strategy", "snapshot"]).is_ok());
        assert!(check(&["--spill", "1", "--strategy", "snapshot"]).is_ok());
        assert!(check(&["--spill", "1", "--strategy", "changelog+snapshot"]).is_err());
        assert!(check(&["--fault", "broker", "--bootstrap", "localhost:9092"]).is_err());
    }
}
