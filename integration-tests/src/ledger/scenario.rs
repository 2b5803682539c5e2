//! What is done to the processes while the load goes on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::time::{Clock, SystemClock};

use super::changelogs::ChangelogReader;
use super::faults::Outages;
use super::generator::{self, Generator};
use super::inputs::Inputs;
use super::instance::{Instance, Metrics, Surroundings};
use super::kafka::Cluster;
use super::latency::Phase;
use super::observer::{Observer, Seen, Topics};
use super::openings::Opening;
use super::options::{Disk, Options, Signal};
use super::random::Random;
use super::{LedgerError, lock, wait};

/// One in so many stops comes while the instance is still starting.
const EARLY_STOPS_PER_CENT: u64 = 20;
/// How long after a start an early stop comes at most.
const EARLY: Duration = Duration::from_millis(1_500);
/// How long after the first output any other stop comes at most.
const LATER: Duration = Duration::from_millis(2_000);
/// How long an instance stays away at most where another can take over: longer than the session time-out.
const AWAY: Duration = Duration::from_secs(12);
/// Metrics that are summed up over all processes, as far as they could be asked before their end.
const SUMMED: [&str; 8] = [
    "tidegate_aborts_total",
    "tidegate_producers_fenced_total",
    "tidegate_commits_unknown_total",
    "tidegate_packs_stored_total",
    "tidegate_snapshots_total",
    "tidegate_snapshots_failed_total",
    "tidegate_objects_collected_total",
    INVARIANT_VIOLATIONS,
];
/// The metric that must stay 0.
pub const INVARIANT_VIOLATIONS: &str = "tidegate_invariant_violations_total";

/// One start of an instance, and what it read back from Kafka.
#[derive(Clone, Debug)]
pub struct Start {
    /// Which instance.
    pub instance: usize,
    /// When it had been stopped before, in milliseconds since the Unix epoch; `None` for the first start.
    pub stopped_ms: Option<i64>,
    /// Time from the start to the first new output of both stages; `None` where it was stopped before.
    pub first_output: Option<Duration>,
    /// The tasks that it opened before it was stopped.
    pub openings: BTreeMap<String, Opening>,
}

/// The processes of a run with everything around them.
pub struct Run<'a> {
    /// The command line.
    pub options: &'a Options,
    /// This machine's clock.
    pub clock: Arc<SystemClock>,
    /// The broker as clients see it.
    pub cluster: &'a Cluster,
    /// Name of the application.
    pub application: &'a str,
    /// The topics of the run.
    pub topics: &'a Topics,
    /// The books.
    pub inputs: Arc<Mutex<Inputs>>,
    /// The reader of the output.
    pub observer: Observer,
    /// The processes.
    pub instances: Vec<Instance>,
    /// All starts so far, in order.
    pub starts: Vec<Start>,
    /// Sums of some metrics of all processes.
    pub metrics: Metrics,
    /// The reader of the changelogs, once there are some.
    pub changelogs: Option<ChangelogReader>,
    /// What was going on when, where latencies are of interest.
    pub phases: Vec<Phase>,
    /// What the service did while the object store was away.
    pub outages: Vec<(&'static str, Outages)>,
    /// The choices.
    pub random: Random,
}

impl Run<'_> {
    /// Starts every instance and waits for the first output.
    ///
    /// # Errors
    /// Where no output comes.
    pub fn start_all(&mut self) -> Result<(), LedgerError> {
        for index in 0..self.instances.len() {
            self.start(index, None)?;
        }
        self.wait_for_output()?;
        if self.options.strategy.has_changelogs() && !self.options.changes() {
            self.changelogs = Some(ChangelogReader::start(self.cluster, self.application)?);
        }
        Ok(())
    }

    /// Stops and starts instances at random moments.
    ///
    /// # Errors
    /// Where an instance fails, the output stops coming or turns out wrong.
    pub fn stop_again_and_again(&mut self) -> Result<(), LedgerError> {
        for stop in 1..=self.options.kills {
            let early = self.random.chance(EARLY_STOPS_PER_CENT);
            let moment = if early {
                self.random.between(Duration::ZERO, EARLY)
            } else {
                self.wait_for_output()?;
                self.random.between(Duration::ZERO, LATER)
            };
            self.go_on_for(moment)?;
            let index = self.random.below(self.instances.len() as u64) as usize;
            let stopped_ms = self.stop(index)?;
            if self.instances.len() > 1 && self.random.chance(50) {
                let away = self.random.between(Duration::ZERO, AWAY);
                self.go_on_for(away)?;
            }
            self.start(index, Some(stopped_ms))?;
            if stop % 10 == 0 {
                let seen = self.observer.seen()?;
                println!(
                    "{stop} of {} stops; {} inputs, {} + {} outputs seen",
                    self.options.kills,
                    lock(&self.inputs).len(),
                    seen.accounts,
                    seen.buckets
                );
            }
        }
        self.wait_for_output()
    }

    /// Lets the load run for some time.
    ///
    /// # Errors
    /// Where an instance ends by itself or the output turns out wrong.
    pub fn go_on_for(&mut self, time: Duration) -> Result<(), LedgerError> {
        let clock = Arc::clone(&self.clock);
        wait::for_time(&clock, time, || self.check().map(drop))
    }

    /// Ends the load, waits for all of its output, then probes the state of every account: all instances are
    /// stopped and started once more, and one more record for each account must continue its total.
    ///
    /// # Errors
    /// Where output is missing at the end of the patience.
    pub fn finish(&mut self, generator: Generator) -> Result<(), LedgerError> {
        if self.options.strategy.has_snapshots() && !self.options.changes() {
            self.wait_for_bases()?;
        }
        generator.stop()?;
        self.wait_for_all_output()?;
        for index in 0..self.instances.len() {
            let stopped_ms = self.terminate(index)?;
            self.wipe_if_asked(index)?;
            self.start(index, Some(stopped_ms))?;
        }
        generator::write_one_for_each(self.cluster, &self.topics.input, &self.inputs, &self.clock)?;
        self.wait_for_all_output()?;
        for index in 0..self.instances.len() {
            self.terminate(index)?;
        }
        Ok(())
    }

    /// Witness files of all instances.
    pub fn witnesses(&self) -> Vec<std::path::PathBuf> {
        self.instances.iter().map(Instance::witness).collect()
    }

    pub(super) fn check(&mut self) -> Result<Seen, LedgerError> {
        for instance in &mut self.instances {
            instance.check()?;
        }
        self.observer.seen()
    }

    fn start(&mut self, index: usize, stopped_ms: Option<i64>) -> Result<(), LedgerError> {
        self.instances[index].start()?;
        self.starts.push(Start {
            instance: index,
            stopped_ms,
            first_output: None,
            openings: BTreeMap::new(),
        });
        Ok(())
    }

    fn stop(&mut self, index: usize) -> Result<i64, LedgerError> {
        let stopped_ms = match self.options.signal {
            Signal::Term => self.terminate(index)?,
            Signal::Kill => {
                self.add_metrics(index);
                self.instances[index].kill()?;
                self.clock.wall_ms()
            }
        };
        self.note_openings(index)?;
        self.wipe_if_asked(index)?;
        Ok(stopped_ms)
    }

    fn terminate(&mut self, index: usize) -> Result<i64, LedgerError> {
        self.add_metrics(index);
        self.instances[index].terminate(&self.clock, self.options.patience())?;
        self.note_openings(index)?;
        Ok(self.clock.wall_ms())
    }

    fn wipe_if_asked(&self, index: usize) -> Result<(), LedgerError> {
        match self.options.disk {
            Disk::Same => Ok(()),
            Disk::Wiped => self.instances[index].wipe(),
        }
    }

    fn note_openings(&mut self, index: usize) -> Result<(), LedgerError> {
        let openings = self.instances[index].openings()?;
        if let Some(start) = self.starts.iter_mut().rev().find(|start| start.instance == index) {
            start.openings = openings;
        }
        Ok(())
    }

    fn add_metrics(&mut self, index: usize) {
        let metrics = self.instances[index].metrics().unwrap_or_default();
        for name in SUMMED {
            if let Some(value) = metrics.get(name) {
                *self.metrics.entry(name.to_owned()).or_default() += value;
            }
        }
    }

    /// Waits until both stages put out something new.
    fn wait_for_output(&mut self) -> Result<(), LedgerError> {
        let before = self.check()?;
        let (clock, patience) = (Arc::clone(&self.clock), self.options.patience());
        let waited = wait::until(&clock, patience, "new output of both stages", || {
            let seen = self.check()?;
            Ok(seen.accounts > before.accounts && seen.buckets > before.buckets)
        })?;
        if let Some(start) = self.starts.last_mut() {
            start.first_output.get_or_insert(waited);
        }
        Ok(())
    }

    /// Waits until all that was written before now has come out of both stages.
    pub(super) fn catch_up(&mut self) -> Result<Duration, LedgerError> {
        let written = lock(&self.inputs).len() as u64;
        let (clock, patience) = (Arc::clone(&self.clock), self.options.patience());
        wait::until(&clock, patience, &format!("the output of {written} inputs"), || {
            let seen = self.check()?;
            Ok(seen.accounts >= written && seen.buckets >= written)
        })
    }

    fn wait_for_all_output(&mut self) -> Result<(), LedgerError> {
        self.catch_up().map(drop)
    }
}

/// Prepares the instances of a run.
///
/// # Errors
/// Where a directory cannot be written.
pub fn prepare_instances(
    options: &Options,
    surroundings: &Surroundings<'_>,
    binary: &Path,
    work: &Path,
) -> Result<Vec<Instance>, LedgerError> {
    (0..options.instances)
        .map(|number| Instance::prepare(number, options, surroundings, binary, work))
        .collect()
}
